"""The report of a batch as one HTML page: nothing runs in it, and it needs no network."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import BadUsage, RebyteError
from ..output.console import one_line
from ..output.table import duration, truncate, width_of
from ..tasks.browser import is_page

# -- When the tasks of a batch ran, and what that adds up to.

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
        return duration((end - begin).total_seconds())

    def order(self) -> list[int]:
        """Lines that have a task, the first started first."""
        return sorted(self._spans, key=lambda at: self._spans[at])

    def middle(self) -> str:
        """How long the task in the middle ran, of all by length; empty when there are none."""
        lengths = sorted(end - begin for begin, end in self._spans.values())
        return duration(lengths[len(lengths) // 2].total_seconds()) if lengths else ""

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
        return f"{first.strftime(form)} to {last.strftime(form)} ({duration(self.seconds)})"

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
    words = duration(float(timedelta(seconds=seconds).total_seconds()))
    return words.removesuffix(" 00s").removesuffix(" 00m")


def _moment(written: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(str(written))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


# In this order in the bar on top, from what is good to what is not there yet.
_STATUSES = ("completed", "running", "failed", "refused", "gone", "unknown", "canceled",
             "skipped", "pending")  # fmt: skip
_LABELLED = 60  # rows of the picture; with more, names would be too small to read
_WIDTH, _LABEL = 1000, 170
_TALLEST = 900

_STYLE = """
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#1c2128;--dim:#656d76;--line:#d9dee4;
--link:#0a58ca;--completed:#2a9d60;--running:#3b82d6;--failed:#d1453b;--refused:#b02a5b;
--gone:#a0522d;--unknown:#8250df;--canceled:#bf8700;--skipped:#9aa4af;--pending:#c3cad2}
@media(prefers-color-scheme:dark){:root{--bg:#0f1216;--card:#171b21;--ink:#e4e8ec;--dim:#8d96a0;
--line:#2b323a;--link:#6cb2ff;--completed:#3fb97a;--running:#58a0ee;--failed:#f0675d;
--refused:#e05b8d;--gone:#cd7f55;--unknown:#a983f5;--canceled:#d9a521;--skipped:#6c7681;
--pending:#3d4650}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:70rem;margin:0 auto;padding:2.5rem 1.25rem 4rem}
h1{font-size:1.6rem;line-height:1.25;margin:0;overflow-wrap:anywhere}
h2{font-size:1.05rem;margin:0 0 .75rem}
.when{color:var(--dim);margin:.3rem 0 1.5rem}
section{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:1.25rem;
margin:0 0 1.25rem}
dl{display:flex;flex-wrap:wrap;gap:.75rem 2.5rem;margin:0 0 1.1rem}
dl div{display:flex;flex-direction:column-reverse}
dt{color:var(--dim);font-size:.85rem}
dd{margin:0;font-size:1.5rem;font-weight:600;line-height:1.2;font-variant-numeric:tabular-nums}
.parts{display:flex;gap:2px;height:12px;border-radius:6px;overflow:hidden}
.parts i{min-width:4px}
.legend{display:flex;flex-wrap:wrap;gap:.3rem 1.25rem;margin:.8rem 0 0;padding:0;list-style:none}
.dot{display:inline-block;width:.65em;height:.65em;border-radius:50%;margin-right:.45em}
svg{display:block;width:100%;height:auto}
svg text{fill:var(--dim);font:12px system-ui,sans-serif}
svg line{stroke:var(--line)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.93rem}
th{text-align:left;color:var(--dim);font-weight:500;font-size:.85rem}
th,td{padding:.42rem .75rem .42rem 0;border-bottom:1px solid var(--line);vertical-align:top}
tr:last-child td{border-bottom:0}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.k{overflow-wrap:anywhere;min-width:7rem}
.s{white-space:nowrap}
.id{font:13px/1.6 ui-monospace,monospace;white-space:nowrap}
a{color:var(--link);text-decoration:none}
a:hover{text-decoration:underline}
@media print{body{background:none}section{border:0;padding:0;break-inside:auto}}
""" + "".join(
    f".{name}{{background:var(--{name})}}rect.{name}{{fill:var(--{name})}}" for name in _STATUSES
)


def page(title: str, summary: str, rows: Sequence[Row], times: Times) -> Iterator[str]:
    """The whole page, piece by piece. `rows` (kind RESULT) are in the order of their lines."""
    heading = _h(title)
    trouble = [at for at, row in enumerate(rows) if row.get("error")]
    yield f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{heading}: {_h(summary)}</title><style>{_STYLE}</style></head><body><main>
<h1>{heading}</h1>
<p class="when">{_h(times.when())}</p>
{_outcomes(rows, times)}
"""
    yield from _picture(rows, times)
    yield from _table("What did not go well", "trouble", rows, trouble, times)
    yield from _table("Every line", "all", rows, range(len(rows)), times)
    yield "</main></body></html>\n"


def _outcomes(rows: Sequence[Row], times: Times) -> str:
    """Figures, and how much of the whole ended in which way."""
    found = Counter(_class(row) for row in rows)
    done = f"{100 * found['completed'] // len(rows)} %" if rows else ""
    figures = [
        ("lines", str(len(rows))),
        ("completed", done),
        ("from first to last", duration(times.seconds) if times.order() else ""),
        ("median of a task", times.middle()),
        ("most at one time", str(times.most() or "")),
    ]
    parts = [(name, found[name]) for name in _STATUSES if found[name]]
    return (
        "<section><dl>"
        + "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in figures if value)
        + '</dl><div class="parts">'
        + "".join(f'<i class="{name}" style="flex:{count}"></i>' for name, count in parts)
        + '</div><ul class="legend">'
        + "".join(f'<li><i class="dot {name}"></i>{count} {name}</li>' for name, count in parts)
        + "</ul></section>"
    )


def _picture(rows: Sequence[Row], times: Times) -> Iterator[str]:
    """A bar per task from its start to its end, over an axis of time."""
    order = times.order()
    if not order:
        return
    labelled = len(order) <= _LABELLED
    pitch = 20.0 if labelled else min(8.0, _TALLEST / len(order))
    thick = pitch * (0.7 if labelled else 0.85)
    left = _LABEL if labelled else 0
    room = _WIDTH - left - 8
    tall = pitch * len(order)
    yield (
        "<section><h2>Over time</h2>"
        f'<svg viewBox="0 0 {_WIDTH} {tall + 28:.0f}" role="img" aria-label="A bar per task, from'
        ' its start to its end">\n'
    )
    for part, words in times.ticks():
        x = left + part * room
        anchor = "start" if part < 0.04 else "end" if part > 0.96 else "middle"
        yield (
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="20" y2="{tall + 24:.0f}"/>'
            f'<text x="{x:.1f}" y="12" text-anchor="{anchor}">{_h(words)}</text>'
        )
    for place, at in enumerate(order):
        bar = times.bar(at)
        assert bar is not None
        row, y = rows[at], 24 + place * pitch
        length = max((bar.end - bar.begin) * room, 2.0)
        x = min(left + bar.begin * room, _WIDTH - 8 - length)
        if labelled:
            name = one_line(str(row["key"]))
            name = name if len(name) <= 24 else name[:23] + "…"
            yield f'<text x="0" y="{y + thick - 2:.1f}">{_h(name)}</text>\n'
        told = f"line {row['line']} ({row['key']}): {row.get('status')}, {times.took(at)}"
        yield (
            f'<rect class="{_class(row)}" x="{x:.1f}" y="{y:.2f}" width="{length:.1f}"'
            f' height="{thick:.2f}" rx="{min(3.0, thick / 3):.1f}">'
            f"<title>{_h(told)}</title></rect>\n"
        )
    yield "</svg></section>\n"


def _table(
    title: str, name: str, rows: Sequence[Row], chosen: Sequence[int], times: Times
) -> Iterator[str]:
    """Some of the lines; those in trouble with the reason at their end."""
    if not chosen:
        return
    in_trouble = name == "trouble"
    heads = '<th class="n">Line</th><th>Key</th><th>Status</th><th class="n">Took</th><th>Task</th>'
    why = "<th>Why</th>" if in_trouble else ""
    yield (
        f'<section><h2>{title}</h2><div class="scroll"><table class="{name}"><thead><tr>{heads}'
        f"{why}</tr></thead><tbody>\n"
    )
    for at in chosen:
        row = rows[at]
        error = (row.get("error") or {}).get("message") or ""
        last = f'<td class="k">{_h(error)}</td>' if in_trouble else ""
        yield (
            f'<tr><td class="n">{_h(row["line"])}</td><td class="k">{_h(row["key"])}</td>'
            f'<td class="s"><i class="dot {_class(row)}"></i>{_h(row.get("status"))}</td>'
            f'<td class="n">{_h(times.took(at))}</td><td class="id">{_task(row)}</td>{last}</tr>\n'
        )
    yield "</tbody></table></div></section>\n"


def _task(row: Row) -> str:
    """A link to the task's page, if its address is one."""
    name, url = str(row.get("id") or ""), str(row.get("url") or "")
    short = _h(name if len(name) <= 16 else name[:8] + "…")
    if not is_page(url):
        return f'<span title="{_h(name)}">{short}</span>' if name else ""
    return f'<a href="{_h(url)}" rel="noreferrer" title="{_h(name)}">{short or _h(url)}</a>'


def _class(row: Row) -> str:
    status = str(row.get("status"))
    return status if status in _STATUSES else "skipped"


def _h(value: Any) -> str:
    return escape(one_line(str(value)), quote=True)


# -- A batch as a page to keep: what ran, how it ended, how long it took. Readable without netw

ENDINGS = (".html", ".htm", ".md")
_BAR_CELLS = 50
_KEY_CELLS = 20


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
    times = Times(rows, now or datetime.now(UTC))
    make = _markdown if path.lower().endswith(".md") else page
    target = os.path.abspath(path)  # a link there is replaced, not written through
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=".report.", dir=os.path.dirname(target))
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(make(title, counts(rows), rows, times))
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, target)
    except OSError as error:
        if temporary is not None:
            with suppress(OSError):
                Path(temporary).unlink()
        raise RebyteError(f"cannot write the report {path}: {error.strerror}") from None


