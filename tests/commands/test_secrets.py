"""What the service tells in confidence is printed in no format, and with --show-secrets in each."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Done
from tests.servers import Answer, RawServer, json_reply

Run = Callable[..., Done]
Aim = Callable[[Any], Any]
SECRET = "sbx_0123456789abcdef"
COMPUTER = {"id": "ws123456", "name": "shop", "status": "ready", "sandboxApiKey": SECRET}
HOOK = {"id": "h1234567", "url": "https://a.example/", "events": [], "secret": SECRET}
FORMATS = [
    *(["-o", form] for form in ("json", "jsonl", "csv", "tsv", "table", "id")),
    ["-o", "json", "--fields", "id"],
    ["-o", "csv", "--fields", "id"],
]
ASKED = [["-o", form, "--fields", "id,sandboxApiKey"] for form in ("json", "csv", "table")]
SHOW = ["workspace", "show", "ws123456"]
CREATE = ["webhook", "create", "https://a.example/", "--event", "task.failed"]


def service(request: Any) -> Answer:
    """Tells its secrets to everybody, in lists, too."""
    one, name = (HOOK, "webhooks") if "/webhooks" in request.path else (COMPUTER, "data")
    path = request.path.partition("?")[0]
    if request.method == "GET" and path.endswith(("/webhooks", "/agent-computers")):
        return json_reply({name: [one], "total": 1})
    return json_reply(one, 201 if request.method == "POST" else 200)


@pytest.mark.parametrize(
    "words",
    [SHOW, ["workspace", "list"], ["workspace", "create", "--wait"], ["webhook", "list"],
     ["webhook", "show", "h1234567"], CREATE],
    ids=" ".join,
)  # fmt: skip
def test_no_format_tells_a_secret(words: list[str], inside: Run, aim: Aim) -> None:
    with RawServer(service) as server:
        aim(server)
        for more in [*FORMATS, ["--debug"], *([] if words[0] == "webhook" else ASKED)]:
            done = inside(*words, *more)
            assert SECRET not in done.out + done.err, more


@pytest.mark.parametrize("more", [*FORMATS[:5], *ASKED], ids=" ".join)
def test_every_format_shows_a_secret_on_request(more: list[str], inside: Run, aim: Aim) -> None:
    with RawServer(service) as server:
        aim(server)
        done = inside(*SHOW, "--show-secrets", *more)
    assert done.status == 0, done.err
    assert done.out.count(SECRET) == 1


def test_a_column_for_it_is_there_only_when_asked(inside: Run, aim: Aim) -> None:
    with RawServer(service) as server:
        aim(server)
        assert "sandboxApiKey" not in inside(*SHOW, "-o", "csv").out
        fields = ["--fields", "id,sandboxApiKey"]
        assert json.loads(inside(*SHOW, *fields).out) == {"id": "ws123456", "sandboxApiKey": None}
