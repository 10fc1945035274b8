"""No request to a model is free because its answer did not say what it used."""

from __future__ import annotations

import contextlib
import gzip
import json
import resource
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.local.agents.limits.run_meter import RunMeter
from rebyte_cli.local.gateway import request_record
from rebyte_cli.local.gateway.exchange import DAWDLING_SECONDS
from rebyte_cli.local.gateway.model_answer import LONGEST_ERROR
from rebyte_cli.local.gateway.model_budget import LARGEST, USUAL, ModelBudget
from tests.local.gateway.harness import (
    KEY,
    PLACEHOLDER,
    SECONDS,
    GatewayProcess,
    model,
    read_answer,
    request,
)
from tests.local.gateway.upstream import ScriptedServer, read_exactly, read_head
from tests.servers import RawServer, json_reply, reply
from tests.waiting import eventually

MOST = {"input_tokens": LARGEST[0], "output_tokens": LARGEST[1]}
CUT_OFF = {"input_tokens": USUAL[0], "output_tokens": USUAL[1]}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
PATHS = {"anthropic": "/anthropic/v1/messages", "openai": "/anthropic/v1/responses"}
USED = {"input_tokens": 1000, "output_tokens": 9000}
# What a stream says at first, and at its end.
STREAMS: dict[str, tuple[Any, Any]] = {
    "anthropic": (
        {"message": {"model": "m", "usage": {"input_tokens": 1000, "output_tokens": 1}}},
        {"usage": {"output_tokens": 9000}},
    ),
    "openai": (
        {"type": "response.created", "response": {"model": "m", "usage": None}},
        {"type": "response.completed", "response": {"model": "m", "usage": USED}},
    ),
}


def chunk(document: Any) -> bytes:
    data = b"data: %b\n\n" % json.dumps(document).encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


def entry_of(
    folder: Path, raw: bytes, path: str, body: bytes = b"{}"
) -> request_record.RequestEntry:
    with RawServer(raw) as server:
        url = f"http://127.0.0.1:{server.port}"
        with GatewayProcess(folder, [model(url, wire="any")]) as gateway:
            gateway.ask(f"/anthropic{path}", body)
            (entry,) = gateway.entries(1)
    return entry


CHAT_STREAM = b'data: {"model": "m", "choices": [{}]}\n\ndata: [DONE]\n\n'


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "raw"),
    [
        ("/v1/chat/completions", reply(200, CHAT_STREAM)),
        ("/v1/responses", json_reply({"id": "r", "status": "queued", "usage": None})),
        ("/v1/messages", json_reply({"usage": {"input_tokens": 1, "x": "y" * 70_000}})),
        ("/v1beta/models/m:generateContent", json_reply({"usageMetadata": {"totalTokenCount": 1}})),
        ("/v1/chat/completions", reply(200, json.dumps({"usage": USED}).encode("utf-16"))),
        ("/v1/responses", json_reply({"usage": dict.fromkeys(USED, 0)})),
    ],
    ids=["stream", "background", "large", "total", "utf-16", "zero"],
)
def test_an_answer_that_does_not_say_what_it_used(tmp_path: Path, path: str, raw: bytes) -> None:
    entry = entry_of(tmp_path, raw, path)
    assert not any((entry.usage or {}).values())
    assert (entry.uncounted, entry.is_open) == (MOST, False)


def test_half_of_what_was_used_is_the_least_that_counts(tmp_path: Path) -> None:
    told = [
        {"prompt_tokens": 0, "completion_tokens": 50},
        {"prompt_tokens": -1, "completion_tokens": 50},
        {"prompt_tokens": 1e16, "completion_tokens": 50, "total_tokens": 60},
        {"completion_tokens": 50},
    ]
    entries = errors_of(tmp_path, [json_reply({"usage": usage}) for usage in told])
    rest = {"input_tokens": LARGEST[0], "output_tokens": LARGEST[1] - 50}
    assert [each.uncounted for each in entries[:2] + entries[3:]] == [rest] * 3
    assert (entries[2].uncounted or {})["input_tokens"] == LARGEST[0]


FORGED = json.dumps({"usageMetadata": {"promptTokenCount": 1, "totalTokenCount": 2}}).encode()
EVENT = b"\n\ndata: %b\n\n" % FORGED


def protobuf(text: bytes) -> bytes:
    """An answer of Gemini's as `alt=proto` asks for it: the model's text as it is."""
    for tag in (b"\x12", b"\x0a", b"\x12", b"\x0a"):  # text, parts, content, candidates
        text = tag + bytes([len(text)]) + text
    return text


def entries_of(
    folder: Path, answers: Sequence[tuple[str | None, bytes]]
) -> list[request_record.RequestEntry]:
    """What is recorded of answers of Gemini's, each with its type and its body."""
    raws = [reply(200, body, {"Content-Type": kind} if kind else {}) for kind, body in answers]
    return recorded(folder, raws, "gemini", "/anthropic/v1beta/models/m:generateContent")


def recorded(
    folder: Path, raws: Sequence[bytes], wire: str, path: str
) -> list[request_record.RequestEntry]:
    """What is recorded of as many requests as a model's server has answers."""
    with RawServer(list(raws)) as server:
        route = model(f"http://127.0.0.1:{server.port}", wire=wire)
        with GatewayProcess(folder, [route]) as gateway:
            for _ in raws:
                gateway.ask(path)
            return gateway.entries(len(raws))


