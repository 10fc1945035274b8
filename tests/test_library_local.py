"""Every method of the library against the local service, which shares no code with it."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli import RebyteClient
from rebyte_cli.errors import APIError, ResourceNotFound

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


def until(look: Callable[[], Any]) -> Any:
    """What `look` gives once it gives something; for what the service does by its own clock."""
    end = time.monotonic() + 10
    while not (found := look()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def tasks(client: Any, folder: Path) -> None:
    """Tasks, their streams and questions, and the files that they start with."""
    (folder / "a.csv").write_text("a,b\n")
    file = client.upload_file(folder / "a.csv", content_type="text/csv")
    assert client.create_file("b.csv")["uploadUrl"]
    made = client.create_task("Look [[run=50ms]] [[delegate]]", files=[file], skills=["pdf"])
    task = client.wait_for_task(made["id"], poll_interval=0.02)
    assert file["filename"] in task["finalResult"]
    assert client.list_tasks()["data"] == list(client.iter_tasks())
    assert client.get_task(made["id"]) == task
    events = list(client.stream_events(made["id"]))
    assert events[-1].name == "done"
    subs = [event.data["payload"].get("subPromptId") for event in events[:-1]]
    sub = next(filter(None, subs))
    assert client.prompt_events(made["id"], sub)["promptId"] == sub
    (prompt,) = client.task_content(made["id"], events=True)["prompts"]
    assert [event["seq"] for event in prompt["events"]] == list(range(len(subs)))
    assert client.follow_up(made["id"], "More [[run=1ms]]")["promptId"]
    assert client.follow_up_from(made["id"], {"prompt": "Again [[run=1ms]]"})["promptId"]
    assert client.set_visibility(made["id"], "public")["shareUrl"]
    asking = client.create_from({"prompt": "Ask [[ask]] [[run=20ms]]"})["id"]

    def question() -> Any:
        events = client.task_content(asking, events=True)["prompts"][0]["events"]
        return next((e["payload"] for e in events if e["eventType"] == "ask_user_question"), None)

    asked = until(question)
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
        if not name.startswith("_") and name not in CLOUD_ONLY | {"close"}
    }
    assert methods - client.called == set()


def test_every_method_has_types_and_says_what_it_does() -> None:
    for name, method in inspect.getmembers(RebyteClient, inspect.isfunction):
        if name.startswith("_"):
            continue
        parameters = list(inspect.signature(method).parameters)[1:]
        assert {*parameters, "return"} <= set(method.__annotations__), name
        assert len(inspect.getdoc(method) or "") > 15, name
