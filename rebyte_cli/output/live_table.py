"""The table of `list --watch`, redrawn in place on stdout: tasks that wait for an answer on top."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, NamedTuple

from ..system.durations import duration
from .console import Console, clean
from .progress import shown
from .records import RecordKind
from .table import Style, ago, listing, seconds_since, truncate

if TYPE_CHECKING:
    from rich.console import RenderableType

PERIOD = 1.0  # seconds between two redraws
STEP_COLUMNS = 60  # columns from which on there is room for the last step
_MARK = "> "  # before the selected row
_KIND = RecordKind(
    "", "tasks", "id", "id status time title:text? step:text?", "id status time title"
)


class LiveRow(NamedTuple):
    """A task in the live table. `status` is `waiting` for one that needs an answer, `since` the
    time (ISO 8601) from which its run counts, or at which it ended."""

    id: str
    status: str
    since: str
    title: str
    step: str

    @property
    def rank(self) -> int:
        """Who needs an answer comes first, then what runs, then what has ended."""
        return {"waiting": 0, "running": 1, "queued": 1, "limited": 1}.get(self.status, 2)


class LiveState(NamedTuple):
    """What the live table shows: its rows, and below them `hint` and `trouble`, a line each.

    `selected` is the id of the row that is marked, and always among those that are shown.
    """

    rows: Sequence[LiveRow]
    hint: str = ""
    trouble: str = ""
    selected: str = ""


class LiveTable:
    """The lines of the table, as many as fit, with a summary below."""

    def __init__(
        self,
        console: Console,
        state: LiveState,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`state` may be replaced at any time; another thread draws it."""
        self._console = console
        self._now = now
        self.state = state

    def text(self, columns: int, rows: int) -> str:
        """The table for a terminal of that size, in colour where the console has it."""
        state = self.state
        style = Style.of(self._console, self._now())._replace(width=columns)
        every = sorted(state.rows, key=lambda row: row.rank)
        below = [line for line in (self._summary(every), state.hint, state.trouble) if line]
        # The heading, the blank line, and the line on which the cursor stands.
        room = max(rows - len(below) - 3, 1)
        if len(every) > room:
            below[0] += f"; {len(every) - room} not shown"
        lines = [truncate(clean(line), columns, style.ellipsis) for line in below]
        foot = "\n".join(lines) + "\n"
        if not every:
            return foot
        names = [*_KIND.columns, *(["step"] if columns >= STEP_COLUMNS else [])]
        selected = next((at for at, row in enumerate(every) if row.id == state.selected), None)
        mark = "" if selected is None else _MARK
        top = max(min((selected or 0) - room // 2, len(every) - room), 0)
        cells = [self._cells(row, style) for row in every[top : top + room]]
        style = style._replace(width=columns - len(mark))
        head, *lines = listing(_KIND, cells, names, style).removesuffix("\n").split("\n")
        blank = " " * len(mark)
        marked = "".join(
            f"{mark if at == selected else blank}{line}\n" for at, line in enumerate(lines, top)
        )
        return f"{blank}{head}\n{marked}\n{foot}"

    def draw(self, columns: int, rows: int) -> RenderableType:
        """What a terminal of that size shows."""
        from rich.text import Text

        return Text.from_ansi(self.text(columns, rows), no_wrap=True)

    def _summary(self, rows: Sequence[LiveRow]) -> str:
        count = {rank: sum(row.rank == rank for row in rows) for rank in range(3)}
        words = [f"{count[1]} running"]
        if count[0]:
            words.insert(0, f"{count[0]} waiting for an answer")
        words.append(f"{count[2]} ended")
        return ", ".join(words) if rows else "No tasks yet"

    def _cells(self, row: LiveRow, style: Style) -> dict[str, str]:
        time_ = ago(row.since, style.now)
        if row.rank < 2:
            seconds = seconds_since(row.since, style.now)
            time_ = "" if seconds is None else duration(max(seconds, 0))
        return {**row._asdict(), "time": time_, "step": row.step if row.rank < 2 else ""}


def live_table(console: Console, table: LiveTable) -> AbstractContextManager[Callable[[], None]]:
    """Show the table on stdout until the block ends. Gives what draws it at once."""
    return shown(console, lambda: table.draw, 0.0, PERIOD, on_out=True)
