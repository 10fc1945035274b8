"""What a batch shows on a terminal while it runs, and when it is interrupted."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pexpect import EOF, spawn

from tests.conftest import COMMAND, need_tool
from tests.farm import Farm


@contextmanager
def on_a_terminal(home: Path, farm: Farm, *options: str) -> Iterator[Any]:
    need_tool("sh")
    child = spawn(
        COMMAND[0],
        [*COMMAND[1:], "batch", "t.txt", "--text", *options],
        cwd=str(home),
        env={**os.environ, **farm.env},
        dimensions=(20, 100),
        encoding="utf-8",
        timeout=60,
    )
    try:
        yield child
    finally:
        child.close(force=True)


def test_on_a_terminal_the_lines_are_gone_when_it_ends(home: Path) -> None:
    (home / "t.txt").write_text("One <run 60>\nTwo <run 60>\n")
    with Farm() as farm, on_a_terminal(home, farm) as child:
        child.expect(
            r"0/2 ended, 2 running\x1b\[K\r\n +\ds  line [12]  (One|Two) <run 60>  https://app.example/run/task-0000"
        )
        for task in farm.tasks.values():
            task["ends"] = 0.0
        child.expect("LINE")
        child.expect(r"2 lines: 2 completed \(")
        child.expect(EOF)
        child.close()
    assert child.exitstatus == 0
    assert "\x1b[?25l" not in str(child.before)


def test_ctrl_c_shows_what_exists_then_the_counts_and_the_way_on(home: Path) -> None:
    (home / "t.txt").write_text("One\nTwo <run 60>\n" + "More\n" * 30)
    is_stopping: list[bool] = []
    with Farm(until=lambda: len(farm.tasks) < 3 or is_stopping) as farm:
        with on_a_terminal(home, farm, "--jobs", "1") as child:
            child.expect("1/32 ended, 1 running")
            child.sendintr()
            child.expect("Stopping: waiting for 1 create under way")
            is_stopping.append(True)
            child.expect("LINE")
            child.expect(EOF)
            child.close()
        assert child.exitstatus == 130
        table, counts = str(child.before).split("32 lines: ")
        assert table.count("task-0") >= len(farm.tasks)
        assert "pending" not in table
        assert re.match(rf"{32 - len(farm.tasks)} pending, ", counts)
        assert "Resume with `rebyte batch" in counts
