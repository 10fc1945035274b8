"""The region at the foot of a terminal: spinner, progress bar, board of a batch."""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rebyte_cli.errors import BadUsage
from rebyte_cli.output.console import Console, LiveRegion
from rebyte_cli.output.messages import note
from rebyte_cli.output.progress import (
    BatchProgress,
    batch_board,
    lines_of_tasks,
    progress_bar,
    spinner,
    summary_of,
    wait_spinner,
)
from rebyte_cli.output.table import width_of
from tests.conftest import need_tool
from tests.screens import console, text_of
from tests.terminals import Session, Terminal
from tests.waiting import eventually

NEVER = 60.0  # seconds of delay: the tests redraw by themselves


class Clock:
    """Seconds that pass when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def region(it: Console) -> LiveRegion:
    assert it.region is not None
    return it.region


def test_off_a_terminal_nothing_moves() -> None:
    it = console()
    with spinner(it, "creating", delay=0):
        assert it.region is None
    with progress_bar(it, "uploading", 10, delay=0) as advance:
        advance(3)
        assert it.region is None
    with wait_spinner(it, 3) as tell:
        tell(1, 3)
    assert text_of(it.err) == ""


def test_a_spinner_gives_way_to_all_other_output() -> None:
    terminal, clock = Terminal(), Clock()
    it = terminal.console()
    said = ["Creating"]
    with spinner(it, lambda: said[-1], delay=NEVER, clock=clock):
        region(it).redraw()
        assert terminal.lines == ["⠋ Creating"]
        note(it, "Created task t1")
        assert terminal.lines == ["Created task t1"]
        clock.now = 72.4
        said.append("Waiting")
        region(it).redraw()
        assert terminal.lines[0] == "Created task t1"
        assert terminal.lines[1].endswith(" Waiting (1m 12s)")
        it.write_out("t1  running\n")
        region(it).redraw()
        assert terminal.lines[:2] == ["Created task t1", "t1  running"]
    assert terminal.lines == ["Created task t1", "t1  running"]
    assert it.region is None


def test_a_region_never_lands_inside_a_line() -> None:
    terminal = Terminal()
    it = terminal.console()
    with spinner(it, "running", delay=NEVER, clock=Clock()):
        region(it).redraw()
        it.write_out("half a ")
        region(it).redraw()
        assert terminal.lines == ["half a"]
        it.write_out("line\n")
        region(it).redraw()
        assert terminal.lines == ["half a line", "⠋ running"]
    assert terminal.lines == ["half a line"]


def test_a_note_does_not_continue_an_unfinished_line() -> None:
    terminal = Terminal()
    it = terminal.console(live=False)
    it.write_out("half a line")
    note(it, "said")
    note(it, "said again")
    assert terminal.lines == ["half a line", "said", "said again"]


def test_one_spinner_inside_another() -> None:
    terminal = Terminal()
    it = terminal.console()
    with spinner(it, "outer", delay=NEVER, clock=Clock()):
        outer = region(it)
        outer.redraw()
        with spinner(it, "inner", delay=NEVER, clock=Clock()):
            outer.redraw()
            region(it).redraw()
            assert terminal.lines == ["⠋ inner"]
        region(it).redraw()
        assert terminal.lines == ["⠋ outer"]
    assert terminal.lines == []


def test_a_spinner_is_gone_after_an_error() -> None:
    terminal = Terminal()
    it = terminal.console()

    def create() -> None:
        with spinner(it, "creating", delay=NEVER, clock=Clock()):
            region(it).redraw()
            raise BadUsage("no")

    with pytest.raises(BadUsage):
        create()
    assert terminal.lines == []
    assert it.region is None


@pytest.mark.parametrize("columns", [8, 20, 200])
def test_a_spinner_fits(columns: int) -> None:
    terminal = Terminal(columns)
    it = terminal.console()
    with spinner(it, "creating 日本語 in a new workspace", delay=NEVER, clock=Clock()):
        region(it).redraw()
        (line,) = terminal.lines
    assert width_of(line.replace("…", "~")) < columns
    assert line.endswith("workspace" if columns > 100 else "…")


def test_a_terminal_of_few_characters() -> None:
    raw = io.BytesIO()
    err = io.TextIOWrapper(raw, "ascii", errors="backslashreplace")
    it = Console(io.StringIO(), err, err_tty=True, live=True, width=30)
    with spinner(it, "creating a task in a new workspace", delay=NEVER, clock=Clock()):
        region(it).redraw()
    with progress_bar(it, "up", 10, delay=NEVER, clock=Clock()) as advance:
        advance(5)
        region(it).redraw()
    err.flush()
    assert b"- creating a task in a new...\x1b[J\r" in raw.getvalue()
    assert b"up  50%\x1b[J\r" in raw.getvalue()


def test_how_many_tasks_ended() -> None:
    terminal = Terminal()
    it = terminal.console()
    with wait_spinner(it, 3, delay=NEVER) as tell:
        region(it).redraw()
        assert terminal.lines[0][2:] == "Waiting: 0 of 3 tasks ended"
        tell(1, 3)
        region(it).redraw()
        assert terminal.lines[0][2:] == "Waiting: 1 of 3 tasks ended"
    with wait_spinner(it, 1, delay=NEVER):
        region(it).redraw()
        assert terminal.lines[0][2:] == "Waiting for the task to end"


def test_a_wait_off_a_terminal_says_now_and_then_what_the_task_does() -> None:
    """Or CI ends a job that prints nothing."""
    err = io.StringIO()
    with wait_spinner(Console(io.StringIO(), err), 1, interval=0.02, clock=Clock()) as tell:
        tell.doing("task", "* bash: make test")
        eventually(lambda: "make test" in err.getvalue())
        tell.queued("Queued")
        eventually(lambda: "Queued" in err.getvalue())
    assert re.search(r"^Still waiting after \d+s: \* bash: make test$", err.getvalue(), re.M)
    err = io.StringIO()
    with wait_spinner(Console(io.StringIO(), err), 3, interval=0.02) as tell:
        tell(1, 3)
        eventually(lambda: "0s: 1 of 3 tasks ended\n" in err.getvalue())
    err = io.StringIO()
    with wait_spinner(Console(io.StringIO(), err, quiet=True), 1, interval=0.001):
        time.sleep(0.02)
    assert err.getvalue() == ""


def test_a_bar() -> None:
    terminal, clock = Terminal(100), Clock()
    it = terminal.console()
    with progress_bar(it, "big.bin", 10_000_000, delay=NEVER, clock=clock) as advance:
        region(it).redraw()
        assert terminal.lines == [f"big.bin {' ' * 40}   0% 0.0/10.0 MB -:--:--"]
        for _ in range(4):
            clock.now += 1
            advance(1_000_000)
            region(it).redraw()
        assert terminal.lines == [f"big.bin {'━' * 16}{' ' * 24}  40% 4.0/10.0 MB 0:00:06"]
    assert terminal.lines == []


def test_a_bar_without_an_end() -> None:
    terminal = Terminal(100)
    it = terminal.console()
    with progress_bar(it, "unknown", None, delay=NEVER, clock=Clock()) as advance:
        advance(5000)
        region(it).redraw()
        assert "5.0/? kB" in terminal.lines[0]


@pytest.mark.parametrize("columns", [10, 20, 40, 60, 80])
def test_a_bar_fits(columns: int) -> None:
    terminal = Terminal(columns)
    it = terminal.console()
    name = "日本語 with a long name.bin"
    with progress_bar(it, name, 10_000_000, delay=NEVER, clock=Clock()) as advance:
        advance(5_000_000)
        region(it).redraw()
        (line,) = terminal.lines
    assert width_of(line.replace("…", "~")) < columns
    assert "50%" in line


def test_a_terminal_that_went_away_stops_nothing() -> None:
    terminal = Terminal()
    it = terminal.console()
    with spinner(it, "creating", delay=NEVER, clock=Clock()):
        region(it).redraw()
        terminal.close()
        region(it).redraw()
        note(it, "unseen")


# The board of a batch


def standing(ended: int, running: int = 0, failed: int = 0, paused: bool = False) -> BatchProgress:
    oldest = [(f"line {number}  Fix it", "https://x", float(number)) for number in range(running)]
    return BatchProgress(100, ended, ended + running, failed, running, oldest, paused)


def test_the_board_has_counts_rate_and_the_time_left() -> None:
    assert summary_of(standing(40, 2, failed=3)._replace(ended_here=30), 10) == (
        "40/100 ended, 3 failed, 2 running, 58 to create, 3.0/s, about 20s left"
    )


@pytest.mark.parametrize(
    ("room", "line"),
    [
        (83, "1040/12000 ended, 300 failed, 800 running, 10160 to create, about 29h 38m left"),
        (50, "1040/12000 ended, 300 failed, about 29h 38m left"),
        (40, "1040/12000 ended, about 29h 38m left"),
        (20, "1040/12000 ended"),
        (5, "1040/12000 ended"),
    ],
)
def test_the_time_left_stays_on_a_narrow_terminal(room: int, line: str) -> None:
    now = BatchProgress(12_000, 1040, 1840, 300, 800, [], False, ended_here=1000)
    assert summary_of(now, 9735.0, room) == line


def test_tasks_of_earlier_runs_do_not_count_for_the_rate() -> None:
    assert "/s" not in summary_of(standing(90), 10)


def test_a_lost_network_is_shown_instead_of_a_rate() -> None:
    assert "paused: no network" in summary_of(standing(5, paused=True)._replace(ended_here=5), 5)


@pytest.mark.parametrize(("columns", "rows"), [(30, 8), (80, 24), (200, 100), (80, 3)])
def test_a_board_fits_and_leaves_room_for_results(columns: int, rows: int) -> None:
    lines = lines_of_tasks(standing(0, 30), rows - 4, 80, "…")
    assert len(lines) == max(min(rows - 4, 30), 0)
    if 0 < rows - 4 < 30:
        assert lines[-1] == f"  and {30 - len(lines) + 1} more"
    terminal = Terminal(columns)
    it = terminal.console()
    with batch_board(it, lambda _most: standing(7, 30), delay=NEVER, clock=Clock()):
        region(it).redraw()
        assert "7/100 ended" in terminal.lines[0]
        assert len(terminal.lines) == 21  # of 24
        assert all(width_of(line.replace("…", "~")) < columns for line in terminal.lines)
    assert terminal.lines == []


def test_a_hostile_name_cannot_leave_its_line() -> None:
    evil = standing(0)._replace(running=1, oldest=[("\x1b[2J\nkey [bold]", "\x1b", 1.0)])
    assert lines_of_tasks(evil, 5, 80, "...") == ["       1s  \\x1b[2J key [bold]  \\x1b"]


def test_a_link_is_shown_whole_or_not_at_all() -> None:
    one = standing(0, 1)
    assert lines_of_tasks(one, 5, 40, "…") == ["       0s  line 0  Fix it  https://x"]
    assert lines_of_tasks(one, 5, 30, "…") == ["       0s  line 0  Fix it"]
    assert lines_of_tasks(one, 5, 20, "…") == ["       0s  line 0…"]


def test_a_log_gets_a_plain_line_now_and_then_and_quiet_none() -> None:
    err = io.StringIO()
    with batch_board(Console(io.StringIO(), err), lambda _most: standing(1, 2), interval=0.02):
        eventually(err.getvalue)
    assert err.getvalue().startswith("1/100 ended, 2 running, 97 to create")
    assert "\x1b" not in err.getvalue()
    quiet = io.StringIO()
    with batch_board(
        Console(io.StringIO(), quiet, quiet=True), lambda _most: standing(1), interval=0.001
    ):
        time.sleep(0.02)
    assert quiet.getvalue() == ""


# Real terminals

PROGRAM = """
import os, signal, sys, time
from rebyte_cli.errors import Interrupted
from rebyte_cli.output.console import Console
from rebyte_cli.output.messages import note
from rebyte_cli.output.progress import BatchProgress, batch_board, progress_bar, spinner

