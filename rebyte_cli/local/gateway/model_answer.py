"""What is done to the answer of a model: no secrets, no way elsewhere, and its tokens counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from .exchange import AnswerCut, AnswerFilter, Headers
from .gateway_settings import LoginFile, ModelRoute, read_key
from .model_refusal import STATUSES, ModelRefusal
from .model_usage import UsageReader, is_in_ascii
from .refusal import GatewayRefusal
from .request_record import LOGIN, printable
from .secret_mask import SecretMask

# They would send the agent elsewhere, or are for browsers.
_DROPPED = frozenset(
    b"alt-svc content-location expect-ct link location nel refresh report-to set-cookie set-cookie2"
    b" strict-transport-security".split()
)
PIECE = 256 * 1024  # bytes of an answer that are unpacked at a time
LONGEST_ERROR = 4096  # bytes of one that only says what is wrong
WRITTEN = b'"failed_generation"'  # a key of Groq's, and of others after it
# Of these, also a longer one is no work of a model: of a login, of what does not exist, of a limit
# and of a server that is down, proxies send whole pages, and agents ask again.
PAGES = {401, 403, 404, 429, *range(500, 600)}
COMPRESSIONS = {b"gzip", b"x-gzip", b"deflate"}


class Unpacked:
    """A stream without its compression. Raises AnswerCut for anything else."""

    def __init__(self) -> None:
        import zlib  # few servers compress what was to come as it is

        self._error = zlib.error
        self._stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # gzip or zlib, as it says
        self._is_empty = True

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The next piece, in pieces: it may be a thousand times as long as `data`."""
        self._is_empty &= not data
        piece = b"begin"
        while data or piece:
            try:
                piece = self._stream.decompress(data, PIECE)
            except self._error:
                raise AnswerCut("the compression of the answer is broken") from None
            if self._stream.unused_data:
                raise AnswerCut("the answer continues after the end of its compression")
            data = self._stream.unconsumed_tail
            if piece:
                yield piece

    def check_end(self) -> None:
        """Check that it was complete, or empty, as after HEAD."""
        if not self._stream.eof and not self._is_empty:
            raise AnswerCut("the answer ends within its compression")


class ErrorText:
    """Tells from an error with this status whether a model was at work for it (`has_cost`).

    Some providers refuse what their model wrote, because it does not fit the schema that was asked
    for, and put it into the error.
    """

    def __init__(self, status: int) -> None:
        self._room = None if status in PAGES else LONGEST_ERROR
        self._end = b""
        self.has_cost = False

    def feed(self, data: bytes) -> None:
        """Take in the next bytes of the body."""
        text = self._end + data
        self._end = text[1 - len(WRITTEN) :]
        self.has_cost |= WRITTEN in text
        if self._room is not None:
            self._room -= len(data)
            self.has_cost |= self._room < 0


