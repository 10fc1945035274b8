"""A question during a wait: asked on a terminal, the end of the wait elsewhere."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.output.prompt_line import in_foreground
from tests.conftest import COMMAND, Done
from tests.servers import RawServer, Request, json_reply, reply
from tests.terminals import Session
from tests.waiting import with_time

Run = Callable[..., Done]
Aim = Callable[[Any], Any]
Terminal = Callable[..., Session]
ASK = "Deploy it [[ask]] [[run=200ms]]"
PROMPT = "Number, or your own words:"


@pytest.fixture
def terminal(home: Path, service: Any) -> Iterator[Terminal]:
    """The command on a pseudo-terminal, against a local service."""
    del service
    sessions: list[Session] = []

    def start(*words: str, **environment: Any) -> Session:
        sessions.append(
            Session([*COMMAND, *words], columns=90, echo=True, COLUMNS="90", **environment)
        )
        return sessions[-1]

    yield start
    for session in sessions:
        session.child.close(force=True)


def asking(inside_local: Run) -> str:
    """The id of a task that is waiting for an answer."""
    task = inside_local("create", ASK, "-o", "id").out.strip()
    assert inside_local("wait", task, "--no-input").status == 12
    return task


def test_a_result_that_is_not_there_yet_names_the_question(inside_local: Run) -> None:
    task = asking(inside_local)
    done = inside_local("result", task)
    assert (done.status, done.out) == (12, "")
    assert "is waiting for an answer: How should the simulation continue?" in done.err
    assert f"Answer with `rebyte answer {task}" in done.err


def prompted(session: Session) -> bool:
    """Whether the cursor stands behind a prompt."""
    lines = session.lines
    return lines[-1:] == [PROMPT] and session.screen.cursor.y == len(lines) - 1


def give(session: Session, *replies: str) -> None:
    """Give each reply to a prompt, in order."""
    for text in replies:
        session.until(lambda _: prompted(session))
        before = len(session.raw)
        session.child.sendline(text)
        session.until(lambda _, echo=f"{text}\r\n", at=before: echo in session.raw[at:])


def answered(session: Session, *replies: str) -> list[str]:
    """Give each reply to a prompt, in order; returns all that was shown to the end."""
    give(session, *replies)
    session.finish()
    return session.everything


# Without a terminal


@pytest.mark.parametrize("words", [["--wait"], ["--stream"], ["--stream", "-o", "jsonl"]])
def test_without_a_terminal_a_question_ends_the_wait(inside_local: Run, words: list[str]) -> None:
    done = inside_local("create", ASK, *words)
    assert done.status == 12
    task = inside_local("get", "@last", "-q").json["id"]
    assert f"task {task} is waiting for an answer: How should the simulation continue?" in done.err
    assert f"`rebyte answer {task} --option N`" in done.err
    if words == ["--wait"]:
        assert (done.json["id"], done.json["status"]) == (task, "running")
        assert done.json["question"] is True
        error = json.loads(done.err.splitlines()[-1])["error"]
        assert (error["code"], error["exit"]) == ("needs_answer", 12)
        assert error["hint"].splitlines()[:2] == [
            "1. Go on: Take the default.",
            "2. Stop here: Answer with what there is.",
        ]
    else:
        assert "How should the simulation continue?" in done.out


def test_a_question_shortly_before_the_time_limit_is_named(inside_local: Run) -> None:
    """Also where the limit passes before the first look, which comes after two seconds."""

    def check(limit: float) -> None:
        done = inside_local("create", ASK, "--wait", "--timeout", str(limit))
        assert done.status == 12
        assert "is waiting for an answer: How should the simulation continue?" in done.err
        running = inside_local("create", "[[run=1h]]", "-o", "id").out
        words = ("-", "--timeout", str(limit))
        done = inside_local("wait", done.json["id"], *words, stdin=running)
        assert (done.status, "1 of 2 tasks is still running" in done.err) == (12, True)

    with_time(check, 1)


def test_the_id_of_the_asking_task_is_on_stdout(inside_local: Run) -> None:
    done = inside_local("create", ASK, "--wait", "-o", "id", "-q")
    assert done.status == 12
    assert inside_local("answer", done.out.strip(), "--option", "1").status == 0
    assert inside_local("wait", done.out.strip()).status == 0


def test_every_command_that_waits_ends_with_12(inside_local: Run) -> None:
    task = inside_local("create", ASK, "-o", "id").out.strip()
    for words in (["wait", task], ["logs", task, "-f"], ["result", task, "--wait"]):
        done = inside_local(*words)
        assert (done.status, f"`rebyte answer {task}" in done.err) == (12, True), words
    inside_local("create", "Quick [[run=1ms]]", "--wait")
    for words in (["--wait"], ["--stream"]):
        assert inside_local("follow-up", "@last", ASK, *words).status == 12
        inside_local("answer", "@last", "--option", "1")
        inside_local("wait", "@last")


def test_keep_waiting_if_told_so(inside_local: Run) -> None:
    def check(limit: float) -> None:
        words = ("--on-question", "wait", "--timeout", str(limit))
        for wait in ("--wait", "--stream"):
            done = inside_local("create", ASK, wait, *words)
            assert done.status == 124
            assert done.err.count("is waiting for an answer: How") == 1

    with_time(check, 1.5)


def test_other_tasks_are_waited_for_first(inside_local: Run) -> None:
    asking = inside_local("create", ASK, "-o", "id").out.strip()
    inside_local("create", "Slow [[run=1s]]")
    done = inside_local("wait", "@2", "@1")
    assert done.status == 12
    assert [task["status"] for task in done.documents] == ["completed", "running"]
    inside_local("create", "Bad [[run=1s]] [[fail]]")
    done = inside_local("wait", asking, "@1")
    assert done.status == 10  # which ranks higher
    assert inside_local("wait", asking, "@1", "--any").status == 10
    assert inside_local("wait", asking, "@2", "--first-success").status == 0


def test_the_option_needs_a_wait_and_a_terminal(inside_local: Run) -> None:
    assert inside_local("logs", "x", "--on-question", "stop").status == 2
    done = inside_local("create", "x", "--wait", "--on-question", "ask")
    assert (done.status, "requires a terminal" in done.err) == (2, True)
    assert inside_local("list").json["total"] == 0


def test_a_service_that_only_streams_asks_too(inside: Run, aim: Aim) -> None:
    """Without a content endpoint, `--stream` still sees the question."""
    event = {
        "eventType": "ask_user_question",
        "payload": {"actionId": 7, "messageId": "m", "question": "Which?", "options": ["a"]},
    }

    def script(request: Request) -> Any:
        if request.method == "POST":
            return json_reply({"id": "abcd1234", "status": "running"}, 201)
        path = request.path.partition("?")[0]
        if path.endswith("/events"):
            return reply(200, f"data: {json.dumps(event)}\n\n")
        if path.endswith("/content"):
            return reply(404)
        prompts = [{"id": "p", "status": "running"}]
        return json_reply({"id": "abcd1234", "status": "running", "prompts": prompts})

    with RawServer(script) as server:
        aim(server)
        done = inside("create", "x", "--stream")
    assert done.status == 12
    assert done.out == "? Which?\n  1. a\n"


def test_a_batch_ends_with_12_when_only_questions_are_left(inside_local: Run, home: Path) -> None:
    (home / "t.txt").write_text(f"{ASK}\nSlow [[run=1s]]\n")
    words = ["batch", "t.txt", "--text", "--jobs", "1"]
    done = inside_local(*words)
    assert done.status == 12
    rows = {row["line"]: row for row in map(json.loads, done.out.splitlines())}
    assert [rows[line]["status"] for line in (1, 2)] == ["waiting", "completed"]
    task = rows[1]["id"]
    assert rows[1]["error"]["code"] == "needs_answer"
    assert f"line 1: task {task} is waiting for an answer: How should the" in done.err
    assert f"Answer with `rebyte answer {task} --option N`" in done.err
    assert "2 lines: 1 waiting, 1 completed" in done.err
    assert inside_local("answer", task, "--option", "1").status == 0
    done = inside_local(*words)
    assert (done.status, "2 lines: 2 completed" in done.err) == (0, True)


def test_a_batch_keeps_waiting_if_told_so(inside_local: Run, home: Path) -> None:
    (home / "t.txt").write_text(f"{ASK}\n")
    words = ["batch", "t.txt", "--text", "--on-question", "wait"]

    def check(limit: float) -> None:
        done = inside_local(*words, "--timeout", str(limit))
        assert done.status == 124
        assert done.err.count("is waiting for an answer: How") == 1

    with_time(check, 1.5)
    done = inside_local(*words, "--no-wait", "-o", "table")
    assert "--on-question requires --wait\n" in done.err


# On a terminal


@pytest.mark.slow
def test_a_wait_asks_and_continues(terminal: Terminal) -> None:
    session = terminal("create", ASK, "--wait", "-o", "json")
    shown = answered(session, "3", "", "2")
    assert session.child.exitstatus == 0
    text = "\n".join(shown)
    assert re.search(r"Task [0-9a-f-]{36} asks:\n\? How should the simulation continue\?\n", text)
    assert "there is no option 3: the question has options 1 to 2\nNumber" in text
    assert "the answer is empty; Ctrl-D answers later\nNumber" in text
    assert f"{PROMPT} 2\n{{\n" in text
    assert "Answered: Stop here" in text


@pytest.mark.slow
def test_a_batch_asks_while_other_lines_go_on(terminal: Terminal, home: Path) -> None:
    (home / "t.txt").write_text(f"{ASK}\nOther [[run=1s]]\n")
    session = terminal("batch", str(home / "t.txt"), "--text")
    shown = answered(session, "1")
    assert "1. Go on: Take the default." in " ".join(shown)
    assert "2 lines: 2 completed" in shown[-1]
    assert session.child.exitstatus == 0


@pytest.mark.slow
def test_a_stream_asks_and_continues(terminal: Terminal) -> None:
    session = terminal("create", "Deploy it [[ask=2]] [[run=200ms]]", "--stream")
    shown = "\n".join(answered(session, "1", "not now"))
    assert session.child.exitstatus == 0
    assert shown.endswith("Answered: Go on; not now")


@pytest.mark.slow
def test_a_stream_does_not_repeat_the_question_that_it_showed(terminal: Terminal) -> None:
    session = terminal("create", "Deploy it [[ask]] [[run=200ms]]", "--stream")
    shown = answered(session, "1")
    at = shown.index("? How should the simulation continue?")
    assert shown[at + 3] == f"{PROMPT} 1"
    assert str(shown).count("? How") == 1


@pytest.mark.slow
def test_logs_ask_what_is_open_and_nothing_that_was_answered(
    terminal: Terminal, inside_local: Run
) -> None:
    inside_local("create", ASK)
    session = terminal("logs", "@last", "-f")
    shown = "\n".join(answered(session, "1"))
    assert session.child.exitstatus == 0
    assert shown.count(PROMPT) == 1
    assert "Answered: Go on" in shown
    again = terminal("logs", "@last", "-f")
    assert again.finish() == 0
    assert PROMPT not in "\n".join(again.everything)


@pytest.mark.slow
def test_a_question_that_is_answered_elsewhere_is_withdrawn(
    terminal: Terminal, inside_local: Run
) -> None:
    task = inside_local("create", ASK, "-o", "id").out.strip()
    session = terminal("wait", task, "-o", "id")
    session.until(lambda lines: PROMPT in str(lines))
    assert inside_local("answer", task, "--option", "1").status == 0
    assert session.finish() == 0
    assert session.lines[-1] == task


@pytest.mark.slow
def test_tasks_that_end_meanwhile_are_shown_above_the_question(
    terminal: Terminal, inside_local: Run
) -> None:
    task = inside_local("create", ASK, "-o", "id").out.strip()
    other = inside_local("create", "Slow [[run=1h]]", "-o", "id").out.strip()
    session = terminal("wait", task, other, "-o", "id")
    session.until(lambda lines: PROMPT in str(lines))
    inside_local("cancel", other)
    shown = session.until(lambda lines: other in str(lines) and PROMPT in lines[-1])
    ended = [other, f"Error: task {other} was canceled"]
    question = [
        f"Task {task} asks:",
        "? How should the simulation continue?",
        "  1. Go on: Take the default.",
        "  2. Stop here: Answer with what there is.",
        PROMPT,
    ]
    assert shown == [*ended, *question]
    session.child.sendline("1")
    assert session.finish() == 11  # of the task that was canceled
    assert session.lines == [*ended, *question[:-1], f"{PROMPT} 1", task]


@pytest.mark.slow
def test_questions_of_several_tasks_are_asked_one_after_another(
    terminal: Terminal, inside_local: Run
) -> None:
    for _ in range(2):
        inside_local("create", "Both [[ask=2]] [[run=200ms]]")
    session = terminal("wait", "@2", "@1", "--fields", "status", "-o", "tsv")
    give(session, "1", "later")
    # What is typed while this is printed above the question would be echoed there.
    session.until(lambda lines: "completed" in lines)
    shown = "\n".join(answered(session, "2", "never"))
    assert session.child.exitstatus == 0
    asked = re.findall(r"\? (Question \d)|own words: (\w+)$", shown, re.MULTILINE)
    assert ["".join(each) for each in asked] == [
        *("Question 1", "1", "Question 2", "later"),
        *("Question 1", "2", "Question 2", "never"),
    ]
    assert shown.count("completed") == 2


@pytest.mark.slow
@pytest.mark.parametrize("words", ["wait @last -o id", "wait @last -q", "answer @last"])
def test_ctrl_z_at_a_question(home: Path, inside_local: Run, words: str) -> None:
    """The shell takes the terminal; after `fg`, the whole question is there again."""
    inside_local("create", ASK)
    shell = Session(["bash", "--norc", "-i"], columns=90, PS1="% ")
    shell.child.sendline(f"cd {home}; {' '.join(COMMAND)} {words}")
    shell.until(lambda _: prompted(shell))
    shell.child.send("\x1a")
    shell.until(lambda lines: "Stopped" in str(lines))
    shell.child.sendline("clear; fg")
    shell.until(lambda lines: prompted(shell) and "Stopped" not in str(lines))
    assert shell.lines[-4:-1] == [
        "? How should the simulation continue?",
        "  1. Go on: Take the default.",
        "  2. Stop here: Answer with what there is.",
    ]
    shell.child.sendline("1")
    shell.child.sendline("echo ended with $?")
    shell.until(lambda lines: "ended with 0" in str(lines))
    shell.child.close(force=True)


def test_a_process_that_was_held_up_asks_once(terminal: Terminal, inside_local: Run) -> None:
    """Only at Ctrl-Z has a shell written over the question."""
    asking(inside_local)
    session = terminal("answer", "@last", fork=False)
    session.until(lambda _: prompted(session))
    os.kill(session.child.pid, signal.SIGSTOP)
    time.sleep(2)  # as long as a busy machine may take
    os.kill(session.child.pid, signal.SIGCONT)
    session.child.send("My own\x04 words\n")  # Ctrl-D: it reads twice
    assert session.finish() == 0
    assert session.raw.count(PROMPT) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [("wait", "@last"), ("logs", "@last", "-f"), ("answer", "@last")], ids=str
)
def test_ctrl_c_ends_the_line(terminal: Terminal, inside_local: Run, words: tuple[str]) -> None:
    asking(inside_local)
    session = terminal(*words)
    session.until(lambda lines: PROMPT in str(lines))
    session.child.sendintr()
    assert session.finish() == 130
    assert session.raw.endswith("\n")
    (line,) = [line for line in session.lines if PROMPT in line]
    assert line in (PROMPT, f"{PROMPT} ^C")


@pytest.mark.slow
def test_ctrl_d_leaves_the_question_open(terminal: Terminal, inside_local: Run) -> None:
    task = inside_local("create", ASK, "-o", "id").out.strip()
    for words, status in ((("wait", task), 12), (("answer", task), 1)):
        session = terminal(*words)
        session.until(lambda lines: PROMPT in str(lines))
        session.child.sendeof()
        assert session.finish() == status
        assert session.raw.endswith("\n")
    assert inside_local("answer", task, "--option", "1").status == 0


@pytest.mark.slow
def test_keys_typed_before_the_question_are_no_answer(
    terminal: Terminal, inside_local: Run
) -> None:
    def typed() -> Session:
        """A wait at whose start something was typed; again if the question came first."""
        inside_local("create", ASK)
        session = terminal("wait", "@last")
        session.child.sendline("git status")
        session.until(lambda lines: "How should" in str(lines))
        came_first = session.raw.index("How should") < session.raw.index("git status")
        return typed() if came_first else session

    answered(typed(), "1")
    assert inside_local("result", "@last").out.endswith("Answered: Go on\n")


def test_the_time_limit_holds_while_a_question_is_open(
    terminal: Terminal, inside_local: Run
) -> None:
    inside_local("create", ASK)

    def check(limit: float) -> None:
        session = terminal("wait", "@last", "--timeout", str(limit))
        assert session.finish() == 12
        assert PROMPT in session.raw
        assert session.raw.endswith("\n")

    with_time(check, 4)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["ask", "wait"])
def test_a_question_at_the_time_limit_is_named_on_a_terminal(
    terminal: Terminal, inside_local: Run, policy: str
) -> None:
    """Also where the limit passes before the first look."""
    task = asking(inside_local)

    def check(limit: float) -> None:
        for words in (["wait", task], ["create", ASK, "--wait"]):
            session = terminal(*words, "--on-question", policy, "--timeout", str(limit))
            assert session.finish() == (12 if policy == "ask" else 124), words
            said = " ".join(" ".join(session.lines).split())
            assert "is waiting for an answer: How should the simulation continue?" in said
            assert "Answer with `rebyte answer" in said

    with_time(check, 0.5)


@pytest.mark.slow
def test_ctrl_d_inside_a_line_does_not_hold_up_the_wait(
    terminal: Terminal, inside_local: Run
) -> None:
    inside_local("create", ASK)
    session = terminal("wait", "@last")
    session.until(lambda _: prompted(session))
    session.child.send("My own\x04")
    session.until(lambda lines: "My own" in str(lines))
    inside_local("cancel", "@last")
    assert session.finish() == 11


def test_ctrl_d_inside_a_line_does_not_end_it(terminal: Terminal, inside_local: Run) -> None:
    asking(inside_local)
    session = terminal("answer", "@last")
    session.until(lambda _: prompted(session))
    session.child.send("My own\x04")
    session.until(lambda lines: "My own" in str(lines))
    session.child.sendline(" words")
    assert session.finish() == 0
    inside_local("wait", "@last")
    assert "My own words" in inside_local("result", "@last").out


@pytest.mark.slow
def test_no_input_stops_on_a_terminal(terminal: Terminal, inside_local: Run) -> None:
    inside_local("create", ASK)
    assert terminal("wait", "@last", "--no-input").finish() == 12
    assert terminal("wait", "@last", "--on-question", "stop").finish() == 12


@pytest.mark.slow
def test_a_pipe_on_stdout_leaves_the_question_on_the_terminal(home: Path, service: Any) -> None:
    del service
    result = home / "out.json"
    script = f"{' '.join(COMMAND)} create '{ASK}' --wait | cat > {result}"
    session = Session(["bash", "-c", script], columns=90, echo=True)
    answered(session, "1")
    assert json.loads(result.read_text())["status"] == "completed"


@pytest.mark.slow
def test_a_job_in_the_background_is_not_stopped(home: Path, service: Any) -> None:
    """It notes the question, and asks once it is in the foreground."""
    del service
    command = " ".join(COMMAND)
    shell = Session(["bash", "--norc", "-i"], columns=90, PS1="% ")
    shell.child.sendline(f"{command} create '{ASK}' --wait -o id &")
    shell.until(lambda lines: "is waiting for an answer" in str(lines))
    shell.child.sendline("jobs")
    shell.until(lambda lines: "Running" in str(lines))
    shell.child.sendline("fg")
    shell.until(lambda lines: PROMPT in str(lines))
    shell.child.sendline("1")
    shell.child.sendline("echo ended with $?")
    shell.until(lambda lines: "ended with 0" in str(lines))
    shell.child.close(force=True)


def test_a_terminal_of_another_session_is_read() -> None:
    """`su USER -c` starts a command in one; with nothing read there, it would seem to hang."""
    ours, theirs = os.openpty()
    with open(theirs) as terminal, open(ours, "wb", buffering=0):
        assert in_foreground(terminal)
    with open(os.devnull) as nothing:
        assert not in_foreground(nothing)
    assert not in_foreground(nothing)
