"""A run of a real agent as the endpoints see it: nothing of it follows from the clock."""

from __future__ import annotations

import sqlite3

from .. import schedule
from ..schedule import NEVER, ScheduledEvent, prompt_of
from . import runs


class RecordedRun(schedule.Run):
    """What was recorded of the run (`record`) of a prompt (`row` of the table `prompts`)."""

    def __init__(self, row: sqlite3.Row, record: runs.RunRecord) -> None:
        self.prompt = prompt_of(row)
        self._record = record
        self.end = NEVER if record.ended is None else record.ended
        self.start = self.end if record.started is None else record.started
        self.outcome = record.outcome or ""

    def answer(self, now: int) -> str | None:
        """The answer's text, once the run has ended by itself."""
        return None if self.outcome == "canceled" or now < self.end else self._record.answer

    def events(self, db: sqlite3.Connection, first: int = 0) -> list[ScheduledEvent]:
        """The events that were recorded so far, from place `first` on."""
        return [ScheduledEvent(*event) for event in runs.events(db, self.prompt.id, first)]

    def cancel(self, db: sqlite3.Connection, now: int) -> None:
        """Record that the run was canceled, unless it has an end already."""
        runs.end(db, self.prompt.id, now, "canceled", "")
