"""Connections: requests' adapter with time limits, and a record of what was sent.

Imported by the first request only; it pulls in requests and urllib3 (about 100 ms of CPU).

Only the adapter of requests is used, not its `Session`: a session follows redirects with our
header on them, reads `.netrc`, keeps cookies, and reads the whole body of a redirect. Proxy
variables and certificate variables are honoured here, which is all we would want one for.
"""

from __future__ import annotations

import io
import os
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from http import HTTPStatus
from http.client import BadStatusLine, HTTPException, HTTPResponse
from typing import Any

from requests import PreparedRequest, RequestException
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, NewConnectionError
from urllib3.util.ssl_ import create_urllib3_context

from ..errors import BadUsage
from ..system.addresses import is_loopback
from ..system.deadline import Deadline
from .failures import AttemptFailed

# What requests, urllib3 and the system raise when a request or a response comes to nothing.
TRANSPORT_ERRORS = (RequestException, HTTPError, HTTPException, OSError, UnicodeError, MemoryError)
# Connecting gets less time than a response: the next attempt may reach another address, and nothing
# has been sent by then.
CONNECT_SECONDS = 10.0
SLACK = 0.01  # seconds by which a single read or write may exceed its limit
# A server may close an idle connection at any moment; a create sent at that moment has an unknown
# outcome. Servers keep connections for 5 s or more, so one idle for less is still good.
FRESH_SECONDS = 2.0
# What an upload sends at a time: with the 16 KiB of http.client it takes four times as long, and
# of a larger one not all might go out within the idle limit of a slow line.
BLOCK = 64 * 1024
# Interim responses before a final one. A server that sends one a second to show that it is at
# work sends 600 of them while a create may take.
MOST_INTERIM = 10_000
MOST_PREPARED = 8  # kinds of requests, and hosts; a batch alternates between two

# Gives a connected socket for an address (host, port) within so many seconds; None for an address
# that is to be dialed as usual. Raises OSError.
Dial = Callable[[tuple[str, int], "float | None"], "socket.socket | None"]

# Whether a connection to this IP address may be used.
Admits = Callable[[str], bool]

_current = threading.local()  # .attempt: the attempt that this thread is making


def make_context(ca_bundle: str | None) -> ssl.SSLContext:
    """A context that trusts one bundle and nothing beside it.

    `ca_bundle`, a file or a folder, wins over REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE, SSL_CERT_FILE
    and SSL_CERT_DIR, in this order; without any, it is the bundle of certifi, as in every tool
    built on requests. Raises BadUsage when it cannot be read.
    """
    env = os.environ.get
    chosen = ca_bundle or env("REQUESTS_CA_BUNDLE") or env("CURL_CA_BUNDLE")
    file = chosen or env("SSL_CERT_FILE")
    folder = None if chosen else env("SSL_CERT_DIR")
    if file:
        file = os.path.expanduser(file)
    if file and os.path.isdir(file):
        file, folder = None, file
    if not file and not folder:
        import certifi

        file = certifi.where()
    # That of urllib3, so that TLS is the same as in every tool built on requests.
    context = create_urllib3_context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.check_hostname = True
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_verify_locations(file, folder)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        why = getattr(error, "strerror", None) or "it cannot be used"
        if isinstance(error, ssl.SSLError):
            why = "it holds no certificate"
        raise BadUsage(
            f"cannot read the CA file {file or folder}: {why}",
            hint="It is named by ca_bundle, REQUESTS_CA_BUNDLE or SSL_CERT_FILE",
        ) from None
    return context


class AttemptState:
    """One attempt of a call: what it may take, and what it has done so far.

    `deadline` bounds the whole of it; `idle` bounds one read or write (seconds); `careful` asks
    for a connection that the server cannot be closing. `sent` turns True right before the first
    byte of the request is handed to the socket; until then the attempt provably reached no server.
    """

    __slots__ = ("_limit", "careful", "deadline", "idle", "sent")

    def __init__(self, deadline: Deadline, idle: float, *, careful: bool) -> None:
        self._limit = self.deadline = deadline
        self.idle = idle
        self.careful = careful
        self.sent = False

    def untimed(self) -> None:
        """From here on only each single read or write is bounded, by `idle`."""
        self.deadline = Deadline(clock=self._limit.clock)

    def await_response(self) -> None:
        """The request is out: an untimed one gives the head of its response a deadline again."""
        if self.deadline is not self._limit:
            limit = Deadline(self._limit.seconds, clock=self._limit.clock)
            self._limit = self.deadline = limit

    def left(self) -> float:
        """Seconds the next read or write may take; TimeoutError when there are none."""
        left = min(self.deadline.left(), self.idle)
        if left <= 0:
            raise TimeoutError("time limit")
        return left

    def bound(self, sock: socket.socket) -> None:
        """Give the next read or write of a socket as long as it may take."""
        left, now = self.left(), sock.gettimeout()
        # A system call, for which a batch would switch threads.
        if now is None or not left <= now <= left + SLACK:
            sock.settimeout(left)

    def __enter__(self) -> None:
        """The connections that this thread uses now report to this attempt."""
        _current.attempt = self

    def __exit__(self, *_: object) -> None:
        _current.attempt = None


