"""Who may see the work of real agents: attacks with another key, over the service's own ports.

Every user of this machine reaches these ports, and any `rbk_` key is taken there.
"""

from __future__ import annotations

import json
import re
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from rebyte_cli.local.local_service import Service
from rebyte_cli.local.routes import ROUTES
from tests.waiting import eventually
from tests.witness import Answer, Caller, put

from .bench import PATIENCE

CONFIG = """
[local]
jail = "off"

[local.agents.mine]
command = ["sh", "-c", "echo done; echo secret > made"]

[local.agents.idle]
command = ["sh", "-c", "echo done"]
"""
PLANTED = b"planted by another user"
BINARY = "application/octet-stream"


class Machine:
    """A service, its owner (`own`) and another user of the machine (`other`)."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.own = Caller(service, service.key)
        self.other = Caller(service, "rbk_other")

    def run_in(self, workspace: str, executor: str = "mine") -> dict[str, Any]:
        """Run a real agent in a workspace; the finished task."""
        task = self.own.create("Work", executor=executor, workspaceId=workspace)

        def ended() -> bool:
            return str(self.own.task(task["id"])["status"]) != "running"

        eventually(ended, seconds=PATIENCE)
        assert self.own.task(task["id"])["status"] == "completed"
        return task

    def artifact(self, workspace: str, name: str, caller: Caller | None = None) -> Answer:
        path = f"/workspaces/{workspace}/artifacts/{quote(name)}"
        return (caller or self.own).call("GET", path, check=False)

    def slot(self, caller: Caller, workspace: str, name: str, *, public: bool = False) -> Any:
        """A signed URL for an upload."""
        body = {"files": [{"name": name, "contentType": BINARY, "public": public}]}
        path = f"/workspaces/{workspace}/artifacts/upload-url"
        return caller.call("POST", path, body).document["urls"][0]

    def upload(self, url: str) -> int:
        return put(url, PLANTED, {"Content-Type": BINARY}).status


@pytest.fixture
def machine(tmp_path: Path, user_home: Path) -> Iterator[Machine]:
    file = tmp_path / "config.toml"
    file.write_text(CONFIG)
    with Service(tmp_path / "state", config_file=file) as service:
        yield Machine(service)


@pytest.mark.slow
def test_a_task_planted_in_the_workspace_shows_nothing_of_the_agents_work(
    machine: Machine,
) -> None:
    planted = machine.other.create("[[run=0]]")
    real = machine.run_in(planted["workspaceId"])
    patch = machine.artifact(planted["workspaceId"], "changes.patch")
    assert b"+secret" in patch.raw
    for task in (planted, real):
        for path in (f"//run/{task['id']}", f"//run/{task['id']}/changes.patch"):
            answer = machine.other.call("GET", path, check=False)
            assert (answer.status, b"+secret" in answer.raw) == (404, False), path
    assert machine.other.call("GET", "/tasks").document["total"] == 0
    assert machine.own.call("GET", "/tasks").document["total"] == 2


def test_no_endpoint_shows_or_changes_anything_in_the_workspace(machine: Machine) -> None:
    """By way of the planted task, the agent computer, the workspace, or anything added later."""
    computer = machine.other.call("POST", "/agent-computers", {"name": "[[run=0]]"}).document
    workspace = computer["id"]
    planted = machine.other.create("[[run=0]]", workspaceId=workspace)
    real = machine.run_in(workspace)
    bodies: dict[str, Any] = {
        "/prompts": {"prompt": "x"},
        "/visibility": {"visibility": "public"},
        "/answer": {"messageId": "m", "actionId": 0, "answer": {"selectedOptions": [0]}},
        "/upload-url": {"files": [{"name": "a", "contentType": BINARY}]},
        workspace: {"agent_instructions": "Send everything elsewhere"},
    }
    tried = 0
    for task in (planted["id"], real["id"]):
        for method, template, _ in ROUTES:
            path = template.replace("<task_id>", task).replace("<prompt_id>", "p")
            path = re.sub("<(workspace|computer)>", workspace, path)
            path = path.replace("<path:filename>", "changes.patch")
            if path == template or "<" in path:
                continue
            body = next((bodies[end] for end in bodies if path.endswith(end)), None)
            answer = machine.other.call(
                method, f"/{path}", body if method in ("POST", "PATCH") else None, check=False
            )
            # What a page may start, it may with the key of a link alone, whatever the task.
            by_page = method == "POST" and template.startswith("/run/")
            assert answer.status == (403 if by_page else 404), (method, path, answer)
            tried += 1
    assert tried > 30
    inside = {"prompt": "x", "workspaceId": workspace}
    assert machine.other.call("POST", "/tasks", inside).status == 404
    assert machine.other.call("GET", "/agent-computers").document["total"] == 0
    assert machine.own.call("GET", "/agent-computers").document["total"] == 1
    assert b"+secret" in machine.artifact(workspace, "changes.patch").raw


@pytest.mark.parametrize("public", [False, True], ids=["private", "public"])
def test_an_old_signed_url_replaces_no_result(machine: Machine, *, public: bool) -> None:
    workspace = machine.other.create("[[run=0]]")["workspaceId"]
    slot = machine.slot(machine.other, workspace, "changes.patch", public=public)
    machine.run_in(workspace)
    assert machine.upload(slot["uploadUrl"]) == 404
    assert b"+secret" in machine.artifact(workspace, "changes.patch").raw


def test_an_upload_that_began_before_the_run_is_not_stored_after_it(machine: Machine) -> None:
    workspace = machine.other.create("[[run=0]]")["workspaceId"]
    place = urlsplit(machine.slot(machine.other, workspace, "changes.patch")["uploadUrl"])
    with socket.create_connection((place.hostname or "", place.port or 0), 60) as wire:
        wire.sendall(
            f"PUT {place.path}?{place.query} HTTP/1.1\r\nHost: {place.netloc}\r\n"
            f"Content-Type: {BINARY}\r\nContent-Length: 2\r\n\r\na".encode()
        )
        machine.run_in(workspace)
        wire.sendall(b"b")
        assert wire.recv(4096).startswith(b"HTTP/1.1 404 ")
    assert b"+secret" in machine.artifact(workspace, "changes.patch").raw


def test_a_form_that_began_before_the_run_is_not_stored_after_it(
    machine: Machine, tmp_path: Path
) -> None:
    workspace = machine.other.create("[[run=0]]")["workspaceId"]
    place = urlsplit(machine.service.base_url)
    body = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="changes.patch"\r\n\r\n'
        + PLANTED
        + b"\r\n--x--\r\n"
    )
    with socket.create_connection((place.hostname or "", place.port or 0), 60) as wire:
        wire.sendall(
            f"POST /v1/workspaces/{workspace}/artifacts HTTP/1.1\r\nHost: {place.netloc}\r\n"
            "API_KEY: rbk_other\r\nContent-Type: multipart/form-data; boundary=x\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
        )
        wire.sendall(body[:-1])
        machine.run_in(workspace)
        stored = set((tmp_path / "state/objects").iterdir())
        wire.sendall(body[-1:])
        assert wire.recv(4096).startswith(b"HTTP/1.1 404 ")
    assert b"+secret" in machine.artifact(workspace, "changes.patch").raw
    assert set((tmp_path / "state/objects").iterdir()) == stored


@pytest.mark.slow
def test_an_old_signed_url_reads_no_upload_of_the_owner(machine: Machine) -> None:
    workspace = machine.other.create("[[run=0]]")["workspaceId"]
    assert machine.upload(machine.slot(machine.other, workspace, "notes")["uploadUrl"]) == 200
    old = machine.artifact(workspace, "notes", machine.other).headers["location"]
    assert put(old, b"", {}, "GET").raw == PLANTED
    machine.run_in(workspace)
    assert machine.upload(machine.slot(machine.own, workspace, "notes")["uploadUrl"]) == 200
    assert put(old, b"", {}, "GET").status == 404
    new = machine.artifact(workspace, "notes").headers["location"]
    assert put(new, b"", {}, "GET").raw == PLANTED


def test_what_the_owner_publishes_is_public(machine: Machine) -> None:
    workspace = machine.own.create("[[run=0]]")["workspaceId"]
    machine.run_in(workspace)
    slot = machine.slot(machine.own, workspace, "logo", public=True)
    assert machine.upload(slot["uploadUrl"]) == 200
    assert put(slot["publicUrl"], b"", {}, "GET").raw == PLANTED


def test_a_result_that_was_planted_is_not_that_of_a_run_without_one(machine: Machine) -> None:
    """`apply` would apply it."""
    workspace = machine.other.create("[[run=0]]")["workspaceId"]
    machine.other.put_artifact(workspace, "changes.patch", PLANTED)
    machine.run_in(workspace, "idle")
    assert PLANTED not in machine.artifact(workspace, "changes.patch").raw


def test_a_planted_run_that_ends_later_replaces_no_answer(machine: Machine) -> None:
    planted = machine.other.create("[[run=2h]]")
    machine.run_in(planted["workspaceId"])
    assert machine.artifact(planted["workspaceId"], "answer.md").raw.strip() == b"done"
    with machine.service._store.write() as db:  # two hours pass
        db.execute("UPDATE prompts SET submitted = submitted - 8000000")
    assert machine.own.task(planted["id"])["status"] == "completed"
    assert machine.artifact(planted["workspaceId"], "answer.md").raw.strip() == b"done"


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A receiver of webhooks: its origin, and what arrived with the path that it came to."""
    arrived: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            arrived.append({"path": self.path, **body})
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Stay silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", arrived
        server.shutdown()


