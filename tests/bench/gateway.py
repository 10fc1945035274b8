"""What the gateway of a run costs: memory, the delay of each piece, and of the first request.

Its upstream and its client are threads of the measuring process, so that delays include those of
the threads; the figure without a gateway says how much.
"""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median, quantiles

from rebyte_cli.local.gateway.gateway_settings import GatewaySettings, ModelRoute, command

from ..certificates import certificate
from .environment import PLACE, PYTHON, REBYTE, variables
from .measure import MIB, Row, finished, run

PIECES, PAUSE, REPEATS = 500, 0.002, 5
LARGE = 200_000_000
PAIRS = 9
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
AGENT = """#!/bin/sh
cat > /dev/null
curl -s -d '{}' -H "x-api-key: $ANTHROPIC_API_KEY" "$ANTHROPIC_BASE_URL/v1/messages"
"""


class Upstream:
    """A model that answers each connection with what `script` sends."""

    def __init__(self, script: Callable[[socket.socket], None], tls: ssl.SSLContext | None) -> None:
        self._script, self._tls = script, tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            sock, _ = self._listener.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._tls.wrap_socket(sock, server_side=True) if self._tls else sock as wire:
                while not wire.recv(65536).endswith(b"{}"):
                    pass
                wire.sendall(HEAD)
                self._script(wire)


def _ticking(wire: socket.socket) -> None:
    for _ in range(PIECES):
        time.sleep(PAUSE)
        wire.sendall(b"data: %d\n\n" % time.perf_counter_ns())


