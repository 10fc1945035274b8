"""Servers that misbehave: raw sockets on loopback, with every request they saw on record.

    with RawServer(json_reply({"id": "t1"})) as server:            # always the same
    with RawServer([reset, reply(503), json_reply({})]) as server:  # in this order, last repeats
    with RawServer(lambda request: reply(404)) as server:           # by request

An answer is bytes, sent as they are, or a function that is handed a `Line` to do worse with.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple


class Request(NamedTuple):
    """A request as it came; header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    connection: int
    raw: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Line:
    """The server's end of one connection. `stopped` is set when the test is over."""

    def __init__(self, sock: socket.socket, stopped: threading.Event) -> None:
        self.sock = sock
        self.stopped = stopped

    def send(self, data: bytes) -> None:
        """Send bytes now."""
        self.sock.sendall(data)

    def wait(self, seconds: float = 30) -> None:
        """Do nothing for a while; ends early with the test."""
        self.stopped.wait(seconds)


class Hangup(Exception):
    """Raised by an answer that ends the connection; with a reset when `abrupt`."""

    def __init__(self, *, abrupt: bool = False) -> None:
        self.abrupt = abrupt


Answer = bytes | Callable[[Line], None]
Script = Answer | Sequence[Answer] | Callable[[Request], Answer]


