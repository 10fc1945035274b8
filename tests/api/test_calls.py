"""What creates something is sent once, or provably was not sent at all."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli import RebyteClient
from rebyte_cli.api import calls
from rebyte_cli.api.retry import RetryPolicy
from rebyte_cli.errors import (
    APIError,
    KeyRejected,
    OutcomeUnknown,
    Redirected,
    ResourceNotFound,
    ServerFault,
)
from tests.certificates import certificate
from tests.servers import (
    Answer,
    Line,
    RawServer,
    error_reply,
    hang_up,
    json_reply,
    reply,
    reset,
    stall,
    then_close,
    then_stall,
    transport_to,
)
from tests.waiting import with_time

pytestmark = pytest.mark.usefixtures("home")

CREATED = {"id": "t1", "workspaceId": "w1", "url": "u", "status": "running", "createdAt": "c"}
HEAD = b"HTTP/1.1 201 X\r\nContent-Length: 99\r\n\r\n"


def creating(server: RawServer, **options: Any) -> dict[str, Any]:
    return RebyteClient(transport=transport_to(server, **options)).create_task("Say hello")


def test_a_create_is_one_post_with_what_was_given() -> None:
    with RawServer(json_reply(CREATED, 201)) as server:
        assert creating(server) == CREATED
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/v1/tasks")
    assert request.json == {"prompt": "Say hello"}
    assert request.headers["content-type"] == "application/json"
    assert int(request.headers["content-length"]) == len(request.body)
    assert "transfer-encoding" not in request.headers


@pytest.mark.parametrize(
    "answer",
    [
        reset,
        hang_up,
        then_close(HEAD + b'{"id": "t1"'),
        then_close(HEAD + b'{"id": "t1"', abrupt=True),
        then_close(b"HTTP/1.1 20"),
        then_close(b"nonsense\r\n\r\n"),
        reply(201, "<html>ok</html>"),
        reply(201, '{"id": "t1"'),
        json_reply([CREATED], 201),
        reply(201),
        json_reply({"status": "running"}, 201),
        json_reply({"id": 7}, 201),
        reply(201, b"xx", {"Content-Encoding": "gzip"}),
    ],
)
def test_case_34_a_create_whose_answer_is_lost_is_one_post(answer: Answer) -> None:
    with RawServer(lambda request: answer) as server, pytest.raises(OutcomeUnknown) as caught:
        creating(server)
    assert len(server.requests) == 1
    assert server.connections == 1
    assert caught.value.exit_status == 6
    assert "\n" not in caught.value.message
    assert "before you send it again" in str(caught.value.hint)


@pytest.mark.parametrize("answer", [stall, then_stall(HEAD + b"{")], ids=["all", "body"])
def test_case_35_a_create_that_is_not_answered_in_time_is_one_post(
    answer: Callable[[Line], None],
) -> None:
    def check(limit: float) -> None:
        began = time.monotonic()
        with RawServer(lambda request: answer) as server, pytest.raises(OutcomeUnknown) as caught:
            creating(server, timeout=limit)
        assert time.monotonic() - began < 20
        assert len(server.requests) == 1
        assert f"timed out after {limit:g} s" in caught.value.message

    with_time(check, 0.3)


@pytest.mark.parametrize("status", [408, 499, 502, 503, 504, 524])
def test_case_37_a_gateway_that_gave_up_on_a_create(status: int) -> None:
    page = reply(status, "<html>x</html>")
    with RawServer(page) as server, pytest.raises(OutcomeUnknown) as caught:
        creating(server)
    assert len(server.requests) == 1
    assert caught.value.status_code == status


@pytest.mark.parametrize("answer", [reset, reply(504), reply(201, "[]"), reply(201, "{}")])
def test_case_39_a_follow_up_whose_answer_is_lost_is_not_repeated(answer: Answer) -> None:
    with RawServer(lambda request: answer) as server, pytest.raises(OutcomeUnknown):
        RebyteClient(transport=transport_to(server)).follow_up("t1", "more")
    assert [request.path for request in server.requests] == ["/v1/tasks/t1/prompts"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, APIError),
        (401, KeyRejected),
        (403, KeyRejected),
        (404, ResourceNotFound),
        (409, APIError),
        (500, ServerFault),
    ],
)
def test_a_refusal_is_an_answer(status: int, kind: type[APIError]) -> None:
    refusal = error_reply(status, "word", "Some words")
    with RawServer(refusal) as server, pytest.raises(kind) as caught:
        creating(server)
    assert len(server.requests) == 1
    assert type(caught.value) is kind


def test_a_refusal_that_breaks_off_is_still_a_refusal() -> None:
    cut = then_close(b'HTTP/1.1 400 X\r\nContent-Length: 99\r\n\r\n{"error"', abrupt=True)
    with RawServer(lambda request: cut) as server, pytest.raises(APIError) as caught:
        creating(server)
    assert type(caught.value) is APIError
    assert caught.value.status_code == 400


def test_a_create_that_was_plainly_rejected_goes_again() -> None:
    with RawServer([reply(429), reply(429), json_reply(CREATED, 201)]) as server:
        assert creating(server) == CREATED
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "location"),
    [
        (307, "/v2/tasks"),
        (301, "/v1/tasks/"),
        (302, "/login"),
        (302, "https://login.example/v1/tasks/t1"),
        (302, "//["),
        (308, ""),
    ],
)
def test_a_redirected_create_was_not_carried_out(status: int, location: str) -> None:
    away = reply(status, b"", {"Location": location})
    with RawServer(away) as server, pytest.raises(Redirected):
        creating(server)


@pytest.mark.parametrize(
    ("status", "location"),
    [
        (303, "/runs/t1"),
        (303, ""),
        (303, "https://login.example/"),  # wherever it leads, the POST was carried out
        (303, "//["),
        (302, "/v1/tasks/t1"),
        (301, "tasks/t1?new=1"),
    ],
)
def test_a_redirect_to_the_result_does_not_say_that_nothing_was_created(
    status: int, location: str
) -> None:
    there = reply(status, b"", {"Location": location})
    with RawServer(there) as server, pytest.raises(OutcomeUnknown) as caught:
        creating(server)
    assert caught.value.status_code == status
    assert len(server.requests) == 1


def test_a_follow_up_that_is_redirected_to_its_task_may_have_been_submitted() -> None:
    there = reply(302, b"", {"Location": "/v1/tasks/t1"})
    with RawServer(there) as server, pytest.raises(OutcomeUnknown):
        RebyteClient(transport=transport_to(server)).follow_up("t1", "more")


def test_a_create_that_fails_in_the_tls_handshake_is_provably_unsent(tmp_path: Path) -> None:
    tls = certificate(tmp_path).server
    created = json_reply(CREATED, 201)
    with RawServer(created, tls=tls) as server, pytest.raises(APIError) as caught:
        creating(server)
    assert caught.value.exit_status == 5
    assert server.requests == []


def test_an_answer_before_the_whole_body_was_read_is_an_answer() -> None:
    # The server refuses after the head and hangs up, while the body is still on its way.
    import socket
    import threading

    listener = socket.create_server(("127.0.0.1", 0))

    def refuse() -> None:
        sock, _ = listener.accept()
        with sock:
            sock.recv(100)
            sock.sendall(error_reply(413, "too_large", "Too much"))
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass

    thread = threading.Thread(target=refuse, daemon=True)
    thread.start()
    from rebyte_cli.api.transport import Transport

    wire = Transport(f"http://127.0.0.1:{listener.getsockname()[1]}", "rbk_x")
    with listener, pytest.raises(APIError, match="Too much"):
        wire.send("POST", "/tasks", body={"prompt": "x" * 3_000_000}, repeat=RetryPolicy.IF_UNSENT)
    wire.close()
    thread.join(30)
    assert not thread.is_alive()


def test_connections_are_kept_and_shared_by_threads() -> None:
    from concurrent.futures import ThreadPoolExecutor

    with RawServer(json_reply(CREATED, 201)) as server:
        client = RebyteClient(transport=transport_to(server, pool=4))
        with ThreadPoolExecutor(4) as pool:
            made = list(pool.map(client.create_task, ["a"] * 40))
    assert made == [CREATED] * 40
    assert server.connections <= 4


def test_a_get_over_a_connection_that_the_server_has_closed_goes_again() -> None:
    once = then_close(json_reply({"a": 1}))
    with RawServer([once, json_reply({"a": 2})]) as server:
        client = RebyteClient(transport=transport_to(server))
        assert client.get_task("a") == {"a": 1}
        assert client.get_task("a") == {"a": 2}


def test_a_create_does_not_use_a_connection_that_was_idle() -> None:
    passed = 0.0
    with RawServer(json_reply(CREATED)) as server:
        wire = transport_to(server, clock=lambda: time.monotonic() + passed)
        client = RebyteClient(transport=wire)
        client.get_task("t1")
        client.get_task("t1")
        client.create_task("x")
        assert server.connections == 1, "a fresh one is shared"
        passed = 3.0
        client.create_task("x")
        assert server.connections == 2
        client.get_task("t1")
        assert server.connections == 2, "a GET may use any"


def test_a_delete_answers_404_to_our_own_second_try() -> None:
    missing = error_reply(404, "not_found", "Task not found")
    with RawServer([reset, missing]) as server:
        RebyteClient(transport=transport_to(server)).delete_task("t1")
    assert len(server.requests) == 2
    with RawServer([reply(504), missing]) as server:
        RebyteClient(transport=transport_to(server)).delete_task("t1")
    for first in (missing, reply(429)):
        with RawServer([first, missing]) as server, pytest.raises(ResourceNotFound):
            RebyteClient(transport=transport_to(server)).delete_task("t1")


def test_the_servers_clock_is_known_after_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import UTC, datetime

    ticks = [100.0]
    monkeypatch.setattr(calls, "since_boot", lambda: ticks[0])
    date = {"Date": "Tue, 10 Feb 2026 10:00:00 GMT"}
    with RawServer([json_reply({}, headers=date), json_reply({}, headers={"Date": "x"})]) as server:
        wire = transport_to(server)
        assert wire.server_now() is None
        wire.send("GET", "/tasks/a", repeat=RetryPolicy.SAFE)
        ticks[0] += 30
        assert wire.server_now() == datetime(2026, 2, 10, 10, 0, 30, tzinfo=UTC)
        wire.send("GET", "/tasks/a", repeat=RetryPolicy.SAFE)
        assert wire.server_now() is None


def test_a_date_that_no_clock_can_show_is_none() -> None:
    date = {"Date": "Fri, 31 Dec 9999 23:59:59 -2300"}
    with RawServer(json_reply({"id": "t1"}, 201, date)) as server:
        wire = transport_to(server)
        wire.send("POST", "/tasks", body={}, repeat=RetryPolicy.IF_UNSENT)
        assert wire.server_now() is None
