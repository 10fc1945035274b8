"""Requests and answers pass as they come, in constant memory, and end as they should."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

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
from tests.local.gateway.upstream import ScriptedServer, read_all, read_exactly, read_head
from tests.waiting import eventually

MIB = 1024 * 1024
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
BASE = 35 * MIB  # an interpreter with TLS, its certificates and h11 takes about 22 MiB


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def test_each_piece_of_an_answer_passes_at_once(tmp_path: Path) -> None:
    """The server sends the next only when the client has the last."""
    arrived = threading.Semaphore(0)

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        read_exactly(sock, 2)
        sock.sendall(CHUNKED)
        for number in range(50):
            sock.sendall(chunk(b"event %02d\n\n" % number))
            assert arrived.acquire(timeout=SECONDS)
        sock.sendall(b"0\r\n\r\n")

    with ScriptedServer(serve) as server, GatewayProcess(tmp_path, [model(server.url)]) as gateway:
        with gateway.connect() as sock:
            sock.sendall(request("/anthropic/v1/messages"))
            read_head(sock)
            for number in range(50):
                expected = chunk(b"event %02d\n\n" % number)
                assert read_exactly(sock, len(expected)) == expected
                arrived.release()
            assert read_all(sock) == b"0\r\n\r\n"
        (entry,) = gateway.entries(1)
    assert entry.received == 50 * 10


def test_each_piece_of_a_request_passes_at_once(tmp_path: Path) -> None:
    arrived = threading.Semaphore(0)

    def serve(sock: socket.socket) -> None:
        assert b"transfer-encoding: chunked" in read_head(sock).lower()
        for number in range(20):
            expected = chunk(b"piece %02d" % number)
            assert read_exactly(sock, len(expected)) == expected
            arrived.release()
        assert read_exactly(sock, 5) == b"0\r\n\r\n"
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with ScriptedServer(serve) as server, GatewayProcess(tmp_path, [model(server.url)]) as gateway:
        with gateway.connect() as sock:
            head = "POST /anthropic/v1/messages HTTP/1.1\r\nHost: x\r\n"
            sock.sendall(f"{head}x-api-key: {PLACEHOLDER}\r\n".encode())
            sock.sendall(b"Transfer-Encoding: chunked\r\n\r\n")
            for number in range(20):
                sock.sendall(chunk(b"piece %02d" % number))
                assert arrived.acquire(timeout=SECONDS)
            sock.sendall(b"0\r\n\r\n")
            assert read_answer(sock).body == b"ok"
        assert gateway.entries(1)[0].sent == 20 * 8


@pytest.mark.slow
def test_both_directions_at_the_same_time(tmp_path: Path) -> None:
    """A server that answers while it reads, with more in each direction than sockets hold."""
    size = 20 * MIB

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % size)
        left = size
        while left:
            data = sock.recv(65536)
            sock.sendall(data)
            left -= len(data)

    def send(sock: socket.socket) -> None:
        sock.sendall(request("/anthropic/v1/messages", b"x" * size))

    with ScriptedServer(serve) as server, GatewayProcess(tmp_path, [model(server.url)]) as gateway:
        with gateway.connect() as sock:
            thread = threading.Thread(target=send, args=(sock,))
            thread.start()
            answer = read_answer(sock)
            thread.join(SECONDS)
        assert answer.body == b"x" * size


def test_an_early_answer_reaches_a_client_that_is_still_sending(tmp_path: Path) -> None:
    """Some clients read it only when they have sent everything."""
    answered = threading.Event()

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        assert answered.wait(SECONDS)

    whole = request("/anthropic/v1/messages", b"x" * 5 * MIB)
    with (
        ScriptedServer(serve) as server,
        GatewayProcess(tmp_path, [model(server.url)]) as gateway,
        gateway.connect() as sock,
    ):
        sock.sendall(whole[:1000])
        head = read_head(sock)
        sock.sendall(whole[1000:])
        sock.shutdown(socket.SHUT_WR)
        assert head.startswith(b"HTTP/1.1 413 ")
        assert read_all(sock) == b"big"
        answered.set()


def test_half_of_a_connection_is_enough_for_an_answer(tmp_path: Path) -> None:
    closed = threading.Event()

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        read_exactly(sock, 2)
        assert closed.wait(SECONDS)
        sock.sendall(CHUNKED + chunk(b"late") + b"0\r\n\r\n")

    with (
        ScriptedServer(serve) as server,
        GatewayProcess(tmp_path, [model(server.url)]) as gateway,
        gateway.connect() as sock,
    ):
        sock.sendall(request("/anthropic/v1/messages"))
        sock.shutdown(socket.SHUT_WR)
        closed.set()
        assert read_answer(sock).body == b"late"


@pytest.mark.slow
@pytest.mark.parametrize(
    "head",
    [CHUNKED + chunk(b"half"), HEAD + b"Content-Length: 10\r\n\r\nhalf"],
    ids=["chunked", "length"],
)
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_an_answer_that_is_cut_looks_cut(tmp_path: Path, head: bytes, version: str) -> None:
    def serve(sock: socket.socket) -> None:
        read_head(sock)
        read_exactly(sock, 2)
        sock.sendall(head)

    raw = request("/anthropic/v1/messages").replace(b"HTTP/1.1", f"HTTP/{version}".encode())
    with ScriptedServer(serve) as server, GatewayProcess(tmp_path, [model(server.url)]) as gateway:
        with gateway.connect() as sock:
            sock.sendall(raw)
            read_head(sock)
            with pytest.raises(ConnectionResetError):
                read_all(sock)
        (entry,) = gateway.entries(1)
    assert entry.status == 200
    assert entry.fault == "the server's answer is broken or incomplete"


def test_a_request_that_breaks_within_its_answer_cuts_it(tmp_path: Path) -> None:
    """A whole answer would hide that the model has read half of the request."""
    answered = threading.Event()

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.0 200 OK\r\n\r\nhalf")
        assert answered.wait(SECONDS)
        assert not read_all(sock).endswith(b"0\r\n\r\n")

    with ScriptedServer(serve) as server, GatewayProcess(tmp_path, [model(server.url)]) as gateway:
        with gateway.connect() as sock:
            head = f"POST /anthropic/v1/messages HTTP/1.0\r\nx-api-key: {PLACEHOLDER}\r\n"
            sock.sendall(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
            read_head(sock)
            sock.sendall(b"no size\r\n")
            with pytest.raises(ConnectionResetError):
                read_all(sock)
        answered.set()
        gateway.entries(1)


def test_an_answer_that_ends_with_the_connection(tmp_path: Path) -> None:
    def serve(sock: socket.socket) -> None:
        read_head(sock)
        read_exactly(sock, 2)
        sock.sendall(b"HTTP/1.0 200 OK\r\n\r\nwhole")

    with ScriptedServer(serve) as server, GatewayProcess(tmp_path, [model(server.url)]) as gateway:
        assert gateway.ask().body == b"whole"


@pytest.mark.slow
def test_a_client_that_leaves_ends_the_models_answer(tmp_path: Path) -> None:
    left = threading.Event()
    noticed = threading.Event()

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        read_exactly(sock, 2)
        sock.sendall(CHUNKED + chunk(b"first"))
        assert left.wait(SECONDS)
        for _ in range(SECONDS * 100):
            try:
                sock.sendall(chunk(b"more"))
            except OSError:
                noticed.set()
                return
            noticed.wait(0.01)

    with ScriptedServer(serve) as server, GatewayProcess(tmp_path, [model(server.url)]) as gateway:
        with gateway.connect() as sock:
            sock.sendall(request("/anthropic/v1/messages"))
            read_head(sock)
        left.set()
        assert noticed.wait(SECONDS)
        assert gateway.entries(1)[0].fault == "the connection ended"


def test_a_silent_server_is_left_after_the_idle_limit(tmp_path: Path) -> None:
    released = threading.Event()

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        read_exactly(sock, 2)
        assert released.wait(SECONDS)

    with (
        ScriptedServer(serve) as server,
        GatewayProcess(tmp_path, [model(server.url)], idle_seconds=0.2) as gateway,
    ):
        answer = gateway.ask()
        released.set()
    assert answer.status == 504
    assert "nothing was sent for" in answer.message


def resident(pid: int) -> int:
    """The memory of a process that is not swapped out, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise LookupError(pid)


