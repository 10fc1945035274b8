"""The lock of a run: a file of its folder, held from before the run is recorded until it is over.

A supervisor holds it, or the process that starts or replaces one. Its text says which process that
is, or that the agent is dead and only the results of the run are being collected.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ....system.deadline import Deadline
from ....system.files import flocked, persistently
from ....system.locks import flock, is_locked
from ....system.permissions import make_folder
from ..workspaces.workspace_folder import Workspace
from . import runs
from .runs import RunRecord

LOCK = "lock"
AGENT_IS_GONE = "gone"
NO_LOCK = -1
# How long an artifact is waited for: less than a client waits for an answer.
COLLECT_SECONDS = 20.0


def take_new(state_dir: Path, workspace: str, prompt: str) -> int:
    """Make the folder of a new run and take its lock. The descriptor that holds it."""
    folder = Workspace(state_dir, workspace).run_folder(prompt)
    make_folder(folder)
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    flock(descriptor)
    return descriptor


def locks_before(db: sqlite3.Connection, state_dir: Path, prompt: str) -> list[Path]:
    """The lock files of the runs that this one has to wait for: those still held before it."""
    found = runs.find(
        db,
        "workspace = (SELECT workspace FROM runs WHERE prompt = ?)"
        " AND seq < (SELECT seq FROM runs WHERE prompt = ?)",
        prompt,
        prompt,
    )
    return [_lock_file(state_dir, run) for run in found if is_held(state_dir, run)]


def say(lock: int, text: str) -> None:
    """Write into the file of a held lock what `recovery.stop` and `wait_until_free` read there."""
    os.ftruncate(lock, 0)
    os.pwrite(lock, text.encode(), 0)


def is_held(state_dir: Path, run: RunRecord) -> bool:
    """Whether a supervisor (or the process that starts it) holds the run's lock."""
    return is_locked(_lock_file(state_dir, run))


@contextlib.contextmanager
def held(state_dir: Path, run: RunRecord, *, wait: bool = True) -> Iterator[int]:
    """Hold the lock of a run, once its supervisor has ended; the descriptor.

    It is NO_LOCK if the run has no folder any more. Without `wait`, see `flocked`.
    """
    with contextlib.ExitStack() as stack:
        lock = NO_LOCK
        with contextlib.suppress(FileNotFoundError):
            place = _lock_file(state_dir, run)
            lock = stack.enter_context(flocked(place, wait=wait, create=True))
        yield lock


@contextlib.contextmanager
def claimed(state_dir: Path, run: RunRecord) -> Iterator[int | None]:
    """As `held`, but None when anyone else has the lock.

    It is held while the run is cleaned up, so that the next run of the workspace, which waits
    for it, gets its login files after those of this one are removed.
    """
    lock: int | None = None
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(BlockingIOError):
            lock = stack.enter_context(held(state_dir, run, wait=False))
        yield lock


def text(state_dir: Path, run: RunRecord) -> str:
    """What the file of a run's lock says; empty if it says nothing, or is not there."""
    return _text(_lock_file(state_dir, run))


def wait_until_collected(state_dir: Path, run: RunRecord) -> None:
    """Wait until the supervisor of a run whose end is recorded has written the patch, and ended."""
    persistently(lambda: not is_held(state_dir, run), COLLECT_SECONDS)


def wait_until_free(
    state_dir: Path, workspace: str, sleep: Callable[[float], None] = time.sleep
) -> bool:
    """Wait up to 20 seconds for the results of runs that are being collected in the workspace.

    Whether it is free then: no agent works there or is about to, nor may one whose job could not be
    ended. An agent itself is not waited for.
    """
    deadline, place = Deadline(COLLECT_SECONDS), Workspace(state_dir, workspace)
    for lock in place.folder.glob(f"runs/*/{LOCK}"):
        while is_locked(lock):
            if _text(lock) != AGENT_IS_GONE or deadline.has_passed:
                return False
            sleep(0.05)
    return not place.has_jobs()


def has_agent(state_dir: Path, workspace: str) -> bool:
    """Whether an agent works in the workspace, or is about to; waits for nothing."""
    locks = Workspace(state_dir, workspace).folder.glob(f"runs/*/{LOCK}")
    return any(is_locked(lock) and _text(lock) != AGENT_IS_GONE for lock in locks)


def _lock_file(state_dir: Path, run: RunRecord) -> Path:
    return run.folder(state_dir) / LOCK


def _text(lock: Path) -> str:
    try:
        return lock.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
