"""Many tasks to their ends, at few requests: when to ask, what to survive, when to stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from random import random as _random
from typing import TYPE_CHECKING, Any, Literal

from ..errors import APIError, RebyteError, TaskEnded, WaitTimeout
from .polling import PATIENCE, Poll, Target, too_busy

if TYPE_CHECKING:
    from ..api.client import RebyteClient

__all__ = ["Target", "watch"]

FIRST_PAUSE = 1.0  # seconds between two rounds in the first minute
FIRST_MINUTE = 60.0
LONGEST_PAUSE = 10.0
GROWTH = 1.25
GRACE = 2.0  # seconds that the last round may run over the limit where the service answers

Outcome = Mapping[str, Any] | RebyteError


def watch(
    client: RebyteClient,
    targets: Iterable[Target],
    *,
    until: Literal["all", "any", "first-success"] = "all",
    timeout: float | None = None,
    interval: float | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    random: Callable[[], float] = _random,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Outcome]:
    """Wait for `targets` and yield how each ended, as soon as it is known.

    Yields the task document of what completed, `TaskFailed` or `TaskCanceled` (both carry the
    document), or the `APIError` that says why a task cannot be read (not there, most of all).
    For a target with a prompt id, the status of that prompt decides, whatever the task does.

    `until` is "all"; "any", which stops after the first task that ended, however it did; or
    "first-success", which stops after the first that completed and yields that one alone. When
    none completes, it yields how every one ended instead.

    `timeout` and `interval` are seconds; None waits for ever, and every second in the first
    minute, then at growing intervals up to ten seconds, all a little early at random, so that
    many waiting processes spread. A round of the last moment is asked when the limit is near.

    Raises WaitTimeout with the pending ids at the limit, KeyRejected at once, and the last
    NetworkError when there was no answer at all for five minutes. A service that never answered
    this client before is given up at once: that is a wrong address more often than a fault. A
    call that `timeout` gave less than its usual time proves neither.

    `progress` is called with the number that ended and the number of all, once at the start.
    """
    pending = dict.fromkeys(targets)
    total = len(pending)
    tell = progress or (lambda _done, _total: None)
    pace = _Pace(clock, random, interval, timeout)
    poll = Poll(client, clock)
    beaten: list[Outcome] = []
    tell(0, total)
    while pending:
        pace.begin()
        try:
            with closing(poll.round(list(pending), pace.answer_by)) as ends:
                for target, outcome in ends:
                    del pending[target]
                    tell(total - len(pending), total)
                    lost = isinstance(outcome, RebyteError)
                    if lost and until == "first-success":
                        beaten.append(outcome)
                        continue
                    yield outcome
                    if until != "all" and (not lost or isinstance(outcome, TaskEnded)):
                        return
            pace.answered()
        except APIError as fault:
            if not too_busy(fault) or not (
                pace.tolerates(known=_answered_before(client))
                or client.transport.cut_short(fault, pace.given)
            ):
                raise
        if pending:
            try:
                pace.rest(sleep, pending, total)
            except WaitTimeout:
                yield from beaten
                raise
    yield from beaten


def _answered_before(client: RebyteClient) -> bool:
    return client.transport.server_now() is not None


class _Pace:
    """When the next round is due, how long faults are borne, and when it all ends."""

    def __init__(
        self,
        clock: Callable[[], float],
        random: Callable[[], float],
        interval: float | None,
        timeout: float | None,
    ) -> None:
        self._clock = clock
        self._random = random
        self._interval = interval
        self._timeout = timeout
        self._start = self._round_began = clock()
        self._limit = None if timeout is None else self._start + timeout
        self._pause = FIRST_PAUSE
        self._heard = False
        self._down_since: float | None = None

    @property
    def answer_by(self) -> float | None:
        """The time at which a call of this round must have ended; None without a limit."""
        if self._limit is None or self._down_since is not None:
            return self._limit
        return max(self._limit, self._round_began + GRACE)

    def begin(self) -> None:
        self._round_began = self._clock()

    def answered(self) -> None:
        self._heard = True
        self._down_since = None

    @property
    def given(self) -> float | None:
        """The seconds that this round had for a call; None without a limit."""
        return None if self.answer_by is None else self.answer_by - self._round_began

    def tolerates(self, *, known: bool) -> bool:
        """Whether to go on after a round of faults alone."""
        if self._down_since is None:
            self._down_since = self._round_began
        return known and self._clock() - self._down_since < PATIENCE

    def rest(self, sleep: Callable[[float], None], pending: Iterable[Target], total: int) -> None:
        """Sleep until the next round is due; raises WaitTimeout once the limit has passed."""
        now = self._clock()
        if self._limit is not None and now >= self._limit:
            ids = list(dict.fromkeys(target.task_id for target in pending))
            of_all = f"{len(ids)} of {total} tasks" if total > 1 else f"task {ids[0]}"
            what = "still running after" if self._heard else "could not be read in"
            raise WaitTimeout(f"{of_all} {what} {self._timeout:g} s", pending=ids)
        # The pause counts from the beginning of a round, so that slow answers do not stretch it.
        until = max(self._round_began + self._next_pause(now), now)
        sleep((until if self._limit is None else min(until, self._limit)) - now)

    def _next_pause(self, now: float) -> float:
        if self._interval is not None:
            return self._interval
        if now - self._start > FIRST_MINUTE:
            self._pause = min(self._pause * GROWTH, LONGEST_PAUSE)
        return self._pause * (0.8 + 0.2 * self._random())
