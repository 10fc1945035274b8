"""Run a command of a repository in a jail that has nothing of ours: its setup, or a tryout.

A tryout is of files that an agent has written. It has a separate folder with `code/`, the files,
and `home/`, an empty HOME. No key, no login and no proxy of the user is in its environment, and it
has no network but the hosts it is given.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

from ....system.deadline import Deadline
from ....system.files import tail, take_lock
from ....system.locks import flock
from ....system.permissions import make_folder
from ....system.process_group import ProcessGroup
from ...ballast import full_disk
from ...gateway import request_record
from .. import agent_files, config
from ..adapters.adapter import without_sequences
from ..adapters.model_access import AgentAccess
from ..exposed import Mount
from ..sandbox import RECORDS, jail, user_tools
from ..sandbox.egress import LIST, Egress, EgressFailed, egress_for, refused_hosts
from ..sandbox.jail_group import JailGroup, end_rest
from ..sandbox.jailed_program import JailedProgram, prepare
from .workspace_folder import BASE, Workspace

LARGEST_OUTPUT = 64 << 20  # bytes
LOOK_SECONDS = 0.1
PIECE, LARGEST_PIPE = 65_536, 1 << 20
TIMED_OUT = 124  # as `timeout` of coreutils says it
CODE, HOME, LOCK = "code", "home", "lock"
SETUP_LOG, SETUP_RECORD = "setup.log", "setup"  # of the folder of a run
SETUP_SECONDS = 1800.0  # the run's own limit may be shorter
YOUNG_SECONDS = 60.0  # the age of a folder without a sandbox that may not be locked yet


class TryoutEnd(NamedTuple):
    """How a command ended: its exit status, and the `reason` if it was stopped."""

    status: int
    reason: str = ""


class NoJail(Exception):
    """No jail can be made here; `remedy` says what to do, if that is known."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.remedy = remedy


def check_jail() -> None:
    """Raise NoJail unless jails work on this machine."""
    check = jail.probe(None)
    if not check.works:
        raise NoJail(check.reason, check.fix)


def base_repository(state_dir: Path, workspace: str) -> Path | None:
    """The repository whose `refs/heads/base` a workspace started from; None without one here.

    `state_dir` is the folder of the local service.
    """
    base = state_dir / "workspaces" / workspace / BASE
    return base if "/" not in workspace and base.is_dir() else None


@contextlib.contextmanager
def folder(above: Path) -> Iterator[Path]:
    """A folder for one tryout below `above`, while the block runs. Raises OSError.

    Those that a process which was killed has left are removed, with whatever runs there.
    """
    make_folder(above)
    for left in above.glob("tree-*"):
        with contextlib.suppress(OSError):
            remove_unused(left)
    made = Path(tempfile.mkdtemp(prefix="tree-", dir=above))
    release = take_lock(made / LOCK) or (lambda: None)  # no one else has one that young
    try:
        for name in (CODE, HOME):
            (made / name).mkdir(mode=0o700)
        yield made
    finally:
        _remove(made)
        release()


def remove_unused(place: Path) -> None:
    """Remove a tryout's folder, unless a process still uses it, or may have just made it.

    Raises OSError where it is gone, as another process removes it, too.
    """
    is_young = time.time() - place.stat().st_mtime <= YOUNG_SECONDS
    if is_young and not (place / RECORDS).exists():
        return
    with contextlib.suppress(BlockingIOError), (place / LOCK).open("ab") as lock:
        flock(lock.fileno(), wait=False)
        _remove(place)


def _remove(place: Path) -> None:
    with contextlib.suppress(OSError):
        end_rest(place)
    agent_files.remove_tree(place)


def run(
    place: Path,
    command: str,
    log: Path,
    *,
    seconds: float,
    jailed: bool,
    hosts: Sequence[str] = (),
    settings: Path | None,
    stopped: Callable[[], bool] = lambda: False,
) -> TryoutEnd:
    """Run `sh -c COMMAND` in `code/` of a tryout's folder, for `seconds` at most.

    What it prints is written to `log`, 64 MiB at most. Every process that it started is dead at the
    end; without the jail, every one of its process group. The jail reaches `hosts`, and nothing
    else. `settings` is config.toml, which names the tools and caches that a jail shows. It is ended
    soon after `stopped` says so. Raises OSError, and config.ConfigError.
    """
    layout = jail.layout_of(place, jailed=jailed)
    outside = {
        name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")
    }
    chosen = config.load(settings)
    options = {"tools": chosen.tools, "caches": chosen.caches} if jailed else {}
    reached = hosts if jailed else ()
    with log.open("wb", buffering=0) as output, _egress_to(place, reached) as egress:
        own = user_tools.own_folders(settings and settings.parent, place.parents[1])
        words, ci = ["sh", "-c", command], {"CI": "true"}
        program = prepare(layout, words, egress, options, outside, own=own, variables=ci)
        problem = partial(_problem, egress, stopped, full(place, settings))
        end = until_end(program, output, seconds, problem)
    if egress is not None:
        with log.open("a") as text:
            for host in filter(None, request_record.refusals(str(place / request_record.FILE))):
                text.write(f"[requests to {host} were refused: it is no host of this check]\n")
    if log.stat().st_size > LARGEST_OUTPUT:
        os.truncate(log, LARGEST_OUTPUT)
    return end