def test_what_is_neither_json_nor_a_stream_of_events_tells_nothing(tmp_path: Path) -> None:
    """In any other form, the text of the model could look as if the server had counted."""
    # The length of 123 is a bracket, and that of 58 a colon, after a tag that is a line's end.
    bracket = protobuf(FORGED[1:-1].ljust(117))
    answers = [
        ("application/x-protobuf", protobuf(EVENT)),
        ("application/x-protobuf", FORGED),
        ("application/json+protobuf", FORGED),
        ("application/octet-stream", EVENT.lstrip()),
        ("text/html", FORGED),
        ("text/event-stream, application/x-protobuf", EVENT),
        ("text/plain", bracket),
        (None, bracket),
        (None, b"\n:" + EVENT),
        (None, protobuf(EVENT)),
        (None, b"words: " + EVENT),
        (None, b"da"),
    ]
    entries = entries_of(tmp_path, answers)
    assert [(each.usage, each.uncounted) for each in entries] == [(None, MOST)] * len(answers)


@pytest.mark.parametrize(
    ("charset", "code"), [("UTF-16BE", "utf-16-be"), ('"utf-16"', "utf-16-le"), ("utf-7", "utf-7")]
)
def test_an_answer_in_another_charset_is_refused(tmp_path: Path, charset: str, code: str) -> None:
    """Of the text of the model, each character could be two of ASCII, and a key is not found."""
    kind = {"Content-Type": f"application/json; Charset={charset}"}
    raw = reply(200, json.dumps({"key": KEY, "usage": USED}).encode(code), kind)
    entry = entry_of(tmp_path, raw, "/v1/responses")
    assert (entry.status, entry.usage, entry.uncounted) == (502, None, CUT_OFF)
    assert "charset" in str(entry.fault)


@pytest.mark.parametrize("code", ["utf-16-be", "utf-16-le", "utf-16"])
@pytest.mark.parametrize("kind", ["application/json", "text/event-stream", "text/plain"])
def test_an_answer_in_another_charset_without_its_name(
    tmp_path: Path, kind: str, code: str
) -> None:
    told = b'\n\ndata:{"usage": {"prompt_tokens": 1, "completion_tokens": 1}}\n\n'
    text = told.decode("utf-16-le" if code == "utf-16" else code)
    body = json.dumps({"content": f"\u4e0a{text}"}, ensure_ascii=False).encode(code)
    raw = reply(200, body, {"Content-Type": kind})
    entry = entry_of(tmp_path, raw, "/v1/chat/completions")
    assert (entry.status, entry.uncounted) == (200, MOST)


def test_what_servers_call_an_answer_that_tells_what_it_used(tmp_path: Path) -> None:
    """The service behind the login of ChatGPT streams without a type; others have a wrong one."""
    answers = [
        ("text/event-stream; charset=utf-8", EVENT),
        ("text/event-stream;charset=UTF-8", b": ping\n" + EVENT),
        ('application/json; charset="utf8"', FORGED),
        ("application/json; charset=ISO-8859-1", FORGED),
        ("application/json; charset=us-ascii; x=y", FORGED),
        ("Text/Event-Stream", FORGED),
        ("application/json; charset=UTF-8", b"\n\n" + FORGED),
        ("application/json", EVENT),
        ("application/x-ndjson", FORGED + b"\n"),
        ("application/x-ndjson", EVENT),
        ("application/problem+json", FORGED),
        ("application/jsonl", b"{}\n" + FORGED),
        ("text/json", FORGED),
        ("text/plain; charset=utf-8", FORGED),
        ("text/plain; charset=utf-8", EVENT.lstrip()),
        (None, FORGED),
        (None, b"[%b]" % FORGED),
        (None, EVENT.lstrip()),
        (None, b"event: message" + EVENT[1:]),
        (None, b"\xef\xbb\xbf" + EVENT.lstrip()),
        (None, b"id: 1" + EVENT[1:]),
    ]
    entries = entries_of(tmp_path, answers)
    told = {"input_tokens": 1, "output_tokens": 1}
    assert [(each.usage, each.uncounted) for each in entries] == [(told, None)] * len(answers)


def test_it_counts_before_the_agent_can_ask_again(tmp_path: Path) -> None:
    """The agent has the whole answer with the last byte of its length."""
    with (
        RawServer(json_reply({})) as server,
        GatewayProcess(tmp_path, [model(f"http://127.0.0.1:{server.port}")]) as gateway,
    ):
        for _ in range(40):
            with gateway.connect() as sock:
                sock.sendall(request("/anthropic/v1/messages"))
                while not sock.recv(65536).endswith(b"{}"):
                    pass
                found = request_record.read(gateway.record)
            assert (found[-1].uncounted, found[-1].is_open) == (MOST, False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "raw"),
    [
        ("/v1/messages", json_reply({"usage": USED})),
        ("/v1/messages", json_reply({"error": {}}, 400)),
        ("/v1/messages", json_reply({"error": {}}, 529)),
        ("/v1/messages/count_tokens", json_reply({"input_tokens": 9})),
        ("/v1/responses/input_tokens", json_reply({"input_tokens": 9})),
        ("/v1beta/models/m:countTokens", json_reply({"totalTokens": 9})),
    ],
)
def test_what_cost_nothing_is_not_uncounted(tmp_path: Path, path: str, raw: bytes) -> None:
    entry = entry_of(tmp_path, raw, path)
    assert (entry.uncounted, entry.is_open) == (None, False)


