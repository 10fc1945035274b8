"""One request and its answer, passed on as they come.

Both sides are parsed and framed again (h11), so that a request which two servers could read in two
ways arrives as the one that was checked here.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from http import HTTPStatus

import h11

from ...system.deadline import Deadline
from .channel import Channel, wait
from .json_scanner import JsonScanner
from .refusal import GatewayRefusal

Headers = list[tuple[bytes, bytes]]

_PHRASES = {each.value: each.phrase for each in HTTPStatus}
# They belong to one connection (RFC 9110, 7.6.1), or to the framing, which is made again.
HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer"
    b" transfer-encoding upgrade http2-settings content-length".split()
)
MOST_INFORMATIONAL = 100  # answers with a status of 1xx, of which a request needs one
NOT_UTF_8 = "a question to a model is JSON in UTF-8"
DAWDLING_SECONDS = 1.0  # for which a client keeps a server waiting, altogether


class AnswerFilter(ABC):
    """What is done to an answer before the client gets it."""

    # Whether as many bytes are passed on as come; known after `head`.
    keeps_length = True
    # Whether the answer itself shows where it ends, and not the connection; known before `head`.
    is_framed = True

    @abstractmethod
    def head(self, status: int, headers: Headers) -> Headers:
        """The headers to pass on, without framing. Raises GatewayRefusal to answer otherwise."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What to pass on of the next piece, now or later. Raises AnswerCut."""
        yield data

    def flush(self) -> bytes:
        """What is left at the end. Raises AnswerCut."""
        return b""


class AnswerCut(Exception):
    """The answer has begun and cannot be completed; the text says why."""


