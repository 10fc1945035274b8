"""A proxy on loopback that forwards whole requests and can be told to cut them anywhere.

    with CuttingProxy(service.base_url) as proxy:
        proxy.cut("POST", "/v1/tasks", Cut.AFTER)  # done, and the client hears nothing
        client = RebyteClient("rbk_test", base_url=proxy.base_url)

It never sends anything twice by itself. `proxy.seen` are the requests that came in,
`proxy.forwarded` those that reached the server.
"""

from __future__ import annotations

import re
import socket
import struct
import threading
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from tests.servers import close_listener


class Cut(Enum):
    """What becomes of one request."""

    BEFORE = "reset before the server hears of it"
    AFTER = "reset after the server has answered, with none of the answer passed on"
    MIDWAY = "half of the answer's body is passed on, then the connection closes"
    SLOW = "the answer is passed on when `then` returns"
    HELD = "the server hears nothing, and the client neither for as long as it waits"
    MUTE = "the server hears of it, the client hears nothing for as long as it waits"
    STATUS = "the server hears of it, the client gets the status of a gateway"


class Rule(NamedTuple):
    """One cut that is still to be made, on the first request that fits."""

    method: str
    path: re.Pattern[str]
    cut: Cut
    status: int
    then: Callable[[], object] | None


class CuttingProxy:
    """Forwards to `upstream` (a base URL); `base_url` is its own."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or "", parts.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{self._listener.getsockname()[1]}{parts.path}"
        self.seen: list[tuple[str, str]] = []
        self.forwarded: list[tuple[str, str]] = []
        self._rules: list[Rule] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()

    def cut(
        self,
        method: str,
        path: str,
        cut: Cut,
        *,
        times: int = 1,
        status: int = 504,
        then: Callable[[], object] | None = None,
    ) -> None:
        """Cut the next `times` requests whose path (with query) matches; `then` runs right after
        the server has answered and before the client can know.
        """
        rule = Rule(method, re.compile(path), cut, status, then)
        with self._lock:
            self._rules += [rule] * times

    def count(self, method: str, path: str = "") -> int:
        """How many requests of a kind came in."""
        return sum(1 for m, p in self.seen if m == method and re.search(path, p))

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        close_listener(self._listener)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            while request := _read_message(client):
                method, path = request.split(b" ", 2)[:2]
                if not self._one(client, method.decode(), path.decode(), request):
                    return

    def _one(self, client: socket.socket, method: str, path: str, request: bytes) -> bool:
        """Deal with one request; False when the connection is over."""
        with self._lock:
            self.seen.append((method, path))
            fitting = (r for r in self._rules if r.method == method and r.path.search(path))
            rule = next(fitting, None)
            if rule is not None:
                self._rules.remove(rule)
        if rule is not None and rule.cut is Cut.BEFORE:
            _reset(client)
            return False
        if rule is not None and rule.cut is Cut.HELD:
            self._closing.wait(30)
            return False
        with self._lock:
            self.forwarded.append((method, path))
        with socket.create_connection(self._upstream) as server:
            server.sendall(request)
            answer = _read_message(server)
        if rule is None:
            client.sendall(answer)
            return True
        if rule.then is not None:
            rule.then()
        if rule.cut is Cut.SLOW:
            client.sendall(answer)
            return True
        if rule.cut is Cut.AFTER:
            _reset(client)
        elif rule.cut is Cut.MIDWAY:
            client.sendall(answer[: answer.index(b"\r\n\r\n") + 4 + 10])
        elif rule.cut is Cut.STATUS:
            page = b"<html>gateway</html>"
            head = f"HTTP/1.1 {rule.status} Gateway\r\nContent-Type: text/html\r\n"
            client.sendall(f"{head}Content-Length: {len(page)}\r\n\r\n".encode() + page)
            return True
        else:
            self._closing.wait(30)
        return False


def _reset(client: socket.socket) -> None:
    """Close with a TCP reset, as a crashed gateway does."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def _read_message(source: socket.socket) -> bytes:
    """One request or answer with a Content-Length; empty when the other side has closed."""
    data = b""
    try:
        while b"\r\n\r\n" not in data:
            piece = source.recv(65536)
            if not piece:
                return b""
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        wanted = int(length[1]) if length else 0
        while len(body) < wanted:
            piece = source.recv(65536)
            if not piece:
                return b""
            body += piece
    except OSError:
        return b""
    return head + b"\r\n\r\n" + body
