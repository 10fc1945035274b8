"""Runs of real agents as they are recorded: when each began and ended, how, and its events."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from ...artifact_store import ANSWER_FILE, PATCH_FILE, put_result, remove
from ...run_interface import ScheduledEvent
from ...store import Store
from ..limits import run_meter
from ..workspaces.workspace_folder import Workspace, WorkspaceSource
from . import outbox

GONE = "What agents left in its workspace was removed; of that, only its artifacts are kept"
GONE_HINT = (
    "Take the changes with `rebyte apply`, or save them with `rebyte artifact get`,"
    " then create a task with a new workspace"
)


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

    def folder(self, state_dir: Path) -> Path:
        """As `Workspace.run_folder`, in one step: a thousand may wait, and each is asked about."""
        return state_dir.joinpath("workspaces", self.workspace, "runs", self.prompt)


# Runs that have ended, and something is left to do: what they used is not recorded yet.
UNFINISHED = "started IS NOT NULL AND ended IS NOT NULL AND counted = 0"


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
    """Queue the run of `place` (task, workspace, prompt), whose `run_lock` is held."""
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


def counts(db: sqlite3.Connection) -> dict[str, int]:
    """How many runs work (`running`), and how many wait for a slot or a usage limit (`queued`)."""
    found = unended(db)
    running = sum(run.started is not None and run.parked is None for run in found)
    return {"running": running, "queued": len(found) - running}


def unfinished(db: sqlite3.Connection) -> list[RunRecord]:
    """The runs that have ended, and of which something is left to do."""
    return find(db, UNFINISHED)


def leave_unfinished(db: sqlite3.Connection, prompt: str) -> None:
    """Record that something is to be done of a run that has ended, until all that it used is
    recorded once more.
    """
    db.execute("UPDATE runs SET counted = 0 WHERE prompt = ?", (prompt,))


def events(db: sqlite3.Connection, prompt: str, first: int = 0) -> list[ScheduledEvent]:
    """The events of a run from number `first` on."""
    rows = db.execute(
        "SELECT seq, at, kind, payload FROM run_events WHERE prompt = ? AND seq >= ? ORDER BY seq",
        (prompt, first),
    )
    return [ScheduledEvent(row[0], row[1], row[2], json.loads(row[3])) for row in rows]


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
            for table, name in (("prompts", run.prompt), ("tasks", run.task)):
                sql = f"UPDATE {table} SET executor = ?, model = '' WHERE id = ?"  # noqa: S608
                db.execute(sql, (agent, name))
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
        patch = (run.folder(state_dir) / PATCH_FILE).read_bytes()
    except FileNotFoundError:
        drop_patch(db, state_dir, run.workspace)
    else:
        put_result(objects, db, run.workspace, PATCH_FILE, patch, at)
    word, answer = payload["status"], payload["result"]
    if not end(db, run.prompt, at, word, answer):
        return
    _add_event(db, run.prompt, seq, at, "result", payload)
    if word == "succeeded" and answer:
        content = answer.encode("utf-8", "replace") + b"\n"
        put_result(objects, db, run.workspace, ANSWER_FILE, content, at)


def drop_patch(db: sqlite3.Connection, state_dir: Path, workspace: str) -> None:
    """Remove the stored patch: it is not what is in the workspace now, and `apply` would take it.

    Where nothing is in the workspace now, it stays: nothing else has what it says. So it does where
    nothing has worked since it was made.
    """
    place = Workspace(state_dir, workspace)
    if place.is_there and not place.has_note:
        remove(state_dir / "objects", db, workspace, PATCH_FILE)


def is_gone(db: sqlite3.Connection, state_dir: Path, workspace: str) -> bool:
    """Whether runs have left something in a workspace, and it is not there any more (GONE).

    No run may begin there: a new clone, and the patch of what that changes, would replace it.
    """
    if Workspace(state_dir, workspace).base.is_dir():
        return False
    sql = (
        "SELECT 1 FROM runs WHERE workspace = ? AND started IS NOT NULL AND ended IS NOT NULL"
        " AND (outcome = 'succeeded' OR EXISTS (SELECT 1 FROM artifacts"
        " WHERE artifacts.workspace = runs.workspace AND filename = ?))"
    )
    return db.execute(sql, (workspace, PATCH_FILE)).fetchone() is not None


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
    """End the jobs of the ended runs of a workspace, and record what the runs have used, before the
    records are removed with it.

    Their supervisors may be about to do that, or be gone. Raises JobStays.
    """
    place = Workspace(store.folder, workspace)
    place.end_jobs()
    with store.read() as db:
        rows = db.execute(
            f"SELECT prompt, options FROM runs WHERE workspace = ? AND {UNFINISHED}",  # noqa: S608
            (workspace,),
        ).fetchall()
    for prompt, options in rows:
        used = run_meter.left_behind(place.run_folder(prompt), json.loads(options))
        with store.write() as db:
            record_used(db, prompt, used, is_all=True)


def begun(db: sqlite3.Connection, workspace: str) -> list[str]:
    """The runs of a workspace that have begun, by prompt id, newest first."""
    found = find(db, "workspace = ? AND started IS NOT NULL", workspace)
    return [run.prompt for run in reversed(found)]


def append(db: sqlite3.Connection, prompt: str, at: int, kind: str, payload: object) -> None:
    """Record one more event."""
    db.execute(
        "INSERT INTO run_events SELECT ?, coalesce(max(seq), -1) + 1, ?, ?, ?"
        " FROM run_events WHERE prompt = ?",
        (prompt, at, kind, json.dumps(payload), prompt),
    )


def source(db: sqlite3.Connection, workspace: str) -> WorkspaceSource | None:
    """What the workspace was made from, by the first run that was to make it; None without one."""
    row = db.execute(
        "SELECT options FROM runs WHERE workspace = ? ORDER BY seq LIMIT 1", (workspace,)
    ).fetchone()
    return None if row is None else WorkspaceSource(*json.loads(row[0])["source"])


def has_uploads(db: sqlite3.Connection, workspace: str) -> bool:
    """Whether files were uploaded to any run of a workspace, which stay there after it."""
    sql = (
        "SELECT 1 FROM runs WHERE workspace = ? AND json_array_length(options, '$.uploads') LIMIT 1"
    )
    return db.execute(sql, (workspace,)).fetchone() is not None


def begin(db: sqlite3.Connection, prompt: str, at: int) -> bool:
    """Record that a run works, since `at` unless it did before; false if an end is recorded."""
    changed = db.execute(
        "UPDATE runs SET started = coalesce(started, ?), parked = NULL"
        " WHERE prompt = ? AND ended IS NULL",
        (at, prompt),
    )
    return bool(changed.rowcount)


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


def cancel(db: sqlite3.Connection, now: int, column: str = "", value: str = "") -> list[RunRecord]:
    """Record as canceled the runs that `unended` finds; those runs, as they were before."""
    found = unended(db, column, value)
    return [run for run in found if end(db, run.prompt, now, "canceled", "")]


def last_options(db: sqlite3.Connection, task: str) -> tuple[str, dict[str, Any]] | None:
    """The agent and the options of the last real run of a task; None when it has none."""
    row = db.execute(
        "SELECT agent, options FROM runs WHERE task = ? ORDER BY seq DESC LIMIT 1", (task,)
    ).fetchone()
    return None if row is None else (str(row[0]), json.loads(row[1]))


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


def options_of(db: sqlite3.Connection, run: RunRecord) -> dict[str, Any]:
    """The options of a run, as it was created with them."""
    sql = "SELECT options FROM runs WHERE prompt = ?"
    found: dict[str, Any] = json.loads(db.execute(sql, (run.prompt,)).fetchone()[0])
    return found
