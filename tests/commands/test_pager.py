"""Long text on a terminal: in a pager, which its user leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import COMMAND, Done
from tests.terminals import Session
from tests.tools import need_tool

Run = Callable[..., Done]
Start = Callable[..., Session]
LONG = "\n".join(f"line {number}" for number in range(200))


@pytest.fixture
def start(inside_local: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """A command on a terminal of 12 lines, with two tasks: the last one says little."""
    need_tool("less")
    for name in ("REBYTE_PAGER", "PAGER", "LESS", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    inside_local("create", LONG, "--wait")
    inside_local("create", "Short", "--wait")
    sessions: list[Session] = []

    def session(*words: str, **options: Any) -> Session:
        sessions.append(Session([*COMMAND, *words], rows=12, **options))
        return sessions[-1]

    yield session
    for each in sessions:
        each.child.close(force=True)


def long(inside_local: Run) -> str:
    """The id of the task that says much."""
    return str(inside_local("list").json["data"][1]["id"])


def test_what_is_longer_than_the_screen_opens_in_less(inside_local: Run, start: Start) -> None:
    session = start("logs", long(inside_local))
    session.until(lambda lines: lines[-1:] == [":"] and "line 3" in str(lines))
    session.child.send("G")
    session.until(lambda lines: lines[-1:] == ["(END)"])
    session.child.send("q")
    assert session.finish() == 0


def test_what_fits_is_printed(start: Start) -> None:
    session = start("result", "@last")
    assert session.finish() == 0
    assert "Prompt: Short" in str(session.lines)


def test_a_pager_that_is_left_early_is_no_error(inside_local: Run, start: Start) -> None:
    session = start("logs", long(inside_local), REBYTE_PAGER="head -n 2")
    assert session.finish() == 0
    assert "line 9" not in str(session.lines)
    assert "Error" not in str(session.lines)


@pytest.mark.slow
def test_errors_are_in_the_pager_too(inside_local: Run, start: Start, home: Path) -> None:
    """So that they are not drawn over it; the exit status is theirs."""
    del home
    session = start("result", long(inside_local), "b" * 8, REBYTE_PAGER="sed 's/^/> /'")
    assert session.finish() == 4
    assert "> Error: bbbbbbbb: " in session.raw


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "environment"),
    [
        ([], {"REBYTE_PAGER": "cat", "PAGER": "less"}),
        ([], {"REBYTE_PAGER": "", "PAGER": "less"}),
        ([], {"PAGER": "cat"}),
        ([], {"TERM": "dumb"}),
        (["--no-input"], {}),
    ],
)
def test_without_a_pager(
    inside_local: Run, start: Start, words: list[str], environment: dict[str, str]
) -> None:
    session = start("logs", long(inside_local), *words, **environment)
    assert session.finish() == 0
    assert "line 199" in session.raw


def test_ctrl_c_in_the_pager_ends_only_what_the_pager_does(inside_local: Run, start: Start) -> None:
    session = start("logs", long(inside_local))
    session.until(lambda lines: lines[-1:] == [":"])
    session.child.sendintr()

    def at_the_end(lines: list[str]) -> bool:
        session.child.send("G")  # again and again: less discards what it read before the signal
        return lines[-1:] == ["(END)"]

    session.until(at_the_end)
    session.child.send("q")
    assert session.finish() in (0, 130)
    assert not session.raw.endswith("\x1b[?1h")
