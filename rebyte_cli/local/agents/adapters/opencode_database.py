"""OpenCode's database: the sessions in it stay for a follow-up, its accounts do not.

OpenCode loads settings from the server of an account that the database names, and plugins from the
folder that a session is in. An agent can write any account and any folder into it.

A process opens it: a constraint, an index or a damaged page can make SQLite compute for hours, and
nothing stops a function that it computes but the end of its process.
"""

from __future__ import annotations

import errno
import re
import subprocess
import sys
from pathlib import Path

from ....system import python_process

CPU_SECONDS = 10
WALL_SECONDS = 60.0  # on a busy machine, or a slow disk
MEMORY = 1 << 30
MOST_WRITTEN = 100 << 20  # bytes of one file
REMOVED = "OpenCode's earlier sessions were removed: their database cannot be cleaned within limits"
NAME = "opencode.db"
FILES = (NAME, f"{NAME}-wal", f"{NAME}-shm")
# What OpenCode needs to resume a session, and to know which version of its tables it has.
KEPT = frozenset((
    "__drizzle_migrations", "data_migration", "event", "event_sequence", "message", "migration",
    "part", "session", "session_context_epoch", "session_entry", "session_input", "session_message",
    "sqlite_sequence", "todo",
))  # fmt: skip


TABLE = re.compile(r"CREATE TABLE [`\"]?(\w+)[`\"]?\s*\(")
INDEX = re.compile(r"CREATE (?:UNIQUE )?INDEX ")


def clean(folder: Path, code: str, room: int, *, cpu_seconds: int = CPU_SECONDS) -> str:
    """Empty all tables but those of sessions, which are then in `code`, the agent's folder.

    A database in which that is impossible, or takes more than `cpu_seconds` or `MOST_WRITTEN`, is
    removed: then what to tell the user, otherwise an empty text. `room` is the bytes of the disk
    that may be filled; raises OSError if there are none.
    No agent may be at work: its files are those of `FILES`, and none is a link.
    """
    database = folder / NAME
    if not database.exists():
        return ""
    if room <= 0:
        raise OSError(errno.ENOSPC, "the disk has no room left ([local] keep_free)")
    # Both the database and its log may be written.
    most = min(MOST_WRITTEN, max(room // 2, 1))
    try:
        subprocess.run(
            python_process.command(__name__, database, code, cpu_seconds, most),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            timeout=WALL_SECONDS,
            check=True,
        )
    except subprocess.SubprocessError:
        for name in (*FILES, f"{NAME}-journal"):
            (folder / name).unlink(missing_ok=True)
        return REMOVED
    return ""


def main() -> None:
    """Clean one database within limits, which hold when the supervisor was killed, too.

    Arguments: DATABASE CODE_FOLDER CPU_SECONDS BYTES_OF_A_FILE.
    """
    database, code, seconds, most = sys.argv[1:]
    # Elsewhere than on Linux, no jail keeps the agent from more than this.
    python_process.limit(int(seconds), MEMORY, int(most))
    _clean(Path(database), code)


def _clean(database: Path, code: str) -> None:
    """Raises sqlite3.Error or ValueError for a database that OpenCode does not make."""
    import contextlib
    import sqlite3

    with contextlib.closing(sqlite3.connect(database)) as db:
        db.execute("PRAGMA trusted_schema = OFF")
        db.execute("PRAGMA cell_size_check = ON")
        tables = []
        for kind, name, text in db.execute("SELECT type, name, sql FROM sqlite_schema"):
            # A trigger or a view could bring back what is deleted, and SQLite takes a table's name
            # from the text, which an agent can make differ from the column.
            if kind == "index" and (text is None or INDEX.match(text)):
                continue
            found = TABLE.match(text or "")
            if kind != "table" or found is None or found[1] != name:
                raise ValueError(name)
            tables.append(name)
        for name in tables:
            if name not in KEPT:
                db.execute(f'DELETE FROM "{name}"')  # noqa: S608 - TABLE allows no quotes in it
        db.execute("UPDATE session SET directory = ?, path = '', workspace_id = NULL", (code,))
        db.commit()
