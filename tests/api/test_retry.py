"""Deadlines, pauses and the words for each fault, where a small slip would go unnoticed."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli import RebyteClient
from rebyte_cli.api import calls
from rebyte_cli.api.retry import (
    GATEWAY,
    RetryPolicy,
    is_unknown,
    may_repeat,
    parse_retry_after,
    pause,
)
from rebyte_cli.api.transport import Transport
from rebyte_cli.errors import NetworkError, OutcomeUnknown, Unsent
from tests.certificates import certificate
from tests.servers import (
    KEY,
    Line,
    RawServer,
    Request,
    close_listener,
    closed_port,
    hang_up,
    json_reply,
    reply,
    reset,
    stall,
    then_close,
    transport_to,
)
from tests.task_board import Time
from tests.waiting import eventually

pytestmark = pytest.mark.usefixtures("home")


class Clock(Time):
    """A clock that counts how often the client looks at it: before and after each read."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0

    def clock(self) -> float:
        self.looks += 1
        return super().clock()

    def send_late(self, line: Line, seconds: float, piece: bytes) -> None:
        """Send it so much later, and wait until it was read.

        What follows is then a separate read, for which there may be no time.
        """
        self.now += seconds
        looks = self.looks
        line.send(piece)
        eventually(lambda: self.looks > looks or line.stopped.is_set())


def late(at: Clock, seconds: float, answer: bytes) -> Callable[[Request], Callable[[Line], None]]:
    """A server whose answer comes so much later by the clock of the client."""

    def act(line: Line) -> None:
        at.send_late(line, seconds, answer[:9])
        line.send(answer[9:])

    return lambda _request: act


@pytest.mark.parametrize(("seconds", "in_time"), [(29, True), (70, False)])
def test_a_read_has_a_minute(seconds: float, in_time: bool) -> None:
    """Half of it for each try but the last, which may take what is left."""
    at = Clock()
    with RawServer(late(at, seconds, json_reply({"id": "t1"}))) as server:
        client = RebyteClient(transport=transport_to(server, clock=at.clock, sleep=at.sleep))
        if in_time:
            assert client.get_task("t1")["id"] == "t1"
            return
        with pytest.raises(NetworkError, match="timed out after 60 s"):
            client.get_task("t1")


@pytest.mark.parametrize(("seconds", "in_time"), [(590, True), (610, False)])
def test_a_create_has_ten_minutes_all_for_its_one_try(seconds: float, in_time: bool) -> None:
    at = Clock()
    answer = json_reply({"id": "t1", "status": "running"}, 201)
    with RawServer(late(at, seconds, answer)) as server:
        client = RebyteClient(transport=transport_to(server, clock=at.clock, sleep=at.sleep))
        if in_time:
            assert client.create_task("Do it")["id"] == "t1"
        else:
            with pytest.raises(OutcomeUnknown, match="timed out after 600 s"):
                client.create_task("Do it")
        assert len(server.requests) == 1


