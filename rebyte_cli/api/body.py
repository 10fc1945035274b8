"""Bodies: those of answers read in time, decoded within a cap, believed only when whole."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..errors import BadUsage

CHUNK = 64 * 1024
# Decoded size of a JSON answer. A page of 100 tasks is some 50 KB; a transcript a few MB.
JSON_CAP = 64 * 1024 * 1024
ERROR_CAP = 64 * 1024


class Answer:
    """An answer: `status`, `headers` (case does not matter), `data` (decoded JSON; {} for an
    empty body; None from `Transport.raw`), `raw` (the body's bytes), `retried` (whether our own
    earlier try may have been carried out already), `coming` (an event stream's body while it
    arrives; None where `raw` is all).
    """

    __slots__ = ("coming", "data", "headers", "raw", "retried", "status")

    def __init__(
        self, status: int, headers: Mapping[str, str], data: Any, raw: bytes, retried: bool = False
    ) -> None:
        self.status = status
        self.headers = headers
        self.data = data
        self.raw = raw
        self.retried = retried
        self.coming: Iterator[bytes] | None = None


class Broken(Exception):
    """A body is not what it should be. `cut` when it ended early, which a new try may mend."""

    def __init__(self, why: str, *, cut: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.cut = cut


def chunks(response: Any) -> Iterator[bytes]:
    """The decoded bytes of a body as they arrive; `response` is one of requests, unread.

    Decodes gzip and deflate itself: the decoder of urllib3 takes a cut gzip stream for a whole
    one, and may blow up one small read to any size. Raises Broken, or what urllib3 raises.
    """
    encoding = (response.headers.get("Content-Encoding") or "identity").strip().lower()
    raw = _raw(response.raw)
    if encoding in ("identity", ""):
        return raw
    if encoding in ("gzip", "x-gzip"):
        return _inflate(raw, zlib.MAX_WBITS | 16)
    if encoding == "deflate":
        return _inflate(raw, zlib.MAX_WBITS)
    raise Broken("it came in an encoding that was not asked for")


def _raw(source: Any) -> Iterator[bytes]:
    # read1 gives what has arrived; read would wait until a whole chunk is there, and an event
    # would show up late. It also checks Content-Length at the end.
    while data := source.read1(CHUNK, decode_content=False):
        yield data


def _inflate(raw: Iterable[bytes], bits: int) -> Iterator[bytes]:
    inflater = zlib.decompressobj(bits)
    started = False
    try:
        for data in raw:
            while data:
                started = True
                if inflater.eof:  # a gzip body may be several members, one after another
                    inflater = zlib.decompressobj(bits)
                if piece := inflater.decompress(data, CHUNK):
                    yield piece
                data = inflater.unconsumed_tail or inflater.unused_data
                if not data and not inflater.eof:
                    # What is left inside comes out in capped pieces as well.
                    while piece := inflater.decompress(b"", CHUNK):
                        yield piece
    except zlib.error:
        raise Broken("its compression is damaged") from None
    if started and not inflater.eof:
        raise Broken("it was cut off", cut=True)


def read_all(response: Any, cap: int = JSON_CAP) -> bytes:
    """The whole decoded body; Broken when it is larger than `cap` bytes."""
    pieces: list[bytes] = []
    size = 0
    for piece in chunks(response):
        size += len(piece)
        if size > cap:
            raise Broken(f"it is larger than {cap // (1024 * 1024)} MiB")
        pieces.append(piece)
    return b"".join(pieces)


def read_whole(response: Any) -> bytes:
    """The whole decoded body within the usual cap; none for 204, whatever the headers promise."""
    if response.status_code in (204, 205):
        promised = response.headers.get("Content-Length", "0") != "0"
        if promised or "Transfer-Encoding" in response.headers:
            # What follows would be taken for the next answer on this connection.
            response.close()
            return b""
    return read_all(response)


def parse_json(data: bytes) -> Any:
    """A JSON document; {} for an empty body (seen in clients). Raises Broken with a short why."""
    if not data.strip():
        return {}
    if data.lstrip()[:1] == b"<":
        raise Broken("it is HTML or XML where JSON belongs")
    try:
        return json.loads(data, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise Broken("it is nested too deeply") from None
    except json.JSONDecodeError:
        raise Broken("it is not JSON") from None
    except ValueError:
        # Python refuses integers beyond 4,300 digits; UnicodeDecodeError is one of these too.
        raise Broken("it holds a number or a character that cannot be read") from None


def _refuse(name: str) -> Any:
    raise ValueError(name)


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError("out of range")
    return number


def as_json(response: Any, _wire: Any = None) -> Answer:
    """An answer with its body decoded."""
    raw = read_whole(response)
    return Answer(response.status_code, response.headers, parse_json(raw), raw)


def as_it_came(response: Any, _wire: Any = None) -> Answer:
    """An answer with its body's bytes only."""
    return Answer(response.status_code, response.headers, None, read_whole(response))


def encode(body: Any) -> bytes:
    """A body as JSON; BadUsage for what has no form in it."""
    try:
        return json.dumps(body, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError):
        raise BadUsage("the body cannot be written as JSON") from None
