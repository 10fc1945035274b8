"""Removing workspaces that no task needs any more."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess

from ..database import Store

# Time to think again: a deleted task's files can be saved with `workspace path` until then.
GRACE_MS = 3_600_000
UNUSED = """
SELECT DISTINCT workspace FROM runs WHERE ended IS NOT NULL
AND NOT EXISTS (SELECT 1 FROM computers WHERE computers.id = runs.workspace)
AND NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.workspace = runs.workspace
  AND (tasks.deleted IS NULL OR tasks.deleted > ?))
AND NOT EXISTS (SELECT 1 FROM runs AS other WHERE other.workspace = runs.workspace
  AND other.ended IS NULL)
"""


def sweep(store: Store) -> None:
    """Remove the folders of workspaces whose tasks were all deleted more than an hour ago.

    They are moved aside at once; a separate process deletes them, which can take a while.
    Raises nothing: what stays behind is removed the next time.
    """
    root, trash = store.folder / "workspaces", store.folder / "trash"
    with contextlib.suppress(OSError, sqlite3.Error):
        if not root.exists():
            return
        with store.read() as db:
            rows = db.execute(UNUSED, (store.now() - GRACE_MS,)).fetchall()
        unused = [root / row[0] for row in rows if (root / row[0]).exists()]
        if not unused and not trash.exists():
            return
        trash.mkdir(exist_ok=True, mode=0o700)
        for folder in unused:
            folder.rename(trash / f"{folder.name}.{os.getpid()}")
        if unused or any(trash.iterdir()):
            # An agent may have left folders that even their owner cannot write to.
            script = 'chmod -R u+rwx -- "$1" 2>/dev/null; rm -rf -- "$1"/*'
            subprocess.Popen(
                ["sh", "-c", script, "sh", str(trash)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
            )