class Exchange:
    """Passes one request on, whose head was read from `client` already, and the answer back.

    `status`, `sent` and `received` say how far it came: bytes of the body and of the answer's;
    `was_sent` whether the whole request went out, or as much as a server can answer to,
    `has_failed` whether no answer began, so soon that it was refused, and `has_dawdled` whether the
    client kept the server waiting for so long that it may have given up.
    """

    def __init__(
        self,
        client: tuple[Channel, h11.Connection],
        upstream: Channel,
        answer: AnswerFilter,
        *,
        may_send: Callable[[int], str],
        idle_seconds: float,
        stalled_seconds: float,
        refusing_seconds: float,
        drain_seconds: float = 0.0,
        question: JsonScanner | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """`may_send` is told how many bytes are to go out, and says why not, or nothing.

        Without a byte for `idle_seconds`, the exchange ends, as if the client had left where it
        takes nothing of the answer; so it does if the server takes none of the request for
        `stalled_seconds`. A server that ends the connection has refused the request, unless it had
        the question for `refusing_seconds`. With `drain_seconds`, the answer to a client that
        leaves is read for that long, for what it says at its end. `question` reads the request's
        body: servers that read one JSON value, as those in Go do, are at work once that is there,
        whatever the length of the body says, and whether or not its last chunk comes. `check` is
        called before the question is completed, and before the request is: it raises
        GatewayRefusal if they may not be.
        """
        self._client, self._inside = client
        self._upstream = upstream
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=65536)
        self._answer = answer
        self._may_send = may_send
        self._idle_seconds = idle_seconds
        self._stalled_seconds = stalled_seconds
        self._refusing_seconds = refusing_seconds
        self._drain_seconds = drain_seconds
        self._question = question
        self._check = check
        self._refusing: Deadline | None = None  # once the server can have the question
        self._drain: Deadline | None = None  # once the client has left
        self._pieces: Iterator[bytes] = iter(())  # of the answer, each unpacked when it can be sent
        self._held = b""  # the last one, until it is known that the answer has more to come
        self._has_begun = False  # to be answered, in whatever way
        self._informational = 0
        self._kept_waiting = 0.0  # seconds
        self._is_given_up = False  # the rest of the request, or the answer
        self._length: int | None = None  # of the request's body, where that is said
        self._is_uploading = True
        self._has_answered = False
        self.status = self.sent = self.received = 0
        self.was_sent = False
        self.has_failed = self.has_dawdled = False

    @property
    def is_chosen(self) -> bool:
        """Whether the client can have brought about how it ends: what is sent to a server that is
        at work already, when that is taken, and for how long it works, a program can choose.
        """
        is_sending = self._is_uploading or self._upstream.is_full
        return is_sending or self._is_given_up or self.has_dawdled

    def run(self, request: h11.Request) -> None:
        """Send `request`, with the body that the client sends, and pass the answer on.

        Raises GatewayRefusal as long as nothing was answered, then AnswerCut, and OSError or
        h11.RemoteProtocolError for faults of the client: ConnectionAbortedError if it has left.
        """
        self._length = next((int(v) for n, v in request.headers if n == b"content-length"), None)
        self._send_out(request)
        if self._inside.they_are_waiting_for_100_continue:
            go_on = h11.InformationalResponse(status_code=100, headers=[])
            self._to_client(go_on)
        while True:
            self._upload()
            if self.was_sent and self._refusing is None:
                self._refusing = Deadline(self._refusing_seconds)
            self._download()
            if self._has_answered and not self._client.is_full:
                if self._drain is not None:
                    raise ConnectionAbortedError("the client has left")
                return
            self._wait()

    def _to_client(self, event: h11.Event) -> None:
        """Raises OSError if the client has left, unless its answer is to be read all the same."""
        data = self._inside.send(event)
        if self._drain is None:
            self._deliver(data or b"")

    def _deliver(self, data: bytes) -> None:
        try:
            self._client.send(data)
        except OSError:
            if not self._drain_seconds or not self.was_sent:
                raise
            self._client.discard()
            self._drain = Deadline(self._drain_seconds)

    def _check_drain(self) -> float:
        """The seconds for which the answer may still be read. Raises OSError if there are none."""
        if self._drain is None:
            return self._idle_seconds
        if self._drain.has_passed:
            raise ConnectionAbortedError("the client has left")
        return self._drain.left()

    def _wait(self) -> None:
        reading = []
        if self._is_uploading and not self._upstream.is_full:
            reading.append(self._client)
        if not self._client.is_full and not self._has_answered:
            reading.append(self._upstream)
        writing = [each for each in (self._client, self._upstream) if each.is_full]
        seconds = self._check_drain()
        is_stalled = self._is_uploading and self._upstream.is_full and not self.status
        if is_stalled:
            seconds = min(seconds, self._stalled_seconds)
        is_whole = self._question is not None and self._question.has_ended
        is_kept_waiting = self._client.is_full or (self._client in reading and is_whole)
        began = time.monotonic()
        has_news = wait(reading, writing, seconds)
        if is_kept_waiting:
            self._kept_waiting += time.monotonic() - began
            self.has_dawdled = self._kept_waiting > DAWDLING_SECONDS
        if not has_news:
            self._check_drain()
            self._is_given_up = True
            if self._client.is_full:
                raise ConnectionAbortedError("the client takes nothing")
            what = "the server took nothing" if is_stalled else "nothing was sent"
            raise self._failure(504, f"{what} for {seconds:.0f} s")

    def _upload(self) -> None:
        try:
            self._upstream.flush()
        except OSError:
            self._stop_upload()
        is_checked = False
        while self._is_uploading and not self._upstream.is_full:
            event = self._inside.next_event()
            if event is h11.NEED_DATA:
                data = self._client.receive()
                if data is None:
                    return
                self._inside.receive_data(data)
            elif isinstance(event, h11.Data):
                self.sent += len(event.data)
                if reason := self._may_send(len(event.data)):
                    raise self._failure(413, reason)
                is_whole = self._reads_whole(bytes(event.data))
                # With the last byte of its length, the server has the request.
                if (is_whole or self.sent == self._length) and not is_checked:
                    self._check()
                    is_checked = True
                self._send_out(h11.Data(data=event.data))
                self.was_sent |= is_whole
            elif isinstance(event, h11.EndOfMessage):
                if not is_checked and self.sent != self._length:
                    self._check()
                self._send_out(h11.EndOfMessage())  # trailers are left out
                self.was_sent |= self._is_uploading  # unless the server takes no more
                self._is_uploading = False
            else:
                raise ConnectionAbortedError("the client ended within its request")

    def _reads_whole(self, data: bytes) -> bool:
        """Whether the question is whole with these bytes."""
        question = self._question
        if question is not None and not question.has_ended:
            if b"\0" in data:  # in JSON of another charset, and in no other
                raise self._failure(400, NOT_UTF_8)
            question.feed(data)
        return question is not None and question.has_ended

    def _send_out(self, event: h11.Event) -> None:
        data = self._h11.send(event)
        try:
            self._upstream.send(data or b"")
        except OSError:  # an answer may have come before that
            self._stop_upload()

    def _stop_upload(self) -> None:
        self._is_given_up |= self._is_uploading or self._upstream.is_full
        self._is_uploading = False
        self._upstream.discard()

    def _download(self) -> None:
        self._deliver(b"")
        while not self._client.is_full and not self._has_answered:
            self._check_drain()
            if (piece := next(self._pieces, None)) is not None:
                if piece:
                    self._send_held()
                    self._held = piece
                continue
            try:
                event = self._h11.next_event()
                if event is h11.NEED_DATA:
                    self._send_held()
                    data = self._upstream.receive()
                    if data is None:
                        return
                    self._has_begun |= bool(data)
                    self._h11.receive_data(data)
                    continue
            except h11.RemoteProtocolError:
                raise self._failure(502, "the server's answer is broken or incomplete") from None
            except OSError as error:
                reason = f"the connection broke: {error.strerror or error}"
                raise self._failure(502, reason) from None
            try:
                self._pass_on(event)
            except h11.LocalProtocolError:
                raise self._failure(502, "the server's answer is not valid HTTP") from None

    def _send_held(self) -> None:
        held, self._held = self._held, b""
        if held:
            self._to_client(h11.Data(data=held))

    def _pass_on(self, event: object) -> None:
        if isinstance(event, h11.InformationalResponse):
            if event.status_code == 101:
                raise self._failure(502, "the server switched to another protocol")
            self._informational += 1
            if self._informational > MOST_INFORMATIONAL:
                raise self._failure(502, "the server does not come to its answer")
        elif isinstance(event, h11.Response):
            self._begin(event)
        elif isinstance(event, h11.Data):
            self.received += len(event.data)
            self._pieces = self._answer.feed(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            # First: with the last byte, the client may know that the answer has ended.
            data = self._answer.flush()
            self._send_held()
            if data:
                self._to_client(h11.Data(data=data))
            self._to_client(h11.EndOfMessage())
            self._has_answered = True
        else:
            raise self._failure(502, "the server closed the connection without an answer")

    def _begin(self, response: h11.Response) -> None:
        self.was_sent = True  # a server that reads one JSON value waits for no end of the body
        kept = end_to_end(list(response.headers))
        named = {name for name, _ in response.headers}
        self._answer.is_framed = bool(named & {b"content-length", b"transfer-encoding"})
        headers = self._answer.head(response.status_code, kept)
        # Of both, Transfer-Encoding counts (RFC 9112, 6.3): the length may be that of anything.
        if self._answer.keeps_length and b"transfer-encoding" not in named:
            headers += [(n, v) for n, v in response.headers if n == b"content-length"]
        headers.append((b"Connection", b"close"))
        self.status = response.status_code
        # The server's own phrase could say anything.
        phrase = _PHRASES.get(response.status_code, "").encode()
        head = h11.Response(status_code=response.status_code, headers=headers, reason=phrase)
        self._to_client(head)

    def _failure(self, status: int, reason: str) -> Exception:
        is_soon = self._refusing is None or not self._refusing.has_passed
        is_refusal = is_soon and not self._has_begun and not self.has_dawdled
        self.has_failed = status == 502 and is_refusal
        return AnswerCut(reason) if self.status else GatewayRefusal(status, reason)


def end_to_end(headers: Headers) -> Headers:
    """The headers without those that are for one connection only, and without framing."""
    named = {
        word.strip().lower()
        for name, value in headers
        if name == b"connection"
        for word in value.split(b",")
    }
    return [(n, v) for n, v in headers if n not in HOP_BY_HOP and n not in named]


def framing(headers: Headers) -> Headers:
    """How the body of a request is framed: by its length, in chunks, or not at all.

    Raises GatewayRefusal for a request with both, which servers read in different ways.
    """
    lengths = [(n, v) for n, v in headers if n == b"content-length"]
    chunked = [(n, v) for n, v in headers if n == b"transfer-encoding"]
    if lengths and chunked:
        raise GatewayRefusal(400, "a request has Content-Length or Transfer-Encoding, not both")
    return lengths or [(b"Transfer-Encoding", b"chunked")] if chunked or lengths else []
