"""The HTTP server of the local service: HTTP/1.1 requests in, the answers of a WSGI app out.

werkzeug has a development server, but it drops request headers whose names contain `_` (so the
documented `API_KEY` would never arrive), closes every connection, and waits 10 ms after each
answer. This one keeps connections, streams, and logs nothing unless asked to.
"""

from __future__ import annotations

import contextlib
import email.errors
import io
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import TCPServer, ThreadingMixIn
from typing import IO, Any, cast
from urllib.parse import unquote_to_bytes

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

IDLE_SECONDS = 120.0
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
        if want == 0:
            return 0
        data = self._source.read1(want)
        if not data:
            raise ConnectionResetError("the client went away inside the body")
        buffer[: len(data)] = data
        self.left -= len(data)
        return len(data)

    def drain(self) -> bool:
        """Read what the application left. False when that is too much to read."""
        if self.left > DRAIN_LIMIT:
            return False
        while self.left:
            self.read(min(self.left, 65536))
        return True


class Handler(BaseHTTPRequestHandler):
    """One connection: requests in, WSGI answers out."""

    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS
    # One packet per answer: a header packet followed by a body packet costs 40 ms on a kept
    # connection when Nagle meets delayed acknowledgements.
    wbufsize = -1
    disable_nagle_algorithm = True
    server: Server

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
        elif self.parse_request():
            self._answer()
            self.wfile.flush()

    def handle_expect_100(self) -> bool:
        super().handle_expect_100()
        self.wfile.flush()
        return True

    def _answer(self) -> None:
        body = self._body()
        if body is not None:
            with self.server.at_work():
                self._serve(body)

    def _serve(self, body: io.RawIOBase) -> None:
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
        if isinstance(body, RequestBody):
            if not body.drain():
                self.close_connection = True
            return
        with contextlib.suppress(OSError):  # what is unread at the end of a connection resets it
            left = DRAIN_LIMIT
            while left > 0 and (piece := body.read(65536)):
                left -= len(piece)

    def _body(self) -> io.RawIOBase | None:
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
                from werkzeug import serving

                self.close_connection = True  # and say so
                return serving.DechunkedInput(cast(IO[bytes], self.rfile))
            self.send_error(501, "The only Transfer-Encoding is chunked")
        elif len(lengths) > 1:
            self.send_error(400, "Content-Length is given twice")
        else:
            length = lengths.pop()
            if length.isascii() and length.isdigit() and len(length) < 19:
                return RequestBody(self.rfile, int(length))
            self.send_error(400, "Content-Length is not a number")
        return None

    def _environ(self, body: io.RawIOBase) -> Environ:
        path, _, query = self.path.partition("?")
        # As large as there is something to read: the collector comes late, and until then
        # thousands of answered requests keep theirs.
        size = max(1, min(65536, body.left)) if isinstance(body, RequestBody) else 65536
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

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        self.server.log(format % args)


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
        handler.log_request(code)
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


class Server(ThreadingMixIn, HTTPServer):
    """A listening socket with one daemon thread per connection.

    Raises OSError when the port is taken.
    """

    daemon_threads = True
    request_queue_size = 256
    # On Windows this option would let two programs share the port.
    allow_reuse_address = sys.platform != "win32"

    def __init__(
        self, host: str, port: int, application: Application, log: Callable[[str], None]
    ) -> None:
        self.application = application
        self.log = log
        self.stopping = False
        self._host = host
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        self._requests = 0  # under way
        self._used = time.monotonic()
        self._thread: threading.Thread | None = None
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), Handler)

    def server_bind(self) -> None:
        # HTTPServer would ask the name service for the host's full name here.
        TCPServer.server_bind(self)
        self.server_port = self.server_address[1]

    @property
    def origin(self) -> str:
        """`http://host:port` of this socket, IPv6 in brackets."""
        name = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{name}:{self.server_port}"

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """A request is under way."""
        with self._guard:
            self._requests += 1
        try:
            yield
        finally:
            with self._guard:
                self._requests -= 1
                self._used = time.monotonic()

    def idle_seconds(self) -> float:
        """For how long no request has been under way."""
        with self._guard:
            return 0.0 if self._requests else time.monotonic() - self._used

    def start(self) -> None:
        """Accept connections on a daemon thread."""
        thread = threading.Thread(target=self._accept, name="rebyte-local", daemon=True)
        thread.start()
        self._thread = thread

    def _accept(self) -> None:
        while True:
            try:
                request, address = self.get_request()
            except OSError:
                if self.stopping:
                    return
                time.sleep(0.01)  # out of file descriptors: let other connections end
                continue
            if self.stopping:
                request.close()
                return
            with self._guard:
                self._open.add(request)
            try:
                self.process_request(request, address)
            except RuntimeError:  # no more threads: turn away this client only
                self.shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:
        with self._guard:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # The client sees a closed connection; a traceback on the terminal would not help.
        self.log(f"{client_address[0]}: {sys.exc_info()[1]!r}")

    def stop(self) -> None:
        """Stop accepting and cut every open connection. Safe to call twice."""
        if self.stopping:
            return
        self.stopping = True
        if self._thread is not None:
            # A LookupError when there is no memory left for the encoding of host names.
            with contextlib.suppress(OSError, LookupError):
                socket.create_connection((self._host, self.server_port), timeout=1).close()
            self._thread.join(timeout=2)
        self.server_close()
        with self._guard:
            for request in self._open:
                with contextlib.suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)