def full(place: Path, settings: Path | None) -> Callable[[], str]:
    """What tells that the disk of a tryout's folder is too full by config.toml, and how full.

    Raises config.ConfigError.
    """
    return partial(full_disk, place, config.load(settings).keep_free)


def _egress_to(place: Path, hosts: Sequence[str]) -> AbstractContextManager[Egress | None]:
    """The way to these hosts, which is there while the block runs; None for none at all."""
    if not hosts:
        return contextlib.nullcontext()
    options = {"jail": True, "network": LIST, "hosts": list(hosts)}
    return egress_for(options, AgentAccess(), os.environ, place)


def _problem(egress: Egress | None, stopped: Callable[[], bool], full: Callable[[], str]) -> str:
    """Why a command cannot continue, or an empty text. Raises EgressFailed without its gateway."""
    if egress is not None and (problem := egress.problem()):
        raise EgressFailed(problem)
    return "it was stopped" if stopped() else full()


def run_setup(
    workspace: Workspace,
    command: str,
    options: Mapping[str, Any],
    folder: Path,
    *,
    held: Callable[[bool], None],
    problem: Callable[[], str],
) -> TryoutEnd:
    """Run what a repository asks for before an agent works on it: its setup, in a new workspace.

    It runs in a jail like the agent's, between the clone and the agent: with the hosts of the run,
    but without its models, keys and logins, and with a HOME that is thrown away. What it prints is
    in SETUP_LOG of the run's `folder`.

    `held` is told when a signal has to wait, and when it may come: between, the jail starts.
    `problem` is asked a few times a second why it has to end. Everything that it started is dead
    at the end. Raises OSError.
    """
    limit = min(options["limit"] or SETUP_SECONDS, SETUP_SECONDS)
    record = folder / SETUP_RECORD
    record.mkdir(mode=0o700, exist_ok=True)
    with (
        agent_files.new_folder(workspace.folder, "setup-home.") as home,
        egress_for(options, AgentAccess(), os.environ, record) as egress,
        (folder / SETUP_LOG).open("wb", buffering=0) as log,
    ):
        layout = jail.layout_of(workspace.folder, jailed=True)
        layout = layout._replace(home=Mount(home, jail.HOME))
        own = user_tools.own_folders(options.get("configDir"), workspace.state_dir)
        words, ci = ["sh", "-c", command], {"CI": "true"}
        program = prepare(layout, words, egress, options, os.environ, own=own, variables=ci)
        return until_end(program, log, limit, lambda: egress.problem() or problem(), held)


def refused_in_setup(folder: Path) -> list[str]:
    """What the setup of a run was refused of the network, a line for each host."""
    return refused_hosts(folder / SETUP_RECORD / request_record.FILE)


def until_end(
    program: JailedProgram,
    log: IO[bytes],
    seconds: float,
    problem: Callable[[], str],
    held: Callable[[bool], object] = bool,
) -> TryoutEnd:
    """Run a command, and copy what it prints to `log`, for so many seconds at most.

    `log` is unbuffered. `problem` says why the command cannot continue, or an empty text. `held` is
    told when a signal has to wait, and when it may come: between, the command starts. Everything
    that it started is dead at the end. Raises OSError.
    """
    held(True)
    # A pipe, so that the command has no file: it could open that again, fill it with gigabytes, and
    # give it another mode.
    with program.start(stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as group:
        held(False)
        return _copied(group, log, seconds, problem)


def _copied(
    group: JailGroup, log: IO[bytes], seconds: float, problem: Callable[[], str]
) -> TryoutEnd:
    deadline = Deadline(seconds)
    while True:
        status = group.process.poll()
        if status is not None:
            for _ in range(LARGEST_PIPE // PIECE):  # what it has started may print for ever
                if not _copy(group, log, 0):
                    break
            return TryoutEnd(128 - status if status < 0 else status)
        _copy(group, log, LOOK_SECONDS)
        if log.tell() > LARGEST_OUTPUT:
            return TryoutEnd(TIMED_OUT, f"it printed more than {LARGEST_OUTPUT >> 20} MiB")
        if deadline.has_passed:
            return TryoutEnd(TIMED_OUT, f"it ran longer than {seconds:g} s and was ended")
        if reason := problem() or group.overdue():
            return TryoutEnd(TIMED_OUT, reason)


def _copy(group: ProcessGroup, log: IO[bytes], seconds: float) -> bool:
    """Write the next piece that a command prints to the log; false if none came in this time."""
    assert group.process.stdout is not None
    descriptor = group.process.stdout.fileno()
    if not select.select([descriptor], [], [], seconds)[0]:
        return False
    piece = os.read(descriptor, PIECE)
    log.write(piece)
    if not piece and seconds:  # it has closed its output, and may still run
        with contextlib.suppress(subprocess.TimeoutExpired):
            group.process.wait(seconds)
    return bool(piece)


def last_lines(log: Path, *, lines: int = 40, characters: int = 4000) -> str:
    """The end of what a command has printed, without the sequences that steer a terminal."""
    text = tail(log, 8 * characters).decode("utf-8", "replace")
    kept = without_sequences(text).replace("\r\n", "\n").rstrip().split("\n")[-lines:]
    return "\n".join(kept)[-characters:]