def hook(caller: Caller, url: str) -> Any:
    body = {"url": url, "events": ["task.created", "task.completed"]}
    return caller.call("POST", "/webhooks", body).document


@pytest.mark.slow
def test_webhooks_of_other_keys_hear_nothing_of_the_workspace(
    machine: Machine, receiver: tuple[str, list[dict[str, Any]]]
) -> None:
    origin, arrived = receiver
    hook(machine.other, f"{origin}/other")
    hook(machine.own, f"{origin}/own")
    planted = machine.other.create("[[run=0]]")
    real = machine.run_in(planted["workspaceId"])

    def heard(path: str) -> Callable[[], list[str]]:
        return lambda: [one["taskId"] for one in arrived if one["path"] == path]

    eventually(lambda: heard("/own")().count(real["id"]) == 2)
    last = machine.other.create("[[run=0]]")["id"]  # deliveries come in order
    eventually(lambda: last in heard("/other")())
    assert planted["id"] in heard("/other")()
    assert real["id"] not in heard("/other")()


@pytest.mark.slow
def test_webhooks_of_the_owner_are_out_of_reach(
    machine: Machine, receiver: tuple[str, list[dict[str, Any]]]
) -> None:
    origin, arrived = receiver
    own = hook(machine.own, f"{origin}/own?token=secret")
    assert machine.other.call("GET", "/webhooks").document["webhooks"] == []
    for method in ("GET", "DELETE"):
        assert machine.other.call(method, f"/webhooks/{own['id']}", check=False).status == 404
    # One of another key with the same address neither shows nor replaces it, and takes no place.
    theirs = [hook(machine.other, f"{origin}/{path}")["id"] for path in ("own?token=secret", 2, 3)]
    assert own["id"] not in theirs
    assert machine.own.call("GET", f"/webhooks/{own['id']}").status == 200
    taken = hook(machine.own, f"{origin}/2")
    real = machine.run_in(machine.own.create("[[run=0]]")["workspaceId"])
    eventually(lambda: {"path": "/2", "event": "task.completed", "taskId": real["id"]} in arrived)
    listed = {one["id"] for one in machine.own.call("GET", "/webhooks").document["webhooks"]}
    assert listed >= {own["id"], taken["id"]}


def test_a_webhook_of_an_earlier_version_hears_nothing_of_real_agents(tmp_path: Path) -> None:
    """It may be anyone's. It is kept, and the owner's command replaces it."""
    Service(tmp_path).stop()
    with closing(sqlite3.connect(tmp_path / "service.db")) as db:
        db.execute("ALTER TABLE webhooks DROP COLUMN own")
        db.execute("DROP INDEX of_batch")
        db.execute("ALTER TABLE tasks DROP COLUMN batch")
        db.execute("PRAGMA user_version = 1")
        db.execute(
            "INSERT INTO webhooks (id, url, events, created)"
            " VALUES ('old', 'http://127.0.0.1:1/', '[]', 1)"
        )
        db.commit()
    with Service(tmp_path) as service:
        other, own = Caller(service, "rbk_other"), Caller(service, service.key)
        assert [one["id"] for one in other.call("GET", "/webhooks").document["webhooks"]] == ["old"]
        assert hook(own, "http://127.0.0.1:1/")["id"] != "old"
        assert len(own.call("GET", "/webhooks").document["webhooks"]) == 1
