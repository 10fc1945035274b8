"""Answers that are broken, late or missing: one short line each, and bounded tries."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import pytest

from rebyte_cli.api.retry import RetryPolicy, parse_retry_after, pause
from rebyte_cli.errors import APIError, BrokenAnswer, NetworkError, ServerFault, Unsent
from tests.servers import (
    Line,
    RawServer,
    chunked,
    closed_port,
    drip,
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

PAGE = "<!doctype html><html><body><h1>Bad gateway</h1></body></html>"
HEAD = b"HTTP/1.1 200 X\r\nContent-Length: %d\r\n\r\n"


def get(server: RawServer, **options: Any) -> Any:
    return transport_to(server, **options).send("GET", "/tasks/a", repeat=RetryPolicy.SAFE)


def one_short_line(error: APIError) -> str:
    assert "\n" not in error.message
    assert len(error.message) <= 400
    assert "<" not in error.message
    return error.message


def test_case_24_html_with_502_after_all_tries() -> None:
    with RawServer(reply(502, PAGE)) as server, pytest.raises(ServerFault) as caught:
        get(server)
    assert len(server.requests) == 4
    assert "502 with a web page" in one_short_line(caught.value)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (PAGE, "HTML"),
        ('{"id": "a"', "not JSON"),
        ("OK", "not JSON"),
        ('{"a": NaN}', "cannot be read"),
        ('{"a": 1e999}', "cannot be read"),
        (b'{"a": "\xff"}', "cannot be read"),
    ],
)
def test_case_24_a_2xx_that_is_not_json_is_not_asked_for_again(body: Any, why: str) -> None:
    with RawServer(reply(200, body)) as server, pytest.raises(BrokenAnswer) as caught:
        get(server)
    assert len(server.requests) == 1
    assert why in one_short_line(caught.value)


def test_case_24_a_list_where_an_object_belongs() -> None:
    from rebyte_cli import RebyteClient

    with RawServer(json_reply([])) as server, pytest.raises(BrokenAnswer) as caught:
        RebyteClient(transport=transport_to(server)).get_task("a")
    assert "is not an object" in one_short_line(caught.value)


@pytest.mark.parametrize(
    "body", [b"[" * 200_000, b'{"a":' * 100_000, b"9" * 5000], ids=["[", "{", "number"]
)
def test_case_25_depth_and_huge_numbers_are_one_line(body: bytes) -> None:
    with RawServer(reply(200, body)) as server, pytest.raises(BrokenAnswer) as caught:
        get(server)
    one_short_line(caught.value)


def test_case_25_a_lone_surrogate_is_data() -> None:
    with RawServer(reply(200, '{"title": "\\ud800"}')) as server:
        assert get(server).data == {"title": "\ud800"}


def test_case_25_a_lone_surrogate_in_an_error_message_stays_one_line() -> None:
    body = '{"error": {"code": "x", "message": "a\\ud800\\nb"}}'
    with RawServer(reply(400, body)) as server, pytest.raises(APIError) as caught:
        get(server)
    assert one_short_line(caught.value) == "a\ud800 b"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gzip", "deflate"])
def test_case_26_a_bomb_is_capped(kind: str) -> None:
    packer = zlib.compressobj(9, wbits=31 if kind == "gzip" else 15)
    megabyte = b" " * (1 << 20)
    bomb = b"".join(packer.compress(megabyte) for _ in range(80)) + packer.flush()
    assert len(bomb) < 200_000
    answer = reply(200, bomb, {"Content-Encoding": kind})
    with RawServer(answer) as server, pytest.raises(BrokenAnswer) as caught:
        get(server)
    assert "larger than 64 MiB" in one_short_line(caught.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize("kind", ["gzip", "deflate", "identity", ""])
def test_a_packed_answer_is_read(kind: str) -> None:
    plain = json.dumps({"a": "b" * 200_000}).encode()
    packed = {"gzip": gzip.compress(plain), "deflate": zlib.compress(plain)}.get(kind, plain)
    with RawServer(chunked([packed], {"Content-Encoding": kind})) as server:
        assert get(server).data == {"a": "b" * 200_000}


def test_an_encoding_that_was_not_asked_for() -> None:
    odd = reply(200, b"x", {"Content-Encoding": "br"})
    with RawServer(odd) as server, pytest.raises(BrokenAnswer, match="not requested"):
        get(server)
    assert server.requests[0].headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize(
    "slow",
    [
        drip(reply(200, b'{"a": 1}', {"X-Pad": "y" * 1000}), 0.05),
        drip(HEAD % 50_000 + b" " * 50_000, 0.02, size=40),
        drip(b"HTTP/1.1 200 X\r\n" + (b"X-Pad: " + b"y" * 90 + b"\r\n") * 99, 0.02, size=9),
    ],
    ids=["headers", "body", "many headers"],
)
def test_case_27_a_slow_drip_does_not_pass_the_deadline(slow: Callable[[Line], None]) -> None:
    def check(limit: float) -> None:
        with RawServer(lambda request: slow) as server:
            began = time.monotonic()
            with pytest.raises(NetworkError) as caught:
                get(server, timeout=limit)
            took = time.monotonic() - began
        assert took < 15
        assert f"timed out after {limit:g} s" in one_short_line(caught.value)

    with_time(check, 0.5)


@pytest.mark.parametrize("slow", [stall, then_stall(HEAD % 50 + b'{"a"')], ids=["all", "body"])
def test_case_28_a_stall_times_out(slow: Callable[[Line], None]) -> None:
    with RawServer(lambda request: slow) as server:
        began = time.monotonic()
        with pytest.raises(NetworkError) as caught:
            get(server, timeout=0.4)
        took = time.monotonic() - began
    assert took < 20
    assert caught.value.code == "timeout"
    assert "timed out" in one_short_line(caught.value)


def test_a_read_that_hangs_once_is_tried_again_within_the_deadline() -> None:
    def check(limit: float) -> None:
        with RawServer([stall, json_reply({"a": 1})]) as server:
            assert get(server, timeout=limit).data == {"a": 1}
        assert len(server.requests) == 2

    with_time(check, 1.0)


@pytest.mark.parametrize(
    "cut",
    [
        then_close(HEAD % 50 + b'{"a": 1'),
        then_close(b'HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"a"'),
        reply(200, gzip.compress(b'{"a": 1}' * 500)[:-9], {"Content-Encoding": "gzip"}),
        then_close(HEAD % 50 + b'{"a": 1', abrupt=True),
        hang_up,
        reset,
        then_close(b"HTTP/1.1 2"),
        then_close(b"nonsense\r\n\r\n"),
    ],
    ids=["length", "chunk", "gzip", "reset", "closed", "reset at once", "status line", "not HTTP"],
)
def test_a_cut_answer_is_asked_for_again_and_then_reported(cut: Any) -> None:
    with RawServer(lambda request: cut) as server, pytest.raises(NetworkError) as caught:
        get(server)
    assert len(server.requests) == 4
    assert "(4 tries)" in one_short_line(caught.value)
    assert caught.value.exit_status == 5


def test_an_interim_answer_is_not_taken_for_the_answer() -> None:
    hint = b"HTTP/1.1 103 Early Hints\r\n\r\n"
    with RawServer([then_close(hint)]) as server, pytest.raises(NetworkError):
        get(server)


def test_case_31_retry_after_is_capped_and_nonsense_counts_as_none() -> None:
    def asked(value: str) -> list[float]:
        slept: list[float] = []
        with RawServer([reply(503, b"", {"Retry-After": value}), json_reply({})]) as server:
            get(server, sleep=slept.append, random=lambda: 1.0)
        return slept

    assert asked("999999") == [10.25]
    assert asked("9" * 5000) == [10.25]
    assert asked("2") == [2.25]
    for nonsense in ("soon", "-5", "", "1e9", "inf", "nan", "Wed, 99 Foo", "\xb2"):
        assert asked(nonsense) == [0.5], nonsense


def test_retry_after_as_a_date_counts_from_the_servers_clock() -> None:
    at = "Tue, 10 Feb 2026 10:00:07 GMT"
    assert parse_retry_after(at, now=1770717600.0) == 7.0
    assert parse_retry_after(at, now=1770717700.0) == 0.0


def test_retry_after_as_a_date_counts_from_our_clock_when_the_server_tells_no_time() -> None:
    slept: list[float] = []
    began = time.time()
    later = formatdate(began + 9, usegmt=True)
    with RawServer([reply(503, b"", {"Retry-After": later}), json_reply({})]) as server:
        get(server, sleep=slept.append)
    (pause,) = slept
    assert 8 - (time.time() - began) <= pause <= 9


def test_a_batch_waits_as_long_as_it_is_told() -> None:
    assert pause(0, 250.0, random=lambda: 0.0, cap=300) == 250.0


def test_a_wait_that_passes_the_deadline_is_not_begun() -> None:
    slept: list[float] = []
    with RawServer(reply(503, b"", {"Retry-After": "9"})) as server, pytest.raises(ServerFault):
        get(server, timeout=8, sleep=slept.append)
    assert slept == []
    assert len(server.requests) == 1


def test_pauses_grow_with_full_jitter() -> None:
    assert [pause(n, None, random=lambda: 1.0, cap=10) for n in range(3)] == [0.5, 1.0, 2.0]
    assert pause(2, None, random=lambda: 0.0, cap=10) == 0.0


def test_case_32_503_503_200_is_a_success() -> None:
    with RawServer([reply(503, PAGE), reply(503), json_reply({"id": "a"})]) as server:
        assert get(server).data == {"id": "a"}
    assert len(server.requests) == 3


@pytest.mark.parametrize(("status", "tries"), [(400, 1), (429, 4), (500, 1), (504, 4), (418, 1)])
def test_which_statuses_are_asked_again(status: int, tries: int) -> None:
    refusal = error_reply(status, "some_code", "Some words")
    with RawServer(refusal) as server, pytest.raises(APIError) as caught:
        get(server)
    assert len(server.requests) == tries
    assert (caught.value.message, caught.value.code) == ("Some words", "some_code")
    assert caught.value.status_code == status
    assert caught.value.response == {"error": {"code": "some_code", "message": "Some words"}}


def test_case_33_refused_and_no_such_name_are_bounded() -> None:
    from rebyte_cli.api.transport import Transport

    slept: list[float] = []
    for host, why in ((f"localhost:{closed_port()}", "refused"), ("api.invalid", "no such host")):
        scheme = "http" if host.startswith("localhost") else "https"
        wire = Transport(f"{scheme}://{host}/v1", "rbk_x", sleep=slept.append, random=lambda: 1.0)
        with pytest.raises(Unsent, match=why) as caught:
            wire.send("POST", "/tasks", body={}, repeat=RetryPolicy.IF_UNSENT)
        assert "(4 tries)" in caught.value.message
    assert slept == [0.5, 1.0, 2.0] * 2


@pytest.mark.parametrize(
    ("answer", "data"),
    [(reply(200), {}), (reply(202, b" \n"), {}), (b"HTTP/1.1 204 X\r\n\r\n", {})],
)
def test_an_empty_success_is_an_empty_object(answer: bytes, data: Any) -> None:
    with RawServer(answer) as server:
        assert get(server).data == data


def test_a_204_with_a_body_does_not_spoil_the_next_answer() -> None:
    with RawServer([reply(204, b'{"odd": true}'), json_reply({"a": 1})]) as server:
        wire = transport_to(server)
        assert wire.send("DELETE", "/tasks/a", repeat=RetryPolicy.SAFE).data == {}
        assert wire.send("GET", "/tasks/b", repeat=RetryPolicy.SAFE).data == {"a": 1}
    assert server.connections == 2