def stop(number, frame):
    raise Interrupted(143)

def standing(most):
    oldest = [(f"line {n}  " + "x" * 200, "", n) for n in range(23)]
    return BatchProgress(100, 7, 30, 0, 23, oldest[:most], False)

signal.signal(signal.SIGTERM, stop)
console = Console.detect(os.environ)
shown = {
    "spinner": lambda: spinner(console, "busy", delay=0),
    "bar": lambda: progress_bar(console, "busy", 10, delay=0),
    "board": lambda: batch_board(console, standing),
}[sys.argv[1]]
try:
    with shown():
        for number in range(int(sys.argv[2])):
            console.write_out(f"row {number:04} " + "-" * 40 + "\\n", flush=True)
            time.sleep(float(sys.argv[3]))
            if sys.argv[4:] == [str(number)]:
                sys.stdin.readline()
except (Interrupted, KeyboardInterrupt):
    note(console, "stopped")
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("what", ["spinner", "bar"])
def test_a_signal_leaves_the_terminal_as_it_was(how: signal.Signals, what: str) -> None:
    session = Session.python(PROGRAM, what, "1", "30")
    session.until(lambda lines: any("busy" in line for line in lines))
    session.child.kill(how)
    assert session.finish() == 0
    assert session.lines[1:] == ["stopped"]
    assert "\x1b[?25l" not in session.raw  # a kill -9 would leave the cursor hidden


