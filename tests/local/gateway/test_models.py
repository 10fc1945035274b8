"""Requests to models: which pass, and what the model and the agent get of each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.local.gateway.harness import KEY, GatewayProcess, model
from tests.servers import RawServer, json_reply


def test_the_real_key_takes_the_place_of_the_placeholder(tmp_path: Path) -> None:
    with (
        RawServer(json_reply({"ok": True})) as server,
        GatewayProcess(tmp_path, [model(f"http://127.0.0.1:{server.port}")]) as gateway,
    ):
        answer = gateway.ask("/anthropic/v1/messages?beta=true", b'{"model": "m"}')
        (entry,) = gateway.entries(1)
    assert (answer.status, answer.body) == (200, b'{"ok": true}')
    (asked,) = server.requests
    assert (asked.method, asked.path) == ("POST", "/v1/messages?beta=true")
    assert asked.body == b'{"model": "m"}'
    assert asked.headers["x-api-key"] == KEY
    assert entry.refused is None
    assert (entry.host, entry.port, entry.method) == ("127.0.0.1", server.port, "POST")
    assert (entry.path, entry.status, entry.sent, entry.received) == ("/v1/messages", 200, 14, 12)
    assert (tmp_path / "requests.jsonl").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("key", ["wrong", KEY, None, ""])
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
