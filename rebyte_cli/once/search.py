"""The search for what a lost request made: how often to scan, for how long, with what outcome.

A create and a follow-up sleep between the scans for one request. A batch has a thread that makes
each scan for all of its lost lines, and a `Search` for each of them.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from .judge import NOTHING, Verdict
from .server_clock import SKEW

SCANS = 3  # scans that must agree before "there is none" is believed
GROWTH = 0.6  # of the pauses, per second of a search: a task is mostly there at once
SearchOutcome = Literal["found", "absent", "unknown", "again"]


class Pace(NamedTuple):
    """How lost requests are searched for. All times are in seconds.

    `look_for` is how long a search takes, and how long scans must agree that there is no result.
    A scan may take `shortest_scan` however little is left of that. The pauses between scans grow
    from `first_pause` to `longest_pause`; `later` is that of a search which continues although it
    has brought nothing. A task may be missing in the list until `listed_after` the send: an attempt
    that was killed has not searched for it, so the next one searches until then. Clocks of the
    machines behind one API may be `skew` apart.
    """

    look_for: float = 20.0
    shortest_scan: float = 2.0
    first_pause: float = 0.5
    longest_pause: float = 4.0
    later: float = 30.0
    listed_after: float = 90.0
    skew: float = SKEW

    def pause(self, since: float) -> float:
        """Seconds to the next scan of a search that began `since` seconds ago."""
        return min(self.longest_pause, self.first_pause + GROWTH * since)


PACE = Pace()


class Search:
    """The search for one lost request: what its scans say together, and whether to scan again.

    `verdict` is that of the last scan that did not fail. That there is no result takes SCANS
    complete scans that agree for `Pace.look_for` seconds, since a list may be wrong once and a task
    may show up late; one that differs or fails starts the count again. Times are those of the
    caller's clock.
    """

    def __init__(
        self, pace: Pace, began: float, seconds: float | None = None, *, is_eager: bool = False
    ) -> None:
        """The search takes `seconds`, or as long as `pace` says.

        One that `is_eager` ends as soon as the outcome is certain by what is known now. Any other
        first uses its time, unless no scan could change the outcome.
        """
        self.verdict = NOTHING
        self.failure: str | None = None  # of the last scan, for a person
        self._pace = pace
        self._is_eager = is_eager
        self._began = began
        self._until = began + (pace.look_for if seconds is None else seconds)
        self._agreeing = 0  # scans in a row
        self._first = self._last = began  # of those
        self._is_final = False

    def restart(self, began: float) -> None:
        """Give the search its whole time once more."""
        self._until = began + self._pace.look_for

    def add(self, verdict: Verdict | None, began: float, *, proves: bool) -> None:
        """Count a scan that began at `began`; None for one that failed.

        `proves`: if it shows nothing, it counts towards there being no result.
        """
        self.verdict = verdict or self.verdict
        self._is_final = verdict is not None and verdict.is_final
        if not (proves and verdict is not None and verdict.shows_none):
            self._agreeing = 0
            return
        self._first = self._first if self._agreeing else began
        self._last = began
        self._agreeing += 1

    @property
    def is_likely_absent(self) -> bool:
        """Whether the last scan says that there is no result, so that it is worth looking on."""
        return self._agreeing > 0

    @property
    def is_absent(self) -> bool:
        """Whether there certainly is no result."""
        return self._agreeing >= SCANS and self._last - self._first >= self._pace.look_for

    def outcome(self, now: float, left: float = float("inf")) -> SearchOutcome:
        """What the scans come to; "again" if there is to be another one.

        While they agree that there is no result, but are too few, the search goes past its time by
        up to `left` seconds: a slow list fits few into it.
        """
        is_over = now >= self._until
        if is_over and left > 0 and self._agreeing and not self.is_absent:
            self._until = now + min(self._pace.look_for, left)
            return "again"
        ends = is_over or (self._is_final and not self._is_eager)
        if (ends or self._is_eager) and self.verdict.task is not None:
            return "found"
        if (ends or self._is_eager) and self.is_absent:
            return "absent"
        return "unknown" if ends else "again"

    def longest_scan(self, now: float) -> float:
        """Seconds that the next scan may take."""
        return max(self._until - now, self._pace.shortest_scan)

    def pause(self, now: float) -> float:
        """Seconds to the next scan."""
        return min(self._pace.pause(now - self._began), self._until - now)
