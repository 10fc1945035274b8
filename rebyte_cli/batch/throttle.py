"""The throttle that every create of a batch passes: its rate, its pauses, its lost network.

What the service asks of one request (429, 503, `Retry-After`) holds for all of them. A service
that turned creates away, and a network that is gone, are tried with one create at a time.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from ..errors import APIError, too_busy
from ..system.deadline import Deadline, Patience

SLOW_FIRST = 5.0  # seconds without creates after one was turned away; doubles up to SLOW_MOST
SLOW_MOST = 300.0
RESUME = "The tasks keep running; run the same command again to resume."
WORTH_SAYING = 2.0  # seconds; a shorter pause is over before anyone has read about it


class ThrottleStopped(Exception):
    """The batch is stopping; the request was not sent."""


class Throttle:
    """Admits creates, at most `rate` a second; None for no limit.

    A lost network is tried again after `first_probe` seconds, then ever less often. With
    `has_others`, creates do not wait for the service: other places can take their lines.
    `others_work` says whether any of those is at work, for as long as which a lost network is tried
    again. `note` receives lines for the user. `clock` gives seconds, and `wait(condition, seconds)`
    waits with the condition's lock held; tests replace both.
    """

    def __init__(
        self,
        *,
        rate: float | None = None,
        first_probe: float = 1.0,
        has_others: bool = False,
        note: Callable[[str], None] = lambda _text: None,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[threading.Condition, float | None], object] = threading.Condition.wait,
    ) -> None:
        self._interval = 1 / rate if rate else 0.0
        self.has_others = has_others
        self.others_work: Callable[[], bool] = lambda: False
        self._note = note
        self.clock = clock
        self._wait = wait
        self._change = threading.Condition()
        self._queue: deque[object] = deque()
        self._open_at = 0.0  # no create is admitted before
        self._next_slot = 0.0  # the next moment that the rate allows
        self._creates_stopped = False
        self._stopped = False
        self._thread = threading.local()
        self._patience = Patience(
            Deadline(clock=clock), first=first_probe, longest=30.0, resume=RESUME
        )
        self._turned_away = False
        self._probe: object | None = None  # the one create admitted while either is true
        self._slow_pause = SLOW_FIRST

    # One create

    def queue(self, ticket: object) -> None:
        """Take a place in the queue; `admit` must follow."""
        with self._change:
            self._queue.append(ticket)

    def admit(self, ticket: object) -> None:
        """Wait until the create of this ticket may be sent, first come, first served.

        Raises ThrottleStopped.
        """
        self._thread.creates = True
        with self._change:
            try:
                while not self._may_pass(ticket):
                    pass
            finally:
                self._queue.remove(ticket)
                if self._queue:
                    self._change.notify_all()

    def _may_pass(self, ticket: object) -> bool:
        """Whether it is this ticket's turn; waits for a change when it is not."""
        if self._creates_stopped:
            raise ThrottleStopped
        now = self.clock()
        opens = max(self._open_at, self._next_slot)
        one_at_a_time = self.network_is_down or self._turned_away
        if self.has_others and not self.is_open:
            raise ThrottleStopped
        if not (one_at_a_time or self._interval or opens > now):
            return True  # nothing to wait for, so it does not matter who is first
        if self._queue[0] is not ticket or (one_at_a_time and self._probe is not None):
            self._wait(self._change, None)
            return False
        if opens > now:
            self._wait(self._change, opens - now)
            return False
        self._probe = ticket if one_at_a_time else None
        self._next_slot = max(self._next_slot, now) + self._interval
        return True

    def done(self, ticket: object) -> None:
        """The create that was admitted has ended, in whatever way."""
        if self._probe is ticket:
            with self._change:
                self._probe = None
                self._change.notify_all()

    def accepted(self) -> None:
        """A create went through, or was refused for a reason unrelated to load."""
        self._slow_pause = SLOW_FIRST
        if self._turned_away:
            with self._change:
                self._turned_away = False
                self._change.notify_all()
        self.network_answered()

    # Pauses

    def sleep(self, seconds: float) -> None:
        """Sleep before a retry, and pause all creates as long. Raises ThrottleStopped.

        A create does not sleep for long if another place can take its line.
        """
        self.pause(seconds, "The service asks to slow down")
        with self._change:
            until = self.clock() + seconds
            if self.has_others and seconds > SLOW_FIRST and getattr(self._thread, "creates", False):
                raise ThrottleStopped
            while (left := until - self.clock()) > 0:
                is_create = getattr(self._thread, "creates", False)
                if self._stopped or (self._creates_stopped and is_create):
                    raise ThrottleStopped
                self._wait(self._change, left)

    def pause(self, seconds: float, why: str) -> None:
        """Admit no create for so long. A longer pause that has begun stays as it is."""
        with self._change:
            note = self._pause(seconds, why)
        if note:
            self._note(note)

    def _pause(self, seconds: float, why: str) -> str | None:
        """Pause, with the lock held. What to tell the user, if it is worth saying."""
        until = self.clock() + seconds
        longer = until - max(self._open_at, self.clock())
        self._open_at = max(self._open_at, until)
        if longer < WORTH_SAYING or self.network_is_down:
            return None
        return f"{why}: pausing creates for {seconds:.0f} s"

    def slow_down(self, why: str, retry_after: float | None = None) -> None:
        """A create was turned away: pause, longer each time until one goes through.

        `retry_after` is what the service asked for, in seconds. After the pause, creates are
        tried one at a time until the service accepts one.
        """
        with self._change:
            first, self._turned_away = not self._turned_away, True
            asked = min(retry_after or 0.0, SLOW_MOST)
            if self._open_at > self.clock():  # pausing for another create of the same moment
                seconds = asked
            else:
                seconds = asked if first and asked else max(asked, self._slow_pause)
                self._slow_pause = min(self._slow_pause * 2, SLOW_MOST)
            note = self._pause(seconds, why)
            self._change.notify_all()
        if note:
            self._note(note)

    # The network

    def network_lost(self, error: APIError, ticket: object | None = None) -> None:
        """The network is gone: try one create at a time, at growing intervals.

        `ticket` is that of the create that found it so, if a create did. Raises the error once
        there was no answer for minutes, and at once if it says something else.
        """
        with self._change:
            first = not self.network_is_down
            try:
                self._patience.failed(error)
            except APIError:
                if not (too_busy(error) and self.others_work()):
                    raise
            if first or (ticket is not None and ticket is self._probe):
                self._probe_later()
        if first:
            self._note(
                f"Paused: {error.message}. Trying again until the network is back; Ctrl-C stops."
            )

    def probe_lost(self, ticket: object) -> None:
        """A create got no answer; if it was the one that tried a lost network, so will another."""
        with self._change:
            if self.network_is_down and ticket is self._probe:
                self._probe_later()

    def _probe_later(self) -> None:
        self._open_at = max(self._open_at, self.clock() + self._patience.pause())
        self._change.notify_all()

    def network_answered(self) -> None:
        """The service answered something, so the network is there."""
        if not self.network_is_down:  # the usual case, without the lock
            return
        with self._change:
            was_down = self.network_is_down
            self._patience.answered()
            self._open_at = min(self._open_at, self.clock())
            self._change.notify_all()
        if was_down:
            self._note("The network is back")

    @property
    def network_is_down(self) -> bool:
        """Whether the network seems to be gone."""
        return self._patience.is_failing

    @property
    def is_open(self) -> bool:
        """Whether a create that came now would be sent at once, but for the rate."""
        if self._creates_stopped or self.network_is_down or self.clock() < self._open_at:
            return False
        return not self._turned_away or self._probe is None

    # The end

    def stop_creates(self) -> None:
        """Admit no create any more; other requests may still sleep and try again."""
        with self._change:
            self._creates_stopped = True
            self._change.notify_all()

    def stop(self) -> None:
        """Raise ThrottleStopped in everything that waits here, now and later."""
        with self._change:
            self._creates_stopped = self._stopped = True
            self._change.notify_all()