@pytest.mark.slow
@pytest.mark.usefixtures("real_supervisors")
def test_a_large_answer_takes_no_memory(tmp_path: Path) -> None:
    """200 MB to a client that reads slower than the server sends."""
    piece = b"data: " + b"x" * 65_000 + b"\n\n"
    count = 200_000_000 // len(piece)

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        read_exactly(sock, 2)
        sock.sendall(CHUNKED)
        for _ in range(count):
            sock.sendall(chunk(piece))
        sock.sendall(b"0\r\n\r\n")

    with ScriptedServer(serve) as server, GatewayProcess(tmp_path, [model(server.url)]) as gateway:
        with gateway.connect() as sock:
            sock.sendall(request("/anthropic/v1/messages"))
            received = 0
            while data := sock.recv(65536):
                received += len(data)
            assert received > count * len(piece)
        peak = resident(gateway.process.pid)
        assert gateway.entries(1)[0].received == count * len(piece)
    assert peak < BASE, peak


def test_a_body_above_the_limit_is_refused(tmp_path: Path) -> None:
    """At once if its length is given, otherwise when it has come so far."""
    seen: list[bytes] = []

    def serve(sock: socket.socket) -> None:
        seen.append(read_all(sock))

    with (
        ScriptedServer(serve) as server,
        GatewayProcess(tmp_path, [model(server.url)], model_body=1000) as gateway,
    ):
        answer = gateway.send(request("/anthropic/v1/messages", b"x" * 1001))
        assert (answer.status, server.connections) == (413, 0)
        head = f"POST /anthropic/v1/messages HTTP/1.1\r\nHost: x\r\nx-api-key: {PLACEHOLDER}\r\n"
        body = chunk(b"x" * 600) * 2 + b"0\r\n\r\n"
        answer = gateway.send(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + body)
        assert answer.status == 413
        one, two = gateway.entries(2)
        eventually(lambda: seen)  # the upstream notices a moment later
    assert one.refused
    assert two.refused
    assert not seen[0].endswith(b"0\r\n\r\n")


def test_expect_100_is_answered_when_the_request_may_pass(tmp_path: Path) -> None:
    def serve(sock: socket.socket) -> None:
        assert b"expect" not in read_head(sock).lower()
        assert read_exactly(sock, 2) == b"{}"
        sock.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with ScriptedServer(serve) as server, GatewayProcess(tmp_path, [model(server.url)]) as gateway:
        whole = request("/anthropic/v1/messages", headers=[("Expect", "100-continue")])
        with gateway.connect() as sock:
            sock.sendall(whole[:-2])
            assert read_head(sock) == b"HTTP/1.1 100 \r\n\r\n"
            sock.sendall(b"{}")
            assert read_answer(sock).body == b"ok"
        wrong = whole.replace(PLACEHOLDER.encode(), b"wrong")
        with gateway.connect() as sock:
            sock.sendall(wrong[:-2])
            assert parse_answer(read_all(sock)).status == 401
