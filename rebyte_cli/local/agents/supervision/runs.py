"""Runs of real agents as they are recorded: when each began and ended, how, and its events.

A run holds the lock of its folder from before it is recorded until its supervisor ends. A run
without an end whose lock is free has lost its supervisor: it failed. `recover` records that, which
is called before runs are looked at.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ....system import process_identity
from ....system.deadline import Deadline
from ....system.files import flocked
from ....system.locks import flock, is_locked
from ....system.permissions import make_folder
from ...artifact_store import ANSWER_FILE, PATCH_FILE, put_result, remove
from ...store import Store
from ..cluster import launcher
from ..limits import run_meter, usage_limit
from ..limits.account_limit import AccountLimit
from ..workspaces.workspace_folder import Workspace
from . import outbox, spawn

LOCK = "lock"
VANISHED = "The run's process is gone: it was killed, or this machine was restarted"
# What the lock's file says when the agent is dead and only its results are being collected.
AGENT_IS_GONE = "gone"
NO_LOCK = -1
STOP_SECONDS = 5.0
# How long an artifact is waited for: less than a client waits for an answer.
COLLECT_SECONDS = 20.0


class RunRecord(NamedTuple):
    """One run; times in milliseconds since 1970, None for what has not happened."""

    prompt: str
    task: str
    workspace: str
    agent: str
    queued: int
    started: int | None
    ended: int | None
    outcome: str | None
    answer: str | None
    session: str | None
    used: str | None = None  # JSON, as `usage_of` takes it
    parked: int | None = None  # since when it waits for a usage limit to be reset
    worked: int = 0  # milliseconds before that


class RecordedEvent(NamedTuple):
    """One event of a run, with its place and the moment it was recorded."""

    seq: int
    at: int
    kind: str
    payload: dict[str, Any]


# Runs that have ended, and something is left to do: what they used is not recorded yet.
LEFT = "started IS NOT NULL AND ended IS NOT NULL AND counted = 0"


def find(db: sqlite3.Connection, which: str, *values: object) -> list[RunRecord]:
    """The runs for which the SQL condition `which`, of our own words, is true, oldest first."""
    columns = ", ".join(RunRecord._fields)
    sql = f"SELECT {columns} FROM runs WHERE {which} ORDER BY seq"  # noqa: S608 - ours
    return [RunRecord(*row) for row in db.execute(sql, values).fetchall()]


def add(
    db: sqlite3.Connection,
    place: tuple[str, str, str],
    agent: str,
    now: int,
    options: dict[str, Any],
) -> None:
    """Queue the run of `place` (task, workspace, prompt), whose lock is held (see `lock_new`)."""
    db.execute(
        "INSERT INTO runs (task, workspace, prompt, agent, queued, options)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (*place, agent, now, json.dumps(options)),
    )


def load(db: sqlite3.Connection, prompts: list[str]) -> dict[str, RunRecord]:
    """The runs of these prompts by prompt id, as they are recorded (see `recover`)."""
    found = find(db, "prompt IN (SELECT value FROM json_each(?))", json.dumps(prompts))
    return {run.prompt: run for run in found}


def unended(db: sqlite3.Connection, column: str = "", value: str = "") -> list[RunRecord]:
    """The runs that wait or work, oldest first: all, or those whose `column` is `value`."""
    if column:
        return find(db, f"ended IS NULL AND {column} = ?", value)
    return find(db, "ended IS NULL")


def recover(store: Store, task: str | None = None) -> None:
    """Record the end of the runs (of a task, or all) that lost their process, but give those
    another that only waited for a usage limit. Call it before asking what runs do. Raises OSError.

    What is left to do of runs that were canceled is done, too: whatever should have done it may
    have been killed.
    """
    with store.read() as db:
        found = unended(db, "task", task) if task else unended(db)
        ended = left(db)
    for run in ended:
        if not is_held(store.folder, run):
            _finish(store, run)
    for run in found:
        if is_held(store.folder, run):  # as most are; much faster than `claimed`
            continue
        with claimed(store.folder, run) as lock:
            if lock is not None and not revive(store, run, lock):
                _bury(store, run, lock)


def left(db: sqlite3.Connection) -> list[RunRecord]:
    """The runs that have ended, and of which something is left to do."""
    return find(db, LEFT)


def _finish(store: Store, run: RunRecord) -> None:
    """Start a process that does what is left to do of a run, unless another does that."""
    with claimed(store.folder, run) as lock:
        with store.read() as db:
            is_left = run.prompt in [each.prompt for each in left(db)]
        if lock is None or not is_left:
            return
        if lock != NO_LOCK:
            _leave_rest(store.folder, run, lock)
            return
        with store.write() as db:  # its folder is gone
            record_used(db, run.prompt, {}, is_all=True)


def queue_place(store: Store, run: RunRecord) -> dict[str, Any] | None:
    """`position` (1 is the next) and `message` of a run that waits; None if it begins just now."""
    with store.read() as db:
        seq, slots = db.execute(
            "SELECT seq, json_extract(options, '$.parallel') FROM runs WHERE prompt = ?",
            (run.prompt,),
        ).fetchone()
        others = db.execute(
            "SELECT started IS NULL AS waits, seq < ? AS is_before FROM runs"
            " WHERE ended IS NULL AND parked IS NULL AND prompt != ?",
            (seq, run.prompt),
        ).fetchall()
        before = locks_before(db, store.folder, run.prompt)
    position = 1 + sum(waits and is_before for waits, is_before in others)
    if before:
        what = "until its workspace is free"
    elif sum(not waits for waits, _ in others) + position > slots:
        what = f"until fewer than {slots} runs work ([local] parallel)"
    else:
        return None
    return {"position": position, "message": f"number {position} in the queue, waits {what}"}


def events(db: sqlite3.Connection, prompt: str, first: int = 0) -> list[RecordedEvent]:
    """The events of a run from number `first` on."""
    rows = db.execute(
        "SELECT seq, at, kind, payload FROM run_events WHERE prompt = ? AND seq >= ? ORDER BY seq",
        (prompt, first),
    )
    return [RecordedEvent(row[0], row[1], row[2], json.loads(row[3])) for row in rows]


def told_so_far(db: sqlite3.Connection, prompt: str, note: str) -> tuple[int, int, bool]:
    """The place of the next event of a run, the characters of all so far, and whether one is this
    `note`.
    """
    next_place, size, has_note = db.execute(
        "SELECT coalesce(max(seq) + 1, 0), coalesce(sum(length(payload)), 0),"
        " coalesce(max(payload = ?), 0) FROM run_events WHERE prompt = ?",
        (json.dumps({"content": note}), prompt),
    ).fetchone()
    return next_place, size, bool(has_note)


def record(
    db: sqlite3.Connection, state_dir: Path, run: RunRecord, records: Iterable[outbox.Record]
) -> None:
    """Record what a supervisor kept; what was recorded before stays as it is."""
    for kind, *values in records:
        if kind == "event":
            _add_event(db, run.prompt, *values)
        elif kind == "session":
            db.execute("UPDATE runs SET session = ? WHERE prompt = ?", (*values, run.prompt))
        elif kind == "used":
            record_used(db, run.prompt, *values)
        elif kind == "moved":
            agent, options = values
            db.execute(
                "UPDATE runs SET agent = ?, options = ?, session = NULL"
                " WHERE prompt = ? AND ended IS NULL",
                (agent, options, run.prompt),
            )
            for table, column, value in (("prompts", "id", run.prompt), ("tasks", "id", run.task)):
                sql = f"UPDATE {table} SET executor = ?, model = '' WHERE {column} = ?"  # noqa: S608
                db.execute(sql, (agent, value))
        elif kind == "parked":
            db.execute(
                "UPDATE runs SET parked = ?, worked = ? WHERE prompt = ? AND ended IS NULL",
                (*values, run.prompt),
            )
        elif kind == "model":
            db.execute(
                "UPDATE tasks SET model = ? WHERE id = ? AND model = ''", (*values, run.task)
            )
        elif kind == "end":
            _record_end(db, state_dir, run, *values)


def _add_event(
    db: sqlite3.Connection, prompt: str, seq: int, at: int, kind: str, payload: object
) -> None:
    db.execute(
        "INSERT OR IGNORE INTO run_events VALUES (?, ?, ?, ?, ?)",
        (prompt, seq, at, kind, json.dumps(payload)),
    )


def _record_end(
    db: sqlite3.Connection,
    state_dir: Path,
    run: RunRecord,
    seq: int,
    at: int,
    payload: dict[str, Any],
) -> None:
    """Record the artifacts, the result event and the end."""
    objects = state_dir / "objects"
    try:
        folder = Workspace(state_dir, run.workspace).run_folder(run.prompt)
        patch = (folder / PATCH_FILE).read_bytes()
    except FileNotFoundError:
        # That of an earlier run is not what is in the workspace now, and `apply` would take it.
        remove(objects, db, run.workspace, PATCH_FILE)
    else:
        put_result(objects, db, run.workspace, PATCH_FILE, patch, at)
    word, answer = payload["status"], payload["result"]
    if not end(db, run.prompt, at, word, answer):
        return
    _add_event(db, run.prompt, seq, at, "result", payload)
    if word == "succeeded" and answer:
        content = answer.encode("utf-8", "replace") + b"\n"
        put_result(objects, db, run.workspace, ANSWER_FILE, content, at)


def record_used(
    db: sqlite3.Connection, prompt: str, used: dict[str, Any], is_all: bool = False
) -> None:
    """Record what a run has used so far (see `RunMeter.used`), if that is known.

    Until it `is_all`, budgets read the record of its gateway, too.

    A cost that only the agent told stays, unless there were more requests since; fewer requests are
    no news: what was used is not given back.
    """
    if is_all:
        db.execute("UPDATE runs SET counted = 1 WHERE prompt = ?", (prompt,))
    if used:
        row = db.execute("SELECT used FROM runs WHERE prompt = ?", (prompt,)).fetchone()
        known = json.loads(row[0]) if row and row[0] else {}
        before, after = known.get("requests", 0), used.get("requests", 0)
        if before > after:
            return
        if before == after:
            used = known | used
        db.execute("UPDATE runs SET used = ? WHERE prompt = ?", (json.dumps(used), prompt))


def count_use(store: Store, workspace: str) -> None:
    """Record what the ended runs of a workspace have used, before the records are removed with it.

    Their supervisors may be about to do that, or be gone.
    """
    with store.read() as db:
        rows = db.execute(
            f"SELECT prompt, options FROM runs WHERE workspace = ? AND {LEFT}",  # noqa: S608
            (workspace,),
        ).fetchall()
    place = Workspace(store.folder, workspace)
    for prompt, options in rows:
        used = run_meter.left_behind(place.run_folder(prompt), json.loads(options))
        with store.write() as db:
            record_used(db, prompt, used, is_all=True)


def append(db: sqlite3.Connection, prompt: str, at: int, kind: str, payload: object) -> None:
    """Record one more event."""
    db.execute(
        "INSERT INTO run_events SELECT ?, coalesce(max(seq), -1) + 1, ?, ?, ?"
        " FROM run_events WHERE prompt = ?",
        (prompt, at, kind, json.dumps(payload), prompt),
    )


def source(db: sqlite3.Connection, workspace: str) -> list[Any] | None:
    """What the workspace was made from, by the first run that was to make it; None without one."""
    row = db.execute(
        "SELECT options FROM runs WHERE workspace = ? ORDER BY seq LIMIT 1", (workspace,)
    ).fetchone()
    return None if row is None else list(json.loads(row[0])["source"])


def had_jail(db: sqlite3.Connection, workspace: str) -> bool:
    """Whether a run of the workspace is, or was to be, in a jail."""
    row = db.execute(
        "SELECT 1 FROM runs WHERE workspace = ? AND json_extract(options, '$.jail') LIMIT 1",
        (workspace,),
    ).fetchone()
    return row is not None


def end(db: sqlite3.Connection, prompt: str, at: int, outcome: str, answer: str) -> bool:
    """Record the end, unless one is recorded already: the first one counts."""
    changed = db.execute(
        "UPDATE runs SET ended = ?, outcome = ?, answer = ? WHERE prompt = ? AND ended IS NULL",
        (at, outcome, answer, prompt),
    )
    return bool(changed.rowcount)


def newest(db: sqlite3.Connection, workspace: str) -> RunRecord | None:
    """The last run of a workspace."""
    found = find(db, "seq = (SELECT max(seq) FROM runs WHERE workspace = ?)", workspace)
    return found[0] if found else None


def has_ended(db: sqlite3.Connection, prompt: str) -> bool:
    """Whether the end of a run is recorded."""
    sql = "SELECT 1 FROM runs WHERE prompt = ? AND ended IS NOT NULL"
    return db.execute(sql, (prompt,)).fetchone() is not None


def cancel(db: sqlite3.Connection, column: str, value: str, now: int) -> list[RunRecord]:
    """Record as canceled the runs whose `column` (task, workspace) is `value`; those runs."""
    found = unended(db, column, value)
    return [run for run in found if end(db, run.prompt, now, "canceled", "")]


def last_session(db: sqlite3.Connection, task: str, agent: str) -> str | None:
    """The agent's own session, which the next run of this task resumes."""
    row = db.execute(
        "SELECT session FROM runs WHERE task = ? AND agent = ? AND session IS NOT NULL"
        " ORDER BY seq DESC LIMIT 1",
        (task, agent),
    ).fetchone()
    return None if row is None else str(row[0])


