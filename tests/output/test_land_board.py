"""The board of `rebyte land` on a terminal."""

from __future__ import annotations

import pytest

from rebyte_cli.output.land_board import BoardRow, land_board, summary_of
from rebyte_cli.output.table import width_of
from tests.terminals import Terminal


def rows(ended: int, waiting: int) -> list[BoardRow]:
    return [
        *(BoardRow("landed", f"Task {n}", f"abcdef012{n}") for n in range(ended)),
        BoardRow("checking", "\x1b[2JThe one\nat work", ""),
        *(BoardRow("waiting", f"Later {n}", "") for n in range(waiting)),
    ]


@pytest.mark.parametrize(("ended", "waiting"), [(0, 0), (2, 3), (50, 50), (0, 90), (90, 0)])
@pytest.mark.parametrize("columns", [30, 80])
def test_the_task_at_work_is_in_view(ended: int, waiting: int, columns: int) -> None:
    terminal = Terminal(columns)
    console = terminal.console()
    with land_board(console, lambda: rows(ended, waiting), delay=60.0, clock=lambda: 0.0):
        region = console.region
        assert region is not None
        region.redraw()  # type: ignore[attr-defined] -- a Region
        lines = terminal.lines
        assert any("checking" in line and "x1b[2JThe one" in line for line in lines)
        assert len(lines) == min(ended + waiting + 1, 20) + 1  # of 24
        assert all(width_of(line) <= columns for line in lines)
    assert terminal.lines == []


def test_the_counts_stand_above() -> None:
    assert summary_of(rows(2, 1), 65.0) == "2 landed, 1 checking, 1 waiting, 1m 05s"
