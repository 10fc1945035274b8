"""A batch as a page to keep: what ran, how it ended, how long it took. Readable without network."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import BadUsage, RebyteError
from .batch_view import span
from .terminal import one_line

Row = Mapping[str, Any]
ENDINGS = (".html", ".htm", ".md")
_COLORS = {"completed": "#2e9e5b", "failed": "#d0433b", "refused": "#d0433b", "gone": "#d0433b",
           "canceled": "#b8860b", "running": "#3b7dd0", "unknown": "#8a4fd0"}  # fmt: skip
_OTHER = "#8a8f98"
_BAR_CELLS = 50
_STYLE = """
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;
margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.25rem .6rem;
border-bottom:1px solid #8884;vertical-align:top}td.n{text-align:right}.s{font-weight:600}
svg{width:100%;height:auto}figure{margin:1.5rem 0}figcaption,.q{color:#888}
"""


class _Bar(NamedTuple):
    """When a task ran, as parts of the whole time (0 to 1)."""

    begin: float
    end: float


class _Times:
    """When things happened, in seconds since the first start."""

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

    def bar(self, at: int) -> _Bar | None:
        if at not in self._spans:
            return None
        whole = self.seconds or 1.0
        begin, end = self._spans[at]
        return _Bar(
            (begin - self.first).total_seconds() / whole, (end - self.first).total_seconds() / whole
        )

    def took(self, at: int) -> str:
        if at not in self._spans:
            return ""
        begin, end = self._spans[at]
        return span((end - begin).total_seconds())

    def order(self) -> list[int]:
        """Lines that have a task, the first started first."""
        return sorted(self._spans, key=lambda at: self._spans[at])


def check(path: str) -> None:
    """Raise BadUsage unless a report can be written there later."""
    if not path.lower().endswith(ENDINGS):
        raise BadUsage(f"--report {path}: the name must end with .html or .md")
    folder = os.path.dirname(os.path.abspath(path))
    if os.path.isdir(path) or not os.access(folder, os.W_OK | os.X_OK):
        raise BadUsage(f"--report {path}: cannot be written there")


def write(path: str, title: str, rows: Sequence[Row], *, now: datetime | None = None) -> None:
    """Write the report of `rows` (kind RESULT), as HTML or Markdown by the name's ending.

    The file appears whole or not at all. Raises RebyteError when the disk refuses.
    """
    rows = sorted(rows, key=lambda row: int(row["line"]))
    times = _Times(rows, now or datetime.now(UTC))
    make = _markdown if path.lower().endswith(".md") else _html
    target = os.path.realpath(path)
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=".report.", dir=os.path.dirname(target))
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(make(title, rows, times))
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, target)
    except OSError as error:
        if temporary is not None:
            with suppress(OSError):
                Path(temporary).unlink()
        raise RebyteError(f"cannot write the report {path}: {error.strerror}") from None


def counts(rows: Sequence[Row]) -> str:
    """`120 lines: 118 completed, 2 failed`, the most frequent first."""
    found = Counter(str(row.get("status")) for row in rows)
    lines = "1 line" if len(rows) == 1 else f"{len(rows)} lines"
    words = ", ".join(f"{count} {status}" for status, count in found.most_common())
    return f"{lines}: {words}" if words else "no lines"


# -- HTML --------------------------------------------------------------------------------------


def _html(title: str, rows: Sequence[Row], times: _Times) -> str:
    heading = _h(title)
    body = "\n".join(_html_row(at, row, times) for at, row in enumerate(rows))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{heading}</title><style>{_STYLE}</style></head><body>
<h1>{heading}</h1>
<p>{_h(counts(rows))}</p>
<p class="q">{_h(_when(times))}</p>
{_picture(rows, times)}
<table><thead><tr><th>Line</th><th>Key</th><th>Status</th><th>Took</th><th>Task</th><th>Error</th>
</tr></thead><tbody>
{body}
</tbody></table></body></html>
"""


def _html_row(at: int, row: Row, times: _Times) -> str:
    status = str(row.get("status"))
    task = _h(row.get("id") or "")
    url = str(row.get("url") or "")
    if _is_link(url):
        task = f'<a href="{_h(url)}" rel="noreferrer">{task or _h(url)}</a>'
    error = (row.get("error") or {}).get("message") or ""
    return (
        f'<tr><td class="n">{_h(row["line"])}</td><td>{_h(row["key"])}</td>'
        f'<td class="s" style="color:{_COLORS.get(status, _OTHER)}">{_h(status)}</td>'
        f"<td>{_h(times.took(at))}</td><td>{task}</td><td>{_h(error)}</td></tr>"
    )


def _picture(rows: Sequence[Row], times: _Times) -> str:
    """A bar per task from its start to its end."""
    order = times.order()
    if not order:
        return ""
    height = 14 if len(order) <= 60 else 5 if len(order) <= 500 else 2
    width, gap = 1000, 1
    bars = []
    for place, at in enumerate(order):
        bar = times.bar(at)
        assert bar is not None
        row = rows[at]
        status = str(row.get("status"))
        x, length = bar.begin * width, max((bar.end - bar.begin) * width, 1.5)
        told = f"line {row['line']} ({row['key']}): {status}, {times.took(at)}"
        bars.append(
            f'<rect x="{min(x, width - length):.1f}" y="{place * (height + gap)}"'
            f' width="{length:.1f}" height="{height}" fill="{_COLORS.get(status, _OTHER)}">'
            f"<title>{_h(told)}</title></rect>"
        )
    tall = len(order) * (height + gap)
    return (
        f'<figure><svg viewBox="0 0 {width} {tall}" role="img" preserveAspectRatio="none"'
        f' style="max-height:{max(tall, 40)}px" aria-label="A bar per task over time">\n'
        + "\n".join(bars)
        + f"\n</svg><figcaption>0 to {_h(span(times.seconds))}: a bar per task, from its start"
        " to its end</figcaption></figure>"
    )


def _h(value: Any) -> str:
    return escape(one_line(str(value)), quote=True)


# -- Markdown ----------------------------------------------------------------------------------


def _markdown(title: str, rows: Sequence[Row], times: _Times) -> str:
    parts = [f"# {_m(title)}", _m(counts(rows)), _m(_when(times)), _text_picture(rows, times)]
    table = [
        "| Line | Key | Status | Took | Task | Error |",
        "| --: | --- | --- | --- | --- | --- |",
    ]
    for at, row in enumerate(rows):
        task, url = _m(row.get("id") or ""), one_line(str(row.get("url") or ""))
        if _is_link(url) and not set(url) & set(" <>"):
            task = f"[{task or 'task'}](<{url}>)"
        error = (row.get("error") or {}).get("message") or ""
        cells = [
            row["line"],
            _m(row["key"]),
            _m(row.get("status")),
            times.took(at),
            task,
            _m(error),
        ]
        table.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n\n".join([part for part in parts if part] + ["\n".join(table)]) + "\n"


def _text_picture(rows: Sequence[Row], times: _Times) -> str:
    """As the picture of the HTML page. Indented, so that no text can end the block."""
    lines = []
    for at in times.order():
        bar = times.bar(at)
        assert bar is not None
        begin = min(int(bar.begin * _BAR_CELLS), _BAR_CELLS - 1)
        end = max(begin + 1, round(bar.end * _BAR_CELLS))
        drawn = (" " * begin + "█" * (end - begin)).ljust(_BAR_CELLS)
        key = one_line(str(rows[at]["key"]))[:20]
        lines.append(f"    {key:<20} |{drawn}| {rows[at].get('status')} {times.took(at)}")
    return "\n".join(lines)


def _m(value: Any) -> str:
    """Text that Markdown shows as it is."""
    text = one_line(str(value))
    return "".join(
        f"\\{letter}" if letter in "\\`*_{}[]<>()#+-.!|~&" else letter for letter in text
    )


# -- both --------------------------------------------------------------------------------------


def _when(times: _Times) -> str:
    if not times.order():
        return "No task was created."
    form = "%Y-%m-%d %H:%M:%S UTC"
    first, last = (moment.astimezone(UTC) for moment in (times.first, times.last))
    return f"{first.strftime(form)} to {last.strftime(form)} ({span(times.seconds)})"


def _is_link(url: str) -> bool:
    return url.startswith(("https://", "http://")) and url.isprintable()


def _moment(written: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(str(written))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
