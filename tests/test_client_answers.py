"""What the client makes of refusals, and of answers that have no shape of their own."""

from __future__ import annotations

from typing import Any

import pytest

from rebyte_cli import APIError, RebyteClient
from rebyte_cli.errors import BadUsage, BrokenAnswer, KeyRejected, ResourceNotFound

from .servers import RawServer, error_reply, json_reply, reply, wire_to

pytestmark = pytest.mark.usefixtures("home")


@pytest.mark.parametrize("status", [404, 410])
def test_an_api_without_tasks_is_named(status: int) -> None:
    with RawServer(reply(status, "<html>")) as server, pytest.raises(ResourceNotFound) as caught:
        RebyteClient(transport=wire_to(server)).list_tasks()
    assert "base URL is wrong or this API is gone" in caught.value.message


def test_a_task_that_is_not_there_is_told_in_the_servers_words() -> None:
    missing = error_reply(404, "not_found", "Task not found")
    with RawServer(missing) as server, pytest.raises(APIError) as caught:
        RebyteClient(transport=wire_to(server)).get_task("t")
    assert (caught.value.message, caught.value.status_code) == ("Task not found", 404)
    assert caught.value.response == {"error": {"code": "not_found", "message": "Task not found"}}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"message": "top"}, "top"),
        ({"realMessage": "real"}, "real"),
        ({"error": "text"}, "text"),
        ({"error": {"code": "only_code"}}, "only_code"),
        ({"error": {"message": 7}}, "GET /tasks/t was answered 400"),
        ([1], "GET /tasks/t was answered 400"),
        ({"error": {"message": "x" * 1000}}, "x" * 299 + "…"),
    ],
)
def test_errors_in_other_shapes(body: Any, message: str) -> None:
    with RawServer(json_reply(body, 400)) as server, pytest.raises(APIError) as caught:
        RebyteClient(transport=wire_to(server)).get_task("t")
    assert caught.value.message == message


@pytest.mark.parametrize(("status", "hint"), [(401, "rebyte auth login"), (403, "`tasks:read`")])
def test_a_rejected_key_says_what_to_do(status: int, hint: str) -> None:
    refusal = error_reply(status, "word", "No")
    with RawServer(refusal) as server, pytest.raises(KeyRejected) as caught:
        RebyteClient(transport=wire_to(server)).get_task("t")
    assert hint in str(caught.value.hint)
    assert len(server.requests) == 1


@pytest.mark.parametrize("answer", [reply(200), b"HTTP/1.1 204 X\r\n\r\n"])
def test_a_cancel_may_answer_nothing(answer: bytes) -> None:
    with RawServer(answer) as server:
        assert RebyteClient(transport=wire_to(server)).cancel_task("t") == {}


PEM = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"


@pytest.mark.parametrize(
    "answer",
    [
        reply(200, PEM),
        json_reply(PEM),
        json_reply({"kid": "1", "key": PEM}),
        json_reply({"a": {"b": PEM}}),
    ],
)
def test_the_public_key_is_found(answer: bytes) -> None:
    with RawServer(answer) as server:
        assert RebyteClient(transport=wire_to(server)).webhook_public_key() == PEM


def test_a_public_key_that_is_none() -> None:
    with RawServer(json_reply({"key": "no"})) as server, pytest.raises(BrokenAnswer):
        RebyteClient(transport=wire_to(server)).webhook_public_key()


def test_health_is_asked_at_the_root_without_the_key() -> None:
    with RawServer(json_reply({"status": "ok"})) as server:
        assert RebyteClient(transport=wire_to(server)).health() == {"status": "ok"}
    assert server.requests[0].path == "/health"
    assert "api_key" not in server.requests[0].headers


def test_raw_gives_the_answer_as_it_came() -> None:
    from rebyte_cli.api.retry import RetryPolicy

    with RawServer(reply(404, b"\xff\x00<html>", {"X-A": "b"})) as server:
        wire = wire_to(server)
        answer = wire.raw(
            "POST", "/v1/x?a=b", query={"c": "d"}, data=b"\x00{", repeat=RetryPolicy.SAFE
        )
        problem = wire.problem("POST", "/x", answer, RetryPolicy.SAFE)
    assert (answer.status, answer.raw, answer.headers["x-a"]) == (404, b"\xff\x00<html>", "b")
    assert isinstance(problem, ResourceNotFound)
    (request,) = server.requests
    assert (request.path, request.body) == ("/v1/x?a=b&c=d", b"\x00{")


@pytest.mark.parametrize("header", ["a\nB: c", "ä\u2028", "x\r"])
def test_a_header_that_would_break_the_request_is_refused(header: str) -> None:
    from rebyte_cli.api.retry import RetryPolicy

    with RawServer(json_reply({})) as server, pytest.raises(BadUsage):
        wire_to(server).raw("GET", "/x", headers={"X-A": header}, repeat=RetryPolicy.SAFE)
    assert server.requests == []
