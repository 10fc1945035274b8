"""The state of the local service: one SQLite file that any number of processes share.

Nothing runs between two commands. What happened is recorded with its time; what is the case now
follows from that and from the clock (see `run_interface.py`). The clock is injected, so that tests
decide what time it is. Times are integers: milliseconds since 1970, UTC.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Self, TypeVar

from ..system import sqlite
from ..system.permissions import UnsafeFile, check_private, make_folder
from .ballast import make_room

BUSY_SECONDS = 30.0
LEAST_FREE = 16 << 20  # bytes in the file for which it is made smaller
LARGEST_COPY = 128 << 20  # bytes that are copied for that
SERVED = "served "  # and the instance: the name under which the store keeps a `ServedService`
SCHEMA_VERSION = 7
FORMATS = (1, SCHEMA_VERSION)  # the first is that of 0.1.0; those between were never released
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
  visibility TEXT NOT NULL DEFAULT 'shared', deleted INTEGER, unsettled INTEGER NOT NULL DEFAULT 1,
  batch TEXT);
CREATE INDEX IF NOT EXISTS newest ON tasks (created DESC, seq DESC) WHERE deleted IS NULL;
CREATE INDEX IF NOT EXISTS unsettled ON tasks (seq) WHERE unsettled = 1;
CREATE INDEX IF NOT EXISTS residents ON tasks (workspace);
CREATE INDEX IF NOT EXISTS of_batch ON tasks (batch, seq);
CREATE TABLE IF NOT EXISTS prompts (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, task TEXT NOT NULL,
  text TEXT NOT NULL, executor TEXT NOT NULL, model TEXT NOT NULL, submitted INTEGER NOT NULL,
  plan TEXT NOT NULL, answer TEXT NOT NULL,
  canceled INTEGER, replied INTEGER, reply TEXT, kept INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS of_task ON prompts (task, seq);
CREATE TABLE IF NOT EXISTS batches (
  id TEXT PRIMARY KEY, title TEXT NOT NULL, lines INTEGER NOT NULL);
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
  triggered INTEGER, failures INTEGER NOT NULL DEFAULT 0, own INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS deliveries (
  webhook TEXT NOT NULL, task TEXT NOT NULL, event TEXT NOT NULL, at INTEGER NOT NULL,
  PRIMARY KEY (webhook, task, event, at));
CREATE TABLE IF NOT EXISTS leaks (at INTEGER NOT NULL, method TEXT NOT NULL, path TEXT NOT NULL,
  header TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS refusals (prompt TEXT PRIMARY KEY, times INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS runs (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, prompt TEXT UNIQUE NOT NULL, task TEXT NOT NULL,
  workspace TEXT NOT NULL, agent TEXT NOT NULL, options TEXT NOT NULL, queued INTEGER NOT NULL,
  started INTEGER, ended INTEGER, outcome TEXT, answer TEXT, session TEXT, used TEXT,
  parked INTEGER, worked INTEGER NOT NULL DEFAULT 0, counted INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS unended ON runs (seq) WHERE ended IS NULL;
CREATE INDEX IF NOT EXISTS uncounted ON runs (seq)
  WHERE started IS NOT NULL AND ended IS NOT NULL AND counted = 0;
CREATE INDEX IF NOT EXISTS runs_of_task ON runs (task, seq);
CREATE INDEX IF NOT EXISTS runs_of_workspace ON runs (workspace, seq);
CREATE TABLE IF NOT EXISTS run_events (
  prompt TEXT NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL, kind TEXT NOT NULL,
  payload TEXT NOT NULL, PRIMARY KEY (prompt, seq)) WITHOUT ROWID;
"""
TABLES = re.findall(r"CREATE TABLE IF NOT EXISTS (?!meta\b)(\w+)", SCHEMA)

# What SQLite says, by its primary result codes.
_UNUSABLE = {
    sqlite3.SQLITE_READONLY: "it cannot be written",
    sqlite3.SQLITE_PERM: "it cannot be opened",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened",
    sqlite3.SQLITE_IOERR: "the disk cannot be read or written, or is full",
    sqlite3.SQLITE_FULL: "the disk is full",
}
_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)

Result = TypeVar("Result")


def new_id() -> str:
    """A random UUID (version 4) as text. Written out because `import uuid` costs a millisecond."""
    raw = bytearray(os.urandom(16))
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


class ServedService(NamedTuple):
    """Where a service answers for a folder, or did until it was killed.

    `in_background`: it was started for a link to open, and ends when it is idle.
    """

    origin: str
    instance: str
    pid: int
    in_background: bool


