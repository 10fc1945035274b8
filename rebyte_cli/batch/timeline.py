"""What the report of a batch says of each line: when its task ran, its prompt and its answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import KeyProblem, KeyRejected, NetworkError, RebyteError, WaitTimeout
from ..system.deadline import Deadline
from ..system.durations import duration, round_duration
from ..tasks import result
from ..tasks.parallel import in_parallel

if TYPE_CHECKING:
    from ..api.client import RebyteClient

Row = Mapping[str, Any]
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
MOST_STEPS = 8  # of the axis
LONGEST_TEXT = 10_000  # characters of one prompt or answer
MOST_TEXT = 40_000_000  # ... and of all of them
SECONDS = 20.0  # for one answer


class TimelineBar(NamedTuple):
    """When a task ran, as fractions of the whole time (0 to 1)."""

    begin: float
    end: float


class Timeline:
    """When the tasks of `rows` ran; each is named by its index in `rows`.

    A task that still runs ends `now`.
    """

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

    def bar(self, at: int) -> TimelineBar | None:
        """The bar of a line; None if it has no task."""
        if at not in self._spans:
            return None
        whole = self.seconds or 1.0
        begin, end = self._spans[at]
        return TimelineBar(
            (begin - self.first).total_seconds() / whole, (end - self.first).total_seconds() / whole
        )

    def length(self, at: int) -> str:
        """How long the task of a line ran, for people; empty if it has none."""
        if at not in self._spans:
            return ""
        begin, end = self._spans[at]
        return duration((end - begin).total_seconds())

    def by_start(self) -> list[int]:
        """The lines that have a task, by when it started."""
        return sorted(self._spans, key=lambda at: self._spans[at])

    def median(self) -> str:
        """The median time of a task, for people; empty if there are none."""
        lengths = sorted(end - begin for begin, end in self._spans.values())
        return duration(lengths[len(lengths) // 2].total_seconds()) if lengths else ""

    def peak(self) -> int:
        """The largest number of tasks that ran at the same time."""
        moments = [(begin, 1) for begin, _ in self._spans.values()]
        moments += [(end, -1) for _, end in self._spans.values()]
        peak = now = 0
        for _, change in sorted(moments):
            now += change
            peak = max(peak, now)
        return max(peak, min(1, len(self._spans)))

    def period(self) -> str:
        """The first start, the last end and the time between, for people."""
        if not self._spans:
            return "No task was created."
        form = "%Y-%m-%d %H:%M:%S UTC"
        first, last = (moment.astimezone(UTC) for moment in (self.first, self.last))
        return f"{first.strftime(form)} to {last.strftime(form)} ({duration(self.seconds)})"

    def ticks(self) -> list[tuple[float, str]]:
        """Marks for an axis of a few steps: fractions of the whole time, with labels."""
        step = next((step for step in _STEPS if self.seconds / step <= MOST_STEPS), 0)
        if not step:
            step = 86400 * (1 + int(self.seconds / 86400 / MOST_STEPS))
        whole = self.seconds or 1.0
        count = int(self.seconds // step)
        return [(at * step / whole, round_duration(at * step)) for at in range(count + 1)]


def _moment(written: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(str(written))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class LineTexts(NamedTuple):
    """The prompt of a line and the answer of its task; None for an answer that was not read."""

    prompt: str
    answer: str | None


def read_answers(
    client: RebyteClient, ids: Iterable[str | None], note: Callable[[str], None]
) -> Iterator[str | None]:
    """The answer of each task, in order, several read at a time; None for one that has none.

    None in `ids` stands for a line without a finished task. The first fault of the network or the
    key ends the reading, with a note: the report is worth more than a long wait for its answers.
    """
    wanted = list(ids)
    found = in_parallel(
        lambda task_id: result.answer(client, task_id, deadline=Deadline(SECONDS)),
        [task_id for task_id in wanted if task_id is not None],
    )
    left = iter(wanted)
    try:
        for task_id in left:
            answer = None if task_id is None else next(found)
            if isinstance(answer, NetworkError | WaitTimeout):
                raise answer
            yield None if isinstance(answer, RebyteError) else answer
    except (NetworkError, WaitTimeout, KeyProblem, KeyRejected) as error:
        note(f"The report lacks answers: {error.sentence}")
        yield None
        yield from (None for _ in left)


def excerpt(text: str, lines: int) -> str:
    """A text as a report on so many lines shows it, without the end of a very long one."""
    most = min(LONGEST_TEXT, MOST_TEXT // (2 * lines))
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most:,} more characters)"
