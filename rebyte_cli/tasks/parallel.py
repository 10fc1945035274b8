"""The same call for several ids: side by side, answers in the order asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from ..errors import APIError, KeyProblem, KeyRejected, RebyteError

T = TypeVar("T")
SIDE_BY_SIDE = 8
# A progress bar for bytes: its name and how many there are (None: not known). It gives a function
# that any thread may call with the number of bytes that just moved. `App.progress_bar` is one.
MakeProgressBar = Callable[[str, int | None], AbstractContextManager[Callable[[int], None]]]


def in_parallel(
    call: Callable[[str], T], ids: Sequence[str], *, workers: int = SIDE_BY_SIDE
) -> Iterator[T | RebyteError]:
    """`call(id)` for each id, in order; an error is yielded in its place.

    A rejected key is raised instead: it would be the same for every id. One id is called
    without threads.
    """
    if len(ids) < 2:
        for one in ids:
            yield _attempt(call, one)
        return
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(max_workers=min(workers, len(ids)))
    try:
        # Submitted a window at a time, so that a reader who goes away after the first row
        # does not leave a thousand calls behind.
        window = [pool.submit(_attempt, call, one) for one in ids[: 2 * workers]]
        ahead = iter(ids[2 * workers :])
        while window:
            yield window.pop(0).result()
            following = next(ahead, None)
            if following is not None:
                window.append(pool.submit(_attempt, call, following))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def deleted(
    delete: Callable[[str], object], ids: Sequence[str]
) -> Iterator[dict[str, Any] | RebyteError]:
    """Delete each, as `in_parallel` does; a record of kind DELETED for what is gone."""
    for one, answer in zip(ids, in_parallel(delete, ids), strict=True):
        yield answer if isinstance(answer, RebyteError) else {"id": one, "deleted": True}


def _attempt(call: Callable[[str], T], one: str) -> T | RebyteError:
    try:
        return call(one)
    except (KeyProblem, KeyRejected):
        raise
    except APIError as error:
        return error.about(one)
    except RebyteError as error:  # our own steps name what they are about
        return error