def last_answer(db: sqlite3.Connection, task: str) -> str:
    """The answer of the last run of a task that has ended, if it succeeded; or nothing."""
    row = db.execute(
        "SELECT answer FROM runs WHERE task = ? AND outcome = 'succeeded' AND seq = (SELECT"
        " max(seq) FROM runs WHERE task = ? AND ended IS NOT NULL)",
        (task, task),
    ).fetchone()
    return "" if row is None else str(row[0] or "")


def used_before(db: sqlite3.Connection, prompt: str, session: str) -> dict[str, float]:
    """What the runs of an agent's session before that of `prompt` used, as their ends say."""
    rows = db.execute(
        "SELECT payload FROM runs JOIN run_events USING (prompt) WHERE session = ? AND task ="
        " (SELECT task FROM runs WHERE prompt = ?) AND runs.prompt != ? AND kind = 'result'",
        (session, prompt, prompt),
    )
    total: dict[str, float] = {}
    for row in rows:
        payload = json.loads(row[0])
        used = {**payload.get("usage", {}), "cost_usd": payload.get("cost_usd", 0)}
        for name, number in used.items():
            if isinstance(number, int | float):
                total[name] = total.get(name, 0) + number
    return total


# The lock of a run


def lock_new(state_dir: Path, workspace: str, prompt: str) -> int:
    """Make the folder of a new run and take its lock; the descriptor that holds it."""
    folder = Workspace(state_dir, workspace).run_folder(prompt)
    make_folder(folder)
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    flock(descriptor)
    return descriptor


