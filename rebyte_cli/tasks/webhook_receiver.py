"""Receive webhook deliveries on this machine, at the end of a tunnel.

The receiver answers fast and trusts little: bodies are small, connections few and short, the
shared secret is compared in constant time, and whatever is not a JSON object is refused. So is
every request that a page in a browser could make.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import queue
import socket
import threading
from collections.abc import Collection, Generator
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn
from typing import Any
from urllib.parse import urlsplit

from ..api.views import no_ids
from ..errors import BadUsage

LARGEST_BODY = 1024 * 1024  # bytes; the known fields of a delivery take a hundred
CONNECTIONS = 32
REQUEST_SECONDS = 10.0  # for one read; a whole request gets three times as long
WAITING = 1000  # deliveries that may wait to be taken
DEEPEST = 64  # levels of nesting in a delivery; more breaks some JSON readers
ROOM_SECONDS = 1.0  # for a connection to end when there is no room for another
GRACE_SECONDS = 3.0  # from the request to end to the end by force


class WebhookReceiver(ThreadingMixIn, HTTPServer):
    """Listen on 127.0.0.1 and hand out deliveries as they come.

    `port` 0 takes a free one; `secret` is what `X-Webhook-Secret` must hold, None for no check;
    `hosts` are names that `Host` may have besides those of loopback: a tunnel's. Raises BadUsage
    when the port is taken.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, port: int, *, secret: str | None = None, hosts: Collection[str] = ()
    ) -> None:
        self.secret = secret
        self.hosts = frozenset(host.lower() for host in hosts)
        # Of all queues only this one may be used by a signal handler.
        self.deliveries: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.most_waiting = WAITING
        self._free = threading.BoundedSemaphore(CONNECTIONS)
        self._open: dict[Any, None] = {}  # the oldest first
        self._lock = threading.Lock()
        # Held from taking a delivery to answering it, so that a listener that ends right after
        # this delivery does not leave its sender without an answer.
        self.answering = threading.Lock()
        try:
            super().__init__(("127.0.0.1", port), _WebhookHandler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or "no such port"
            raise BadUsage(f"cannot listen on port {port}: {reason}") from None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}/"

    def take(self) -> Generator[dict[str, Any], None, None]:
        """Listen, and yield deliveries as they come until `finish` is called."""
        thread = threading.Thread(
            target=self.serve_forever, args=(0.1,), daemon=True, name="rebyte-receiver"
        )
        thread.start()
        try:
            while True:
                try:
                    # A wait without a limit cannot be interrupted on Windows.
                    delivery = self.deliveries.get(timeout=1)
                except queue.Empty:
                    continue
                if delivery is None:
                    return
                yield delivery
        finally:
            self.shutdown()
            with self.answering:
                self.server_close()

    def finish(self) -> None:
        """End `take` behind the deliveries that wait. Safe in a signal handler."""
        self.deliveries.put(None)

    def accept(self, delivery: dict[str, Any]) -> bool:
        """Queue one delivery. False when too many wait. Call with `answering` held."""
        if self.deliveries.qsize() >= self.most_waiting:
            return False
        self.deliveries.put(delivery)
        return True

    def server_bind(self) -> None:
        # HTTPServer would ask the name service for the host's full name here.
        from socketserver import TCPServer

        TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(timeout=ROOM_SECONDS):
            # The oldest connection is slow, or is there to keep the others out.
            with self._lock:
                for oldest in list(self._open)[:1]:
                    _hang_up(oldest)
            if not self._free.acquire(timeout=ROOM_SECONDS):
                self.shutdown_request(request)
                return
        with self._lock:
            self._open[request] = None
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        # The socket's own limit is per read; this one ends a request that comes byte by byte.
        cut = threading.Timer(REQUEST_SECONDS * 3, _hang_up, [request])
        cut.daemon = True
        cut.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            cut.cancel()
            with self._lock:
                self._open.pop(request, None)
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a caller that vanished or sent no HTTP needs no report."""


class _WebhookHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "rebyte"
    sys_version = ""
    timeout = REQUEST_SECONDS
    server: WebhookReceiver

    def do_POST(self) -> None:
        if not self._is_for_us():
            return
        body = self._body()
        if body is None:
            return
        if not self._has_secret():
            self._reply(401, "the X-Webhook-Secret header is missing or wrong")
            return
        from ..api.body import BrokenBody, parse_json

        try:
            delivery = parse_json(body) if body.strip() else None
        except BrokenBody:
            delivery = None
        if not isinstance(delivery, dict) or _is_deep(delivery):
            self._reply(400, "a delivery must be a JSON object, nested at most 64 levels deep")
            return
        if no_ids(delivery):
            self._reply(400, "the delivery names a task by what is not an id")
            return
        with self.server.answering:
            if self.server.accept(delivery):
                self._reply(200, "accepted")
            else:
                self._reply(503, "too many deliveries are waiting")

    def do_GET(self) -> None:
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # a body, which would be read as the next request
        if self._is_for_us(with_body=False):
            self._reply(200, "rebyte webhook listen: POST deliveries here")

    do_HEAD = do_GET  # noqa: N815 -- the name http.server looks for

    def _is_for_us(self, *, with_body: bool = True) -> bool:
        """Whether a program may have sent this. Answers and hangs up when only a page can have.

        A page's browser always tells where it comes from, and a page whose name was made to
        resolve to this machine also has that name as its `Host`.
        """
        from ..api.urls import is_loopback

        try:
            host = (urlsplit(f"//{self.headers.get('Host', '')}").hostname or "").lower()
        except ValueError:
            host = ""
        if not is_loopback(host) and host not in self.server.hosts:
            self._refuse(421, f"Host must be a loopback name; for a tunnel, pass --host {host}")
            return False
        if "Origin" in self.headers or "Sec-Fetch-Site" in self.headers:
            self._refuse(403, "requests of web pages are refused")
            return False
        kind = self.headers.get_content_type() if "Content-Type" in self.headers else ""
        if with_body and kind != "application/json" and not kind.endswith("+json"):
            self._refuse(415, "a delivery must have Content-Type: application/json")
            return False
        return True

    def _has_secret(self) -> bool:
        wanted = self.server.secret
        given = self.headers.get("X-Webhook-Secret", "")
        return wanted is None or hmac.compare_digest(
            given.encode("utf-8", "surrogateescape"), wanted.encode()
        )

    def _body(self) -> bytes | None:
        """The body, or None when it was refused. Chunked ones come from tunnels."""
        encodings = [value.lower() for value in self.headers.get_all("Transfer-Encoding", [])]
        lengths = self.headers.get_all("Content-Length", [])
        if encodings == ["chunked"]:
            self.close_connection = bool(lengths) or self.close_connection  # RFC 9112, section 6.3
            return self._chunked()
        # Readers differ about which of two lengths counts.
        text = lengths[0] if len(lengths) == 1 and not encodings else ""
        if not (text.isascii() and text.isdigit()):
            return self._refuse(411, "exactly one Content-Length is required")
        if len(text) > 18 or int(text) > LARGEST_BODY:
            return self._refuse(413, "the body is too large")
        body = self.rfile.read(int(text))
        return body if len(body) == int(text) else self._refuse(400, "the body was cut off")

    def _chunked(self) -> bytes | None:
        body = bytearray()
        while True:
            head = self.rfile.readline(64).split(b";", 1)[0].strip()
            try:
                size = int(head, 16)
            except ValueError:
                return self._refuse(400, "the chunks cannot be read")
            if size < 0 or len(body) + size > LARGEST_BODY:
                return self._refuse(413, "the body is too large")
            body += self.rfile.read(size)
            if self.rfile.readline(8).strip():
                return self._refuse(400, "the chunks cannot be read")
            if size == 0:
                return bytes(body)

    def _refuse(self, status: int, why: str) -> bytes | None:
        self.close_connection = True  # the rest of the body would be read as a request
        self._reply(status, why)
        return None

    def _reply(self, status: int, text: str) -> None:
        data = json.dumps({"message": text}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- as in the parent
        """Say nothing: stderr is for what matters."""


def _is_deep(value: Any) -> bool:
    """Whether a value is nested deeper than `DEEPEST`."""
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
    return bool(level)


def _hang_up(request: socket.socket) -> None:
    with contextlib.suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)