def _large(wire: socket.socket) -> None:
    piece = b"data: " + b"x" * 65_000 + b"\n\n"
    for _ in range(LARGE // len(piece)):
        wire.sendall(piece)


class RunningGateway:
    """A gateway of the installed package, in front of an upstream; with TLS, one that has a CA."""

    def __init__(self, port: int, folder: Path, ca_file: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port: int = listener.getsockname()[1]
            url = f"{'https' if ca_file else 'http'}://localhost:{port}"
            model = ModelRoute("anthropic", "anthropic", url, "k" * 20, "x-api-key", "p")
            settings = GatewaySettings(
                listener.fileno(), (model,), (), str(folder / "record"),
                certificates={"SSL_CERT_FILE": ca_file} if ca_file else {},
            )  # fmt: skip
            (package,) = PLACE.glob("lib/python*/site-packages")
            self.process = subprocess.Popen(
                [PYTHON, *command()[1:-1], str(package)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=(listener.fileno(),),
                env={},
                cwd="/",
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(settings.to_json().encode())
        self.process.stdin.close()
        assert self.process.stdout.readline() == b"ready\n"

    def memory(self) -> float:
        """The most that was resident, in MiB."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / MIB
        raise LookupError(line)

    def close(self) -> float:
        """End it; the CPU time that it took, in seconds."""
        self.process.terminate()
        begun = time.perf_counter()
        return finished(self.process, begun).cpu


@contextmanager
def _gateway(port: int, ca_file: str = "") -> Iterator[RunningGateway]:
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(RunningGateway(port, Path(folder), ca_file)) as running,
    ):
        yield running


def _ask(sock: socket.socket) -> None:
    sock.sendall(
        b"POST /anthropic/v1/messages HTTP/1.1\r\nHost: h\r\nx-api-key: p\r\n"
        b"Content-Length: 2\r\n\r\n{}"
    )


def _delays(sock: socket.socket) -> list[float]:
    """Milliseconds between each piece's sending and its arrival."""
    found = []
    _ask(sock)
    with sock.makefile("rb") as lines:
        for line in lines:
            if line.startswith(b"data: "):
                found.append((time.perf_counter_ns() - int(line[6:])) / 1e6)
    assert len(found) == PIECES
    return found


def _figure(connect: Callable[[], socket.socket]) -> str:
    """The medians, over the repeats, of the median and of the 99th percentile."""
    measured = []
    for _ in range(REPEATS):
        with connect() as sock:
            measured.append(_delays(sock))
    middle = median(median(each) for each in measured)
    late = median(quantiles(each, n=100)[98] for each in measured)
    return f"{middle:.2f} ms  p99 {late:.2f} ms"


def rows(home: Path) -> Iterator[Row]:
    """Delays without and with a gateway, its memory, and the first request; Linux only."""
    if not Path("/proc/self/status").exists():
        return
    made = certificate(home)
    _add_usual(Path(made.ca_file))
    plain, tls = Upstream(_ticking, None), Upstream(_ticking, made.server)
    trusting = ssl.create_default_context(cafile=made.ca_file)

    def directly() -> socket.socket:
        return socket.create_connection(("localhost", plain.port))

    def over_tls() -> socket.socket:
        sock = socket.create_connection(("localhost", tls.port))
        return trusting.wrap_socket(sock, server_hostname="localhost")

    yield Row("a model's answer: a piece arrives after", _figure(directly))
    with _gateway(plain.port) as running:
        through = _figure(lambda: socket.create_connection(("127.0.0.1", running.port)))
        yield Row("  through the gateway", through, "p99 5 ms")
        yield Row("  memory of the gateway", f"{running.memory():.1f} MiB", "25 MiB")
    yield Row("  with TLS", _figure(over_tls))
    with _gateway(tls.port, made.ca_file) as running:
        through = _figure(lambda: socket.create_connection(("127.0.0.1", running.port)))
        yield Row("  through the gateway, with TLS", through, "p99 5 ms")
        yield Row("  memory of the gateway", f"{running.memory():.1f} MiB", "25 MiB")
    yield from _large_answer()
    yield _start(home)
    if shutil.which("bwrap") and shutil.which("curl"):
        yield from _first_request(home)


def _add_usual(ca_file: Path) -> None:
    """Add the system's authorities, since a user's gateway has those in memory."""
    usual = ssl.get_default_verify_paths().cafile
    if usual:
        ca_file.write_text(ca_file.read_text() + Path(usual).read_text())


def _large_answer() -> Iterator[Row]:
    with _gateway(Upstream(_large, None).port) as running:
        before, begun, received = running.memory(), time.perf_counter(), 0
        with socket.create_connection(("127.0.0.1", running.port)) as sock:
            _ask(sock)
            while data := sock.recv(1 << 18):
                received += len(data)
        assert received > 0.99 * LARGE
        seconds, more = time.perf_counter() - begun, running.memory() - before
        figure = f"{more:.1f} MiB more  {LARGE / 1e6 / seconds:.0f} MB/s"
        yield Row("  an answer of 200 MB", figure, "constant")


def _start(home: Path) -> Row:
    """What a gateway adds to the start of a run, which mostly overlaps with it."""
    (home / "start").mkdir()
    gateways = [RunningGateway(9, home / "start", "").close() for _ in range(REPEATS)]
    door = [PYTHON, "-I", "-S", "-c", "import os, socket"]
    doors = [run(door, variables(home)).cpu for _ in range(REPEATS)]
    figure = f"{1000 * median(gateways):.0f} ms + {1000 * median(doors):.0f} ms"
    return Row("  CPU time to start it, and in the jail", figure, "150 ms")


class _Noting(BaseHTTPRequestHandler):
    """Remembers when a request came."""

    times: list[float] = []  # noqa: RUF012 - of the one server that there is

    def do_POST(self) -> None:
        self.times.append(time.perf_counter())
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Stay silent."""


def _first_request(home: Path) -> Iterator[Row]:
    """From the start of the command to the first request of its agent, with each network."""
    agent, config = home / "agent", home / "config/rebyte/config.toml"
    agent.write_text(AGENT)
    agent.chmod(0o755)
    config.parent.mkdir(parents=True)
    config.write_text(
        f'[local.agents.mine]\nmodel = "anthropic"\ncommand = [{json.dumps(str(agent))}]\n'
    )
    config.chmod(0o600)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Noting)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    env = variables(home, ANTHROPIC_BASE_URL=url, ANTHROPIC_API_KEY="k" * 20)

    def seconds(network: str) -> float:
        words = [REBYTE, "-P", "local", "create", "x", "-x", "mine", "--network", network]
        begun = time.perf_counter()
        subprocess.run([*words, "--wait", "-q"], env=env, check=True, stdout=subprocess.DEVNULL)
        return _Noting.times.pop() - begun

    seconds("host")  # the first run looks whether a jail works
    pairs = [(seconds("host"), seconds("list")) for _ in range(PAIRS)]
    server.shutdown()
    more = median(listed - shared for shared, listed in pairs)
    figure = f"{more:.3f} s  ({median(listed for _, listed in pairs):.2f} s)"
    yield Row("  a run's first request, beside --network host", figure, "0.15 s")
