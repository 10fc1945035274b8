"""`rebyte logs -f` of a task with prompts that wait for their turn: each is shown, in order."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Done
from tests.servers import RawServer, error_reply, json_reply, reply

Run = Callable[..., Done]
Aim = Callable[[Any], Any]


@pytest.fixture
def queue(inside_local: Run) -> None:
    """A task of three prompts: one runs, two wait."""
    inside_local("create", "One [[run=400ms]] [[events=6]]")
    for number in ("Two [[run=200ms]]", "Three [[run=200ms]]"):
        assert inside_local("follow-up", "@last", number).status == 0


@pytest.mark.usefixtures("queue")
def test_what_runs_and_waits_before_the_latest_is_shown(inside_local: Run) -> None:
    followed = inside_local("logs", "@last", "-f")
    assert followed.out == inside_local("logs", "@last").out
    assert followed.out.count("This is a simulation") == 3
    assert (followed.status, followed.err) == (0, "")


@pytest.mark.usefixtures("queue")
def test_each_event_is_told_once_and_one_end_comes_last(inside_local: Run) -> None:
    followed = inside_local("logs", "@last", "-f", "-o", "jsonl").out.splitlines()
    assert followed[:-1] == inside_local("logs", "@last", "-o", "jsonl").out.splitlines()
    assert json.loads(followed[-1])["status"] == "succeeded"


@pytest.mark.usefixtures("queue")
def test_the_time_limit_holds_while_others_have_their_turn(inside_local: Run) -> None:
    inside_local("create", "One [[run=1m]]")
    inside_local("follow-up", "@last", "Two")
    for words in ([], ["-o", "jsonl"]):
        begun = time.monotonic()
        done = inside_local("logs", "@last", "-f", "--timeout", "0.5", *words)
        assert done.status == 124
        assert time.monotonic() - begun < 2


def test_a_question_of_an_earlier_prompt_is_told(inside_local: Run) -> None:
    task = inside_local("create", "Go [[ask]] [[run=100ms]]", "-o", "id").out.strip()
    inside_local("follow-up", task, "Then this")
    done = inside_local("logs", task, "-f", "--timeout", "2")
    assert done.status == 124
    assert done.err.count(f"`rebyte answer {task}`") == 1


class Task:
    """A task of two prompts whose older one has `status`, with or without a content endpoint."""

    def __init__(self, status: str, *, content: bool = True) -> None:
        self.prompts = [
            {"id": "p1", "status": status, "userPrompt": "Old", "response": None},
            {"id": "p2", "status": "running", "userPrompt": "New", "response": None},
        ]
        self.content = content

    def __call__(self, request: Any) -> bytes:
        path = request.path.partition("?")[0]
        if path.endswith("/events"):
            self.prompts[-1]["status"] = "succeeded"
            event = {"seq": 0, "eventType": "text", "payload": {"content": "New answer"}}
            end = {"status": "succeeded", "finalResult": "New answer"}
            return reply(
                200, f"data: {json.dumps(event)}\n\nevent: done\ndata: {json.dumps(end)}\n\n"
            )
        if path.endswith("/content") and not self.content:
            return error_reply(404, "not_found", "no")
        return json_reply({"id": "abcd1234", "status": "running", "prompts": self.prompts})


@pytest.mark.parametrize("content", [True, False], ids=["content", "without"])
@pytest.mark.parametrize("status", ["running", "pending", "resting"])
def test_an_old_prompt_that_is_stuck_does_not_hold_up_the_latest(
    status: str, content: bool, inside: Run, aim: Aim
) -> None:
    with RawServer(Task(status, content=content)) as server:
        aim(server)
        done = inside("logs", "abcd1234", "-f", "--timeout", "20")
    assert done.status == 0, done.err
    assert done.out.endswith("New answer\n")