FAILED = {"code": "json_validate_failed", "failed_generation": "x"}  # as Groq's
LONG = {"message": "x" * LONGEST_ERROR}


def errors_of(folder: Path, answers: Sequence[bytes]) -> list[request_record.RequestEntry]:
    return recorded(folder, answers, "openai", "/anthropic/v1/chat/completions")


def test_an_error_with_what_the_model_wrote_is_not_free(tmp_path: Path) -> None:
    text = json.dumps({"error": FAILED | LONG}).encode()
    middle = text.index(b"failed_generation") + 5
    head = "HTTP/1.1 400 X\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    parts = [text[:middle], text[middle:]]
    cut = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    statuses = (400, 422, 424, 429, 500)
    answers = [
        *(json_reply({"error": FAILED}, status) for status in statuses),
        *(json_reply({"error": LONG}, status) for status in (400, 413, 422, 424)),
        reply(400, gzip.compress(text), {"Content-Encoding": "gzip"}),
        head.encode() + cut + b"0\r\n\r\n",
    ]
    entries = errors_of(tmp_path, answers)
    found = [(each.usage, each.uncounted, each.is_open) for each in entries]
    assert found == [(None, MOST, False)] * len(answers)


def test_an_error_with_what_it_used_counts_that(tmp_path: Path) -> None:
    (entry,) = errors_of(tmp_path, [json_reply({"error": FAILED, "usage": USED}, 400)])
    assert (entry.usage, entry.uncounted) == (USED, None)


def test_an_ordinary_error_is_free(tmp_path: Path) -> None:
    """Pages of proxies, and refusals that agents ask again after, may be long."""
    answers = [
        *(json_reply({"error": LONG}, status) for status in (401, 403, 404, 429, 500, 502, 529)),
        json_reply({"error": {"message": "see 'failed_generation' " * 100}}, 400),
        json_reply({"error": {"message": 'your {"failed_generation": 1}'}}, 400),
        reply(400, b"x" * LONGEST_ERROR),
        reply(400),
    ]
    entries = errors_of(tmp_path, answers)
    assert [each.uncounted for each in entries] == [None] * len(answers)


def streaming(wire: str, then: Callable[[socket.socket], None]) -> Callable[[socket.socket], None]:
    """A server that begins its answer, and does something else."""

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        read_exactly(sock, 2)
        sock.sendall(HEAD + chunk(STREAMS[wire][0]))
        then(sock)

    return serve


def leave_early(gateway: GatewayProcess, wire: str) -> None:
    with gateway.connect() as sock:
        sock.sendall(request(PATHS[wire]))
        read_head(sock)
        read_exactly(sock, 20)


@pytest.mark.slow
@pytest.mark.parametrize("wire", PATHS)
def test_the_rest_is_read_after_the_client_has_left(tmp_path: Path, wire: str) -> None:
    left = threading.Event()

    def then(sock: socket.socket) -> None:
        assert left.wait(SECONDS)
        for _ in range(50):  # the first ones tell that the client has left
            sock.sendall(chunk({"delta": "word"}))
        sock.sendall(chunk(STREAMS[wire][1]) + b"0\r\n\r\n")

    with ScriptedServer(streaming(wire, then)) as server:
        route = model(server.url, wire=wire)
        with GatewayProcess(tmp_path, [route], drain_seconds=SECONDS) as gateway:
            leave_early(gateway, wire)
            left.set()
            eventually(lambda: gateway.entries(1)[0].fault)
            (entry,) = gateway.entries(1)
    assert (entry.usage, entry.uncounted) == (USED, None)


@pytest.mark.parametrize("wire", PATHS)
def test_a_client_that_leaves_an_endless_answer(tmp_path: Path, wire: str) -> None:
    gone = threading.Event()

    def then(sock: socket.socket) -> None:
        try:
            while True:
                sock.sendall(chunk({"delta": "word"}))
        except OSError:
            gone.set()

    with ScriptedServer(streaming(wire, then)) as server:
        route = model(server.url, wire=wire)
        with GatewayProcess(tmp_path, [route], drain_seconds=0.2) as gateway:
            leave_early(gateway, wire)
            assert gone.wait(SECONDS)
            (entry,) = gateway.entries(1)
    assert entry.uncounted is not None
    told = USED["input_tokens"] if wire == "anthropic" else 0
    assert entry.uncounted["input_tokens"] == LARGEST[0] - told
    assert entry.uncounted["output_tokens"] >= LARGEST[1] - 1


