"""The report of a batch: what ran, how it ended and how long it took, as HTML or Markdown."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..config.atomic import replace
from ..errors import BadUsage, RebyteError
from ..output.console import one_line
from ..output.table import truncate, width_of
from ..tasks.browser import is_page
from .html_report import render
from .timeline import Row, Timeline

ENDINGS = (".html", ".htm", ".md")
_BAR_CELLS = 50  # columns of the chart in Markdown
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

    The file appears whole or not at all. Raises RebyteError if it cannot be written.
    """
    rows = sorted(rows, key=lambda row: int(row["line"]))
    timeline = Timeline(rows, now or datetime.now(UTC))
    make = _markdown if path.lower().endswith(".md") else render
    target = os.path.abspath(path)  # a link there is replaced, not written through
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=".report.", dir=os.path.dirname(target))
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(make(title, counts(rows), rows, timeline))
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        replace(temporary, target)
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


def _markdown(title: str, summary: str, rows: Sequence[Row], timeline: Timeline) -> list[str]:
    parts = [f"# {_m(title)}", _m(summary), _m(timeline.period()), _text_chart(rows, timeline)]
    table = [
        "| Line | Key | Status | Time | Task | Error |",
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
            timeline.length(at),
            task,
            _m(error),
        ]
        table.append("| " + " | ".join(map(str, cells)) + " |")
    return ["\n\n".join([part for part in parts if part] + ["\n".join(table)]), "\n"]


def _text_chart(rows: Sequence[Row], timeline: Timeline) -> str:
    """The chart in characters. Indented, so that no text can end the block."""
    lines = []
    for at in timeline.by_start():
        bar = timeline.bar(at)
        assert bar is not None
        begin = min(int(bar.begin * _BAR_CELLS), _BAR_CELLS - 1)
        end = max(begin + 1, round(bar.end * _BAR_CELLS))
        drawn = (" " * begin + "█" * (end - begin)).ljust(_BAR_CELLS)
        key = truncate(one_line(str(rows[at]["key"])), _KEY_CELLS)
        key += " " * (_KEY_CELLS - width_of(key))
        lines.append(f"    {key} |{drawn}| {rows[at].get('status')} {timeline.length(at)}")
    return "\n".join(lines)


def _m(value: Any) -> str:
    """Text that Markdown shows as it is."""
    text = one_line(str(value))
    return "".join(
        f"\\{letter}" if letter in "\\`*_{}[]<>()#+-.!|~&" else letter for letter in text
    )
