"""When the prompts of a task run, and how they end: one interface for every kind of run.

A `Run` is one prompt on its way. A `SimulatedRun` (`simulation.py`) derives everything from what
was planned and from the clock; a `RecordedRun` (`agents/recorded.py`) reads what was recorded
while a real agent worked. Endpoints use the interface alone.

A task is `running` while any of its prompts is pending or running; otherwise the latest prompt
decides (seed document). Prompts of one task run one after another. Times are milliseconds since
1970.
"""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

NEVER = 1 << 62
TASK_STATUS = {"succeeded": "completed", "failed": "failed", "canceled": "canceled"}


class ReceivedPrompt(NamedTuple):
    """One prompt as it was received."""

    id: str
    task: str
    text: str
    executor: str
    model: str
    submitted: int


def prompt_of(row: sqlite3.Row) -> ReceivedPrompt:
    """The prompt in a row of the table `prompts`."""
    return ReceivedPrompt(
        row["id"], row["task"], row["text"], row["executor"], row["model"], row["submitted"]
    )


class ScheduledEvent(NamedTuple):
    """One event of a run: `order` is its stable place, `at` when it becomes visible."""

    order: int
    at: int
    kind: str
    payload: dict[str, Any]


class PendingQuestion(NamedTuple):
    """What a run waits on until it is answered; `parts` is how many questions it asks at once."""

    message: str
    action: int
    parts: int


class Run(ABC):
    """One prompt on its way.

    `start` and `end` are NEVER while they are not known; `outcome` is the prompt's status from
    `end` on: `succeeded`, `failed` or `canceled`.
    """

    prompt: ReceivedPrompt
    start: int
    end: int
    outcome: str
    # What only a simulation does, because its prompt asked for it.
    has_event_keys = True
    cut_after = 0  # events after which a stream breaks off, 0 for never
    is_done_early = False  # whether a stream gets `done` before the first event

    def status(self, now: int) -> str:
        """The prompt's status at `now`, in the words of the wire."""
        if now >= self.end:
            return self.outcome
        return "running" if now >= self.start else "pending"

    def ended_at(self, now: int) -> int | None:
        """When the run ended, or None at a moment before that."""
        return self.end if now >= self.end else None

    @abstractmethod
    def answer(self, now: int) -> str | None:
        """The answer's text; None while it cannot be read yet and when there is none."""

    def has_changes(self, now: int) -> bool:
        """Whether its own changes can be told from those of other runs in the workspace."""
        return False

    @abstractmethod
    def events(self, db: sqlite3.Connection, first: int = 0) -> list[ScheduledEvent]:
        """The events from place `first` on, in order. Some may become visible only later."""

    @abstractmethod
    def cancel(self, db: sqlite3.Connection, now: int) -> None:
        """Record, in the transaction of `db`, that the run was canceled at `now`."""

    def queue(self, db: sqlite3.Connection) -> dict[str, Any] | None:
        """Its `position` in the queue and a `message` what it waits for; None if it has begun."""
        return None

    def preparing(self, db: sqlite3.Connection) -> str:
        """What is done before the agent starts, such as `cloning, 480 MB`; empty for nothing."""
        return ""

    def sub_events(self, db: sqlite3.Connection, sub_prompt: str) -> list[ScheduledEvent] | None:
        """The events of a delegated sub-prompt; None when this run has no such sub-prompt."""
        return None

    def question(self, now: int) -> PendingQuestion | None:
        """The question that waits for its answer at `now`, or None."""
        return None

    def reply(self, db: sqlite3.Connection, now: int, reply: dict[str, Any]) -> None:
        """Record the answer to the question that waits."""
        raise NotImplementedError
