"""Time limits: one object per limit, made where the limit is set and passed down from there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from .errors import WaitTimeout

if TYPE_CHECKING:
    from .errors import APIError

GRACE = 2.0  # seconds that the last request of a wait may run past its deadline
SHORTEST_CALL = 0.05  # seconds; a request that is given less cannot be answered


class Deadline:
    """The moment by which an operation must have ended.

    `seconds` is the length of the limit from now on; None means that there is none. `clock` gives
    monotonic seconds. Nothing else computes how much time is left, compares clocks for a limit, or
    raises WaitTimeout.
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

    def for_call(self, least: float = SHORTEST_CALL) -> float | None:
        """Seconds that a request may take: what is left, at least `least`; None without a limit."""
        return None if self._end is None else max(self.left(), least)

    def cap(self, seconds: float) -> float:
        """`seconds` or what is left, whichever is shorter: how long to sleep."""
        return min(seconds, self.left())

    def within(self, seconds: float) -> Deadline:
        """This deadline, or one of `seconds` from now if that comes first."""
        return self if self.left() <= seconds else Deadline(seconds, clock=self.clock)

    def with_grace(self) -> Deadline:
        """This limit, with at least GRACE seconds left, to read what ended at the last moment.

        Messages still name the limit that was set.
        """
        if self.left() >= GRACE:
            return self
        extended = Deadline(self.seconds, clock=self.clock)
        extended._end = self.clock() + GRACE
        return extended

    def restarted(self) -> Deadline:
        """A deadline of the same length that starts now."""
        return Deadline(self.seconds, clock=self.clock)

    def unlimited(self) -> Deadline:
        """The same clock without a limit."""
        return Deadline(None, clock=self.clock)

    def cut_short(self, error: APIError, *, usual: float) -> bool:
        """Whether a request timed out because this limit left it less than its `usual` seconds.

        Then the limit is over or nearly so, and nothing is known about the service.
        """
        return self.seconds is not None and error.seconds is not None and error.seconds < usual

    def error(
        self, what: str, *, pending: Iterable[str] = (), hint: str | None = None
    ) -> WaitTimeout:
        """The error for a limit that has passed; its message is `what` followed by "N s".

        `pending` are the ids still running, `hint` says how to resume.
        """
        return WaitTimeout(f"{what} {self.seconds:g} s", pending=pending, hint=hint)


NO_LIMIT = Deadline()
