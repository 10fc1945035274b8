"""Run the local service: many processes at once, other clients, start, status and stop."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import subprocess
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from rebyte_cli.config.credentials import LOCAL_KEY
from rebyte_cli.local import background
from rebyte_cli.local.local_service import Service, reset, status
from rebyte_cli.local.store import StateError, Store
from tests.conftest import COMMAND, need_tool
from tests.forks import run_forks
from tests.terminals import Session
from tests.waiting import eventually
from tests.witness import KEY, Caller, Clock, serving

PATIENCE = 60.0


def create_two(_number: int, state: str) -> None:
    """Start the service of a state folder, and create two tasks."""
    with Service(Path(state), public_url="http://127.0.0.1:8787") as service:
        request = urllib.request.Request(
            f"{service.base_url}/tasks",
            json.dumps({"prompt": "x"}).encode(),
            {"API_KEY": KEY, "Content-Type": "application/json"},
        )
        for _ in range(2):
            urllib.request.urlopen(request, timeout=60).read()


@pytest.mark.slow
def test_many_processes_on_an_empty_folder(tmp_path: Path) -> None:
    state = tmp_path / "new"
    done = run_forks(create_two, 20, state)
    assert (done.returncode, done.stderr) == (0, "")
    with serving(tmp_path) as _, Service(state) as service:
        page = Caller(service).call("GET", "/tasks").document
    assert page["total"] == 40
    assert len({row["id"] for row in page["data"]}) == 40


def test_many_threads_at_once(tmp_path: Path) -> None:
    with serving(tmp_path) as caller:

        def create(number: int) -> str:
            own = Caller(caller.service)
            with contextlib.closing(own.connection):
                return str(own.create(f"Task {number}")["id"])

        with ThreadPoolExecutor(40) as pool:
            ids = set(pool.map(create, range(40)))
        page = caller.call("GET", "/tasks").document
    assert len(ids) == page["total"] == 40
    assert {row["id"] for row in page["data"]} == ids


def test_unmodified_curl(tmp_path: Path) -> None:
    curl = [need_tool("curl"), "-sS", "-i", "--http1.1"]
    with serving(tmp_path) as caller:
        url = caller.service.base_url
        made = subprocess.run(
            [*curl, f"{url}/tasks", "-H", f"API_KEY: {KEY}", "-H", "Content-Type: application/json",
             "-d", json.dumps({"prompt": "Say hello " + "x" * 50_000})],
            capture_output=True, text=True, check=True, timeout=60,
        ).stdout  # fmt: skip
        head, _, body = (
            made.rpartition("\n\n") if "\r\n" not in made else made.rpartition("\r\n\r\n")
        )
        stream = subprocess.run(
            [*curl, "-N", f"{url}/tasks/{json.loads(body)['id']}/events", "-H", f"API_KEY: {KEY}"],
            capture_output=True, text=True, check=True, timeout=60,
        ).stdout  # fmt: skip
        denied = subprocess.run(
            [*curl, "--fail", f"{url}/tasks"], capture_output=True, check=False, timeout=60
        )
    assert "201" in head
    assert "event: done" in stream
    assert denied.returncode == 22


def test_client_in_the_style_of_the_vendor(tmp_path: Path) -> None:
    with serving(tmp_path) as caller:

        def api(method: str, path: str, body: Any = None) -> Any:
            data = None if body is None else json.dumps(body).encode()
            headers = {"API_KEY": KEY, "Content-Type": "application/json"}
            request = urllib.request.Request(
                caller.service.base_url + path, data, headers, method=method
            )
            with urllib.request.urlopen(request, timeout=60) as response:
                text = response.read()
                return json.loads(text) if text else {}

        task = api("POST", "/tasks", {"prompt": "Hello", "skills": ["deep-research"]})
        eventually(lambda: api("GET", f"/tasks/{task['id']}")["status"] != "running")
        assert api("GET", f"/tasks/{task['id']}")["status"] == "completed"
        assert api("POST", f"/tasks/{task['id']}/prompts", {"prompt": "More"})["promptId"]
        assert api("GET", "/tasks?limit=1")["total"] == 1
        assert api("DELETE", f"/tasks/{task['id']}") == {}


def test_connection_is_kept_through_refusals_and_unread_bodies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []  # by the service; the client of this test writes by other means
    write = socket.SocketIO.write

    def noted(self: socket.SocketIO, data: Any) -> int | None:
        written.append(len(data))
        return write(self, data)

    monkeypatch.setattr(socket.SocketIO, "write", noted)
    with serving(tmp_path) as caller:
        caller.call("GET", "/tasks")
        kept = caller.connection.sock
        caller.call("POST", "/tasks", {"prompt": 1})
        caller.call("POST", "/nothing", {"prompt": "x" * 200_000}, check=False)
        caller.call("HEAD", "/tasks", check=False)
        task_id = caller.create("[[run=0]]")["id"]
        caller.call("GET", f"/tasks/{task_id}/events")
        caller.call("DELETE", f"/tasks/{task_id}")
        written.clear()
        answer = caller.call("GET", "/tasks")
        # Head and body in one packet: delayed acknowledgements would cost 40 ms between two.
        assert len(written) == 1
        assert written[0] > len(answer.raw)
        assert caller.connection.sock is kept


def test_a_connection_that_ends_says_so(service: Any) -> None:
    """Otherwise the client would send its next request to a service that is gone."""
    address = urlsplit(service.base_url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=60)
    with contextlib.closing(connection):
        for _ in range(2):
            body = iter([b"x" * 100_000] * 20)  # nothing reads it before the answer
            connection.request("POST", "/v1/health", body, encode_chunked=True)
            answer = connection.getresponse()
            answer.read()
            assert (answer.status, answer.headers["Connection"]) == (405, "close")


@pytest.mark.parametrize(
    ("framing", "status"),
    [
        ("Transfer-Encoding: gzip", b"501"),
        ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", b"501"),
        ("Transfer-Encoding: xchunked", b"501"),
        ("Content-Length: 0\r\nContent-Length: 9", b"400"),
        ("Content-Length : 9", b"400"),
        ("no colon\r\nContent-Length: 9", b"400"),
        ("Content-Length: -1", b"400"),
        ("Content-Length: 0\r\nContent-Length: 0", b"200"),
    ],
)
def test_a_body_without_a_clear_end_is_never_a_request(
    service: Any, framing: str, status: bytes
) -> None:
    """A proxy might read the end of such a body elsewhere, and let a request through in it."""
    first = f"GET /v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\n{framing}\r\n\r\n"
    inside = "GET /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    address = urlsplit(service.base_url)
    with socket.create_connection((address.hostname, address.port), timeout=60) as wire:
        wire.sendall((first + inside).encode())
        with wire.makefile("rb") as file:
            answers = file.read()
    assert answers.split()[1] == status
    assert (b"HTTP/1.1 404" in answers) == (status == b"200")


def test_the_head_of_a_chunk_has_a_limit(service: Any) -> None:
    """A line that never ends is kept in memory otherwise, however long it gets."""
    address = urlsplit(service.base_url)
    head = b"POST /v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection((address.hostname, address.port), timeout=60) as wire:
        wire.sendall(head + b"z" * 1000)
        with wire.makefile("rb") as file:
            assert file.read().split()[1] == b"405"  # and the connection has ended


def test_date_header_is_the_clock_that_dates_tasks(tmp_path: Path) -> None:
    clock = Clock()
    with serving(tmp_path, clock) as caller:
        answer = caller.call("GET", "/tasks")
    assert parsedate_to_datetime(answer.headers["date"]).timestamp() == clock.now


def test_links_of_an_embedded_service_point_at_the_served_one(tmp_path: Path) -> None:
    with Service(tmp_path) as served:
        origin = served.base_url.removesuffix("/v1")
        with Service(tmp_path, public_url=origin) as carried:
            task = Caller(carried).create("<b>bold</b> [[run=0]]")
        assert task["url"] == f"{origin}/run/{task['id']}"
        assert Caller(served).task(task["id"])["url"] == task["url"]
        page = urllib.request.urlopen(task["url"], timeout=60).read().decode()
    assert "simulation" in page
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    assert "<b>bold" not in page


def test_status_and_reset(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        caller = Caller(service)
        caller.create("[[run=1h]]")
        caller.create("[[run=0]]")
        caller.upload(b"x")
        seen = status(tmp_path)
        with Store(tmp_path) as store:
            served = background.find(store)
        assert served is not None
        assert served.origin == service.origin
    assert seen == {
        "path": str(tmp_path), "tasks": 2, "running": 1, "workspaces": 2, "webhooks": 0,
        "keyLeaks": 0, "agentsRunning": 0, "agentsQueued": 0, "disk": 0, "setupCaches": 0,
        "log": None,
    }  # fmt: skip
    with Store(tmp_path) as store:
        assert background.find(store) is None
    reset(tmp_path)
    seen = status(tmp_path)
    assert (seen["tasks"], seen["workspaces"]) == (0, 0)
    assert list((tmp_path / "objects").iterdir()) == []


def test_stopped_service_does_not_answer(tmp_path: Path) -> None:
    service = Service(tmp_path).start()
    caller = Caller(service, LOCAL_KEY)
    caller.call("GET", "/tasks")
    service.stop()
    service.stop()
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        caller.call("GET", "/tasks")
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", caller.connection.port), timeout=60)


def test_port_that_is_taken(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        port = int(service.base_url.split(":")[2].split("/")[0])
        with pytest.raises(OSError, match="in use"):
            Service(tmp_path, port=port)


def test_a_process_without_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits of memory or of processes forbid them."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(StateError, match="no thread can be started"), Service(tmp_path / "state"):
        pass


def test_service_shares_nothing_with_the_client_and_imports_little(tmp_path: Path) -> None:
    script = (
        "import sys, rebyte_cli.local.local_service as s\n"
        "shared = ('rebyte_cli.local', 'rebyte_cli.system', 'rebyte_cli.errors')\n"
        "print([n for n in sys.modules if n.startswith('rebyte_cli')"
        " and not n.startswith(shared)])\n"
        "print([n for n in ('click', 'requests', 'rich', 'keyring', 'werkzeug',"
        " 'importlib.metadata', 'asyncio') if n in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    ).stdout.splitlines()
    assert out == ["['rebyte_cli']", "[]"]


def test_answered_requests_hold_little_until_they_are_collected(service: Any) -> None:
    """The command lets the collector come late; ten thousand requests must fit in between."""
    import gc
    import tracemalloc

    connection = http.client.HTTPConnection(service.base_url.split("/")[2])

    def ask(times: int) -> int:
        for _ in range(times):
            connection.request("GET", "/v1/health")
            connection.getresponse().read()
        return tracemalloc.get_traced_memory()[0]

    ask(5)
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        before = ask(1)
        each = (ask(100) - before) / 100
    finally:
        tracemalloc.stop()
        gc.enable()
        connection.close()
    assert each < 12_000, "bytes a request"


def test_idle_connections_shut_out_no_request(home: Path) -> None:
    """The oldest of them make room. A request that is under way is answered."""
    words = ["sh", "-c", 'ulimit -n 256; exec "$@"', "sh", *COMMAND, "local", "serve", "--port=0"]
    with (
        subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as served,
        contextlib.ExitStack() as opened,
    ):
        opened.callback(served.terminate)
        assert served.stdout is not None
        url = urlsplit(served.stdout.readline().strip())
        body = json.dumps({"prompt": "x"}).encode()
        head = f"POST /v1/tasks HTTP/1.1\r\nHost: {url.netloc}\r\nAPI_KEY: {KEY}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"

        def connect() -> socket.socket:
            place = (url.hostname, url.port)
            return opened.enter_context(socket.create_connection(place, timeout=PATIENCE))

        slow = connect()
        slow.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert slow.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        idle = [connect() for _ in range(400)]
        for _ in range(3):
            request = http.client.HTTPConnection(url.netloc, timeout=PATIENCE)
            request.request("GET", "/v1/tasks", headers={"API_KEY": KEY})
            assert request.getresponse().status == 200
            request.close()
        assert idle[0].recv(1) == b"", "closed"
        slow.sendall(body)
        assert slow.recv(100).startswith(b"HTTP/1.1 201 ")


def test_credits(tmp_path: Path) -> None:
    with serving(tmp_path) as caller:
        before = caller.call("GET", "/billing/credits").document
        caller.create()
        after = caller.call("GET", "/billing/credits").document
    assert before["updatedAt"] is None
    assert before["balance"] - after["balance"] == after["lifetimeUsed"] == 1


def test_ctrl_c_leaves_the_prompt_at_the_start_of_a_line(home: Path) -> None:
    session = Session([*COMMAND, "local", "serve", "--port", "0"], columns=200, echo=True)
    session.until(lambda lines: "Ctrl-C stops it." in "".join(lines))
    session.child.sendintr()
    assert session.finish() == 130
    assert session.raw.endswith("^C\r\n")


# Its own Ctrl-C, as soon as it has said that there is one.
AT_ONCE = """
import os, signal
from rebyte_cli.app import App
note = App.note
def noted(app, text):
    note(app, text)
    if "Ctrl-C stops it." in text:
        os.kill(os.getpid(), signal.SIGINT)
App.note = noted
from rebyte_cli.__main__ import main
main()
"""


def test_ctrl_c_at_once_leaves_it_there_too(home: Path) -> None:
    session = Session.python(AT_ONCE, "local", "serve", "--port", "0", columns=200)
    assert session.finish() == 130
    assert session.raw.endswith("Ctrl-C stops it.\r\n\r\n")
