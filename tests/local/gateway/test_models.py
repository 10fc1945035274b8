"""Requests to models: which pass, and what the model and the agent get of each other."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import certificate
from tests.local.gateway.harness import (
    KEY,
    PLACEHOLDER,
    GatewayProcess,
    model,
    parse_answer,
    request,
)
from tests.local.gateway.upstream import ScriptedServer, read_all, read_head
from tests.servers import RawServer, closed_port, json_reply, reply

# What each agent asks, with the base URLs that it may be given (the agent's request, the model's).
QUESTIONS = [
    ("anthropic", "", "POST", "/v1/messages?beta=true", "/v1/messages?beta=true"),
    ("anthropic", "", "POST", "/v1/messages/count_tokens", "/v1/messages/count_tokens"),
    ("anthropic", "", "GET", "/v1/models?limit=20", "/v1/models?limit=20"),
    ("anthropic", "", "GET", "/v1/models/claude-x-4.5", "/v1/models/claude-x-4.5"),
    ("anthropic", "/v1", "POST", "/messages", "/v1/messages"),
    ("anthropic", "/proxy/claude/", "POST", "/v1/messages", "/proxy/claude/v1/messages"),
    ("openai", "/v1", "POST", "/responses", "/v1/responses"),
    ("openai", "/v1", "POST", "/responses/compact", "/v1/responses/compact"),
    ("openai", "/v1", "POST", "/chat/completions", "/v1/chat/completions"),
    ("openai", "", "POST", "/v1/responses", "/v1/responses"),
    ("openai", "/v1", "GET", "/models?client_version=0.169.0", "/v1/models?client_version=0.169.0"),
    ("openai", "/v1", "GET", "/models/accounts/x/models/y", "/v1/models/accounts/x/models/y"),
    ("openai", "/v1", "GET", "/models/ft:gpt-x:org::id", "/v1/models/ft:gpt-x:org::id"),
    ("openai", "/backend-api/codex", "POST", "/responses", "/backend-api/codex/responses"),
    (
        "openai",
        "/openai",
        "POST",
        "/deployments/my-gpt/chat/completions?api-version=2026-01-01-preview",
        "/openai/deployments/my-gpt/chat/completions?api-version=2026-01-01-preview",
    ),
    (
        "gemini",
        "",
        "POST",
        "/v1beta/models/gemini-x-2.5:streamGenerateContent?alt=sse",
        "/v1beta/models/gemini-x-2.5:streamGenerateContent?alt=sse",
    ),
    ("gemini", "", "POST", "/v1/models/x:generateContent", "/v1/models/x:generateContent"),
    (
        "gemini",
        "",
        "POST",
        "/v1/models/x:generateContent?alt=json&$alt=proto",
        "/v1/models/x:generateContent?alt=json",
    ),
    ("gemini", "/v1alpha", "POST", "/models/x:countTokens", "/v1alpha/models/x:countTokens"),
    ("gemini", "/v1beta", "GET", "/models?pageSize=50", "/v1beta/models?pageSize=50"),
    ("any", "/zen/v1", "POST", "/messages", "/zen/v1/messages"),
    ("any", "/zen/v1", "POST", "/responses", "/zen/v1/responses"),
    ("any", "/zen/v1", "POST", "/models/x:generateContent", "/zen/v1/models/x:generateContent"),
]
NO_QUESTIONS = [
    ("anthropic", "POST", "/v1/files"),
    ("anthropic", "POST", "/v1/messages/batches"),
    ("anthropic", "POST", "/v1/organizations/users"),
    ("anthropic", "POST", "/api/event_logging/batch"),
    ("anthropic", "POST", "/v1/responses"),
    ("anthropic", "DELETE", "/v1/messages"),
    ("anthropic", "GET", "/v1/messages"),
    ("anthropic", "PUT", "/v1/models/x"),
    ("anthropic", "POST", "/v1/messages/"),
    ("anthropic", "POST", "//v1/messages"),
    ("anthropic", "POST", "/v1//messages"),
    ("anthropic", "POST", "/v1/files/../messages"),
    ("anthropic", "POST", "/../v1/messages"),
    ("anthropic", "POST", "/v1/./messages"),
    ("anthropic", "POST", "/v1/messages/../files"),
    ("anthropic", "POST", "/v1/messages%2f..%2ffiles"),
    ("anthropic", "POST", "/v1/%6dessages"),
    ("anthropic", "POST", "/v1/messages%00"),
    ("anthropic", "POST", "/v1/messages;x"),
    ("anthropic", "POST", "/v1/messages#x"),
    ("anthropic", "POST", "/v1\\messages"),
    ("anthropic", "GET", "/v1/models/../files"),
    ("anthropic", "GET", "/v1/models/..%2ffiles"),
    ("anthropic", "GET", "/v1/models/%2e%2e/files"),
    ("anthropic", "GET", "/v1/models/x//y"),
    ("openai", "POST", "/v1/files"),
    ("openai", "POST", "/v1/uploads"),
    ("openai", "POST", "/v1/batches"),
    ("openai", "POST", "/v1/vector_stores"),
    ("openai", "POST", "/v1/images/generations"),
    ("openai", "GET", "/v1/responses/resp_1"),
    ("openai", "DELETE", "/v1/models/x"),
    ("openai", "POST", "/v1/deployments/../files/chat/completions"),
    ("openai", "POST", "/v1/messages"),
    ("gemini", "POST", "/upload/v1beta/files"),
    ("gemini", "POST", "/v1beta/models/x:predict"),
    ("gemini", "POST", "/v1beta/models/x:batchGenerateContent"),
    ("gemini", "POST", "/v1beta/models/x:generateContent:predict"),
    ("gemini", "POST", "/v1beta/cachedContents"),
    ("gemini", "POST", "/v1beta/models/x/../../files:generateContent"),
    ("gemini", "GET", "/v1beta/files/x"),
    ("gemini", "GET", "/v1beta/models/x:generateContent"),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One gateway to a model of each wire, all of one server, at bases of several depths."""
    with RawServer(json_reply({"ok": True})) as server:
        bases = sorted({(wire, base) for wire, base, *_ in QUESTIONS} | {("gemini", "")})
        routes = [
            model(f"http://127.0.0.1:{server.port}{base}", wire=wire, name=f"m{number}")
            for number, (wire, base) in enumerate(bases)
        ]
        prefixes = {place: route.prefix for place, route in zip(bases, routes, strict=True)}
        with GatewayProcess(tmp_path_factory.mktemp("models"), routes) as gateway:
            yield server, gateway, prefixes