class StateError(OSError):
    """The state folder cannot be used. `damaged` when only `rebyte local reset` helps, `full` when
    that may be for want of room on the disk. `hint` says what to do, unless the problem does.

    An OSError with the file's name, so that code that reports those needs no other case.
    """

    def __init__(
        self,
        path: Path,
        problem: str,
        *,
        damaged: bool = False,
        full: bool = False,
        hint: str | None = None,
    ) -> None:
        super().__init__(errno.EIO, problem, str(path))
        self.hint = hint
        self.damaged = damaged
        self.full = full


class Store:
    """The SQLite file `service.db` and the folder `objects` under `folder` (created when missing).

    A statement waits `busy_seconds` (30) for other writers.
    Safe for many threads and many processes, on an empty folder too. Raises StateError when the
    file is damaged, cannot be written, or is of a format that is not in FORMATS; it is not touched
    then.
    """

    def __init__(
        self,
        folder: Path,
        clock: Callable[[], float] = time.time,
        busy_seconds: float | None = None,
    ) -> None:
        self.folder = folder
        self.objects = folder / "objects"
        self.file = folder / "service.db"
        self._clock = clock
        self._busy_seconds = BUSY_SECONDS if busy_seconds is None else busy_seconds
        self._idle: list[sqlite3.Connection] = []  # for reading
        # SQLite makes writers wait by sleeping, longer each time, and wakes none when it is free.
        # The pages that one connection has cached are good until another one writes.
        self._writing = threading.Lock()
        self._writer: sqlite3.Connection | None = None
        # Prompts and webhook secrets lie here: for the owner's eyes only.
        make_folder(folder)
        try:  # it decides what agents run, and who may start them
            check_private(self.file)
        except UnsafeFile as error:
            raise StateError(folder, f"{error}; run: {error.hint}") from None
        make_room(folder)
        self.objects.mkdir(exist_ok=True, mode=0o700)
        with self._explained():
            self._idle.append(self._retried(self._open))

    def now(self) -> int:
        """The time by the injected clock, in milliseconds."""
        return int(self._clock() * 1000)

    @contextlib.contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A connection for reading. Each statement sees the newest committed state."""
        with self._explained():
            connection = self._take()
            try:
                yield connection
            finally:
                self._idle.append(connection)

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A connection inside one write transaction: committed at the end, undone by an error."""
        if not self._writing.acquire(timeout=self._busy_seconds):
            waited = f"{self._busy_seconds:g} s"
            raise StateError(self.file, f"this process has been writing for {waited}")
        try:
            make_room(self.folder)
            with self._explained():
                connection = self._writer = self._writer or self._take()
                with sqlite.writing(connection, self._retried):
                    yield connection
        finally:
            self._writing.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the idle connections, as the end of a `with` block does.

        The store must not be used afterwards.
        """
        while self._idle:
            self._idle.pop().close()
        if self._writer is not None and self._writing.acquire(blocking=False):
            self._writer.close()
            self._writer = None
            self._writing.release()

    def remember(self, name: str, value: str) -> None:
        """Keep one named value, for example the address where `serve` answers."""
        with self.write() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def forget(self, name: str) -> None:
        """Drop a value kept by `remember`."""
        with self.write() as db:
            db.execute("DELETE FROM meta WHERE name = ?", (name,))

    def recall(self, name: str) -> str | None:
        """A value kept by `remember`, or None."""
        with self.read() as db:
            row = db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def served(self) -> list[ServedService]:
        """The services of this folder; the one that was started last comes first."""
        with self.read() as db:
            return recorded_services(db)

    def secret(self) -> bytes:
        """The key that signs upload URLs: made once, shared by every process on this folder."""
        kept = self.recall("secret")
        if kept is None:
            with self.write() as db:
                fresh = os.urandom(32).hex()
                db.execute("INSERT OR IGNORE INTO meta VALUES ('secret', ?)", (fresh,))
            kept = self.recall("secret") or fresh
        try:
            return bytes.fromhex(kept)
        except ValueError:
            raise self._damaged("its secret is not one") from None

    def empty(self) -> None:
        """Forget every task, workspace, file and webhook; addresses and the secret stay."""
        with self.write() as db:
            for table in TABLES:
                db.execute(f"DELETE FROM {table}")  # noqa: S608 - names from the schema above
        for path in self.objects.iterdir():
            path.unlink(missing_ok=True)
        self.shrink()

    def shrink(self) -> None:
        """Give the disk the space back that is free in the file, if it is most of it.

        SQLite copies the rest, first to a file and then to its log, and holds writers up meanwhile.
        So that happens neither with much of it, nor on a disk that has no room, nor while another
        process writes: later calls try again. Raises nothing.
        """
        with contextlib.suppress(OSError, sqlite3.Error):
            with self.read() as db:
                names = ("page_size", "page_count", "freelist_count")
                page, pages, free = (db.execute(f"PRAGMA {n}").fetchone()[0] for n in names)
            used = (pages - free) * page
            if free * page < LEAST_FREE or free * 2 < pages or used > LARGEST_COPY:
                return
            if shutil.disk_usage(self.folder).free < 3 * used:
                return
            with contextlib.closing(sqlite.connect(self.file, timeout=0)) as db:
                db.execute("VACUUM")
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # which may be left to a later one

    @contextlib.contextmanager
    def readable(self) -> Iterator[None]:
        """Raise StateError for rows inside that hold something else than this service writes."""
        try:
            yield
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise self._damaged(f"a row cannot be read: {error!r}") from error

    def _damaged(self, why: str) -> StateError:
        problem = f"it is damaged ({why}); `rebyte local reset` empties it"
        return StateError(self.file, problem, damaged=True)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Raise StateError in place of what SQLite says about the file, its folder or the disk."""
        try:
            yield
        except sqlite3.Error as error:
            code = sqlite.code_of(error)
            is_damaged = code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
            if is_damaged or (code == sqlite3.SQLITE_ERROR and "no such" in str(error)):
                raise self._damaged(str(error)) from error
            if code in _UNUSABLE or sqlite.is_busy(error):
                waited = f"another process has been writing for {self._busy_seconds:g} s"
                problem = _UNUSABLE.get(code, waited)
                raise StateError(self.file, f"{problem} ({error})", full=code in _FULL) from error
            raise

    def _take(self) -> sqlite3.Connection:
        try:
            return self._idle.pop()
        except IndexError:
            return self._retried(self._open)

    def _retried(self, action: Callable[[], Result]) -> Result:
        return sqlite.retried(action, wait=self._busy_seconds, longest=self._busy_seconds)

    def _open(self) -> sqlite3.Connection:
        connection = sqlite.connect(self.file, timeout=self._busy_seconds)
        try:
            version = sqlite.version(connection)
            if version not in (0, *FORMATS):
                problem, hint = sqlite.other_writer(
                    version,
                    SCHEMA_VERSION,
                    self.folder,
                    "Once its runs and any `rebyte local serve` have ended",
                    "tasks and their runs, workspaces, files, webhooks, key and trust",
                )
                raise StateError(self.file, f"it was {problem}", hint=hint)
            if version != SCHEMA_VERSION:
                _create(connection)
            connection.execute("PRAGMA synchronous = NORMAL")
            # KiB. There is one for each request under way, and the system caches the file anyway.
            connection.execute("PRAGMA cache_size = -256")
        except BaseException:
            connection.close()
            raise
        return connection


