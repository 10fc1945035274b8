"""What runs say, on a real terminal: Markdown, colours, a sign of life, whole words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conftest import COMMAND, Done
from tests.output.test_safety import JOINED
from tests.servers import RawServer, json_reply
from tests.terminals import Session
from tests.waiting import with_time

Run = Callable[..., Done]
Terminal = Callable[..., Session]
SGR = re.compile(r"\x1b\[[0-9;]*m")
SAID = "Use `make` and *not* more [[run=1ms]]"


@pytest.fixture
def terminal(service: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """The command on a pseudo-terminal with colours, against a local service."""
    del service
    monkeypatch.delenv("COLUMNS")
    monkeypatch.delenv("NO_COLOR")
    sessions: list[Session] = []

    def start(*words: str, columns: int = 80, **environment: str) -> Session:
        sessions.append(Session([*COMMAND, *words], columns=columns, **environment))
        return sessions[-1]

    yield start
    for session in sessions:
        session.child.close(force=True)


@pytest.mark.slow
def test_an_answer_is_rendered_where_colours_are(inside_local: Run, terminal: Terminal) -> None:
    inside_local("create", SAID, "--wait")
    for words in (("result", "@last"), ("logs", "@last", "-f")):
        session = terminal(*words)
        assert session.finish() == 0
        assert "Use \x1b[36mmake\x1b[0m and \x1b[3mnot\x1b[0m more" in session.raw, words
    session = terminal("result", "@last", NO_COLOR="1")
    assert session.finish() == 0
    assert "Use \x1b[1mmake\x1b[0m and \x1b[3mnot\x1b[0m more" in session.raw
    for words, more in (([], {"TERM": "dumb"}), (["--color", "never"], {})):
        session = terminal("result", "@last", *words, **more)
        assert session.finish() == 0
        assert "Use `make` and *not* more" in session.raw
        assert "\x1b" not in session.raw
    assert inside_local("result", "@last", "--color", "always").out.count("`make`") == 1


@pytest.mark.slow
def test_no_color_leaves_structure_without_colours(
    inside: Run, terminal: Terminal, aim: Callable[[Any], Any]
) -> None:
    text = "# Head\n\n- **one**\n- [two](https://x.example)\n\n```python\nreturn 1\n```\n"
    with RawServer(json_reply({"id": "a", "status": "completed", "finalResult": text})) as server:
        aim(server)
        session = terminal("result", "a", NO_COLOR="1")
        assert session.finish() == 0
    assert session.lines[0] == "Head"
    assert " • one" in session.lines
    codes = {code for found in SGR.findall(session.raw) for code in found[2:-1].split(";")}
    assert {"1"} <= codes <= {"", "0", "1", "2", "3", "4"}


ODD = f"a\x1b]52;c;AAAA\x07b\u202e\tc\r\nd \ufeff\u200b {JOINED}"


@pytest.mark.parametrize("words", [[], ["--color", "never"]], ids=str)
def test_a_hostile_answer_is_made_visible(
    terminal: Terminal, aim: Callable[[Any], Any], words: list[str]
) -> None:
    with RawServer(json_reply({"id": "a", "status": "completed", "finalResult": ODD})) as server:
        aim(server)
        session = terminal("result", "a", *words)
        assert session.finish() == 0
    assert "a\\x1b]52;c;AAAA\\x07b\\u202e" in session.raw
    assert f"\\ufeff\\u200b {JOINED}" in session.raw


def test_json_is_coloured(inside_local: Run, terminal: Terminal) -> None:
    inside_local("create", SAID, "--wait")
    session = terminal("get", "@last", "-o", "json", "--fields", "status")
    assert session.finish() == 0
    assert '\x1b[1;34m"status"\x1b[0m: \x1b[32m"completed"' in session.raw
    assert "\x1b" not in inside_local("get", "@last", "-o", "json", env={"FORCE_COLOR": "1"}).out


@pytest.mark.slow
def test_a_stream_shows_a_sign_of_life_until_something_comes(terminal: Terminal) -> None:
    def check(limit: float) -> None:
        prompt = f"Slowly, for {limit} s [[run=1h]]"
        session = terminal("create", prompt, "--stream", "--timeout", str(limit))
        session.until(lambda lines: "Waiting for output of the run" in str(lines))
        assert session.finish() == 124
        assert "Waiting for output of the run" not in str(session.lines)

    with_time(check, 2)


def test_a_spinner_does_not_run_into_what_another_program_prints(
    terminal: Terminal, inside_local: Run
) -> None:
    inside_local("create", "Slowly [[run=1s]]")
    command = f"{' '.join(COMMAND)} logs @last -f | sed s/^/:/"
    session = Session(["bash", "-c", command], columns=80)
    session.finish()
    first = session.raw.index(":>")
    assert "Waiting" not in session.raw[first:]


@pytest.mark.slow
@pytest.mark.parametrize("columns", [30, 80])
def test_words_are_whole_at_the_edge(inside_local: Run, terminal: Terminal, columns: int) -> None:
    prompt = "Considerably longer sentences which certainly require wrapping somewhere [[run=1ms]]"
    inside_local("create", prompt, "--wait")
    known = {*inside_local("logs", "@last").out.split(), *["Error:", "Hint:"], "•"}
    session = terminal("logs", "@last", columns=columns)
    assert session.finish() == 0
    assert set("\n".join(session.everything).split()) <= known
    error = inside_local("result", "nosuchtask1234", "-o", "table").err
    session = terminal("result", "nosuchtask1234", columns=columns)
    assert session.finish() == 4
    assert " ".join("\n".join(session.everything).split()) == " ".join(error.split())


@pytest.mark.slow
def test_a_question_is_whole_on_a_narrow_terminal(terminal: Terminal) -> None:
    session = terminal("create", "Deploy [[ask]] [[run=200ms]]", "--wait", "-o", "id", columns=40)
    lines = session.until(lambda lines: "own words:" in str(lines))
    at = lines.index("? How should the simulation continue?")
    assert lines[at + 1 : at + 5] == [
        "  1. Go on: Take the default.",
        "  2. Stop here: Answer with what there",
        "     is.",
        "Number, or your own words:",
    ]
    session.child.sendline("1")
    assert session.finish() == 0
