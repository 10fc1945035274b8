"""Receive webhook deliveries on this machine, at the end of a tunnel.

The receiver answers fast and trusts little: bodies are small, connections few and short, the
shared secret is compared in constant time, and whatever is not a JSON object is refused. So is
every request that a page in a browser could make.
"""

from __future__ import annotations

import hmac
import json
import queue
from collections.abc import Callable, Collection, Generator, Iterable
from http import HTTPStatus
from typing import Any

from ..api.body import BrokenBody, parse_json
from ..api.views import no_ids
from ..errors import BadUsage
from ..system.addresses import is_loopback
from ..system.http_server import Environ, Server
from ..system.untrusted import is_deep, url_parts

LARGEST_BODY = 1024 * 1024  # bytes; the known fields of a delivery take a hundred
CONNECTIONS = 32
REQUEST_SECONDS = 10.0  # for one read; a whole connection gets three times as long
WAITING = 1000  # deliveries that may wait to be taken
ANSWER_SECONDS = 1.0  # for answers under way when the receiver ends
DEEPEST = 64  # levels of nesting in a delivery; more breaks some JSON readers


class DeliveryRefused(Exception):
    """A request that is answered with an error: the HTTP status and the reason."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class WebhookReceiver:
    """Listen on 127.0.0.1 and hand out deliveries as they come.

    `port` 0 takes a free one; `secret` is what `X-Webhook-Secret` must hold, None for no check;
    `hosts` are names that `Host` may have besides those of loopback: a tunnel's. Raises BadUsage
    when the port is taken.
    """

    def __init__(
        self, port: int, *, secret: str | None = None, hosts: Collection[str] = ()
    ) -> None:
        self._secret = secret
        self._hosts = frozenset(host.lower() for host in hosts)
        # Of all queues only this one may be used by a signal handler.
        self.deliveries: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.most_waiting = WAITING
        try:
            self._server = Server(
                port,
                self._respond,
                read_seconds=REQUEST_SECONDS,
                connection_seconds=3 * REQUEST_SECONDS,
                connections=CONNECTIONS,
            )
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or "no such port"
            raise BadUsage(f"cannot listen on port {port}: {reason}") from None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{self._server.origin}/"

    def take(self) -> Generator[dict[str, Any], None, None]:
        """Listen, and yield deliveries as they come until `finish` is called."""
        self._server.start()
        try:
            while (delivery := self.deliveries.get()) is not None:
                yield delivery
        finally:
            # Ending right after a delivery must not leave its sender without an answer.
            self._server.stop(grace=ANSWER_SECONDS)

    def finish(self) -> None:
        """End `take` behind the deliveries that wait. Safe in a signal handler."""
        self.deliveries.put(None)

    def _respond(self, environ: Environ, start: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request, as a WSGI application."""
        status, text = 200, "accepted"
        try:
            self._check_sender(environ)
            if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
                text = "rebyte webhook listen: POST deliveries here"
            else:
                self._accept(environ)
        except DeliveryRefused as refusal:
            status, text = refusal.status, str(refusal)
        data = json.dumps({"message": text}).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(data)))]
        start(f"{status} {HTTPStatus(status).phrase}", headers)
        return [data]

    def _check_sender(self, environ: Environ) -> None:
        """Refuse what only a page can have sent.

        A page's browser always tells where it comes from, and a page whose name was made to
        resolve to this machine also has that name as its `Host`.
        """
        parts = url_parts(f"//{environ.get('HTTP_HOST', '')}")
        host = ((parts and parts.hostname) or "").lower()
        if not is_loopback(host) and host not in self._hosts:
            why = f"Host must be a loopback name; for a tunnel, pass --host {host}"
            raise DeliveryRefused(421, why)
        if "HTTP_ORIGIN" in environ or "HTTP_SEC_FETCH_SITE" in environ:
            raise DeliveryRefused(403, "requests of web pages are refused")

    def _accept(self, environ: Environ) -> None:
        """Queue the delivery that a request holds."""
        if environ["REQUEST_METHOD"] != "POST":
            raise DeliveryRefused(405, "POST deliveries here")
        kind = environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
        if kind != "application/json" and not kind.endswith("+json"):
            raise DeliveryRefused(415, "a delivery must have Content-Type: application/json")
        size = int(environ.get("CONTENT_LENGTH", 0))
        try:
            body = environ["wsgi.input"].read(LARGEST_BODY + 1) if size <= LARGEST_BODY else b""
        except OSError:
            raise DeliveryRefused(
                400, "the body was cut off, or its chunks cannot be read"
            ) from None
        if max(size, len(body)) > LARGEST_BODY:
            raise DeliveryRefused(413, "the body is too large")
        secret = environ.get("HTTP_X_WEBHOOK_SECRET", "").encode("utf-8", "surrogateescape")
        if self._secret is not None and not hmac.compare_digest(secret, self._secret.encode()):
            raise DeliveryRefused(401, "the X-Webhook-Secret header is missing or wrong")
        try:
            delivery = parse_json(body) if body.strip() else None
        except BrokenBody:
            delivery = None
        if not isinstance(delivery, dict) or is_deep(delivery, DEEPEST):
            raise DeliveryRefused(
                400, "a delivery must be a JSON object, nested at most 64 levels deep"
            )
        if no_ids(delivery):
            raise DeliveryRefused(400, "the delivery names a task by what is not an id")
        if self.deliveries.qsize() >= self.most_waiting:
            raise DeliveryRefused(503, "too many deliveries are waiting")
        self.deliveries.put(delivery)