@pytest.mark.parametrize(("wire", "base", "method", "target", "arrived"), QUESTIONS)
def test_what_agents_ask_reaches_the_model(
    models: Any, wire: str, base: str, method: str, target: str, arrived: str
) -> None:
    server, gateway, prefixes = models
    assert gateway.ask(prefixes[wire, base] + target, method=method).status == 200
    asked = server.requests[-1]
    assert (asked.method, asked.path) == (method, arrived)


@pytest.mark.parametrize(("wire", "method", "target"), NO_QUESTIONS)
def test_nothing_else_reaches_it(models: Any, wire: str, method: str, target: str) -> None:
    server, gateway, prefixes = models
    count = server.connections
    base = "/v1" if wire == "openai" else ""
    answer = gateway.ask(prefixes[wire, base] + target, method=method)
    assert answer.status == 403
    assert "no question to a model" in answer.message
    assert server.connections == count


@pytest.mark.parametrize(
    "query", ["alt=proto", "alt=media", "alt=", "alt=sse&alt=proto", "alt=proto&alt=sse"]
)
def test_an_answer_that_cannot_be_counted_is_not_asked_for(models: Any, query: str) -> None:
    server, gateway, prefixes = models
    count = server.connections
    target = f"{prefixes['gemini', '']}/v1beta/models/x:generateContent?{query}"
    answer = gateway.ask(target)
    assert answer.status == 403
    assert "JSON and event streams" in answer.message
    assert server.connections == count