def locks_before(db: sqlite3.Connection, state_dir: Path, prompt: str) -> list[Path]:
    """The lock files of the runs that this one has to wait for: those still held before it."""
    found = find(
        db,
        "workspace = (SELECT workspace FROM runs WHERE prompt = ?)"
        " AND seq < (SELECT seq FROM runs WHERE prompt = ?)",
        prompt,
        prompt,
    )
    return [_lock_file(state_dir, run) for run in found if is_held(state_dir, run)]


def say(lock: int, text: str) -> None:
    """Write into the file of a held lock what `stop` and `at_work` read there."""
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
        try:
            place = _lock_file(state_dir, run)
            lock = stack.enter_context(flocked(place, wait=wait, create=True))
        except FileNotFoundError:
            lock = NO_LOCK
        yield lock


@contextlib.contextmanager
def claimed(state_dir: Path, run: RunRecord) -> Iterator[int | None]:
    """As `held`, but None when anyone else has the lock.

    It is held while the run is cleaned up, so that the next run of the workspace, which waits
    for it, gets its login files after those of this one are removed.
    """
    with contextlib.ExitStack() as stack:
        try:
            lock = stack.enter_context(held(state_dir, run, wait=False))
        except BlockingIOError:
            yield None
        else:
            yield lock


def stop(state_dir: Path, run: RunRecord) -> None:
    """Kill the agent of a run whose end is recorded, and return when it is dead."""
    folder = _lock_file(state_dir, run).parent
    seconds, asked = STOP_SECONDS, False
    if launcher.has_job(folder):
        seconds += launcher.STOP_SECONDS + launcher.END_SECONDS
    deadline = Deadline(seconds)
    while is_held(state_dir, run):
        content = _content(_lock_file(state_dir, run))
        if content == AGENT_IS_GONE:
            return
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
    with claimed(state_dir, run) as lock:
        # Anything else in it: it was killed.
        if lock is not None and _content(_lock_file(state_dir, run)) != AGENT_IS_GONE:
            with contextlib.suppress(OSError):  # the log says it, and the next one tries again
                launcher.end_job(state_dir, folder)
            _leave_rest(state_dir, run, lock)


