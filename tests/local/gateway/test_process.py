"""The gateway's process: how it begins and ends, and what it lets everyone use."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rebyte_cli.local.gateway import gateway_settings, request_record
from tests.local.gateway.harness import (
    KEY,
    SECONDS,
    GatewayProcess,
    model,
    read_answer,
    request,
)
from tests.local.gateway.upstream import ScriptedServer, read_exactly, read_head
from tests.servers import RawServer, json_reply
from tests.waiting import eventually

pytestmark = pytest.mark.usefixtures("real_supervisors")

# Starts a gateway as a supervisor does, tells its id, and waits to be killed.
PARENT = """
import socket, subprocess, sys, time
from rebyte_cli.local.gateway.gateway_settings import GatewaySettings, command
listener = socket.create_server(("127.0.0.1", 0))
told = GatewaySettings(listener.fileno(), (), (), sys.argv[1])
child = subprocess.Popen(command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    pass_fds=(listener.fileno(),), env={}, cwd="/", start_new_session=True)
child.stdin.write(told.to_json().encode())
child.stdin.close()
assert child.stdout.readline() == b"ready\\n"
print(child.pid, flush=True)
time.sleep(600)
"""


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def test_it_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    words = [sys.executable, "-c", PARENT, str(tmp_path / "record")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
    eventually(lambda: not is_alive(pid), seconds=SECONDS)


def test_what_is_under_way_at_the_end_is_recorded(tmp_path: Path) -> None:
    """A canceled run keeps what it used."""
    told = threading.Event()

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        read_exactly(sock, 2)
        sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
        assert told.wait(SECONDS)

    with ScriptedServer(serve) as server:
        gateway = GatewayProcess(tmp_path, [model(server.url)])
        with gateway, gateway.connect() as sock:
            sock.sendall(request("/anthropic/v1/messages"))
            read_head(sock)
            read_exactly(sock, 9)
        told.set()
        (entry,) = request_record.read(gateway.record)
    assert (entry.status, entry.received) == (200, 4)
    assert entry.fault


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_end_it(tmp_path: Path, number: int) -> None:
    gateway = GatewayProcess(tmp_path)
    with gateway, gateway.connect():
        gateway.process.send_signal(number)
        assert gateway.process.wait(SECONDS) == 0


def test_the_key_is_in_no_list_of_processes(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path, [model("https://model.example")]) as gateway:
        place = Path(f"/proc/{gateway.process.pid}")
        shown = (place / "cmdline").read_bytes() + (place / "environ").read_bytes()
        assert KEY.encode() not in shown
        limit = next(
            line for line in (place / "limits").read_text().splitlines() if "core file" in line
        )
        assert limit.split()[4] == "0"
    assert KEY not in repr(model("https://model.example"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", ["", "[]", "{}", f'{{"listener": "{KEY}"}}', f'{{"models": [{{"key": "{KEY}"}}]}}']
)
def test_settings_that_are_none_are_not_repeated(text: str) -> None:
    done = subprocess.run(
        gateway_settings.command(),
        input=text,
        capture_output=True,
        text=True,
        env={},
        cwd="/",
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("the gateway cannot start: ")
    assert KEY not in done.stderr


def test_nothing_in_its_folder_or_environment_changes_it(tmp_path: Path) -> None:
    for name in ("h11", "json", "socket", "sitecustomize", "rebyte_cli"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('mine')")
    done = subprocess.run(
        gateway_settings.command(),
        input="{}",
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": str(tmp_path / "h11.py")},
        cwd=tmp_path,
        check=False,
    )
    assert done.stderr == "the gateway cannot start: <class 'KeyError'>\n"


def test_too_many_connections_are_told_so(tmp_path: Path) -> None:
    """And those that were there go on."""
    with (
        RawServer(json_reply({})) as server,
        GatewayProcess(
            tmp_path, [model(f"http://127.0.0.1:{server.port}")], connections=2
        ) as gateway,
    ):
        whole = request("/anthropic/v1/messages")
        with gateway.connect() as one, gateway.connect() as two:
            one.sendall(whole[:10])
            two.sendall(whole[:10])
            answer = gateway.send(whole)
            assert (answer.status, answer.headers["retry-after"]) == (503, "10")
            for sock in (one, two):
                sock.sendall(whole[10:])
                assert read_answer(sock).status == 200
        gateway.entries(3)


def test_a_fault_of_the_gateway_closes_the_connection(tmp_path: Path) -> None:
    gateway = GatewayProcess(tmp_path, [model(7)])  # type: ignore[arg-type]  # it is none
    with gateway.connect() as sock:
        sock.settimeout(5)
        sock.sendall(request("/anthropic/v1/messages"))
        with contextlib.suppress(ConnectionError):
            assert sock.recv(1) == b""
    gateway.process.terminate()
    assert gateway.process.wait(SECONDS) == 0
    assert "AttributeError at " in gateway.log.read_text()


def test_requests_per_minute_are_limited(tmp_path: Path) -> None:
    with (
        RawServer(json_reply({})) as server,
        GatewayProcess(
            tmp_path, [model(f"http://127.0.0.1:{server.port}")], requests_per_minute=3
        ) as gateway,
    ):
        assert [gateway.ask().status for _ in range(5)] == [200, 200, 200, 503, 503]
        assert [bool(entry.refused) for entry in gateway.entries(5)] == [False] * 3 + [True] * 2


@pytest.mark.slow
def test_many_connections_at_once(tmp_path: Path) -> None:
    with (
        RawServer(json_reply({"ok": True})) as server,
        GatewayProcess(tmp_path, [model(f"http://127.0.0.1:{server.port}")]) as gateway,
    ):
        bodies: list[bytes] = []

        def ask() -> None:
            for _ in range(10):
                bodies.append(gateway.ask().body)

        threads = [threading.Thread(target=ask) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
        assert bodies == [b'{"ok": true}'] * 200
        gateway.entries(200)
        open_files = Path(f"/proc/{gateway.process.pid}/fd")
        eventually(lambda: len(list(open_files.iterdir())) <= 10, seconds=SECONDS)


def test_the_record_is_private_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with GatewayProcess(tmp_path) as gateway:
            gateway.ask()
            gateway.entries(1)
    finally:
        os.umask(before)
    assert stat.S_IMODE(gateway.record.stat().st_mode) == 0o600
