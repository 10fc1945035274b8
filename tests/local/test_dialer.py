"""`-P local` and a running `local serve`: it is used once it has proved itself, and not before.

Whatever else may listen on the port that is on record gets neither a key nor a request, and the
command works all the same, with a service inside its own process.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import pytest

from rebyte_cli.api.client import RebyteClient
from rebyte_cli.api.transport import Transport
from rebyte_cli.errors import APIError
from rebyte_cli.local import dialer as dialer_module
from rebyte_cli.local.agents.agent_permission import AgentPermission, machine_key
from rebyte_cli.local.dialer import Dialer
from rebyte_cli.local.local_service import Service
from rebyte_cli.local.store import SERVED, Store
from rebyte_cli.system.http_server import Environ
from tests.conftest import COMMAND, Done
from tests.servers import close_listener
from tests.waiting import eventually


class Stranger:
    """Another program on a port of this machine. `answer` says what it makes of what it gets.

    `heard` is all that clients ever sent to it.
    """

    def __init__(self, answer: Callable[[bytes], bytes | None]) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.origin = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.heard = b""

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        close_listener(self._listener)
        for connection in self._open:
            connection.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._open.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := connection.recv(65536):
                self.heard += data
                answer = self._answer(data)
                if answer is not None:
                    connection.sendall(answer)


def said(body: str) -> bytes:
    """An answer of HTTP."""
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def record(state: Path, origin: str, instance: str = "an-instance") -> None:
    """Have the folder say that a service is served there."""
    store = Store(state)
    store.remember("address", origin)
    store.remember(SERVED + instance, origin)
    store.close()


@contextlib.contextmanager
def calling(state: Path) -> Iterator[tuple[RebyteClient, Dialer]]:
    """A client as `-P local` has it."""
    dialer = Dialer(state, None, lambda _: None)
    with RebyteClient(transport=Transport(dialer.base_url, dialer.key, connector=dialer)) as client:
        yield client, dialer
    dialer.stop()


def is_embedded(dialer: Dialer) -> bool:
    """Whether the client has a service inside this process."""
    return dialer._service is not None


@pytest.fixture
def state(home: Path) -> Path:
    """The folder of the local service of the commands that a test runs."""
    return home / ".local" / "state" / "rebyte" / "local"


def watched(state: Path, tell: Callable[[str], object]) -> Service:
    """A service that tells each request, with the status, before it answers."""
    service = Service(state)
    application = service._api.application

    def telling(environ: Environ, start: Callable[..., Any]) -> Iterable[bytes]:
        def told(status: str, headers: list[tuple[str, str]]) -> object:
            tell(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']} {status[:3]}")
            return start(status, headers)

        return application(environ, told)

    service._api.application = telling
    return service


def test_a_served_service_is_used_and_one_connection_serves_many_calls(state: Path) -> None:
    requests: list[str] = []
    with watched(state, requests.append) as service, calling(state) as (client, dialer):
        task = client.create_task("Say hello")
        assert client.get_task(task["id"])["id"] == task["id"]
        assert task["url"].startswith(service.base_url.removesuffix("/v1"))
        assert not is_embedded(dialer)
    assert requests == [
        "GET /proof 200", "POST /v1/tasks 201", f"GET /v1/tasks/{task['id']} 200",
    ]  # fmt: skip


def test_without_a_served_service_the_store_is_opened_once(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    monkeypatch.setattr(
        dialer_module, "Store", lambda folder: (opened.append(folder), Store(folder))[1]
    )
    monkeypatch.setattr("rebyte_cli.local.local_service.Store", opened.append)
    with calling(state) as (client, dialer):
        client.create_task("Say hello")
        assert is_embedded(dialer)
    assert opened == [state]


@pytest.mark.parametrize("is_served", [True, False])
def test_a_body_does_not_wait_for_the_acknowledgement_of_its_head(
    state: Path, is_served: bool
) -> None:
    """Between two programs of one machine, that would take longer than all the rest."""
    with contextlib.ExitStack() as stack:
        if is_served:
            stack.enter_context(Service(state))
        _, dialer = stack.enter_context(calling(state))
        parts = urlsplit(dialer.origin)
        connection = dialer.connect((str(parts.hostname), parts.port or 0), 5.0)
        assert connection is not None
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(said('{"status": "ok", "instance": "an-instance"}'), id="health"),
        pytest.param(said("0" * 64), id="a proof that it made up"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n" * 300, id="another protocol"),
        pytest.param(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", id="404"),
        pytest.param(None, id="silence"),
    ],
)
def test_a_stranger_on_the_port_gets_no_key_and_is_not_believed(
    state: Path, answer: bytes | None
) -> None:
    with Stranger(lambda _: answer) as stranger:
        record(state, stranger.origin)
        with calling(state) as (client, dialer):
            task = client.create_task("A secret prompt")
            assert client.get_task(task["id"])["prompts"]
            assert is_embedded(dialer)
        eventually(lambda: stranger.heard)
    assert stranger.heard.startswith(b"GET /proof?challenge=")
    assert stranger.heard.count(b"\r\n\r\n") == 1
    assert b"rbk_" not in stranger.heard
    assert machine_key(state).encode() not in stranger.heard


def test_a_stranger_cannot_pass_on_the_proof_of_the_real_service(state: Path) -> None:
    """It asks the real one, on another port, with the challenge that it got."""
    with Service(state) as service:
        port = int(service.base_url.split(":")[2].split("/")[0])

        def pass_on(data: bytes) -> bytes:
            with socket.create_connection(("127.0.0.1", port)) as real:
                real.sendall(data)
                return real.recv(65536)

        with Stranger(pass_on) as stranger:
            record(state, stranger.origin, service.instance)
            with calling(state) as (client, dialer):
                assert client.list_tasks()["data"] == []
                assert is_embedded(dialer)
    assert b"API_KEY" not in stranger.heard


def test_the_service_of_another_folder_on_a_recycled_port_is_not_used(
    state: Path, tmp_path: Path
) -> None:
    with Service(tmp_path / "other") as other, calling(tmp_path / "other") as (elsewhere, _):
        record(state, other.base_url.removesuffix("/v1"), other.instance)
        with calling(state) as (client, dialer):
            client.create_task("Say hello")
            assert is_embedded(dialer)
        assert elsewhere.list_tasks()["total"] == 0


def test_without_any_record_links_point_where_a_service_would_be_served(state: Path) -> None:
    with calling(state) as (client, _):
        assert client.create_task("Say hello")["url"].startswith("http://127.0.0.1:8787/run/")


def test_a_record_of_a_service_that_was_killed_is_passed_over(state: Path) -> None:
    with socket.socket() as gone:
        gone.bind(("127.0.0.1", 0))  # and does not listen: no other program takes the port
        origin = f"http://127.0.0.1:{gone.getsockname()[1]}"
        record(state, origin)
        with calling(state) as (client, dialer):
            assert client.create_task("Say hello")["url"].startswith(f"{origin}/run/")
            assert is_embedded(dialer)
    assert Store(state).served() == []


def test_an_older_service_does_not_hide_the_one_that_works(state: Path) -> None:
    with Service(state) as service:
        record(state, "http://127.0.0.1:1")
        with calling(state) as (client, dialer):
            client.create_task("Say hello")
            assert not is_embedded(dialer)
        assert [one.instance for one in Store(state).served()] == [service.instance]


@pytest.mark.parametrize("side", ["serve --simulate", "a command with REBYTE_LOCAL_AGENTS=0"])
def test_both_sides_have_to_agree_on_whether_agents_run(
    state: Path, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    monkeypatch.setenv("REBYTE_LOCAL_AGENTS", "1")
    simulate = side == "serve --simulate"
    with Service(state, simulate=simulate):
        if not simulate:
            monkeypatch.setenv("REBYTE_LOCAL_AGENTS", "0")
        with calling(state) as (client, dialer):
            client.list_tasks()
            assert is_embedded(dialer)


def test_a_proof_holds_for_one_challenge_instance_address_and_format(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REBYTE_LOCAL_AGENTS", "1")
    made = AgentPermission(state, simulate=False)
    proofs = [made.proof(*words) for words in ("cib", "xib", "cxb", "cix")]
    proofs.append(AgentPermission(state, simulate=True).proof(*"cib"))
    proofs.append(AgentPermission(state, simulate=False, version=1).proof(*"cib"))
    assert len(set(proofs)) == len(proofs)


def test_the_key_of_commands_sees_all_and_starts_nothing_in_a_served_service(state: Path) -> None:
    served = AgentPermission(state, simulate=False)
    embedded = AgentPermission(state, simulate=False, embedded=True)
    key = served.command_key()
    assert key != served.own_key()
    assert served.is_own(key)
    assert served.belongs_elsewhere(key)
    assert not embedded.belongs_elsewhere(key)
    assert not served.belongs_elsewhere(served.own_key())
    assert not served.is_own(key[:-1] + ("0" if key[-1] != "0" else "1"))


def test_requests_that_a_served_service_declines_run_in_the_process_of_the_command(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real agent: the command says what runs where, and the agent gets its environment."""
    monkeypatch.setenv("REBYTE_LOCAL_AGENTS", "1")
    requests: list[str] = []
    with watched(state, requests.append), calling(state) as (client, dialer):
        client.list_tasks()
        assert not is_embedded(dialer)
        with pytest.raises(APIError) as raised:  # no such program here: it was tried at least
            client.create_task("Say hello", executor="gemini")
        assert is_embedded(dialer)
        assert raised.value.code == "executor_unavailable"
        assert raised.value.exit_status == 3
        assert client.list_tasks()["total"] == 0
    assert [line[-3:] for line in requests if "POST" in line] == ["421"]


