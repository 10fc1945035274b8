"""An HTTP server for loopback: HTTP/1.1 requests in, the answers of a WSGI application out.

werkzeug has a development server, but it drops request headers whose names contain `_` (so the
documented `API_KEY` would never arrive), closes every connection, and waits 10 ms after each
answer. This one keeps connections, streams, and logs nothing.
"""

from __future__ import annotations

import contextlib
import email.errors
import io
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from urllib.parse import unquote_to_bytes

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

HOST = "127.0.0.1"
IDLE_SECONDS = 120.0
ROOM_SECONDS = 1.0  # for a connection to end when there is no room for another
MOST_OF_A_LINE = 256  # bytes, of what frames a body in chunks
MOST_TRAILERS = 100
DRAIN_LIMIT = 64 * 1024 * 1024
KEY_HEADERS = frozenset({"api-key", "x-api-key"})
# Not the defects that the parser, which sees no body, finds in the headers of a multipart form.
MALFORMED = (
    email.errors.FirstHeaderLineIsContinuationDefect,
    email.errors.HeaderDefect,
    email.errors.MisplacedEnvelopeHeaderDefect,
    email.errors.MissingHeaderBodySeparatorDefect,
)


class HangUp(Exception):
    """Raised by an application to close the connection without any answer."""


class RequestBody(io.RawIOBase):
    """A request body that ends where `Content-Length` says, so that the next request survives."""

    def __init__(self, source: io.BufferedIOBase, length: int) -> None:
        self._source = source
        self.left = length

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer`; 0 at the end. A client that goes away early is a ConnectionError."""
        want = min(len(buffer), self.left)
        if want <= 0:
            return 0
        data = self._source.read1(want)
        if not data:
            raise ConnectionResetError("the client went away inside the body")
        buffer[: len(data)] = data
        self.left -= len(data)
        return len(data)


class ChunkedBody(RequestBody):
    """A request body in chunks (RFC 9112, section 7.1); extensions and trailers are left out."""

    def __init__(self, source: io.BufferedIOBase) -> None:
        super().__init__(source, 0)  # of the chunk; -1 after the last one

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` from one chunk; 0 at the end. Raises OSError for what is no chunk."""
        if self.left == 0:
            self.left = self._next()
        size = super().readinto(buffer)
        if self.left == 0 and self._source.read(2) != b"\r\n":
            raise OSError("a chunk is longer than it says")
        return size

    def _next(self) -> int:
        """The size of the next chunk; -1 when the last one and the trailers are read."""
        line = self._source.readline(MOST_OF_A_LINE)
        found = re.fullmatch(rb"([0-9a-fA-F]{1,15})[ \t]*(;[^\n]*)?\r?\n", line)
        if found is None:
            raise OSError("the size of a chunk cannot be read")
        if size := int(found[1], 16):
            return size
        for _ in range(MOST_TRAILERS):
            if self._source.readline(MOST_OF_A_LINE) in (b"\r\n", b"\n", b""):
                return -1
        raise OSError("the chunks have too many trailers")


class Handler(BaseHTTPRequestHandler):
    """One connection: requests in, WSGI answers out."""

    protocol_version = "HTTP/1.1"
    # One packet per answer: a header packet followed by a body packet costs 40 ms on a kept
    # connection when Nagle meets delayed acknowledgements.
    wbufsize = -1
    server: Server

    def setup(self) -> None:
        if self.request.family == socket.AF_INET:
            self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().setup()
        self.connection.settimeout(self.server.read_seconds)

    def handle(self) -> None:
        """Serve the connection until either side ends it; a client that vanishes is no error."""
        with contextlib.suppress(ConnectionError, TimeoutError, HangUp):
            super().handle()

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            super().finish()

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline:
            self.close_connection = True
        elif len(self.raw_requestline) > 65536:
            self.requestline = self.request_version = self.command = ""
            self.send_error(414, "The request line is too long")
        else:
            with self.server.at_work(self.connection):
                if self.parse_request() and (body := self._body()) is not None:
                    self._serve(body)

    def handle_expect_100(self) -> bool:
        super().handle_expect_100()
        self.wfile.flush()
        return True

    def _serve(self, body: RequestBody) -> None:
        reply = _Reply(self)
        result = self.server.application(self._environ(body), reply.start)
        try:
            for chunk in result:
                reply.send(chunk)
            reply.end()
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()
        # The answer leaves before the rest of the body is read: the client may be waiting for it.
        self.wfile.flush()
        # What is unread would be the next request, and at the end of a connection it resets that.
        left = DRAIN_LIMIT
        try:
            while body.left <= left and (piece := body.read(65536)):
                left -= len(piece)
        except OSError:
            left = -1
        self.close_connection |= body.left > left

    def _body(self) -> RequestBody | None:
        """The body; None for a request whose end is unclear, which is refused.

        Whatever is read as a body here is not read as the next request, and the other way round
        (RFC 9112, sections 5.1 and 6.3).
        """
        encodings = self.headers.get_all("Transfer-Encoding", [])
        lengths = {value.strip() for value in self.headers.get_all("Content-Length", ["0"])}
        if any(isinstance(defect, MALFORMED) for defect in self.headers.defects):
            self.send_error(400, "A header has no name, or a space behind it")
        elif encodings:
            if [value.strip().lower() for value in encodings] == ["chunked"]:
                self.close_connection = True  # and say so
                return ChunkedBody(self.rfile)
            self.send_error(501, "The only Transfer-Encoding is chunked")
        elif len(lengths) > 1:
            self.send_error(400, "Content-Length is given twice")
        else:
            length = lengths.pop()
            if length.isascii() and length.isdigit() and len(length) < 19:
                return RequestBody(self.rfile, int(length))
            self.send_error(400, "Content-Length is not a number")
        return None

    def _environ(self, body: RequestBody) -> Environ:
        path, _, query = self.path.partition("?")
        # As large as there is something to read: the collector comes late, and until then
        # thousands of answered requests keep theirs.
        size = 65536 if isinstance(body, ChunkedBody) else max(1, min(65536, body.left))
        authority = None
        if path.lower().startswith(("http://", "https://")):
            _, _, authority, *rest = path.split("/", 3)
            path = "/" + "".join(rest)
        environ: Environ = {
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            # Buffered, because a raw read may return less than was asked for.
            "wsgi.input": io.BufferedReader(body, size),
            "wsgi.input_terminated": True,
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
            "REQUEST_METHOD": self.command,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
            "QUERY_STRING": query,
            "REMOTE_ADDR": self.client_address[0],
            "SERVER_NAME": self.server.server_address[0],
            "SERVER_PORT": str(self.server.server_address[1]),
            "SERVER_PROTOCOL": self.request_version,
            "rebyte.socket": self.connection,
        }
        for name, value in self.headers.items():
            spelled = name.lower().replace("_", "-")
            if spelled in KEY_HEADERS:
                environ["rebyte.key"] = environ.get("rebyte.key") or value.strip()
            elif "_" not in name:
                key = name.upper().replace("-", "_")
                key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
                environ[key] = f"{environ[key]},{value}" if key in environ else value
        if isinstance(body, ChunkedBody):  # whose end is told by the chunks alone
            environ.pop("CONTENT_LENGTH", None)
        if authority is not None:  # the target of the request outranks its Host header
            environ["HTTP_HOST"] = authority
        return environ

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer a request that is not HTTP in the API's own error envelope, and hang up."""
        import json

        word = "validation_error" if code < 500 else "internal_error"
        text = json.dumps({"error": {"code": word, "message": message or f"HTTP {code}"}}).encode()
        self.close_connection = True
        # Otherwise http.server would answer as in HTTP/0.9, without a head.
        self.request_version = self.protocol_version
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(text)
        self.wfile.flush()

    def version_string(self) -> str:
        return "rebyte-local"

    def log_message(self, *_: object) -> None:
        """Log nothing: standard error is for the user."""


