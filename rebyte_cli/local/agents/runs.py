"""Runs of real agents as they are recorded: when each began and ended, how, and its events.

A run holds the lock of its folder from before it is recorded until its supervisor ends. A run
without an end whose lock is free has lost its supervisor: it failed. The next reader records that.
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

from ..database import make_folder, new_id
from . import credentials, process_identity, spool
from .workspace import Workspace

LOCK = "lock"
VANISHED = "The run's process is gone: it was killed, or this machine was restarted"
# What the lock's file says when the agent is dead and only its results are being collected.
AGENT_IS_GONE = "gone"
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


class RecordedEvent(NamedTuple):
    """One event of a run, with its place and the moment it was recorded."""

    seq: int
    at: int
    kind: str
    payload: dict[str, Any]


PATCH = "changes.patch"
ARTIFACT_TYPES = {
    PATCH: "text/x-diff; charset=utf-8",
    "answer.md": "text/markdown; charset=utf-8",
}
COLUMNS = ", ".join(RunRecord._fields)


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


def state_dir_of(db: sqlite3.Connection) -> Path:
    """The state folder whose database this is."""
    return Path(db.execute("PRAGMA database_list").fetchone()[2]).parent


def load(db: sqlite3.Connection, prompts: list[str]) -> dict[str, RunRecord]:
    """The runs of these prompts by prompt id. Records the end of those that lost their process."""
    result, state_dir = _load(db, prompts), state_dir_of(db)
    for run in list(result.values()):
        if run.ended is None:
            with _claimed(state_dir, run) as claimed:
                if claimed:
                    _record_vanished(db, state_dir, run)
            if claimed:
                result |= _load(db, [run.prompt])
    return result


def unended(db: sqlite3.Connection) -> list[RunRecord]:
    """The runs that wait or work, oldest first."""
    rows = db.execute("SELECT prompt FROM runs WHERE ended IS NULL ORDER BY seq").fetchall()
    found = load(db, [row[0] for row in rows])
    return [run for run in found.values() if run.ended is None]


def events(db: sqlite3.Connection, prompt: str, first: int = 0) -> list[RecordedEvent]:
    """The events of a run from number `first` on."""
    rows = db.execute(
        "SELECT seq, at, kind, payload FROM run_events WHERE prompt = ? AND seq >= ? ORDER BY seq",
        (prompt, first),
    )
    return [RecordedEvent(row[0], row[1], row[2], json.loads(row[3])) for row in rows]


def record(
    db: sqlite3.Connection, state_dir: Path, run: RunRecord, records: Iterable[spool.Record]
) -> None:
    """Record what a supervisor kept; what was recorded before stays as it is."""
    for kind, *values in records:
        if kind == "event":
            _add_event(db, run.prompt, *values)
        elif kind == "session":
            db.execute("UPDATE runs SET session = ? WHERE prompt = ?", (*values, run.prompt))
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
        patch = (Workspace(state_dir, run.workspace).run_folder(run.prompt) / PATCH).read_bytes()
    except FileNotFoundError:
        # That of an earlier run is not what is in the workspace now, and `apply` would take it.
        _drop_artifact(db, objects, run.workspace, PATCH)
    else:
        keep_artifact(db, objects, run.workspace, PATCH, patch, at)
    word, answer = payload["status"], payload["result"]
    if not end(db, run.prompt, at, word, answer):
        return
    _add_event(db, run.prompt, seq, at, "result", payload)
    if word == "succeeded" and answer:
        content = answer.encode("utf-8", "replace") + b"\n"
        keep_artifact(db, objects, run.workspace, "answer.md", content, at)


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


def cancel(db: sqlite3.Connection, column: str, value: str, now: int) -> list[RunRecord]:
    """Record as canceled the runs whose `column` (task, workspace) is `value`; those runs."""
    rows = db.execute(
        f"SELECT prompt FROM runs WHERE {column} = ? AND ended IS NULL",  # noqa: S608 - our names
        (value,),
    ).fetchall()
    found = load(db, [row[0] for row in rows])
    return [run for run in found.values() if end(db, run.prompt, now, "canceled", "")]


def last_session(db: sqlite3.Connection, task: str, agent: str) -> str | None:
    """The agent's own session, which the next run of this task resumes."""
    row = db.execute(
        "SELECT session FROM runs WHERE task = ? AND agent = ? AND session IS NOT NULL"
        " ORDER BY seq DESC LIMIT 1",
        (task, agent),
    ).fetchone()
    return None if row is None else str(row[0])


def keep_artifact(
    db: sqlite3.Connection, objects: Path, workspace: str, name: str, content: bytes, now: int
) -> None:
    """Store an artifact of the workspace in place of the one with the same name."""
    object_id, kind = new_id(), ARTIFACT_TYPES[name]
    partial = objects / f"{object_id}.part"
    partial.write_bytes(content)
    os.replace(partial, objects / object_id)
    _drop_artifact(db, objects, workspace, name)
    db.execute(
        "INSERT INTO artifacts VALUES (?, ?, ?, ?, ?, ?, 0, 0)",
        (workspace, name, object_id, kind, len(content), now),
    )


def _drop_artifact(db: sqlite3.Connection, objects: Path, workspace: str, name: str) -> None:
    rows = db.execute(
        "DELETE FROM artifacts WHERE workspace = ? AND filename = ? RETURNING object",
        (workspace, name),
    )
    for row in rows.fetchall():
        (objects / row[0]).unlink(missing_ok=True)


