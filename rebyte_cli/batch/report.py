"""The report of a batch: what ran, how it ended and how long it took, as HTML or Markdown."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from html import escape
from itertools import repeat
from pathlib import Path
from typing import Any

from ..errors import RebyteError
from ..output.console import clean, one_line
from ..output.table import truncate, width_of
from ..system.files import replacing
from ..system.redaction import redact_keys
from ..tasks.browser import is_page
from . import html_report
from .results import counts, name_of, reason_of, tally, used_by
from .timeline import LineTexts, Row, Timeline

_BAR_CELLS = 50  # columns of the chart
_NAME_CELLS = 20
_SPECIAL = re.compile(r"[\\`*_\[\]<>|~&#]")  # what means something in the middle of a line


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
    render = _markdown if path.lower().endswith(".md") else html_report.render
    target = Path(os.path.abspath(path))  # a link there is replaced, not written through
    try:
        with replacing(target) as file:
            texts = texts or repeat(LineTexts("", None))
            parts = render(title, counts(tally(rows)), used, rows, texts, timeline)
            # Reports are passed around.
            file.writelines(redact_keys(part).encode() for part in parts)
    except OSError as error:
        raise RebyteError(f"cannot write the report {path}: {error.strerror}") from None


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
        escaped(timeline.period()),
        _chart(rows, timeline),
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


def _chart(rows: Sequence[Row], timeline: Timeline) -> str:
    """The chart in characters. Indented, so that no text can end the block."""
    lines = []
    for at in timeline.by_start():
        bar = timeline.bar(at)
        assert bar is not None
        begin = min(int(bar.begin * _BAR_CELLS), _BAR_CELLS - 1)
        end = max(begin + 1, round(bar.end * _BAR_CELLS))
        drawn = (" " * begin + "█" * (end - begin)).ljust(_BAR_CELLS)
        name = truncate(one_line(name_of(rows[at])), _NAME_CELLS)
        name += " " * (_NAME_CELLS - width_of(name))
        lines.append(f"    {name} |{drawn}| {rows[at].get('status')} {timeline.length(at)}")
    return "\n".join(lines)


def escaped(value: Any) -> str:
    """Text that Markdown shows as it is, in a heading, a cell of a table or a paragraph."""
    # Here, since the escaped text hides what looks like a key.
    return _SPECIAL.sub(lambda found: f"\\{found[0]}", redact_keys(one_line(str(value))))