def test_an_answer_is_asked_for_in_no_other_charset(models: Any) -> None:
    """Some servers take it from what they are told to accept."""
    server, gateway, prefixes = models
    given = [
        ("Accept", 'application/json;x=",;charset=utf-16";CharSet=utf-16, text/event-stream;q=0.5'),
        ("Accept-Charset", "utf-16"),
    ]
    assert gateway.ask(f"{prefixes['anthropic', '']}/v1/messages", headers=given).status == 200
    headers = server.requests[-1].headers
    assert "utf-16" not in str(headers).lower()
    assert headers["accept"].startswith("application/json")


@pytest.mark.parametrize(
    "kinds",
    [
        [],
        ["application/json; charset=utf-16"],
        ["application/x-www-form-urlencoded", "application/json"],
        ["multipart/form-data; boundary=x"],
    ],
)
def test_a_question_is_json_whatever_it_says_that_it_is(models: Any, kinds: list[str]) -> None:
    """As which it was read: a form could ask for a hundred answers, and so could UTF-16."""
    server, gateway, prefixes = models
    target = f"{prefixes['anthropic', '']}/v1/messages"
    given = [("Content-Type", kind) for kind in kinds]
    assert gateway.ask(target, b"n=128", headers=given).status == 200
    sent = [v for n, v in server.requests[-1].headers.items() if n.lower() == "content-type"]
    assert sent == ["application/json"]


@pytest.mark.parametrize("code", ["utf-16-le", "utf-16-be", "utf-32"])
def test_a_question_that_no_one_here_can_read_is_refused(models: Any, code: str) -> None:
    """Some servers tell the charset by the first bytes, and read one JSON value."""
    server, gateway, prefixes = models
    count = len(server.requests)
    target = f"{prefixes['anthropic', '']}/v1/messages"
    answer = gateway.ask(target, '{"messages": "\u4e22"}'.encode(code))
    assert (answer.status, len(server.requests)) == (400, count)
    assert "JSON in UTF-8" in answer.message
    packed = [("Content-Encoding", "zstd")]
    assert gateway.ask(target, b"a\0b", headers=packed).status == 200


@pytest.mark.parametrize(
    "target",
    [
        "/v1/messages",
        "/",
        "*",
        "/m",
        "/m99/v1/messages",
        "//m0/v1/messages",
        "/%6d0/v1/messages",
        "https://127.0.0.1/m0/v1/messages",
        "file:///etc/passwd",
        "http:///m0/v1/messages",
    ],
)
def test_a_request_for_no_model_is_refused(models: Any, target: str) -> None:
    server, gateway, _ = models
    count = server.connections
    assert gateway.ask(target).status in (400, 403)
    assert server.connections == count


