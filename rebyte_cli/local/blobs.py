"""Bytes on disk: one file per object under the state folder, named by an id of ours."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple
from urllib.parse import quote, urlencode

from .database import new_id

PIECE = 1024 * 1024


class Saved(NamedTuple):
    """A stored object."""

    object: str
    size: int
    sha256: str


def save(folder: Path, source: IO[bytes], object_id: str) -> Saved:
    """Copy `source` to the object, flat in memory and all or nothing."""
    digest, size = hashlib.sha256(), 0
    partial = folder / f"{new_id()}.part"
    try:
        with partial.open("wb") as target:
            while piece := source.read(PIECE):
                target.write(piece)
                digest.update(piece)
                size += len(piece)
        os.replace(partial, folder / object_id)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return Saved(object_id, size, digest.hexdigest())


def pieces(path: Path) -> Iterator[bytes]:
    """The bytes of an object."""
    with path.open("rb") as source:
        while piece := source.read(PIECE):
            yield piece


# -- Upload and download URLs that carry their own authority, as object stores give them out.

LIFETIME_MS = 3_600_000  # one hour (skill reference)


def signed_url(
    origin: str, secret: bytes, method: str, place: tuple[str, str, str], now: int, kind: str = ""
) -> str:
    """A URL on the object store at `origin` for `place` (kind, owner, name).

    `kind` is the content type that a PUT must declare, empty for a GET.
    """
    path, expires = path_of(place), now + LIFETIME_MS
    query = {"expires": expires, "signature": signature(secret, method, path, str(expires), kind)}
    return f"{origin}{quote(path)}?{urlencode(query)}"


def path_of(place: tuple[str, str, str]) -> str:
    """The decoded path of a place: `/kind/owner/name`."""
    return "/" + "/".join(place)


def signature(secret: bytes, method: str, path: str, expires: str, kind: str) -> str:
    """Hexadecimal HMAC-SHA256."""
    message = "\n".join((method, path, expires, kind)).encode()
    return hmac.new(secret, message, hashlib.sha256).hexdigest()