def test_a_client_that_stays_and_does_not_read(tmp_path: Path) -> None:
    """The gateway ends it as a silent one, and it is the client that was silent."""
    gone = threading.Event()

    def then(sock: socket.socket) -> None:
        try:
            while True:
                sock.sendall(chunk({"delta": "word" * 1000}))
        except OSError:
            gone.set()

    with ScriptedServer(streaming("openai", then)) as server:
        route = model(server.url, wire="openai")
        with (
            GatewayProcess(tmp_path, [route], idle_seconds=0.3) as gateway,
            gateway.connect() as sock,
        ):
            sock.sendall(request(PATHS["openai"]))
            assert gone.wait(SECONDS)
            (entry,) = gateway.entries(1)
    assert entry.uncounted is not None
    assert entry.uncounted["input_tokens"] == LARGEST[0]
    assert entry.uncounted["output_tokens"] >= LARGEST[1]
    assert entry.fault == "the connection ended"


START = {"type": "message_start", "message": {"usage": {"input_tokens": 2679}}}
DELTA = {"type": "message_delta", "delta": {"stop_reason": None}, "usage": {"output_tokens": 50}}


# Whether what the model reads is no more than what it says at first.
def ask_and_leave(
    folder: Path,
    events: Sequence[Any],
    question: bytes,
    path: str = "/v1/messages",
    headers: Sequence[tuple[str, str]] = (),
) -> Any:
    """The entry of a client that leaves as soon as it was told all of these."""
    gone = threading.Event()

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        read_exactly(sock, len(question))
        sock.sendall(HEAD + b"".join(map(chunk, events)))
        with contextlib.suppress(OSError):
            while not gone.wait(0.05):
                sock.sendall(
                    chunk({"type": "ping"})
                )  # the first ones tell that the client has left

    with (
        ScriptedServer(serve) as server,
        GatewayProcess(folder, [model(server.url, wire="any")], drain_seconds=0.2) as gateway,
    ):
        with gateway.connect() as sock:
            sock.sendall(request(f"/anthropic{path}", question, headers=headers))
            told = b""
            while told.count(b"data: ") < len(events):
                told += sock.recv(4096)
        (entry,) = gateway.entries(1)
        gone.set()
    return entry


def test_the_first_counts_of_a_message_are_not_the_last(tmp_path: Path) -> None:
    """Tools of the vendor read on, and no list of the ways to ask for them is complete."""
    entry = ask_and_leave(tmp_path, [START, DELTA], b"{}")
    assert entry.usage == {"input_tokens": 2679, "output_tokens": 50}
    assert entry.uncounted == {
        "input_tokens": LARGEST[0] - 2679,
        "output_tokens": LARGEST[1] - 50,
    }


def test_a_client_that_leaves_after_the_last_counts_of_a_message(tmp_path: Path) -> None:
    """Though its server ends the answer much later."""
    entry = ask_and_leave(tmp_path, [START, DELTA, {"type": "message_stop"}], b"{}")
    assert entry.usage == {"input_tokens": 2679, "output_tokens": 50}
    assert entry.uncounted is None


def test_the_first_counts_of_a_response_are_not_the_last(tmp_path: Path) -> None:
    """As some routers say them, before the text."""
    response = {"model": "m", "usage": {"input_tokens": 9, "output_tokens": 1}}
    events = [{"type": "response.created", "response": response}, {"delta": "the text"}]
    entry = ask_and_leave(tmp_path, events, b"{}", "/v1/responses")
    assert entry.usage == response["usage"]
    rest = {"input_tokens": LARGEST[0] - 9, "output_tokens": LARGEST[1] - 1}
    assert entry.uncounted == rest


def test_a_client_that_leaves_after_the_last_counts_of_a_response(tmp_path: Path) -> None:
    entry = ask_and_leave(tmp_path, STREAMS["openai"], b"{}", "/v1/responses")
    assert (entry.usage, entry.uncounted) == (USED, None)


def test_an_answer_in_the_background_may_say_what_was_read(tmp_path: Path) -> None:
    told = {"status": "queued", "usage": {"input_tokens": 9, "output_tokens": 0}}
    entry = entry_of(tmp_path, json_reply(told), "/v1/responses", b'{"background": true}')
    assert entry.uncounted == {"input_tokens": LARGEST[0] - 9, "output_tokens": LARGEST[1]}


