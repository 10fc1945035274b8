"""The SQLite file under the history: made whole, shared by many processes, never trusted."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..config.atomic import LOCK_NAME, locked, private_folder, sync_folder
from ..errors import RebyteError

# Each entry takes the file from the version before it to its own (the first makes version 1).
# Entries are never changed once released: add one.
MIGRATIONS = (
    """
    CREATE TABLE tasks (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        origin TEXT NOT NULL, id TEXT NOT NULL, workspace_id TEXT, url TEXT, title TEXT,
        status TEXT, created_at TEXT, completed_at TEXT, prompt TEXT, executor TEXT, model TEXT,
        skills TEXT, github_url TEXT,
        UNIQUE (origin, id)
    );
    CREATE INDEX tasks_by_workspace ON tasks (origin, workspace_id);
    CREATE TABLE workspaces (
        origin TEXT NOT NULL, id TEXT NOT NULL, alias TEXT, hidden_at INTEGER,
        PRIMARY KEY (origin, id), UNIQUE (origin, alias)
    );
    CREATE TABLE intents (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        origin TEXT NOT NULL, key TEXT, state TEXT NOT NULL, digest TEXT NOT NULL,
        body_digest TEXT NOT NULL, started_at TEXT NOT NULL, owner TEXT NOT NULL,
        task_id TEXT, task TEXT,
        UNIQUE (origin, key)
    );
    """,
)
VERSION = len(MIGRATIONS)
BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)


class HistoryUnusable(RebyteError):
    """The history file cannot be read or written: damaged, read-only, of a newer version."""

    code = "history_unusable"


class Database:
    """One SQLite file, opened on first use; several threads and processes may share it.

    Every fault of SQLite or the disk comes out as HistoryUnusable.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._guard = threading.RLock()

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """The rows of a query; none when there is no file, which is not made for a question."""
        with self._guard, self._faults():
            connection = self._open(create=False)
            return [] if connection is None else connection.execute(sql, values).fetchall()

    @contextmanager
    def transaction(self, *, synced: bool = False) -> Iterator[sqlite3.Connection]:
        """Write in one step; the file is made when it is not there.

        With `synced`, what was written survives a power cut once the block has ended; without,
        it survives the end of the process, however it ends.
        """
        with self._guard, self._faults():
            connection = self._open(create=True)
            assert connection is not None
            connection.execute(f"PRAGMA synchronous={'FULL' if synced else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def close(self) -> None:
        """Let the file go; a later call opens it again."""
        with self._guard:
            connection, self._connection = self._connection, None
            if connection is not None:
                with suppress(sqlite3.Error):
                    connection.close()

    def _open(self, *, create: bool) -> sqlite3.Connection | None:
        if self._connection is not None:
            return self._connection
        if not self.path.exists():
            if not create:
                return None
            self._make()
        connection = _connect(self.path)
        try:
            self._upgrade(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _make(self) -> None:
        """Make the file aside and move it into place, so that nobody meets it half made.

        Switching a file that others have open to WAL can fail with "database is locked" in spite
        of any time limit; a file that appears complete never needs it.
        """
        private_folder(self.path.parent)
        with locked(self.path.parent / LOCK_NAME, seconds=30):
            if self.path.exists():
                return
            new = self.path.with_name(f".{self.path.name}.new")
            with suppress(FileNotFoundError):
                new.unlink()
            # SQLite gives its side files the mode of this one.
            os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            connection = _connect(new)
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                self._upgrade(connection)
            finally:
                connection.close()
            # What a file that was moved away left here would be read as a part of the new one.
            for side in ("-wal", "-shm"):
                with suppress(FileNotFoundError):
                    self.path.with_name(self.path.name + side).unlink()
            os.replace(new, self.path)
            sync_folder(self.path.parent)

    def _upgrade(self, connection: sqlite3.Connection) -> None:
        version = _version(connection)
        if version == VERSION:
            return
        if version > VERSION:
            raise HistoryUnusable(f"{self.path} was written by a newer rebyte")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Asked again: another process may have upgraded it while this one waited.
            for step in range(_version(connection), VERSION):
                for statement in MIGRATIONS[step].split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version={step + 1}")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as problem:
            hint, kind = None, getattr(problem, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
            if kind in BUSY:
                hint = "another `rebyte` has been writing to it all the while; try again"
            elif kind in DAMAGED:  # not when a disk is full: the keys of --once would be lost
                hint = f"when it is damaged, move it away: mv {self.path} {self.path}.old"
            raise HistoryUnusable(
                f"the history {self.path} cannot be used: {problem}", hint=hint
            ) from None
        except UnicodeEncodeError:
            raise HistoryUnusable(
                f"the history {self.path} takes no text that is not UTF-8"
            ) from None
        except OSError as problem:
            raise HistoryUnusable(
                f"the history {self.path} cannot be used: {problem.strerror}"
            ) from None


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    return connection


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