def test_a_refused_head_request_has_no_body(models: Any) -> None:
    """With which Claude Code looks for its server."""
    _, gateway, _ = models
    answer = gateway.send(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (answer.status, answer.body) == (403, b"")


def test_the_real_key_takes_the_place_of_the_placeholder(tmp_path: Path) -> None:
    with (
        RawServer(json_reply({"ok": True})) as server,
        GatewayProcess(tmp_path, [model(f"http://127.0.0.1:{server.port}")]) as gateway,
    ):
        answer = gateway.ask("/anthropic/v1/messages?beta=true", b'{"model": "m"}')
        (entry,) = gateway.entries(1)
    assert (answer.status, answer.body) == (200, b'{"ok": true}')
    (asked,) = server.requests
    assert asked.body == b'{"model": "m"}'
    assert asked.headers["x-api-key"] == KEY
    assert asked.headers["host"] == f"127.0.0.1:{server.port}"
    assert entry.refused is None
    assert (entry.host, entry.port, entry.method) == ("127.0.0.1", server.port, "POST")
    assert (entry.path, entry.status, entry.sent, entry.received) == ("/v1/messages", 200, 14, 12)
    assert (tmp_path / "requests.jsonl").stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
@pytest.mark.parametrize("key", ["wrong", KEY, None, "", PLACEHOLDER + "x"])
def test_without_the_placeholder_nothing_reaches_the_model(tmp_path: Path, key: str | None) -> None:
    with (
        RawServer(json_reply({})) as server,
        GatewayProcess(tmp_path, [model(f"http://127.0.0.1:{server.port}")]) as gateway,
    ):
        answer = gateway.ask(key=key)
        (entry,) = gateway.entries(1)
    assert answer.status == 401
    assert server.connections == 0
    assert (entry.status, entry.refused) == (401, answer.message)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("credential", "sent"),
    [
        ("x-api-key", ("x-api-key", KEY)),
        ("x-goog-api-key", ("x-goog-api-key", KEY)),
        ("api-key", ("api-key", KEY)),
        ("bearer", ("authorization", f"Bearer {KEY}")),
    ],
)
@pytest.mark.parametrize(
    "given",
    [
        ("X-Api-Key", PLACEHOLDER),
        ("Authorization", f"bearer {PLACEHOLDER}"),
        ("x-goog-api-key", PLACEHOLDER),
        ("API-Key", PLACEHOLDER),
    ],
)
def test_each_credential(
    tmp_path: Path, credential: str, sent: tuple[str, str], given: tuple[str, str]
) -> None:
    """Whichever header the agent uses, the model gets the one that it wants, and no other."""
    with (
        RawServer(json_reply({})) as server,
        GatewayProcess(
            tmp_path, [model(f"http://127.0.0.1:{server.port}", credential=credential)]
        ) as gateway,
    ):
        more = [("Authorization", "Basic dTpw")] if given[0] != "Authorization" else []
        assert gateway.ask(key=None, headers=[given, *more]).status == 200
    headers = server.requests[0].headers
    names = {"x-api-key", "x-goog-api-key", "api-key", "authorization"}
    assert {name: headers[name] for name in names & headers.keys()} == dict([sent])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "user", "expected"),
    [
        ("", "", {}),
        ("", "me:p%40ss@", {"authorization": "Basic bWU6cEBzcw=="}),
    ],
)
def test_a_model_without_a_key(
    tmp_path: Path, key: str, user: str, expected: Mapping[str, str]
) -> None:
    """Such as one on this machine, or behind a proxy that asks for a password."""
    with RawServer(json_reply({})) as server:
        route = model(f"http://{user}127.0.0.1:{server.port}", key=key, placeholder="")
        with GatewayProcess(tmp_path, [route]) as gateway:
            assert gateway.ask(key="anything").status == 200
    headers = server.requests[0].headers
    names = {"x-api-key", "x-goog-api-key", "api-key", "authorization"}
    assert {name: headers[name] for name in names & headers.keys()} == expected


def test_the_path_of_a_base_url_is_not_recorded(tmp_path: Path) -> None:
    """It can have a secret in it."""
    secret = "hook-0123456789abcdef"
    with RawServer([json_reply({}), json_reply({}, 404)]) as server:
        route = model(f"http://127.0.0.1:{server.port}/{secret}/v1", wire="openai")
        with GatewayProcess(tmp_path, [route]) as gateway:
            for _ in range(2):
                gateway.ask("/anthropic/responses")
            entries = gateway.entries(2)
            assert secret.encode() not in gateway.record.read_bytes()
    assert [entry.path for entry in entries] == ["/responses"] * 2
    assert server.requests[0].path == f"/{secret}/v1/responses"


