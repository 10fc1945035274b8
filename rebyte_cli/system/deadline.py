"""How long an operation may take (`Deadline`), and how long it keeps asking (`Patience`).

Each is made where its times are set, and passed down from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Protocol

from ..errors import APIError, WaitTimeout, lines, too_busy

GRACE = 2.0  # seconds that the last request of a wait may run past its deadline
SHORTEST_CALL = 0.05  # seconds; a request that is given less cannot be answered
# Seconds of nothing but faults after which an operation ends, and how many there must have been: a
# process may have been stopped in between, or have had little to ask.
OUTAGE = 300.0
FAULTS = 10


def draw() -> float:
    """A random number from 0 up to 1."""
    from random import random  # most commands pause nowhere, and so need not import it

    return random()  # noqa: S311 -- spreads load, guards nothing


class Deadline:
    """The moment by which an operation must have ended.

    `seconds` is the length of the limit from now on; None means that there is none. `clock` gives
    monotonic seconds. Nothing else computes when a limit ends, or raises WaitTimeout.
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

    def with_grace(self, seconds: float = GRACE) -> Deadline:
        """This limit, with at least `seconds` left, to read what ended at the last moment.

        Messages still name the limit that was set.
        """
        if self.left() >= seconds:
            return self
        extended = Deadline(self.seconds, clock=self.clock)
        extended._end = self.clock() + seconds
        return extended

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


class RemoteService(Protocol):
    """What is asked; `api.transport.Transport` is one."""

    @property
    def has_answered(self) -> bool:
        """Whether it ever answered, be it with an error."""

    def limit(self) -> float:
        """The usual time limit of a request, in seconds."""


class Patience:
    """How long to pause before the next request, and when there were enough faults.

    The first pause takes `first` seconds. They grow by the factor `growth` up to `longest` (None:
    as `first`) while requests fail, and also while they are answered once `steady` seconds have
    passed. Each is shorter by a random share of up to `jitter`, so that many processes spread.

    Faults are enough after `outage` seconds without an answer, and `faults` of them in a row. The
    service may say at once what ends it: with an error that another request would meet as well, or
    by never having answered, which is a wrong address more often than a fault. `resume` is the hint
    that says how to take up again what has ended, `grace` what the last request has at least.
    """

    def __init__(
        self,
        deadline: Deadline = NO_LIMIT,
        service: RemoteService | None = None,
        *,
        first: float = 1.0,
        longest: float | None = None,
        growth: float = 2.0,
        steady: float = float("inf"),
        jitter: float = 0.0,
        outage: float = OUTAGE,
        faults: int = FAULTS,
        resume: str | None = None,
        grace: float = GRACE,
        sleep: Callable[[float], None] = time.sleep,
        random: Callable[[], float] = draw,
    ) -> None:
        self.deadline = deadline
        self.resume = resume
        self.grace = grace
        self._service = service
        self._first = first
        self._longest = first if longest is None else longest
        self._growth = growth
        self._steady = steady
        self._jitter = jitter
        self._outage = outage
        self._least = faults
        self._sleep = sleep
        self._random = random
        self._start = self._failing_since = deadline.clock()
        self._last: float | None = None  # the last pause, without its jitter
        self._faults = 0  # in a row

    @property
    def is_failing(self) -> bool:
        """Whether the last request failed."""
        return self._faults > 0

    def answered(self) -> None:
        """The service answered, so what failed before counts no longer."""
        if self._faults:
            self._faults, self._last = 0, None

    def failed(self, error: APIError) -> None:
        """Count a fault; raise it, with the hint that says how to resume, when it is enough.

        A request that the deadline left less than its usual time proves nothing.
        """
        if not too_busy(error):
            raise error
        if self._service is not None:
            if self.deadline.cut_short(error, usual=self._service.limit()):
                return
            if not self._service.has_answered:
                raise error
        now = self.deadline.clock()
        self._failing_since = self._failing_since if self._faults else now
        self._faults += 1
        if self._faults >= self._least and now - self._failing_since >= self._outage:
            raise error.copy_with(hint=lines(error.hint, self.resume))

    def pause(self) -> float:
        """Seconds until the next request."""
        if self._last is None:
            self._last = self._first
        elif self._faults or self.deadline.clock() - self._start > self._steady:
            self._last = min(self._last * self._growth, self._longest)
        return self._last * (1 - self._jitter * self._random()) if self._jitter else self._last

    def sleep(self, seconds: float | None = None) -> None:
        """Sleep for the next pause, or for these seconds, but not past the deadline."""
        self._sleep(self.deadline.cap(self.pause() if seconds is None else seconds))
