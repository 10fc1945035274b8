"""OpenCode's database: the sessions in it stay for a follow-up, its accounts do not.

OpenCode loads settings from the server of an account that the database names, and plugins from the
folder that a session is in. An agent can write any account and any folder into it.
"""

from __future__ import annotations

import re
from pathlib import Path

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


def clean(folder: Path, code: str) -> None:
    """Empty all tables but those of sessions, which are then in `code`, the agent's folder.

    A database in which that is impossible is removed.
    No agent may be at work: its files are those of `FILES`, and none is a link.
    """
    import sqlite3

    database = folder / NAME
    if not database.exists():
        return
    try:
        _clean(database, code)
    except (sqlite3.Error, ValueError):
        for name in FILES:
            (folder / name).unlink(missing_ok=True)


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
