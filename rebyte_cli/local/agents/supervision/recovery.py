"""Runs whose process is gone, or has to go: what is left to do is done by whatever looks next.

A run without an end whose lock is free has lost its supervisor: it failed, unless it only waited
for a usage limit. `recover` is called before runs are looked at.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ....system import process_identity
from ....system.deadline import Deadline
from ...store import Store
from ..cluster import launcher
from ..limits import run_meter, usage_limit
from ..limits.account_limit import AccountLimit
from . import outbox, run_lock, runs, spawn
from .run_lock import AGENT_IS_GONE, NO_LOCK
from .runs import RunRecord

VANISHED = "The run's process is gone: it was killed, or this machine was restarted"
STOP_SECONDS = 5.0


def recover(store: Store, task: str | None = None) -> None:
    """Record the end of the runs (of a task, or all) that lost their process, but give those
    another that only waited for a usage limit. Call it before asking what runs do. Raises OSError.

    What is left to do of runs that have ended is done, too: whatever should have done it may have
    been killed, or their jobs could not be ended.
    """
    with store.read() as db:
        found = runs.unended(db, "task", task) if task else runs.unended(db)
        ended = runs.unfinished(db)
    for run in ended:
        lately = launcher.has_failed_lately(run.folder(store.folder))
        if not lately and not run_lock.is_held(store.folder, run):
            _finish_ended(store, run)
    for run in found:
        if run_lock.is_held(store.folder, run):  # as most are; much faster than `claimed`
            continue
        with run_lock.claimed(store.folder, run) as lock:
            if lock is not None and not restart_if_waiting(store, run, lock):
                _bury(store, run, lock)


def _finish_ended(store: Store, run: RunRecord) -> None:
    """Start a process that does what is left to do of a run, unless another does that."""
    with run_lock.claimed(store.folder, run) as lock:
        with store.read() as db:
            is_left = run.prompt in [each.prompt for each in runs.unfinished(db)]
        if lock is None or not is_left:
            return
        if lock != NO_LOCK:
            _start_finishing(store.folder, run, lock)
            return
        with store.write() as db:  # its folder is gone
            runs.record_used(db, run.prompt, {}, is_all=True)


def waits_for_limit(store: Store, run: RunRecord) -> AccountLimit | None:
    """The limit that a run without an end waits for, which works on nothing; None for others."""
    if run.ended is not None or (run.started is not None and run.parked is None):
        return None
    with store.read() as db:
        account = usage_limit.waited_for(runs.options_of(db, run))
    limit = AccountLimit(str(store.folder), account)
    return limit if account and (run.parked is not None or limit.resumes_at()) else None


def restart_if_waiting(store: Store, run: RunRecord, lock: int) -> bool:
    """Give a run that lost its process another one, if it only waited for a usage limit.

    Its lock is held here, so nothing else does the same. Whether that is so. Where the agent's key
    or login is missing, it waits for a command that has it.
    """
    if lock == NO_LOCK:
        return False
    if left := outbox.left_behind(run.folder(store.folder)):
        with store.write() as db:
            runs.record(db, store.folder, run, left)
    with store.read() as db:
        run = runs.load(db, [run.prompt])[run.prompt]
        options = runs.options_of(db, run)
        before = run_lock.locks_before(db, store.folder, run.prompt)
    if waits_for_limit(store, run) is None:
        return False
    from .accounts import has_credential

    if has_credential(options):
        with contextlib.suppress(OSError):  # the next command tries again
            spawn.start(store.folder, run.prompt, os.dup(lock), options, before)
    return True


def stop(state_dir: Path, run: RunRecord, *, seconds: float = STOP_SECONDS) -> str:
    """Kill the agent of a run whose end is recorded, and return when it is dead.

    Its supervisor has so many seconds, and that of a job longer. Returns why its job may still be
    at work, or an empty text.
    """
    folder, asked = run.folder(state_dir), False
    problem = "its job has not ended yet"
    if launcher.has_job(folder):
        seconds += launcher.STOP_SECONDS + launcher.END_SECONDS
    deadline = Deadline(seconds)
    while run_lock.is_held(state_dir, run):
        content = run_lock.text(state_dir, run)
        if content == AGENT_IS_GONE and not launcher.has_job(folder):
            return ""
        late = deadline.has_passed
        # After a reboot, or while another command holds the lock, its process may be unrelated.
        supervisor = process_identity.find(content)
        if supervisor is not None and (late or not asked):
            asked = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(supervisor, signal.SIGKILL if late else signal.SIGTERM)
        if late:
            time.sleep(0.1)  # to die in
            break
        time.sleep(0.01)
    with run_lock.claimed(state_dir, run) as lock:
        # Anything else in it: it was killed.
        killed = run_lock.text(state_dir, run) != AGENT_IS_GONE
        if lock is not None and (killed or launcher.has_job(folder)):
            try:
                launcher.end_job(state_dir, folder)
            except launcher.JobStays as error:  # `recover` tries again
                problem = str(error)
            else:
                _start_finishing(state_dir, run, lock)
    return problem if launcher.has_job(folder) else ""


def stop_all(state_dir: Path, found: Iterable[RunRecord]) -> str:
    """`stop` the runs whose end was recorded since they were read, and others whose job stays.

    Returns why a job may still be at work, or an empty text.
    """
    problem = ""
    for run in found:
        if run.ended is None or launcher.has_job(run.folder(state_dir)):
            problem = stop(state_dir, run) or problem
    return problem


def _bury(store: Store, run: RunRecord, lock: int) -> None:
    """Record the end of a run that lost its supervisor; what it changed is kept a moment later."""
    folder = run.folder(store.folder)
    with store.read() as db:
        options = runs.options_of(db, run)
    # The gateway of a job ends when `_start_finishing` ends that, and is then read once more.
    seconds = 0.0 if launcher.has_job(folder) else run_meter.END_SECONDS
    used = run_meter.left_behind(folder, options, seconds=seconds)
    with store.write() as db:
        record_vanished(db, store.folder, run, used)
        # Before the end is recorded for good: if this process is killed, the next one does it all.
        _start_finishing(store.folder, run, lock)


def record_vanished(
    db: sqlite3.Connection, state_dir: Path, run: RunRecord, used: dict[str, Any]
) -> None:
    """Record that a run has failed because its supervisor is gone, unless it has an end.

    What it printed is recorded, and what its gateway saw it use (`run_meter.left_behind`).
    """
    now = int(time.time() * 1000)
    runs.record(db, state_dir, run, outbox.left_behind(run.folder(state_dir)))
    runs.record_used(db, run.prompt, used)
    if not runs.end(db, run.prompt, now, "failed", VANISHED):
        return
    if run.started is not None:  # the workspace may have changed since the last patch
        runs.drop_patch(db, state_dir, run.workspace)
    runs.append(db, run.prompt, now, "result", {"status": "failed", "result": VANISHED})


def _start_finishing(state_dir: Path, run: RunRecord, lock: int) -> None:
    """Start a process that does, with the run's lock, what its supervisor left to do.

    git may take a while for that, and only those who need the patch wait for it.
    """
    if lock == NO_LOCK or run.started is None:
        return
    run_lock.say(lock, AGENT_IS_GONE)
    with contextlib.suppress(OSError):  # the patch is missing then, and `workspace path` disarms
        spawn.start(state_dir, run.prompt, os.dup(lock), options=None)
