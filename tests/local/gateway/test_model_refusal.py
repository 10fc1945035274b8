"""For how long a model refuses requests: each vendor's answers, through a real gateway."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.local.agents.limits import usage_limit
from rebyte_cli.local.gateway.model_refusal import ModelRefusal
from tests.local.gateway.harness import GatewayProcess, model
from tests.servers import RawServer, reply

HOUR = 3600
RETRY_INFO = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "3600.5s"}
NOW = 1_764_345_600.0  # 2025-11-28 16:00:00 UTC


def quota(name: str) -> dict[str, Any]:
    failure = "type.googleapis.com/google.rpc.QuotaFailure"
    return {"@type": failure, "violations": [{"quotaId": name}]}


def google(*details: Any) -> Any:
    return {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": list(details)}}


def chatgpt(**fields: Any) -> Any:
    return {"error": {"type": "usage_limit_reached", "plan_type": "plus", **fields}}


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


UNIFIED = "anthropic-ratelimit-unified"
# Status, headers, document, seconds; None for what is no reason to stop.
ANSWERS: dict[str, tuple[int, dict[str, str], Any, float | None]] = {
    "seconds": (429, {"Retry-After": "3600"}, {}, HOUR),
    "date": (429, {"Retry-After": formatdate(NOW + HOUR, usegmt=True)}, {}, HOUR),
    "overloaded": (529, {"Retry-After": "3600"}, {}, HOUR),
    "subscription": (
        429,
        {f"{UNIFIED}-status": "rejected", f"{UNIFIED}-reset": str(int(NOW) + HOUR),
         "Retry-After": "300"},
        {"type": "error", "error": {"type": "rate_limit_error"}},
        HOUR,
    ),
    "not the subscription": (
        429,
        {f"{UNIFIED}-status": "allowed", f"{UNIFIED}-reset": str(int(NOW) + HOUR),
         "Retry-After": "5"},
        {},
        None,
    ),
    "tokens of anthropic": (
        429,
        {"anthropic-ratelimit-requests-remaining": "7",
         "anthropic-ratelimit-requests-reset": iso(NOW + 9 * HOUR),
         "anthropic-ratelimit-tokens-remaining": "0",
         "anthropic-ratelimit-tokens-reset": iso(NOW + HOUR)},
        {},
        HOUR,
    ),
    "tokens of openai": (
        429,
        {"x-ratelimit-remaining-requests": "7", "x-ratelimit-reset-requests": "9h0m0s",
         "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1h0m0s"},
        {},
        HOUR,
    ),
    "milliseconds": (429, {"retry-after-ms": "3600000"}, {}, HOUR),
    "a bill": (429, {"Retry-After": "3600"}, {"error": {"code": "insufficient_quota"}}, None),
    "chatgpt until": (429, {}, chatgpt(resets_at=int(NOW) + HOUR), HOUR),
    "chatgpt for": (429, {}, chatgpt(resets_at=1, resets_in_seconds=HOUR), HOUR),
    "gemini": (429, {}, google(quota("PerMinute"), RETRY_INFO), HOUR + 0.5),
    "gemini's stream": (429, {}, [google(RETRY_INFO)], HOUR + 0.5),
    "gemini's day": (429, {}, google(RETRY_INFO, quota("RequestsPerDay-Free")), 16 * HOUR),
    "short": (429, {"Retry-After": "10"}, {}, None),
    "no time": (429, {}, {"error": {"type": "rate_limit_error"}}, None),
    "too long": (429, {"Retry-After": "99999999"}, {}, None),
    "negative": (429, {"Retry-After": "-5"}, {}, None),
    "nonsense": (429, {"Retry-After": "soon", f"{UNIFIED}-reset": "later"}, ["x", 1], None),
    "other lists": (429, {}, google("x", {"violations": "y"}, {"violations": [1]}), None),
    "busy": (503, {"Retry-After": "3600"}, {}, None),
    "answered": (200, {"Retry-After": "3600"}, {}, None),
}  # fmt: skip


class _Answers(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        name = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        status, headers, document, _ = ANSWERS.get(name, ANSWERS["seconds"])
        body = json.dumps(document).encode()
        self.send_response_only(status)
        self.send_header("Date", formatdate(NOW, usegmt=True))
        for name, value in {**headers, "Content-Type": "application/json"}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        for piece in (body[:3], body[3:]):
            self.wfile.write(piece)
            self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_gateway_records_for_how_long_a_model_refuses(upstream: str, tmp_path: Path) -> None:
    """By the clock of the model, since that of this machine may be wrong."""
    with GatewayProcess(tmp_path, [model(upstream)]) as gateway:
        for name, (status, *_) in ANSWERS.items():
            answer = gateway.ask(body=name.encode())
            assert answer.status == status
        found = [entry.refused_for for entry in gateway.entries(len(ANSWERS))]
    expected = [seconds for *_, seconds in ANSWERS.values()]
    assert dict(zip(ANSWERS, found, strict=True)) == dict(zip(ANSWERS, expected, strict=True))


MESSAGES, AZURE = "/any/v1/messages", "/any/openai/deployments/x-1/chat/completions"
GEMINI = "/any/v1beta/models/gemini-3:generateContent"


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        (MESSAGES, '{"messages": [{"model": "no"}], "model": "opus"}', "opus"),
        (MESSAGES, '{"model": "opus", "mod\\u0065l": "other"}', None),
        (MESSAGES, '{"model": "opus", "model": "other"}', None),
        (MESSAGES, '{"model": "opus", "model": {"a": 1}}', None),
        (MESSAGES, '{"model": "opus", "Model": "other"}', None),  # Go reads the last one
        (MESSAGES, '{"mod\\u0045l": "other", "model": "opus"}', None),
        (MESSAGES, '{"MODEL": "opus"}', None),
        (MESSAGES, '{"models": ["other"], "model": "opus"}', "opus"),
        (MESSAGES, "{}", None),
        (AZURE, "{}", "x-1"),
        (AZURE, '{"model": "opus"}', None),
        (GEMINI, '{"model": "opus"}', "gemini-3"),
    ],
)
def test_the_model_that_refused_is_in_the_record(
    upstream: str, tmp_path: Path, path: str, body: str, named: str | None
) -> None:
    """Servers differ in what counts of two names: it is none of both then."""
    with GatewayProcess(tmp_path, [model(upstream, name="any", wire="any")]) as gateway:
        assert gateway.ask(path, body.encode()).status == 429
        (entry,) = gateway.entries(1)
    assert (entry.refused_for, entry.route, entry.asked) == (HOUR, "any", named)


@pytest.mark.parametrize(
    "path",
    ["/any/v1/messages/count_tokens", "/any/v1beta/models/gemini-3:countTokens", "/any/v1/models"],
)
def test_what_generates_nothing_asks_no_model(upstream: str, tmp_path: Path, path: str) -> None:
    """It has a limit that is none of the model's."""
    method = "GET" if path.endswith("models") else "POST"
    with GatewayProcess(tmp_path, [model(upstream, name="any", wire="any")]) as gateway:
        body = b'{"model": "opus"}' if method == "POST" else b""
        gateway.ask(path, body, method=method)
        (entry,) = gateway.entries(1)
    assert (entry.route, entry.asked) == (None, None)


