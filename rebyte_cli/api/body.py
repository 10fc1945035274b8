"""Bodies: those of responses, read in time and decoded within a cap; those of uploads, streamed."""

from __future__ import annotations

import io
import json
import math
import os
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import AnswerTooLarge, BadUsage, BrokenAnswer, NotFound
from .failures import AttemptFailed
from .retry import RetryPolicy
from .urls import shown_id
from .views import no_ids

if TYPE_CHECKING:
    from requests import Response

    from .connection import AttemptState


CHUNK = 64 * 1024
# Decoded size of a JSON response. A page of 100 tasks is some 50 KB; a transcript a few MB.
JSON_CAP = 64 * 1024 * 1024
ERROR_CAP = 64 * 1024
NO_API = "A page for people: the base URL is no API, or your network asks you to log in first"


class Request(NamedTuple):
    """What is to be sent, and under which rules.

    `path` names the call in messages and logs (never with a signature), `url` is where it goes.
    `body` is bytes, None, or a function that gives its pieces, for each attempt. `seconds` is the
    time limit of the whole call. With `idle`, that limit covers the way to the headers only,
    and `idle` bounds each read or write of a body; with `per_attempt` it starts again for each
    attempt.
    """

    method: str
    path: str
    url: str
    headers: Mapping[str, str]
    repeat: RetryPolicy
    seconds: float
    body: bytes | Callable[[AttemptState], Any] | None = None
    idle: float | None = None
    per_attempt: bool = False


class ApiResponse(NamedTuple):
    """A response: `status`, `headers` (case does not matter), `data` (decoded JSON; {} for an
    empty body; None from `Transport.raw`), `raw` (the body's bytes), `coming` (an event stream's
    body while it arrives; None where `raw` is all).
    """

    status: int
    headers: Mapping[str, str]
    data: Any
    raw: bytes
    coming: Iterator[bytes] | None = None


class BrokenBody(AttemptFailed):
    """A body is not what it should be, as `reason` says.

    `cut`: it ended early, so another attempt may help.
    """

    def __init__(
        self,
        reason: str,
        *,
        cut: bool = False,
        hint: str | None = None,
        code: str = BrokenAnswer.code,
    ) -> None:
        why = reason if cut else f"the answer cannot be used: {reason}"
        super().__init__(why, code=code, hint=hint, futile=not cut)
        self.reason = reason


def chunks(response: Response) -> Iterator[bytes]:
    """The decoded bytes of a body as they arrive; `response` is one of requests, unread.

    Decodes gzip and deflate itself: the decoder of urllib3 accepts a cut gzip stream as a
    whole one, and may expand one small read to any size. Raises BrokenBody, or what urllib3 raises.
    """
    encoding = (response.headers.get("Content-Encoding") or "identity").strip().lower()
    raw = _raw(response.raw)
    if encoding in ("identity", ""):
        return raw
    if encoding in ("gzip", "x-gzip"):
        return _inflate(raw, zlib.MAX_WBITS | 16)
    if encoding == "deflate":
        return _inflate(raw, zlib.MAX_WBITS)
    raise BrokenBody("it came in an encoding that was not requested")


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
        raise BrokenBody("its compression is damaged") from None
    if started and not inflater.eof:
        raise BrokenBody("it was cut off", cut=True)


def read_all(response: Response, cap: int = JSON_CAP) -> bytes:
    """The whole decoded body; BrokenBody when it has more than `cap` bytes."""
    pieces: list[bytes] = []
    size = 0
    for piece in chunks(response):
        size += len(piece)
        if size > cap:
            raise BrokenBody(f"it is larger than {cap >> 20} MiB", code=AnswerTooLarge.code)
        pieces.append(piece)
    return b"".join(pieces)


def read_short(response: Response) -> bytes:
    """A body beside which the status says enough: empty if it cannot be read, or has too much.

    One that is read whole keeps the connection usable.
    """
    from .connection import TRANSPORT_ERRORS

    try:
        return read_all(response, ERROR_CAP)
    except (BrokenBody, *TRANSPORT_ERRORS):
        response.close()
        return b""


def read_whole(response: Response) -> bytes:
    """The whole decoded body within the usual cap; empty for 204, whatever the headers promise."""
    if response.status_code in (204, 205):
        promised = response.headers.get("Content-Length", "0") != "0"
        if promised or "Transfer-Encoding" in response.headers:
            # What follows would be read as the next response on this connection.
            response.close()
            return b""
    return read_all(response)


def parse_json(data: bytes) -> Any:
    """A JSON document; {} for an empty body (seen in clients). Raises BrokenBody with a reason."""
    if not data.strip():
        return {}
    if data.lstrip()[:1] == b"<":
        raise BrokenBody("it is HTML or XML instead of JSON", hint=NO_API)
    try:
        return json.loads(data, parse_constant=_finite, parse_float=_finite)
    except RecursionError:
        raise BrokenBody("it is nested too deeply") from None
    except json.JSONDecodeError:
        raise BrokenBody("it is not JSON") from None
    except ValueError:
        # Python refuses integers beyond 4,300 digits; UnicodeDecodeError is one of these too.
        raise BrokenBody("it holds a number or a character that cannot be read") from None


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("out of range")
    return number


