"""What a batch shows while it runs, on a terminal and in a log."""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pexpect import EOF, spawn

from rebyte_cli.output.console import Console
from rebyte_cli.output.progress import Standing, _View, shown, span
from tests.conftest import COMMAND, need_tool
from tests.farm import Farm


def view(*standings: Standing, seconds: float = 0.0, unicode: bool = True) -> _View:
    """A view that sees these standings one after another, `seconds` after it began."""
    left = list(standings)
    times = iter([0.0])
    return _View(
        lambda: left.pop(0) if len(left) > 1 else left[0],
        lambda: next(times, seconds),
        unicode=unicode,
    )


def standing(ended: int, running: int = 0, failed: int = 0, paused: bool = False) -> Standing:
    names = [(f"line {number}  https://x", float(number)) for number in range(running)]
    return Standing(100, ended, ended + running, failed, names, paused)


def test_the_bar_has_counts_rate_and_the_time_to_the_end() -> None:
    lines = view(standing(10), standing(40, 2, failed=3), seconds=10).lines(100, 10)
    assert lines == [
        "━━━━━━━━━╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌ 40/100 ended, 3 failed, 2 running, 58 to create, 3.0/s, "
        "about 20s left",
        "       0s  line 0  https://x",
        "       1s  line 1  https://x",
    ]


def test_what_ended_in_earlier_runs_makes_no_rate() -> None:
    assert "/s" not in view(standing(90), seconds=10).plain()


def test_only_as_many_tasks_as_fit_are_shown() -> None:
    lines = view(standing(0, 30), seconds=1).lines(40, 5)
    assert len(lines) == 5
    assert lines[-1] == "  and 27 more"
    assert all(len(line) <= 40 for line in lines)
    assert len(view(standing(0, 30)).lines(40, 0)) == 1


def test_a_hostile_key_cannot_leave_its_line() -> None:
    evil = standing(0)._replace(running=[("\x1b[2J\nkey", 1.0)])
    lines = view(evil, unicode=False).lines(80, 10)
    assert lines[1] == "       1s  \\x1b[2J key"
    assert lines[0].startswith("........")


def test_a_lost_network_is_shown_instead_of_a_rate() -> None:
    assert "paused: no network" in view(standing(5, paused=True), seconds=5).plain()


def test_a_log_gets_a_plain_line_now_and_then_and_quiet_none() -> None:
    err = io.StringIO()
    console = Console(io.StringIO(), err)
    with shown(console, lambda: standing(1, 2), every=0.02):
        end = time.monotonic() + 5
        while not err.getvalue() and time.monotonic() < end:
            time.sleep(0.01)
    assert err.getvalue().startswith("1/100 ended, 2 running, 97 to create")
    assert "\x1b" not in err.getvalue()
    quiet = io.StringIO()
    with shown(Console(io.StringIO(), quiet, quiet=True), lambda: standing(1), every=0.001):
        time.sleep(0.02)
    assert quiet.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0s"), (59.9, "59s"), (185, "3m 05s"), (7800, "2h 10m")]
)
def test_spans(seconds: float, words: str) -> None:
    assert span(seconds) == words


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
        timeout=20,
    )
    try:
        yield child
    finally:
        child.close(force=True)


def test_on_a_terminal_the_lines_are_gone_when_it_ends(home: Path) -> None:
    (home / "t.txt").write_text("One <run 0.8>\nTwo <run 0.8>\n")
    with Farm() as farm, on_a_terminal(home, farm) as child:
        child.expect(r"0/2 ended, 2 running\r\n +\ds  line [12]  https://app.example/run/task-0000")
        child.expect("LINE")
        child.expect(r"2 lines: 2 completed \(")
        child.expect(EOF)
        child.close()
    assert child.exitstatus == 0
    assert "\x1b[?25l" not in str(child.before)


def test_ctrl_c_shows_what_exists_then_the_counts_and_the_way_on(home: Path) -> None:
    (home / "t.txt").write_text("One\nTwo <run 60>\n" + "More\n" * 30)
    with Farm() as farm:
        with on_a_terminal(home, farm, "--jobs", "1", "--rate", "2") as child:
            child.expect("1/32 ended, 1 running")
            child.sendintr()
            child.expect("LINE")
            child.expect(EOF)
            child.close()
        assert child.exitstatus == 130
        table, counts = str(child.before).split("32 lines: ")
        assert table.count("task-0") >= len(farm.tasks)
        assert "pending" not in table
        assert re.match(rf"{32 - len(farm.tasks)} pending, ", counts)
        assert "Resume with `rebyte batch" in counts
