"""One gate that every create of a batch goes through: its rate, its pauses, a lost network.

What the service asks of one request (429, `Retry-After`) holds for all of them, and a network
that is gone is tried by one request at a time until it is back.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

PROBE_FIRST = 1.0  # seconds until a lost network is tried again; doubles up to the next
PROBE_MOST = 30.0
SLOW_FIRST = 5.0  # seconds without creates when a request was turned away again and again
SLOW_MOST = 300.0
WORTH_SAYING = 2.0  # seconds; a shorter pause is over before it is read


class Stopped(Exception):
    """The batch stops: whoever waits at the gate goes home, with nothing sent."""


class Throttle:
    """Lets creates pass, at most `rate` a second; None for as many as come.

    `note` is told in words what a person should know. `clock` gives seconds, `wait(condition,
    seconds)` waits with the condition's lock held; both are for tests.
    """

    def __init__(
        self,
        *,
        rate: float | None = None,
        note: Callable[[str], None] = lambda _text: None,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[threading.Condition, float | None], object] = threading.Condition.wait,
    ) -> None:
        self._interval = 1 / rate if rate else 0.0
        self._note = note
        self._clock = clock
        self._wait = wait
        self._change = threading.Condition()
        self._queue: deque[object] = deque()
        self._open_at = 0.0  # nobody passes before
        self._next = 0.0  # the next slot that the rate allows
        self._shut = False
        self._stopped = False
        self._thread = threading.local()
        self._down = False
        self._probing = False
        self._patience = PROBE_FIRST
        self._slower = SLOW_FIRST

    def queue(self, ticket: object) -> None:
        """Take a place in the queue; `admit` must follow."""
        with self._change:
            self._queue.append(ticket)

    def admit(self, ticket: object | None = None) -> None:
        """Return when one more create may be sent: who came first goes first. Raises Stopped.

        `ticket` is what was queued; who has none queues now.
        """
        self._thread.creates = True
        with self._change:
            if ticket is None:
                ticket = object()
                self._queue.append(ticket)
            try:
                while not self._lets_pass(ticket):
                    pass
            finally:
                self._queue.remove(ticket)
                if self._queue:
                    self._change.notify_all()

    def _lets_pass(self, ticket: object) -> bool:
        """Whether it is this one's turn; waits for a change when it is not."""
        if self._shut:
            raise Stopped
        now = self._clock()
        at = max(self._open_at, self._next)
        if self._queue[0] is not ticket or (self._down and self._probing):
            self._wait(self._change, None)
            return False
        if at > now:
            self._wait(self._change, at - now)
            return False
        self._probing = self._down
        self._next = max(self._next, now) + self._interval
        return True

    def sleep(self, seconds: float) -> None:
        """What a request sleeps before its next try: everybody waits as long. Raises Stopped."""
        self.hold(seconds, "The service asks for patience")
        with self._change:
            until = self._clock() + seconds
            while (left := until - self._clock()) > 0:
                if self._stopped or (self._shut and getattr(self._thread, "creates", False)):
                    raise Stopped
                self._wait(self._change, left)

    def hold(self, seconds: float, why: str) -> None:
        """Let nobody pass for so long; a longer pause that is under way stays as it is."""
        with self._change:
            until = self._clock() + seconds
            longer = until - max(self._open_at, self._clock())
            self._open_at = max(self._open_at, until)
            down = self._down
        if longer >= WORTH_SAYING and not down:
            self._note(f"{why}: no creates for {seconds:.0f} s")

    def slow_down(self, why: str) -> None:
        """A create came to nothing at every try: pause, longer each time until one passes."""
        with self._change:
            if self._open_at > self._clock():  # once for all that were sent side by side
                return
            seconds = self._slower
            self._slower = min(self._slower * 2, SLOW_MOST)
        self.hold(seconds, why)

    def lost(self, why: str) -> None:
        """The network is gone: one try at a time from now on, at growing intervals."""
        with self._change:
            first = not self._down
            if first or self._probing:
                self._open_at = max(self._open_at, self._clock() + self._patience)
                self._patience = min(self._patience * 2, PROBE_MOST)
            self._down, self._probing = True, False
            self._change.notify_all()
        if first:
            self._note(f"Paused: {why}. Trying again until the network is back; Ctrl-C stops.")

    def answered(self) -> None:
        """The service answered something, so the network is there."""
        if not self._down:  # the usual case, without the lock
            return
        with self._change:
            was_down, self._down, self._probing = self._down, False, False
            self._patience = PROBE_FIRST
            self._open_at = min(self._open_at, self._clock())
            self._change.notify_all()
        if was_down:
            self._note("The network is back")

    def passed(self) -> None:
        """A create went through."""
        self._slower = SLOW_FIRST
        self.answered()

    @property
    def is_down(self) -> bool:
        """Whether the network is thought to be gone."""
        return self._down

    def shut(self) -> None:
        """Let no create pass any more; other requests go on."""
        with self._change:
            self._shut = True
            self._change.notify_all()

    def stop(self) -> None:
        """Send home everybody who waits here, now and later."""
        with self._change:
            self._shut = self._stopped = True
            self._change.notify_all()
