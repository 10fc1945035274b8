"""Bodies too large or too slow for memory: event streams, uploads to signed URLs, downloads."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import APIError, BadUsage, BrokenAnswer, NetworkError, Redirected
from ..system.deadline import NO_LIMIT, Deadline
from ..system.files import write_all
from .body import (
    JSON_CAP,
    ApiResponse,
    BrokenBody,
    ByteCount,
    Request,
    as_it_came,
    chunks,
    file_size,
    read_short,
    upload_pieces,
)
from .calls import Calls, Read, Refused, T
from .failures import named_by
from .retry import RetryPolicy
from .urls import check_target_url

if TYPE_CHECKING:
    from requests import Response

    from .connection import AttemptState

MAX_REDIRECTS = 5
# Which connections a URL may use, and the headers for it with or without the key.
Router = Callable[[str, dict[str, str]], tuple[Calls, dict[str, str]]]
# What object stores answer for a signed URL whose time is over; which of them, differs.
EXPIRED = frozenset({400, 401, 403, 404, 410})
MODE = 0o664  # less the umask; never one that everyone may write
_DESCRIPTORS = "/proc/self/fd"


class SlotExpired(APIError):
    """The object store refused a signed URL: it is older than its hour, most likely."""

    code = "upload_refused"


class LiveBody:
    """The body of a response while it arrives: iterate over its decoded bytes.

    Something useful must come within `idle` seconds, and by `deadline`: call `keep_waiting` when
    it does. Bytes alone do not count, since keep-alives would hide the end of a run forever.
    """

    def __init__(
        self,
        calls: Calls,
        request: Request,
        response: Response,
        attempt: AttemptState,
        idle: float,
        deadline: Deadline = NO_LIMIT,
    ) -> None:
        self._calls = calls
        self._request = request
        self._response = response
        self._attempt = attempt
        self._idle = attempt.idle = idle
        self._deadline = deadline

    def keep_waiting(self) -> None:
        """Something useful came: the next has `idle` seconds again."""
        seconds = min(self._idle, self._deadline.left())
        self._attempt.deadline = Deadline(seconds, clock=self._calls.clock)

    def __iter__(self) -> Iterator[bytes]:
        from urllib3.exceptions import HTTPError

        request = self._request
        what = f"{request.method} {request.path}"
        try:
            yield from chunks(self._response)
        except BrokenBody as broken:
            raise BrokenAnswer(f"{what}: {broken.reason}", **named_by(request.path)) from None
        except (HTTPError, OSError) as error:
            failure = self._calls.failure(request, error)
            why = failure.why
            if failure.code == "timeout":
                why = f"nothing came for {self._idle:g} s"
            named = named_by(request.path)
            raise NetworkError(f"{what}: {why}", code=failure.code, **named) from None


@contextmanager
def stream(calls: Calls, request: Request, idle: float, deadline: Deadline) -> Iterator[LiveBody]:
    """The body of a response as it arrives; see `Transport.stream`."""

    def opened(response: Response, attempt: AttemptState) -> tuple[Response, LiveBody]:
        body = LiveBody(calls, request, response, attempt, idle, deadline)
        body.keep_waiting()
        return response, body

    response, body = calls.ask(request, opened)
    try:
        yield body
    finally:
        response.close()


def live(
    calls: Calls, request: Request, idle: float
) -> Callable[[Response, AttemptState], ApiResponse]:
    """A reader of responses as they came, except that the body of an event stream is left to be
    read as it arrives (`ApiResponse.coming`).

    Such a body may take as long as it likes; `idle` bounds each read (seconds).
    """

    def read(response: Response, attempt: AttemptState) -> ApiResponse:
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != "text/event-stream":
            return as_it_came(response, attempt)
        attempt.untimed()
        coming = iter(LiveBody(calls, request, response, attempt, idle))
        return ApiResponse(response.status_code, response.headers, None, b"", coming)

    return read


def put(
    calls: Calls,
    url: str,
    source: Path | bytes,
    headers: dict[str, str],
    limit: float,
    progress: Callable[[int], None] | None,
) -> None:
    """PUT to a signed URL; see `Transport.put_signed`. `limit` is the idle limit in seconds.

    When it raises SlotExpired, `progress` has been told to take back all that was sent.
    """
    size = len(source) if isinstance(source, bytes) else file_size(source)
    count = ByteCount(progress)

    def body(attempt: AttemptState) -> Any:
        attempt.untimed()
        count.start_over()
        return upload_pieces(source, size, attempt, count) if size else b""

    request = Request(
        "PUT",
        calls.redact.text(url.partition("?")[0]),  # messages show it
        url,
        headers={**headers, "Content-Length": str(size)},
        body=body,
        repeat=RetryPolicy.SAFE,  # the same bytes under the same name
        seconds=limit,
        idle=limit,
        per_attempt=True,
    )
    try:
        calls.send(request, lambda response, _attempt: read_short(response))
    except Refused as refused:
        status = refused.response.status
        what = f"the file store refused the upload ({status})"
        if status in EXPIRED:
            count.start_over()
            raise SlotExpired(what, status_code=status) from None
        kind = NetworkError if status >= 500 else APIError
        raise kind(what, status_code=status) from None


def download(
    route: Router,
    request: Request,
    target: Path,
    overwrite: bool,
    progress: Callable[[int], None] | None,
    folder: int | None,
) -> None:
    """GET into `target`, which appears only when all of it is there.

    At most five redirects are followed, each checked by `check_target_url`; `route` gives the key
    to its own origin alone. See `whole_file` for `overwrite`, links and `folder`: what happens to
    the path meanwhile leads nowhere else. However large it is, it is saved, as by curl. Raises
    BadUsage when something is there and `overwrite` is not set, for a folder, or when it cannot be
    written.
    """
    there = 0  # the mode of what is there
    with suppress(OSError, ValueError):
        name = str(target) if folder is None else target.name
        there = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    if stat.S_ISDIR(there):
        raise BadUsage(f"{target} is a folder", hint="Pass the path that the file is to have")
    if there and not overwrite:
        raise BadUsage(f"{target} already exists", hint="Use --force to replace it")
    try:
        with whole_file(target, overwrite=overwrite, folder=folder) as file:
            _follow(route, request, _saving(file, target, progress))
    except FileExistsError:
        raise BadUsage(f"{target} already exists", hint="Use --force to replace it") from None
    except OSError as error:
        raise BadUsage(f"cannot write {target}: {error.strerror}") from None


def length(route: Router, request: Request) -> int | None:
    """The size of what a GET would bring (bytes), None where the service does not say.

    No body is read. It is a GET since a signed URL is often good for nothing else.
    """

    def announced(response: Response, _attempt: AttemptState) -> str:
        response.close()
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        return response.headers.get("Content-Length", "") if encoding == "identity" else ""

    size = _follow(route, request, announced).strip()
    return int(size) if size.isascii() and size.isdigit() and len(size) < 20 else None


def _saving(
    file: Any, target: Path, progress: Callable[[int], None] | None
) -> Callable[[Response, AttemptState], None]:
    count = ByteCount(progress)

    def save(response: Response, attempt: AttemptState) -> None:
        attempt.untimed()
        count.start_over()
        file.seek(0)
        file.truncate()
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        for piece in chunks(response):
            # No compression was requested. A service that compresses anyway must not decide how far
            # it expands.
            if encoding not in ("identity", "") and file.tell() + len(piece) > JSON_CAP:
                raise BrokenBody(f"unpacked it is larger than {JSON_CAP // (1024 * 1024)} MiB")
            try:
                write_all(file.fileno(), piece)
            except OSError as error:  # a full disk is not a failure of the network
                raise BadUsage(f"cannot write {target}: {error.strerror}") from None
            count.add(len(piece))

    return save


def _follow(route: Router, first: Request, read: Read[T]) -> T:
    """Send a GET and the redirects that it leads to; `read` of the response at the end."""
    from urllib.parse import urljoin

    request = first
    calls, _ = route(request.url, {})
    for _ in range(MAX_REDIRECTS + 1):
        try:
            return calls.send(request, read)
        except Refused as refused:
            response, where = refused.response, refused.response.headers.get("Location")
            if response.status not in (301, 302, 303, 307, 308) or not where:
                raise calls.error_for(request, refused) from None
        try:
            url = check_target_url(urljoin(request.url, where), base=first.url)
        except (BadUsage, ValueError):
            raise Redirected(f"GET {first.path} was redirected to an unsafe address") from None
        headers = {name: value for name, value in request.headers.items() if name != "API_KEY"}
        calls, headers = route(url, headers)
        request = first._replace(url=url, headers=headers)
    raise Redirected(f"GET {first.path} was redirected too often")


@contextmanager
def whole_file(target: Path, *, overwrite: bool, folder: int | None = None) -> Iterator[BinaryIO]:
    """A file to write to, which becomes `target` when the block ends without an exception.

    On Linux it has no name until then, so even a process that is killed leaves nothing behind.
    Elsewhere it is hidden beside the target, and deleted if the block fails. A link at `target` is
    replaced, not followed. With `folder`, a descriptor of the folder that `target` is in, only the
    name of `target` counts. Raises FileExistsError if `target` exists and `overwrite` is not set,
    and any other OSError.
    """
    with ExitStack() as stack:
        temporary = f".{target.name[:100]}.{os.urandom(6).hex()}.part"
        if folder is None:
            folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, folder)
        descriptor = _open_nameless(folder)
        is_nameless = descriptor is not None
        if descriptor is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            descriptor = os.open(temporary, flags, MODE, dir_fd=folder)
            stack.callback(_remove, temporary, folder)
        file = stack.enter_context(open(descriptor, "wb", buffering=0))
        yield file
        if is_nameless and not overwrite:
            _name(descriptor, target.name, folder)
            return
        if is_nameless:
            stack.callback(_remove, temporary, folder)
            _name(descriptor, temporary, folder)
        else:
            file.close()  # a network file system may say only now that the disk is full
        _rename(temporary, target.name, overwrite, folder)


def _open_nameless(folder: int) -> int | None:
    """A file in the folder that has no name; None where the system or the file system has none."""
    flag = getattr(os, "O_TMPFILE", None)
    if flag is None or not os.path.exists(_DESCRIPTORS):
        return None
    try:
        return os.open(".", flag | os.O_WRONLY, MODE, dir_fd=folder)
    except OSError:  # if there is another reason, opening one with a name meets it, too
        return None


def _name(descriptor: int, name: str, folder: int) -> None:
    os.link(f"{_DESCRIPTORS}/{descriptor}", name, dst_dir_fd=folder, follow_symlinks=True)


def _rename(temporary: str, name: str, overwrite: bool, folder: int) -> None:
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


def _remove(temporary: str, folder: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=folder)
