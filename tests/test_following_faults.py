"""One run while its service is down, slow, or lacks a part: what is waited for, and how long."""

from __future__ import annotations

import time
from typing import Any

import pytest

from rebyte_cli import RebyteClient
from rebyte_cli.errors import NetworkError, WaitTimeout
from rebyte_cli.tasks.stream import PATIENCE, follow

from .servers import (
    Answer,
    RawServer,
    error_reply,
    json_reply,
    reply,
    reset,
    stall,
    then_close,
    then_stall,
    wire_to,
)
from .test_following import HEAD, Run, contents, done, stream, text, tool

pytestmark = pytest.mark.usefixtures("home")


class Outage(Run):
    """A run whose service resets every connection from the `first` to the `last` request."""

    def __init__(self, first: int, last: int, connections: list[Answer]) -> None:
        super().__init__(connections)
        self.span, self.count = range(first, last + 1), 0

    def __call__(self, request: Any) -> Answer:
        self.count += 1
        return reset if self.count in self.span else super().__call__(request)


def test_a_run_that_has_shown_something_outlives_an_outage() -> None:
    both = stream(text(0, "a"), text(1, "b"), done("b", 1))
    run = Outage(2, 60, [then_close(HEAD + stream(text(0, "a"))), reply(200, both)])
    assert contents(run.follow()) == ["a", "b"]
    assert run.slept[1:6] == [2.0, 3.0, 4.0, 5.0, 5.0]


def test_an_outage_without_end_is_given_up_after_minutes() -> None:
    run = Outage(2, 10**6, [then_close(HEAD + stream(text(0, "a")))])
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += max(seconds, 20.0)  # a minute here is three looks

    with RawServer(run) as server:
        events = follow(
            RebyteClient(transport=wire_to(server)), "t1", clock=lambda: now[0], sleep=sleep
        )
        with pytest.raises(NetworkError):
            list(events)
    assert PATIENCE <= now[0] < PATIENCE + 60


@pytest.mark.parametrize("status", [404, 405, 410, 501])
def test_a_service_without_a_stream_is_asked_for_the_status(status: int) -> None:
    run = Run(
        [error_reply(status, "x", "no")], statuses=["running"] * 8 + ["completed"], response="It."
    )
    (end,) = run.follow()
    assert end.data == {"status": "completed", "lastSeq": -1, "finalResult": "It."}
    assert run.slept == [1.0] * 8


def test_trap_4_an_answer_that_no_place_has_yet_is_looked_for_a_while() -> None:
    early: Answer = reply(200, stream(tool(0), done()))
    run = Run([early] * 11 + [reply(200, stream(tool(0), text(1, "Found."), done("Found.", 1)))])
    assert contents(run.follow()) == ["tool_use", "Found."]
    assert run.slept == [0.1] * 8 + [0.25, 0.5, 1.0]


def test_trap_4_an_answer_that_never_comes_is_given_up_and_a_failed_run_sooner() -> None:
    for status, opened in (("succeeded", 13), ("failed", 9), ("canceled", 9)):
        run = Run([reply(200, stream(tool(0), done(status=status)))])
        assert run.follow()[-1].data["finalResult"] == ""
        assert run.opened == opened, status


@pytest.mark.parametrize("content", [reply(200, "<html>"), error_reply(405, "x", "no")])
def test_the_task_itself_may_be_all_that_has_the_answer(content: Answer) -> None:
    class WithResult(Run):
        def __call__(self, request: Any) -> Answer:
            if request.path.endswith("/t1"):
                return json_reply({"id": "t1", "status": "completed", "finalResult": "Here."})
            return super().__call__(request)

    run = WithResult([reply(200, stream(tool(0), done()))], content=content)
    assert run.follow()[-1].data["finalResult"] == "Here."


def test_the_time_limit_holds_while_the_task_cannot_be_read() -> None:
    class Stalls(Run):
        def __call__(self, request: Any) -> Answer:
            return stall if request.path.endswith("/t1") else super().__call__(request)

    with pytest.raises(WaitTimeout):
        Stalls([then_close(HEAD + stream(text(0, "a")))]).follow(timeout=0.4)


@pytest.mark.parametrize("last", [None, "7", -1])
def test_an_end_that_does_not_say_which_event_was_the_last(last: Any) -> None:
    end = {**done("Found.", 0), "lastSeq": last}
    run = Run([reply(200, stream(tool(3), text(4, "Found."), end))])
    assert run.follow()[-1].data["lastSeq"] == 4


def test_a_connection_that_stays_open_after_the_end_is_left() -> None:
    began = time.monotonic()
    run = Run([then_stall(HEAD + stream(text(0, "a"), done("a")))])
    assert contents(run.follow()) == ["a"]
    assert time.monotonic() - began < 3


def test_failures_count_only_in_a_row() -> None:
    fault = error_reply(500, "x", "no")
    nothing = reply(200, stream())
    answers: list[Answer] = [*[fault] * 4, nothing, *[fault] * 4]
    run = Run([*answers, reply(200, stream(text(0, "a"), done("a")))])
    assert contents(run.follow()) == ["a"]
