"""The client, call by call: what goes out, and what is made of what comes back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from rebyte_cli import RebyteClient
from rebyte_cli.api.models import is_terminal, prompt_outcome, task_status
from rebyte_cli.errors import BadUsage, KeyProblem, MissingKey, NetworkError, WaitTimeout

from .servers import RawServer, json_reply, reply, stall, wire_to

pytestmark = pytest.mark.usefixtures("home")


def test_no_key_says_where_to_get_one() -> None:
    with pytest.raises(ValueError, match=r"https://app\.rebyte\.ai/settings/api-keys") as caught:
        RebyteClient()
    assert isinstance(caught.value, MissingKey)
    with pytest.raises(MissingKey):
        RebyteClient("")
    with pytest.raises(KeyProblem):
        RebyteClient("two words")


def test_the_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with RawServer(json_reply({"id": "a"})) as server:
        monkeypatch.setenv("REBYTE_API_KEY", "rbk_env\n")
        monkeypatch.setenv("REBYTE_API_URL", server.base_url)
        with RebyteClient() as client:
            assert client.get_task("a") == {"id": "a"}
    assert server.requests[0].headers["api_key"] == "rbk_env"
    monkeypatch.delenv("REBYTE_API_URL")
    assert RebyteClient().transport.base_url == RebyteClient.BASE_URL == "https://api.rebyte.ai/v1"


def test_arguments_beat_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REBYTE_API_URL", "https://elsewhere.example/v1")
    client = RebyteClient("rbk_a", base_url="https://here.example/v1/", timeout=7)
    assert client.transport.base_url == "https://here.example/v1"
    assert client.transport.limit(600) == 7


ROUTES: list[tuple[Callable[[RebyteClient], Any], str, str, Any]] = [
    (lambda c: c.get_task("t-1_A"), "GET", "/tasks/t-1_A", None),
    (lambda c: c.follow_up("t", "p"), "POST", "/tasks/t/prompts", {"prompt": "p"}),
    (
        lambda c: c.follow_up("t", "p", skills=("pdf",), executor="claude", model="lite"),
        "POST",
        "/tasks/t/prompts",
        {"prompt": "p", "skills": ["pdf"], "executor": "claude", "model": "lite"},
    ),
    (lambda c: c.cancel_task("t"), "POST", "/tasks/t/cancel", None),
    (
        lambda c: c.set_visibility("t", "public"),
        "PATCH",
        "/tasks/t/visibility",
        {"visibility": "public"},
    ),
    (lambda c: c.task_content("t"), "GET", "/tasks/t/content", None),
    (lambda c: c.task_content("t", events=True), "GET", "/tasks/t/content?include=events", None),
    (lambda c: c.prompt_events("t", "p"), "GET", "/tasks/t/prompts/p/events", None),
    (lambda c: c.answer("t", {"messageId": "m"}), "POST", "/tasks/t/answer", {"messageId": "m"}),
    (lambda c: c.create_computer(), "POST", "/agent-computers", {}),
    (lambda c: c.create_computer("n", "i"), "POST", "/agent-computers", {"name": "n", "icon": "i"}),
    (lambda c: c.list_computers(5, 10), "GET", "/agent-computers?limit=5&offset=10", None),
    (lambda c: c.get_computer("c"), "GET", "/agent-computers/c", None),
    (
        lambda c: c.update_computer("c", agent_instructions="x", views={"v": False}),
        "PATCH",
        "/agent-computers/c",
        {"agent_instructions": "x", "views": {"v": False}},
    ),
    (
        lambda c: c.create_webhook("https://h", ["task.failed"], description="d", secret="s"),
        "POST",
        "/webhooks",
        {"url": "https://h", "events": ["task.failed"], "description": "d", "secret": "s"},
    ),
    (lambda c: c.get_webhook("w"), "GET", "/webhooks/w", None),
    (lambda c: c.credits(), "GET", "/billing/credits", None),
    (lambda c: c.sandbox_api_key(), "GET", "/sandbox/api-key", None),
    (
        lambda c: c.create_account("n", bill_to_parent=True),
        "POST",
        "/accounts",
        {"name": "n", "billToParent": True},
    ),
    (
        lambda c: c.set_account_billing("a", bill_to_parent=False),
        "PATCH",
        "/accounts/a/billing",
        {"billToParent": False},
    ),
    (
        lambda c: c.top_up("a", 5, "x", description="d", metadata={"k": 1}),
        "POST",
        "/billing/topups",
        {
            "accountId": "a",
            "amount": 5,
            "externalPaymentId": "x",
            "description": "d",
            "metadata": {"k": 1},
        },
    ),
    (
        lambda c: c.register_mcp_server(
            "https://m", shared_secret="s", custom_headers=[{"k": "v"}]
        ),
        "POST",
        "/mcp/servers",
        {"url": "https://m", "sharedSecret": "s", "customHeaders": [{"k": "v"}]},
    ),
]


@pytest.mark.parametrize(
    ("call", "method", "path", "body"), ROUTES, ids=[f"{m} {p}" for _, m, p, _ in ROUTES]
)
def test_what_goes_out_and_that_unknown_keys_stay(
    call: Callable[[RebyteClient], Any], method: str, path: str, body: Any
) -> None:
    document = {"id": "x", "promptId": "p9", "unheardOf": {"deep": [1, None]}}
    with RawServer(json_reply(document)) as server:
        assert call(RebyteClient(transport=wire_to(server))) == document
    (request,) = server.requests
    assert (request.method, request.path) == (method, f"/v1{path}")
    assert (request.json if request.body else None) == body
    if method == "POST" and body is None:
        assert request.headers["content-length"] == "0"


def test_every_field_of_a_create() -> None:
    with RawServer(json_reply({"id": "t"}, 201)) as server:
        RebyteClient(transport=wire_to(server)).create_task(
            "p",
            executor="codex",
            model="gpt-5.4",
            skills=["a", "b"],
            files=[{"id": "f", "filename": "x"}],
            github_url="acme/shop",
            branch_name="dev",
            workspace_id="w",
        )
    assert server.requests[0].json == {
        "prompt": "p",
        "executor": "codex",
        "model": "gpt-5.4",
        "skills": ["a", "b"],
        "files": [{"id": "f", "filename": "x"}],
        "githubUrl": "acme/shop",
        "branchName": "dev",
        "workspaceId": "w",
    }


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.delete_task("t"),
        lambda c: c.delete_computer("c"),
        lambda c: c.delete_webhook("w"),
        lambda c: c.delete_artifact("w", "a b.txt"),
        lambda c: c.delete_artifacts("w"),
    ],
    ids=["task", "computer", "webhook", "artifact", "artifacts"],
)
@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 204 X\r\n\r\n", reply(200), json_reply([])],
    ids=["204", "empty", "list"],
)
def test_a_delete_gives_nothing_whatever_is_answered(
    call: Callable[[RebyteClient], Any], answer: bytes
) -> None:
    with RawServer(answer) as server:
        assert call(RebyteClient(transport=wire_to(server))) is None
    assert server.requests[0].method == "DELETE"


class Waiting:
    """A client whose clock only moves when it sleeps."""

    def __init__(self, server: RawServer) -> None:
        self.now = 0.0
        self.slept: list[float] = []
        transport = wire_to(server, clock=lambda: self.now, sleep=self.sleep)
        self.client = RebyteClient(transport=transport)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.mark.parametrize("end", ["completed", "failed", "canceled", "succeeded", "cancelled"])
def test_waiting_reads_until_the_end_whatever_it_is(end: str) -> None:
    statuses = ["running", "queued", end]
    with RawServer([json_reply({"id": "t", "status": status}) for status in statuses]) as server:
        waiting = Waiting(server)
        assert waiting.client.wait_for_task("t")["status"] == end
    assert waiting.slept == [5.0, 5.0]


def test_waiting_ends_in_a_timeout_error() -> None:
    with RawServer(json_reply({"id": "t", "status": "running"})) as server:
        waiting = Waiting(server)
        with pytest.raises(TimeoutError) as caught:
            waiting.client.wait_for_task("t", poll_interval=4, timeout_seconds=10)
    assert isinstance(caught.value, WaitTimeout)
    assert caught.value.pending == ["t"]
    assert waiting.slept == [4, 4, 2]


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.get_task("../webhooks"),
        lambda c: c.delete_task("a?b"),
        lambda c: c.follow_up("", "p"),
        lambda c: c.prompt_events("t", "p/q"),
        lambda c: next(c.stream_events("a b")),
        lambda c: c.list_artifacts(".."),
        lambda c: c.get_webhook("a#b"),
        lambda c: c.delete_computer("a\n"),
        lambda c: c.create_from({"prompt": float("nan")}),
        lambda c: c.create_from({"prompt": object()}),
        lambda c: c.create_file("x" * 256),
        lambda c: c.create_task("p", files=["a.txt"]),
        lambda c: c.create_task("p", skills="pdf"),
        lambda c: c.follow_up("t", "p", files="a.txt"),
    ],
)
def test_what_cannot_be_sent_is_refused_before_it_is(call: Callable[[RebyteClient], Any]) -> None:
    with RawServer(json_reply({})) as server, pytest.raises(BadUsage):
        call(RebyteClient(transport=wire_to(server)))
    assert server.connections == 0


def test_words_for_a_status() -> None:
    assert task_status({"status": "succeeded"}) == "completed"
    assert task_status({"status": "cancelled"}) == "canceled"
    assert task_status({"status": "parked"}) == "parked"
    assert task_status({"status": None}) == task_status({}) == ""
    assert [is_terminal(word) for word in ("completed", "failed", "running", "parked", None)] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert prompt_outcome("succeeded") == "completed"
    assert prompt_outcome("pending") is None


def test_nothing_of_http_is_imported_before_the_first_call() -> None:
    import subprocess
    import sys

    script = """
import sys
from rebyte_cli import RebyteClient
RebyteClient("rbk_x")
heavy = {"requests", "urllib3", "ssl", "http.client", "certifi", "dataclasses", "logging", "email"}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_waiting_ends_at_its_limit_where_reading_hangs() -> None:
    with RawServer(stall) as server:
        begun = time.monotonic()
        with pytest.raises(WaitTimeout, match=r"t could not be read in 0\.3 s"):
            RebyteClient(transport=wire_to(server)).wait_for_task("t", timeout_seconds=0.3)
        assert time.monotonic() - begun < 5


def test_waiting_tells_a_call_that_took_its_usual_time_in_vain() -> None:
    with RawServer(stall) as server:
        client = RebyteClient(transport=wire_to(server, timeout=0.3))
        with pytest.raises(NetworkError, match="timed out"):
            client.wait_for_task("t", timeout_seconds=60)