def test_only_known_headers_reach_the_model(tmp_path: Path) -> None:
    passed = {
        "accept": "text/event-stream",
        "anthropic-beta": "interleaved-thinking-2025-05-14",
        "anthropic-version": "2023-06-01",
        "content-type": "application/json",
        "openai-beta": "responses=v1",
        "user-agent": "claude-cli/2.1",
        "x-goog-api-client": "gl-node/22",
        "x-stainless-lang": "js",
    }
    dropped = {
        "Cookie": "a=b",
        "Forwarded": "for=1.2.3.4",
        "Host": "evil.example",
        "OpenAI-Organization": "org-evil",
        "Proxy-Authorization": "Basic dTpw",
        "Referer": "https://evil.example/",
        "Sec-WebSocket-Protocol": "openai-insecure-api-key.sk-evil",
        "TE": "trailers",
        "Via": "1.1 x",
        "X-Evil-Target-Url": "https://evil.example/",
        "X-Forwarded-Host": "evil.example",
        "X-Goog-User-Project": "evil",
        "X-HTTP-Method-Override": "DELETE",
        "X-Original-URL": "/v1/files",
        "X-Rewrite-Url": "/v1/files",
        "Accept-Encoding": "gzip, br",
        "Accept-Charset": "utf-16",
    }
    del dropped["Host"]  # h11 wants one only; test_framing sends another
    with (
        RawServer(json_reply({})) as server,
        GatewayProcess(tmp_path, [model(f"http://127.0.0.1:{server.port}")]) as gateway,
    ):
        assert gateway.ask(headers=[*passed.items(), *dropped.items()]).status == 200
    ours = {
        "accept-encoding": "identity",
        "connection": "close",
        "content-length": "2",
        "host": f"127.0.0.1:{server.port}",
        "x-api-key": KEY,
    }
    assert server.requests[0].headers == {**passed, **ours}


def test_headers_and_query_of_the_settings(tmp_path: Path) -> None:
    with RawServer(json_reply({})) as server:
        route = model(
            f"http://127.0.0.1:{server.port}/v1?from=base",
            wire="openai",
            headers={"X-Team": "blue", "User-Agent": "mine"},
            query={"api-version": "2026-01-01"},
        )
        with GatewayProcess(tmp_path, [route]) as gateway:
            target = "/anthropic/responses?api-version=evil&key=sk-evil&beta=true&x=%0d"
            assert gateway.ask(target, headers=[("user-agent", "theirs")]).status == 200
    (asked,) = server.requests
    assert asked.path == "/v1/responses?beta=true&from=base&api-version=2026-01-01"
    assert (asked.headers["x-team"], asked.headers["user-agent"]) == ("blue", "mine")


