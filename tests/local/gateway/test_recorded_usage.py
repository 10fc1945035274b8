"""The tokens of an answer are in the record, whatever became of the request."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.local.gateway import record
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
        (entry,) = record.read(gateway.record)
    assert (entry.usage, entry.model) == (USED, "claude-x")