class ModelAnswer(AnswerFilter):
    """Filters the answer to one request, to the model of `route` at `host`."""

    def __init__(self, route: ModelRoute, mask: SecretMask, wire: str, host: str) -> None:
        """`wire` is that of the request; `mask` knows what it has that the client has not."""
        self._route = route
        self._wire = wire
        self._host = host
        self._mask = mask
        self._unpacked: Unpacked | None = None
        self._reader: UsageReader | None = None
        self._changes = 0
        self._error: ErrorText | None = None  # if its status refuses the request
        self._has_ended = False
        self._refusal: ModelRefusal | None = None
        # Whether the client made the server wait for so long that an error need be no refusal, and
        # the end of the connection not that of the answer.
        self.is_provoked = False
        # The seconds for which the model refuses requests, if it refused this one for that long.
        self.refused_for: float | None = None
        # Called when more was used or refused, before what says so is passed on.
        self.on_news: Callable[[], object] = lambda: None
        self.on_end: Callable[[], object] = lambda: None

    @property
    def usage(self) -> Mapping[str, Any] | None:
        """The tokens that the model counted; None if it told none."""
        return None if self._reader is None else self._reader.usage() or None

    @property
    def is_accounted(self) -> bool:
        """Whether all that it used is known: nothing, if the request was refused at once."""
        if self._error is not None and not self._error.has_cost and not self.is_provoked:
            return True
        # Where the connection ends the answer, that of a server which gave up looks whole.
        has_ended = self._has_ended and (self.is_framed or not self.is_provoked)
        return self._reader is not None and self._reader.is_final(has_ended=has_ended)

    @property
    def model(self) -> str | None:
        """The name of the model that answered; None if it told none."""
        return None if self._reader is None else self._reader.model

    def head(self, status: int, headers: Headers) -> Headers:
        """Without cookies and addresses; a redirect is a fault, and so is a refused login."""
        self._error = None if 200 <= status < 300 else ErrorText(status)
        if 300 <= status < 400 and status != 304:
            location = next((v for n, v in headers if n == b"location"), b"")
            origin = _origin(self._mask.replace(location))
            reason = f"{self._host} redirects to {origin}, which is not followed"
            raise GatewayRefusal(502, reason)
        if status == 401 and self._route.login is not None:
            raise self._rejected_login(self._route.login)
        if status in STATUSES:
            named = {n.decode("latin-1"): v.decode("latin-1") for n, v in headers}
            self._refusal = ModelRefusal(named, time.time())
        headers = self._unpack(headers)
        kinds = [v for n, v in headers if n == b"content-type"]
        if not is_in_ascii(kinds):
            reason = f"{self._host} answers in a charset that was not asked for"
            raise GatewayRefusal(502, reason)
        self._reader = UsageReader(self._wire, b",".join(kinds))
        return [(n, self._mask.replace(v)) for n, v in headers if n not in _DROPPED]

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Count, and mask."""
        pieces = [data] if self._unpacked is None else self._unpacked.feed(data)
        return map(self._passed, pieces)

    def _passed(self, data: bytes) -> bytes:
        if self._error is not None:
            self._error.feed(data)
        if self._reader is not None:
            self._reader.feed(data)
            if self._reader.changes > self._changes:
                self._changes = self._reader.changes
                self.on_news()
        if self._refusal is not None and self._refusal.feed(data):
            self._note_refusal()
        return self._mask.feed(data)

    def flush(self) -> bytes:
        """What was held back."""
        if self._unpacked is not None:
            self._unpacked.check_end()
        self._has_ended = True
        self._note_refusal()
        self.on_end()
        return self._mask.flush()

    def _unpack(self, headers: Headers) -> Headers:
        """The headers of what is passed on, which is not compressed: nothing could read it here.

        Raises GatewayRefusal for a compression that is unknown; none was asked for.
        """
        named = b",".join(v for n, v in headers if n == b"content-encoding").lower()
        words = {word.strip() for word in named.split(b",")} - {b"", b"identity"}
        if words:
            if words - COMPRESSIONS or named.count(b",") > 0:
                reason = f"{self._host} compresses its answer, which was not asked for"
                raise GatewayRefusal(502, reason)
            self._unpacked, self.keeps_length = Unpacked(), False
        return [(n, v) for n, v in headers if n != b"content-encoding"]

    def _rejected_login(self, login: LoginFile) -> GatewayRefusal:
        """The answer instead of one that sends the agent to a login that it does not have."""
        key = read_key(login)
        if key and key != self._route.key:
            return GatewayRefusal(503, "the login was renewed while this was asked: ask again")
        # It need not be too old: a program in the sandbox can ask for what no login is for.
        reason = f"the model refused the login of {login.agent} (401): if it has expired,"
        return GatewayRefusal(401, f"{reason} {login.renewal}", LOGIN)

    def _note_refusal(self) -> None:
        if self._refusal is not None and (seconds := self._refusal.seconds()) is not None:
            self.refused_for, self._refusal = round(seconds, 3), None
            self.on_news()


def _origin(location: bytes) -> str:
    """The scheme and the host of an address, which may hold anything else."""
    try:
        parts = urlsplit(location.decode("ascii"))
        return printable(f"{parts.scheme}://{parts.hostname}") if parts.hostname else "a path"
    except ValueError:
        return "an invalid address"
