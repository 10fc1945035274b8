"""Create several tasks for one prompt, of which the first success counts.

Each is created at most once, like any other task: an attempt whose answer was lost is searched for
and never sent again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import TIMEOUT_MAX, Thread
from typing import Any

from ..deadline import NO_LIMIT, Deadline
from ..errors import Interrupted, RebyteError

GRACE = 2.0  # seconds that creates in progress have to end after an interrupt
Created = Mapping[str, Any]


def create_all(
    create: Callable[[int], Created], count: int, created: Callable[[int, Created], None]
) -> list[Created | RebyteError]:
    """Call `create` with 0 to `count` - 1, all at the same time; the results in this order.

    `created` is called in this thread with each task as soon as it exists. An interrupt is raised
    with a hint that says which tasks exist. An exception that is no RebyteError is raised when all
    have ended, so that each task that exists was told.
    """
    answers: SimpleQueue[tuple[int, Created | Exception]] = SimpleQueue()
    results: dict[int, Created | RebyteError] = {}
    faults: dict[int, Exception] = {}
    begun = 0

    def open_ones() -> int:
        return begun - len(results) - len(faults)

    def work(at: int) -> None:
        try:
            answers.put((at, create(at)))
        except Exception as error:  # one that is not ours is raised in the main thread
            answers.put((at, error))

    def take(limit: Deadline) -> None:
        at, answer = answers.get(timeout=min(limit.left(), TIMEOUT_MAX))
        if isinstance(answer, RebyteError):
            results[at] = answer
        elif isinstance(answer, Exception):
            faults[at] = answer
        else:
            results[at] = answer
            created(at, answer)

    try:
        for at in range(count):
            begun = at + 1  # before it is: an interrupt may come in between
            # Not an executor: it can run what it has refused for lack of a thread.
            thread = Thread(target=work, args=(at,), name=f"attempt-{at + 1}", daemon=True)
            try:
                thread.start()
            except (RuntimeError, MemoryError):
                results[at] = RebyteError("cannot start another thread", code="out_of_memory")
        while open_ones():
            take(NO_LIMIT)
    except (KeyboardInterrupt, Interrupted) as stop:
        status = stop.exit_status if isinstance(stop, Interrupted) else 130
        limit = Deadline(GRACE)
        with suppress(KeyboardInterrupt, Interrupted, Empty):
            while open_ones():
                take(limit)
        raise Interrupted(status, hint=_left(results, open_ones())) from None
    if faults:
        raise faults[min(faults)]
    return [results[at] for at in range(count)]


def _left(results: Mapping[int, Created | RebyteError], unknown: int) -> str:
    """What an interrupt leaves behind. `unknown`: how many creates have not ended."""
    ids = [str(one["id"]) for one in results.values() if not isinstance(one, RebyteError)]
    parts = []
    if ids:
        what = "Task" if len(ids) == 1 else "Tasks"
        keeps = "keeps" if len(ids) == 1 else "keep"
        listed = " ".join(ids)
        parts.append(f"{what} {listed} {keeps} running; stop with `rebyte cancel {listed}`")
    if unknown:
        creates = "1 create" if unknown == 1 else f"{unknown} creates"
        parts.append(f"The outcome of {creates} is unknown; see `rebyte list`")
    return "\n".join(parts)