@pytest.mark.parametrize(("columns", "rows"), [(60, 5), (80, 24), (120, 100)])
def test_rows_above_a_board_stay_whole(columns: int, rows: int) -> None:
    session = Session.python(PROGRAM, "board", "40", "0.01", "20", columns=columns, rows=rows)
    board = session.until(lambda lines: any("7/100 ended" in line for line in lines))
    assert board[0].startswith("row 0")
    session.child.send("\n")
    assert session.finish() == 0
    assert [line[:8] for line in session.everything] == [f"row {n:04}" for n in range(40)]


def test_a_window_that_is_resized() -> None:
    session = Session.python(PROGRAM, "board", "1", "60", columns=100, rows=20)
    session.until(lambda lines: "and 8 more" in lines[-1] if lines else False)
    session.resize(40, 10)
    session.until(lambda lines: "  and 18 more" in lines)
    session.resize(120, 20)
    wide = session.until(lambda lines: "  and 8 more" in lines)
    assert max(map(len, wide)) > 100
    session.child.kill(signal.SIGINT)
    assert session.finish() == 0
    assert session.lines[-1] == "stopped"


@pytest.mark.parametrize("wraps", [True, False])
def test_a_narrower_window_keeps_no_row_of_the_region(wraps: bool) -> None:
    terminal = Terminal(100, 40)
    it = terminal.console()
    note(it, "above")
    with batch_board(it, lambda _most: standing(7, 5), delay=NEVER, clock=Clock()):
        region(it).redraw()
        assert len(terminal.lines) == 7
        it.width = 30
        terminal.resize(30, 40, wraps=wraps)
        region(it).redraw()
        assert terminal.lines[0] == "above"
        assert len(terminal.lines) == 7
        assert "7/100 ended" in terminal.lines[1]
        it.width = 12
        terminal.resize(12, 40, wraps=wraps)
    assert terminal.lines == ["above"]