def test_a_websocket_is_refused_so_that_the_agent_falls_back(tmp_path: Path) -> None:
    with (
        RawServer(json_reply({})) as server,
        GatewayProcess(
            tmp_path, [model(f"http://127.0.0.1:{server.port}/v1", wire="openai")]
        ) as gateway,
    ):
        upgrade = [
            ("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ]  # fmt: skip
        answer = gateway.ask("/anthropic/responses", method="GET", headers=upgrade)
    assert answer.status == 426
    assert server.connections == 0


@pytest.mark.slow
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST"])
def test_an_agent_that_ignores_no_proxy_finds_its_model(tmp_path: Path, host: str) -> None:
    """By a request with the whole address, and by a tunnel to the gateway itself."""
    with (
        RawServer(json_reply({"ok": True})) as server,
        GatewayProcess(tmp_path, [model(f"http://127.0.0.1:{server.port}")]) as gateway,
    ):
        whole = f"http://{host}:{gateway.port}/anthropic/v1/messages"
        assert gateway.ask(whole).body == b'{"ok": true}'
        assert gateway.ask(whole, key="wrong").status == 401
        assert gateway.ask(f"http://{host}:{gateway.port}/anthropic/v1/files").status == 403
        place = f"{host}:{gateway.port}"
        connect = f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode()
        for half_close in (False, True):
            raw = gateway.send(
                connect + request("/anthropic/v1/messages"), half_close=half_close
            ).raw
            first, _, second = raw.partition(b"\r\n\r\n")
            assert first.startswith(b"HTTP/1.1 200 ")
            assert parse_answer(second).body == b'{"ok": true}'
        with gateway.connect() as sock:
            sock.sendall(connect)
            assert read_head(sock).startswith(b"HTTP/1.1 200 ")
            sock.sendall(request("/anthropic/v1/files"))
            assert parse_answer(read_all(sock)).status == 403
        gateway.entries(6)
    assert len(server.requests) == 3


@pytest.mark.slow
def test_what_the_model_answers_is_cleaned(tmp_path: Path) -> None:
    headers = {
        "Alt-Svc": 'h3="evil.example:443"',
        "Anthropic-Organization-Id": "org",
        "Connection": "keep-alive, X-Hop",
        "Keep-Alive": "timeout=5",
        "Refresh": "0; url=https://evil.example/",
        "Retry-After": "60",
        "Set-Cookie": "session=1",
        "X-Hop": "1",
    }
    with (
        RawServer(reply(429, b"{}", headers)) as server,
        GatewayProcess(tmp_path, [model(f"http://127.0.0.1:{server.port}")]) as gateway,
    ):
        answer = gateway.ask()
    assert answer.status == 429
    assert answer.headers == {
        "anthropic-organization-id": "org",
        "connection": "close",
        "content-length": "2",
        "retry-after": "60",
    }


@pytest.mark.slow
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 300])
def test_a_redirect_is_neither_followed_nor_handed_on(tmp_path: Path, status: int) -> None:
    location = f"https://evil.example/{KEY}?x"
    with (
        RawServer(reply(status, b"", {"Location": location})) as server,
        GatewayProcess(tmp_path, [model(f"http://127.0.0.1:{server.port}")]) as gateway,
    ):
        answer = gateway.ask()
        (entry,) = gateway.entries(1)
    assert answer.status == 502
    assert "redirects to https://evil.example, which" in answer.message
    assert "location" not in answer.headers
    assert len(server.requests) == 1
    assert (entry.fault, entry.refused) == (answer.message, None)


def test_a_key_in_the_host_of_a_redirect_is_masked(tmp_path: Path) -> None:
    with (
        RawServer(reply(302, b"", {"Location": f"https://{KEY}.example/"})) as server,
        GatewayProcess(tmp_path, [model(f"http://127.0.0.1:{server.port}")]) as gateway,
    ):
        answer = gateway.ask()
        (entry,) = gateway.entries(1)
    assert f"redirects to https://{'*' * len(KEY)}.example, which" in answer.message
    assert entry.fault == answer.message


def test_a_key_that_the_model_repeats_is_masked(tmp_path: Path) -> None:
    """In headers and the body, and wherever the body is cut."""
    text = f'{{"error": "bad key {KEY}, also {KEY[:5]} and {KEY}"}}'.encode()
    secret = "second-secret-0123456789"

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        head = f"HTTP/1.1 401 {KEY}\r\nX-Key: {KEY}\r\nX-Two: {secret}\r\n"
        sock.sendall(head.encode() + b"Content-Length: %d\r\n\r\n" % len(text))
        for at in range(len(text)):
            sock.sendall(text[at : at + 1])

    with ScriptedServer(serve) as server:
        route = model(server.url, headers={"x-two": secret})
        with GatewayProcess(tmp_path, [route]) as gateway:
            answer = gateway.send(request("/anthropic/v1/messages", b""))
    stars = "*" * len(KEY)
    assert answer.body.decode() == f'{{"error": "bad key {stars}, also {KEY[:5]} and {stars}"}}'
    assert answer.headers["x-key"] == stars
    assert answer.headers["x-two"] == "*" * len(secret)
    assert KEY.encode() not in answer.raw


