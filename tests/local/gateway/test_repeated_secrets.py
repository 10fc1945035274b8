"""Secrets that come back from outside, in any spelling and compression: none goes in."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import socket
import zlib
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from rebyte_cli.local.gateway.secret_mask import SecretMask
from tests.local.gateway.harness import KEY, GatewayAnswer, GatewayProcess, model
from tests.local.gateway.upstream import ScriptedServer, read_all, read_exactly, read_head
from tests.waiting import eventually

PASSWORD = "P4ss/word with:signs"


def echo(sock: socket.socket) -> None:
    """Answer with the request itself, as a debugging proxy does, in the body and in a header."""
    head = read_head(sock)
    if b"content-length: 2\r\n" in head.lower():
        read_exactly(sock, 2)
    lines = b"|".join(head.split(b"\r\n"))
    sock.sendall(b"HTTP/1.1 200 OK\r\nX-Echo: %s\r\n" % lines)
    sock.sendall(b"Content-Length: %d\r\n\r\n" % len(head) + head)


def basic(user: str) -> str:
    return base64.b64encode(user.encode()).decode()


def check(answer: GatewayAnswer, *secrets: str) -> None:
    """Neither the secrets nor a long part of one are in the answer, whose rest is."""
    assert answer.status == 200
    assert b"HTTP/1.1" in answer.body
    for secret in secrets:
        for at in range(len(secret) - 11):
            assert secret[at : at + 12].encode() not in answer.raw


def test_the_password_of_the_base_url(tmp_path: Path) -> None:
    with ScriptedServer(echo) as server:
        url = f"http://me:{quote(PASSWORD, safe='')}@127.0.0.1:{server.port}"
        with GatewayProcess(tmp_path, [model(url, key="")]) as gateway:
            answer = gateway.ask()
    assert b"authorization: basic ****" in answer.body.lower()
    check(answer, basic(f"me:{PASSWORD}"), PASSWORD, quote(PASSWORD, safe=""))


def test_keys_in_queries(tmp_path: Path) -> None:
    """Those of the base URL and those of the settings, as they are sent; no plain setting."""
    first, second = "query+key/with signs 1", "another=key&with signs 2"
    with ScriptedServer(echo) as server:
        url = f"http://127.0.0.1:{server.port}/?key={quote_plus(first)}"
        query = {"code": second, "api-version": "2026-01-01-preview"}
        with GatewayProcess(tmp_path, [model(url, query=query)]) as gateway:
            answer = gateway.ask()
    check(answer, first, second, quote_plus(first), quote_plus(second))
    assert b"api-version=2026-01-01-preview" in answer.body


def test_a_short_key(tmp_path: Path) -> None:
    """LiteLLM's documents have this one. A word is none: an answer may have it by chance."""
    with ScriptedServer(echo) as server:
        url = f"http://127.0.0.1:{server.port}/ollama"
        with GatewayProcess(tmp_path, [model(url, key="sk-1234")]) as gateway:
            answer = gateway.ask()
    assert b"x-api-key: *******\r\n" in answer.body.lower()
    assert b"/ollama/v1/messages" in answer.body
    assert b"sk-1234" not in answer.raw


@pytest.mark.slow
@pytest.mark.parametrize("host", ["model.example", "packages.example"])
def test_the_password_of_the_user_s_proxy(tmp_path: Path, host: str) -> None:
    with ScriptedServer(echo) as proxy:
        variables = {"HTTP_PROXY": f"http://me:{quote(PASSWORD, safe='')}@127.0.0.1:{proxy.port}"}
        with GatewayProcess(
            tmp_path, [model("http://model.example")], ["packages.example"], proxy=variables
        ) as gateway:
            if host == "model.example":
                answer = gateway.ask()
            else:
                raw = f"GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"
                answer = gateway.send(raw.encode())
    assert b"proxy-authorization: basic ****" in answer.body.lower()
    check(answer, basic(f"me:{PASSWORD}"), PASSWORD, KEY)


def test_no_request_asks_a_proxy_what_it_was_told(tmp_path: Path) -> None:
    with ScriptedServer(echo) as proxy:
        variables = {"HTTP_PROXY": f"http://me:pw@127.0.0.1:{proxy.port}"}
        with GatewayProcess(tmp_path, [], ["packages.example"], proxy=variables) as gateway:
            answer = gateway.send(
                b"TRACE http://packages.example/ HTTP/1.1\r\nHost: x\r\nMax-Forwards: 0\r\n\r\n"
            )
    assert answer.status == 405
    assert proxy.connections == 0


@pytest.mark.parametrize("spelled", [quote, quote_plus, json.dumps, basic, str])
def test_spellings(spelled: Callable[[str], str]) -> None:
    secret = 'a secret/with "signs"+1'
    text = f"before {spelled(secret)} after".encode()
    mask = SecretMask([secret])
    whole = b"".join([*(mask.feed(text[at : at + 1]) for at in range(len(text))), mask.flush()])
    assert len(whole) == len(text)
    assert whole.startswith(b"before ")
    assert whole.endswith(b" after")
    assert whole.strip(b"beforat =*\"'") == b""