@pytest.mark.parametrize(
    ("number", "answers"), [(2, 2), (1e9, 128), ("3", 3), (-1, 1), ("many", 1)]
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1beta/models/m:generateContent"])
def test_each_of_several_answers_counts(
    tmp_path: Path, path: str, number: float | str, answers: int
) -> None:
    several = (
        {"n": number} if "chat" in path else {"generation_config": {"candidate_count": number}}
    )
    entry = ask_and_leave(tmp_path, [{"id": "first"}], json.dumps(several).encode(), path)
    assert entry.usage is None
    assert entry.uncounted is not None
    assert entry.uncounted["output_tokens"] == LARGEST[1] * answers


@pytest.mark.parametrize(
    ("coding", "answers"),
    [("IDENTITY", 3), (" , identity", 3), ("gzip", 128), ("Identity, X-GZIP", 128)],
)
def test_several_answers_of_a_question_that_may_be_packed(
    tmp_path: Path, coding: str, answers: int
) -> None:
    path, question = "/v1/chat/completions", b'{"n": 3}'
    headers = [("Content-Encoding", coding)]
    entry = ask_and_leave(tmp_path, [{"id": "first"}], question, path, headers)
    assert entry.uncounted["output_tokens"] == LARGEST[1] * answers


def test_a_question_in_a_coding_that_is_none_is_refused(tmp_path: Path) -> None:
    """A server that ignores it reads what the gateway did not."""
    route, headers = model("http://127.0.0.1:9", wire="any"), [("Content-Encoding", "utf-8")]
    with GatewayProcess(tmp_path, [route]) as gateway, gateway.connect() as sock:
        sock.sendall(request("/anthropic/v1/messages", headers=headers))
        assert b" 400 " in read_head(sock)


def test_a_number_that_is_too_long_to_read_is_the_largest(tmp_path: Path) -> None:
    number = f"0.{'0' * 70}128e73"
    assert json.loads(number) == 128
    question = f'{{"n": {number}}}'.encode()
    entry = ask_and_leave(tmp_path, [{"id": "first"}], question, "/v1/chat/completions")
    assert entry.uncounted["output_tokens"] == LARGEST[1] * 128


@pytest.mark.parametrize("wire", PATHS)
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL])
def test_what_is_under_way_at_the_end_of_the_run(tmp_path: Path, wire: str, sign: int) -> None:
    told = threading.Event()

    def then(_sock: socket.socket) -> None:
        assert told.wait(SECONDS)

    with ScriptedServer(streaming(wire, then)) as server:
        gateway = GatewayProcess(tmp_path, [model(server.url, wire=wire)])
        with gateway.connect() as sock:
            sock.sendall(request(PATHS[wire]))
            read_head(sock)
            read_exactly(sock, 20)
            gateway.process.send_signal(sign)
            gateway.process.wait(SECONDS)
        told.set()
    (entry,) = request_record.read(gateway.record)
    assert entry.is_open == (sign == signal.SIGKILL)
    assert entry.fault == (None if entry.is_open else "the run ended")
    most = USUAL if sign == signal.SIGTERM else LARGEST  # any other end can be chosen
    told = USED["input_tokens"] if wire == "anthropic" else 0
    read = 0 if told and most == USUAL else most[0] - told
    assert entry.uncounted is not None
    assert entry.uncounted["input_tokens"] == read
    meter = RunMeter(tmp_path)
    gateway.record.rename(tmp_path / request_record.FILE)
    meter.look()
    assert meter.used({}, has_ended=True)["uncounted"]["tokens"] == sum(entry.uncounted.values())
    assert meter.used({}, has_ended=True)["uncounted"]["requests"] == 1


@pytest.mark.parametrize("wire", PATHS)
def test_an_answer_that_the_server_cuts_off_counts_as_a_usual_one(
    tmp_path: Path, wire: str
) -> None:
    with (
        ScriptedServer(streaming(wire, lambda _sock: None)) as server,
        GatewayProcess(tmp_path, [model(server.url, wire=wire)]) as gateway,
    ):
        with contextlib.suppress(ConnectionError):  # it is cut off for the client, too
            gateway.ask(PATHS[wire])
        (entry,) = gateway.entries(1)
    assert entry.uncounted is not None
    assert entry.uncounted["output_tokens"] in (USUAL[1], USUAL[1] - 1)


def asked(folder: Path, then: Callable[[socket.socket], None], **limits: Any) -> Any:
    """What is recorded to be uncounted of a request that a server has taken."""

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        read_exactly(sock, 2)
        then(sock)

    with (
        ScriptedServer(serve) as server,
        GatewayProcess(folder, [model(server.url)], **limits) as gateway,
    ):
        assert gateway.ask().status == 502
        return gateway.entries(1)[0].uncounted


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize("then", [lambda _sock: None, reset], ids=["closes", "resets"])
def test_a_server_that_closes_without_an_answer(
    tmp_path: Path, then: Callable[[socket.socket], None]
) -> None:
    """At once, it refuses, and agents ask again; later, a model may have been at work."""
    assert asked(tmp_path, then) is None
    (tmp_path / "late").mkdir()
    assert asked(tmp_path / "late", then, refusing_seconds=0) == CUT_OFF


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
        b"HTTP/1.1 200 OK\r\nX : x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\n" * 101,
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b'{"an answer": "of HTTP/0.9"}',
    ],
    ids=["too long", "invalid", "cut off", "too many", "101", "lengths", "gzip", "HTTP/0.9"],
)
def test_the_head_of_an_answer_that_cannot_be_read(tmp_path: Path, raw: bytes) -> None:
    assert asked(tmp_path, lambda sock: sock.sendall(raw)) == CUT_OFF


# How a program can keep a model's server waiting that has a whole question: the head, and more.
KEPT_BACK = {
    "a length that does not come": (b"HTTP/1.1", b"Content-Length: 20", b"%b"),
    "a chunk that does not come": (b"HTTP/1.1", b"Transfer-Encoding: chunked", b"7\r\n%b\r\n"),
    "a part of a chunk": (b"HTTP/1.1", b"Transfer-Encoding: chunked", b"14\r\n%b"),
    "100 Continue": (b"HTTP/1.1", b"Content-Length: 20\r\nExpect: 100-continue", b"%b"),
    "HTTP/1.0": (b"HTTP/1.0", b"Content-Length: 20", b"%b"),
    "packed": (b"HTTP/1.1", b"Content-Length: 20\r\nContent-Encoding: zstd", b"%b"),
}
# What the server does then.
GIVEN_UP = [
    b"",
    HEAD,
    b"HTTP/1.1 200 OK\r\nX : x\r\n\r\n",
    reply(408),
    json_reply({"error": {"message": "the body came too slowly"}}, 400),
    json_reply({"error": {}}, 504),
]


