"""Webhooks: registering them, and the deliveries that arrive."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.local import deliveries
from rebyte_cli.local.deliveries import Deliverer
from rebyte_cli.local.local_service import Service
from rebyte_cli.local.store import Store
from rebyte_cli.system import python_process
from tests.waiting import eventually
from tests.witness import Caller, Clock, serving

ALL_EVENTS = ["task.created", "task.running", "task.completed", "task.failed", "task.canceled"]


class Delivery:
    """What one delivery carried."""

    def __init__(self, headers: Any, body: bytes) -> None:
        self.secret = headers.get("X-Webhook-Secret")
        self.kind = headers.get("Content-Type")
        self.document = json.loads(body)
        self.event = self.document["event"]


@contextlib.contextmanager
def receiving(status: int = 200) -> Iterator[tuple[str, list[Delivery]]]:
    """A receiver on loopback: its URL, and what has arrived."""
    arrived: list[Delivery] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            arrived.append(Delivery(self.headers, body))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Stay silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/hook?x=1", arrived
        server.shutdown()


def test_each_change_of_a_task_is_delivered_once(tmp_path: Path) -> None:
    clock = Clock()
    with receiving() as (url, arrived), serving(tmp_path, clock) as caller:
        caller.create("Before the webhook")
        clock.advance(1)
        hook = caller.call(
            "POST", "/webhooks", {"url": url, "events": ALL_EVENTS, "secret": "s3cret"}
        ).document
        # A second service on the same folder looks for the same events, once more when it ends.
        with Service(tmp_path / "state", clock=clock):
            task_id = caller.create("[[fail]]")["id"]
            eventually(lambda: len(arrived) == 2)
            clock.advance(1)
            eventually(lambda: len(arrived) == 3)
            caller.call("POST", f"/tasks/{task_id}/prompts", {"prompt": "Again [[run=1h]]"})
            eventually(lambda: len(arrived) == 4)
            caller.call("POST", f"/tasks/{task_id}/cancel")
            eventually(lambda: len(arrived) == 5)
        shown = caller.call("GET", f"/webhooks/{hook['id']}").document
    assert [one.event for one in arrived] == [
        "task.created", "task.running", "task.failed", "task.running", "task.canceled",
    ]  # fmt: skip
    assert {one.document["taskId"] for one in arrived} == {task_id}
    assert {one.secret for one in arrived} == {"s3cret"}
    assert {one.kind for one in arrived} == {"application/json"}
    assert (shown["failureCount"], shown["hasSecret"]) == (0, True)
    assert shown["lastTriggeredAt"] is not None


def test_embedded_service_delivers_before_it_ends(tmp_path: Path) -> None:
    with receiving() as (url, arrived):
        with Service(tmp_path, public_url="http://127.0.0.1:8787") as service:
            caller = Caller(service)
            caller.call("POST", "/webhooks", {"url": url, "events": ["task.created"]})
            caller.create()
        assert [one.event for one in arrived] == ["task.created"]
        assert arrived[0].secret is None


def test_failed_deliveries_are_counted_and_nothing_leaves_the_machine(tmp_path: Path) -> None:
    with receiving(500) as (url, arrived), serving(tmp_path) as caller:
        for target in (url, "https://hooks.example.com/x", "http://127.0.0.1:1/closed"):
            made = caller.call("POST", "/webhooks", {"url": target, "events": ["task.created"]})
            assert made.status == 201
        caller.create("[[run=1h]]")
        hooks: list[Any] = []

        def counted() -> bool:
            hooks[:] = caller.call("GET", "/webhooks").document["webhooks"]
            return all(hook["failureCount"] == 1 for hook in hooks)

        eventually(counted)
    assert len(hooks) == 3
    assert len(arrived) == 1


@contextlib.contextmanager
def dripping() -> Iterator[tuple[str, list[str]]]:
    """A receiver whose headers have no end: its URL, and the tasks that it was told of."""
    heard: list[str] = []
    over = threading.Event()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            heard.append(json.loads(body)["taskId"])
            with contextlib.suppress(OSError):
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX-A: ")
                while not over.wait(0.02):
                    self.wfile.write(b"a")

        def log_message(self, *args: object) -> None:
            """Stay silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", heard
        over.set()
        server.shutdown()


