"""When the prompts of a task run, and how they end: one interface for every kind of run.

A `Run` is one prompt on its way. A `SimulatedRun` (`simulation.py`) derives everything from what
was planned and from the clock; a `RecordedRun` (`recorded_run.py`) reads what was recorded while a
real agent worked. Endpoints use the interface alone.

A task is `running` while any of its prompts is pending or running; otherwise the latest prompt
decides (seed document). Prompts of one task run one after another. Times are milliseconds since
1970.
"""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from .store import Store

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
    return ReceivedPrompt(*(row[name] for name in ReceivedPrompt._fields))


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


class RunUsage(NamedTuple):
    """What runs used of their models. `requests` and `cost_usd` are None if they are not known.

    `uncounted` of the requests had no answer that said what they used.
    """

    requests: int | None
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    cost_usd: float | None
    uncounted: int = 0


def usage_of(counts: object) -> RunUsage | None:
    """The usage in what was recorded of a run, or None: the words of `token_counts`."""
    if not isinstance(counts, dict):
        return None
    found = {name: counts.get(name) for name in RunUsage._fields}
    numbers = {
        name: value
        for name, value in found.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
    }
    if "input_tokens" not in numbers and "output_tokens" not in numbers:
        return None
    cost = numbers.pop("cost_usd", None)
    uncounted = counts.get("uncounted")
    hidden = uncounted.get("requests") if isinstance(uncounted, dict) else 0
    whole = {name: int(value) for name, value in numbers.items()}
    return RunUsage(
        whole.get("requests"),
        whole.get("input_tokens", 0),
        whole.get("cached_input_tokens", 0),
        whole.get("output_tokens", 0),
        None if cost is None else float(cost),
        hidden if type(hidden) is int else 0,
    )


def sum_of(several: list[RunUsage]) -> RunUsage:
    """What runs used together. What one of them does not know, the sum does not know either."""
    requests = [one.requests for one in several if one.requests is not None]
    costs = [one.cost_usd for one in several if one.cost_usd is not None]
    return RunUsage(
        sum(requests) if len(requests) == len(several) else None,
        sum(one.input_tokens for one in several),
        sum(one.cached_input_tokens for one in several),
        sum(one.output_tokens for one in several),
        round(sum(costs), 9) if len(costs) == len(several) else None,
        sum(one.uncounted for one in several),
    )


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
        if self.end <= self.horizon(now):
            return self.outcome
        return "running" if self.start <= self.horizon(now) else "pending"

    def ended_at(self, now: int) -> int | None:
        """When the run ended, or None at a moment before that."""
        return self.end if self.end <= self.horizon(now) else None

    def horizon(self, now: int) -> int:
        """The latest moment of this run that has come at `now`."""
        return now

    @abstractmethod
    def answer(self, now: int) -> str | None:
        """The answer's text; None while it cannot be read yet and when there is none."""

    def has_begun(self, now: int) -> bool:
        """Whether it was at work, or is; one that was canceled while it waited never was."""
        return self.start <= min(now, self.end)

    def has_changes(self, now: int) -> bool:
        """Whether its own changes, which may be none, can be told from those of other runs."""
        return False

    @abstractmethod
    def events(self, db: sqlite3.Connection, first: int = 0) -> list[ScheduledEvent]:
        """The events from place `first` on, in order. Some may become visible only later."""

    @abstractmethod
    def cancel(self, db: sqlite3.Connection, now: int) -> None:
        """Record, in the transaction of `db`, that the run was canceled at `now`."""

    def usage(self, now: int) -> RunUsage | None:
        """What it has used of its model until `now`; None if that is not known."""
        return None

    def ended_by(self, db: sqlite3.Connection) -> str | None:
        """What it failed of: its `budget`, or the usage `limit` of its model; None for the rest."""
        return None

    def resumes_at(self, store: Store, now: int) -> int | None:
        """When it continues whose model has a usage limit that is reached; None while it works."""
        return None

    def queue(self, store: Store) -> dict[str, Any] | None:
        """Its `position` in the queue and a `message` what it waits for; None if it has begun."""
        return None

    def preparing(self, store: Store) -> str:
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