def record_service(db: sqlite3.Connection, served: ServedService) -> None:
    """Keep where a service answers, and take its address for links to tasks."""
    words = [served.origin, str(served.pid), *(["background"] if served.in_background else [])]
    db.executemany(
        "INSERT OR REPLACE INTO meta VALUES (?, ?)",
        [(SERVED + served.instance, " ".join(words)), ("address", served.origin)],
    )


def recorded_services(db: sqlite3.Connection) -> list[ServedService]:
    """What `record_service` has kept, the newest first."""
    rows = db.execute(
        "SELECT value, substr(name, ?) FROM meta WHERE name LIKE ? ORDER BY rowid DESC",
        (len(SERVED) + 1, f"{SERVED}%"),
    )
    found = []
    for value, instance in rows:
        origin, pid, *rest = f"{value} 0".split()[:3]
        found.append(ServedService(origin, instance, int(pid), rest == ["background"]))
    return found


def discard(folder: Path) -> None:
    """Delete the database of a state folder whose file is damaged, and what it knew of.

    Raises OSError.
    """
    from .agents.agent_files import remove_tree

    for name in ("service.db", "service.db-wal", "service.db-shm"):
        (folder / name).unlink(missing_ok=True)
    for name in ("objects", "workspaces", "lenders", "limits"):
        remove_tree(folder / name)
        if (folder / name).exists():
            raise OSError(f"{folder / name} cannot be removed")


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    with sqlite.writing(connection):
        if sqlite.version(connection) == 1:  # it knows no owner of its webhooks
            connection.execute("ALTER TABLE webhooks ADD COLUMN own INTEGER NOT NULL DEFAULT 0")
            connection.execute("ALTER TABLE tasks ADD COLUMN batch TEXT")
        for statement in SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
