"""`--timeout` where a service does not answer in time: 124 at the limit, and nothing later."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Done
from tests.servers import Answer, RawServer, json_reply, stall

Run = Callable[..., Done]
Aim = Callable[[Any], Any]
CREATED = {"id": "abcd1234", "url": "https://x/", "status": "running"}


def mute(request: Any) -> Answer:
    """Takes what is sent; whatever is read hangs."""
    if request.method == "GET":
        return stall
    return json_reply({"promptId": "p1"} if request.path.endswith("/prompts") else CREATED, 201)


@pytest.mark.parametrize(
    "words",
    [
        ["create", "Hi", "--wait"],
        ["follow-up", "abcd1234", "Hi", "--wait"],
        ["result", "abcd1234", "--wait"],
        ["wait", "abcd1234"],
        ["wait", "abcd1234", "abcd1235", "abcd1236"],
        ["create", "Hi", "--stream"],
        ["logs", "abcd1234", "-f"],
        ["workspace", "create", "--wait"],
    ],
    ids=" ".join,
)
def test_the_limit_is_124_where_every_read_hangs(words: list[str], inside: Run, aim: Aim) -> None:
    with RawServer(mute) as server:
        aim(server)
        begun = time.monotonic()
        done = inside(*words, "--timeout", "2.5")
        took = time.monotonic() - begun
    assert done.status == 124, done.err
    assert 2.5 <= took < 8
    assert "2.5 s" in done.err


def test_a_limit_above_that_of_a_call_leaves_a_wrong_address_a_fault(
    inside: Run, aim: Aim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REBYTE_REQUEST_TIMEOUT", "0.5")
    with RawServer(mute) as server:
        aim(server)
        assert inside("wait", "abcd1234", "--timeout", "60").status == 5


def test_a_service_that_falls_silent_does_not_stretch_the_limit(inside: Run, aim: Aim) -> None:
    running = json_reply(CREATED, headers={"Date": "Mon, 09 Feb 2026 10:00:00 GMT"})
    with RawServer([running, stall]) as server:
        aim(server)
        begun = time.monotonic()
        done = inside("wait", "abcd1234", "--timeout", "3", "--interval", "0.2")
        took = time.monotonic() - begun
    assert done.status == 124
    assert took < 8


@pytest.mark.parametrize("stalls", ["/content", "/events"])
def test_an_answer_that_cannot_be_read_does_not_stretch_the_limit(
    stalls: str, inside: Run, aim: Aim
) -> None:
    task = {**CREATED, "status": "completed", "prompts": [{"id": "p1", "status": "succeeded"}]}

    def answer(request: Any) -> Answer:
        return stall if stalls in request.path else json_reply(task)

    with RawServer(answer) as server:
        aim(server)
        begun = time.monotonic()
        done = inside("result", "abcd1234", "--wait", "--timeout", "0.3")
    assert time.monotonic() - begun < 5
    assert (done.status, done.out) == (124, "")
    assert "the answer of task abcd1234 could not be read in 0.3 s" in done.err