# The lock of a run


def lock_new(state_dir: Path, workspace: str, prompt: str) -> int:
    """Make the folder of a new run and take its lock; the descriptor that holds it."""
    import fcntl

    folder = Workspace(state_dir, workspace).run_folder(prompt)
    make_folder(folder)
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def locks_before(db: sqlite3.Connection, prompt: str) -> list[Path]:
    """The lock files of the runs that this one has to wait for: those still held before it."""
    rows = db.execute(
        f"SELECT {COLUMNS} FROM runs WHERE workspace ="  # noqa: S608 - names of our own fields
        " (SELECT workspace FROM runs WHERE prompt = ?) AND seq <"
        " (SELECT seq FROM runs WHERE prompt = ?) ORDER BY seq",
        (prompt, prompt),
    ).fetchall()
    state_dir = state_dir_of(db)
    found = [RunRecord(*row) for row in rows]
    return [_lock_file(state_dir, run) for run in found if is_held(state_dir, run)]


def is_held(state_dir: Path, run: RunRecord) -> bool:
    """Whether a supervisor (or the process that starts it) holds the run's lock."""
    return _is_locked(_lock_file(state_dir, run))


def _is_locked(file: Path) -> bool:
    import fcntl

    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # Shared, so that two who look at the same moment do not take each other for the holder.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def wait_for(state_dir: Path, run: RunRecord) -> None:
    """Wait until the run's supervisor has ended, and clean up after one that was killed."""
    import fcntl

    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(_lock_file(state_dir, run), os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            _clean_up(state_dir, run)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _claimed(state_dir: Path, run: RunRecord) -> Iterator[bool]:
    """Hold the lock of a run whose supervisor is gone: true; false when anyone else has it.

    It is held while the run is cleaned up, so that the next run of the workspace, which waits
    for it, gets its login files after those of this one are removed.
    """
    import fcntl

    try:
        descriptor = os.open(_lock_file(state_dir, run), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield True
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(descriptor)


def stop(state_dir: Path, run: RunRecord) -> None:
    """Kill the agent of a run whose end is recorded, and return when it is dead."""
    deadline, asked = time.monotonic() + STOP_SECONDS, False
    while is_held(state_dir, run):
        content = _content(_lock_file(state_dir, run))
        if content == AGENT_IS_GONE:
            return
        late = time.monotonic() > deadline
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
    with _claimed(state_dir, run) as claimed:
        if claimed:
            _clean_up(state_dir, run)


def wait_for_results(state_dir: Path, run: RunRecord) -> None:
    """Wait until the supervisor of a run whose end is recorded has written the patch, and ended."""
    deadline = time.monotonic() + COLLECT_SECONDS
    while is_held(state_dir, run) and time.monotonic() < deadline:
        time.sleep(0.02)


def _lock_file(state_dir: Path, run: RunRecord) -> Path:
    return Workspace(state_dir, run.workspace).run_folder(run.prompt) / LOCK


def _content(lock: Path) -> str:
    try:
        return lock.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _load(db: sqlite3.Connection, prompts: list[str]) -> dict[str, RunRecord]:
    rows = db.execute(
        f"SELECT {COLUMNS} FROM runs"  # noqa: S608 - names of our own fields
        " WHERE prompt IN (SELECT value FROM json_each(?)) ORDER BY seq",
        (json.dumps(prompts),),
    )
    return {row[0]: RunRecord(*row) for row in rows}


def _record_vanished(db: sqlite3.Connection, state_dir: Path, run: RunRecord) -> None:
    notes = _clean_up(state_dir, run)
    now = int(time.time() * 1000)
    with _transaction(db):
        folder = Workspace(state_dir, run.workspace).run_folder(run.prompt)
        record(db, state_dir, run, spool.left_behind(folder))
        if end(db, run.prompt, now, "failed", VANISHED):
            if run.started is not None:  # the workspace may have changed since the last patch
                _drop_artifact(db, state_dir / "objects", run.workspace, PATCH)
            for note in notes:
                append(db, run.prompt, now, "text", {"content": note})
            append(db, run.prompt, now, "result", {"status": "failed", "result": VANISHED})


def _clean_up(state_dir: Path, run: RunRecord) -> list[str]:
    """Do what a supervisor that was killed left undone, with the logins and in the workspace.

    The result says what an agent had changed in the logins and may not.
    """
    from ...system.git import GitFailed
    from .disarm import disarm

    workspace = Workspace(state_dir, run.workspace)
    notes = credentials.take_back(workspace.run_folder(run.prompt))
    try:
        disarm(workspace)
    except (OSError, GitFailed) as error:  # `workspace path` tries again
        notes.append(f"git is not safe in the folder of the workspace: {error}")
    return notes


def at_work(state_dir: Path, workspace: str, sleep: Callable[[float], None] = time.sleep) -> bool:
    """Whether an agent works in the workspace, or is about to; its results are waited for."""
    give_up = time.monotonic() + COLLECT_SECONDS
    for lock in Workspace(state_dir, workspace).folder.glob(f"runs/*/{LOCK}"):
        while _is_locked(lock):
            if _content(lock) != AGENT_IS_GONE or time.monotonic() > give_up:
                return True
            sleep(0.05)
    return False


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    """A transaction, unless the connection is in one already."""
    if db.in_transaction:
        yield
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")
