"""The report of a batch: what ran, how it ended and how long it took, as HTML or Markdown.

The HTML is one page, which needs no network. Its policy allows one script, by its digest: it shows
moments in the reader's zone, and searches.
"""

from __future__ import annotations

import hashlib
import os
import re
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import KeyProblem, KeyRejected, NetworkError, RebyteError, WaitTimeout
from ..once.server_clock import parse_time
from ..output.console import clean, one_line
from ..output.table import truncate, width_of
from ..system.deadline import Deadline
from ..system.durations import duration, round_duration
from ..system.files import replacing
from ..system.redaction import redact_keys
from ..system.web_page import asset, badge, folded, h, head, markdown, moment, preformatted
from ..tasks import result
from ..tasks.browser import is_page
from ..tasks.parallel import in_parallel
from .results import counts, name_of, reason_of, tally, used_by

if TYPE_CHECKING:
    from ..api.client import RebyteClient

Row = Mapping[str, Any]
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
MOST_STEPS = 8  # of the axis
LONGEST_TEXT = 10_000  # characters of one prompt or answer
MOST_TEXT = 40_000_000  # ... and of all of them
SECONDS = 20.0  # for one answer
_BAR_CELLS = 50  # columns of the chart
_NAME_CELLS = 20
_SPECIAL = re.compile(r"[\\`*_\[\]<>|~&#]")  # what means something in the middle of a line
# In this order in the bar on top, from good to not started yet.
_STATUSES = ("completed", "running", "waiting", "limited", "failed", "refused", "gone", "unknown",
             "canceled", "skipped", "pending")  # fmt: skip
MOST_MARKDOWN = 1_000_000  # characters of answers; further ones are shown as text
_LABELED = 60  # tasks in the chart; with more, their names would be too small to read
_TALLEST = 900  # height of a chart without names
_UNITS = 1000  # width of the chart in its own units: it is stretched to the page


def write(
    path: str,
    title: str,
    rows: Sequence[Row],
    texts: Iterable[LineTexts] | None = None,
    *,
    used: str = "",
    now: datetime | None = None,
) -> None:
    """Write the report of `rows` (kind RESULT), as HTML or Markdown by the name's ending.

    `texts` are those of each row, used one after another, and `used` says what all tasks used of
    their models, replaced ones too. The file appears whole or not at all.
    Raises RebyteError if it cannot be written.
    """
    timeline = Timeline(rows, now or datetime.now(UTC))
    render = _markdown if path.lower().endswith(".md") else _page
    target = Path(os.path.abspath(path))  # a link there is replaced, not written through
    try:
        with replacing(target) as file:
            texts = texts or repeat(LineTexts("", None))
            parts = render(title, counts(tally(rows)), used, rows, texts, timeline)
            # Reports are passed around.
            file.writelines(redact_keys(part).encode() for part in parts)
    except OSError as error:
        raise RebyteError(f"cannot write the report {path}: {error.strerror}") from None


# When each task ran, its prompt and its answer


