"""The library as a script uses it, and any honest HTTP client, against `rebyte local serve`."""

from __future__ import annotations

import builtins
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rebyte_cli
from rebyte_cli import (
    APIError,
    BadUsage,
    QuestionAsked,
    RebyteClient,
    ResourceNotFound,
    WaitTimeout,
)
from tests.conftest import COMMAND
from tests.servers import RawServer, json_reply
from tests.waiting import eventually


@pytest.fixture
def served(home: Path) -> Iterator[str]:
    """The base URL of a `rebyte local serve` in a separate process."""
    process = subprocess.Popen(
        [*COMMAND, "local", "serve", "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.send_signal(signal.SIGINT)
    assert process.wait(60) in (0, 130)


def script(base_url: str, text: str) -> str:
    """Run a script with the key and the address in its environment; returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text)],
        env={**os.environ, "REBYTE_API_KEY": "rbk_test", "REBYTE_API_URL": base_url},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_script_written_for_the_vendors_client(served: str) -> None:
    printed = script(
        served,
        """
        from rebyte_cli import RebyteClient, APIError

        client = RebyteClient()
        task = client.create_task(prompt="Read every PDF", skills=["pdf"])
        first = client.wait_for_task(task["id"], poll_interval=0.1)
        client.follow_up(task["id"], prompt="Now sum them up")
        second = client.wait_for_task(task["id"], poll_interval=0.1, timeout_seconds=60)
        other = client.create_task(prompt="As markdown", workspace_id=task["workspaceId"])
        assert other["workspaceId"] == task["workspaceId"]
        assert client.set_visibility(task["id"], "public")["shareUrl"]
        listed = [row["id"] for row in client.list_tasks(limit=10)["data"]]
        assert listed == [other["id"], task["id"]], listed
        assert client.delete_task(task["id"]) is None
        try:
            client.get_task(task["id"])
        except APIError as error:
            print(first["status"], second["status"], error.status_code, error.message)
            assert error.response["error"]["code"] == "not_found"
        try:
            client.wait_for_task(other["id"], timeout_seconds=0)
        except TimeoutError as error:
            print("late")
        """,
    )
    assert printed.splitlines()[0].startswith("completed completed 404 ")


def test_side_by_side_as_the_vendors_examples_do(served: str) -> None:
    printed = script(
        served,
        """
        import concurrent.futures
        from rebyte_cli import RebyteClient

        client = RebyteClient()

        def run(prompt):
            task = client.create_task(prompt=prompt, github_url="acme/shop", branch_name="main")
            return client.wait_for_task(task["id"], poll_interval=0.1)

        with concurrent.futures.ThreadPoolExecutor(max_workers=10) as pool:
            for result in pool.map(run, ["Audit", "Document", "Test"]):
                print(result["title"], result["status"])
        """,
    )
    assert printed == "Audit completed\nDocument completed\nTest completed\n"


def test_a_missing_key_says_where_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from rebyte_cli import RebyteClient

    monkeypatch.delenv("REBYTE_API_KEY", raising=False)
    with pytest.raises(ValueError, match=r"app\.rebyte\.ai/settings/api-keys"):
        RebyteClient()


def test_a_plain_urllib_program_can_do_all_of_it(served: str) -> None:
    def call(method: str, path: str, body: Any = None, key: str = "rbk_any") -> Any:
        request = urllib.request.Request(
            served + path, method=method, data=json.dumps(body).encode() if body else None
        )
        request.add_header("API_KEY", key)
        if body:
            request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request) as answer:
            return None if answer.status == 204 else json.loads(answer.read())

    task = call("POST", "/tasks", {"prompt": "Say hello", "skills": ["pdf"]})
    assert call("GET", f"/tasks/{task['id']}")["status"] in ("running", "completed")
    assert call("POST", f"/tasks/{task['id']}/prompts", {"prompt": "Again"})["promptId"]
    assert call("GET", "/tasks?limit=10&offset=0")["total"] == 1
    assert call("PATCH", f"/tasks/{task['id']}/visibility", {"visibility": "shared"})
    assert call("DELETE", f"/tasks/{task['id']}") is None
    with pytest.raises(urllib.error.HTTPError) as refused:
        call("GET", "/tasks", key="rbk_invalid")
    assert refused.value.code == 401
    assert json.loads(refused.value.read())["error"]["code"] == "invalid_api_key"


def test_a_forked_client_opens_new_connections(home: Path) -> None:
    """On a shared one each process reads the answers to what the other asked."""
    with RawServer(json_reply({"id": "t1", "status": "running"})) as server:
        script(
            server.base_url,
            """
            import os
            from rebyte_cli import RebyteClient

            client = RebyteClient()
            client.get_task("before")
            child = os.fork()
            client.get_task("after" if child else "forked")
            if child:
                assert os.waitpid(child, 0)[1] == 0
            """,
        )
    met = {request.path.rpartition("/")[2]: request.connection for request in server.requests}
    assert met["before"] == met["after"] != met["forked"]


def test_the_library_has_its_names() -> None:
    for name in rebyte_cli.__all__:
        assert getattr(rebyte_cli, name)
    assert dir(rebyte_cli) == rebyte_cli.__all__
    assert not hasattr(rebyte_cli, "Transport")


def test_every_name_in_a_signature_can_be_imported() -> None:
    """And so can every error that a method says it raises."""
    plain = {"Any", "None", "Literal", "Path", "Self"} | set(vars(builtins))
    plain |= {"Callable", "Iterable", "Iterator", "Mapping", "wait", "raise"}
    errors = {name for name, found in vars(rebyte_cli.errors).items() if inspect.isclass(found)}
    for name, method in inspect.getmembers(RebyteClient, inspect.isfunction):
        if name.startswith("_") and name != "__init__":
            continue
        signature = " ".join(map(str, method.__annotations__.values()))
        words = set(re.findall(r"[A-Za-z_]+", signature))
        assert words <= plain | set(rebyte_cli.__all__), name
        raised = errors & set(re.findall(r"[A-Za-z]+", inspect.getdoc(method) or ""))
        assert raised <= set(rebyte_cli.__all__), name


def test_importing_the_package_imports_nothing_else() -> None:
    script = """
import sys
before = set(sys.modules)
import rebyte_cli
print(sorted(set(sys.modules) - before - {"__future__"}))
from rebyte_cli import Task, WaitTimeout, StreamEvent
print(sorted({"requests", "ssl", "socket", "sqlite3", "click"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "['rebyte_cli']\n[]\n"


def test_an_open_question_is_told_at_the_limit(client: Any) -> None:
    """With the call that answers it; a script for the vendor's client catches a TimeoutError."""
    asking = client.create_task("Ask [[ask]] [[run=20ms]]")["id"]
    eventually(lambda: client.task_content(asking, events=True)["prompts"][0]["events"])
    with pytest.raises(TimeoutError) as caught:
        client.wait_for_task(asking, poll_interval=0.1, timeout_seconds=2)
    error = caught.value
    assert isinstance(error, QuestionAsked)
    assert isinstance(error, WaitTimeout)
    assert (error.pending, error.task["id"], error.exit_status) == ([asking], asking, 12)
    assert "is waiting for an answer: " in error.message
    assert error.question["options"]
    call = re.search(r"Answer with (client\.answer\(.*\)), then wait again", str(error.hint))
    assert call is not None
    eval(call[1], {"client": client})  # what a reader of the hint would run
    assert client.wait_for_task(asking, poll_interval=0.1)["status"] == "completed"


def test_an_open_question_can_be_told_at_once(client: Any) -> None:
    asking = client.create_task("Ask [[ask]] [[run=20ms]]")["id"]
    began = time.monotonic()
    with pytest.raises(QuestionAsked):
        client.wait_for_task(asking, poll_interval=0.1, on_question="raise")
    assert time.monotonic() - began < 300  # of 600


def test_a_run_that_asks_nothing_is_a_plain_timeout(client: Any) -> None:
    running = client.create_task("Wait [[run=1h]]")["id"]
    with pytest.raises(WaitTimeout) as caught:
        client.wait_for_task(running, poll_interval=0.1, timeout_seconds=0.3, on_question="raise")
    assert type(caught.value) is WaitTimeout


@pytest.mark.parametrize(
    "wrong",
    [
        {"poll_interval": -1},
        {"poll_interval": float("nan")},
        {"poll_interval": "1"},
        {"timeout_seconds": -1},
        {"timeout_seconds": "9"},
        {"on_question": "ask"},
    ],
    ids=str,
)
def test_a_wait_refuses_what_it_cannot_do_before_it_asks(wrong: Any) -> None:
    with RawServer(json_reply({"id": "t1", "status": "running"})) as server:
        client = RebyteClient("rbk_test", base_url=server.base_url)
        with pytest.raises(BadUsage):
            client.wait_for_task("t1", **wrong)
    assert not server.requests


def test_a_question_is_told_of_a_task_without_an_id() -> None:
    asks = {"messageId": "m", "actionId": "7", "question": "Which?"}
    event = {"eventType": "ask_user_question", "payload": asks}
    answer = {"status": "running", "prompts": [{"status": "running", "events": [event]}]}
    with RawServer(json_reply(answer)) as server:
        client = RebyteClient("rbk_test", base_url=server.base_url)
        with pytest.raises(
            QuestionAsked, match="task t1 is waiting for an answer: Which"
        ) as caught:
            client.wait_for_task("t1", timeout_seconds=0)
    assert (caught.value.pending, caught.value.question) == (["t1"], asks)
    assert "customResponse" in str(caught.value.hint)


def test_a_wait_without_an_interval_does_not_flood_the_service() -> None:
    with RawServer(json_reply({"id": "t1", "status": "running"})) as server:
        client = RebyteClient("rbk_test", base_url=server.base_url)
        with pytest.raises(WaitTimeout):
            client.wait_for_task("t1", poll_interval=0, timeout_seconds=0.5)
    assert 2 <= len(server.requests) <= 8


def test_a_download_goes_to_a_path_in_text(client: Any, tmp_path: Path) -> None:
    workspace = client.create_computer("box")["id"]
    (tmp_path / "a.txt").write_text("a")
    client.put_artifacts(workspace, [str(tmp_path / "a.txt")])
    client.get_artifact(workspace, "a.txt", str(tmp_path / "b.txt"))
    assert (tmp_path / "b.txt").read_text() == "a"


# Every method of the library against the local service, which shares no code with it.

# What only a command uses that reaches the service over ssh; see test_ssh.py.
OVER_SSH = {"add_commits", "repository_commits"}
# What partners call, and direct access to a VM: the local service has nothing of the kind.
CLOUD_ONLY = {
    "create_account",
    "set_account_billing",
    "top_up",
    "register_mcp_server",
    "sandbox_api_key",
}


@pytest.fixture
def client(service: Any) -> Iterator[Any]:
    """A client of a running local service that writes down which methods were called."""
    called: set[str] = set()

    class Noted(RebyteClient):
        def __getattribute__(self, name: str) -> Any:
            called.add(name)
            return super().__getattribute__(name)

    with Noted(base_url=service.base_url, api_key="rbk_test") as made:
        made.called = called  # type: ignore[attr-defined]  # for the last test of them
        yield made


def tasks(client: Any, folder: Path) -> None:
    """Tasks, their streams and questions, and the files that they start with."""
    (folder / "a.csv").write_text("a,b\n")
    file = client.upload_file(folder / "a.csv", content_type="text/csv")
    assert client.create_file("b.csv")["uploadUrl"]
    made = client.create_task("Look [[run=50ms]] [[delegate]]", files=[file], skills=["pdf"])
    eventually(lambda: client.get_task(made["id"])["title"])  # is told a moment later
    task = client.wait_for_task(made["id"], poll_interval=0.02)
    assert file["filename"] in task["finalResult"]
    assert client.list_tasks()["data"] == list(client.iter_tasks())
    assert client.get_task(made["id"]) == task
    assert client.task_requests(made["id"]) == []  # a simulation asks for nothing
    events = list(client.stream_events(made["id"]))
    assert events[-1].name == "done"
    subs = [event.data["payload"].get("subPromptId") for event in events[:-1]]
    sub = next(filter(None, subs))
    assert client.prompt_events(made["id"], sub)["promptId"] == sub
    (prompt,) = client.task_content(made["id"], events=True)["prompts"]
    with pytest.raises(ResourceNotFound):  # a simulated run has none
        client.get_changes(made["id"], [prompt["id"]], folder / "changes.patch")
    assert [event["seq"] for event in prompt["events"]] == list(range(len(subs)))
    assert client.follow_up(made["id"], "More [[run=1ms]]")["promptId"]
    assert client.follow_up_from(made["id"], {"prompt": "Again [[run=1ms]]"})["promptId"]
    assert client.set_visibility(made["id"], "public")["shareUrl"]
    asking = client.create_from({"prompt": "Ask [[ask]] [[run=20ms]]"})["id"]

    def question() -> Any:
        events = client.task_content(asking, events=True)["prompts"][0]["events"]
        return next((e["payload"] for e in events if e["eventType"] == "ask_user_question"), None)

    asked = eventually(question)
    reply = {"messageId": asked["messageId"], "actionId": int(asked["actionId"])}
    client.answer(asking, {**reply, "answer": {"selectedOptions": [0]}})
    with pytest.raises(APIError) as again:
        client.answer(asking, {**reply, "answer": {"selectedOptions": [0]}})
    assert again.value.status_code == 409
    running = client.create_task("Wait [[run=1m]]")["id"]
    client.cancel_task(running)
    assert client.get_task(running)["status"] == "canceled"
    client.delete_task(running)
    with pytest.raises(ResourceNotFound):
        client.get_task(running)


def computers(client: Any, folder: Path) -> None:
    """Agent computers and the artifacts in them."""
    made = client.create_computer("box", "x")["id"]
    assert [row["id"] for row in client.list_computers()["data"]] == [made]
    assert [row["id"] for row in client.iter_computers()] == [made]
    changed = client.update_computer(made, agent_instructions="In English.")
    assert changed["agentInstructions"] == "In English."
    assert client.get_computer(made)["agentInstructions"] == "In English."
    (folder / "p.png").write_bytes(b"image")
    client.put_artifacts(made, [folder / "p.png"])
    (slot,) = client.artifact_upload_urls(made, [{"name": "v.mp4", "contentType": "video/mp4"}])
    client.transport.put_signed(slot["uploadUrl"], b"film", "video/mp4")
    names = [row.get("name") or row["filename"] for row in client.list_artifacts(made)]
    assert sorted(names) == ["p.png", "v.mp4"]
    client.get_artifact(made, "v.mp4", folder / "here.mp4")
    assert (folder / "here.mp4").read_bytes() == b"film"
    assert client.artifact_size(made, "v.mp4") == 4
    client.delete_artifact(made, "p.png")
    client.delete_artifacts(made)
    assert client.list_artifacts(made) == []
    client.delete_computer(made)
    with pytest.raises(ResourceNotFound):
        client.get_computer(made)


def account(client: Any, folder: Path) -> None:
    """Webhooks, the balance, and health."""
    del folder
    made = client.create_webhook("https://a.example/", ["task.failed"], secret="s", description="d")
    assert client.list_webhooks() == [client.get_webhook(made["id"])]
    with pytest.raises(ResourceNotFound, match="does not sign"):
        client.webhook_public_key()
    client.delete_webhook(made["id"])
    assert client.list_webhooks() == []
    assert client.credits()["totalAvailable"] <= 10_000
    assert client.health()["status"] == "ok"


def test_every_method_works_and_none_is_left_out(client: Any, tmp_path: Path) -> None:
    for use in (tasks, computers, account):
        use(client, tmp_path)
    methods = {
        name
        for name, _ in inspect.getmembers(RebyteClient, inspect.isfunction)
        if not name.startswith("_") and name not in CLOUD_ONLY | OVER_SSH | {"close"}
    }
    assert methods - client.called == set()


def test_every_method_has_types_and_says_what_it_does() -> None:
    for name, method in inspect.getmembers(RebyteClient, inspect.isfunction):
        if name.startswith("_"):
            continue
        parameters = list(inspect.signature(method).parameters)[1:]
        assert {*parameters, "return"} <= set(method.__annotations__), name
        assert len(inspect.getdoc(method) or "") > 15, name
