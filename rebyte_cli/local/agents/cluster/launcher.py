"""The user's launcher: a command in front of the one that runs an agent, to run it elsewhere.

`[local] launcher` (`srun …`) starts the job of a run: the gateway and the jail, on whatever machine
(see node.py). `launcher_stop` (`scancel …`) ends it for certain, after the supervisor was killed,
too: a file in the folder of the run says what ends its job, for as long as there may be one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ....system.files import persistently
from ....system.locks import is_locked
from ....system.redaction import may_be_secret
from ... import service_log

# `${name}` is a shell's own, and JSON has quotes.
PLACEHOLDER = re.compile(r"(?<!\$)\{(\w+)\}", re.ASCII)
PLACEHOLDERS = ("prompt", "workspace")
JOB = "job"  # of the folder of a run
NODE = "node"  # the same; made and locked by what works there
STOP_SECONDS = 30.0  # for `launcher_stop`
END_SECONDS = 10.0  # then for the job to be gone
RETRY_SECONDS = 60.0  # after which the next command that looks tries again what failed
SHORTEST_SECRET = 8
SAID = 2000  # bytes of what a command prints that are searched for its last line


class JobStays(OSError):
    """The job of a run may still be at work; the text says why."""


def unknown_placeholder(words: Iterable[str]) -> str:
    """The first placeholder of a command that has no meaning; empty without one."""
    found = (name for word in words for name in PLACEHOLDER.findall(word))
    return next((name for name in found if name not in PLACEHOLDERS), "")


def why_missing(words: Sequence[str]) -> str:
    """Why this launcher cannot be used here, or an empty text, as for none."""
    if words and sys.platform != "linux":
        return "[local] launcher needs Linux"
    if words and shutil.which(words[0]) is None:
        return f"{words[0]} is not on PATH ([local] launcher)"
    return ""


def filled(words: Sequence[str], folder: Path) -> list[str]:
    """The words of a command for the run of this folder, below that of its workspace."""
    values = {"prompt": folder.name, "workspace": str(folder.parents[1])}
    return [PLACEHOLDER.sub(lambda found: values[found[1]], word) for word in words]


def hidden(
    outside: Mapping[str, str], names: Iterable[str], values: Iterable[str]
) -> frozenset[str]:
    """The variables that a launcher does not get: it may pass on its environment.

    `names` are those that may hold keys, and `values` are keys, wherever they are in `outside`. A
    variable of another program, such as GITHUB_TOKEN, is known by its name or its form.
    """
    secrets = [value for value in values if len(value) >= SHORTEST_SECRET]
    found = (
        name
        for name, value in outside.items()
        if may_be_secret(name, value) or any(one in value for one in secrets)
    )
    return frozenset({*names, *found})


def environment(hidden_names: Collection[str]) -> dict[str, str]:
    """The environment of this process without those variables, and without those for rebyte."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in hidden_names and not name.startswith("REBYTE_")
    }


def begin_job(folder: Path, stop: Sequence[str], hidden_names: Iterable[str]) -> None:
    """Write down, before the launcher starts, what ends the job. Raises OSError."""
    (folder / NODE).unlink(missing_ok=True)  # of an earlier job of the run
    with (folder / JOB).open("w", encoding="utf-8") as file:
        json.dump({"stop": filled(stop, folder), "hidden": sorted(hidden_names)}, file)
        file.flush()
        os.fsync(file.fileno())
    os.utime(folder / JOB, (0, 0))  # when `launcher_stop` failed last


def has_job(folder: Path) -> bool:
    """Whether the run of this folder may have a job."""
    return (folder / JOB).exists()


def has_failed_lately(folder: Path) -> bool:
    """Whether the run of this folder has a job that `launcher_stop` just failed to end."""
    try:
        failed = (folder / JOB).stat().st_mtime
    except OSError:
        return False
    return 0 <= time.time() - failed < RETRY_SECONDS


def forget_job(folder: Path) -> None:
    """Write down that the job has ended."""
    (folder / JOB).unlink(missing_ok=True)


def end_job(state_dir: Path, folder: Path) -> None:
    """End the job of a run, if it may have one. Its lock is held by this process.

    Raises JobStays when `launcher_stop` fails, leaves it at work or is not known, which the
    service's log tells, too; then the next call tries again.
    """
    try:
        job = json.loads((folder / JOB).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except ValueError:  # it was being written: nothing was started yet
        forget_job(folder)
        return
    except OSError as error:
        problem = f"{folder / JOB} cannot be read: {error.strerror}"
    else:
        # Another command than the one that began the job may run this, with secrets of its user.
        variables = environment(hidden(os.environ, job["hidden"], ()))
        problem = _stop(job["stop"], variables)
        if not problem and not persistently(lambda: not is_locked(folder / NODE), END_SECONDS):
            problem = f"`{job['stop'][0]}` succeeded, but the job is still at work"
    if problem:
        problem = f"the launcher's job cannot be ended: {problem}"
        with suppress(OSError):
            os.utime(folder / JOB)
        service_log.add(state_dir, f"run {folder.name}: {problem}")
        raise JobStays(problem)
    forget_job(folder)


def _stop(words: list[str], variables: dict[str, str]) -> str:
    """Run `launcher_stop`: why it failed, or an empty text."""
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=variables,
            timeout=STOP_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"`{words[0]}` took longer than {STOP_SECONDS:g} seconds"
    except OSError as error:
        return f"`{words[0]}` cannot be started: {error.strerror}"
    if done.returncode == 0:
        return ""
    return f"`{words[0]}` ended with status {done.returncode}{last_said(done.stdout)}"


def last_said(output: bytes) -> str:
    """The last line that a command printed, behind a colon; empty if it printed none."""
    lines = output[-SAID:].decode("utf-8", "replace").split("\n")
    return next((f": {line.strip()}" for line in reversed(lines) if line.strip()), "")
