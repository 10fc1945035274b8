"""The board of `rebyte land` on a terminal: where each task stands, the one at work in view."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, NamedTuple

from ..system.durations import duration
from .console import Console, ellipsis_for, one_line
from .progress import DELAY, bar_beside, shown
from .table import truncate

if TYPE_CHECKING:
    from rich.console import RenderableType

ROOM_ABOVE = 4  # rows of the terminal for what is printed above the board
ENDED = {"landed": "green", "empty": "dim", "left out": "red"}  # statuses with their styles
AT_WORK = "bold"
STATUS_CELLS = 9


class BoardRow(NamedTuple):
    """A task on the board: its status, its title, and more, such as its commit."""

    status: str
    title: str
    more: str


class LandBoard:
    """The lines of the board: a bar with counts, and below it the tasks around the current one."""

    def __init__(
        self, rows: Callable[[], Sequence[BoardRow]], clock: Callable[[], float], ellipsis: str
    ) -> None:
        self._rows = rows
        self._clock = clock
        self._started = clock()
        self._ellipsis = ellipsis

    def summary(self, rows: Sequence[BoardRow]) -> str:
        """How many tasks have which status, and for how long it has been at work."""
        counts = Counter(row.status for row in rows)
        words = [f"{count} {status}" for status, count in counts.items()]
        return ", ".join([*words, duration(self._clock() - self._started)])

    def visible(self, rows: Sequence[BoardRow], room: int) -> list[BoardRow]:
        """At most `room` rows: some that have ended, the one at work, some that wait."""
        current = next((at for at, row in enumerate(rows) if row.status not in ENDED), len(rows))
        first = max(min(current - room // 2, len(rows) - room), 0)
        return list(rows[first : first + max(room, 0)])

    def draw(self, columns: int, height: int) -> RenderableType:
        """What a terminal of that size shows."""
        from rich.console import Group
        from rich.text import Text

        rows = self._rows()
        ended = sum(row.status in ENDED for row in rows)
        summary = truncate(self.summary(rows), max(columns - 12, 1), self._ellipsis)
        head = bar_beside(ended, len(rows), 10, summary)
        lines = []
        for row in self.visible(rows, height - ROOM_ABOVE):
            text = f"  {row.status:{STATUS_CELLS}} {one_line(row.title)}"
            text += f"  {one_line(row.more)}" if row.more else ""
            style = ENDED.get(row.status, "" if row.status == "waiting" else AT_WORK)
            lines.append(Text(truncate(text, columns, self._ellipsis), style))
        return Group(head, *lines)


def land_board(
    console: Console,
    rows: Callable[[], Sequence[BoardRow]],
    *,
    delay: float = DELAY,
    clock: Callable[[], float] = time.monotonic,
) -> AbstractContextManager[object]:
    """Show the board, from `delay` seconds on, until the block ends; another thread calls `rows`.

    Only on a terminal.
    """
    board = LandBoard(rows, clock, ellipsis_for(console.err))
    return shown(console, lambda: board.draw, delay, 0.2)