def reply(
    status: int = 200,
    body: bytes | str = b"",
    headers: Mapping[str, str] | None = None,
    *,
    length: int | None = None,
) -> bytes:
    """A whole answer; `length` makes Content-Length lie."""
    data = body.encode() if isinstance(body, str) else body
    fields = {"Content-Length": str(len(data) if length is None else length), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + data


def json_reply(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> bytes:
    """A whole answer with a JSON body."""
    return reply(
        status, json.dumps(document), {"Content-Type": "application/json", **(headers or {})}
    )


def error_reply(status: int, code: str, message: str) -> bytes:
    """An error in the envelope of the API."""
    return json_reply({"error": {"code": code, "message": message}}, status)


def chunked(chunks: Iterable[bytes], headers: Mapping[str, str] | None = None) -> bytes:
    """A whole answer in chunks, each of them sent as it is."""
    fields = {"Transfer-Encoding": "chunked", **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return f"HTTP/1.1 200 X\r\n{head}\r\n".encode() + body + b"0\r\n\r\n"


def reset(line: Line) -> None:
    """No answer: the connection is reset."""
    raise Hangup(abrupt=True)


def hang_up(line: Line) -> None:
    """No answer: the connection is closed."""
    raise Hangup


def stall(line: Line) -> None:
    """No answer, and the connection stays open."""
    line.wait()


def then_close(data: bytes, *, abrupt: bool = False) -> Callable[[Line], None]:
    """Some bytes, then the end of the connection."""

    def act(line: Line) -> None:
        line.send(data)
        raise Hangup(abrupt=abrupt)

    return act


def then_stall(data: bytes) -> Callable[[Line], None]:
    """Some bytes, then nothing more on an open connection."""

    def act(line: Line) -> None:
        line.send(data)
        line.wait()

    return act


def drip(data: bytes, every: float, *, size: int = 1) -> Callable[[Line], None]:
    """The bytes, `size` at a time, `every` seconds."""

    def act(line: Line) -> None:
        for at in range(0, len(data), size):
            line.send(data[at : at + size])
            if line.stopped.wait(every):
                return

    return act


def parts(*pieces: bytes, every: float = 0.02) -> Callable[[Line], None]:
    """The pieces one by one, each in its own packet, then the end of the connection."""

    def act(line: Line) -> None:
        for piece in pieces:
            line.send(piece)
            line.stopped.wait(every)
        raise Hangup

    return act


class RawServer:
    """A server on a free port of loopback that does what its script says.

    `requests` are those it saw, `connections` how many were opened. With `tls` it speaks TLS.
    """

    def __init__(self, script: Script, *, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self._script = script
        self._tls = tls
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._socks: dict[int, socket.socket] = {}  # by the number of the connection
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        scheme, host = ("https", "localhost") if tls else ("http", "127.0.0.1")
        self.origin = f"{scheme}://{host}:{self.port}"
        self.base_url = f"{self.origin}/v1"

    def __enter__(self) -> RawServer:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        """End every connection, and wait for the threads, each of which closes its own socket.

        OpenSSL answers the end of a connection with an alert. If this thread closed the socket, its
        descriptor might be that of a child's standard output by then.
        """
        self._stopped.set()
        with contextlib.suppress(OSError):  # the thread in `accept` is to see that it is over
            socket.create_connection(("127.0.0.1", self.port), timeout=10).close()
        self._threads[0].join(10)
        self._listener.close()
        with self._lock:
            for sock in self._socks.values():
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)  # leaves the TLS as it is
        for thread in self._threads:
            thread.join(10)
        assert not any(thread.is_alive() for thread in self._threads)

    def _start(self, work: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def seen(self, method: str) -> list[Request]:
        """The requests with this method."""
        return [request for request in self.requests if request.method == method]

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            if self._stopped.is_set():
                sock.close()
                return
            self.connections += 1
            self._socks[self.connections] = sock
            self._start(self._serve, sock, self.connections)

    def _serve(self, sock: socket.socket, number: int) -> None:
        abrupt = False
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls:
                with self._lock:
                    sock = self._socks[number] = self._tls.wrap_socket(
                        sock, server_side=True, do_handshake_on_connect=False
                    )
                sock.do_handshake()
            buffer = b""
            while not self._stopped.is_set():
                request, buffer = read_request(sock, buffer, number)
                if request is None:
                    return
                answer = self._answer(request)
                if isinstance(answer, bytes):
                    sock.sendall(answer)
                else:
                    answer(Line(sock, self._stopped))
        except Hangup as hangup:
            abrupt = hangup.abrupt
        except OSError:
            pass
        finally:
            with contextlib.suppress(OSError):
                if abrupt:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                else:
                    sock.shutdown(socket.SHUT_RDWR)
            with self._lock:
                del self._socks[number]
                sock.close()

    def _answer(self, request: Request) -> Answer:
        with self._lock:
            self.requests.append(request)
            script = self._script
            if isinstance(script, bytes):
                return script
            if callable(script):
                taken: Any = script
                # A function of this module takes the line itself; any other the request.
                return taken if getattr(taken, "__module__", "") == __name__ else taken(request)
            at = min(len(self.requests), len(script)) - 1
            return script[at]


def read_request(
    sock: socket.socket, buffer: bytes, number: int = 1
) -> tuple[Request | None, bytes]:
    """The next request of a connection, and what came after it; None at its end."""
    while b"\r\n\r\n" not in buffer:
        data = sock.recv(65536)
        if not data:
            return None, b""
        buffer += data
    head, _, rest = buffer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    wanted = int(headers.get("content-length", "0"))
    pieces = [rest]
    held = len(rest)
    while held < wanted:
        data = sock.recv(65536)
        if not data:
            return None, b""
        pieces.append(data)
        held += len(data)
    whole = b"".join(pieces)
    body, after = whole[:wanted], whole[wanted:]
    return Request(method, path, headers, body, number, head + b"\r\n\r\n" + body), after


def close_listener(listener: socket.socket) -> None:
    """Close a listening socket, and end the thread that waits in its `accept`.

    Closing alone leaves the thread there. A signal may restart its system call, which then takes
    connections of the next server that was given the same file descriptor.
    """
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def closed_port() -> int:
    """A port of loopback that refuses connections."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


KEY = "rbk_0123456789abcdef"


def transport_to(server: RawServer, **options: Any) -> Any:
    """A Transport to the server with the key `KEY`, whose pauses take no time."""
    from rebyte_cli.api.transport import Transport

    return Transport(server.base_url, KEY, **{"random": lambda: 0.0, **options})
