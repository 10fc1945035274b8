"""The artifacts of workspaces as they lie in the store: a row, and a file with an id of ours."""

from __future__ import annotations

import hashlib
import io
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from ..system.files import replacing
from .ballast import full_disk
from .http import Refusal
from .store import new_id

ANSWER_FILE = "answer.md"
PATCH_FILE = "changes.patch"
# Why there is neither that nor a folder.
NO_AGENT = "No agent was started: a run without -x is simulated"
# The results of a run, which replace those of the run before.
RESULTS = {
    ANSWER_FILE: "text/markdown; charset=utf-8",
    PATCH_FILE: "text/x-diff; charset=utf-8",
}
PIECE = 1024 * 1024  # bytes


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


def put(
    objects: Path,
    db: sqlite3.Connection,
    workspace: str,
    name: str,
    saved: StoredBlob,
    kind: str,
    created: int,
    *,
    via_url: bool = False,
    public: bool = False,
) -> None:
    """Record a stored object as artifact `name`, in place of one with the same name."""
    remove(objects, db, workspace, name)
    db.execute(
        "INSERT INTO artifacts VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (workspace, name, saved.object, kind, saved.size, created, via_url, public),
    )


def put_result(
    objects: Path, db: sqlite3.Connection, workspace: str, name: str, content: bytes, created: int
) -> None:
    """Store one of the RESULTS of a run."""
    saved = save(objects, io.BytesIO(content), new_id())
    put(objects, db, workspace, name, saved, RESULTS[name], created)


def find(db: sqlite3.Connection, workspace: str, name: str) -> sqlite3.Row | None:
    """The row of an artifact; None if the workspace has none of this name."""
    sql = "SELECT * FROM artifacts WHERE workspace = ? AND filename = ?"
    row: sqlite3.Row | None = db.execute(sql, (workspace, name)).fetchone()
    return row


def remove(objects: Path, db: sqlite3.Connection, workspace: str, name: str | None) -> int:
    """Remove one artifact, or all of them for None; return how many."""
    rows = db.execute(
        "DELETE FROM artifacts WHERE workspace = ? AND (? IS NULL OR filename = ?)"
        " RETURNING object",
        (workspace, name, name),
    ).fetchall()
    for (found,) in rows:
        (objects / found).unlink(missing_ok=True)
    return len(rows)
