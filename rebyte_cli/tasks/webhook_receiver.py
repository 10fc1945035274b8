"""A receiver of webhook deliveries on this machine, for the end of a tunnel.

It answers fast and believes little: bodies are small, connections few and short, the shared
secret is compared in constant time, and what is no JSON object gets no further.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import queue
import signal
import socket
import subprocess
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn
from threading import Lock
from typing import Any

from ..errors import BadUsage, RebyteError

# -- A program of the user's that is run for each delivery, and that does not outlive us.

GRACE = 3.0  # seconds from the request to end to the end itself


class Program:
    """A command line, as the user wrote it: the shell finds and splits it.

    Nothing of a delivery is in its arguments or its environment. Any thread may call.
    """

    def __init__(self, command: str) -> None:
        self._command = command
        self._lock = Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def run(self, delivery: dict[str, Any]) -> RebyteError | None:
        """Hand one delivery to it as JSON on its stdin; the error of a run that failed."""
        try:
            with self._lock:
                if self._stopped:
                    return None
                # The user's own command line, with nothing of the delivery in it.
                process = subprocess.Popen(  # noqa: S602 -- for that reason
                    self._command,
                    shell=True,
                    stdin=subprocess.PIPE,
                    # A group of its own, so that all that the shell started can be ended.
                    process_group=0 if os.name == "posix" else None,
                )
                self._running.add(process)
        except OSError as error:
            return RebyteError(f"{self._command}: {error.strerror}", code="exec_failed")
        try:
            process.communicate(json.dumps(delivery).encode() + b"\n")
        finally:
            with self._lock:
                self._running.discard(process)
        if process.returncode == 0 or self._stopped:
            return None
        return RebyteError(f"{self._command} ended with {process.returncode}", code="exec_failed")

    def stop(self) -> None:
        """Start no more, and end the runs that go on: by request, then by force."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for process in running:
            _signal(process, signal.SIGTERM)
        for process in running:
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                _signal(process, getattr(signal, "SIGKILL", signal.SIGTERM))


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(OSError):
        if os.name == "posix":
            os.killpg(process.pid, number)
        else:
            process.terminate()


LARGEST_BODY = 1024 * 1024  # bytes; the known fields of a delivery take a hundred
CONNECTIONS = 32
SECONDS = 10.0  # for a whole request to arrive
WAITING = 1000  # deliveries that may wait for whoever takes them
DEEPEST = 64  # levels of a delivery; more is no delivery, and too much for some who read it
PATIENCE = 1.0  # seconds for a connection to end by itself when there is no room for another


def check_hook(url: str) -> str:
    """A URL that deliveries may be sent to: https (vendor docs), or this machine for trials.

    Raises BadUsage otherwise.
    """
    from urllib.parse import urlsplit

    from ..api.urls import is_loopback

    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        host = ""
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))):
        raise BadUsage("the URL of a webhook starts with https:// and names a host")
    return url


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "rebyte"
    sys_version = ""
    timeout = SECONDS
    server: Receiver

    def do_POST(self) -> None:
        body = self._body()
        if body is None:
            return
        if not self._is_trusted():
            self._reply(401, "the X-Webhook-Secret header is missing or wrong")
            return
        try:
            delivery = json.loads(body)
        except (ValueError, RecursionError):
            delivery = None
        if not isinstance(delivery, dict) or _is_deep(delivery):
            self._reply(400, "a delivery is a JSON object of few levels")
            return
        with self.server.answering:
            try:
                self.server.deliveries.put_nowait(delivery)
            except queue.Full:
                self._reply(503, "too many deliveries are waiting")
            else:
                self._reply(200, "taken")

    def do_GET(self) -> None:
        self._reply(200, "rebyte webhook listen: POST deliveries here")

    do_HEAD = do_GET  # noqa: N815 -- the name http.server looks for

    def _is_trusted(self) -> bool:
        wanted = self.server.secret
        given = self.headers.get("X-Webhook-Secret", "")
        return wanted is None or hmac.compare_digest(
            given.encode("utf-8", "surrogateescape"), wanted.encode()
        )

    def _body(self) -> bytes | None:
        """The body, or None when it was refused. Chunked ones come from tunnels."""
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return self._chunked()
        lengths = self.headers.get_all("Content-Length", [])
        text = lengths[0] if len(lengths) == 1 else ""  # two of them mislead one reader or other
        if not (text.isascii() and text.isdigit()):
            return self._refuse(411, "one Content-Length is wanted")
        if len(text) > 18 or int(text) > LARGEST_BODY:
            return self._refuse(413, "the body is too large")
        body = self.rfile.read(int(text))
        return body if len(body) == int(text) else self._refuse(400, "the body was cut off")

    def _chunked(self) -> bytes | None:
        body = b""
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
                return body

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


class Receiver(ThreadingMixIn, HTTPServer):
    """Listens on 127.0.0.1 and hands out deliveries as they come.

    `port` 0 takes a free one; `secret` is what `X-Webhook-Secret` must hold, None for no check.
    Raises BadUsage when the port is taken.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, *, secret: str | None = None) -> None:
        self.secret = secret
        self.deliveries: queue.Queue[dict[str, Any]] = queue.Queue(WAITING)
        self._free = threading.BoundedSemaphore(CONNECTIONS)
        self._open: dict[Any, None] = {}  # the oldest first
        self._lock = threading.Lock()
        # Held from the taking of a delivery to its answer, so that a listener that ends after
        # this one does not leave its sender without one.
        self.answering = threading.Lock()
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or "no such port"
            raise BadUsage(f"cannot listen on port {port}: {reason}") from None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}/"

    def server_bind(self) -> None:
        # HTTPServer would ask the name service for the host's full name here.
        from socketserver import TCPServer

        TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(timeout=PATIENCE):
            # Whoever has been here longest is slow, or wants to keep the others out.
            with self._lock:
                for oldest in list(self._open)[:1]:
                    _hang_up(oldest)
            if not self._free.acquire(timeout=PATIENCE):
                self.shutdown_request(request)
                return
        with self._lock:
            self._open[request] = None
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        # The socket's own limit is per read; this one ends a request that comes byte by byte.
        cut = threading.Timer(SECONDS * 3, _hang_up, [request])
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
        """Say nothing: a caller that vanished or sent no HTTP is not our trouble."""

    def take(self) -> Generator[dict[str, Any], None, None]:
        """Deliveries as they come, for ever, listening meanwhile."""
        thread = threading.Thread(target=self.serve_forever, daemon=True, name="rebyte-receiver")
        thread.start()
        try:
            while True:
                try:
                    # A wait without a limit cannot be interrupted on Windows.
                    yield self.deliveries.get(timeout=1)
                except queue.Empty:
                    continue
        finally:
            self.shutdown()
            with self.answering:
                self.server_close()


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
