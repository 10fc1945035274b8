"""`--timeout` where a service does not answer in time: 124 at the limit, and nothing later."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Done
from tests.servers import Answer, Line, RawServer, json_reply, parts
from tests.waiting import with_time

Run = Callable[..., Done]
Aim = Callable[[Any], Any]
STREAM = b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\n\r\n"
EVENT = b'data: {"seq":0,"eventType":"text","payload":{"content":"working"}}\n\n'
CREATED = {"id": "abcd1234", "url": "https://x/", "status": "running"}
LATER = 15  # seconds after a limit that only a command without one takes: a busy machine takes some


def stall(line: Line) -> None:
    """No answer for longer than any limit here."""
    line.wait(120)


def within(limit: float, words: list[str]) -> list[str]:
    """The words with a limit, and another prompt for each: what was lost is searched for first."""
    return [
        *(f"Hi for {limit:g} s" if word == "Hi" else word for word in words),
        f"--timeout={limit}",
    ]


def mute(request: Any) -> Answer:
    """Takes what is sent; whatever is read hangs."""
    if request.method == "GET":
        return stall
    return json_reply({"promptId": "p1"} if request.path.endswith("/prompts") else CREATED, 201)


@pytest.mark.slow
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
    def check(limit: float) -> None:
        begun = time.monotonic()
        done = inside(*within(limit, words))
        took = time.monotonic() - begun
        assert done.status == 124, done.err
        assert limit <= took < limit + LATER
        assert f"{limit:g} s" in done.err

    with RawServer(mute) as server:
        aim(server)
        with_time(check, 2.5)


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
    assert took < 3 + LATER


@pytest.mark.parametrize("stalls", ["/content", "/events"])
def test_an_answer_that_cannot_be_read_does_not_stretch_the_limit(
    stalls: str, inside: Run, aim: Aim
) -> None:
    task = {**CREATED, "status": "completed", "prompts": [{"id": "p1", "status": "succeeded"}]}

    def answer(request: Any) -> Answer:
        return stall if stalls in request.path else json_reply(task)

    def check(limit: float) -> None:
        begun = time.monotonic()
        done = inside("result", "abcd1234", "--wait", "--timeout", str(limit))
        assert time.monotonic() - begun < limit + LATER
        assert (done.status, done.out) == (124, "")
        assert f"the answer of task abcd1234 could not be read in {limit:g} s" in done.err

    with RawServer(answer) as server:
        aim(server)
        with_time(check, 0.3)


LOST = "outcome_unknown"


@pytest.mark.parametrize("words", [["create", "Hi"], ["follow-up", "abcd1234", "Hi"]], ids=" ".join)
def test_case_63_a_request_without_an_answer_ends_at_the_limit(
    words: list[str], inside: Run, aim: Aim
) -> None:
    """The outcome is unknown then: one scan looks for what was created."""
    empty = json_reply({"data": [], "total": 0, "prompts": []})

    def check(limit: float) -> None:
        server.requests.clear()
        begun = time.monotonic()
        done = inside(*within(limit, words), "--wait")
        took = time.monotonic() - begun
        assert done.status == 6, done.err
        assert LOST in done.err
        assert limit <= took < limit + LATER
        assert len(server.seen("POST")) == 1

    with RawServer(lambda request: stall if request.method == "POST" else empty) as server:
        aim(server)
        with_time(check, 1)


def endless(request: Any) -> Answer:
    """A run whose stream shows one event, and keep-alives for ever after."""
    if request.path.endswith("/events"):
        return parts(STREAM, EVENT, *[b": alive\n\n"] * 2000, every=0.05)
    if "/content" in request.path:
        return json_reply({"error": {"code": "not_found", "message": "no"}}, 404)
    return json_reply({**CREATED, "prompts": [{"id": "p1", "status": "running"}]})


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [["logs", "abcd1234", "-f"], ["logs", "abcd1234", "-f", "-o", "jsonl"],
     ["create", "Hi", "--stream"]],
    ids=" ".join,
)  # fmt: skip
def test_case_63_keep_alives_do_not_outlast_the_limit(
    words: list[str], inside: Run, aim: Aim
) -> None:
    def check(limit: float) -> None:
        begun = time.monotonic()
        done = inside(*within(limit, words))
        took = time.monotonic() - begun
        assert done.status == 124, done.err
        assert "working" in done.out
        assert took < limit + LATER

    with RawServer(endless) as server:
        aim(server)
        with_time(check, 3)


@pytest.mark.parametrize(
    "words", [["logs", "abcd1234"], ["logs", "abcd1234", "-o", "jsonl"], ["answer", "abcd1234"]],
    ids=" ".join,
)  # fmt: skip
def test_case_63_a_snapshot_ends_although_keep_alives_come(
    words: list[str], inside: Run, aim: Aim
) -> None:
    with RawServer(endless) as server:
        aim(server)
        begun = time.monotonic()
        done = inside(*words)
        took = time.monotonic() - begun
    assert took < 30
    assert done.status == (1 if words[0] == "answer" else 0), done.err


def test_a_hint_repeats_the_profile(inside: Run) -> None:
    """Without it, the suggested command would look for the task in another account."""
    assert inside("-P", "local", "create", "Go slow [[run=1h]]").status == 0
    done = inside("-P", "local", "wait", "@last", "--timeout", "0.2", "-o", "table")
    assert done.status == 124
    assert "Hint: Resume with `rebyte -P local wait " in done.err