@pytest.mark.slow
def test_a_server_that_gives_up_on_the_rest_of_a_request(tmp_path: Path) -> None:
    """Those that read one JSON value, or pass on what comes, have a model at work by then."""

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        while b"}" not in (question := sock.recv(20)):
            pass
        time.sleep(DAWDLING_SECONDS + 1)
        ending = int(question[question.index(b":") + 1 : question.index(b"}")])
        sock.sendall(GIVEN_UP[ending % 10])
        if ending >= 10:
            reset(sock)

    def ask(how: str, ending: int) -> None:
        version, framing, body = KEPT_BACK[how]
        head = b"POST /anthropic/v1/messages %b\r\nHost: x\r\n%b\r\nx-api-key: %b\r\n\r\n"
        with gateway.connect() as sock, contextlib.suppress(ConnectionError):
            sock.sendall(head % (version, framing, PLACEHOLDER.encode()))
            sock.sendall(body % b'{"":%02d}' % ending)
            while sock.recv(4096):
                pass

    endings = [*range(len(GIVEN_UP)), *range(10, 10 + len(GIVEN_UP))]
    cases = [(how, ending) for how in KEPT_BACK for ending in endings]
    with (
        ScriptedServer(serve) as server,
        GatewayProcess(tmp_path, [model(server.url)]) as gateway,
        ThreadPoolExecutor(len(cases)) as pool,
    ):
        list(pool.map(lambda case: ask(*case), cases))
        entries = gateway.entries(len(cases))
    found = {
        str(entry.uncounted) + str(entry.fault) for entry in entries if entry.uncounted != MOST
    }
    assert not found


def test_a_server_that_gives_up_on_a_client_that_takes_nothing(tmp_path: Path) -> None:
    """With the rest of what was sent, the gateway reads that the answer was broken off."""
    given_up = threading.Event()

    def then(sock: socket.socket) -> None:
        sock.settimeout(DAWDLING_SECONDS + 1)
        with contextlib.suppress(TimeoutError):
            while True:
                sock.sendall(chunk({"delta": "word" * 10_000}))
        given_up.set()

    with (
        ScriptedServer(streaming("openai", then)) as server,
        GatewayProcess(tmp_path, [model(server.url, wire="openai")]) as gateway,
    ):
        with gateway.connect() as sock, contextlib.suppress(ConnectionError):
            sock.sendall(request(PATHS["openai"]))
            assert given_up.wait(SECONDS)
            while sock.recv(1 << 20):
                pass
        (entry,) = gateway.entries(1)
    assert entry.fault == "the server's answer is broken or incomplete"
    assert entry.uncounted is not None
    assert entry.uncounted["input_tokens"] == LARGEST[0]
    assert entry.uncounted["output_tokens"] >= LARGEST[1]


@pytest.mark.parametrize(
    ("version", "framing", "is_counted"),
    [("1.1", "", False), ("1.0", "", False), ("1.1", "Content-Length: %d\r\n", True)],
)
def test_an_answer_that_ends_with_its_connection(
    tmp_path: Path, version: str, framing: str, *, is_counted: bool
) -> None:
    """A server that gives up on a client that takes nothing ends it in the same way."""
    event = json.dumps({"usage": {"prompt_tokens": 9, "completion_tokens": 1}, "x": "x" * 50_000})
    body = f"data: {event}\n\n".encode() * 300
    head = f"HTTP/{version} 200 OK\r\nContent-Type: text/event-stream\r\n{framing}\r\n"
    sent = (head % len(body) if framing else head).encode() + body

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        read_exactly(sock, 2)
        sock.sendall(sent)

    def ask(gateway: GatewayProcess, seconds: float) -> None:
        with gateway.connect() as sock:
            sock.sendall(request("/anthropic/v1/chat/completions"))
            time.sleep(seconds)
            while sock.recv(1 << 20):
                pass

    with (
        ScriptedServer(serve) as server,
        GatewayProcess(tmp_path, [model(server.url, wire="any")]) as gateway,
    ):
        ask(gateway, 0)
        ask(gateway, DAWDLING_SECONDS + 0.5)
        at_once, late = gateway.entries(2)
    assert (at_once.uncounted, at_once.fault, late.fault) == (None, None, None)
    assert at_once.usage == late.usage == {"input_tokens": 9, "output_tokens": 1}
    assert (late.uncounted is None) == is_counted
    assert is_counted or (late.uncounted or {})["input_tokens"] == LARGEST[0] - 9


@pytest.mark.parametrize("begun", [HEAD, b""], ids=["answers", "does not answer"])
def test_a_server_that_takes_only_a_part_of_a_request(tmp_path: Path, begun: bytes) -> None:
    """The program chose what follows the question, and so that the server gives up on it."""

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        read_exactly(sock, 2)
        sock.sendall(begun)
        time.sleep(0.3)
        reset(sock)

    size = 32 * 1024 * 1024
    with (
        ScriptedServer(serve) as server,
        GatewayProcess(tmp_path, [model(server.url)], refusing_seconds=0.1) as gateway,
    ):
        with contextlib.suppress(ConnectionError):
            gateway.ask(body=b"{}" + b" " * size)
        (entry,) = gateway.entries(1)
    assert (entry.uncounted or {})["output_tokens"] == LARGEST[1]


