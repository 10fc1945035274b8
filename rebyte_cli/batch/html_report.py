"""The report of a batch as one HTML page, which runs no script and needs no network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from ..output.console import one_line
from ..output.table import duration
from ..tasks.browser import is_page
from .timeline import Row, Timeline

# In this order in the bar on top, from good to not started yet.
_STATUSES = ("completed", "running", "failed", "refused", "gone", "unknown", "canceled",
             "skipped", "pending")  # fmt: skip
_LABELLED = 60  # tasks in the chart; with more, their names would be too small to read
_WIDTH, _LABEL = 1000, 170
_TALLEST = 900  # height of a chart without names

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


def render(title: str, summary: str, rows: Sequence[Row], timeline: Timeline) -> Iterator[str]:
    """The page, piece by piece. `rows` (kind RESULT) are in the order of their lines."""
    heading = _h(title)
    failures = [at for at, row in enumerate(rows) if row.get("error")]
    yield f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{heading}: {_h(summary)}</title><style>{_STYLE}</style></head><body><main>
<h1>{heading}</h1>
<p class="when">{_h(timeline.period())}</p>
{_outcomes(rows, timeline)}
"""
    yield from _chart(rows, timeline)
    yield from _table("Failures", "failures", rows, failures, timeline)
    yield from _table("All lines", "all", rows, range(len(rows)), timeline)
    yield "</main></body></html>\n"


def _outcomes(rows: Sequence[Row], timeline: Timeline) -> str:
    """The figures, and how many lines have which status."""
    found = Counter(_class(row) for row in rows)
    done = f"{100 * found['completed'] // len(rows)} %" if rows else ""
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
        + "".join(f'<li><i class="dot {name}"></i>{count} {name}</li>' for name, count in parts)
        + "</ul></section>"
    )


def _chart(rows: Sequence[Row], timeline: Timeline) -> Iterator[str]:
    """A chart with a bar for each task, from its start to its end."""
    order = timeline.by_start()
    if not order:
        return
    labelled = len(order) <= _LABELLED
    pitch = 20.0 if labelled else min(8.0, _TALLEST / len(order))
    thick = pitch * (0.7 if labelled else 0.85)
    left = _LABEL if labelled else 0
    room = _WIDTH - left - 8
    tall = pitch * len(order)
    yield (
        "<section><h2>Timeline</h2>"
        f'<svg viewBox="0 0 {_WIDTH} {tall + 28:.0f}" role="img" aria-label="A bar for each'
        ' task, from its start to its end">\n'
    )
    for part, words in timeline.ticks():
        x = left + part * room
        anchor = "start" if part < 0.04 else "end" if part > 0.96 else "middle"
        yield (
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="20" y2="{tall + 24:.0f}"/>'
            f'<text x="{x:.1f}" y="12" text-anchor="{anchor}">{_h(words)}</text>'
        )
    for place, at in enumerate(order):
        bar = timeline.bar(at)
        assert bar is not None
        row, y = rows[at], 24 + place * pitch
        length = max((bar.end - bar.begin) * room, 2.0)
        x = min(left + bar.begin * room, _WIDTH - 8 - length)
        if labelled:
            name = one_line(str(row["key"]))
            name = name if len(name) <= 24 else name[:23] + "…"
            yield f'<text x="0" y="{y + thick - 2:.1f}">{_h(name)}</text>\n'
        tooltip = f"line {row['line']} ({row['key']}): {row.get('status')}, {timeline.length(at)}"
        yield (
            f'<rect class="{_class(row)}" x="{x:.1f}" y="{y:.2f}" width="{length:.1f}"'
            f' height="{thick:.2f}" rx="{min(3.0, thick / 3):.1f}">'
            f"<title>{_h(tooltip)}</title></rect>\n"
        )
    yield "</svg></section>\n"


def _table(
    title: str, name: str, rows: Sequence[Row], chosen: Sequence[int], timeline: Timeline
) -> Iterator[str]:
    """A table of some lines; that of the failures ends with the error."""
    if not chosen:
        return
    has_errors = name == "failures"
    heads = '<th class="n">Line</th><th>Key</th><th>Status</th><th class="n">Time</th><th>Task</th>'
    error_head = "<th>Error</th>" if has_errors else ""
    yield (
        f'<section><h2>{title}</h2><div class="scroll"><table class="{name}"><thead><tr>{heads}'
        f"{error_head}</tr></thead><tbody>\n"
    )
    for at in chosen:
        row = rows[at]
        error = (row.get("error") or {}).get("message") or ""
        last = f'<td class="k">{_h(error)}</td>' if has_errors else ""
        yield (
            f'<tr><td class="n">{_h(row["line"])}</td><td class="k">{_h(row["key"])}</td>'
            f'<td class="s"><i class="dot {_class(row)}"></i>{_h(row.get("status"))}</td>'
            f'<td class="n">{_h(timeline.length(at))}</td><td class="id">{_task(row)}</td>'
            f"{last}</tr>\n"
        )
    yield "</tbody></table></div></section>\n"


def _task(row: Row) -> str:
    """The id of a task, as a link if `open` would open its URL."""
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