@pytest.mark.slow
def test_tls_with_the_users_certificates(tmp_path: Path) -> None:
    made = certificate(tmp_path)
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"):
        with RawServer(json_reply({"ok": True}), tls=made.server) as server:
            route = model(f"https://localhost:{server.port}")
            with GatewayProcess(tmp_path, [route], certificates={name: made.ca_file}) as gateway:
                assert gateway.ask().body == b'{"ok": true}'
        assert server.requests[0].headers["x-api-key"] == KEY


def _faults(tmp_path: Path) -> list[tuple[str, int, str]]:
    """Base URLs that do not work: the status of the answer, and what it says."""
    return [
        (f"http://127.0.0.1:{closed_port()}", 502, "Connection refused"),
        ("http://no-such-host.invalid", 502, "cannot be resolved"),
    ]


@pytest.mark.parametrize("number", [0, 1])
def test_a_server_that_cannot_be_reached(tmp_path: Path, number: int) -> None:
    url, status, text = _faults(tmp_path)[number]
    with GatewayProcess(tmp_path, [model(url)]) as gateway:
        answer = gateway.ask()
        (entry,) = gateway.entries(1)
    assert answer.status == status
    assert text in answer.message
    assert entry.fault == answer.message
    assert KEY.encode() not in answer.raw + gateway.record.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:port", "http://", "ftp://model.example", "http://a b", "https://[x"]
)
def test_a_base_url_that_is_none(tmp_path: Path, url: str) -> None:
    with GatewayProcess(tmp_path, [model(url)]) as gateway:
        answer = gateway.ask()
        gateway.entries(1)
    assert (answer.status, answer.message) == (
        502,
        "the model's base URL in the settings cannot be used",
    )


@pytest.mark.parametrize("trusted", [True, False])
def test_no_key_without_a_valid_certificate(tmp_path: Path, trusted: bool) -> None:
    """Of an authority that is not trusted, or for another host."""
    made = certificate(tmp_path, "other.example")
    with RawServer(json_reply({}), tls=made.server) as server:
        route = model(f"https://localhost:{server.port}")
        certificates = {"SSL_CERT_FILE": made.ca_file} if trusted else {}
        with GatewayProcess(tmp_path, [route], certificates=certificates) as gateway:
            answer = gateway.ask()
    assert answer.status == 502
    assert "the certificate of localhost:" in answer.message
    assert server.requests == []


def test_plain_http_where_tls_was_expected(tmp_path: Path) -> None:
    with ScriptedServer(lambda sock: sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")) as server:
        route = model(f"https://localhost:{server.port}")
        with GatewayProcess(tmp_path, [route]) as gateway:
            answer = gateway.ask()
    assert answer.status == 502
    assert answer.message.startswith("no TLS with localhost:")


@pytest.mark.slow
@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"\x00" * 100_000,
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000,
    ],
    ids=range(7),
)
def test_an_answer_that_is_none(tmp_path: Path, said: bytes) -> None:
    def serve(sock: socket.socket) -> None:
        read_head(sock)
        sock.recv(2)
        with contextlib.suppress(OSError):  # when the gateway has read enough
            sock.sendall(said)

    with (
        ScriptedServer(serve) as server,
        GatewayProcess(tmp_path, [model(server.url)]) as gateway,
    ):
        answer = gateway.ask()
        (entry,) = gateway.entries(1)
    assert answer.status == 502
    assert (entry.status, entry.fault) == (502, answer.message)


@pytest.mark.parametrize(
    "key", ["sk-with\nnewline-0123456789", "sk-schlüssel-0123456789", "sk-€", " sk-x"]
)
def test_a_key_that_no_header_can_have_is_not_told(tmp_path: Path, key: str) -> None:
    with (
        RawServer(json_reply({})) as server,
        GatewayProcess(tmp_path, [model(f"http://127.0.0.1:{server.port}", key=key)]) as gateway,
    ):
        answer = gateway.ask()
    assert answer.status == 502
    assert "has characters that HTTP does not allow" in answer.message
    assert server.connections == 0
    assert b"sk-" not in answer.raw
