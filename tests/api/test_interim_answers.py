"""Interim answers: any number of 1xx may come before the final one (RFC 9110, section 15.2)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli import RebyteClient
from rebyte_cli.errors import BrokenAnswer, NetworkError, OutcomeUnknown
from tests.conftest import Done
from tests.servers import Line, RawServer, Request, chunked, json_reply, reply, transport_to

pytestmark = pytest.mark.usefixtures("home")

HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\nContent-Length: 7\r\n\r\n"
PROCESSING = b"HTTP/1.1 102 Processing\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
INTERIM = {
    "one 103": HINTS,
    "one 102": PROCESSING,
    "100, 102, 103, 100": CONTINUE + PROCESSING + HINTS + CONTINUE,
    "an unknown one": b"HTTP/1.1 199 Whatever\r\nTransfer-Encoding: chunked\r\n\r\n",
    "six hundred": PROCESSING * 600,  # one a second while a VM comes up
}
TASK = {"id": "t1", "status": "completed", "createdAt": "2026-02-09T10:00:00.000Z"}


def answers(request: Request) -> bytes:
    if request.method == "POST":
        return json_reply(TASK, 201)
    is_list = request.path.partition("?")[0] == "/v1/tasks"
    return json_reply({"data": [TASK], "total": 1} if is_list else TASK)


@pytest.mark.parametrize("interim", INTERIM.values(), ids=INTERIM)
@pytest.mark.parametrize(
    "words",
    [("list", "-o", "id"), ("get", "t1", "-o", "id"), ("wait", "t1", "-o", "id"),
     ("create", "Say hello", "-q", "-o", "id")],
    ids=lambda words: words[0],
)  # fmt: skip
def test_commands_read_on_to_the_final_answer(
    words: tuple[str, ...], interim: bytes, inside: Callable[..., Done], aim: Any
) -> None:
    with RawServer(lambda request: interim + answers(request)) as server:
        aim(server)
        done = inside(*words)
        assert (done.status, done.out, done.err) == (0, "t1\n", "")
        assert len(server.seen("POST")) == (words[0] == "create")


def test_each_interim_answer_may_come_late_and_in_pieces() -> None:
    def slowly(line: Line) -> None:
        for piece in (HINTS[:9], HINTS[9:], PROCESSING, json_reply(TASK)):
            line.send(piece)
            line.wait(0.01)

    with RawServer([slowly, json_reply(TASK)]) as server:
        client = RebyteClient(transport=transport_to(server))
        assert client.get_task("t1")["id"] == "t1"
        assert client.get_task("t1")["id"] == "t1"
        assert server.connections == 1  # the connection was left in order


def test_a_stream_and_its_events() -> None:
    events = chunked([b'data: {"seq": 1}\n\n', b"event: done\ndata: {}\n\n"])
    with RawServer(HINTS + PROCESSING + events) as server:
        client = RebyteClient(transport=transport_to(server))
        assert [event.name for event in client.stream_events("t1")] == ["event", "done"]


def test_uploads_and_downloads(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"x" * 300_000)

    def script(request: Request) -> bytes:
        if request.method == "POST":
            slot = {"id": "f1", "filename": "a", "uploadUrl": f"{server.origin}/signed"}
            return HINTS + json_reply(slot)
        return PROCESSING + reply(200, b"stored")

    with RawServer(script) as server:
        client = RebyteClient(transport=transport_to(server))
        assert client.upload_file(tmp_path / "a.txt") == {"id": "f1", "filename": "a"}
        client.get_artifact("ws", "a", tmp_path / "b.txt")
        assert len(server.seen("PUT")) == 1
    assert (tmp_path / "b.txt").read_bytes() == b"stored"


@pytest.mark.parametrize(
    "endless", [PROCESSING * 100, HINTS * 100, CONTINUE * 100], ids=["102", "103", "100"]
)
def test_an_endless_sequence_ends_and_sends_nothing_twice(endless: bytes) -> None:
    def forever(line: Line) -> None:
        while not line.stopped.is_set():
            line.send(endless)

    with RawServer([forever]) as server:
        client = RebyteClient(transport=transport_to(server, timeout=0.2))
        with pytest.raises(OutcomeUnknown):
            client.create_task("Say hello")
        with pytest.raises(NetworkError):
            client.get_task("t1")
        assert len(server.seen("POST")) == 1


def test_a_switch_of_protocols_that_was_not_asked_for_is_no_answer() -> None:
    with RawServer(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n") as server:
        client = RebyteClient(transport=transport_to(server))
        with pytest.raises(BrokenAnswer):
            client.get_task("t1")
