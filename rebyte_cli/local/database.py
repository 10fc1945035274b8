"""State of the local service: one SQLite file that any number of processes share.

Nothing runs between two commands. What happened is recorded with the time it happened at;
what is the case now is derived from that and from the clock (see `timeline`). The clock is
injected, so tests decide what time it is. Times are integers: milliseconds since 1970, UTC.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

BUSY_SECONDS = 30.0
SCHEMA_VERSION = 2
SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS workspaces (id TEXT PRIMARY KEY, created INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS computers (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, name TEXT NOT NULL, icon TEXT,
  created INTEGER NOT NULL, updated INTEGER NOT NULL, ready INTEGER NOT NULL, problem TEXT,
  instructions TEXT, views TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS tasks (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, workspace TEXT NOT NULL,
  created INTEGER NOT NULL, executor TEXT NOT NULL, model TEXT NOT NULL, title TEXT NOT NULL,
  visibility TEXT NOT NULL DEFAULT 'shared', deleted INTEGER, unsettled INTEGER NOT NULL DEFAULT 1);
CREATE INDEX IF NOT EXISTS newest ON tasks (created DESC, seq DESC) WHERE deleted IS NULL;
CREATE INDEX IF NOT EXISTS unsettled ON tasks (seq) WHERE unsettled = 1;
CREATE INDEX IF NOT EXISTS residents ON tasks (workspace);
CREATE TABLE IF NOT EXISTS prompts (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, task TEXT NOT NULL,
  text TEXT NOT NULL, executor TEXT NOT NULL, model TEXT NOT NULL, submitted INTEGER NOT NULL,
  plan TEXT NOT NULL, answer TEXT NOT NULL,
  canceled INTEGER, replied INTEGER, reply TEXT, kept INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS of_task ON prompts (task, seq);
CREATE TABLE IF NOT EXISTS files (
  id TEXT PRIMARY KEY, filename TEXT NOT NULL, type TEXT NOT NULL, created INTEGER NOT NULL,
  size INTEGER, sha256 TEXT, uploaded INTEGER);
CREATE TABLE IF NOT EXISTS artifacts (
  workspace TEXT NOT NULL, filename TEXT NOT NULL, object TEXT NOT NULL, type TEXT NOT NULL,
  size INTEGER NOT NULL, created INTEGER NOT NULL, via_url INTEGER NOT NULL,
  public INTEGER NOT NULL, PRIMARY KEY (workspace, filename));
CREATE TABLE IF NOT EXISTS webhooks (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, url TEXT NOT NULL,
  events TEXT NOT NULL, description TEXT, secret TEXT, created INTEGER NOT NULL,
  triggered INTEGER, failures INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS deliveries (
  webhook TEXT NOT NULL, task TEXT NOT NULL, event TEXT NOT NULL, at INTEGER NOT NULL,
  PRIMARY KEY (webhook, task, event, at));
CREATE TABLE IF NOT EXISTS leaks (at INTEGER NOT NULL, method TEXT NOT NULL, path TEXT NOT NULL,
  header TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS refusals (prompt TEXT PRIMARY KEY, times INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS runs (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, prompt TEXT UNIQUE NOT NULL, task TEXT NOT NULL,
  workspace TEXT NOT NULL, agent TEXT NOT NULL, options TEXT NOT NULL, queued INTEGER NOT NULL,
  started INTEGER, ended INTEGER, outcome TEXT, answer TEXT, session TEXT);
CREATE INDEX IF NOT EXISTS unended ON runs (seq) WHERE ended IS NULL;
CREATE INDEX IF NOT EXISTS runs_of_task ON runs (task, seq);
CREATE INDEX IF NOT EXISTS runs_of_workspace ON runs (workspace, seq);
CREATE TABLE IF NOT EXISTS run_events (
  prompt TEXT NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL, kind TEXT NOT NULL,
  payload TEXT NOT NULL, PRIMARY KEY (prompt, seq)) WITHOUT ROWID;
"""
TABLES = (
    "workspaces", "computers", "tasks", "prompts", "files", "artifacts", "webhooks",
    "deliveries", "leaks", "refusals", "runs", "run_events",
)  # fmt: skip

