"""Programs that a test needs: they must be there, and they must work."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest

from tests.surroundings import ENTERED

ROOT = Path(__file__).parents[1]
SECONDS = 60


class Trial(NamedTuple):
    """A short run that only a working program ends with `status`, and `says` in what it prints."""

    arguments: tuple[str, ...] = ("--version",)
    stdin: str = ""
    says: str = ""
    status: int = 0


# Of the programs whose version says too little, or that have no such option.
TRIALS = {
    "bwrap": Trial(("--dev-bind", "/", "/", "--unshare-pid", "--proc", "/proc", "true")),
    "cron": Trial(("-h",), says="usage:", status=1),
    "dash": Trial(("-c", ":")),
    # Images of containers have a `man` that only says how to install it.
    "man": Trial(("-l", "-"), ".TH X 1\nIt works.\n", "It works."),
    "mandoc": Trial((os.devnull,)),
    "sh": Trial(("-c", ":")),
    "slurmctld": Trial(("-V",)),
    "slurmd": Trial(("-V",)),
    "ssh": Trial(("-V",)),
    "ssh-keygen": Trial(("-l", "-f", os.devnull), says="is not a public key", status=255),
    "sshd": Trial(("-V",)),
    "tmux": Trial(("-V",)),
}


def need_tool(name: str) -> str:
    """The path of a program that works here; see `lack` for the others."""
    path = shutil.which(name)
    if path is None:
        lack(f"{name} is not installed")
    problem = _problem(path)
    if problem:
        lack(f"{name} does not work: {problem}")
    return path


def lack(reason: str) -> NoReturn:
    """Skip the test because this machine lacks something; in CI, where nothing may, fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def need_jail() -> None:
    """Do not run the test where no jail can be made; one trial for all workers."""
    from rebyte_cli.local.agents.sandbox import jail

    check = jail.probe(Path(os.environ[ENTERED]) / "jail.json")
    if not check.works:
        lack(f"no jail here: {check.reason}")


@functools.cache
def _problem(path: str) -> str | None:
    trial = TRIALS.get(Path(path).name, Trial())
    try:
        done = subprocess.run(
            [path, *trial.arguments],
            input=trial.stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == trial.status and trial.says in done.stdout + done.stderr:
        return None
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return lines[-1] if lines else f"status {done.returncode}"


def run_with_tools(folder: Path, module: str, *, ci: str) -> subprocess.CompletedProcess[str]:
    """`python -m MODULE` where only the programs in `folder` can be found."""
    return subprocess.run(
        [sys.executable, "-m", module],
        env={"PATH": str(folder), "CI": ci},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