class _TimedReader(io.RawIOBase):
    """The reading end of a socket, whose every read ends by the deadline of its attempt.

    A timeout of requests is one per read: a server that drips a byte a second, in headers or
    body, never exceeds it.
    """

    def __init__(self, inner: Any, sock: socket.socket, attempt: AttemptState) -> None:
        self._inner = inner
        self._sock = sock
        self._attempt = attempt

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._attempt.bound(self._sock)
        count: int | None = self._inner.readinto(buffer)
        return count

    def close(self) -> None:
        self._inner.close()
        super().close()


class _TimedResponse(HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **named: Any) -> None:
        super().__init__(sock, *args, **named)
        attempt: AttemptState | None = getattr(_current, "attempt", None)
        if attempt is not None:
            buffered: Any = self.fp
            self.fp = io.BufferedReader(_TimedReader(buffered.detach(), sock, attempt))

    def begin(self, **limits: Any) -> None:
        """Read the head of the final response.

        Any number of interim ones, such as 103 Early Hints, may come before it (RFC 9110, 15.2);
        http.client itself skips 100 alone. Newer versions of it pass `limits`.
        """
        for _ in range(MOST_INTERIM):
            super().begin(**limits)
            if not 100 <= self.status < 200 or self.status == HTTPStatus.SWITCHING_PROTOCOLS:
                return
            self.headers = self.msg = None  # type: ignore[assignment]  # as before `begin`
        raise BadStatusLine("too many interim answers")


class _WatchedConnection(HTTPConnection):
    """A connection that reports to the attempt of its thread."""

    response_class = _TimedResponse
    _connecting = False
    _last_used = 0.0
    _body = b""  # leaves in one packet with the head that is sent next

    def __init__(self, *args: Any, admits: Admits, dial: Dial | None = None, **named: Any) -> None:
        super().__init__(*args, **named)
        self._admits = admits
        self._dial = dial

    def _new_conn(self) -> socket.socket:
        if self._dial is not None:
            limit = self.timeout if isinstance(self.timeout, (int, float)) else None
            try:
                found = self._dial((self.host, int(self.port)), limit)
            except OSError as error:
                if error.filename is not None:  # the folder of the local service, not a network
                    raise AttemptFailed(
                        f"{error.filename}: {error.strerror}", futile=True
                    ) from error
                raise NewConnectionError(self, str(error)) from error
            if found is not None:
                return found
        sock = super()._new_conn()
        # The address that is connected to, not one that a second look at the name would give.
        if self.proxy is None and not self._admits(str(sock.getpeername()[0])):
            sock.close()
            raise AttemptFailed(
                f"{self.host} is in a local network that the API is not part of", futile=True
            )
        return sock

    @property
    def is_connected(self) -> bool:
        # The pool asks this before it hands out an idle connection.
        attempt: AttemptState | None = getattr(_current, "attempt", None)
        if (
            attempt is not None
            and attempt.careful
            and attempt.deadline.clock() - self._last_used > FRESH_SECONDS
        ):
            return False
        return super().is_connected

    def connect(self) -> None:
        self._connecting = True
        if isinstance(self.timeout, (int, float)):
            self.timeout = min(self.timeout, CONNECT_SECONDS)
        try:
            super().connect()
        finally:
            self._connecting = False

    def request(self, method: str, url: str, body: Any = None, *args: Any, **named: Any) -> None:
        self._body = b""
        if isinstance(body, bytes) and len(body) <= BLOCK:
            self._body, body = body, None
        super().request(method, url, body, *args, **named)

    def send(self, data: Any) -> None:
        attempt: AttemptState | None = getattr(_current, "attempt", None)
        if attempt is not None and not self._connecting:
            if self.sock is None:
                self.connect()
            # CONNECT goes to the proxy and comes through here too, while connecting; only what
            # follows is meant for the API.
            attempt.sent = True
            attempt.bound(self.sock)
        if self._body and not self._connecting:
            data, self._body = data + self._body, b""
        super().send(data)

    def getresponse(self) -> Any:
        attempt: AttemptState | None = getattr(_current, "attempt", None)
        if attempt is not None:
            attempt.await_response()
        response = super().getresponse()
        if attempt is not None:
            self._last_used = attempt.deadline.clock()
        return response


