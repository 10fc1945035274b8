"""The client, call by call: what goes out, and what is made of what comes back."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from rebyte_cli import APIError, RebyteClient
from rebyte_cli.errors import (
    BadUsage,
    BrokenAnswer,
    KeyProblem,
    KeyRejected,
    MissingKey,
    NetworkError,
    OutcomeUnknown,
    ResourceNotFound,
    WaitTimeout,
)
from tests.servers import (
    Answer,
    RawServer,
    Request,
    error_reply,
    json_reply,
    reply,
    stall,
    transport_to,
)

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
def test_requests_as_sent_and_unknown_keys_kept(
    call: Callable[[RebyteClient], Any], method: str, path: str, body: Any
) -> None:
    document = {"id": "x", "promptId": "p9", "unheardOf": {"deep": [1, None]}}
    with RawServer(json_reply(document)) as server:
        assert call(RebyteClient(transport=transport_to(server))) == document
    (request,) = server.requests
    assert (request.method, request.path) == (method, f"/v1{path}")
    assert (request.json if request.body else None) == body
    if method == "POST" and body is None:
        assert request.headers["content-length"] == "0"


def test_every_field_of_a_create() -> None:
    with RawServer(json_reply({"id": "t"}, 201)) as server:
        RebyteClient(transport=transport_to(server)).create_task(
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
        assert call(RebyteClient(transport=transport_to(server))) is None
    assert server.requests[0].method == "DELETE"


class Waiting:
    """A client whose clock only moves when it sleeps."""

    def __init__(self, server: RawServer) -> None:
        self.now = 0.0
        self.slept: list[float] = []
        transport = transport_to(server, clock=lambda: self.now, sleep=self.sleep)
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
        lambda c: c.delete_task("a\x00b"),
        lambda c: c.follow_up("", "p"),
        lambda c: c.prompt_events("t", "p/q"),
        lambda c: next(c.stream_events("a/b")),
        lambda c: c.list_artifacts(".."),
        lambda c: c.get_webhook("a" * 513),
        lambda c: c.delete_computer("a\n"),
        lambda c: c.create_from({"prompt": float("nan")}),
        lambda c: c.create_from({"prompt": object()}),
        lambda c: c.create_file("x" * 256),
        lambda c: c.create_task("p", files=["a.txt"]),
        lambda c: c.create_task("p", skills="pdf"),
        lambda c: c.follow_up("t", "p", files="a.txt"),
    ],
)
def test_values_that_cannot_be_sent_are_refused_first(call: Callable[[RebyteClient], Any]) -> None:
    with RawServer(json_reply({})) as server, pytest.raises(BadUsage):
        call(RebyteClient(transport=transport_to(server)))
    assert server.connections == 0


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
            RebyteClient(transport=transport_to(server)).wait_for_task("t", timeout_seconds=0.3)
        assert time.monotonic() - begun < 20


def test_waiting_tells_a_call_that_took_its_usual_time_in_vain() -> None:
    with RawServer(stall) as server:
        client = RebyteClient(transport=transport_to(server, timeout=0.3))
        with pytest.raises(NetworkError, match="timed out"):
            client.wait_for_task("t", timeout_seconds=60)


# Refusals, and answers of an unexpected shape


@pytest.mark.parametrize("status", [404, 410])
def test_an_api_without_tasks_is_named(status: int) -> None:
    with RawServer(reply(status, "<html>")) as server, pytest.raises(ResourceNotFound) as caught:
        RebyteClient(transport=transport_to(server)).list_tasks()
    assert "base URL is wrong or the API was retired" in caught.value.message


def test_a_task_that_is_not_there_is_told_in_the_servers_words() -> None:
    missing = error_reply(404, "not_found", "Task not found")
    with RawServer(missing) as server, pytest.raises(APIError) as caught:
        RebyteClient(transport=transport_to(server)).get_task("t")
    assert (caught.value.message, caught.value.status_code) == ("Task not found", 404)
    assert caught.value.response == {"error": {"code": "not_found", "message": "Task not found"}}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"message": "top"}, "top"),
        ({"realMessage": "real"}, "real"),
        ({"error": "text"}, "text"),
        ({"error": {"code": "only_code"}}, "only_code"),
        ({"error": {"message": 7}}, "GET /tasks/t was answered 400"),
        ([1], "GET /tasks/t was answered 400"),
        ({"error": {"message": "x" * 1000}}, "x" * 299 + "…"),
    ],
)
def test_errors_in_other_shapes(body: Any, message: str) -> None:
    with RawServer(json_reply(body, 400)) as server, pytest.raises(APIError) as caught:
        RebyteClient(transport=transport_to(server)).get_task("t")
    assert caught.value.message == message


@pytest.mark.parametrize(("status", "hint"), [(401, "rebyte auth login"), (403, "`tasks:read`")])
def test_a_rejected_key_says_what_to_do(status: int, hint: str) -> None:
    refusal = error_reply(status, "word", "No")
    with RawServer(refusal) as server, pytest.raises(KeyRejected) as caught:
        RebyteClient(transport=transport_to(server)).get_task("t")
    assert hint in str(caught.value.hint)
    assert len(server.requests) == 1


@pytest.mark.parametrize("answer", [reply(200), b"HTTP/1.1 204 X\r\n\r\n"])
def test_a_cancel_may_answer_nothing(answer: bytes) -> None:
    with RawServer(answer) as server:
        assert RebyteClient(transport=transport_to(server)).cancel_task("t") == {}


PEM = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"


@pytest.mark.parametrize(
    "answer",
    [
        reply(200, PEM),
        json_reply(PEM),
        json_reply({"kid": "1", "key": PEM}),
        json_reply({"a": {"b": PEM}}),
    ],
)
def test_the_public_key_is_found(answer: bytes) -> None:
    with RawServer(answer) as server:
        assert RebyteClient(transport=transport_to(server)).webhook_public_key() == PEM


def test_a_public_key_that_is_none() -> None:
    with RawServer(json_reply({"key": "no"})) as server, pytest.raises(BrokenAnswer):
        RebyteClient(transport=transport_to(server)).webhook_public_key()


def test_health_is_asked_at_the_root_without_the_key() -> None:
    with RawServer(json_reply({"status": "ok"})) as server:
        assert RebyteClient(transport=transport_to(server)).health() == {"status": "ok"}
    assert server.requests[0].path == "/health"
    assert "api_key" not in server.requests[0].headers


def test_raw_gives_the_answer_as_it_came() -> None:
    from rebyte_cli.api.retry import RetryPolicy

    with RawServer(reply(404, b"\xff\x00<html>", {"X-A": "b"})) as server:
        wire = transport_to(server)
        answer, problem = wire.raw("POST", "/v1/x?a=b", data=b"\x00{", repeat=RetryPolicy.SAFE)
    assert (answer.status, answer.raw, answer.headers["x-a"]) == (404, b"\xff\x00<html>", "b")
    assert isinstance(problem, ResourceNotFound)
    (request,) = server.requests
    assert (request.path, request.body) == ("/v1/x?a=b", b"\x00{")


@pytest.mark.parametrize("header", ["a\nB: c", "ä\u2028", "x\r"])
def test_a_header_that_would_break_the_request_is_refused(header: str) -> None:
    from rebyte_cli.api.retry import RetryPolicy

    with RawServer(json_reply({})) as server, pytest.raises(BadUsage):
        transport_to(server).raw("GET", "/x", headers={"X-A": header}, repeat=RetryPolicy.SAFE)
    assert server.requests == []


# Lists: pages, each row once, any envelope


def test_a_list_takes_its_window_by_place_or_by_name() -> None:
    page = {"data": [{"id": "a"}], "total": 1, "limit": 3, "offset": 6, "more": True}
    with RawServer(json_reply(page)) as server:
        client = RebyteClient(transport=transport_to(server))
        assert client.list_tasks(3, 6) == client.list_tasks(limit=3, offset=6) == page
        client.list_tasks()
    paths = [request.path for request in server.requests]
    assert paths == ["/v1/tasks?limit=3&offset=6"] * 2 + ["/v1/tasks?limit=50&offset=0"]


def pages(rows: list[str], size: int) -> Callable[[Request], Answer]:
    def page(request: Request) -> Answer:
        offset = int(request.path.rpartition("=")[2])
        data = [{"id": identity} for identity in rows[offset : offset + size]]
        return json_reply({"data": data, "total": len(rows), "limit": size, "offset": offset})

    return page


def test_pages_are_asked_for_when_they_are_wanted() -> None:
    names = [f"t{n}" for n in range(250)]
    total: list[int] = []
    with RawServer(pages(names, 100)) as server:
        rows = RebyteClient(transport=transport_to(server)).iter_tasks(total=total)
        assert [next(rows)["id"] for _ in range(100)] == names[:100]
        assert len(server.requests) == 1
        assert total == [250]
        assert [row["id"] for row in rows] == names[100:]
    assert len(server.requests) == 3


@pytest.mark.slow
def test_the_memory_of_a_long_list_is_flat() -> None:
    """Each row once, although a task is made between any two pages; old ids are forgotten."""
    names = [f"00000000-0000-4000-8000-{n:012d}" for n in range(36_000)]

    def script(request: Request) -> Answer:
        answer = pages(names, 1000)(request)
        names.insert(0, f"new-{len(names)}")
        return answer

    expected, held = list(names), []
    tracemalloc.start()
    with RawServer(script) as server:
        rows = RebyteClient(transport=transport_to(server)).iter_tasks(1000)
        for number, (row, name) in enumerate(zip(rows, expected, strict=True), 1):
            assert row["id"] == name
            if number % 10_000 == 5_000:
                held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert held[-1] - held[1] < 500_000  # 20,000 ids take six times as much


def test_tasks_made_between_two_pages_do_not_come_twice() -> None:
    names = [f"t{n}" for n in range(6)]

    def script(request: Request) -> Answer:
        answer = pages(names, 3)(request)
        names.insert(0, f"new{len(names)}")
        return answer

    with RawServer(script) as server:
        rows = [row["id"] for row in RebyteClient(transport=transport_to(server)).iter_tasks(3)]
    assert rows == [f"t{n}" for n in range(6)]


def test_a_server_that_gives_smaller_pages_is_read_to_its_end() -> None:
    with RawServer(pages([f"t{n}" for n in range(7)], 2)) as server:
        assert len(list(RebyteClient(transport=transport_to(server)).iter_tasks())) == 7
    assert len(server.requests) == 4


def test_a_server_that_ignores_the_offset_does_not_go_on_for_ever() -> None:
    page = json_reply({"data": [{"id": "a"}, {"id": "b"}]})
    with RawServer(page) as server:
        rows = list(RebyteClient(transport=transport_to(server)).iter_tasks(2))
    assert [row["id"] for row in rows] == ["a", "b"]
    assert len(server.requests) == 3


@pytest.mark.parametrize("page", [{}, {"data": None}, {"data": [1]}, {"data": {"id": 1}}])
def test_a_list_that_is_none(page: Any) -> None:
    with RawServer(json_reply(page)) as server:
        client = RebyteClient(transport=transport_to(server))
        with pytest.raises(BrokenAnswer):
            client.list_tasks()
        with pytest.raises(BrokenAnswer):
            list(client.iter_tasks())


@pytest.mark.parametrize("answer", [[{"name": "a"}], {"data": [{"name": "a"}]}])
def test_artifacts_are_listed_in_any_wrapping(answer: Any) -> None:
    with RawServer(json_reply(answer)) as server:
        assert RebyteClient(transport=transport_to(server)).list_artifacts("w") == [{"name": "a"}]


@pytest.mark.parametrize("answer", [{"webhooks": [{"id": "w"}]}, {"data": [{"id": "w"}]}])
def test_webhooks_are_listed_in_any_wrapping(answer: Any) -> None:
    with RawServer(json_reply(answer)) as server:
        assert RebyteClient(transport=transport_to(server)).list_webhooks() == [{"id": "w"}]


def test_a_list_in_no_known_wrapping_is_broken() -> None:
    with RawServer(json_reply({"items": []})) as server, pytest.raises(BrokenAnswer):
        RebyteClient(transport=transport_to(server)).list_webhooks()


def test_signed_urls_for_artifacts_are_one_per_file() -> None:
    urls = {"urls": [{"uploadUrl": "https://s/x", "publicUrl": "https://p/x"}]}
    with RawServer(json_reply(urls)) as server:
        client = RebyteClient(transport=transport_to(server))
        assert client.artifact_upload_urls("w", [{"name": "x"}]) == urls["urls"]
        with pytest.raises(BrokenAnswer):
            client.artifact_upload_urls("w", [{"name": "x"}, {"name": "y"}])


@pytest.mark.parametrize("task_id", ["\x1b]0;x\x07", "a/b", ".."])
def test_a_create_whose_answer_names_no_usable_id_has_an_unknown_outcome(task_id: str) -> None:
    """As a mistake of the user's (status 2), it would say that nothing was sent."""
    with RawServer(json_reply({"id": task_id}, 201)) as server:
        client = RebyteClient(api_key="rbk_x", base_url=server.base_url)
        with pytest.raises(OutcomeUnknown, match="is not a usable id"):
            client.create_task("Fix")
