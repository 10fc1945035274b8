"""What is read of a task: its prompts, wherever they are, and how long it is tried."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytest

from rebyte_cli import RebyteClient
from rebyte_cli.api.transport import Transport
from rebyte_cli.errors import BrokenAnswer, NetworkError, WaitTimeout
from rebyte_cli.system.deadline import Deadline
from rebyte_cli.tasks.content import content
from tests.servers import Answer, RawServer, json_reply, reset, stall, transport_to
from tests.task_board import Time

PROMPT = {"id": "p1", "status": "succeeded", "response": "It is 4."}


def client_of(server: RawServer, **options: Any) -> RebyteClient:
    return RebyteClient(transport=transport_to(server, sleep=lambda _seconds: None, **options))


def read(answer: Answer, seconds: float | None = None, **options: Any) -> Mapping[str, Any]:
    with RawServer(lambda _request: answer) as server, client_of(server, **options) as client:
        return content(client, "t1", deadline=Deadline(seconds)).raw


def test_a_line_that_breaks_is_no_time_limit() -> None:
    for timeout in (None, 30.0):
        begun = time.monotonic()
        with pytest.raises(NetworkError) as caught:
            read(reset, timeout)
        assert not isinstance(caught.value, WaitTimeout)
        assert time.monotonic() - begun < 20


def test_a_service_that_hangs_is_one_within_the_limit_of_a_call() -> None:
    begun = time.monotonic()
    with pytest.raises(WaitTimeout, match=r"task t1 could not be read in 0.3 s") as caught:
        read(stall, 0.3)
    assert 0.3 <= time.monotonic() - begun < 20
    assert caught.value.pending == ["t1"]


def test_a_read_that_outlasts_the_limit_of_a_call_is_a_fault() -> None:
    """A wrong address, or a service that is down: more time would not help."""
    begun = time.monotonic()
    with pytest.raises(NetworkError) as caught:
        read(stall, 30.0, timeout=0.2)
    assert caught.value.code == "timeout"
    assert time.monotonic() - begun < 20


def test_a_call_whose_attempts_are_used_up_early_is_repeated() -> None:
    calls: list[float] = []
    at = Time()

    class Slow:
        transport = Transport("http://127.0.0.1:9/v1", "rbk_never_used")

        def task_content(self, _task_id: str, *, events: bool, timeout: float) -> None:
            calls.append(timeout)
            at.now += 1.0
            raise NetworkError("no answer", code="timeout", seconds=timeout)

    client: Any = Slow()
    with pytest.raises(WaitTimeout):
        content(client, "t1", deadline=at.deadline(3.5))
    assert calls == [3.5, 2.5, 1.5, 0.5], "each has what is left"


def test_a_task_without_prompts_has_none() -> None:
    assert read(json_reply({"id": "t1", "prompts": []}))["prompts"] == []


@pytest.mark.parametrize("prompts", [None, "none", {}])
def test_an_answer_that_holds_no_prompts_is_broken(prompts: object) -> None:
    with pytest.raises(BrokenAnswer, match="task t1: the answer holds no prompts"):
        read(json_reply({"id": "t1", "prompts": prompts}))


def test_prompts_that_are_none_are_passed_over() -> None:
    assert read(json_reply({"id": "t1", "prompts": [None, "x", PROMPT]}))["prompts"] == [PROMPT]


@pytest.mark.parametrize("word", ["pending", "queued"])
def test_the_stream_of_a_queued_prompt_is_not_read(word: str) -> None:
    prompts = [PROMPT, {"id": "p2", "status": word}]
    with RawServer(lambda _request: json_reply({"prompts": prompts})) as server:
        with client_of(server) as client:
            assert content(client, "t1").raw["prompts"] == prompts
        assert [request.path.partition("?")[0] for request in server.requests] == [
            "/v1/tasks/t1/content"
        ]
