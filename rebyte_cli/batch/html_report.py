"""The report of a batch as one HTML page, which needs no network.

Its policy allows one script, by its digest: it shows moments in the reader's zone, and searches.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC
from importlib.resources import files
from typing import Any

from ..system.durations import duration
from ..system.redaction import redact_keys
from ..system.safe_text import one_line
from ..system.web_page import asset, badge, folded, h, head, markdown, moment, preformatted
from ..tasks.browser import is_page
from .results import name_of, reason_of, used_by
from .timeline import LineTexts, Row, Timeline

# In this order in the bar on top, from good to not started yet.
_STATUSES = ("completed", "running", "waiting", "limited", "failed", "refused", "gone", "unknown",
             "canceled", "skipped", "pending")  # fmt: skip
MOST_MARKDOWN = 1_000_000  # characters of answers; further ones are shown as text
_LABELED = 60  # tasks in the chart; with more, their names would be too small to read
_TALLEST = 900  # height of a chart without names
_UNITS = 1000  # width of the chart in its own units: it is stretched to the page


def render(
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
<p class="about">{_period(timeline)}</p>
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


def _period(timeline: Timeline) -> str:
    """The first start, the last end and the time between."""
    if not timeline.by_start():
        return "No task was created."
    ends = (timeline.first, timeline.last)
    first, last = (moment(one.astimezone(UTC).isoformat()) for one in ends)
    return f"{first} to {last} ({duration(timeline.seconds)})"


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
    bar = timeline.bar(at)
    assert bar is not None
    length = max((bar.end - bar.begin) * _UNITS, 2.0)
    x = min(bar.begin * _UNITS, _UNITS - length)
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
