"""One request stays one, whatever is said about where it ends."""

from __future__ import annotations

import socket
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from tests.local.gateway.harness import (
    PLACEHOLDER,
    SECONDS,
    GatewayProcess,
    model,
    parse_answer,
    read_answer,
    request,
)
from tests.local.gateway.upstream import ScriptedServer, read_head

SECOND = b"POST /anthropic/v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nevil"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Capture:
    """A model's server that keeps what it gets, and answers when a head has arrived."""

    def __init__(self) -> None:
        self._raw: SimpleQueue[bytes] = SimpleQueue()

    def next(self) -> bytes:
        """What came over the next connection, when it has ended."""
        return self._raw.get(timeout=SECONDS)

    def __call__(self, sock: socket.socket) -> None:
        data = read_head(sock)
        sock.settimeout(0.3)  # nothing more may come; what does, is kept
        try:
            while piece := sock.recv(65536):
                data += piece
                if data.endswith((b"0\r\n\r\n", b"{}")):
                    break
        except TimeoutError:
            pass
        sock.settimeout(SECONDS)
        sock.sendall(OK)
        while piece := sock.recv(65536):
            data += piece
        self._raw.put(data)


@pytest.fixture
def captured(tmp_path: Path) -> Any:
    capture = Capture()
    with (
        ScriptedServer(capture) as server,
        GatewayProcess(tmp_path, [model(server.url)]) as gateway,
    ):
        yield capture, server, gateway


def head(*lines: str, target: str = "/anthropic/v1/messages") -> bytes:
    start = [f"POST {target} HTTP/1.1", "Host: x", f"x-api-key: {PLACEHOLDER}"]
    return "\r\n".join([*start, *lines, "", ""]).encode("latin-1")


BOTH = ("Content-Length: 6", "Transfer-Encoding: chunked")
REFUSED = {
    "both framings": head(*BOTH) + b"0\r\n\r\n" + SECOND,
    "both, reversed": head(*reversed(BOTH)) + b"0\r\n\r\n" + SECOND,
    "two lengths": head("Content-Length: 2", "Content-Length: 70") + b"{}" + SECOND,
    "two lengths in one": head("Content-Length: 2, 70") + b"{}" + SECOND,
    "length with a sign": head("Content-Length: +2") + b"{}",
    "length in hex": head("Content-Length: 0x2") + b"{}",
    "negative length": head("Content-Length: -1") + b"{}",
    "endless length": head("Content-Length: " + "9" * 30) + b"{}",
    "unknown coding": head("Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n",
    "coding twice": head("Transfer-Encoding: chunked", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "coding hidden by a tab": head("Transfer-Encoding:\x0bchunked") + b"0\r\n\r\n",
    "coding misspelled": head("Transfer-Encoding: xchunked") + b"0\r\n\r\n",
    "space before the colon": head("Content-Length : 2") + b"{}",
    "no name": head(": 2") + b"{}",
    "NUL in a header": head("X: a\x00b", "Content-Length: 2") + b"{}",
    "return in a header": head("X: a\rContent-Length: 70", "Content-Length: 2") + b"{}",
    "two hosts": head("Host: y", "Content-Length: 2") + b"{}",
    "two spaces": head("Content-Length: 2").replace(b" HTTP", b"  HTTP") + b"{}",
    "no version": b"POST /anthropic/v1/messages\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "huge head": head("X: " + "x" * 200_000, "Content-Length: 2") + b"{}",
    "space in the target": head("Content-Length: 2", target="/anthropic/v1/messages x") + b"{}",
    "NUL in the target": head("Content-Length: 2", target="/anthropic/v1/messages\x00") + b"{}",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", REFUSED)
def test_what_can_be_read_in_two_ways_is_refused(captured: Any, kind: str) -> None:
    _, server, gateway = captured
    answer = gateway.send(REFUSED[kind])
    assert answer.status in (400, 403, 413, 431, 501)
    assert server.connections == 0
    assert gateway.entries(1)[0].refused


BAD_CHUNKS = {
    "no size": b"{}\r\n0\r\n\r\n",
    "size with a sign": b"+2\r\n{}\r\n0\r\n\r\n",
    "size with 0x": b"0x2\r\n{}\r\n0\r\n\r\n",
    "longer than said": b"2\r\n{}x\r\n0\r\n\r\n",
    "negative size": b"-1\r\n{}\r\n0\r\n\r\n",
    "huge size": b"f" * 30 + b"\r\n{}\r\n0\r\n\r\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", BAD_CHUNKS)
def test_chunks_that_are_none_end_the_request(captured: Any, kind: str) -> None:
    """The model's server never sees an end of it."""
    capture, _, gateway = captured
    answer = gateway.send(head("Transfer-Encoding: chunked") + BAD_CHUNKS[kind])
    assert answer.status == 400
    assert not capture.next().endswith(b"0\r\n\r\n")


def test_requests_behind_the_first_are_not_read(captured: Any) -> None:
    capture, server, gateway = captured
    answer = gateway.send(
        request("/anthropic/v1/messages") + SECOND + request("/anthropic/v1/messages")
    )
    assert answer.raw.count(b"HTTP/1.1") == 1
    assert answer.headers["connection"] == "close"
    assert server.connections == 1
    gateway.entries(1)
    assert capture.next().endswith(b"\r\n\r\n{}")


def test_chunks_are_made_again(captured: Any) -> None:
    """Without extensions, leading zeros and trailers."""
    capture, _, gateway = captured
    body = b'002;name="a\x80";x=y\r\n{}\r\n0;last\r\nContent-Length: 7\r\nX-Api-Key: evil\r\n\r\n'
    assert gateway.send(head("Transfer-Encoding: Chunked") + body).status == 200
    sent_head, _, sent = capture.next().partition(b"\r\n\r\n")
    assert sent == b"2\r\n{}\r\n0\r\n\r\n"
    assert b"transfer-encoding: chunked" in sent_head.lower()
    assert b"content-length" not in sent_head.lower()


def test_lines_are_made_again(captured: Any) -> None:
    """Folded ones, and those without a return, as lenient servers read them."""
    capture, _, gateway = captured
    raw = head("Accept: text/plain,", "  application/json", "Content-Length: 2") + b"{}"
    assert gateway.send(raw).status == 200
    assert gateway.send(raw.replace(b"\r\n", b"\n")).status == 200
    for sent in (capture.next(), capture.next()):
        assert b"\r\naccept: text/plain, application/json\r\n" in sent.lower()
        assert sent.count(b"\n") == sent.count(b"\r\n")


def test_a_body_is_not_the_next_request(captured: Any) -> None:
    """A GET has none."""
    _, server, gateway = captured
    raw = head("Content-Length: 2", target="/anthropic/v1/models").replace(b"POST", b"GET")
    assert gateway.send(raw + b"{}").status == 400
    assert server.connections == 0


def test_half_a_request_is_no_request(captured: Any) -> None:
    _, server, gateway = captured
    assert gateway.send(b"POST /anthropic/v1/mess", half_close=True).status in (0, 400)
    assert gateway.send(b"", half_close=True).status == 0
    assert server.connections == 0


def test_a_head_that_does_not_come_is_not_waited_for(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path, head_seconds=0.2) as gateway, gateway.connect() as sock:
        sock.sendall(b"POST /anthropic/v1/mess")
        assert parse_answer(read_answer(sock).raw).status == 0
