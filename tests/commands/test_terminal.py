"""On a real terminal: what is asked, what is drawn, and how an interrupt leaves it."""

from __future__ import annotations

import os
import re
import shlex
import socket
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pexpect
import pytest

from tests.conftest import need_tool
from tests.fork_server import commands
from tests.terminals import Session, finish
from tests.waiting import with_time

Terminal = Callable[..., "pexpect.spawn[str]"]
REBYTE = str(commands() / "rebyte")
ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@pytest.fixture
def terminal(home: Path, service: Any) -> Terminal:
    """The command on a pseudo-terminal of 24 by 80."""
    del service

    def start(
        *words: str, command: Sequence[str] = (REBYTE,), **variables: str
    ) -> pexpect.spawn[str]:
        environment = {key: text for key, text in os.environ.items() if key != "COLUMNS"}
        return pexpect.spawn(
            command[0],
            [*command[1:], *words],
            env={**environment, **variables},
            encoding="utf-8",
            timeout=60,
            dimensions=(24, 80),
            cwd=str(home),
        )

    return start


def rest(child: pexpect.spawn[str]) -> str:
    """What it still says, and then it must have ended."""
    finish(child)
    assert isinstance(child.before, str)
    return child.before.replace("\r\n", "\n")


def editor(home: Path, script: str) -> str:
    path = home / "editor"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.mark.parametrize(
    ("script", "status", "said"),
    [
        ("printf 'Say hello' > \"$1\"", 0, '"prompt": "Say hello"'),
        (
            "printf 'a\\377' > \"$1\"",
            2,
            "prompt from the editor: invalid UTF-8 at byte 1 (0xff)",
        ),
        ("true", 2, "the editor saved no prompt"),
        ("exit 3", 2, "the editor exited with status 3"),
    ],
)
def test_text_that_an_editor_may_leave(
    terminal: Terminal, home: Path, script: str, status: int, said: str
) -> None:
    child = terminal("create", "--dry-run", EDITOR=editor(home, script))
    assert said in rest(child)
    assert child.exitstatus == status


@pytest.mark.slow
def test_a_no_changes_nothing_and_is_no_interrupt(terminal: Terminal) -> None:
    for answer, status in (("n\n", 1), ("\n", 1), ("y\n", 0)):
        child = terminal("local", "reset")
        child.expect(r"\[y/N\]")
        child.send(answer)
        said = rest(child)
        assert ("Nothing was changed" in said) == (status == 1)
        assert "Error" not in said
        assert child.exitstatus == status
    assert "--yes" in rest(terminal("local", "reset", "--no-input"))


@pytest.mark.slow
def test_a_relative_reference_is_confirmed_by_title_before_it_is_deleted(
    terminal: Terminal, inside_local: Callable[..., Any]
) -> None:
    ids = [inside_local("create", f"Task {number}").json["id"] for number in range(4)]
    child = terminal("delete", "@last", ids[0], "@2")
    child.expect(re.escape(f"Delete {ids[3][:8]} (Task 3), {ids[2][:8]} (Task 2)? [y/N]"))
    child.send("n\n")
    assert "Nothing was changed" in rest(child)
    assert child.exitstatus == 1
    assert inside_local("list").json["total"] == 4
    child = terminal("delete", "@2", "--no-input")
    refused = " ".join(rest(child).split())
    assert f"confirmation required: Delete {ids[2][:8]} (Task 2)? Hint: Pass --yes" in refused
    assert child.exitstatus == 2
    assert inside_local("list").json["total"] == 4
    named = (ids[0], "--no-input")
    for words in (named, ("@last", "--yes"), ("@2", "--no-input", "-y"), ("@last", "@9", "-y")):
        child = terminal("delete", *words, "-o", "id")
        assert "y/N" not in rest(child)
        assert child.exitstatus == (4 if "@9" in words else 0)
    assert inside_local("list", "-o", "id").out.split() == [ids[1]]


def test_the_end_of_input_is_a_no_that_says_so(terminal: Terminal) -> None:
    child = terminal("local", "reset")
    child.expect(r"\[y/N\]: ")
    child.sendeof()
    assert rest(child) == "\nNothing was changed\n"
    assert child.exitstatus == 1