def wait_for_results(state_dir: Path, run: RunRecord) -> None:
    """Wait until the supervisor of a run whose end is recorded has written the patch, and ended."""
    deadline = Deadline(COLLECT_SECONDS)
    while is_held(state_dir, run) and not deadline.has_passed:
        time.sleep(0.02)


def _lock_file(state_dir: Path, run: RunRecord) -> Path:
    # As `Workspace.run_folder`, in one step: a thousand runs may wait, and each is asked about.
    return state_dir.joinpath("workspaces", run.workspace, "runs", run.prompt, LOCK)


def _content(lock: Path) -> str:
    try:
        return lock.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def waits_for_limit(store: Store, run: RunRecord) -> AccountLimit | None:
    """The limit that a run without an end waits for, which works on nothing; None for others."""
    if run.ended is not None or (run.started is not None and run.parked is None):
        return None
    with store.read() as db:
        account = usage_limit.waited_for(options_of(db, run))
    limit = AccountLimit(str(store.folder), account)
    return limit if account and (run.parked is not None or limit.resumes_at()) else None


def revive(store: Store, run: RunRecord, lock: int) -> bool:
    """Give a run that lost its process another one, if it only waited for a usage limit.

    Its lock is held here, so nothing else does the same. Whether that is so. Where the agent's key
    or login is missing, it waits for a command that has it.
    """
    if lock == NO_LOCK:
        return False
    if left := outbox.left_behind(_lock_file(store.folder, run).parent):
        with store.write() as db:
            record(db, store.folder, run, left)
    with store.read() as db:
        run = load(db, [run.prompt])[run.prompt]
        options, before = options_of(db, run), locks_before(db, store.folder, run.prompt)
    if waits_for_limit(store, run) is None:
        return False
    from .accounts import has_credential

    if has_credential(options):
        slots, account = options["parallel"], usage_limit.waited_for(options)
        with contextlib.suppress(OSError):  # the next command tries again
            spawn.start(store.folder, run.prompt, os.dup(lock), slots, before, account=account)
    return True


