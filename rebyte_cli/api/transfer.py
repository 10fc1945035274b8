"""Bodies too large or too slow for memory: event streams, uploads, downloads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import APIError, BadUsage, BrokenAnswer, NetworkError, Redirected
from .body import ERROR_CAP, Answer, Broken, as_it_came, chunks, read_all
from .call import Call
from .exchange import Exchange, Refused
from .origin import check_signed_url
from .outgoing import Outgoing, file_size
from .retry import Repeat

if TYPE_CHECKING:
    from requests import Response

    from .wire import Wire

MAX_REDIRECTS = 5
# Which connections a URL of a redirect may use, and the headers with or without the key.
Way = Callable[[str, dict[str, str]], tuple[Exchange, dict[str, str]]]
# What object stores answer for a signed URL whose time is over; which of them, differs.
EXPIRED = frozenset({400, 401, 403, 404, 410})


class SlotExpired(APIError):
    """The object store refused a signed URL: it is older than its hour, most likely."""

    code = "upload_refused"


@contextmanager
def stream(exchange: Exchange, call: Call) -> Iterator[Iterator[bytes]]:
    """The body of an answer as it arrives; see `Transport.stream`."""
    try:
        response, _ = exchange.run(call, _opened)
    except Refused as refused:
        raise exchange.error_for(call, refused) from None
    try:
        yield _read(exchange, call, response, call.idle)
    finally:
        response.close()


def live(exchange: Exchange, call: Call, idle: float) -> Callable[[Response, Wire], Answer]:
    """A reader of answers as they came, but for an event stream, whose body is left `coming`.

    Such a body may take as long as it likes; `idle` bounds each read (seconds).
    """

    def read(response: Response, wire: Wire) -> Answer:
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != "text/event-stream":
            return as_it_came(response)
        wire.idle = idle
        answer = Answer(response.status_code, response.headers, None, b"")
        answer.coming = _read(exchange, call, _opened(response, wire), idle)
        return answer

    return read


def _opened(response: Response, wire: Wire) -> Response:
    # From here on each read has its own limit; the whole may take as long as it likes.
    wire.untimed()
    return response


def _read(
    exchange: Exchange, call: Call, response: Response, idle: float | None
) -> Iterator[bytes]:
    from urllib3.exceptions import HTTPError

    what = f"{call.method} {call.path}"
    try:
        yield from chunks(response)
    except Broken as broken:
        raise BrokenAnswer(f"{what}: {broken.why}") from None
    except (HTTPError, OSError) as error:
        fault = exchange.faulty(call, error)
        why = f"nothing came for {idle:g} s" if fault.code == "timeout" else fault.why
        raise NetworkError(f"{what}: {why}", code=fault.code) from None


def put(
    exchange: Exchange,
    url: str,
    source: Path | bytes,
    headers: dict[str, str],
    limit: float,
    progress: Callable[[int], None] | None,
) -> None:
    """PUT to a signed URL; see `Transport.put_signed`. `limit` is the idle limit in seconds."""
    size = len(source) if isinstance(source, bytes) else file_size(source)
    sent = 0

    def count(amount: int) -> None:
        nonlocal sent
        sent += amount
        if progress is not None:
            progress(amount)

    def body(wire: Wire) -> Any:
        nonlocal sent
        wire.untimed()
        if progress is not None and sent:
            progress(-sent)  # a new try starts from the first byte
        sent = 0
        return Outgoing(source, size, wire, count) if size else b""

    shown = url.partition("?")[0]
    call = Call(
        "PUT",
        shown,
        url,
        headers={**headers, "Content-Length": str(size)},
        body=body,
        repeat=Repeat.SAFE,  # the same bytes under the same name
        seconds=limit,
        idle=limit,
        each=True,
    )
    try:
        exchange.run(call, _drained)
    except Refused as refused:
        what = f"the file store refused the upload ({refused.status})"
        if refused.status in EXPIRED:
            raise SlotExpired(what, status_code=refused.status) from None
        kind = NetworkError if refused.status >= 500 else APIError
        raise kind(what, status_code=refused.status) from None


def _drained(response: Response, wire: Wire) -> None:
    from urllib3.exceptions import HTTPError

    # What a store says beside 200 does not matter; reading it keeps the connection.
    try:
        read_all(response, ERROR_CAP)
    except (Broken, HTTPError, OSError):
        response.close()


def download(
    way: Way,
    call: Call,
    target: Path,
    overwrite: bool,
    progress: Callable[[int], None] | None,
) -> None:
    """GET into `target`, which appears only when all of it is there.

    A redirect is followed, at most five times: `way` gives the key to its own origin alone, and
    it is never followed to http off this machine. The temporary file lies beside the
    target; a link standing at `target` is replaced, not followed. Raises BadUsage when there
    is something and `overwrite` is not set.
    """
    if not overwrite and os.path.lexists(target):
        raise BadUsage(f"{target} is already there", hint="--force replaces it")
    temporary = target.parent / f".{target.name[:100]}.{os.urandom(6).hex()}.part"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except OSError as error:
        raise BadUsage(f"cannot write in {target.parent}: {error.strerror}") from None
    try:
        with open(descriptor, "wb", buffering=0) as file:
            _fetch(way, call, _saving(file, target, progress))
        _put_in_place(temporary, target, overwrite)
    finally:
        temporary.unlink(missing_ok=True)


def length(way: Way, call: Call) -> int | None:
    """The size of what a GET would bring (bytes), None where it is not told; no body is read.

    A GET, since a signed URL is often good for nothing else.
    """
    found: list[str] = []

    def look(response: Response, _wire: Wire) -> None:
        if response.headers.get("Content-Encoding", "identity").strip().lower() == "identity":
            found.append(response.headers.get("Content-Length", ""))
        response.close()

    _fetch(way, call, look)
    told = found[-1].strip() if found else ""
    return int(told) if told.isascii() and told.isdigit() and len(told) < 20 else None


def _saving(
    file: Any, target: Path, progress: Callable[[int], None] | None
) -> Callable[[Response, Wire], None]:
    def save(response: Response, wire: Wire) -> None:
        wire.untimed()
        if progress is not None and file.tell():
            progress(-file.tell())
        file.seek(0)
        file.truncate()
        for piece in chunks(response):
            write(piece)
            if progress is not None:
                progress(len(piece))

    def write(piece: bytes) -> None:
        rest = memoryview(piece)
        try:
            while rest:  # an unbuffered file may take less than it is given
                rest = rest[file.write(rest) :]
        except OSError as error:  # a full disk is no fault of the network
            raise BadUsage(f"cannot write {target}: {error.strerror}") from None

    return save


def _fetch(
    way: Way,
    call: Call,
    save: Callable[[Response, Wire], None],
) -> None:
    from urllib.parse import urljoin

    first = call
    exchange, _ = way(call.url, {})
    for _ in range(MAX_REDIRECTS + 1):
        try:
            exchange.run(call, save)
            return
        except Refused as refused:
            where = refused.headers.get("Location")
            if refused.status not in (301, 302, 303, 307, 308) or not where:
                raise exchange.error_for(call, refused) from None
        try:
            url = check_signed_url(urljoin(call.url, where))
        except (BadUsage, ValueError):
            raise Redirected(f"GET {first.path} was redirected to an unsafe address") from None
        headers = {name: value for name, value in call.headers.items() if name != "API_KEY"}
        exchange, headers = way(url, headers)
        call = Call(
            "GET",
            first.path,
            url,
            headers=headers,
            repeat=Repeat.SAFE,
            seconds=first.seconds,
            idle=first.idle,
            each=True,
        )
    raise Redirected(f"GET {first.path} was redirected too often")


def _put_in_place(temporary: Path, target: Path, overwrite: bool) -> None:
    try:
        if overwrite:
            temporary.replace(target)
            return
        try:
            # Unlike a rename, a link fails when something has appeared there meanwhile.
            os.link(temporary, target)
        except FileExistsError:
            raise BadUsage(f"{target} is already there", hint="--force replaces it") from None
        except OSError:  # a file system without links
            temporary.replace(target)
    except OSError as error:
        raise BadUsage(f"cannot write {target}: {error.strerror}") from None
