"""The artifacts of workspaces as they lie in the store: a row, and an object among the blobs."""

from __future__ import annotations

import io
import sqlite3
from pathlib import Path

from .blobs import StoredBlob, save
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
