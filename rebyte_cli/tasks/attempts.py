"""Create several tasks for one prompt, of which the first success counts.

Each is created at most once, like any other task: an attempt whose answer was lost is looked for
and never sent again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..api.views import TaskView
from ..errors import APIError, Interrupted, RebyteError
from .parallel import in_parallel

if TYPE_CHECKING:
    from concurrent.futures import Future

    from ..api.client import RebyteClient

GRACE = 2.0  # seconds that creates in progress have to end after an interrupt
Created = Mapping[str, Any]


def create_all(
    create: Callable[[int], Created], count: int, created: Callable[[int, Created], None]
) -> list[Created | RebyteError]:
    """Call `create` with 0 to `count` - 1, all at the same time; the results in this order.

    `created` is called in this thread with each task as soon as it exists. An interrupt is raised
    with a hint that says which tasks exist.
    """
    from concurrent.futures import ThreadPoolExecutor, as_completed

    pool = ThreadPoolExecutor(count, "rebyte-attempt")
    futures: dict[Future[Created | RebyteError], int] = {}
    results: dict[int, Created | RebyteError] = {}

    def take(future: Future[Created | RebyteError]) -> None:
        number, result = futures[future], future.result()
        results[number] = result
        if not isinstance(result, RebyteError):
            created(number, result)

    try:
        futures.update((pool.submit(_answer, create, at), at) for at in range(count))
        for future in as_completed(list(futures)):
            take(future)
    except (KeyboardInterrupt, Interrupted) as stop:
        status = stop.exit_status if isinstance(stop, Interrupted) else 130
        with suppress(KeyboardInterrupt, Interrupted, TimeoutError):
            left = [one for one, at in futures.items() if at not in results]
            for future in as_completed(left, GRACE):
                take(future)
        raise Interrupted(status, hint=_left(results, count)) from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return [results[at] for at in range(count)]


def _answer(create: Callable[[int], Created], at: int) -> Created | RebyteError:
    try:
        return create(at)
    except RebyteError as error:
        return error


def _left(results: Mapping[int, Created | RebyteError], count: int) -> str:
    """What an interrupt leaves behind."""
    ids = [str(one["id"]) for one in results.values() if not isinstance(one, RebyteError)]
    parts = []
    if ids:
        what = "Task" if len(ids) == 1 else "Tasks"
        keeps = "keeps" if len(ids) == 1 else "keep"
        listed = " ".join(ids)
        parts.append(f"{what} {listed} {keeps} running; stop with `rebyte cancel {listed}`")
    unknown = count - len(results)
    if unknown:
        creates = "1 create is" if unknown == 1 else f"{unknown} creates are"
        parts.append(f"The outcome of {creates} unknown; see `rebyte list`")
    return "\n".join(parts)


def cancel(client: RebyteClient, ids: Sequence[str]) -> Iterator[tuple[str, Created | RebyteError]]:
    """Cancel tasks that may have ended meanwhile; each with its state afterwards, or the error."""

    def cancel_one(task_id: str) -> Created:
        try:
            client.cancel_task(task_id)
        except APIError:
            task = client.get_task(task_id)
            if TaskView(task).is_over:
                return task
            raise
        # The response to a cancel is not documented, so the task itself is read.
        return client.get_task(task_id)

    yield from zip(ids, in_parallel(cancel_one, ids), strict=True)