def test_an_answer_that_does_not_continue(tmp_path: Path) -> None:
    """A program can ask for one that takes long, and is told nothing before it is whole."""
    ended = threading.Event()
    with ScriptedServer(streaming("openai", lambda _sock: ended.wait(SECONDS))) as server:
        route = model(server.url, wire="openai")
        with GatewayProcess(tmp_path, [route], idle_seconds=0.3) as gateway:
            with contextlib.suppress(ConnectionError):
                gateway.ask(PATHS["openai"])
            (entry,) = gateway.entries(1)
        ended.set()
    assert entry.uncounted == MOST


def test_a_request_that_was_not_sent_costs_nothing(tmp_path: Path) -> None:
    whole = threading.Event()

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        assert whole.wait(SECONDS)

    with ScriptedServer(serve) as server, GatewayProcess(tmp_path, [model(server.url)]) as gateway:
        with gateway.connect() as sock:
            sock.sendall(request("/anthropic/v1/messages", b"x" * 1000)[:-10])
        whole.set()
        (entry,) = gateway.entries(1)
    assert entry.uncounted is None


@pytest.mark.parametrize("how", ["stays", "leaves", "breaks off"])
def test_a_request_without_an_end_that_is_answered(tmp_path: Path, how: str) -> None:
    """Servers that read one JSON value, as those in Go do, do not wait for the last chunk."""
    gone = threading.Event()

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        read_exactly(sock, len(b"2\r\n{}\r\n"))
        sock.sendall(HEAD + chunk({"choices": [{}]}))
        if how == "stays":
            sock.sendall(b"0\r\n\r\n")
        assert gone.wait(SECONDS)

    endless = request(PATHS["openai"], b"2\r\n{}\r\n").replace(
        b"Content-Length: 7", b"Transfer-Encoding: chunked"
    )
    with (
        ScriptedServer(serve) as server,
        GatewayProcess(tmp_path, [model(server.url, wire="any")]) as gateway,
    ):
        with gateway.connect() as sock:
            sock.sendall(endless)
            read_head(sock)
            if how == "stays":
                read_head(sock)  # the end of the last chunk is that of a head, too
            else:
                read_exactly(sock, 20)
            if how == "breaks off":
                sock.sendall(b"no length\r\n")
                sock.recv(4096)
        (entry,) = gateway.entries(1)
        gone.set()
    assert (entry.uncounted, entry.is_open) == (MOST, False)
    # One that leaves within its request may be noticed before the answer is.
    assert entry.status in ((200, 400) if how != "stays" else (200,))
    assert (entry.refused is not None and entry.id is not None) or how != "breaks off"


@pytest.mark.parametrize(
    ("sent", "more", "is_whole"),
    [
        (b'{"a": ["}", {}', b"", False),
        (b'{"a": ["}", {}]}', b"", True),
        (b'{"a": "x\\', b'"}', False),
        (b'{"a": "x\\', b'""}', True),
        (b' {} {"b": "', b"", True),
        (b"{" + b'"a": "\\"", ' * 50_000 + b'"b": 1', b"}", True),
    ],
)
def test_a_whole_question_in_a_body_without_an_end(
    tmp_path: Path, sent: bytes, more: bytes, is_whole: bool
) -> None:
    """A server that reads one JSON value is at work by then, if nothing has come of it yet."""
    arrived, left = threading.Event(), threading.Event()

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        read_exactly(sock, len(sent))
        arrived.set()
        read_exactly(sock, len(more))
        left.set()
        sock.recv(1)

    length = len(sent) + len(more) + 5
    whole = request(PATHS["openai"], sent + b" " * (length - len(sent)))
    with (
        ScriptedServer(serve) as server,
        GatewayProcess(tmp_path, [model(server.url, wire="any")]) as gateway,
    ):
        with gateway.connect() as sock:
            sock.sendall(whole[: len(sent) - length])
            assert arrived.wait(SECONDS)
            sock.sendall(more)
            assert left.wait(SECONDS)
        (entry,) = gateway.entries(1)
    assert entry.uncounted == (MOST if is_whole else None)


# What of a request is sent at first, what later, and whether a model may be at work in between.
KEPT = {
    "the body": ("Content-Length: 2", b"", b"{}", False),
    "what is no JSON": ("Content-Length: 4", b"wa", b"it", False),
    "a part of it": ("Content-Length: 9", b'{"a": "', b'"}', False),
    "the last chunk": ("Transfer-Encoding: chunked", b"2\r\n{}\r\n", b"0\r\n\r\n", True),
    "of a packed one": ("Content-Length: 4\r\nContent-Encoding: zstd", b"\0\0", b"\0\0", True),
}


