"""The line that moves at the foot of a terminal."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time

import pexpect
import pytest

from rebyte_cli.errors import BadUsage
from rebyte_cli.output.console import Console, Redrawn
from rebyte_cli.output.progress import bar, note, spinner, waiting_line
from rebyte_cli.output.table import width_of
from tests.screens import console, text_of

ERASE = "\r\x1b[2K"


class Clock:
    """Seconds that pass when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def the_line(it: Console) -> Redrawn:
    assert it.line is not None
    return it.line


def test_off_a_terminal_nothing_moves() -> None:
    it = console()
    with spinner(it, "creating", delay=0) as turning:
        turning.text = "still creating"
        assert it.line is None
    with bar(it, "uploading", 10, delay=0) as work:
        work.advance(3)
        assert it.line is None
    with waiting_line(it, 3) as tell:
        tell(1, 3)
    assert text_of(it.err) == ""


def test_a_spinner_gives_way_to_all_other_output() -> None:
    it = console(tty=True, live=True)
    clock = Clock()
    with spinner(it, "creating", delay=60, clock=clock) as turning:
        the_line(it).refresh()
        note(it, "Created task t1")
        clock.now = 72.4
        turning.text = "waiting"
        the_line(it).refresh()
    assert text_of(it.err) == (
        f"{ERASE}⠋ creating{ERASE}Created task t1\n{ERASE}⠼ waiting (1m 12s){ERASE}"
    )
    assert it.line is None


def test_a_line_never_lands_inside_another() -> None:
    terminal = io.StringIO()
    it = Console(terminal, terminal, out_tty=True, err_tty=True, live=True)
    with spinner(it, "running", delay=60, clock=lambda: 0.0):
        the_line(it).refresh()
        it.write_out("half a ")
        the_line(it).refresh()
        it.write_out("line\n")
        the_line(it).refresh()
    assert terminal.getvalue() == (f"{ERASE}⠋ running{ERASE}half a line\n{ERASE}⠋ running{ERASE}")


def test_a_note_does_not_continue_an_unfinished_line() -> None:
    terminal = io.StringIO()
    it = Console(terminal, terminal, out_tty=True, err_tty=True)
    it.write_out("half a line")
    note(it, "said")
    note(it, "said again")
    assert terminal.getvalue() == "half a line\nsaid\nsaid again\n"


def test_one_spinner_inside_another() -> None:
    it = console(tty=True, live=True)
    with spinner(it, "outer", delay=60, clock=lambda: 0.0):
        outer = the_line(it)
        outer.refresh()
        with spinner(it, "inner", delay=60, clock=lambda: 0.0):
            outer.refresh()
            the_line(it).refresh()
        the_line(it).refresh()
    assert text_of(it.err) == (f"{ERASE}⠋ outer{ERASE}{ERASE}⠋ inner{ERASE}{ERASE}⠋ outer{ERASE}")


def test_a_spinner_is_gone_after_an_error() -> None:
    it = console(tty=True, live=True)

    def create() -> None:
        with spinner(it, "creating", delay=60, clock=lambda: 0.0):
            the_line(it).refresh()
            raise BadUsage("no")

    with pytest.raises(BadUsage):
        create()
    assert text_of(it.err) == f"{ERASE}⠋ creating{ERASE}"
    assert it.line is None


def test_a_long_text_is_cut_to_the_terminal() -> None:
    it = console(tty=True, live=True, width=20)
    with spinner(it, "creating a task in a new workspace", delay=60, clock=lambda: 0.0):
        the_line(it).refresh()
    assert text_of(it.err).split(ERASE)[1] == "⠋ creating a task…"


def test_a_terminal_of_few_characters() -> None:
    raw = io.BytesIO()
    err = io.TextIOWrapper(raw, "ascii", errors="backslashreplace")
    it = Console(io.StringIO(), err, err_tty=True, live=True, width=30)
    with spinner(it, "creating a task in a new workspace", delay=60, clock=lambda: 0.0):
        the_line(it).refresh()
    with bar(it, "up", 10, delay=60, clock=Clock()) as work:
        work.update(5)
        the_line(it).refresh()
    assert raw.getvalue().decode().split(ERASE) == [
        *("", "| creating a task in a new..."),
        *("", "up ---      50%  5/10 -:--:--", ""),
    ]


