"""Bytes on disk: one file per object under the state folder, named by an id of ours."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from .database import new_id

PIECE = 1024 * 1024


class StoredBlob(NamedTuple):
    """A stored object."""

    object: str
    size: int
    sha256: str


def save(folder: Path, source: IO[bytes], object_id: str) -> StoredBlob:
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
    return StoredBlob(object_id, size, digest.hexdigest())


def pieces(path: Path) -> Iterator[bytes]:
    """The bytes of an object."""
    with path.open("rb") as source:
        while piece := source.read(PIECE):
            yield piece