Result = TypeVar("Result")


def new_id() -> str:
    """A random UUID (version 4) as text. Written out because `import uuid` costs a millisecond."""
    raw = bytearray(os.urandom(16))
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


class Store:
    """The SQLite file `service.db` and the folder `objects` under `folder` (created when missing).

    Safe for many threads and many processes, on an empty folder too. sqlite3.Error and OSError
    pass through when the folder cannot be used.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self.objects = folder / "objects"
        self._clock = clock
        self._idle: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()
        # Prompts and webhook secrets lie here: for the owner's eyes only.
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.objects.mkdir(exist_ok=True, mode=0o700)
        self._idle.put(_patiently(self._open))

    def now(self) -> int:
        """The injected clock in milliseconds."""
        return int(self._clock() * 1000)

    @contextlib.contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A connection for reading. Each statement sees the newest committed state."""
        connection = self._take()
        try:
            yield connection
        finally:
            self._idle.put(connection)

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A connection inside one write transaction: committed at the end, undone by an error."""
        connection = self._take()
        try:
            # IMMEDIATE takes the write lock at once. A transaction that read first and then asked
            # for it would be refused without waiting when another process wrote in between.
            _patiently(lambda: connection.execute("BEGIN IMMEDIATE"))
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
        finally:
            self._idle.put(connection)

    def close(self) -> None:
        """Close the idle connections. The store must not be used afterwards."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()

    def remember(self, name: str, value: str) -> None:
        """Keep one named value, for example the address where `serve` answers."""
        with self.write() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def recall(self, name: str) -> str | None:
        """A value kept by `remember`, or None."""
        with self.read() as db:
            row = db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def secret(self) -> bytes:
        """The key that signs upload URLs: made once, shared by every process on this folder."""
        kept = self.recall("secret")
        if kept is None:
            with self.write() as db:
                fresh = os.urandom(32).hex()
                db.execute("INSERT OR IGNORE INTO meta VALUES ('secret', ?)", (fresh,))
            kept = self.recall("secret") or fresh
        return bytes.fromhex(kept)

    def empty(self) -> None:
        """Forget every task, workspace, file and webhook; addresses and the secret stay."""
        with self.write() as db:
            for table in TABLES:
                db.execute(f"DELETE FROM {table}")  # noqa: S608 - names from the tuple above
        for path in self.objects.iterdir():
            path.unlink(missing_ok=True)

    def _take(self) -> sqlite3.Connection:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return _patiently(self._open)

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.folder / "service.db",
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,  # a connection serves one thread at a time: see `_idle`
        )
        try:
            connection.row_factory = sqlite3.Row
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version != SCHEMA_VERSION:
                _create(connection)
            connection.execute("PRAGMA synchronous = NORMAL")
            # KiB. There is one for each request under way, and the system caches the file anyway.
            connection.execute("PRAGMA cache_size = -256")
        except BaseException:
            connection.close()
            raise
        return connection


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _patiently(action: Callable[[], Result]) -> Result:
    """Repeat `action` while SQLite says "locked", up to the busy limit.

    SQLite's own busy timeout does not cover the switch to WAL nor the moment in which the last
    process closes the file while the next one opens it.
    """
    deadline = time.monotonic() + BUSY_SECONDS
    pause = 0.001
    while True:
        try:
            return action()
        except sqlite3.OperationalError as error:
            text = str(error)
            if ("locked" not in text and "busy" not in text) or time.monotonic() > deadline:
                raise
        # Different lengths, or two hundred processes started together would collide again.
        time.sleep(pause * (0.5 + os.urandom(1)[0] / 256))
        pause = min(pause * 2, 0.1)