def test_each_try_of_a_download_has_a_minute(tmp_path: Path) -> None:
    at = Clock()
    slow = [late(at, 50, reply(503)), late(at, 50, reply(200, b"whole"))]
    with RawServer(lambda request: slow.pop(0)(request)) as server:
        transport = transport_to(server, clock=at.clock, sleep=at.sleep)
        transport.download("/tasks/t1/artifacts/a", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"whole"


def test_all_tries_of_a_create_end_by_its_deadline() -> None:
    at = Clock()
    slow = [late(at, 500, reply(429)), late(at, 500, json_reply({"id": "t1"}, 201))]
    with RawServer(lambda request: slow.pop(0)(request)) as server:
        client = RebyteClient(transport=transport_to(server, clock=at.clock, sleep=at.sleep))
        with pytest.raises(OutcomeUnknown, match="timed out"):
            client.create_task("Do it")
        assert len(server.requests) == 2


def test_an_upload_may_take_long_and_its_answer_may_not(tmp_path: Path) -> None:
    """Each read comes within the minute that one may take; the head as a whole does not."""
    (tmp_path / "a").write_text("a")
    at, answer = Clock(), json_reply({})

    def drips(line: Line) -> None:
        for piece in (answer[:9], answer[9:14], answer[14:20], answer[20:26], answer[26:]):
            at.send_late(line, 40, piece)

    with RawServer(lambda request: drips) as server:
        transport = transport_to(server, clock=at.clock, sleep=at.sleep)
        with pytest.raises(OutcomeUnknown, match="timed out"):
            transport.post_files("/files", [tmp_path / "a"])


def test_no_pause_between_tries_outlasts_the_deadline() -> None:
    at = Clock()
    with RawServer(lambda _request: hang_up) as server, pytest.raises(NetworkError):
        transport_to(server, timeout=1.2, clock=at.clock, sleep=at.sleep, random=lambda: 1.0).send(
            "GET", "/tasks/a", repeat=RetryPolicy.SAFE
        )
    assert at.slept == [0.5]  # the next one would be a second
    assert len(server.requests) == 2


def test_a_date_to_come_back_at_is_read_by_the_servers_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calls, "since_boot", lambda: 100.0)
    then = 1_500_000_000.0  # by far not what this machine's clock says
    later = {
        "Date": formatdate(then, usegmt=True),
        "Retry-After": formatdate(then + 7, usegmt=True),
    }
    slept: list[float] = []
    with RawServer([reply(503, b"", later), json_reply({})]) as server:
        transport_to(server, sleep=slept.append).send("GET", "/tasks/a", repeat=RetryPolicy.SAFE)
    assert slept == [7.0]


@pytest.mark.parametrize("status", [408, 499, 502, 503, 504, 520, 521, 522, 523, 524])
def test_a_gateway_error_leaves_the_outcome_of_a_create_open(status: int) -> None:
    assert status in GATEWAY
    assert may_repeat(RetryPolicy.SAFE, status=status, sent=True)
    assert not may_repeat(RetryPolicy.IF_UNSENT, status=status, sent=True)
    assert is_unknown(RetryPolicy.IF_UNSENT, status=status, sent=True)
    assert not is_unknown(RetryPolicy.SAFE, status=status, sent=True)


def test_nothing_else_does() -> None:
    assert len(GATEWAY) == 10
    for status in (200, 400, 404, 425, 500, 501, 505, 511, 525, 529):
        assert not is_unknown(RetryPolicy.IF_UNSENT, status=status, sent=True)


@pytest.mark.parametrize("policy", RetryPolicy)
def test_what_may_go_again(policy: RetryPolicy) -> None:
    safe = policy is RetryPolicy.SAFE
    assert may_repeat(policy, status=None, sent=False)
    assert may_repeat(policy, status=None, sent=True) == safe
    assert may_repeat(policy, status=429, sent=True)
    for status in (200, 400, 421, 428, 430, 500):
        assert not may_repeat(policy, status=status, sent=True)
    assert is_unknown(policy, status=None, sent=True) == (not safe)
    for status in (None, 502):
        assert not is_unknown(policy, status=status, sent=False)
    for status in (429, 421, 201):
        assert is_unknown(policy, status=status, sent=True) is False


def test_pauses_grow_and_have_jitter() -> None:
    grown = [pause(number, None, random=lambda: 1.0, cap=10) for number in range(3)]
    assert grown == [0.5, 1.0, 2.0]
    assert pause(2, None, random=lambda: 0.0, cap=10) == 0
    for asked, least in ((7.0, 7.0), (10.0, 10.0), (11.0, 10.0), (0.0, 0.0)):
        assert pause(0, asked, random=lambda: 0.0, cap=10) == least
        assert pause(3, asked, random=lambda: 1.0, cap=10) == least + 0.25


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None), ("", None), ("  ", None), ("7", 7.0), (" 12 ", 12.0), ("0", 0.0),
        ("-1", None),
        ("1.5", None), ("\u0663", None), ("123456789012345", 123456789012.0),
        ("Thu, 01 Jan 1970 00:16:47 GMT", 7.0), ("Thu, 01 Jan 1970 00:16:39 GMT", 0.0),
        ("Thu, 01 Jan 1970 00:16:47", 7.0), ("soon, please", None), ("Thu, 99 Jan 1970", None),
        ("01 Jan 1970 00:16:47 GMT", None), ("Thu, 01 Jan 1970 02:16:47 +0200", 7.0),
         ("Thu, 01 Jan 99999999999 00:00:00 GMT", None),
    ],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date(
    monkeypatch: pytest.MonkeyPatch, value: str | None, seconds: float | None
) -> None:
    """A date is in GMT, also where it does not say so and this machine is elsewhere."""
    with monkeypatch.context() as there:
        there.setenv("TZ", "Asia/Kolkata")
        time.tzset()
        found = parse_retry_after(value, now=1000.0)
    time.tzset()
    assert found == seconds


