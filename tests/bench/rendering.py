"""Ten thousand rows as a table on a terminal of a hundred columns, by rebyte and by rich.

Run in the measured environment, whose package is the built wheel.
"""

from __future__ import annotations

import io
import time
from typing import Any

COUNT = 10_000


def task(number: int) -> dict[str, Any]:
    """A row of the list as the API gives it."""
    return {
        "id": f"00000000-0000-4000-8000-{number:012d}",
        "url": f"https://app.rebyte.ai/run/00000000-0000-4000-8000-{number:012d}",
        "title": f"Task {number}: find out why the nightly build is red and say what to do",
        "createdAt": "2026-02-09T10:05:00.000Z",
        "completedAt": None if number % 3 == 0 else "2026-02-09T10:15:00.000Z",
    }


def rebyte() -> float:
    """Seconds for `rebyte list` to render the rows."""
    from rebyte_cli.output.console import Console
    from rebyte_cli.output.records import TASK_ROW, RecordList
    from rebyte_cli.output.render import show

    rows = [task(number) for number in range(COUNT)]
    console = Console(io.StringIO(), io.StringIO(), out_tty=True, width=100, out_color=True)
    begun = time.perf_counter()
    show(RecordList(TASK_ROW, rows, None), console=console, format="table")
    return time.perf_counter() - begun


def rich() -> float:
    """Seconds for a `rich.table` of the same columns."""
    from rich.console import Console
    from rich.table import Table

    rows = [task(number) for number in range(COUNT)]
    begun = time.perf_counter()
    table = Table("id", "title", "created", "completed")
    for row in rows:
        table.add_row(row["id"], row["title"], row["createdAt"], row["completedAt"] or "")
    Console(file=io.StringIO(), width=100, force_terminal=True).print(table)
    return time.perf_counter() - begun