@pytest.mark.parametrize(("framing", "first", "then", "may_work"), KEPT.values(), ids=KEPT)
def test_no_request_is_completed_once_the_budget_is_used_up(
    tmp_path: Path, framing: str, first: bytes, then: bytes, may_work: bool
) -> None:
    """A program could begin a hundred of them before that."""
    budget = ModelBudget(tokens=5000, reason="it is used up")
    head = f"POST /anthropic/v1/messages HTTP/1.1\r\nHost: x\r\nx-api-key: {PLACEHOLDER}\r\n"
    begun = threading.Semaphore(0)
    served = []

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        read_exactly(sock, len(first))
        begun.release()
        if len(got := sock.recv(len(then), socket.MSG_WAITALL)) == len(then):
            served.append(got)
            sock.sendall(json_reply({"usage": USED}))

    with (
        ScriptedServer(serve) as server,
        GatewayProcess(tmp_path, [model(server.url)], budget=budget) as gateway,
        contextlib.ExitStack() as stack,
    ):
        socks = [stack.enter_context(gateway.connect()) for _ in range(3)]
        for sock in socks:
            sock.sendall(f"{head}{framing}\r\n\r\n".encode() + first)
            assert begun.acquire(timeout=SECONDS)
        answers = []
        for sock in socks:
            sock.sendall(then)
            answers.append(read_answer(sock))
        entries = gateway.entries(3)
    assert [answer.status for answer in answers] == [200, 402, 402]
    assert answers[1].message == "it is used up"
    assert served == [then]
    found = [(entry.option, entry.uncounted) for entry in entries]
    assert found == [(None, None)] + [("--budget", MOST if may_work else None)] * 2


def test_an_answer_with_two_lengths_has_the_one_that_counts(tmp_path: Path) -> None:
    body = json.dumps({"usage": USED}).encode()
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    raw += b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    with RawServer(raw) as server:
        route = model(f"http://127.0.0.1:{server.port}")
        with GatewayProcess(tmp_path, [route]) as gateway:
            answer = gateway.ask()
            (entry,) = gateway.entries(1)
    assert (answer.status, answer.body, entry.usage) == (200, body, USED)
    assert (entry.refused, entry.fault) == (None, None)


def test_a_server_that_only_says_that_it_will_answer(tmp_path: Path) -> None:
    def serve(sock: socket.socket) -> None:
        read_head(sock)
        try:
            while True:
                sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)
        except OSError:
            return

    with ScriptedServer(serve) as server, GatewayProcess(tmp_path, [model(server.url)]) as gateway:
        assert gateway.ask().status == 502
        assert gateway.entries(1)[0].fault == "the server does not come to its answer"


@pytest.mark.parametrize("question", [b"", b"{}"])
def test_a_server_that_takes_nothing_of_a_request(tmp_path: Path, question: bytes) -> None:
    """One that reads a JSON value alone is at work, and the program chose what follows that."""
    ended = threading.Event()

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        assert ended.wait(SECONDS)

    size = 32 * 1024 * 1024
    with ScriptedServer(serve) as server:
        with GatewayProcess(tmp_path, [model(server.url)], stalled_seconds=0.5) as gateway:
            with gateway.connect() as sock:
                head = "POST /anthropic/v1/messages HTTP/1.1\r\nHost: x\r\n"
                head += f"x-api-key: {PLACEHOLDER}\r\nContent-Length: {size}\r\n\r\n"
                sock.sendall(head.encode() + question)
                sock.settimeout(0.2)
                with contextlib.suppress(OSError):  # it is full, or answered
                    while True:
                        sock.sendall(b" " * 65536)
            (entry,) = gateway.entries(1)
        ended.set()
    assert entry.status == 504
    assert "took nothing" in str(entry.fault)
    assert (entry.uncounted or {}).get("output_tokens") == (LARGEST[1] if question else None)


def limit_files(gateway: GatewayProcess, size: int) -> None:
    """As a disk is that has no room for more than so many bytes of the record."""
    resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@pytest.mark.parametrize("spare", [0, 10, 200])
def test_no_request_goes_out_that_cannot_be_recorded(tmp_path: Path, spare: int) -> None:
    with RawServer([json_reply({"usage": USED})] * 2) as server:
        with GatewayProcess(tmp_path, [model(f"http://127.0.0.1:{server.port}")]) as gateway:
            limit_files(gateway, gateway.record.stat().st_size + spare)
            refused = gateway.ask()
            limit_files(gateway, resource.RLIM_INFINITY)
            answered = gateway.ask()
        (entry,) = [each for each in request_record.read(gateway.record) if each.status == 200]
    assert (refused.status, answered.status) == (503, 200)
    assert "no room" in refused.message
    assert entry.usage == USED
    assert len(server.requests) == 1


def test_what_went_out_is_counted_though_the_disk_is_full_by_then(tmp_path: Path) -> None:
    full = threading.Event()

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        read_exactly(sock, 2)
        assert full.wait(SECONDS)
        sock.sendall(json_reply({"usage": USED}))

    with ScriptedServer(serve) as server, GatewayProcess(tmp_path, [model(server.url)]) as gateway:
        with gateway.connect() as sock:
            sock.sendall(request("/anthropic/v1/messages"))
            eventually(lambda: request_record.read(gateway.record))
            limit_files(gateway, gateway.record.stat().st_size)
            full.set()
            read_head(sock)
        (entry,) = gateway.entries(1)
    assert (entry.usage, entry.uncounted) == (USED, None)
