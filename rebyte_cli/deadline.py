"""The one time limit of an operation: made where the limit is set, and passed down from there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from .errors import WaitTimeout

GRACE = 2.0  # seconds that the last request of a wait may run past its deadline


class Deadline:
    """The moment by which an operation must have ended.

    `seconds` is the length of the limit from now on; None means that there is none. `clock` gives
    monotonic seconds. Nothing else computes what is left, compares clocks for a limit, or raises
    WaitTimeout.
    """

    __slots__ = ("_end", "clock", "seconds")

    def __init__(
        self, seconds: float | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.clock = clock
        self.seconds = seconds
        self._end = None if seconds is None else clock() + seconds

    def left(self) -> float:
        """Seconds until the end, never negative; infinity without a limit."""
        if self._end is None:
            return float("inf")
        return max(0.0, self._end - self.clock())

    @property
    def has_passed(self) -> bool:
        """Whether the limit is over."""
        return self._end is not None and self.clock() >= self._end

    def for_call(self, least: float = 0.0) -> float | None:
        """Seconds that a request may take: what is left, at least `least`; None without a limit."""
        return None if self._end is None else max(self.left(), least)

    def cap(self, seconds: float) -> float:
        """`seconds` or what is left, whichever is shorter: how long to sleep."""
        return min(seconds, self.left())

    def restarted(self) -> Deadline:
        """A deadline of the same length that starts now."""
        return Deadline(self.seconds, clock=self.clock)

    def unlimited(self) -> Deadline:
        """The same clock without a limit."""
        return Deadline(None, clock=self.clock)

    def error(
        self, what: str, *, pending: Iterable[str] = (), hint: str | None = None
    ) -> WaitTimeout:
        """The error for a limit that has passed: `what` happened "after N s".

        `pending` are the ids still running, `hint` says how to resume.
        """
        return WaitTimeout(f"{what} {self.seconds:g} s", pending=list(pending), hint=hint)
