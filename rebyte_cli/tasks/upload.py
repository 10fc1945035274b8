"""Upload files: all are checked first, then sent several at a time, flat in memory."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..api.body import file_size
from ..api.failures import NO_SUCH_CALL
from ..errors import APIError, BadUsage, NotFound, RebyteError, worst
from .parallel import MakeProgressBar, in_parallel

if TYPE_CHECKING:
    from ..api.client import RebyteClient

AT_ONCE = 4  # they share one connection to the network; more only add handshakes
LONGEST_NAME = 255  # characters (vendor docs)
LARGE = 8 * 1024 * 1024  # bytes; larger files go to a signed URL where there is one
_COMPRESSED = {
    "gzip": "application/gzip",
    "bzip2": "application/x-bzip2",
    "xz": "application/x-xz",
    "compress": "application/x-compress",
}


def check(paths: Iterable[str]) -> list[str]:
    """Return the files that `paths` name, each once. Nothing is sent.

    A path that does not exist but contains `*`, `?` or `[` is taken as a pattern, for shells that
    don't expand it. Raises NotFound (4) for a missing file, BadUsage for a folder, a device, a
    file that cannot be read, and a name that the API would refuse.
    """
    found: dict[str, None] = {}
    for path in paths:
        for name in _expand(path):
            file_size(name)
            if len(os.path.basename(name)) > LONGEST_NAME:
                raise BadUsage(f"the name of {name} has more than {LONGEST_NAME} characters")
            found[name] = None
    return list(found)


def _expand(path: str) -> list[str]:
    if os.path.lexists(path) or not glob.has_magic(path):
        return [path]
    matches = sorted(match for match in glob.glob(path) if not os.path.isdir(match))
    if not matches:
        raise NotFound(f"no file matches {path}")
    return matches


def content_type(path: str) -> str:
    """The content type that a file's name suggests; `application/octet-stream` for the rest."""
    import mimetypes

    kind, packed = mimetypes.guess_type(os.path.basename(path))
    if packed is not None:  # `x.tar.gz` is a tar inside, but what travels is gzip
        kind = _COMPRESSED.get(packed)
    return kind or "application/octet-stream"


def upload(
    client: RebyteClient, paths: Sequence[str], progress_bar: MakeProgressBar
) -> list[dict[str, Any]]:
    """Upload all of `paths`; `{"id", "filename"}` of each, in their order.

    The name is the unique variant that the API made of it. When some could not be uploaded, raises
    the error that ranks highest after all have been tried. Paths are checked first.
    """
    answers = list(uploads(client, check(paths), progress_bar))
    errors = [answer for answer in answers if isinstance(answer, RebyteError)]
    if errors:
        first = worst(error.exit_status for error in errors)
        raise next(error for error in errors if error.exit_status == first)
    return [answer for answer in answers if not isinstance(answer, RebyteError)]


def uploads(
    client: RebyteClient, paths: Sequence[str], progress_bar: MakeProgressBar
) -> Iterator[dict[str, Any] | RebyteError]:
    """As `upload`, for paths that are checked: each answer or error in its place, as they come."""
    yield from _side_by_side(lambda path, advance: send(client, path, advance), paths, progress_bar)


def _side_by_side(
    send_one: Callable[[str, Callable[[int], None]], dict[str, Any]],
    paths: Sequence[str],
    progress_bar: MakeProgressBar,
) -> Iterator[dict[str, Any] | RebyteError]:
    """`send_one` for each path, several at a time, under one progress bar."""
    total = sum(os.path.getsize(path) for path in paths if os.path.exists(path))
    name = os.path.basename(paths[0]) if len(paths) == 1 else f"{len(paths)} files"
    with progress_bar(f"Uploading {name}", total) as advance:
        yield from in_parallel(lambda path: send_one(path, advance), paths, workers=AT_ONCE)


def send(
    client: RebyteClient, path: str, advance: Callable[[int], None] = lambda _count: None
) -> dict[str, Any]:
    """Upload one file: `{"id", "filename"}`. `advance` is called with each number of bytes."""
    return dict(client.upload_file(path, content_type=content_type(path), progress=advance))


def put(
    client: RebyteClient, workspace_id: str, paths: Sequence[str], progress_bar: MakeProgressBar
) -> Iterator[dict[str, Any] | RebyteError]:
    """Upload checked paths to a workspace as artifacts: each answer or error in its place.

    Small files go through the API, large ones to a signed URL (vendor docs; what both look like
    is inferred), or through the API as well where the service has no such URL.
    """
    names = [os.path.basename(path) for path in paths]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise BadUsage(f"two of the files are named {min(twice)}, and artifacts have no folders")

    def put_one(path: str, advance: Callable[[int], None]) -> dict[str, Any]:
        size = file_size(path)  # it existed when all were checked; it may be gone now
        answer: Mapping[str, Any] | None = None
        if size > LARGE:
            answer = _put_signed(client, workspace_id, path, advance)
        if answer is None:
            rows = client.put_artifacts(workspace_id, [path], progress=advance)
            answer = rows[0] if len(rows) == 1 else {}
        return {"name": os.path.basename(path), "size": size, **answer}

    yield from _side_by_side(put_one, paths, progress_bar)


def _put_signed(
    client: RebyteClient, workspace_id: str, path: str, advance: Callable[[int], None]
) -> dict[str, Any] | None:
    from ..api.transfer import SlotExpired

    kind = content_type(path)
    wanted = {"name": os.path.basename(path), "contentType": kind}

    def once() -> dict[str, Any] | None:
        try:
            urls = client.artifact_upload_urls(workspace_id, [wanted])
        except APIError as error:
            if error.status_code in NO_SUCH_CALL:
                return None  # no such endpoint or no such workspace: the other way shows which
            raise
        client.transport.put_signed(urls[0]["uploadUrl"], Path(path), kind, progress=advance)
        return {}

    try:
        return once()
    except SlotExpired:  # a new one may be requested, as for any signed URL
        return once()