class _Reply:
    """Write what WSGI hands over to the connection: with its length, or chunked."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._pending: tuple[int, list[tuple[str, str]]] | None = None
        self._chunked = False

    def start(
        self, status: str, headers: list[tuple[str, str]], exc_info: object = None
    ) -> Callable[[bytes], None]:
        self._pending = (int(status.split(" ", 1)[0]), headers)
        return self.send

    def send(self, data: bytes) -> None:
        self._head()
        if self._handler.command == "HEAD" or not data:
            return
        write = self._handler.wfile.write
        if self._chunked:
            write(b"%x\r\n%b\r\n" % (len(data), data))
            self._handler.wfile.flush()
        else:
            write(data)

    def end(self) -> None:
        self._head()
        if self._chunked and self._handler.command != "HEAD":
            self._handler.wfile.write(b"0\r\n\r\n")

    def _head(self) -> None:
        if self._pending is None:
            return
        (code, headers), self._pending = self._pending, None
        handler = self._handler
        handler.send_response_only(code)
        names = {name.lower() for name, _ in headers}
        handler.send_header("Server", handler.version_string())
        if "date" not in names:
            handler.send_header("Date", handler.date_time_string())
        for name, value in headers:
            handler.send_header(name, value)
        if "content-length" not in names and code >= 200 and code not in (204, 304):
            if handler.request_version >= "HTTP/1.1":
                self._chunked = True
                handler.send_header("Transfer-Encoding", "chunked")
            else:
                handler.close_connection = True
        if handler.close_connection or handler.server.stopping:
            handler.close_connection = True
            handler.send_header("Connection", "close")
        handler.end_headers()


def _most_connections() -> int:
    """How many connections leave enough open files for what requests do, on two servers.

    A request takes up to four. The limit can change: `batch` raises it.
    """
    limit = os.sysconf("SC_OPEN_MAX")
    return limit // 4 if limit > 0 else sys.maxsize


class Server(ThreadingMixIn, HTTPServer):
    """A listening socket on loopback with one daemon thread per connection.

    A connection ends after `read_seconds` without a byte, and after `connection_seconds` in any
    case. At most `connections` are open: the oldest makes room for another, and the oldest idle one
    does where there is no such limit but that of open files. Raises OSError when the port is taken.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(
        self,
        port: int,
        application: Application,
        *,
        read_seconds: float = IDLE_SECONDS,
        connection_seconds: float | None = None,
        connections: int | None = None,
    ) -> None:
        self.application = application
        self.stopping = False
        self.read_seconds = read_seconds
        self._connection_seconds = connection_seconds
        self._connections = connections
        self._open: dict[socket.socket, None] = {}  # the oldest first
        self._idle: dict[socket.socket, None] = {}  # between two requests, the longest idle first
        self._guard = threading.Condition()
        self._requests = 0  # under way
        self._used = time.monotonic()
        self._thread: threading.Thread | None = None
        super().__init__((HOST, port), Handler)

    def server_bind(self) -> None:
        # HTTPServer would ask the name service for the host's full name here.
        TCPServer.server_bind(self)
        self.server_port = self.server_address[1]

    @property
    def origin(self) -> str:
        """`http://host:port` of this socket."""
        return f"http://{HOST}:{self.server_port}"

    @contextlib.contextmanager
    def at_work(self, connection: socket.socket) -> Iterator[None]:
        """A request on this connection is under way."""
        with self._guard:
            self._requests += 1
            self._idle.pop(connection, None)
        try:
            yield
        finally:
            with self._guard:
                self._requests -= 1
                self._used = time.monotonic()
                if connection in self._open:
                    self._idle[connection] = None
                self._guard.notify_all()

    def idle_seconds(self) -> float:
        """For how long no request has been under way."""
        with self._guard:
            return 0.0 if self._requests else time.monotonic() - self._used

    def start(self) -> None:
        """Accept connections on a daemon thread."""
        thread = threading.Thread(target=self._accept, name="rebyte-server", daemon=True)
        thread.start()
        self._thread = thread

    def _accept(self) -> None:
        while True:
            try:
                request, address = self.get_request()
            except OSError:
                if self.stopping:
                    return
                self._make_room(0)
                time.sleep(0.01)  # out of file descriptors: let other connections end
                continue
            if self.stopping:
                request.close()
                return
            self._make_room(self._connections or _most_connections())
            with self._guard:
                self._open[request] = None
                self._idle[request] = None
            try:
                self.process_request(request, address)
            except RuntimeError:  # no more threads: turn away this client only
                self.shutdown_request(request)

    def _make_room(self, most: int) -> None:
        """Close the oldest connection if `most` are open; without a limit of ours, an idle one."""
        with self._guard:
            if self._connections is not None:  # slow ones, or those who keep the others out
                self._guard.wait_for(lambda: len(self._open) < most, ROOM_SECONDS)
            choice = self._idle if self._connections is None else self._open
            if len(self._open) >= most and choice:
                oldest = next(iter(choice))
                self._idle.pop(oldest, None)
                self._open.pop(oldest, None)
                _hang_up(oldest)  # its thread sees that, and closes it

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection in its thread."""
        if self._connection_seconds is None:
            return super().process_request_thread(request, client_address)
        # The socket's own limit is per read; this one ends a request that comes byte by byte.
        cut = threading.Timer(self._connection_seconds, _hang_up, [request])
        cut.daemon = True
        cut.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            cut.cancel()

    def shutdown_request(self, request: Any) -> None:
        with self._guard:
            self._open.pop(request, None)
            self._idle.pop(request, None)
            self._guard.notify_all()
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The client sees a closed connection; a traceback on the terminal would not help."""

    def stop(self, grace: float = 0.0) -> None:
        """Stop accepting and cut every open connection. Safe to call twice.

        Requests under way have `grace` seconds to be answered.
        """
        if self.stopping:
            return
        self.stopping = True
        if self._thread is not None:
            # A LookupError when there is no memory left for the encoding of host names.
            with contextlib.suppress(OSError, LookupError):
                socket.create_connection((HOST, self.server_port), timeout=1).close()
            self._thread.join(timeout=2)
        self.server_close()
        with self._guard:
            self._guard.wait_for(lambda: not self._requests, grace)
            for request in self._open:
                _hang_up(request)


class ConnectedServer(Server):
    """A server without a port: connections are given to it."""

    def __init__(self, application: Application, name: str) -> None:
        """`name` is what requests call it: a host, or `host:port`."""
        self._name = name
        super().__init__(0, application)

    @property
    def origin(self) -> str:
        """`http://` and the name."""
        return f"http://{self._name}"

    def server_bind(self) -> None:
        self.server_address = (HOST, 0)
        self.server_port = 0

    def server_activate(self) -> None:
        """Listen to nothing."""

    def start(self) -> None:
        """Accept nothing: see `answer`."""

    def answer(self, connection: socket.socket) -> None:
        """Serve one connection, in this thread, until either side ends it."""
        with self._guard:
            self._open[connection] = None
            self._idle[connection] = None
        self.process_request_thread(connection, (HOST, 0))


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