class _WatchedTLSConnection(_WatchedConnection, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _WatchedConnection


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _WatchedTLSConnection


class ConnectionPool(HTTPAdapter):
    """Pooled connections, with the proxies and certificates of this process.

    It knows no key. Thread-safe. `ca_bundle` is as in `make_context`, `size` the number of idle
    connections kept per host. `dial` may connect plain HTTP in its own way. `admits` is asked
    about each new connection, except to a proxy. `send` sends one request and follows no redirect;
    it raises `TRANSPORT_ERRORS`, which `failures.explain` turns into words.
    """

    def __init__(
        self,
        *,
        ca_bundle: str | None,
        size: int,
        dial: Dial | None = None,
        admits: Admits = lambda _address: True,
    ) -> None:
        self._ca_bundle = ca_bundle
        self._lock = threading.Lock()
        self._tls: ssl.SSLContext | None = None
        self._proxies = lru_cache(MOST_PREPARED)(_proxies_for)
        self._prepared: dict[tuple[Any, ...], tuple[PreparedRequest, str]] = {}
        self._pools: dict[str, Any] = {
            "http": partial(_Pool, dial=dial, admits=admits),
            "https": partial(_TLSPool, admits=admits),
        }
        self._direct: tuple[list[str], Any] | None = None  # host and pool of the last request
        super().__init__(pool_connections=4, pool_maxsize=size)

    def init_poolmanager(self, *args: Any, **named: Any) -> None:
        super().init_poolmanager(*args, blocksize=BLOCK, **named)
        manager: Any = self.poolmanager
        manager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **named: Any) -> Any:
        if proxy.lower().startswith("https:"):
            named["proxy_ssl_context"] = self._context()
        manager = super().proxy_manager_for(proxy, **named)
        manager.pool_classes_by_scheme = self._pools
        return manager

    def build_connection_pool_key_attributes(
        self, request: Any, verify: Any, cert: Any = None
    ) -> Any:
        # One context for all connections: the bundle is read once, not per connection, and 32
        # connections share its memory.
        host, _ = super().build_connection_pool_key_attributes(request, verify, cert)
        if host["scheme"] != "https":
            return host, {}
        return host, {"ssl_context": self._context(), "cert_reqs": "CERT_REQUIRED"}

    def get_connection_with_tls_context(
        self, request: Any, verify: Any, proxies: Any = None, cert: Any = None
    ) -> Any:
        if proxies:
            return super().get_connection_with_tls_context(request, verify, proxies, cert)
        host = request.url.split("/", 3)[:3]
        if self._direct is None or self._direct[0] != host:  # a tenth of the time of a request
            found = super().get_connection_with_tls_context(request, verify, proxies, cert)
            self._direct = host, found
        return self._direct[1]

    def close(self) -> None:
        """Close idle connections."""
        self._direct = None
        super().close()

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Nothing: the context verifies; requests would load the bundle again here."""

    def prepare(
        self, method: str, url: str, headers: Mapping[str, str], body: Any
    ) -> PreparedRequest:
        """A request as `send` takes it.

        `body` is bytes, or pieces of them together with a Content-Length in `headers`.
        """
        request = PreparedRequest()
        like, its_url = self._like(method, url, headers)
        request.method, request.headers = like.method, like.headers.copy()
        if url == its_url:
            request.url = like.url
        else:
            request.prepare_url(url, None)
        # The body is set afterwards: requests would send an empty file as chunked.
        if body is not None and "Content-Length" not in headers:
            request.headers["Content-Length"] = str(len(body))
        request.body = body
        return request

    def _like(
        self, method: str, url: str, headers: Mapping[str, str]
    ) -> tuple[PreparedRequest, str]:
        """A request without a body, and its URL, prepared once for many that differ in path.

        Not in the host: requests makes a header of a user name before it.
        """
        call = (method, url.split("/", 3)[2], *headers.items())
        known = self._prepared.get(call)
        if known is None:
            made = PreparedRequest()
            made.prepare(method=method, url=url, headers=dict(headers))
            if len(self._prepared) >= MOST_PREPARED:
                self._prepared.clear()
            self._prepared[call] = known = made, url
        return known

    def proxies(self, url: str) -> dict[str, str]:
        """The proxies that the environment names for a URL; none for this machine.

        What is on loopback is not reachable through a proxy, and http to it is in clear. The
        environment is read once for each host: that takes a fifth of the time of a request.
        """
        from urllib.parse import urlsplit

        target = urlsplit(url)
        if is_loopback(target.hostname or ""):
            return {}
        return self._proxies(target.scheme, target.netloc)

    def _context(self) -> ssl.SSLContext:
        with self._lock:
            if self._tls is None:
                self._tls = make_context(self._ca_bundle)
            return self._tls


def _proxies_for(scheme: str, host: str) -> dict[str, str]:
    """The proxies of the environment. BadUsage if the one for this scheme is no address."""
    from urllib.parse import urlsplit

    found = dict(get_environ_proxies(f"{scheme}://{host}"))
    for name, proxy in found.items():
        if not proxy or name not in (scheme, "all"):
            continue
        try:
            parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
            usable = bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            # Not repeated: it may hold a password.
            raise BadUsage(f"the {name.upper()}_PROXY of the environment is not an address")
    return found
