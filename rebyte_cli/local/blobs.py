"""Bytes on disk: one file per object under the state folder, named by an id of ours."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from ..system.files import replacing

PIECE = 1024 * 1024


class StoredBlob(NamedTuple):
    """A stored object."""

    object: str
    size: int
    sha256: str


def save(folder: Path, source: IO[bytes], object_id: str) -> StoredBlob:
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