@pytest.mark.parametrize(
    "words", [("local", "reset"), ("-P", "default", "auth", "login", "--insecure-storage")]
)
def test_an_interrupt_at_a_question_ends_its_line(
    terminal: Terminal, words: tuple[str, ...]
) -> None:
    child = terminal(*words)
    child.expect(r"\[y/N\]: |API key: ")
    ended = 1
    while ended:  # Python misses a signal that comes between its prompt and its read
        child.sendintr()
        ended = child.expect([pexpect.EOF, pexpect.TIMEOUT], timeout=10)
    said = str(child.before)
    # Nothing is echoed while a key is typed.
    assert re.fullmatch(r"(\^C)*\r\n", said)
    assert finish(child) == 130


def test_the_end_of_input_at_a_hidden_question(terminal: Terminal) -> None:
    words = ("-P", "default", "auth", "login", "--insecure-storage")
    child = terminal(*words)
    child.expect("API key: ")
    child.sendeof()
    assert rest(child) == "\nError: the input ended before it was answered\n"
    assert child.exitstatus == 1


@pytest.mark.slow
def test_errors_are_json_where_asked_for_or_read_by_a_program(terminal: Terminal) -> None:
    """In a pipe, stdout is JSON; a user still reads stderr."""
    plain = "Error: no such command: rebyte zzzzz\nHint: See `rebyte --help`\n"
    words = shlex.quote(REBYTE)

    def said(line: str, **variables: str) -> str:
        return rest(terminal(line, command=["sh", "-c"], **variables))

    assert said(f"{words} zzzzz | cat") == plain
    assert said(f"{words} zzzzz") == plain
    assert said(f"{words} zzzzz -o json").startswith('{"error":')
    assert said(f"{words} zzzzz", REBYTE_OUTPUT="jsonl").startswith('{"error":')
    assert said(f"{words} zzzzz 2>&1 | cat").startswith('{"error":')
    assert said(f"{words} zzzzz 2>&1 >/dev/null | cat").startswith('{"error":')
    assert said(f"{words} get zzzzz zzzzzz | cat").startswith("Error: zzzzz: ")


@pytest.mark.slow
def test_a_manual_page_opens_in_the_pager(terminal: Terminal) -> None:
    """With bold headings, as in man(1); and printed where the user wants no pager."""
    for tool in ("man", "less"):
        need_tool(tool)
    child = terminal("man", "cancel", PAGER="less")
    child.expect_exact("\x1b[1mNAME")
    child.send("q")
    rest(child)
    assert child.exitstatus == 0
    shown = rest(terminal("man", "cancel", MANPAGER="tr a-z A-Z"))
    assert "REBYTE-CANCEL - CANCEL RUNNING TASKS" in ESCAPES.sub("", shown)
    for variables in ({"TERM": "dumb"}, {}):
        more = [] if variables else ["--no-input"]
        shown = rest(terminal("man", "cancel", *more, PAGER="false", **variables))
        assert "\nNAME\n" in shown
        assert "\x1b" not in shown


def test_a_pager_that_is_missing_is_replaced(terminal: Terminal, home: Path) -> None:
    """And a page without man(1) is its source, which the next pager on PATH shows."""
    pager = home / "more"
    pager.write_text("#!/bin/sh\nexec /bin/sed 's/^/> /'\n")
    pager.chmod(0o755)
    shown = rest(terminal("man", "cancel", PATH=str(home), PAGER="nosuchpager"))
    assert shown.startswith("> # rebyte-cancel(1): cancel running tasks\n")


def test_nothing_is_asked_with_no_input(terminal: Terminal) -> None:
    assert "no prompt" in rest(terminal("create", "--no-input"))
    assert "--with-key" in rest(terminal("auth", "login", "--insecure-storage", "--no-input"))


