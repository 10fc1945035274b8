"""The tokens of an answer are in the record, whatever became of the request."""

from __future__ import annotations

import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.local.gateway import request_record
from rebyte_cli.local.gateway.client_connection import GROWTH_SECONDS
from rebyte_cli.local.gateway.model_budget import LARGEST
from tests.local.gateway.harness import SECONDS, GatewayProcess, model, request
from tests.local.gateway.upstream import ScriptedServer, read_exactly, read_head
from tests.servers import RawServer, json_reply, reply

USED = {"input_tokens": 10, "output_tokens": 5}
ANTHROPIC = {"model": "claude-x", "usage": USED}
CHAT = {"model": "gpt-x", "usage": {"prompt_tokens": 10, "completion_tokens": 5}}
GEMINI = {
    "modelVersion": "gemini-x",
    "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 5},
}


@pytest.mark.slow
@pytest.mark.parametrize("wire", ["own", "any"])
@pytest.mark.parametrize(
    ("own", "target", "answer"),
    [
        ("anthropic", "/v1/messages", ANTHROPIC),
        ("openai", "/v1/chat/completions", CHAT),
        ("openai", "/v1/responses", {"model": "gpt-x", "usage": USED}),
        ("gemini", "/v1beta/models/gemini-x:generateContent", GEMINI),
    ],
)
def test_each_wire(
    tmp_path: Path, wire: str, own: str, target: str, answer: dict[str, Any]
) -> None:
    with RawServer(json_reply(answer)) as server:
        route = model(f"http://127.0.0.1:{server.port}", wire=own if wire == "own" else wire)
        with GatewayProcess(tmp_path, [route]) as gateway:
            assert gateway.ask(f"/anthropic{target}").status == 200
            (entry,) = gateway.entries(1)
    assert entry.usage == USED
    assert entry.model in ("claude-x", "gpt-x", "gemini-x")


def test_what_tells_no_tokens_has_none(tmp_path: Path) -> None:
    answers = [json_reply({"input_tokens": 10}), json_reply({"error": {}}, 401), reply(200, b"x")]
    with RawServer(answers) as server:
        route = model(f"http://127.0.0.1:{server.port}")
        with GatewayProcess(tmp_path, [route]) as gateway:
            for target in ("/v1/messages/count_tokens", "/v1/messages", "/v1/messages"):
                gateway.ask(f"/anthropic{target}")
            assert [entry.usage for entry in gateway.entries(3)] == [None, None, None]


def test_an_answer_under_way_when_the_run_is_canceled(tmp_path: Path) -> None:
    """Also when it streams."""
    told = threading.Event()
    start = {"type": "message_start", "message": ANTHROPIC}

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        read_exactly(sock, 2)
        event = f"event: message_start\ndata: {json.dumps(start)}\n\n"
        head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9999\r\n\r\n"
        sock.sendall(head.encode() + event.encode())
        assert told.wait(SECONDS)

    with ScriptedServer(serve) as server:
        gateway = GatewayProcess(tmp_path, [model(server.url)])
        with gateway, gateway.connect() as sock:
            sock.sendall(request("/anthropic/v1/messages"))
            read_head(sock)
            read_exactly(sock, 100)
        told.set()
        (entry,) = request_record.read(gateway.record)
    assert (entry.usage, entry.model) == (USED, "claude-x")


def test_a_gateway_that_is_killed_has_recorded_all_that_the_agent_was_told(tmp_path: Path) -> None:
    """Or more: of a stream that tells it with each of many pieces, not each is recorded."""
    told, pieces = threading.Event(), threading.Semaphore()
    count = 20

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        read_exactly(sock, 2)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for number in range(1, count + 1):
            assert pieces.acquire(timeout=SECONDS)
            usage = {"promptTokenCount": 10, "candidatesTokenCount": number}
            sock.sendall(f"data: {json.dumps({'usageMetadata': usage})}\n\n".encode())
        assert told.wait(SECONDS)

    target = "/anthropic/v1beta/models/gemini-x:streamGenerateContent"
    with ScriptedServer(serve) as server:
        gateway = GatewayProcess(tmp_path, [model(server.url, wire="gemini")])
        with gateway.connect() as sock:
            sock.sendall(request(target))
            data = b""
            for number in range(1, count + 1):
                while f'"candidatesTokenCount": {number}}}'.encode() not in data:
                    data += sock.recv(65536)
                pieces.release()
            gateway.process.kill()
        gateway.process.wait()
        told.set()
        (entry,) = request_record.read(gateway.record)
    assert entry.usage is not None
    assert entry.uncounted is not None
    assert entry.usage["input_tokens"] == 10
    assert entry.usage["output_tokens"] + entry.uncounted["output_tokens"] == LARGEST[1]