def options_of(db: sqlite3.Connection, run: RunRecord) -> dict[str, Any]:
    """The options of a run, as it was created with them."""
    sql = "SELECT options FROM runs WHERE prompt = ?"
    found: dict[str, Any] = json.loads(db.execute(sql, (run.prompt,)).fetchone()[0])
    return found


def _bury(store: Store, run: RunRecord, lock: int) -> None:
    """Record the end of a run that lost its supervisor; what it changed is kept a moment later."""
    folder = Workspace(store.folder, run.workspace).run_folder(run.prompt)
    with store.read() as db:
        options = options_of(db, run)
    # The gateway of a job ends when `_leave_rest` ends that, and is then read once more.
    seconds = 0.0 if launcher.has_job(folder) else run_meter.END_SECONDS
    used = run_meter.left_behind(folder, options, seconds=seconds)
    with store.write() as db:
        record_vanished(db, store.folder, run, used)
        # Before the end is recorded for good: if this process is killed, the next one does it all.
        _leave_rest(store.folder, run, lock)


def record_vanished(
    db: sqlite3.Connection, state_dir: Path, run: RunRecord, used: dict[str, Any]
) -> bool:
    """Record that a run has failed because its supervisor is gone, unless it has an end.

    What it printed is recorded, and what its gateway saw it use (`run_meter.left_behind`). Whether
    the end was recorded here.
    """
    now = int(time.time() * 1000)
    folder = Workspace(state_dir, run.workspace).run_folder(run.prompt)
    record(db, state_dir, run, outbox.left_behind(folder))
    record_used(db, run.prompt, used)
    if not end(db, run.prompt, now, "failed", VANISHED):
        return False
    if run.started is not None:  # the workspace may have changed since the last patch
        remove(state_dir / "objects", db, run.workspace, PATCH_FILE)
    append(db, run.prompt, now, "result", {"status": "failed", "result": VANISHED})
    return True


def _leave_rest(state_dir: Path, run: RunRecord, lock: int) -> None:
    """Start a process that does, with the run's lock, what its supervisor left to do.

    git may take a while for that, and only those who need the patch wait for it.
    """
    if lock == NO_LOCK or run.started is None:
        return
    say(lock, AGENT_IS_GONE)
    with contextlib.suppress(OSError):  # the patch is missing then, and `workspace path` disarms
        spawn.start(state_dir, run.prompt, os.dup(lock), 0)


def at_work(state_dir: Path, workspace: str, sleep: Callable[[float], None] = time.sleep) -> bool:
    """Whether an agent works in the workspace, or is about to; its results are waited for."""
    deadline = Deadline(COLLECT_SECONDS)
    for lock in Workspace(state_dir, workspace).folder.glob(f"runs/*/{LOCK}"):
        while is_locked(lock):
            if _content(lock) != AGENT_IS_GONE or deadline.has_passed:
                return True
            sleep(0.05)
    return False
