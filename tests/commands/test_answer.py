"""`rebyte answer`: from a question that parks a run to the run's going on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import COMMAND, Done
from tests.servers import RawServer, error_reply, json_reply
from tests.waiting import eventually

Run = Callable[..., Done]
Aim = Callable[[Any], Any]


def parked(run: Run, steering: str) -> str:
    """The id of a task whose run waits for its user."""
    task: str = run("create", f"Go {steering} [[run=2ms]]", "-o", "id").out.strip()
    eventually(lambda: "?" in run("logs", task).out)
    return task


def error(done: Done) -> dict[str, Any]:
    return dict(json.loads(done.err.splitlines()[-1])["error"])


def test_an_option_is_counted_from_1(inside_local: Run) -> None:
    task = parked(inside_local, "[[ask]]")
    assert inside_local("answer", task, "--option", "2").json == {"id": task, "answered": True}
    assert inside_local("result", task, "--wait").out.endswith("Answered: Stop here\n")


def test_an_answer_in_the_users_own_words(inside_local: Run) -> None:
    task = parked(inside_local, "[[ask]]")
    assert inside_local("answer", task, "--text", "Neither").status == 0
    assert inside_local("result", task, "--wait").out.endswith("Answered: Neither\n")


def test_questions_asked_together_take_one_answer_each(inside_local: Run) -> None:
    task = parked(inside_local, "[[ask=2]]")
    assert inside_local("answer", task, "--option", "1").status == 2
    assert inside_local("answer", task, "--option", "1", "--text", "x").status == 2
    assert inside_local("answer", task, "--option", "1", "--option", "2").status == 0
    assert inside_local("result", task, "--wait").out.endswith("Answered: Go on; Stop here\n")


def test_invalid_answers_are_refused_before_anything_is_sent(inside_local: Run) -> None:
    task = parked(inside_local, "[[ask]]")
    for words in (["--option", "3"], ["--option", "1", "--option", "2"], ["--text", "a"] * 2, []):
        assert inside_local("answer", task, *words).status == 2, words
    assert "1. Go on" in error(inside_local("answer", task))["hint"]
    assert inside_local("get", task).json["status"] == "running"


def test_nothing_waits(inside_local: Run) -> None:
    inside_local("create", "Go [[run=1ms]]")
    done = inside_local("answer", "@last", "--option", "1")
    assert done.status == 1
    assert error(done)["code"] == "not_waiting"


def test_get_tells_what_a_run_waits_for(inside_local: Run) -> None:
    task = parked(inside_local, "[[ask]]")
    done = inside_local("get", task)
    assert done.json["id"] == task
    assert f"Task {task} is waiting for an answer: How should the simulation continue?" in done.err
    assert (done.json["status"], done.json["question"]) == ("running", True)
    quiet = inside_local("get", task, "-q")
    assert (quiet.json["question"], quiet.err) == (True, "")
    inside_local("answer", task, "--option", "1")
    assert "question" not in inside_local("get", task).json


def test_tables_show_what_waits(inside_local: Run) -> None:
    """To the API, a run that waits for its user is running."""
    task = parked(inside_local, "[[ask]]")
    inside_local("create", "Still busy [[run=1h]]")
    rows = inside_local("list", "-o", "table").out.splitlines()[1:]
    assert [row.split()[1] for row in rows] == ["running", "waiting"]
    shown = inside_local("get", task, "-o", "table").out
    assert "\nStatus " in shown
    assert "waiting" in shown
    rows = inside_local("list").json["data"]
    assert [row["status"] for row in rows] == ["running"] * 2
    assert [row.get("question") for row in rows] == [None, True]
    lines = inside_local("list", "-o", "jsonl").out.splitlines()
    assert ["question" in line for line in lines] == [False, True]
    assert inside_local("list", "--fields", "question", "-o", "csv").out == 'question\n""\ntrue\n'
    assert "question" not in inside_local("list", "--no-status").out
    inside_local("answer", task, "--option", "1")
    assert "question" not in inside_local("list").out


QUESTION = {
    "eventType": "ask_user_question",
    "payload": {
        "actionId": "7",
        "messageId": "m",
        "question": "Which?",
        "options": [{"label": "a"}],
    },
}


@pytest.fixture
def asking() -> Callable[[bytes], RawServer]:
    """A server with a parked run, and the given answer to answers."""

    def make(to_answers: bytes) -> RawServer:
        def script(request: Any) -> bytes:
            if request.method == "POST":
                return to_answers
            prompts = [{"id": "p", "status": "running", "events": [QUESTION]}]
            return json_reply({"id": "abcd1234", "status": "running", "prompts": prompts})

        return RawServer(script)

    return make


def test_the_api_counts_options_from_zero(
    inside: Run, aim: Aim, asking: Callable[[bytes], RawServer]
) -> None:
    with asking(json_reply({})) as server:
        aim(server)
        assert inside("answer", "abcd1234", "--option", "1").status == 0
    assert server.seen("POST")[0].json == {
        "messageId": "m",
        "actionId": 7,
        "answer": {"selectedOptions": [0]},
    }


def test_a_question_answered_meanwhile_is_told_in_one_line(
    inside: Run, aim: Aim, asking: Callable[[bytes], RawServer]
) -> None:
    with asking(error_reply(409, "conflict", "No question")) as server:
        aim(server)
        done = inside("answer", "abcd1234", "--option", "1")
    assert done.status == 1
    assert error(done)["code"] == "not_waiting"
    assert error(done)["message"].startswith("task abcd1234 no longer waits for this answer")


def test_on_a_terminal_the_question_is_asked_again_until_it_fits(
    service: Any, inside_local: Run
) -> None:
    import pexpect

    del service
    task = parked(inside_local, "[[ask]]")
    child = pexpect.spawn(
        COMMAND[0], [*COMMAND[1:], "answer", task], env=dict(os.environ), timeout=60
    )
    child.expect_exact("? How should the simulation continue?")
    child.expect_exact("2. Stop here: Answer with what there is.")
    child.expect_exact("Number, or your own words: ")
    child.sendline("3")
    child.expect_exact("option 3")
    child.sendline("1")
    child.expect(pexpect.EOF)
    child.wait()
    child.close()
    assert child.exitstatus == 0
    assert inside_local("result", task, "--wait").out.endswith("Answered: Go on\n")
