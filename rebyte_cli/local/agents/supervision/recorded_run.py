"""The run of a real agent as the endpoints see it: nothing of it follows from the clock."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from ... import run_interface
from ...run_interface import NEVER, RunUsage, ScheduledEvent, prompt_of, usage_of
from ...store import Store
from ..workspaces.workspace_folder import Workspace
from . import recovery, run_lock, runs


class RecordedRun(run_interface.Run):
    """What was recorded of the run (`record`) of a prompt (`row` of the table `prompts`)."""

    def __init__(self, row: sqlite3.Row, record: runs.RunRecord) -> None:
        self.prompt = prompt_of(row)
        self._record = record
        self.end = NEVER if record.ended is None else record.ended
        self.start = self.end if record.started is None else record.started
        self.outcome = record.outcome or ""

    def answer(self, now: int) -> str | None:
        """The answer's text, once the run has ended by itself."""
        return None if self.outcome == "canceled" else self._record.answer

    def horizon(self, now: int) -> int:
        """Whatever was recorded has happened, though the clock may have been set back since."""
        return NEVER - 1

    def has_begun(self, now: int) -> bool:
        """Whether that was recorded."""
        return self._record.started is not None

    def has_changes(self, now: int) -> bool:
        """Whether it began, and has ended: what it changed is kept, or about to be."""
        return self.has_begun(now) and self._record.ended is not None

    def events(self, db: sqlite3.Connection, first: int = 0) -> list[ScheduledEvent]:
        """The events that were recorded so far, from place `first` on."""
        return runs.events(db, self.prompt.id, first)

    def usage(self, now: int) -> RunUsage | None:
        """What was recorded of it so far; nothing was used by a run that ended before it began."""
        if self._record.used is None:
            is_known = self._record.ended is not None and self._record.started is None
            return RunUsage(0, 0, 0, 0, 0.0) if is_known else None
        return usage_of(json.loads(self._record.used))

    def ended_by(self, db: sqlite3.Connection) -> str | None:
        """What its result event says."""
        if self.outcome != "failed":
            return None
        ends = [each for each in runs.events(db, self.prompt.id) if each.kind == "result"]
        return ends[-1].payload.get("ended_by") if ends else None

    def resumes_at(self, store: Store, now: int) -> int | None:
        """When the limit is reset that it waits for."""
        limit = recovery.waits_for_limit(store, self._record)
        return None if limit is None else limit.resumes_at()

    def queue(self, store: Store) -> dict[str, Any] | None:
        """Its place in the queue; None once it has begun, or has ended."""
        if self._record.started is None and self._record.ended is None:
            return _queue_place(store, self._record.prompt)
        return None

    def preparing(self, store: Store) -> str:
        """What is done before the agent starts, if that takes a while."""
        if self._record.started is None or self._record.ended is not None:
            return ""
        return Workspace(store.folder, self._record.workspace).cloning()

    def cancel(self, db: sqlite3.Connection, now: int) -> None:
        """Record that the run was canceled, unless it has an end already."""
        runs.end(db, self.prompt.id, now, "canceled", "")


def _queue_place(store: Store, prompt: str) -> dict[str, Any] | None:
    """`position` (1 is the next) and `message` of a run that waits; None if it begins just now."""
    with store.read() as db:
        seq, slots = db.execute(
            "SELECT seq, json_extract(options, '$.parallel') FROM runs WHERE prompt = ?",
            (prompt,),
        ).fetchone()
        others = db.execute(
            "SELECT started IS NULL AS waits, seq < ? AS is_before FROM runs"
            " WHERE ended IS NULL AND parked IS NULL AND prompt != ?",
            (seq, prompt),
        ).fetchall()
        before = run_lock.locks_before(db, store.folder, prompt)
    position = 1 + sum(waits and is_before for waits, is_before in others)
    if before:
        what = "until its workspace is free"
    elif sum(not waits for waits, _ in others) + position > slots:
        what = f"until fewer than {slots} runs work ([local] parallel)"
    else:
        return None
    return {"position": position, "message": f"number {position} in the queue, waits {what}"}