@pytest.mark.parametrize("zone", ["GMT", "-1200"])
def test_a_date_without_a_next_day(tmp_path: Path, zone: str) -> None:
    headers = {"Date": f"Fri, 31 Dec 9999 23:59:59 {zone}", "Content-Type": "application/json"}
    body = json.dumps(google(quota("RequestsPerDay-Free"))).encode()
    with (
        RawServer(reply(429, body, headers)) as server,
        GatewayProcess(tmp_path, [model(f"http://127.0.0.1:{server.port}")]) as gateway,
    ):
        assert gateway.ask().body == body


def test_without_a_date_the_clock_here_counts() -> None:
    refusal = ModelRefusal({f"{UNIFIED}-reset": str(int(NOW) + HOUR)}, NOW)
    assert refusal.seconds() == HOUR


def test_a_body_of_any_size_and_kind_does_no_harm() -> None:
    for body in (b"[" * 10**6, b"{" * 10**6, b'{"error": {"details": ' + b"[" * 10**5, b"\xff"):
        refusal = ModelRefusal({"retry-after": "60"}, NOW)
        began = time.monotonic()
        assert not refusal.feed(body)
        assert refusal.seconds() == 60
        assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("claude failed: Claude AI usage limit reached|1764349200", HOUR),
        ("claude failed: You've hit your session limit · resets 6pm (Europe/Berlin)", HOUR),
        ("You've hit your weekly limit · resets Dec 1, 5pm (UTC)", 73 * HOUR),
        ("You've hit your usage limit. Upgrade to Pro, or try again at Nov 30th, 2025 5:00 PM.",
         49 * HOUR),
        ("You've hit your usage limit. Try again at 5:00 PM.", HOUR),
        ("You've hit your usage limit. Try again in 1 day 2 hours 5 minutes.", 26 * HOUR + 300),
        ("Quota exceeded for metric: x, limit: 5\nPlease retry in 58.2s.", 58.2),
        ("You have exhausted your daily quota on this model.", 16 * HOUR),
        ("Rate limit reached. Please try again in 1.5s.", None),
        ("You've hit your usage limit.", None),
        ("The tests fail: retry in 3 hours", None),
        ("the limit resets Foo 99, 5pm (Nowhere/City)", None),
    ],
)  # fmt: skip
def test_what_agents_say_of_a_limit(
    text: str, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    assert usage_limit.seconds_left(text, NOW) == seconds