def test_a_gateway_that_is_killed_has_recorded_that_several_answers_are_written(
    tmp_path: Path,
) -> None:
    asked, killed = threading.Event(), threading.Event()
    question = b'{"n": 3}'

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        read_exactly(sock, len(question))
        asked.set()
        assert killed.wait(SECONDS)

    with ScriptedServer(serve) as server:
        gateway = GatewayProcess(tmp_path, [model(server.url, wire="openai")])
        with gateway.connect() as sock:
            sock.sendall(request("/anthropic/v1/chat/completions", question))
            assert asked.wait(SECONDS)
            gateway.process.kill()
        gateway.process.wait()
        killed.set()
        (entry,) = request_record.read(gateway.record)
    assert entry.uncounted == {"input_tokens": LARGEST[0], "output_tokens": LARGEST[1] * 3}


@pytest.mark.parametrize("last", ["input_tokens", "output_tokens"])
def test_an_answer_that_tells_it_a_thousand_times_does_not_fill_the_disk(
    tmp_path: Path, last: str
) -> None:
    """Also one that says each time that this is all, and then that it was not."""
    count = 1000
    names = [f"{number}" + "\U00020000" * 46 for number in range(280)]
    others = [{"model": name, "input_tokens": 1} for name in names]
    start = {"input_tokens": 1, "iterations": others}
    events = [{"message": {"usage": start}}, {"type": "message_stop"}]
    for number in range(1, count + 1):
        events.append({"usage": {"output_tokens": number}})
        events.append({"message": {"usage": {last: number}}})
    pieces = [b"data: %b\n\n" % json.dumps(event).encode() for event in events]

    def serve(sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        read_head(sock)
        read_exactly(sock, 2)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for piece in pieces:
            sock.sendall(piece)
            time.sleep(0.001)  # or several would be read at once

    with ScriptedServer(serve) as server, GatewayProcess(tmp_path, [model(server.url)]) as gateway:
        began = time.monotonic()
        assert gateway.ask().status == 200
        (entry,) = gateway.entries(1)
        seconds = time.monotonic() - began
        lines = [line for line in gateway.record.read_bytes().split(b"\n") if line.strip(b"\0")]
    assert entry.usage is not None
    assert entry.usage["output_tokens"] == count
    assert len(lines) <= 5 + 2 * seconds / GROWTH_SECONDS
    assert max(map(len, lines)) < request_record.LONGEST_LINE


@pytest.mark.parametrize("left", [b'{"time": 1, "host": "h", "po', bytes(500_000)])
def test_what_a_killed_gateway_left_spoils_no_line(tmp_path: Path, left: bytes) -> None:
    (tmp_path / "requests.jsonl").write_bytes(left)
    with GatewayProcess(tmp_path) as gateway:
        gateway.ask("/elsewhere")
        (entry,) = gateway.entries(1)
    assert entry.refused


def test_what_is_left_by_a_gateway_is_read_when_it_has_written_all(tmp_path: Path) -> None:
    """It outlives a supervisor that was killed by a moment, in which answers may still come."""
    gateway = GatewayProcess(tmp_path)
    assert not request_record.wait_until_complete(gateway.record, 0.05)
    gateway.process.kill()
    gateway.process.wait()
    assert request_record.wait_until_complete(gateway.record, SECONDS)
    assert request_record.wait_until_complete(tmp_path / "none", 0)
