"""The service that `open` starts: it works in any browser of the user, and ends by itself."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from rebyte_cli.local import background
from rebyte_cli.local.agents.agent_permission import AgentPermission
from rebyte_cli.local.local_service import Service
from rebyte_cli.local.store import ServedService, Store
from tests.conftest import COMMAND, Done
from tests.waiting import eventually, is_running

from .test_pages import pretend_real

Run = Callable[..., Done]


@pytest.fixture
def store(home: Path) -> Iterator[Store]:
    """The state folder of `-P local`; a service left in the background is ended."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        origin = f"http://127.0.0.1:{free.getsockname()[1]}"
    store = Store(home / ".local/state/rebyte/local")
    store.remember("address", origin)  # and not the usual port, which may be anyone's
    yield store
    for one in store.served():
        if one.in_background:
            end(store, one)
    store.close()


@pytest.fixture
def opened(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which a browser writes down what it is told to open."""
    seen, script = home / "opened", home / "browser.py"
    script.write_text("import sys; open(sys.argv[1], 'a').write(sys.argv[2] + '\\n')")
    words = [sys.executable, "-I", "-S", str(script), str(seen)]
    monkeypatch.setenv("BROWSER", shlex.join(words) + " %s")
    return seen


def end(store: Store, served: ServedService) -> None:
    os.kill(served.pid, signal.SIGTERM)
    eventually(lambda: not is_running(served.pid))
    assert served not in store.served()


def visit(link: str, cookie: str = "") -> HTTPResponse:
    """What a browser gets, redirections not followed; the body is read."""
    parts = urlsplit(link)
    with closing(HTTPConnection(parts.hostname or "", parts.port, timeout=60)) as connection:
        headers = {"Cookie": cookie} if cookie else {}
        connection.request("GET", f"{parts.path}?{parts.query}", headers=headers)
        answer = connection.getresponse()
        answer.text = answer.read().decode()  # type: ignore[attr-defined] - for the caller
        return answer


def real_task(local: Run, store: Store) -> Any:
    """A task that only its owner may see."""
    task = local("create", "Say hello [[run=1ms]]").json
    pretend_real(store.folder, task)
    return task


@pytest.mark.slow
def test_open_starts_a_service_and_lets_a_new_browser_in(
    local: Run, store: Store, opened: Path
) -> None:
    task = real_task(local, store)
    done = local("open", "@last")
    assert (done.status, done.out) == (0, "")
    link = opened.read_text().strip()
    assert urlsplit(link).path == f"/run/{task['id']}"
    key = link.partition("?key=")[2]
    permission = AgentPermission(store.folder, simulate=False)
    assert key not in done.err + permission.own_key() + permission.command_key()
    answer = visit(link)
    assert (answer.status, answer.headers["Location"].partition("#")[0]) == (
        303,
        f"/run/{task['id']}",
    )
    session = answer.headers["Set-Cookie"].partition(";")[0]
    page = link.partition("?key=")[0]
    shown = visit(page, session)
    assert "what the agent said" in shown.text  # type: ignore[attr-defined] - see `visit`
    assert visit(link).status == 403
    without = visit(page)
    assert without.status == 404
    assert f"rebyte -P local open {task['id']}" in without.text  # type: ignore[attr-defined] - see `visit`
    # The next one uses the same service.
    (served,) = store.served()
    assert local("open", "@last").status == 0
    assert store.served() == [served]


@pytest.mark.slow
def test_a_printed_link_lets_a_new_browser_in_too(local: Run, store: Store, opened: Path) -> None:
    task = real_task(local, store)
    done = local("open", "@last", "--print")
    page = done.out.partition("?key=")[0]
    # Another program may have taken the port that was to be the service's.
    assert (done.status, urlsplit(page).path) == (0, f"/run/{task['id']}")
    answer = visit(done.out.strip())
    assert answer.status == 303
    session = answer.headers["Set-Cookie"].partition(";")[0]
    assert "what the agent said" in visit(page, session).text  # type: ignore[attr-defined] - see `visit`
    assert not opened.exists()


@pytest.mark.slow
def test_the_background_service_is_on_its_own(local: Run, store: Store, opened: Path) -> None:
    """It outlives the terminal, holds nothing of the command's open, and ends on SIGTERM."""
    local("create", "Say hello [[run=1ms]]")
    with subprocess.Popen(
        [*COMMAND, "-P", "local", "open", "@last"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as command:
        group = command.pid
        out, _ = command.communicate(timeout=60)  # which ends when all who hold the pipes have
        assert (command.returncode, out) == (0, b"")
    (served,) = store.served()
    assert served.in_background
    assert os.getsid(served.pid) not in (group, os.getsid(0))
    held = {os.readlink(one) for one in Path(f"/proc/{served.pid}/fd").iterdir()}
    assert not {one for one in held if one.startswith("pipe:")}
    assert os.readlink(f"/proc/{served.pid}/cwd") == "/"
    end(store, served)
    assert store.served() == []


@pytest.mark.slow
def test_two_opens_at_once_start_one_service(local: Run, store: Store, opened: Path) -> None:
    local("create", "Say hello [[run=1ms]]")
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: local("open", "@last"), range(4)))
    assert [one.status for one in done] == [0] * 4, done
    (served,) = store.served()
    links = opened.read_text().split()
    assert len(links) == 4
    assert {visit(link).status for link in links} == {303}
    assert all(link.startswith(served.origin) for link in links)


def test_it_ends_when_it_is_idle(home: Path, store: Store) -> None:
    served = background.ensure(store, None, idle=0.3)
    eventually(lambda: not is_running(served.pid))
    assert store.served() == []


def test_a_request_that_goes_on_keeps_it(store: Store) -> None:
    """A page that is open follows the events of its task."""
    with Service(store.folder) as service:
        with closing(HTTPConnection("127.0.0.1", int(service.origin.rpartition(":")[2]))) as wire:
            body = json.dumps({"prompt": "Wait [[run=1h]]"})
            headers = {"API_KEY": "rbk_x", "Content-Type": "application/json"}
            wire.request("POST", "/v1/tasks", body, headers)
            task = json.loads(wire.getresponse().read())["id"]
            eventually(lambda: service.idle_seconds() > 0)
            wire.request("GET", f"/run/{task}/events")
            wire.getresponse().readline()
            assert service.idle_seconds() == 0
        eventually(lambda: service.idle_seconds() > 0)


@pytest.mark.slow
def test_what_took_the_port_gets_no_key(local: Run, store: Store, opened: Path) -> None:
    """Another program may listen where a service was killed, and have heard its instance."""
    with Service(store.folder) as real:
        address, instance = real.origin, real.instance
    heard: list[bytes] = []

    class Stranger(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.path.encode())
            body = json.dumps({"instance": instance}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Stay silent."""

    with ThreadingHTTPServer(("127.0.0.1", int(address.rpartition(":")[2])), Stranger) as stranger:
        threading.Thread(target=stranger.serve_forever, args=(0.02,), daemon=True).start()
        store.remember(f"served {instance}", f"{address} {os.getpid()}")
        local("create", "Say hello [[run=1ms]]")
        done = local("open", "@last")
        stranger.shutdown()
    assert done.status == 0, done.err
    link = opened.read_text().strip()
    assert not link.startswith(address)
    assert visit(link).status == 303
    assert heard
    assert not [one for one in heard if b"key=" in one]


# `local serve` and `local status` beside it


@contextmanager
def serving(*words: str) -> Iterator[tuple[str, str]]:
    """`rebyte local serve`, and the first lines of its stdout and stderr; ended at the end."""
    with subprocess.Popen(
        [*COMMAND, "local", "serve", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout
            assert process.stderr
            yield process.stdout.readline(), process.stderr.readline()
        finally:
            process.terminate()
            process.communicate(timeout=60)


@pytest.mark.slow
def test_a_second_serve_says_that_one_serves_already(
    rebyte: Run, store: Store, opened: Path
) -> None:
    with Service(store.folder) as service:
        port = service.origin.rpartition(":")[2]
        for words in ((), ("--port", port)):
            done = rebyte("local", "serve", *words)
            assert (done.status, done.out) == (1, "")
            there = f"{service.base_url} by process {os.getpid()}"
            assert done.err.startswith(f"Error: already served at {there}\nHint: ")
            assert "rebyte local status" in done.err
        # Who names another port means it.
        with serving("--port", "0") as (out, err):
            assert out.strip() not in ("", service.base_url)
            assert err == f"Process {os.getpid()} serves the same tasks at {service.base_url}\n"


def test_serve_takes_the_place_of_the_service_in_the_background(store: Store) -> None:
    served = background.ensure(store, None)
    with serving("--port", served.origin.rpartition(":")[2]) as (out, err):
        assert out == f"{served.origin}/v1\n"
        assert err == f"Stopped the service in the background (process {served.pid})\n"
        eventually(lambda: not is_running(served.pid))


def test_status_prints_a_link_that_lets_a_browser_in(inside: Run, store: Store) -> None:
    assert inside("local", "status").json["pages"] is None
    with Service(store.folder) as service:
        link = inside("local", "status").json["pages"]
        assert link.startswith(f"{service.origin}/?key=")
        assert visit(link).status == 303
        assert visit(link).status == 403
        assert service.key not in link
