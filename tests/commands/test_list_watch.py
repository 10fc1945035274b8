"""`rebyte list --watch`: a table that is redrawn on a terminal, the changes in a pipe."""

from __future__ import annotations

import json
import os
import pty
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.commands.test_list import Tasks
from tests.conftest import COMMAND, Done
from tests.servers import RawServer, Request, json_reply
from tests.terminals import Session
from tests.tools import need_tool

Run = Callable[..., Done]
WATCH = [*COMMAND, "list", "--watch"]


@pytest.fixture
def terminal(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Session]]:
    """`list --watch` on a pseudo-terminal."""
    del home
    monkeypatch.delenv("COLUMNS")
    sessions: list[Session] = []

    def start(*words: str, **options: Any) -> Session:
        sessions.append(Session([*WATCH, *words], **options))
        return sessions[-1]

    yield start
    for session in sessions:
        session.child.close(force=True)


def test_the_terminal_of_another_session(home: Path) -> None:
    """As behind `su -c`: it has keys, and no job control."""
    leader, follower = pty.openpty()
    words = [*WATCH, "-P", "local"]
    with subprocess.Popen(
        words, stdin=follower, stdout=follower, stderr=follower, start_new_session=True
    ) as process:
        os.close(follower)
        shown = b""
        while b"No tasks yet" not in shown:
            shown += os.read(leader, 65536)
        os.write(leader, b"q")
        with suppress(OSError):  # how Linux says that the other side was closed
            while data := os.read(leader, 65536):
                shown += data
    os.close(leader)
    assert (process.returncode, b"Error" in shown) == (0, False), shown


@pytest.mark.slow
def test_the_table_follows_what_happens(
    inside_local: Run, terminal: Callable[..., Session]
) -> None:
    asking = inside_local("create", "Deploy it [[ask]]", "-o", "id").out.strip()
    session = terminal(columns=100, rows=12)
    hint = "Enter logs  d diff  a answer  c cancel  / filter  q quit"
    lines = session.until(lambda lines: lines[-1:] == [hint] and "? How" in str(lines))
    assert lines[0].split() == ["ID", "STATUS", "TIME", "TITLE", "STEP"]
    assert lines[1].startswith(f"> {asking[:8]}  waiting")
    assert "? How should the simulation continue?" in lines[1]
    assert inside_local("answer", asking, "--option", "1").status == 0
    inside_local("create", "Bad [[fail]]")
    ended = ["failed", "completed"]
    session.until(
        lambda lines: [line[12:].split()[:1] for line in lines[1:3]] == [[e] for e in ended]
    )
    session.until(lambda lines: lines[-2:] == ["0 running, 2 ended", hint])
    session.resize(40, 8)
    session.until(lambda lines: "  ID        STATUS     TIME     TITLE" in lines)
    session.child.sendintr()
    assert session.finish() == 130
    assert session.lines[-1] == "0 running, 2 ended"
    assert session.raw.endswith("\n")
    assert "\x1b[?25l" not in session.raw  # a kill would leave the cursor hidden


@pytest.mark.slow
def test_keys_act_on_the_chosen_task(inside_local: Run, terminal: Callable[..., Session]) -> None:
    need_tool("less")
    done = inside_local("create", "Say hello", "--wait", "-o", "id").out.strip()
    asking = inside_local("create", "Deploy it [[ask]]", "-o", "id").out.strip()
    session = terminal(columns=100, rows=14, REBYTE_PAGER="less")

    def chosen(task: str) -> None:
        session.until(lambda lines: any(line.startswith(f"> {task[:8]}") for line in lines))

    chosen(asking)
    session.until(lambda lines: "? How" in str(lines))
    session.child.send("a")
    session.until(lambda lines: lines[-1:] == ["Number, or your own words:"])
    session.child.sendline("1")
    session.until(lambda lines: "0 running, 2 ended" in lines)
    chosen(asking)
    session.child.send("\x1b[B")
    chosen(done)
    session.child.send("\r")
    session.until(lambda lines: lines[-1:] == ["(END)"] and "> Say hello" in lines)
    session.child.send("q")
    chosen(done)
    session.child.send("d")  # fails: nothing has changed
    session.until(lambda lines: lines[-1:] == ["Press a key to go back"])
    assert f"$ rebyte diff {done}" in session.lines
    session.child.send(" ")
    chosen(done)
    session.child.send("k")
    chosen(asking)
    session.child.send("q")
    assert session.finish() == 0
    assert session.lines[-1] == "0 running, 2 ended"
    assert not any(line.startswith("> ") for line in session.lines[-4:])


@pytest.mark.slow
def test_a_cancel_is_confirmed(inside_local: Run, terminal: Callable[..., Session]) -> None:
    task = inside_local("create", "Work [[run=1h]]", "-o", "id").out.strip()
    session = terminal(columns=100, rows=14)
    session.until(lambda lines: "1 running, 0 ended" in lines)
    for answer in "ny":
        session.child.send("c")
        session.until(lambda lines: lines[-1:] == [f"Cancel {task[:8]}? y/n"])
        assert inside_local("get", task).json["status"] == "running"
        session.child.send(answer)
    session.until(lambda lines: "0 running, 1 ended" in lines)
    assert inside_local("get", task).json["status"] == "canceled"
    session.child.send("q")
    assert session.finish() == 0


