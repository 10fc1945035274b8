"""What the history is told of a batch: a little later than the journal, never earlier.

A lost answer is looked for among tasks that the history does not know. A task that stood there
while the journal did not name it yet would be overlooked after a crash, and made twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ...errors import RebyteError

if TYPE_CHECKING:
    from .claims import Claims
    from .journal import Journal

PAUSE = 0.25  # seconds
MOST = 100
Task = Mapping[str, Any]
Made = Callable[[list[tuple[Task, str, Task]]], None]  # tasks, their prompts, their bodies
Ended = Callable[[list[Task]], None]


class Memory:
    """Gathers tasks and hands them on in parcels, each when the journal has all of it."""

    def __init__(self, journal: Journal, claims: Claims, made: Made, ended: Ended) -> None:
        self._journal = journal
        self._claims = claims
        self._tell_made = made
        self._tell_ended = ended
        self._made: list[tuple[Task, str, Task]] = []
        self._ended: list[Task] = []
        self.due: float | None = None  # when to call `flush` at the latest

    def made(self, number: int, task: Task, body: Task) -> None:
        """A task was created for a line, and noted in the journal."""
        self._claims.over(number, str(task["id"]))
        self._made.append((task, body["prompt"], body))
        self._later()

    def not_made(self, number: int) -> None:
        """A line has no task, and nothing of it is under way."""
        self._claims.over(number)
        self._later()

    def ended(self, task: Task) -> None:
        """A task ended. Only what the history keeps is held: answers can be long."""
        names = ("id", "title", "status", "completedAt")
        self._ended.append({name: task[name] for name in names if name in task})
        self._later()

    def flush(self) -> None:
        """Hand on what was gathered. A journal that fails is for others to report."""
        self.due = None
        made, ended = self._made, self._ended
        self._made, self._ended = [], []
        with suppress(RebyteError):
            self._journal.settle()
            if made:
                self._tell_made(made)
            if ended:
                self._tell_ended(ended)
            self._claims.flush()

    def _later(self) -> None:
        if self.due is None:
            self.due = time.monotonic() + PAUSE
        if len(self._made) + len(self._ended) >= MOST:
            self.flush()