def as_json(response: Response, _attempt: AttemptState) -> ApiResponse:
    """A response with its body decoded. BrokenBody if it has what cannot be an id as one."""
    raw = read_whole(response)
    data = parse_json(raw)
    for value in no_ids(data):
        raise BrokenBody(f"{shown_id(value)} is not a usable id")
    return ApiResponse(response.status_code, response.headers, data, raw)


def as_it_came(response: Response, _attempt: AttemptState) -> ApiResponse:
    """A response with its body's bytes only."""
    return ApiResponse(response.status_code, response.headers, None, read_whole(response))


def encode(body: Any) -> bytes:
    """A body as JSON; BadUsage for what JSON cannot express."""
    try:
        return json.dumps(body, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError):
        raise BadUsage("the body cannot be written as JSON") from None


class ByteCount:
    """Tells `progress`, if there is one, of bytes as they move, and takes them back."""

    def __init__(self, progress: Callable[[int], None] | None) -> None:
        self._progress = progress
        self._count = 0

    def add(self, amount: int) -> None:
        """So many bytes have moved."""
        self._count += amount
        if self._progress is not None:
            self._progress(amount)

    def start_over(self) -> None:
        """Another attempt begins, or there is none: nothing has moved."""
        if self._count:
            self.add(-self._count)


def upload_pieces(
    source: Path | bytes, size: int, attempt: AttemptState, count: ByteCount
) -> Iterator[bytes]:
    """A file, or bytes, read while it is sent: exactly `size` bytes, counted.

    A file that shrinks meanwhile cannot be sent; of one that grows, the first `size` bytes are. It
    is opened only when its turn comes, so that a form of a thousand files has one open.
    """
    if not size:
        return
    name = str(source) if isinstance(source, Path) else "the file"
    with _opened(source) as file:
        while size:
            attempt.left()
            try:
                data: bytes = file.read(min(size, CHUNK))
            except OSError as error:  # a broken disk is not a failure of the network
                raise BadUsage(f"cannot read {name}: {error.strerror}") from None
            if not data:
                raise BadUsage(f"{name} became shorter while it was being sent")
            size -= len(data)
            count.add(len(data))
            yield data


def _opened(source: Path | bytes) -> Any:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    try:
        return source.open("rb")
    except OSError as error:
        raise BadUsage(f"cannot read {source}: {error.strerror}") from None


def file_size(path: Path | str) -> int:
    """The size in bytes of a file that can be uploaded.

    Raises NotFound if there is none, BadUsage for a folder, a device, and a file that cannot be
    read.
    """
    try:
        info = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"no such file: {path}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadUsage(f"cannot read {str(path)!r}: {reason}") from None
    if stat.S_ISDIR(info.st_mode):
        raise BadUsage(
            f"{path} is a folder, and only files can be uploaded",
            hint="Name the files, or pack the folder: tar czf folder.tar.gz folder",
        )
    if not stat.S_ISREG(info.st_mode):
        raise BadUsage(
            f"{path} is not a regular file, so its size is not known",
            hint="Write it to a file first",
        )
    _opened(Path(path)).close()
    return info.st_size


class MultipartForm:
    """Files as multipart/form-data, each in a part named `files`.

    `size` is that of the whole body in bytes. Raises as `file_size` does.
    """

    def __init__(self, files: Sequence[Path], progress: Callable[[int], None] | None) -> None:
        self._boundary = os.urandom(16).hex()
        self._count = ByteCount(progress)
        self._parts: list[tuple[bytes, Path, int]] = [
            (self._head(path), path, file_size(path)) for path in files
        ]
        self._tail = f"--{self._boundary}--\r\n".encode()
        self.content_type = f"multipart/form-data; boundary={self._boundary}"
        self.size = len(self._tail) + sum(len(head) + size + 2 for head, _, size in self._parts)

    def open(self, attempt: AttemptState) -> Iterator[bytes]:
        """The whole body, from its first byte."""
        attempt.untimed()
        self._count.start_over()
        return self._pieces(attempt)

    def _pieces(self, attempt: AttemptState) -> Iterator[bytes]:
        for head, path, size in self._parts:
            yield head
            yield from upload_pieces(path, size, attempt, self._count)
            yield b"\r\n"
        yield self._tail

    def _head(self, path: Path) -> bytes:
        from urllib3.fields import RequestField

        part = RequestField.from_tuples("files", (path.name, b""))
        return f"--{self._boundary}\r\n{part.render_headers()}".encode(errors="replace")