def test_the_filter_follows_what_is_typed(
    inside_local: Run, terminal: Callable[..., Session]
) -> None:
    for prompt in ("Fix the login", "Write the docs"):
        inside_local("create", prompt, "--wait")
    session = terminal(columns=100, rows=14)
    session.until(lambda lines: "0 running, 2 ended" in lines)
    session.child.send("/dox")
    session.until(lambda lines: lines[-1:] == ["Filter: dox_"] and "No tasks yet" in lines)
    session.child.send("\x7fC")
    session.until(lambda lines: lines[-1:] == ["Filter: doC_"] and "0 running, 1 ended" in lines)
    session.child.send("\r")
    session.until(lambda lines: lines[-1:] != ["Filter: doC_"])
    assert any(line.startswith("> ") and line.endswith("Write the docs") for line in session.lines)
    session.child.send("\x1b")
    session.until(lambda lines: "0 running, 2 ended" in lines)
    session.child.send("q")
    assert session.finish() == 0


@pytest.mark.slow
def test_the_terminal_is_as_it_was_after_each_end(
    inside_local: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After q, Ctrl-C and Ctrl-Z; and `fg` brings table and keys back."""
    monkeypatch.delenv("COLUMNS")
    inside_local("create", "Say hello", "--wait")
    del home
    line = " ".join([*map(shlex.quote, WATCH)])
    session = Session(["bash", "--norc", "-i"], columns=100, rows=30, PS1="$ ")

    def usual(count: int) -> None:
        session.child.sendline("echo lines: $(stty -a | grep -c ' icanon')")
        session.until(lambda lines: session.raw.count("lines: 1") == count)

    usual(1)
    for number, key in enumerate("q\x03", 2):
        session.child.sendline(line)
        session.until(lambda lines: "Enter logs" in lines[-1])
        session.child.send(key)
        session.until(lambda lines: lines[-1:] == ["$"])
        usual(number)
    session.child.sendline(line)
    session.until(lambda lines: "Enter logs" in lines[-1])
    session.child.send("\x1a")
    session.until(lambda lines: "Stopped" in str(lines[-3:]) and lines[-1] == "$")
    usual(4)
    session.child.sendline("fg")
    session.until(lambda lines: "Enter logs" in lines[-1])
    session.child.send("q")
    session.until(lambda lines: lines[-1:] == ["$"])
    usual(5)
    session.child.sendline("exit")
    session.finish()


@pytest.mark.slow
def test_a_hundred_running_tasks_take_two_requests_a_second(
    aim: Callable[[Any], Any], terminal: Callable[..., Session]
) -> None:
    tasks, began = Tasks(100), time.monotonic()
    tasks.statuses = dict.fromkeys(range(100), "running")
    times: list[float] = []

    def script(request: Request) -> bytes:
        times.append(time.monotonic() - began)
        if "/content" in request.path:
            return json_reply({"prompts": [{"status": "running", "events": []}]})
        return tasks(request)

    with RawServer(script) as server:
        aim(server)
        session = terminal(rows=30)
        session.until(lambda lines: "100 running, 0 ended; 75 not shown" in str(lines))
        session.until(lambda _: len(times) >= 110)
        session.child.sendintr()
        assert session.finish() == 130
    assert times[-1] >= (len(times) - 102) / 2  # the list and the first looks come at once


def test_a_pipe_gets_each_change(inside_local: Run, home: Path) -> None:
    asking = inside_local("create", "Deploy it [[ask]]", "-o", "id").out.strip()
    watch = subprocess.Popen(
        [*WATCH, "-o", "jsonl"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=home
    )
    assert watch.stdout is not None
    assert watch.stderr is not None
    first, second = (json.loads(watch.stdout.readline()) for _ in range(2))
    assert (first["id"], first["status"], "question" in first) == (asking, "running", False)
    assert (second["id"], second["question"]) == (asking, True)
    assert second["workspaceId"]
    inside_local("answer", asking, "--option", "1")
    ended = json.loads(watch.stdout.readline())
    while ended["status"] == "running":  # seen between the answer and the end
        ended = json.loads(watch.stdout.readline())
    assert (ended["id"], ended["status"]) == (asking, "completed")
    watch.terminate()
    assert watch.wait(60) == 143
    assert watch.stderr.read() == ""
    watch.stdout.close()
    watch.stderr.close()


def test_filters_hold(inside_local: Run, home: Path) -> None:
    inside_local("create", "Good", "--wait")
    failed = inside_local("create", "Bad [[fail]]", "--label", "run=a", "--wait", "-o", "id").out
    words = ["--status", "failed", "--label", "run=a", "-o", "id"]
    watch = subprocess.Popen([*WATCH, *words], stdout=subprocess.PIPE, text=True, cwd=home)
    assert watch.stdout is not None
    assert watch.stdout.readline() == failed
    watch.kill()
    watch.wait()
    watch.stdout.close()


@pytest.mark.parametrize("words", [["--all"], ["--offset", "5"], ["--no-status"], ["-o", "table"]])
def test_options_that_cannot_be_watched(inside_local: Run, words: list[str]) -> None:
    done = inside_local("list", "--watch", *words)
    assert (done.status, "--watch" in done.err) == (2, True)


def test_a_terminal_that_cannot_redraw_is_refused(
    service: Any, terminal: Callable[..., Session]
) -> None:
    del service
    session = terminal(TERM="dumb")
    assert session.finish() == 2
    assert "Use -o jsonl to print what changes" in str(session.lines)


def test_the_first_read_fails_as_a_list_does(inside: Run, aim: Callable[[Any], Any]) -> None:
    with RawServer(json_reply({"error": {"code": "no", "message": "No"}}, 401)) as server:
        aim(server)
        assert inside("list", "--watch").status == 3