def test_no_word_of_an_answer_is_taken_for_a_key() -> None:
    words = ["gpt4all", "ollama", "lm-studio", "none", "2026-01-01"]
    text = " ".join(words).encode()
    assert SecretMask(words[:2], words[:4]).feed(text) == text
    assert SecretMask(words).feed(text) == text


USED = {"usage": {"input_tokens": 1000, "output_tokens": 2000}, "model": "m"}
BODY = json.dumps({**USED, "text": f"{KEY} " * 50 + "x" * 100_000}).encode()
PACKED = {
    "gzip": gzip.compress(BODY),
    "x-gzip": gzip.compress(BODY),
    "Deflate": zlib.compress(BODY),
    "identity": BODY,
}


def packed(name: str, body: bytes, piece: int = 97) -> Callable[[socket.socket], None]:
    """A server that compresses its answer, though that is not asked for, and sends it in parts."""

    def serve(sock: socket.socket) -> None:
        assert b"accept-encoding: identity" in read_head(sock).lower()
        read_exactly(sock, 2)
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: {name}\r\n"
        sock.sendall(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body))
        with contextlib.suppress(ConnectionError):  # the gateway may have seen enough
            for at in range(0, len(body), piece):
                sock.sendall(body[at : at + piece])

    return serve


@pytest.mark.slow
@pytest.mark.parametrize("name", PACKED)
def test_a_compressed_answer_is_counted_and_masked(tmp_path: Path, name: str) -> None:
    with (
        ScriptedServer(packed(name, PACKED[name])) as server,
        GatewayProcess(tmp_path, [model(server.url)]) as gateway,
    ):
        answer = gateway.ask()
        entry = gateway.entries(1)[0]
    assert answer.status == 200
    assert "content-encoding" not in answer.headers
    assert answer.body == BODY.replace(KEY.encode(), b"*" * len(KEY))
    assert entry.usage is not None
    assert (entry.usage["input_tokens"], entry.usage["output_tokens"]) == (1000, 2000)


@pytest.mark.slow
@pytest.mark.usefixtures("real_supervisors")
def test_an_answer_that_unpacks_to_much_takes_little_memory(tmp_path: Path) -> None:
    body = gzip.compress(b" " * (200 << 20) + BODY)
    with (
        ScriptedServer(packed("gzip", body, piece=65536)) as server,
        GatewayProcess(tmp_path, [model(server.url)]) as gateway,
        contextlib.ExitStack() as stack,
    ):
        socks = [stack.enter_context(gateway.connect()) for _ in range(4)]
        for sock in socks:
            sock.sendall(b"POST /anthropic/v1/messages HTTP/1.1\r\nHost: x\r\n")
            sock.sendall(b"x-api-key: placeholder-of-this-run\r\nContent-Length: 2\r\n\r\n{}")
            assert sock.recv(1)
        received = 0
        while data := socks[0].recv(1 << 20):  # the others take nothing meanwhile
            received += len(data)
            if received > 200 << 20:
                break
        assert received > 200 << 20
        status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    assert int(status.partition("VmHWM:")[2].split()[0]) < 60 << 10  # kB


@pytest.mark.slow
@pytest.mark.parametrize("name", ["br", "zstd", "gzip, gzip", "identity, gzip", "unknown"])
def test_a_compression_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    with (
        ScriptedServer(packed(name, b"xx")) as server,
        GatewayProcess(tmp_path, [model(server.url)]) as gateway,
    ):
        answer = gateway.ask()
    assert answer.status == 502
    assert answer.message == "localhost compresses its answer, which was not asked for"


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [
        *(PACKED["gzip"][:-20], b"\x1f\x8bno", BODY),
        *(PACKED["gzip"] + more for more in (b"x", b"x" * 1_000_000, PACKED["gzip"])),
    ],
    ids=["cut", "broken", "plain", "a byte more", "much more", "two"],
)
def test_a_broken_compression_cuts_the_answer(tmp_path: Path, body: bytes) -> None:
    with (
        ScriptedServer(packed("gzip", body)) as server,
        GatewayProcess(tmp_path, [model(server.url)]) as gateway,
        gateway.connect() as sock,
    ):
        sock.sendall(b"POST /anthropic/v1/messages HTTP/1.1\r\nHost: x\r\n")
        sock.sendall(b"x-api-key: placeholder-of-this-run\r\nContent-Length: 2\r\n\r\n{}")
        with pytest.raises(ConnectionResetError):
            read_all(sock)
        fault = eventually(lambda: gateway.entries(1)[0].fault)  # its last line has it
    assert "compression" in fault