def counts(rows: Iterable[Row]) -> str:
    """`120 lines: 118 completed, 2 failed`, the most frequent first."""
    found = Counter(str(row.get("status")) for row in rows)
    lines = "1 line" if found.total() == 1 else f"{found.total()} lines"
    words = ", ".join(f"{count} {status}" for status, count in found.most_common())
    return f"{lines}: {words}" if words else "no lines"


# -- Markdown ----------------------------------------------------------------------------------


def _markdown(title: str, summary: str, rows: Sequence[Row], times: Times) -> list[str]:
    parts = [f"# {_m(title)}", _m(summary), _m(times.when()), _text_picture(rows, times)]
    table = [
        "| Line | Key | Status | Took | Task | Error |",
        "| --: | --- | --- | --- | --- | --- |",
    ]
    for at, row in enumerate(rows):
        task, url = _m(row.get("id") or ""), one_line(str(row.get("url") or ""))
        if is_page(url):
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
    return ["\n\n".join([part for part in parts if part] + ["\n".join(table)]), "\n"]


def _text_picture(rows: Sequence[Row], times: Times) -> str:
    """As the picture of the HTML page. Indented, so that no text can end the block."""
    lines = []
    for at in times.order():
        bar = times.bar(at)
        assert bar is not None
        begin = min(int(bar.begin * _BAR_CELLS), _BAR_CELLS - 1)
        end = max(begin + 1, round(bar.end * _BAR_CELLS))
        drawn = (" " * begin + "█" * (end - begin)).ljust(_BAR_CELLS)
        key = truncate(one_line(str(rows[at]["key"])), _KEY_CELLS)
        key += " " * (_KEY_CELLS - width_of(key))
        lines.append(f"    {key} |{drawn}| {rows[at].get('status')} {times.took(at)}")
    return "\n".join(lines)


def _m(value: Any) -> str:
    """Text that Markdown shows as it is."""
    text = one_line(str(value))
    return "".join(
        f"\\{letter}" if letter in "\\`*_{}[]<>()#+-.!|~&" else letter for letter in text
    )