class Timeline:
    """When the tasks of `rows` ran; each is named by its index in `rows`.

    A task that still runs ends `now`.
    """

    def __init__(self, rows: Sequence[Row], now: datetime) -> None:
        self._spans: dict[int, tuple[datetime, datetime]] = {}
        for at, row in enumerate(rows):
            begin = parse_time(row.get("startedAt"))
            if begin is not None and row.get("id"):
                end = parse_time(row.get("finishedAt")) or max(now, begin)
                self._spans[at] = begin, max(begin, end)
        self.first = min((begin for begin, _ in self._spans.values()), default=now)
        self.last = max((end for _, end in self._spans.values()), default=now)
        self.seconds = (self.last - self.first).total_seconds()

    def bar(self, at: int) -> tuple[float, float]:
        """When the task of a line began and ended, as fractions of the whole time (0 to 1)."""
        whole = self.seconds or 1.0
        begin, end = ((moment - self.first).total_seconds() / whole for moment in self._spans[at])
        return begin, end

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

    def period(self, shown: Callable[[datetime], str]) -> str:
        """The first start, the last end and the time between, for people. `shown` gets UTC."""
        if not self._spans:
            return "No task was created."
        first, last = (shown(one.astimezone(UTC)) for one in (self.first, self.last))
        return f"{first} to {last} ({duration(self.seconds)})"

    def ticks(self) -> list[tuple[float, str]]:
        """Marks for an axis of a few steps: fractions of the whole time, with labels."""
        step = next((step for step in _STEPS if self.seconds / step <= MOST_STEPS), 0)
        if not step:
            step = 86400 * (1 + int(self.seconds / 86400 / MOST_STEPS))
        whole = self.seconds or 1.0
        count = int(self.seconds // step)
        return [(at * step / whole, round_duration(at * step)) for at in range(count + 1)]


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


def by_place(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A line for each place: how its lines ended, and how many did per minute.

    From the first start there to the last end, whichever runs they were of.
    """
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row.get("place"):
            found.setdefault(str(row["place"]), []).append(row)
    for place, mine in sorted(found.items()):
        over = [row for row in mine if row.get("finishedAt")]
        seconds = Timeline(over, datetime.now(UTC)).seconds
        rate = f"; {60 * len(over) / seconds:.1f} per minute" if over and seconds > 0 else ""
        yield f"{place}: {counts(tally(mine))}{rate}"


# Markdown, for a pull request or a wiki


def _markdown(
    title: str,
    summary: str,
    used: str,
    rows: Sequence[Row],
    texts: Iterable[LineTexts],
    timeline: Timeline,
) -> Iterator[str]:
    """The document, piece by piece. `rows` (kind RESULT) are in the order of their lines."""
    parts = [
        f"# {escaped(title)}",
        escaped(summary),
        escaped(used),
        escaped(timeline.period(lambda one: one.strftime("%Y-%m-%d %H:%M:%S UTC"))),
        _text_chart(rows, timeline),
    ]
    yield from (f"{part}\n\n" for part in parts if part)
    has_places = any("place" in row for row in rows)
    heads = [
        *("Line", "Title", "Status", "Time"),
        *(["Place"] if has_places else []),
        *(["Used"] if used else []),
        *("Task", "Error"),
    ]
    yield f"| {' | '.join(heads)} |\n| --: |{' --- |' * (len(heads) - 1)}\n"
    for at, row in enumerate(rows):
        task, url = escaped(row.get("id") or ""), one_line(str(row.get("url") or ""))
        if is_page(url):
            task = f"[{task or 'task'}](<{url}>)"
        cells = [
            row["line"],
            escaped(name_of(row)),
            escaped(row.get("status")),
            timeline.length(at),
            *([escaped(row.get("place") or "")] if has_places else []),
            *([escaped(used_by(row))] if used else []),
            task,
            escaped(reason_of(row)),
        ]
        yield "| " + " | ".join(map(str, cells)) + " |\n"
    for row, text in zip(rows, texts, strict=False):
        yield from _folded(row, text)


def _folded(row: Row, text: LineTexts) -> Iterator[str]:
    """The prompt and the answer of a line. In code blocks, so that no text can end them."""
    if not text.prompt:
        return
    heading = f"Line {row['line']}: {name_of(row)}"
    yield f"\n<details><summary>{escape(one_line(heading))}</summary>\n\n{block(text.prompt)}"
    if text.answer is not None:
        yield f"\nAnswer:\n\n{block(text.answer)}"
    yield "\n</details>\n"


def block(text: str) -> str:
    """Text in a block of code, which nothing in it can end."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(longest + 1, 3)
    return f"{fence}text\n{clean(text).rstrip()}\n{fence}\n"


def _text_chart(rows: Sequence[Row], timeline: Timeline) -> str:
    """The chart in characters. Indented, so that no text can end the block."""
    lines = []
    for at in timeline.by_start():
        began, ended = timeline.bar(at)
        begin = min(int(began * _BAR_CELLS), _BAR_CELLS - 1)
        end = max(begin + 1, round(ended * _BAR_CELLS))
        drawn = (" " * begin + "█" * (end - begin)).ljust(_BAR_CELLS)
        name = truncate(one_line(name_of(rows[at])), _NAME_CELLS)
        name += " " * (_NAME_CELLS - width_of(name))
        lines.append(f"    {name} |{drawn}| {rows[at].get('status')} {timeline.length(at)}")
    return "\n".join(lines)


def escaped(value: Any) -> str:
    """Text that Markdown shows as it is, in a heading, a cell of a table or a paragraph."""
    # Here, since the escaped text hides what looks like a key.
    return _SPECIAL.sub(lambda found: f"\\{found[0]}", redact_keys(one_line(str(value))))


# The page


def _page(
    title: str,
    summary: str,
    used: str,
    rows: Sequence[Row],
    texts: Iterable[LineTexts],
    timeline: Timeline,
) -> Iterator[str]:
    """The page, piece by piece. `rows` (kind RESULT) are in the order of their lines."""
    yield f"""{head(f"{one_line(title)}: {one_line(summary)}", _head())}<body><main>
<h1>{_h(title)}</h1>
<p class="about">{timeline.period(lambda one: moment(one.isoformat()))}</p>
{f'<p class="about">{_h(used)}</p>' if used else ""}{_outcomes(rows, timeline)}
"""
    yield from _failures(rows, timeline)
    yield from _chart(rows, timeline)
    yield from _lines(rows, texts, timeline)
    yield f"</main><script>{_script()}</script></body></html>\n"


def _script() -> str:
    return asset("web_page.js") + (files(__package__) / "report.js").read_text(encoding="utf-8")


def _head() -> str:
    """The policy and the style. Bars are placed with inline styles, which can load nothing."""
    digest = b64encode(hashlib.sha256(_script().encode()).digest()).decode()
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none';"
        f" script-src 'sha256-{digest}'"
    )
    style = asset("web_page.css") + (files(__package__) / "report.css").read_text(encoding="utf-8")
    return f'<meta http-equiv="Content-Security-Policy" content="{policy}"><style>{style}</style>'


def _outcomes(rows: Sequence[Row], timeline: Timeline) -> str:
    """The figures, and how many lines have which status."""
    found = Counter(_class(row) for row in rows)
    done = f"{100 * found['completed'] // len(rows)}%" if rows else ""
    figures = [
        ("lines", str(len(rows))),
        ("completed", done),
        ("total time", duration(timeline.seconds) if timeline.by_start() else ""),
        ("median task time", timeline.median()),
        ("peak concurrency", str(timeline.peak() or "")),
    ]
    parts = [(name, found[name]) for name in _STATUSES if found[name]]
    return (
        "<section><dl>"
        + "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in figures if value)
        + '</dl><div class="parts">'
        + "".join(f'<i class="{name}" style="flex:{count}"></i>' for name, count in parts)
        + '</div><ul class="legend">'
        + "".join(f"<li>{count} {badge(name)}</li>" for name, count in parts)
        + "</ul></section>"
    )


def _failures(rows: Sequence[Row], timeline: Timeline) -> Iterator[str]:
    """What ended with an error, and the error."""
    failures = [at for at, row in enumerate(rows) if row.get("error")]
    if not failures:
        return
    yield '<section><h2>Failures</h2><div class="lines failures">\n'
    for at in failures:
        yield (
            f'<div><div class="row">{_cells(rows[at], timeline.length(at))}</div>'
            f'<div class="more"><p>{_h(reason_of(rows[at]))}</p>{_task(rows[at])}</div></div>\n'
        )
    yield "</div></section>\n"


def _lines(rows: Sequence[Row], texts: Iterable[LineTexts], timeline: Timeline) -> Iterator[str]:
    """Every line, with its prompt and answer folded away."""
    if not rows:
        return
    yield f'<section><h2>All lines</h2>{_find(rows)}<div class="lines all">\n'
    room = MOST_MARKDOWN
    for at, (row, text) in enumerate(zip(rows, texts, strict=False)):
        inside = _task(row)
        if text.prompt:
            inside += f"<h3>Prompt</h3>{preformatted(redact_keys(text.prompt).strip())}"
        if text.answer:
            shown = markdown if room > 0 else preformatted
            inside += f"<h3>Answer</h3>{shown(redact_keys(text.answer))}"
            room -= len(text.answer)
        cells = _cells(row, timeline.length(at))
        if inside:
            yield folded(cells, f'<div class="more">{inside}</div>') + "\n"
        else:
            yield f'<div class="row">{cells}</div>\n'
    yield "</div></section>\n"


def _find(rows: Sequence[Row]) -> str:
    """The search, which the script shows."""
    found = {_class(row) for row in rows}
    options = "".join(f"<option>{name}</option>" for name in _STATUSES if name in found)
    return (
        '<form class="find" role="search" hidden>'
        '<input type="search" name="words" aria-label="Search" placeholder="Search">'
        f'<select name="status" aria-label="Status"><option value="">any status</option>{options}'
        "</select><output></output></form>"
    )


def _cells(row: Row, length: str) -> str:
    return (
        f'<span class="n">{_h(row["line"])}</span><span class="k">{_h(name_of(row))}</span>'
        f'{badge(str(row.get("status")))}<span class="n">{_h(length)}</span>'
    )


def _task(row: Row) -> str:
    """The id of a task, as a link if `open` would open its URL, its place, and what it used."""
    name, url = _h(row.get("id") or ""), str(row.get("url") or "")
    if is_page(url):
        name = f'<a href="{_h(url)}" rel="noreferrer">{name or _h(url)}</a>'
    used = f"<p>{_h(used_by(row))}</p>" if used_by(row) else ""
    place = f"<p>Place: {_h(row['place'])}</p>" if row.get("place") else ""
    return (f'<p class="id">{name}</p>' if name else "") + place + used


def _chart(rows: Sequence[Row], timeline: Timeline) -> Iterator[str]:
    """A chart with a bar for each task, from its start to its end.

    The bars are stretched to the width of the page, and text stays what it is.
    """
    order = timeline.by_start()
    if not order:
        return
    labeled = len(order) <= _LABELED
    pitch = 20.0 if labeled else min(8.0, _TALLEST / len(order))
    tall = pitch * len(order)
    yield '<section><h2>Timeline</h2><div class="chart">\n'
    if labeled:
        names = "".join(f"<li>{_h(name_of(rows[at]))}</li>\n" for at in order)
        yield f'<ul class="names">\n{names}</ul>\n'
    yield '<div class="bars">\n'
    for part, words in timeline.ticks():
        if part > 0.96:
            yield f'<span class="last" style="right:{100 * (1 - part):.1f}%">{_h(words)}</span>\n'
        else:
            yield f'<span style="left:{100 * part:.1f}%">{_h(words)}</span>\n'
    yield (
        f'<svg viewBox="0 0 {_UNITS} {tall:.0f}" height="{tall:.0f}" preserveAspectRatio="none"'
        ' role="img" aria-label="A bar for each task, from its start to its end">\n'
    )
    for place, at in enumerate(order):
        yield _bar(rows[at], at, timeline, pitch, place * pitch)
    yield "</svg></div></div></section>\n"


def _bar(row: Row, at: int, timeline: Timeline, pitch: float, y: float) -> str:
    begin, end = timeline.bar(at)
    length = max((end - begin) * _UNITS, 2.0)
    x = min(begin * _UNITS, _UNITS - length)
    where = f" at {row['place']}" if row.get("place") else ""
    tooltip = (
        f"line {row['line']} ({name_of(row)}){where}: {row.get('status')}, {timeline.length(at)}"
    )
    return (
        f'<rect class="{_class(row)}" x="{x:.1f}" y="{y + pitch * 0.15:.2f}" width="{length:.1f}"'
        f' height="{pitch * 0.7:.2f}"><title>{_h(tooltip)}</title></rect>\n'
    )


def _class(row: Row) -> str:
    status = str(row.get("status"))
    return status if status in _STATUSES else "skipped"


def _h(value: Any) -> str:
    return h(one_line(str(value)))
