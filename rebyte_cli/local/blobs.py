"""Bytes on disk: one file per object under the state folder, named by an id of ours."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from ..system.files import replacing
from .ballast import full_disk
from .http import Refusal

PIECE = 1024 * 1024


class StoredBlob(NamedTuple):
    """A stored object."""

    object: str
    size: int
    sha256: str


class BoundedBody:
    """The body of an upload, which ends with a Refusal once it does not leave `keep_free` bytes.

    Every user of this machine may upload to a service. `folder` is where the objects are; a form
    is in the folder of temporary files first.
    """

    def __init__(self, body: IO[bytes], folder: Path, keep_free: int) -> None:
        self._body = body
        self._folders = (folder, Path(tempfile.gettempdir()))
        self._keep_free = keep_free

    def read(self, size: int = -1) -> bytes:
        """So many bytes, or all. Raises Refusal, and what the body raises."""
        for folder in self._folders:
            if problem := full_disk(folder, self._keep_free):
                raise Refusal(413, "payload_too_large", f"There is no room for it: {problem}")
        return self._body.read(size)


def save(folder: Path, source: IO[bytes] | BoundedBody, object_id: str) -> StoredBlob:
    """Copy `source` to the object, flat in memory and all or nothing."""
    digest, size = hashlib.sha256(), 0
    with replacing(folder / object_id) as target:
        while piece := source.read(PIECE):
            target.write(piece)
            digest.update(piece)
            size += len(piece)
    return StoredBlob(object_id, size, digest.hexdigest())


def pieces(path: Path) -> Iterator[bytes]:
    """The bytes of an object."""
    with path.open("rb") as source:
        while piece := source.read(PIECE):
            yield piece
