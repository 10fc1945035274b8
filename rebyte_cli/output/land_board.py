"""The board of `rebyte land` on a terminal: where each task stands, the one at work in view."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, NamedTuple

from ..system.durations import duration
from .console import Console, ellipsis_for, one_line
from .progress import DELAY, ROOM_ABOVE, bar_beside, shown
from .table import truncate

if TYPE_CHECKING:
    from rich.console import RenderableType

ENDED = {"landed": "green", "empty": "dim", "left out": "red"}  # statuses with their styles
AT_WORK = "bold"
STATUS_CELLS = 9


class BoardRow(NamedTuple):
    """A task on the board: its status, its title, and more, such as its commit."""

    status: str
    title: str
    more: str


def land_board(
    console: Console,
    rows: Callable[[], Sequence[BoardRow]],
    *,
    delay: float = DELAY,
    clock: Callable[[], float] = time.monotonic,
) -> AbstractContextManager[object]:
    """Show the board, from `delay` seconds on, until the block ends; another thread calls `rows`.

    A bar with counts, and below it the tasks around the current one. Only on a terminal.
    """
    started, ellipsis = clock(), ellipsis_for(console.err)

    def draw(columns: int, height: int) -> RenderableType:
        """What a terminal of that size shows."""
        from rich.console import Group
        from rich.text import Text

        every = rows()
        ended = sum(row.status in ENDED for row in every)
        summary = truncate(summary_of(every, clock() - started), max(columns - 12, 1), ellipsis)
        head = bar_beside(ended, len(every), 10, summary)
        lines = []
        for row in _visible(every, height - ROOM_ABOVE):
            text = f"  {row.status:{STATUS_CELLS}} {one_line(row.title)}"
            text += f"  {one_line(row.more)}" if row.more else ""
            style = ENDED.get(row.status, "" if row.status == "waiting" else AT_WORK)
            lines.append(Text(truncate(text, columns, ellipsis), style))
        return Group(head, *lines)

    return shown(console, lambda: draw, delay, 0.2)


def summary_of(rows: Sequence[BoardRow], seconds: float) -> str:
    """How many tasks have which status, and for how long it has been at work."""
    counts = Counter(row.status for row in rows)
    words = [f"{count} {status}" for status, count in counts.items()]
    return ", ".join([*words, duration(seconds)])


def _visible(rows: Sequence[BoardRow], room: int) -> Sequence[BoardRow]:
    """At most `room` rows: some that have ended, the one at work, some that wait."""
    current = next((at for at, row in enumerate(rows) if row.status not in ENDED), len(rows))
    first = max(min(current - room // 2, len(rows) - room), 0)
    return rows[first : first + max(room, 0)]
