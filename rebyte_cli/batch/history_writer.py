"""What the history learns from a batch: in groups, and never before the journal has it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..deadline import NO_LIMIT, Deadline
from ..errors import RebyteError
from ..history.records import NewTask

if TYPE_CHECKING:
    from .input import InputLine
    from .journal import Journal
    from .reservations import Reservations

DELAY = 0.25  # seconds that a task waits for others to be written with it
LARGEST_GROUP = 100
TaskDocument = Mapping[str, Any]
TasksCreated = Callable[[list[NewTask]], None]
TasksEnded = Callable[[list[TaskDocument]], None]
_KEPT_OF_AN_END = ("id", "title", "status", "completedAt")  # answers can be long


class HistoryWriter:
    """Gathers tasks and passes them on in groups, each once the journal has all of it."""

    def __init__(
        self,
        journal: Journal,
        reservations: Reservations,
        tasks_created: TasksCreated,
        tasks_ended: TasksEnded,
    ) -> None:
        self._journal = journal
        self._reservations = reservations
        self._write_created = tasks_created
        self._write_ended = tasks_ended
        self._created: list[NewTask] = []
        self._ended: list[TaskDocument] = []
        self.due = NO_LIMIT  # when to call `flush` at the latest

    def created(self, line: InputLine, task: TaskDocument, body: TaskDocument) -> None:
        """A task was created for a line, and the journal knows it."""
        self._reservations.release(line.number, str(task["id"]))
        files = list(map(os.path.abspath, line.paths)) or None
        self._created.append(NewTask(task, body["prompt"], body, dict(line.labels), files))
        self._schedule()

    def not_created(self, number: int) -> None:
        """A line has no task, and no create of it is under way."""
        self._reservations.release(number)
        self._schedule()

    def ended(self, task: TaskDocument) -> None:
        """A task ended."""
        self._ended.append({name: task[name] for name in _KEPT_OF_AN_END if name in task})
        self._schedule()

    def flush(self) -> None:
        """Pass on what was gathered. A journal that fails is reported elsewhere."""
        self.due = NO_LIMIT
        created, ended = self._created, self._ended
        self._created, self._ended = [], []
        with suppress(RebyteError):
            self._journal.settle()
            if created:
                self._write_created(created)
            if ended:
                self._write_ended(ended)
            self._reservations.flush()

    def _schedule(self) -> None:
        if self.due is NO_LIMIT:
            self.due = Deadline(DELAY)
        if len(self._created) + len(self._ended) >= LARGEST_GROUP:
            self.flush()
