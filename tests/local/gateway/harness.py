"""A real gateway process, and what is said to it over real sockets."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from rebyte_cli.local.gateway import request_record
from rebyte_cli.local.gateway.gateway_settings import GatewaySettings, Limits, ModelRoute, command
from rebyte_cli.local.gateway.model_budget import ModelBudget
from tests.fork_server import ADDRESS, commands
from tests.forked_gateways import ForkedProcess
from tests.forked_supervisors import AS_REAL
from tests.waiting import eventually

KEY = "sk-real-0123456789abcdef"
PLACEHOLDER = "placeholder-of-this-run"
SECONDS = 60


class GatewayAnswer(NamedTuple):
    """What the gateway sent until it closed the connection; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    raw: bytes

    @property
    def message(self) -> str:
        """What a refusal says."""
        return str(json.loads(self.body)["error"]["message"])


def model(base_url: str, **more: Any) -> ModelRoute:
    """A model of Anthropic's wire at `/anthropic`, unless `more` says otherwise."""
    fields: dict[str, Any] = {
        "name": "anthropic", "wire": "anthropic", "key": KEY, "credential": "x-api-key",
        "placeholder": PLACEHOLDER, **more,
    }  # fmt: skip
    return ModelRoute(base_url=base_url, **fields)


def _started(listener: int, log: int) -> Any:
    """The process of a gateway: a fork, unless the test uses `real_supervisors`."""
    address = commands() / ADDRESS
    if AS_REAL not in os.environ and address.exists():
        return ForkedProcess(str(address), listener, log)
    return subprocess.Popen(
        command(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        pass_fds=(listener,),
        env={},
        cwd="/",
    )


class GatewayProcess:
    """A gateway, started as a supervisor starts it. `port` is where it listens."""

    def __init__(
        self,
        folder: Path,
        models: Iterable[ModelRoute] = (),
        allow: Iterable[str] = (),
        *,
        proxy: Mapping[str, str] | None = None,
        certificates: Mapping[str, str] | None = None,
        budget: ModelBudget | None = None,
        **limits: Any,
    ) -> None:
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = listener.getsockname()[1]
        self.record = folder / "requests.jsonl"
        settings = GatewaySettings(
            listener=listener.fileno(),
            models=tuple(models),
            allow=tuple(allow),
            record=str(self.record),
            user_proxy=proxy or {},
            certificates=certificates or {},
            limits=Limits(**limits),
            budget=budget or ModelBudget(),
        )
        self.log = folder / "gateway.log"
        with listener, self.log.open("wb") as log:
            self.process = _started(listener.fileno(), log.fileno())
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(settings.to_json().encode())
        self.process.stdin.close()
        assert self.process.stdout.readline() == b"ready\n", self.log.read_text()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.process.terminate()
        assert self.process.wait(SECONDS) == 0
        assert self.process.stdout is not None
        self.process.stdout.close()
        if kind is None:
            assert self.log.read_text() == ""

    def connect(self) -> socket.socket:
        """A connection to it."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS)

    def send(self, raw: bytes, *, half_close: bool = False) -> GatewayAnswer:
        """Send bytes, and read until the connection is closed."""
        with self.connect() as sock:
            sock.sendall(raw)
            if half_close:
                sock.shutdown(socket.SHUT_WR)
            return read_answer(sock)

    def ask(
        self,
        target: str = "/anthropic/v1/messages",
        body: bytes = b"{}",
        *,
        method: str = "POST",
        key: str | None = PLACEHOLDER,
        headers: Iterable[tuple[str, str]] = (),
    ) -> GatewayAnswer:
        """Ask a model, with the placeholder in `x-api-key`."""
        return self.send(request(target, body, method=method, key=key, headers=headers))

    def entries(self, count: int) -> list[request_record.RequestEntry]:
        """The record, once it has as many lines of requests that have ended."""

        def read() -> list[request_record.RequestEntry]:
            return request_record.read(self.record)

        def ended() -> bool:
            # What a model did not say is recorded before its answer has ended.
            found = (entry.id is None or entry.seconds for entry in read() if not entry.is_open)
            return sum(map(bool, found)) >= count

        eventually(ended, seconds=SECONDS, told=read)
        found = read()
        assert len(found) == count
        return found


def request(
    target: str,
    body: bytes = b"{}",
    *,
    method: str = "POST",
    key: str | None = PLACEHOLDER,
    headers: Iterable[tuple[str, str]] = (),
) -> bytes:
    """The bytes of a request."""
    lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1"]
    if key is not None:
        lines.append(f"x-api-key: {key}")
    if method != "GET":
        lines.append(f"Content-Length: {len(body)}")
    lines += [f"{name}: {value}" for name, value in headers]
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    return head if method == "GET" else head + body


def read_answer(sock: socket.socket) -> GatewayAnswer:
    """The answer on a connection, which has to end."""
    raw = b""
    while data := sock.recv(65536):
        raw += data
    return parse_answer(raw)


def parse_answer(raw: bytes) -> GatewayAnswer:
    """An answer, whose chunks are put together; status 0 if there is none."""
    if not raw:
        return GatewayAnswer(0, {}, b"", raw)
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        assert name.lower() not in headers, raw
        headers[name.lower()] = value.strip()
    if headers.get("transfer-encoding") == "chunked":
        body = _unchunked(body)
    return GatewayAnswer(int(first.split()[1]), headers, body, raw)


def _unchunked(rest: bytes) -> bytes:
    body = b""
    while True:
        line, _, rest = rest.partition(b"\r\n")
        size = int(line, 16)
        if size == 0:
            return body
        body, rest = body + rest[:size], rest[size + 2 :]
