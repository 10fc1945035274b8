"""The artifacts of a workspace, as they lie in the store.

A run that succeeded leaves its answer as `answer.md`. Nothing runs when a run ends, so the file
is written when somebody next looks at the workspace, with the time at which the run ended.
"""

from __future__ import annotations

import io
import sqlite3

from . import objects
from .records import load_tasks
from .store import Store, new_id
from .timeline import readable_answer

ANSWER_FILE = "answer.md"
ANSWER_TYPE = "text/markdown; charset=utf-8"


def put(
    store: Store,
    db: sqlite3.Connection,
    workspace: str,
    name: str,
    saved: objects.Saved,
    kind: str,
    created: int,
    *,
    via_url: bool = False,
    public: bool = False,
) -> None:
    """Record a stored object as artifact `name`, in place of one with the same name."""
    remove(store, db, workspace, name)
    db.execute(
        "INSERT INTO artifacts VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (workspace, name, saved.object, kind, saved.size, created, via_url, public),
    )


def remove(store: Store, db: sqlite3.Connection, workspace: str, name: str | None) -> int:
    """Remove one artifact, or all of them for None. The number removed."""
    rows = db.execute(
        "DELETE FROM artifacts WHERE workspace = ? AND (? IS NULL OR filename = ?)"
        " RETURNING object",
        (workspace, name, name),
    ).fetchall()
    for row in rows:
        (store.objects / row["object"]).unlink(missing_ok=True)
    return len(rows)


def settle(store: Store, db: sqlite3.Connection, workspace: str) -> None:
    """Write the answers of runs that ended since the last look."""
    now = store.now()
    rows = db.execute(
        "SELECT * FROM tasks WHERE workspace = ? AND EXISTS"
        " (SELECT 1 FROM prompts WHERE task = tasks.id AND NOT kept)",
        (workspace,),
    ).fetchall()
    ended = []
    for row, task in zip(rows, load_tasks(db, rows), strict=True):
        for prompt, span in zip(task.prompts, task.times, strict=True):
            gone = row["deleted"] is not None and row["deleted"] < span.end
            answer = readable_answer(prompt, span, now)
            if gone or (answer is None and now >= span.end and span.outcome == "canceled"):
                db.execute("UPDATE prompts SET kept = 1 WHERE id = ?", (prompt.id,))
            elif answer is not None:
                ended.append((span.end, prompt.id, answer, span.outcome))
    for end, prompt_id, answer, outcome in sorted(ended):
        changed = db.execute(
            "UPDATE prompts SET kept = 1 WHERE id = ? AND NOT kept", (prompt_id,)
        ).rowcount
        if changed and outcome == "succeeded":
            source = io.BytesIO(answer.encode("utf-8", "replace") + b"\n")
            saved = objects.save(store.objects, source, new_id())
            put(store, db, workspace, ANSWER_FILE, saved, ANSWER_TYPE, end)
