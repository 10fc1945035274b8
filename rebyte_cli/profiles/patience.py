"""A time limit for calls that may never come back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def within(
    seconds: float,
    work: Callable[[], T],
    *,
    told_after: float | None = None,
    tell: Callable[[], None] | None = None,
) -> T:
    """What `work` returns or raises, or TimeoutError when it takes longer than `seconds`.

    `tell` is called once when it has taken `told_after` seconds. The work goes on in a daemon
    thread after the limit: nothing can end a call that hangs in a library, but neither can such
    a thread keep the process from ending.
    """
    import queue
    import threading

    answers: queue.SimpleQueue[tuple[bool, T | BaseException]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put((True, work()))
        except BaseException as problem:
            answers.put((False, problem))

    threading.Thread(target=run, daemon=True, name="bounded").start()
    waits = [seconds]
    if tell is not None and told_after is not None and told_after < seconds:
        waits = [told_after, seconds - told_after]
    for turn, wait in enumerate(waits):
        try:
            fine, answer = answers.get(timeout=wait)
        except queue.Empty:
            if turn == 0 and len(waits) == 2 and tell is not None:
                tell()
            continue
        if fine:
            return answer  # type: ignore[return-value] # `fine` says that it is a T
        raise answer  # type: ignore[misc] # ... and its absence that it is an exception
    raise TimeoutError