# Wording of errors

WORDS: list[tuple[Any, str]] = [
    (hang_up, "closed the connection (4 tries)"),
    (reset, "closed the connection (4 tries)"),
    (stall, "timed out after 0.3 s"),
    (then_close(b"SSH-2.0-OpenSSH_9\r\n"), "the answer is not HTTP (4 tries)"),
    (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        "the answer is not HTTP (4 tries)",
    ),
    (reply(200, b"{", length=9), "the answer was cut off (4 tries)"),
    (reply(200, b"\x1f\x8b", {"Content-Encoding": "gzip"}), "it was cut off (4 tries)"),
    (reply(200, b"no gzip", {"Content-Encoding": "gzip"}), "its compression is damaged"),
    (reply(200, b"x", {"Content-Encoding": "br"}), "an encoding that was not requested"),
]


@pytest.mark.parametrize(("answer", "words"), WORDS, ids=[words for _, words in WORDS])
def test_each_fault_has_its_words(answer: Any, words: str) -> None:
    if isinstance(answer, bytes) and b"gzip" not in answer and b": br" not in answer:
        answer = then_close(answer)
    limit = 0.3 if answer is stall else 60
    with RawServer(lambda _request: answer) as server, pytest.raises(NetworkError) as caught:
        transport_to(server, timeout=limit, sleep=lambda _s: None).send(
            "GET", "/tasks/a", repeat=RetryPolicy.SAFE
        )
    assert caught.value.message.startswith("GET /tasks/a: ")
    assert words in caught.value.message
    if "tries" not in words:
        assert "(1 " not in caught.value.message


@contextmanager
def speaking_first(data: bytes) -> Iterator[int]:
    """A port that answers `data` to any request."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def tell() -> None:
            with suppress(OSError):
                while True:
                    sock, _ = listener.accept()
                    with sock:
                        sock.sendall(data)
                        sock.recv(65536)

        threading.Thread(target=tell, daemon=True).start()
        yield listener.getsockname()[1]
        close_listener(listener)


def test_each_way_of_not_arriving_has_its_words(tmp_path: Path) -> None:
    said = []
    tls_only = RawServer(b"", tls=certificate(tmp_path).server)
    with speaking_first(b"HTTP/1.1 400 Bad Request\r\n\r\n") as plain, tls_only as server:
        for url in (
            f"http://127.0.0.1:{closed_port()}/v1",
            "https://api.invalid/v1",
            f"https://127.0.0.1:{plain}/v1",  # https where http is spoken
            f"https://localhost:{server.port}/v1",
        ):
            wire = Transport(url, KEY, sleep=lambda _s: None)
            with pytest.raises(Unsent) as caught:
                wire.send("POST", "/tasks", body={}, repeat=RetryPolicy.IF_UNSENT)
            said.append(caught.value.message.removeprefix("POST /tasks: "))
        assert server.requests == []
    refused, unknown, not_tls, untrusted = said
    assert refused.startswith("127.0.0.1:")
    assert refused.endswith("refused the connection (4 tries)")
    assert unknown == "no such host: api.invalid (4 tries)"
    assert not_tls == f"TLS with 127.0.0.1:{plain} failed (4 tries)"
    assert untrusted.startswith(f"the certificate of localhost:{server.port} is not trusted (")
    assert untrusted.endswith(")")
    assert "tries" not in untrusted  # another cannot end better
