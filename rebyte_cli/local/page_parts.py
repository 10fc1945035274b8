"""What the list of tasks and the page of one both show: status, time and usage."""

from __future__ import annotations

from collections.abc import Iterable

from ..system.durations import duration
from .run_interface import RunUsage, sum_of
from .store import Store
from .task_store import TaskRecord


def status_of(store: Store, task: TaskRecord, now: int) -> str:
    """The task's status; of one that runs, also what it waits for.

    `waiting` for one that asks a question, `limited` for one that waits for a usage limit, and
    `queued` for one whose turn has not come.
    """
    if any(run.question(now) for run in task.runs):
        return "waiting"
    queue = task.queue(store, now)
    return "limited" if "resumesAt" in queue else "queued" if "queue" in queue else task.status(now)


def took(task: TaskRecord, now: int) -> str:
    """From the task's creation to its end, or until now, as `1m 05s`."""
    end = task.completed(now)
    seconds = ((now if end is None else end) - task.created) / 1000
    return f"{seconds:.1f}s" if seconds < 10 else duration(seconds)


def used(several: Iterable[RunUsage | None]) -> str:
    """What runs used together, as `3 requests, 1,200 tokens in (900 cached), 80 out, $0.02`."""
    known = [one for one in several if one is not None]
    if not known:
        return ""
    total = sum_of(known)
    cached = f" ({total.cached_input_tokens:,} cached)" if total.cached_input_tokens else ""
    parts = [
        f"{total.requests:,} {'request' if total.requests == 1 else 'requests'}"
        if total.requests
        else "",
        f"{total.input_tokens:,} tokens in{cached}",
        f"{total.output_tokens:,} out",
        "" if total.cost_usd is None else f"${total.cost_usd:,.4f}".rstrip("0").rstrip("."),
    ]
    return ", ".join(part for part in parts if part)