def test_requests_that_are_declined_at_the_same_moment_all_go_elsewhere(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of a batch: none knows that another one has been declined already."""
    monkeypatch.setenv("REBYTE_LOCAL_AGENTS", "1")
    count = 8
    together, codes = threading.Barrier(count), list[str | None]()

    def hold(line: str) -> None:
        """The served service tells this before it answers: all wait for the last of them."""
        if "POST" in line:
            together.wait(60)

    with watched(state, hold), calling(state) as (client, _):
        client.list_tasks()

        def create() -> None:
            with pytest.raises(APIError) as raised:
                client.create_task("Say hello", executor="gemini")
            codes.append(raised.value.code)

        threads = [threading.Thread(target=create) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert codes == ["executor_unavailable"] * count


class Serving:
    """`rebyte local serve` in a separate process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [*COMMAND, "local", "serve", "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.base_url = self._process.stdout.readline().strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self._process.kill()
        self._process.communicate()

    def stop(self) -> None:
        """End it as Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)
        self._process.communicate(timeout=60)


def started(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "-P", "local", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_a_create_whose_service_is_killed_before_it_answers_makes_one_task(
    state: Path, local: Callable[..., Done]
) -> None:
    """The outcome is unknown, so the task is searched for, in a service of the command's own."""

    def tasks() -> Any:
        with contextlib.closing(Store(state)) as store, store.read() as db:
            return [row["id"] for row in db.execute("SELECT id FROM tasks")]

    with Serving() as serving:
        command = started("create", "[[slow-create=20s]] Say hello", "-o", "json")
        eventually(tasks)
        serving.kill()
        out, err = command.communicate(timeout=120)
    assert command.returncode == 0, err
    assert [json.loads(out)["id"]] == tasks()
    assert local("list", "-o", "json").json["total"] == 1


@pytest.mark.slow
def test_a_wait_continues_after_its_service_stopped(
    state: Path, local: Callable[..., Done]
) -> None:
    with Serving() as serving:
        task = local("create", "[[run=1h]] Say hello", "-o", "id").out.strip()
        command = started("wait", task, "-v", "-o", "json")
        assert command.stderr is not None
        while f"/tasks/{task}" not in command.stderr.readline():
            assert command.poll() is None
        serving.stop()
        assert local("cancel", task).status == 0
        out, err = command.communicate(timeout=60)
    assert command.returncode == 11, err
    assert json.loads(out)["status"] == "canceled"
    assert Store(state).served() == []


def test_the_command_uses_a_service_in_another_process(local: Callable[..., Done]) -> None:
    with Serving() as serving:
        done = local("create", "Say hello", "-v", "-o", "json")
        assert done.status == 0
        assert done.json["url"].startswith(serving.base_url.removesuffix("/v1"))
        assert "GET /proof" not in done.err