def test_ctrl_z_takes_the_region_away_and_fg_brings_it_back(tmp_path: Path) -> None:
    """Else the shell's lines would be drawn over."""
    bash = need_tool("bash")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    session = Session([bash, "--norc", "--noprofile", "-i"], PS1="$ ", rows=40)
    # Ctrl-Z would have the kernel drop what has not been read yet, such as half of a redraw.
    session.child.send("stty noflsh\n")
    session.child.send(f"{sys.executable} {program} board 1 60\n")
    session.until(lambda lines: "7/100 ended" in "".join(lines))
    session.child.sendcontrol("z")
    stopped = session.until(lambda lines: lines[-1:] == ["$"])
    assert "ended" not in "".join(stopped)
    assert "Stopped" in "".join(stopped)
    session.child.send("fg\n")
    again = session.until(lambda lines: "7/100 ended" in "".join(lines))
    assert again[: len(stopped) - 1] == stopped[:-1]
    session.child.sendintr()
    session.until(lambda lines: lines[-2:] == ["stopped", "$"])
    session.kill()


def test_in_the_background_nothing_moves(tmp_path: Path) -> None:
    """The user types the next command where it would be drawn."""
    bash = need_tool("bash")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    session = Session([bash, "--norc", "--noprofile", "-i"], PS1="$ ", rows=40)
    session.child.send(f"{sys.executable} {program} spinner 1 1 & wait; echo ended\n")
    session.until(lambda lines: lines[-2:] == ["ended", "$"])
    assert "busy" not in session.raw
    session.kill()


@pytest.mark.parametrize(
    ("environment", "drawn", "colored"),
    [({}, True, True), ({"NO_COLOR": "1"}, True, False), ({"TERM": "dumb"}, False, False)],
)
def test_what_the_environment_asks_for(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], drawn: bool, colored: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    session = Session.python(PROGRAM, "bar", "1", "60" if drawn else "0.6", **environment)
    if drawn:
        session.until(lambda lines: any("busy" in line for line in lines))
        session.child.kill(signal.SIGINT)
    assert session.finish() == 0
    assert ("busy" in session.raw) == drawn
    assert bool(re.search(r"\x1b\[[\d;]*m", session.raw)) == colored


def test_static_output_does_not_import_rich() -> None:
    script = """
import io, sys
from rebyte_cli.output.records import *
heavy = {"rich", "json", "dataclasses", "requests", "sqlite3"} & set(sys.modules)
assert not heavy, heavy
from rebyte_cli.output.console import Console
from rebyte_cli.output.messages import note
from rebyte_cli.output.progress import batch_board, progress_bar, spinner
from rebyte_cli.output.render import show
for live in (False, True):  # what ends at once is never drawn
    console = Console(io.StringIO(), io.StringIO(), out_tty=True, err_tty=live, live=live)
    rows = [{"id": "a", "title": "t"}]
    for form in ("table", "json", "csv", "id"):
        show(RecordList(TASK, rows), console=console, format=form)
    with spinner(console, "busy"), progress_bar(console, "busy", 10):
        note(console, "said")
heavy = {"rich", "dataclasses", "requests", "sqlite3"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", script], check=True)
