"""One connection from the sandbox: one request, which is passed on or refused.

The answer closes the connection. So no second request can hide behind the first, and nothing that
one program sends is taken for another's.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import h11

from ...system.addresses import ANYWHERE, reach
from ...system.deadline import Deadline
from .allowed_hosts import HTTP_PORT, HTTPS_PORT, AllowedHosts, HostPort, parse_authority
from .channel import Channel, Tunnel, wait
from .exchange import AnswerCut, AnswerFilter, Exchange, Headers, end_to_end, framing
from .gateway_settings import CurrentModels, GatewaySettings, Limits
from .json_scanner import JsonScanner
from .model_budget import BudgetMeter, estimate
from .model_request import ModelRequest
from .refusal import GatewayRefusal
from .request_record import BUDGET, RequestEntry, RequestRecord, now
from .secret_mask import SecretMask
from .upstream import LARGEST_HEAD, UpstreamConnection, UpstreamConnector

GROWTH_SECONDS = 0.25  # between two lines of the record for counts that grow
NO_ROOM = "the disk has no room to record the request"


class TrafficQuota:
    """What all connections may use together. For several threads."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._sent = 0
        self._times: deque[float] = deque(maxlen=limits.requests_per_minute)

    def take_request(self) -> bool:
        """Count a request; False if there were too many within a minute."""
        with self._lock:
            now = time.monotonic()
            is_full = len(self._times) == self._times.maxlen
            if is_full and now - self._times[0] < 60:
                return False
            self._times.append(now)
            return True

    def take_bytes(self, count: int) -> bool:
        """Count bytes that go out to hosts on the list; False if there are too many."""
        with self._lock:
            self._sent += count
            return self._sent <= self._limits.sent_by_tunnels


class GatewayParts(NamedTuple):
    """What all connections of a gateway have in common. `port` is the gateway's own.

    `passwords` are those of the user's proxies. `ending` is set when the run ends; before that
    `stopped`, if it was the user who ended it.
    """

    settings: GatewaySettings
    models: CurrentModels
    allowed: AllowedHosts
    upstream: UpstreamConnector
    record: RequestRecord
    quota: TrafficQuota
    budget: BudgetMeter
    ending: threading.Event
    stopped: threading.Event
    port: int
    passwords: Sequence[str]