@pytest.mark.slow
def test_a_table_fits_the_terminal(terminal: Terminal) -> None:
    rest(terminal("create", "A title that is far too long for the eighty columns", "--wait"))
    shown = rest(terminal("list", NO_COLOR=""))
    assert "\x1b[1m" in shown
    lines = ESCAPES.sub("", shown).splitlines()
    assert lines[0].split() == ["ID", "STATUS", "TITLE", "CREATED"]
    assert max(map(len, lines)) <= 80
    assert "…" in lines[1]
    assert "\x1b" not in rest(terminal("list"))  # NO_COLOR is set
    assert "\x1b" not in rest(terminal("list", NO_COLOR="", TERM="dumb"))
    assert "\x1b" not in rest(terminal("list", "--color", "never", NO_COLOR=""))
    assert "\x1b[1m" in rest(terminal("list", "--color", "always"))


@pytest.mark.slow
def test_a_failed_task_is_red_and_its_short_id_answers(terminal: Terminal) -> None:
    rest(terminal("create", "Bad [[fail]]", "--wait"))
    row = rest(terminal("list", NO_COLOR="")).splitlines()[-1]
    short = row.split()[0]
    assert len(short) == 8
    assert "\x1b[31mfailed\x1b[0m" in row
    assert "\x1b[32m" not in row  # green
    whole = rest(terminal("list", "--full-ids")).splitlines()[-1].split()[0]
    assert (len(whole), whole[:8]) == (36, short)
    assert rest(terminal("get", short, "-o", "id")).split() == [whole]
    assert rest(terminal("list", "-o", "id")).split() == [whole]


def test_an_interrupt_takes_the_spinner_away(terminal: Terminal) -> None:
    child = terminal("create", "Slow [[run=60s]]", "--wait")
    child.expect("Waiting for the task to end")
    child.sendintr()
    said = rest(child)
    assert child.exitstatus == 130
    assert re.search(
        r"\x1b\[JError: interrupted\nHint: The task keeps running. Resume with\s+`rebyte wait ",
        said,
    )
    assert "\x1b[?25l" not in said  # the cursor is never hidden, so it need not come back


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("batch FILE --text -o id", 0.5),
        ("create 'Slow [[run=RUN]]' --wait -o id", 0.6),
        ("create 'Slow [[run=RUN]]' --stream", 3),
    ],
)
def test_what_the_reader_of_a_pipe_prints_stays_whole(
    home: Path, service: Any, words: str, seconds: float
) -> None:
    """It prints on the same terminal, below what was erased and above nothing that is redrawn."""
    del service

    def check(run: float) -> None:
        """With runs so long that something is drawn before they end."""
        lines = (f"x [[run={n * run:.1f}s]]\n" for n in (1, 1.6, 2.2))
        (home / f"{run}.txt").write_text("".join(lines))
        told = words.replace("FILE", f"{run}.txt").replace("RUN", f"{run:.1f}s")
        command = f"cd {home}; {shlex.quote(REBYTE)} {told} | tee seen"
        session = Session(["/bin/sh", "-c", command], columns=120)
        assert session.finish() == 0
        assert re.search("Waiting|running", session.raw)
        seen = list(filter(None, (home / "seen").read_text().splitlines()))
        assert seen
        shown = session.lines
        assert [line for line in shown if line in seen] == seen
        assert not [line for line in shown if "Waiting" in line or " running" in line]

    with_time(check, seconds)


@pytest.mark.slow
def test_errors_on_a_terminal_are_text_wherever_results_go(terminal: Terminal, home: Path) -> None:
    broken = f"REBYTE_CONFIG_DIR={home}/broken {shlex.quote(REBYTE)} doctor > results"
    (home / "broken").mkdir()
    (home / "broken/config.toml").write_text("unknown = 1\n")
    (home / "one.txt").write_text("Slow [[run=1h]]\n")
    batch = f"{shlex.quote(REBYTE)} batch --text one.txt --timeout 1 > results"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"{shlex.quote(REBYTE)} webhook listen --port {taken.getsockname()[1]}"
        for line in (broken, batch, listen):
            said = rest(terminal(line, command=["sh", "-c"]))
            assert "Error: " in said
            assert '{"error"' not in said


def test_quiet_leaves_a_terminal_to_the_data(terminal: Terminal) -> None:
    said = rest(terminal("create", "x", "--wait", "-q", "-o", "id"))
    assert re.fullmatch(r"[0-9a-f-]{36}\n", said)
