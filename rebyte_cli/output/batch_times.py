"""When the tasks of a batch ran, and what that adds up to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from .batch_view import span

Row = Mapping[str, Any]
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)


class Bar(NamedTuple):
    """When a task ran, as parts of the whole time (0 to 1)."""

    begin: float
    end: float


class Times:
    """When things happened. `now` ends the bars of tasks that still run."""

    def __init__(self, rows: Sequence[Row], now: datetime) -> None:
        self._spans: dict[int, tuple[datetime, datetime]] = {}
        for at, row in enumerate(rows):
            begin = _moment(row.get("startedAt"))
            if begin is not None and row.get("id"):
                end = _moment(row.get("finishedAt")) or max(now, begin)
                self._spans[at] = begin, max(begin, end)
        self.first = min((begin for begin, _ in self._spans.values()), default=now)
        self.last = max((end for _, end in self._spans.values()), default=now)
        self.seconds = (self.last - self.first).total_seconds()

    def bar(self, at: int) -> Bar | None:
        """The bar of a line; None when it has no task."""
        if at not in self._spans:
            return None
        whole = self.seconds or 1.0
        begin, end = self._spans[at]
        return Bar(
            (begin - self.first).total_seconds() / whole, (end - self.first).total_seconds() / whole
        )

    def took(self, at: int) -> str:
        """How long the task of a line ran; empty when it has none."""
        if at not in self._spans:
            return ""
        begin, end = self._spans[at]
        return span((end - begin).total_seconds())

    def order(self) -> list[int]:
        """Lines that have a task, the first started first."""
        return sorted(self._spans, key=lambda at: self._spans[at])

    def middle(self) -> str:
        """How long the task in the middle ran, of all by length; empty when there are none."""
        lengths = sorted(end - begin for begin, end in self._spans.values())
        return span(lengths[len(lengths) // 2].total_seconds()) if lengths else ""

    def most(self) -> int:
        """How many ran at one time, at the most."""
        moments = [(begin, 1) for begin, _ in self._spans.values()]
        moments += [(end, -1) for _, end in self._spans.values()]
        most = now = 0
        for _, change in sorted(moments):
            now += change
            most = max(most, now)
        return max(most, min(1, len(self._spans)))

    def when(self) -> str:
        """From the first start to the last end, for people."""
        if not self._spans:
            return "No task was created."
        form = "%Y-%m-%d %H:%M:%S UTC"
        first, last = (moment.astimezone(UTC) for moment in (self.first, self.last))
        return f"{first.strftime(form)} to {last.strftime(form)} ({span(self.seconds)})"

    def ticks(self, most: int = 8) -> list[tuple[float, str]]:
        """Round moments for an axis, each as a part of the whole time and in words."""
        step = next((step for step in _STEPS if self.seconds / step <= most), 0)
        if not step:
            step = 86400 * (1 + int(self.seconds / 86400 / most))
        whole = self.seconds or 1.0
        count = int(self.seconds // step)
        return [(at * step / whole, _length(at * step)) for at in range(count + 1)]


def _length(seconds: int) -> str:
    """As `span`, without parts that are zero."""
    if seconds % 86400 == 0 and seconds:
        return f"{seconds // 86400}d"
    words = span(float(timedelta(seconds=seconds).total_seconds()))
    return words.removesuffix(" 00s").removesuffix(" 00m")


def _moment(written: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(str(written))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