def test_a_slow_receiver_delays_no_other(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        caller = stack.enter_context(serving(tmp_path, delivery_seconds=60.0))
        url, arrived = stack.enter_context(receiving())
        slow, heard = stack.enter_context(dripping())
        for target in (slow, url):
            caller.call("POST", "/webhooks", {"url": target, "events": ["task.created"]})
        tasks = [caller.create("[[run=1h]]")["id"]]
        eventually(lambda: heard)
        tasks += [caller.create("[[run=1h]]")["id"] for _ in range(3)]
        eventually(lambda: [one.document["taskId"] for one in arrived] == tasks)
        assert heard == tasks[:1]


@pytest.mark.slow
def test_a_delivery_has_a_time_limit_for_all_of_it(tmp_path: Path) -> None:
    with dripping() as (url, heard), serving(tmp_path, delivery_seconds=0.5) as caller:
        caller.call("POST", "/webhooks", {"url": url, "events": ["task.created"]})
        tasks = [caller.create("[[run=1h]]")["id"] for _ in range(2)]

        def failures() -> int:
            return int(caller.call("GET", "/webhooks").document["webhooks"][0]["failureCount"])

        eventually(lambda: failures() == 2)
        assert heard == tasks


def test_what_arrives_while_the_tasks_are_read_is_sent_once(tmp_path: Path) -> None:
    with serving(tmp_path) as caller, receiving() as (url, arrived):
        for _ in range(150):  # so that reading them takes longer than a delivery
            caller.create("[[run=1h]]")
        time.sleep(0.01)  # a task of the same millisecond is told, too
        caller.call("POST", "/webhooks", {"url": url, "events": ["task.created"]})
        tasks = [caller.create("[[run=1h]]")["id"] for _ in range(40)]
        eventually(lambda: arrived and arrived[-1].document["taskId"] == tasks[-1])
    assert [one.document["taskId"] for one in arrived] == tasks


def test_what_a_killed_process_was_sending_is_sent_again(tmp_path: Path) -> None:
    with dripping() as (slow, heard), receiving() as (url, arrived):
        store = Store(tmp_path)
        with Service(tmp_path, public_url="http://127.0.0.1:8787") as service:
            tasks = [Caller(service).create("[[run=1h]]")["id"] for _ in range(2)]
        with store.write() as db:
            db.execute(
                "INSERT INTO webhooks (id, url, events, created) VALUES ('w', ?, ?, 0)",
                (slow, '["task.created"]'),
            )
        sender = subprocess.Popen(python_process.command(deliveries.__name__, tmp_path))
        try:
            eventually(lambda: heard)
            Deliverer(store).send_due()  # it is another's turn: it does not even wait
            assert heard == tasks[:1]
        finally:
            sender.kill()
            sender.wait()
        with store.write() as db:
            db.execute("UPDATE webhooks SET url = ?", (url,))
        Deliverer(store).send_due()
        Deliverer(store).send_due()
        store.close()
    assert [one.document["taskId"] for one in arrived] == tasks


@pytest.mark.slow
def test_what_a_command_has_no_time_to_send_is_sent_when_it_has_ended(tmp_path: Path) -> None:
    """The command has half a second for it, and the process that follows five for each."""
    address = "http://127.0.0.1:8787"
    with dripping() as (url, heard):
        with Service(tmp_path, public_url=address, delivery_seconds=0.5) as service:
            caller = Caller(service)
            caller.call("POST", "/webhooks", {"url": url, "events": ["task.created"]})
            tasks = [caller.create("[[run=1h]]")["id"] for _ in range(3)]
            eventually(lambda: heard)
        eventually(lambda: tasks[2] in heard)


def test_webhook_registration(tmp_path: Path) -> None:
    with serving(tmp_path) as caller:
        body = {"url": "https://a.example/x", "events": ["task.completed"], "description": "CI"}
        made = caller.call("POST", "/webhooks", {**body, "secret": "hidden"})
        again = caller.call("POST", "/webhooks", body)
        assert (made.status, again.status) == (201, 200)
        assert again.document == made.document
        assert "hidden" not in made.raw.decode()
        assert made.document["hasSecret"] is True
        for number in (2, 3):
            url = f"http://localhost:{number}/"
            assert caller.call("POST", "/webhooks", {**body, "url": url}).status == 201
        fourth = caller.call("POST", "/webhooks", {**body, "url": "https://d.example"})
        assert (fourth.status, fourth.code) == (400, "limit_exceeded")
        assert len(caller.call("GET", "/webhooks").document["webhooks"]) == 3
        path = f"/webhooks/{made.document['id']}"
        assert caller.call("GET", path).document == made.document
        assert caller.call("DELETE", path).status == 204
        assert caller.call("GET", path).status == caller.call("DELETE", path).status == 404
        key = caller.call("GET", "/webhooks/public_key")
        assert (key.status, key.code) == (404, "not_found")
        assert "does not sign" in key.document["error"]["message"]


@pytest.mark.parametrize(
    "change",
    [
        {"url": "http://example.com/"},
        {"url": "http://127.evil.example/"},
        {"url": "ftp://localhost/"},
        {"url": "https://"},
        {"url": "https://a b/"},
        {"url": "https://x:port/"},
        {"url": 1},
        {"events": []},
        {"events": ["task.done"]},
        {"events": "task.created"},
        {"description": "x" * 501},
        {"secret": "x" * 501},
        {"secret": "a\r\nb"},
    ],
)
def test_bad_webhooks(tmp_path: Path, change: dict[str, Any]) -> None:
    with serving(tmp_path) as caller:
        body = {"url": "https://a.example/", "events": ["task.created"], **change}
        answer = caller.call("POST", "/webhooks", body)
    assert (answer.status, answer.code) == (400, "validation_error")
