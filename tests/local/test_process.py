"""The service in a child process: what uses it, and how it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from rebyte_cli.api.client import RebyteClient
from rebyte_cli.api.transport import Transport
from rebyte_cli.commands import _batch
from rebyte_cli.errors import APIError
from rebyte_cli.local.dialer import Dialer
from rebyte_cli.local.process import ServiceProcess
from rebyte_cli.local.store import Store
from tests.conftest import Done
from tests.farm import lines_of
from tests.waiting import eventually


@pytest.fixture
def state(home: Path) -> Path:
    """The folder of the local service of the commands that a test runs."""
    return home / ".local" / "state" / "rebyte" / "local"


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The processes that were started for the service."""
    started: list[subprocess.Popen[bytes]] = []
    start = ServiceProcess.__init__

    def recorded(self: ServiceProcess, *args: object) -> None:
        start(self, *args)  # type: ignore[arg-type]
        started.append(self._process)

    monkeypatch.setattr(ServiceProcess, "__init__", recorded)
    return started


@contextlib.contextmanager
def calling(state: Path) -> Iterator[tuple[RebyteClient, Dialer]]:
    """A client as a long batch has it."""
    dialer = Dialer(state, None, lambda _: None, busy=True)
    with RebyteClient(transport=Transport(dialer.base_url, dialer.key, connector=dialer)) as client:
        yield client, dialer
    dialer.stop()


def prompts(state: Path) -> list[str]:
    """The prompts of all tasks."""
    with contextlib.closing(Store(state)) as store, store.read() as db:
        return [str(row[0]) for row in db.execute("SELECT text FROM prompts")]


def test_it_serves_the_process_that_started_it_alone(
    state: Path, children: list[subprocess.Popen[bytes]]
) -> None:
    with calling(state) as (client, dialer):
        task = client.create_task("Say hello")
        assert client.get_task(task["id"])["id"] == task["id"]
        assert task["url"].startswith("http://127.0.0.1:8787/run/")
        assert dialer._service is None
        with contextlib.closing(Store(state)) as store:
            assert store.served() == []
        (child,) = children
        assert child.poll() is None
        assert os.getsid(child.pid) == child.pid  # so that Ctrl-C reaches the parent alone
    assert child.poll() == 0


def test_the_parent_continues_without_it_if_it_is_killed(
    state: Path, children: list[subprocess.Popen[bytes]]
) -> None:
    with calling(state) as (client, dialer):
        task = client.create_task("Say hello")
        children[0].kill()
        children[0].wait()
        assert client.get_task(task["id"])["id"] == task["id"]
        assert dialer._service is not None


@pytest.mark.parametrize("python", ["/nowhere/python", "/bin/false"])
def test_the_parent_serves_itself_if_no_child_can_be_started(
    state: Path, monkeypatch: pytest.MonkeyPatch, python: str
) -> None:
    monkeypatch.setattr(sys, "executable", python)
    with calling(state) as (client, dialer):
        client.create_task("Say hello")
        assert dialer._service is not None


def test_real_agents_are_started_by_the_parent(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which says what runs where, and has the environment for it."""
    monkeypatch.setenv("REBYTE_LOCAL_AGENTS", "1")
    with calling(state) as (client, dialer):
        client.list_tasks()
        assert dialer._service is None
        with pytest.raises(APIError) as raised:  # no such program here: it was tried at least
            client.create_task("Say hello", executor="gemini")
        assert raised.value.code == "executor_unavailable"
        assert dialer._service is not None


def test_it_ends_when_its_parent_is_killed(state: Path) -> None:
    code = (
        "import sys, time, pathlib; from rebyte_cli.local import process;"
        "one = process.ServiceProcess(pathlib.Path(sys.argv[1]), 'http://127.0.0.1:8787', None);"
        "print(*one.address(), flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(state)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        address = urlsplit(parent.stdout.readline().split()[0])

        def answers() -> bool:
            with contextlib.suppress(OSError):
                socket.create_connection((str(address.hostname), address.port or 0), 60).close()
                return True
            return False

        assert answers()
        parent.send_signal(signal.SIGKILL)
        eventually(lambda: not answers())


@pytest.mark.slow
def test_a_batch_whose_service_is_killed_creates_each_task_once(
    state: Path,
    home: Path,
    inside: Callable[..., Done],
    children: list[subprocess.Popen[bytes]],
) -> None:
    lines = [f"Line {number} [[run=0s]]" for number in range(_batch.MANY)]
    (home / "p.txt").write_text("\n".join(lines))

    def kill() -> None:
        eventually(lambda: children and len(prompts(state)) > 20)
        children[0].kill()

    killer = threading.Thread(target=kill)
    killer.start()
    done = inside("-P", "local", "batch", "p.txt", "--text", "--jobs", "8", "-q", "-o", "jsonl")
    killer.join()
    assert done.status == 0, done.err
    assert {row["status"] for row in lines_of(done.out)} == {"completed"}
    assert sorted(prompts(state)) == sorted(lines)


def test_a_short_batch_starts_no_process(
    home: Path, inside: Callable[..., Done], children: list[subprocess.Popen[bytes]]
) -> None:
    (home / "p.txt").write_text("Say hello [[run=0s]]\n")
    assert inside("-P", "local", "batch", "p.txt", "--text", "-q").status == 0
    assert children == []