def test_how_many_tasks_ended() -> None:
    it = console(tty=True, live=True)
    with waiting_line(it, 3, delay=60) as tell:
        the_line(it).refresh()
        tell(1, 3)
        the_line(it).refresh()
    with waiting_line(it, 1, delay=60):
        the_line(it).refresh()
    drawn = [part[2:] for part in text_of(it.err).split(ERASE) if part]
    assert drawn == [
        "waiting: 0 of 3 tasks ended",
        "waiting: 1 of 3 tasks ended",
        "waiting for the task to end",
    ]


def test_a_bar() -> None:
    it = console(tty=True, live=True, width=100)
    clock = Clock()
    with bar(it, "batch", 1000, delay=60, clock=clock) as work:
        work.update(0)
        the_line(it).refresh()
        for _ in range(4):
            clock.now += 1
            work.advance(100)
            the_line(it).refresh()
    drawn = [part for part in text_of(it.err).split(ERASE) if part]
    assert drawn[0] == f"batch {' ' * 40}   0%    0/1000 -:--:--"
    assert drawn[-1] == f"batch {'━' * 16}{' ' * 24}  40%  400/1000 0:00:06"


@pytest.mark.parametrize("width", [10, 20, 40, 60, 80])
def test_a_bar_fits(width: int) -> None:
    it = console(tty=True, live=True, width=width)
    name = "日本語 with a long name.bin"
    with bar(it, name, 10_000_000, size=True, delay=60, clock=Clock()) as work:
        work.update(5_000_000)
        the_line(it).refresh()
    drawn = text_of(it.err).split(ERASE)[1]
    assert 0 < width_of(drawn) < width
    assert "\n" not in drawn


def test_a_bar_of_bytes_and_one_without_an_end() -> None:
    it = console(tty=True, live=True, width=100)
    with bar(it, "big.bin", 10_000_000, size=True, delay=60, clock=Clock()) as work:
        work.update(2_500_000)
        the_line(it).refresh()
        assert " 25% 2.5/10.0 MB " in text_of(it.err)
    with bar(it, "unknown", None, size=True, delay=60, clock=Clock()) as work:
        work.advance(5000)
        the_line(it).refresh()
        assert "5.0/? kB" in text_of(it.err)


def test_a_terminal_that_went_away_stops_nothing() -> None:
    it = console(tty=True, live=True)
    with spinner(it, "creating", delay=60, clock=lambda: 0.0):
        the_line(it).refresh()
        assert it.err is not None
        it.err.close()
        the_line(it).refresh()
        note(it, "nobody sees this")


PROGRAM = """
import os, signal, sys, time
from rebyte_cli.errors import Interrupted
from rebyte_cli.output.progress import bar, note, spinner
from rebyte_cli.output.console import Console

def stop(number, frame):
    raise Interrupted(143)

signal.signal(signal.SIGTERM, stop)
console = Console.detect(os.environ)
try:
    with KIND:
        time.sleep(30)
except (Interrupted, KeyboardInterrupt):
    note(console, "stopped")
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("what", ['spinner(console, "busy")', 'bar(console, "busy", 10)'])
def test_a_real_terminal_is_left_as_it_was(how: signal.Signals, what: str) -> None:
    child = pexpect.spawn(
        sys.executable,
        ["-c", PROGRAM.replace("KIND", what)],
        env={"PATH": os.environ["PATH"], "TERM": "xterm", "LC_ALL": "C.UTF-8"},
        encoding="utf-8",
        timeout=20,
    )
    log = io.StringIO()
    child.logfile_read = log
    child.expect("busy")
    child.kill(how)
    child.expect_exact(f"{ERASE}stopped\r\n")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert "\x1b[?25l" not in log.getvalue()


def test_a_spinner_turns_by_itself() -> None:
    it = console(tty=True, live=True)
    deadline = time.monotonic() + 20
    with spinner(it, "busy", delay=0):
        while len(set(text_of(it.err).split(ERASE))) < 4:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert text_of(it.err).endswith(ERASE)


def test_a_pipe_costs_no_rich() -> None:
    script = """
import io, sys
from rebyte_cli.output.records import *
heavy = {"rich", "json", "dataclasses", "requests", "sqlite3"} & set(sys.modules)
assert not heavy, heavy
from rebyte_cli.output.progress import bar, note, spinner
from rebyte_cli.output.render import show
from rebyte_cli.output.console import Console
console = Console(io.StringIO(), io.StringIO(), out_tty=True)
rows = [{"id": "a", "title": "t"}]
for form in ("table", "json", "csv", "id"):
    show(Listing(TASK, rows), console=console, format=form)
with spinner(console, "busy"), bar(console, "busy", 10):
    note(console, "said")
heavy = {"rich", "dataclasses", "requests", "sqlite3"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", script], check=True)
