"""The one door to the network: where the key may go, and what comes back.

Facts: header `API_KEY` (seed document), JSON both ways (seed document), errors as
`{"error": {"code", "message"}}` (vendor docs), an empty body on success (seen in clients).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .. import __version__
from ..errors import APIError, BadUsage, BrokenAnswer, NetworkError, Redirected
from .body import (
    ERROR_CAP,
    JSON_CAP,
    Answer,
    Broken,
    UploadBody,
    as_it_came,
    as_json,
    chunks,
    encode,
    file_size,
    read_all,
)
from .log import CallLog
from .request import Request
from .retry import SECONDS, RetryPolicy
from .sender import Refused, Rules, Sender
from .urls import address, check_base_url, check_key, check_signed_url, origin_of

if TYPE_CHECKING:
    from datetime import datetime

    from requests import Response

    from .connection import AttemptState


# -- Bodies too large or too slow for memory: event streams, uploads, downloads.

MAX_REDIRECTS = 5
# Which connections a URL of a redirect may use, and the headers with or without the key.
Way = Callable[[str, dict[str, str]], tuple[Sender, dict[str, str]]]
# What object stores answer for a signed URL whose time is over; which of them, differs.
EXPIRED = frozenset({400, 401, 403, 404, 410})


class SlotExpired(APIError):
    """The object store refused a signed URL: it is older than its hour, most likely."""

    code = "upload_refused"


@contextmanager
def stream(exchange: Sender, call: Request) -> Iterator[Iterator[bytes]]:
    """The body of an answer as it arrives; see `Transport.stream`."""
    try:
        response, _ = exchange.run(call, _opened)
    except Refused as refused:
        raise exchange.error_for(call, refused) from None
    try:
        yield _read(exchange, call, response, call.idle)
    finally:
        response.close()


def live(
    exchange: Sender, call: Request, idle: float
) -> Callable[[Response, AttemptState], Answer]:
    """A reader of answers as they came, but for an event stream, whose body is left `coming`.

    Such a body may take as long as it likes; `idle` bounds each read (seconds).
    """

    def read(response: Response, wire: AttemptState) -> Answer:
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != "text/event-stream":
            return as_it_came(response)
        wire.idle = idle
        answer = Answer(response.status_code, response.headers, None, b"")
        answer.coming = _read(exchange, call, _opened(response, wire), idle)
        return answer

    return read


def _opened(response: Response, wire: AttemptState) -> Response:
    # From here on each read has its own limit; the whole may take as long as it likes.
    wire.untimed()
    return response


def _read(
    exchange: Sender, call: Request, response: Response, idle: float | None
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
    exchange: Sender,
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

    def body(wire: AttemptState) -> Any:
        nonlocal sent
        wire.untimed()
        if progress is not None and sent:
            progress(-sent)  # a new try starts from the first byte
        sent = 0
        return UploadBody(source, size, wire, count) if size else b""

    shown = url.partition("?")[0]
    call = Request(
        "PUT",
        shown,
        url,
        headers={**headers, "Content-Length": str(size)},
        body=body,
        repeat=RetryPolicy.SAFE,  # the same bytes under the same name
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


def _drained(response: Response, wire: AttemptState) -> None:
    from urllib3.exceptions import HTTPError

    # What a store says beside 200 does not matter; reading it keeps the connection.
    try:
        read_all(response, ERROR_CAP)
    except (Broken, HTTPError, OSError):
        response.close()


def download(
    way: Way,
    call: Request,
    target: Path,
    overwrite: bool,
    progress: Callable[[int], None] | None,
    folder: int | None = None,
) -> None:
    """GET into `target`, which appears only when all of it is there.

    A redirect is followed, at most five times: `way` gives the key to its own origin alone, and
    it is never followed to http off this machine. The temporary file lies beside the
    target; a link standing at `target` is replaced, not followed. With `folder`, a descriptor of
    the folder that `target` is in, only the name of `target` counts: what happens to the path
    meanwhile leads nowhere else. Raises BadUsage when there is something and `overwrite` is not
    set.
    """
    name = str(target) if folder is None else target.name
    if not overwrite and _exists(name, folder):
        raise BadUsage(f"{target} is already there", hint="--force replaces it")
    partial = f".{target.name[:100]}.{os.urandom(6).hex()}.part"
    temporary = str(target.parent / partial) if folder is None else partial
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        descriptor = os.open(temporary, flags, 0o666, dir_fd=folder)
    except OSError as error:
        raise BadUsage(f"cannot write in {target.parent}: {error.strerror}") from None
    try:
        with open(descriptor, "wb", buffering=0) as file:
            _fetch(way, call, _saving(file, target, progress))
        try:
            _put_in_place(temporary, name, overwrite, folder)
        except FileExistsError:
            raise BadUsage(f"{target} is already there", hint="--force replaces it") from None
        except OSError as error:
            raise BadUsage(f"cannot write {target}: {error.strerror}") from None
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)


def _exists(name: str, folder: int | None) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except (OSError, ValueError):
        return False
    return True


def length(way: Way, call: Request) -> int | None:
    """The size of what a GET would bring (bytes), None where it is not told; no body is read.

    A GET, since a signed URL is often good for nothing else.
    """
    found: list[str] = []

    def look(response: Response, _wire: AttemptState) -> None:
        if response.headers.get("Content-Encoding", "identity").strip().lower() == "identity":
            found.append(response.headers.get("Content-Length", ""))
        response.close()

    _fetch(way, call, look)
    told = found[-1].strip() if found else ""
    return int(told) if told.isascii() and told.isdigit() and len(told) < 20 else None


def _saving(
    file: Any, target: Path, progress: Callable[[int], None] | None
) -> Callable[[Response, AttemptState], None]:
    def save(response: Response, wire: AttemptState) -> None:
        wire.untimed()
        if progress is not None and file.tell():
            progress(-file.tell())
        file.seek(0)
        file.truncate()
        encoded = response.headers.get("Content-Encoding", "identity").strip().lower()
        for piece in chunks(response):
            # Asked for as it is. A service that packs it all the same decides how far it unpacks.
            if encoded not in ("identity", "") and file.tell() + len(piece) > JSON_CAP:
                raise Broken(f"unpacked it is larger than {JSON_CAP // (1024 * 1024)} MiB")
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
    call: Request,
    save: Callable[[Response, AttemptState], None],
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
        call = Request(
            "GET",
            first.path,
            url,
            headers=headers,
            repeat=RetryPolicy.SAFE,
            seconds=first.seconds,
            idle=first.idle,
            each=True,
        )
    raise Redirected(f"GET {first.path} was redirected too often")


def _put_in_place(temporary: str, name: str, overwrite: bool, folder: int | None) -> None:
    """Give `temporary` its name. FileExistsError when there is something and it must stay."""
    if not overwrite:
        try:
            # Unlike a rename, a link fails when something has appeared there meanwhile.
            os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            return
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            pass
    os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)


USER_AGENT = f"rebyte-cli/{__version__}"
RETRY_AFTER_CAP = 10.0


class Transport:
    """Calls to one base URL with one key. Thread-safe.

    `timeout` is the deadline of every call in seconds, retries included (None: 60, and 600
    where a call is known to block). `ca_bundle` is a file or folder of CA certificates. `log`
    is told of each try. `pool` is how many idle connections are kept. `retry_after_cap` is the
    most of a `Retry-After` that is honoured, in seconds. `clock`, `sleep`, `random` are for tests.
    """

    def __init__(
        self,
        base_url: str,
        key: str,
        *,
        timeout: float | None = None,
        ca_bundle: str | None = None,
        log: Callable[[CallLog], None] | None = None,
        pool: int = 10,
        retry_after_cap: float = RETRY_AFTER_CAP,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        random: Callable[[], float] | None = None,
    ) -> None:
        self.base_url = check_base_url(base_url)
        self.origin = origin_of(self.base_url)
        self.timeout = timeout
        self.clock = clock
        self.sleep = sleep
        self._key = check_key(key)
        rules = Rules(ca_bundle, pool, log, retry_after_cap, clock, sleep, random)
        # Two sets of connections: what goes to a signed URL shares nothing with what has a key.
        self._exchange = Sender(rules, secret=self._key)
        self._signed = Sender(rules, secret=self._key)

    def limit(self, otherwise: float = SECONDS) -> float:
        """The time limit of a call: what the user set, or else `otherwise` (seconds)."""
        return otherwise if self.timeout is None else self.timeout

    def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        repeat: RetryPolicy,
        timeout: float | None = None,
        accept: str = "application/json",
    ) -> Answer:
        """One JSON call. `path` starts after the base URL; `body` is JSON data or None.

        Raises what the tree in `errors` names: 4xx, 5xx, faults, broken answers, and
        OutcomeUnknown when something that creates went out and nobody can say what became of it.
        """
        data = None if body is None else encode(body)
        headers = {"Accept": accept}
        if data is not None:
            headers["Content-Type"] = "application/json"
        call = self._call(method, path, query, headers, data, repeat, timeout)
        try:
            answer, retried = self._exchange.run(call, as_json)
        except Refused as refused:
            raise self._exchange.error_for(call, refused) from None
        answer.retried = retried
        return answer

    def raw(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        repeat: RetryPolicy,
        timeout: float | None = None,
        check: bool = False,
        live: bool = False,
    ) -> Answer:
        """One call whose body goes and comes as it is, whatever the status (unless `check`).

        `path` may hold a query of its own, and may start with the `/v1` that the base URL
        already ends with, as the vendor's pages write it. With `live`, the body of an event
        stream is left to be read as it comes; see `transfer.live`.
        """
        call = self._call(method, path, query, dict(headers or {}), data, repeat, timeout)
        try:
            answer, retried = self._exchange.run(call, self._live(call) if live else as_it_came)
        except Refused as refused:
            if check:
                raise self._exchange.error_for(call, refused) from None
            return Answer(refused.status, refused.headers, None, refused.raw, refused.retried)
        answer.retried = retried
        return answer

    def _live(self, call: Request) -> Callable[[Response, AttemptState], Answer]:

        return live(self._exchange, call, self.limit(SECONDS))

    def problem(
        self, method: str, path: str, answer: Answer, repeat: RetryPolicy
    ) -> Exception | None:
        """The error that an answer of `raw` stands for, or None for 2xx."""
        if 200 <= answer.status < 300:
            return None
        call = self._call(method, path, None, {}, None, repeat, None)
        refused = Refused(answer.status, answer.headers, answer.raw)
        return self._exchange.error_for(call, refused)

    def stream(
        self, path: str, *, idle: float | None = None, accept: str = "text/event-stream"
    ) -> AbstractContextManager[Iterator[bytes]]:
        """The body of a GET as it arrives, for as long as something arrives.

        The way to the headers has the usual tries and `idle` as its deadline (seconds; None:
        the usual one); after it each read has that limit, and a fault ends it: NetworkError.
        """
        headers = {"Accept": accept, "Accept-Encoding": "identity", "Cache-Control": "no-store"}
        idle = self.limit(SECONDS) if idle is None else idle
        call = self._call("GET", path, None, headers, None, RetryPolicy.SAFE, idle, idle)

        return stream(self._exchange, call)

    def put_signed(
        self,
        url: str,
        source: Path | bytes,
        content_type: str,
        *,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """PUT a file, or bytes, to a URL that the API handed out; without the key.

        `content_type` must be the declared one (seen in clients). Memory stays flat.
        `progress` is told how many bytes went out since it was told last. Raises SlotExpired
        when the store answers 403.
        """

        headers = {"User-Agent": USER_AGENT, "Content-Type": content_type}
        try:
            check_signed_url(url)
        except BadUsage as error:
            raise BrokenAnswer(error.message) from None
        put(self._signed, url, source, headers, self.limit(SECONDS), progress)

    def post_files(
        self,
        path: str,
        part: str,
        files: Sequence[Path],
        *,
        progress: Callable[[int], None] | None = None,
    ) -> Answer:
        """POST files as multipart/form-data, each in a part named `part`; memory stays flat."""
        from .body import Form

        form = Form(part, files, progress)
        headers = {
            "Accept": "application/json",
            "Content-Type": form.content_type,
            "Content-Length": str(form.size),
        }
        limit = self.limit(SECONDS)
        call = self._call(
            "POST", path, None, headers, form.open, RetryPolicy.IF_UNSENT, None, limit, each=True
        )
        try:
            return self._exchange.run(call, as_json)[0]
        except Refused as refused:
            raise self._exchange.error_for(call, refused) from None

    def download(
        self,
        path: str,
        target: Path,
        *,
        overwrite: bool = False,
        progress: Callable[[int], None] | None = None,
        folder: int | None = None,
    ) -> None:
        """GET into a file that appears only when it is whole; see `download`."""
        download(self._way, self._body_call(path), target, overwrite, progress, folder)

    def length(self, path: str) -> int | None:
        """The size of what `download` would bring; see `transfer.length`."""

        return length(self._way, self._body_call(path))

    def _body_call(self, path: str) -> Request:
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
        limit = self.limit(SECONDS)
        return self._call(
            "GET", path, None, headers, None, RetryPolicy.SAFE, None, limit, each=True
        )

    def without_key(self, url: str) -> Answer:
        """GET a JSON document of this server that needs no key (`/health`, seen in a client)."""
        headers = {"User-Agent": USER_AGENT, "Accept": "application/json"}
        path = urlsplit(url).path
        seconds = self.limit(SECONDS)
        call = Request("GET", path, url, headers=headers, repeat=RetryPolicy.SAFE, seconds=seconds)
        try:
            return self._signed.run(call, as_json)[0]
        except Refused as refused:
            raise self._signed.error_for(call, refused) from None

    def server_now(self) -> datetime | None:
        """The server's clock (UTC), from its last `Date` header and the time gone by since."""
        from datetime import UTC, datetime

        seconds = self._exchange.server_time()
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)

    def close(self) -> None:
        """Close idle connections."""
        self._exchange.close()
        self._signed.close()

    def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None,
        headers: dict[str, str],
        body: bytes | Callable[[AttemptState], Any] | None,
        repeat: RetryPolicy,
        timeout: float | None,
        idle: float | None = None,
        each: bool = False,
    ) -> Request:
        url, shown = address(self.base_url, path, query)
        headers = self.keyed(url, {"User-Agent": USER_AGENT, "Accept-Encoding": "gzip", **headers})
        seconds = self.limit(SECONDS) if timeout is None else timeout
        return Request(
            method,
            shown,
            url,
            headers=headers,
            body=body,
            repeat=repeat,
            seconds=seconds,
            idle=idle,
            each=each,
        )

    def _way(self, url: str, headers: dict[str, str]) -> tuple[Sender, dict[str, str]]:
        """The connections for a URL, and the headers for it: the key to its own origin alone."""
        if origin_of(url) == self.origin:
            return self._exchange, self.keyed(url, headers)
        return self._signed, headers

    def keyed(self, url: str, headers: Mapping[str, str]) -> dict[str, str]:
        """The headers with the key, for a URL of the key's own origin; BadUsage for any other."""
        if origin_of(url) != self.origin:
            raise BadUsage(f"the key belongs to {self.origin} and is not sent elsewhere")
        return {**headers, "API_KEY": self._key}