class PlainAnswer(AnswerFilter):
    """The answer of an allowed host, as it is but for what a proxy was told."""

    def __init__(self, mask: SecretMask) -> None:
        self._mask = mask

    def head(self, status: int, headers: Headers) -> Headers:
        """All of it, masked."""
        return [(n, self._mask.replace(v)) for n, v in headers]

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The same."""
        yield self._mask.feed(data)

    def flush(self) -> bytes:
        """What was held back."""
        return self._mask.flush()


class ClientConnection:
    """Serves one connection. `serve` is for its thread, `abort` for another."""

    def __init__(self, sock: socket.socket, shared: GatewayParts, *, is_crowded: bool) -> None:
        """With `is_crowded`, any request is told that there are too many connections."""
        self._sock = sock
        self._client = Channel(sock)
        self._inside = _new_parser()
        self._shared = shared
        self._limits = shared.settings.limits
        self._is_crowded = is_crowded
        self._upstream: socket.socket | None = None
        self._is_asking = False  # a model
        self._is_aborted = False

    def serve(self) -> None:
        """Serve the request to its end, record it, and close the connection."""
        try:
            while True:
                request = self._read_head()
                if request is None or not self._serve_request(request):
                    break
                # It was a tunnel to the gateway itself, by an agent that ignores NO_PROXY.
                rest, _ = self._inside.trailing_data
                self._inside = _new_parser()
                if rest:
                    self._inside.receive_data(rest)
            self._client.close()
        except OSError:
            self._client.close()
        except BaseException:  # a fault of ours, which the thread tells
            self._reset_at_close()
            raise

    def leave(self) -> None:
        """Make `serve` end, but for reading what the answer of a model says that it used."""
        self._shut_down([self._sock] if self._is_asking else [self._sock, self._upstream])

    def abort(self) -> None:
        """Make `serve` end soon."""
        self._shut_down([self._sock, self._upstream])

    def _shut_down(self, sockets: Iterable[socket.socket | None]) -> None:
        self._is_aborted = True
        for sock in sockets:
            if sock is not None:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not that of TLS, which waits

    def _read_head(self) -> h11.Request | None:
        """The next request; None at the end, and for what is none, which is answered."""
        deadline = Deadline(self._limits.head_seconds)
        try:
            while (event := self._inside.next_event()) is h11.NEED_DATA:
                if deadline.has_passed or not wait([self._client], [], deadline.left()):
                    return None
                data = self._client.receive()
                if data is not None:
                    self._inside.receive_data(data)
        except h11.RemoteProtocolError as error:
            status = error.error_status_hint
            reason = "the request is not valid HTTP, or its head is too large"
            refusal = GatewayRefusal(status, reason)
            self._shared.record.add(RequestEntry(now(), "", 0, "", "", status, refused=reason))
            self._refuse(refusal)
            return None
        return event if isinstance(event, h11.Request) else None

    def _serve_request(self, request: h11.Request) -> bool:
        """Serve one request; True after a tunnel to the gateway itself, in which another comes."""
        started = time.monotonic()
        handling = RequestHandling(self._shared, self._client, self._inside, self._attach)
        refusal = None
        try:
            try:
                if self._is_crowded or not self._shared.quota.take_request():
                    raise GatewayRefusal(503, "too many requests at once, or within a minute")
                if handling.handle(request):
                    return True
            except GatewayRefusal as error:
                refusal = error
                note = {"fault": error.reason} if error.is_fault else {"refused": error.reason}
                handling.note(status=error.status, option=error.option, **note)
            except AnswerCut as cut:
                handling.note(fault=str(cut))
                self._reset_at_close()
            except h11.ProtocolError:
                refusal = GatewayRefusal(400, "the request is not valid HTTP")
                handling.note(status=400, refused=refusal.reason)
            except OSError:
                handling.note(fault="the connection ended")
                self._reset_at_close()
        finally:
            seconds = round(time.monotonic() - started, 3)
            if not handling.is_relayed:
                entry = handling.entry._replace(seconds=seconds)
                if entry.fault and self._shared.ending.is_set():
                    status = entry.status if refusal is None else 0
                    entry = entry._replace(fault="the run ended", status=status)
                self._shared.record.add(entry, was_kept=handling.has_room)
            if self._upstream is not None:
                self._upstream.close()
        if refusal is not None:
            self._refuse(refusal, is_head=request.method == b"HEAD")
        else:
            self._client.close_gently()
        return False

    def _attach(self, sock: socket.socket, *, asks_model: bool) -> None:
        self._upstream, self._is_asking = sock, asks_model
        if self._is_aborted:
            raise ConnectionAbortedError("the gateway ends")

    def _reset_at_close(self) -> None:
        """An answer that is cut must not look complete, as one without a length would."""
        with contextlib.suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._client.close()

    def _refuse(self, refusal: GatewayRefusal, *, is_head: bool = False) -> None:
        """Answer, without a body to HEAD. An answer that has begun already is cut instead."""
        if self._inside.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self._reset_at_close()
            return
        body = refusal.body()
        with contextlib.suppress(OSError):
            self._client.send(self._inside.send(refusal.head(len(body))) or b"")
            if not is_head:
                self._client.send(self._inside.send(h11.Data(data=body)) or b"")
            self._client.close_gently()


class RequestHandling:
    """Decides what happens to one request, and does it. `entry` says what came of it."""

    def __init__(
        self,
        shared: GatewayParts,
        client: Channel,
        inside: h11.Connection,
        attach: Callable[..., None],
    ) -> None:
        """`attach` is given the upstream socket as soon as it is connected, and whether it
        leads to a model that works (`asks_model`).
        """
        self._shared = shared
        self._limits = shared.settings.limits
        self._client = client
        self._inside = inside
        self._attach = attach
        self.entry = RequestEntry(now(), "", 0, "", "")
        self.is_relayed = False
        self.has_room = False  # for the entry
        self._passing: Exchange | None = None
        self._recorded = self.entry  # last
        self._pause = Deadline(0)  # after counts that grew

    def note(self, **fields: object) -> None:
        """Set fields of the entry."""
        self.entry = self.entry._replace(**fields)  # type: ignore[arg-type]  # by their names

    def handle(self, request: h11.Request) -> bool:
        """True after a tunnel to the gateway itself. Raises GatewayRefusal, AnswerCut, OSError."""
        method, target = request.method.decode("ascii"), request.target.decode("ascii")
        self.note(method=method)
        if method == "CONNECT":
            return self._tunnel(request, target)
        scheme, separator, rest = target.partition("://")
        if target.startswith("/"):
            self._ask_model(request, method, target)
        elif separator and scheme.lower() == "http":
            authority, slash, path = rest.partition("/")
            place = self._place(authority, HTTP_PORT)
            if self._is_own(place):
                self._ask_model(request, method, slash + path)
            else:
                self._ask_host(request, method, place, f"/{path}")
        else:
            raise GatewayRefusal(400, "the request names neither a path nor an http:// address")
        return False

    def _ask_model(self, request: h11.Request, method: str, target: str) -> None:
        self.note(path=target.partition("?")[0])
        models, passwords = self._shared.models.routes(), self._shared.passwords
        asked = ModelRequest(models, method, target, passwords)
        self.note(host=asked.place.host, port=asked.place.port)
        headers = list(request.headers)
        asked.check(headers)
        self.note(path=asked.rest)
        self._check_budget()
        body = framing(headers)
        if body and method == "GET":
            raise GatewayRefusal(400, "a GET request has no body")
        may_send = self._limit(self._limits.model_body, is_counted=False)
        _check_length(body, self._limits.model_body)
        passed = asked.headers(headers) + body
        self._keep_room()
        self.note(id=os.urandom(6).hex())
        self._recorded = self.entry
        asked.answer.on_news = partial(self._record_growth, asked)
        asked.answer.on_end = partial(self._record_end, asked)
        question = asked.question(passed) if asked.generates else None
        is_cut = False
        try:
            if asked.generates:
                self._record_use(asked)
            connection = self._shared.upstream.to_model(asked.scheme, asked.place)
            self._exchange(
                connection, asked.scheme, asked.place, method, asked.target, passed, may_send,
                asked.answer, question=question, check=partial(self._check_question, asked),
            )  # fmt: skip
        except (AnswerCut, GatewayRefusal):
            is_cut = self._passing is not None and not self._passing.is_chosen
            raise
        finally:
            if self._shared.ending.is_set():  # and broke the connections
                is_cut = self._shared.stopped.is_set()
            self._count(asked, is_open=False, is_cut=is_cut)

    def _check_budget(self) -> None:
        """Raise GatewayRefusal if no request may pass any more."""
        if reason := self._shared.budget.reached():
            raise GatewayRefusal(402, reason, BUDGET)

    def _keep_room(self) -> None:
        """Raise GatewayRefusal if what would go out could not be recorded."""
        self.has_room = self._shared.record.keep_room()
        if not self.has_room:
            raise GatewayRefusal(503, NO_ROOM)

    def _check_question(self, asked: ModelRequest) -> None:
        """Before a question is complete, which then may ask for more than one answer."""
        self._check_budget()
        if asked.answers > 1:
            self._record_use(asked)

    def _record_use(self, asked: ModelRequest) -> None:
        """Record that what is asked may use much. Raises GatewayRefusal if the disk is full."""
        self._count(asked, is_open=True)
        if not self._add():
            raise GatewayRefusal(503, NO_ROOM)

    def _record_growth(self, asked: ModelRequest) -> None:
        """Record what is new: most answers say it twice at most, some with each piece.

        Should this process be killed, the record has what the agent knows by then, or more: while
        it is open, a request counts as one of the largest.
        """
        before = self._recorded
        self._count(asked, is_open=True)
        is_final = before.is_open and not self.entry.is_open
        is_urgent = is_final or before.refused_for != self.entry.refused_for
        if is_urgent or self._pause.has_passed:
            self._pause = Deadline(GROWTH_SECONDS)
            self._add()

    def _record_end(self, asked: ModelRequest) -> None:
        """Record what is not yet, before the agent has all of the answer and may ask again."""
        self._count(asked, is_open=False)
        if self.entry != self._recorded:
            self._add()

    def _add(self) -> bool:
        self._recorded = self.entry
        return self._shared.record.add(self.entry, synced=False)

    def _count(self, asked: ModelRequest, *, is_open: bool, is_cut: bool = False) -> None:
        answer, passing = asked.answer, self._passing
        answer.is_provoked = passing is not None and passing.has_dawdled
        uncounted = None
        if asked.generates and not answer.is_accounted and (is_open or self._has_worked()):
            sent, received = (passing.sent, passing.received) if passing else (0, 0)
            number = asked.answers
            uncounted = estimate(answer.usage, sent, received, is_cut=is_cut, answers=number)
        is_open = is_open and uncounted is not None
        self.note(usage=answer.usage, model=answer.model, refused_for=answer.refused_for)
        self.note(uncounted=uncounted, is_open=is_open)
        if asked.generates:
            self.note(route=asked.route, asked=asked.model)
        counts = [answer.usage, None if is_open else uncounted]
        self._shared.budget.spend(str(self.entry.id), answer.model, *counts)

    def _has_worked(self) -> bool:
        """Whether a model may have done what it was asked: not if its server refuses at once.

        At the end of the run, none is waited for any more.
        """
        passing = self._passing
        if passing is None or not passing.was_sent:
            return False
        return not passing.has_failed or self._shared.ending.is_set()

    def _ask_host(self, request: h11.Request, method: str, place: HostPort, path: str) -> None:
        self.note(path=path.partition("?")[0])
        self._check_allowed(place)
        if method in ("TRACE", "TRACK"):
            raise GatewayRefusal(405, f"{method} would show what is added to requests on their way")
        headers = list(request.headers)
        body = framing(headers)
        _check_length(body, self._limits.sent_by_tunnel)
        may_send = self._limit(self._limits.sent_by_tunnel, is_counted=True)
        kept = [(n, v) for n, v in end_to_end(headers) if n not in (b"host", b"expect")]
        self._keep_room()
        connection = self._shared.upstream.to_allowed("http", place)
        answer = PlainAnswer(SecretMask((), self._shared.passwords))
        self._exchange(connection, "http", place, method, path, kept + body, may_send, answer)

    def _exchange(
        self,
        connection: UpstreamConnection,
        scheme: str,
        place: HostPort,
        method: str,
        target: str,
        headers: Headers,
        may_send: Callable[[int], str],
        answer: AnswerFilter,
        *,
        question: JsonScanner | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        drains = question is not None  # a model is at work
        self._attach(connection.sock, asks_model=drains)
        host = place.header(HTTPS_PORT if scheme == "https" else HTTP_PORT)
        if connection.proxy is not None:
            target = f"http://{host}{target}"
            if connection.proxy.authorization is not None:
                headers.append((b"Proxy-Authorization", connection.proxy.authorization))
        headers = [(b"Host", host.encode()), *headers, (b"Connection", b"close")]
        request = h11.Request(method=method, target=target, headers=headers)
        exchange = Exchange(
            (self._client, self._inside),
            Channel(connection.sock),
            answer,
            may_send=may_send,
            idle_seconds=self._limits.idle_seconds,
            stalled_seconds=self._limits.stalled_seconds,
            refusing_seconds=self._limits.refusing_seconds,
            drain_seconds=self._limits.drain_seconds if drains else 0.0,
            question=question,
            check=check,
        )
        self._passing = exchange
        try:
            exchange.run(request)
        finally:
            self.note(status=exchange.status, sent=exchange.sent, received=exchange.received)

    def _tunnel(self, request: h11.Request, target: str) -> bool:
        place = self._place(target, None)
        if framing(list(request.headers)):
            raise GatewayRefusal(400, "a CONNECT request has no body")
        self._inside.next_event()  # the end of the request
        established = h11.Response(status_code=200, headers=[], reason=b"Connection established")
        if self._is_own(place):
            self.is_relayed = True
            self._client.send(self._inside.send(established) or b"")
            return True
        self._check_allowed(place)
        self._keep_room()
        connection = self._shared.upstream.to_allowed("https", place)
        self._attach(connection.sock, asks_model=False)
        upstream = Channel(connection.sock)
        may_send = self._limit(self._limits.sent_by_tunnel, is_counted=True)
        self.note(status=200)
        self._client.send(self._inside.send(established) or b"")
        tunnel = Tunnel(self._client, upstream, may_send)
        rest, has_ended = self._inside.trailing_data
        try:
            cut = tunnel.run(
                rest, has_ended, self._limits.received_by_tunnel, self._limits.idle_seconds
            )
        finally:
            self.note(sent=tunnel.sent, received=tunnel.received)
        if cut:
            raise AnswerCut(cut)
        return False

    def _place(self, authority: str, default_port: int | None) -> HostPort:
        place = parse_authority(authority, default_port)
        if place is None:
            raise GatewayRefusal(403, "the request names no host and port in their usual spelling")
        self.note(host=place.host, port=place.port)
        return place

    def _is_own(self, place: HostPort) -> bool:
        return place.host in ("127.0.0.1", "localhost") and place.port == self._shared.port

    def _check_allowed(self, place: HostPort) -> None:
        if place not in self._shared.allowed:
            if reach(place.host) < ANYWHERE:
                reason = f"{place.host} is in no public network: no option allows it"
                raise GatewayRefusal(403, reason)
            option = f"--allow {place.entry}"
            reason = f"{place.text} is not on the list of this run; allow it with {option}"
            raise GatewayRefusal(403, reason, option)

    def _limit(self, most: int, *, is_counted: bool) -> Callable[[int], str]:
        """Says whether so many more bytes may go out through this connection, and all of them."""
        sent = 0

        def may_send(count: int) -> str:
            nonlocal sent
            sent += count
            if sent > most:
                return f"more than {most} bytes were sent through one connection"
            if is_counted and not self._shared.quota.take_bytes(count):
                return f"more than {self._limits.sent_by_tunnels} bytes were sent by this run"
            return ""

        return may_send


def _new_parser() -> h11.Connection:
    return h11.Connection(h11.SERVER, max_incomplete_event_size=LARGEST_HEAD)


def _check_length(body: Headers, most: int) -> None:
    """Refuse a body that says that it is too large, before anything is sent."""
    for name, value in body:
        if name.lower() == b"content-length" and int(value) > most:
            raise GatewayRefusal(413, f"the body is larger than {most} bytes")
