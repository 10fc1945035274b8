"""The SQLite file under the history: made whole, shared by many processes, never trusted."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from ..errors import RebyteError
from ..system import sqlite
from ..system.files import locked, put_new, sync_folder
from ..system.permissions import LOCK_NAME, UnsafeFile, check_private, private_folder

T = TypeVar("T")

# Each entry takes the file from the version before it to its own. Version 1 is that of 0.1.0. Those
# between it and 12 were never released: they are refused. Entries are never changed once released.
MIGRATIONS = {
    1: """
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
    # A deleted task keeps its row, so that @N keeps meaning the same task. An index ends with the
    # row's number, so `tasks_by_origin` gives the newest tasks without a sort.
    # `prompt_digest` stands for the whole prompt, of which `prompt` has the first line.
    # `base_commit`: what a task started from, as far as the repository here knew it.
    # For a rerun: `local_repository` is the folder or URL that an agent on this machine worked on,
    # `given_workspace` what the task was told to use, which `workspace_id` has of every task.
    # For requests that are lost: what else was sent with a prompt, the journal and the line of a
    # batch, what a search found possible, how the prompt begins (`shape`), and the task that a
    # follow-up was for.
    # `seen`: every id that was shown, wherever its task was created, and the status of the end that
    # was seen. `answered`: questions that were answered from here, which the service may show as
    # open for a while. Their rows have numbers so that the oldest can be dropped.
    # `applied`: the runs whose changes were applied to a repository here, and to which commit.
    # `used`: what tasks used of their models (see `usage_table.py`).
    12: """
    ALTER TABLE tasks ADD COLUMN deleted INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE tasks ADD COLUMN branch TEXT;
    ALTER TABLE tasks ADD COLUMN files TEXT;
    ALTER TABLE tasks ADD COLUMN local_repository TEXT;
    ALTER TABLE tasks ADD COLUMN given_workspace TEXT;
    ALTER TABLE tasks ADD COLUMN prompt_digest TEXT;
    ALTER TABLE tasks ADD COLUMN body_digest TEXT;
    ALTER TABLE tasks ADD COLUMN line TEXT;
    ALTER TABLE tasks ADD COLUMN base_commit TEXT;
    CREATE INDEX tasks_by_origin ON tasks (origin);
    CREATE INDEX tasks_by_prompt ON tasks (origin, prompt_digest);
    CREATE INDEX tasks_by_line ON tasks (origin, line) WHERE line IS NOT NULL;
    ALTER TABLE intents ADD COLUMN candidates TEXT;
    ALTER TABLE intents ADD COLUMN shape TEXT;
    ALTER TABLE intents ADD COLUMN target TEXT;
    CREATE TABLE seen (
        seq INTEGER PRIMARY KEY,
        origin TEXT NOT NULL, id TEXT NOT NULL, status TEXT, completed_at TEXT,
        UNIQUE (origin, id)
    );
    CREATE TABLE labels (
        origin TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, task_id TEXT NOT NULL,
        PRIMARY KEY (origin, name, value, task_id)
    ) WITHOUT ROWID;
    CREATE INDEX labels_by_task ON labels (origin, task_id);
    CREATE TABLE answered (
        seq INTEGER PRIMARY KEY,
        origin TEXT NOT NULL, message_id TEXT NOT NULL,
        UNIQUE (origin, message_id)
    );
    CREATE TABLE applied (
        origin TEXT NOT NULL, task_id TEXT NOT NULL, folder TEXT NOT NULL, run TEXT NOT NULL,
        head TEXT NOT NULL, PRIMARY KEY (origin, task_id, folder, run)
    ) WITHOUT ROWID;
    CREATE TABLE used (
        origin TEXT NOT NULL, task_id TEXT NOT NULL, prompt_id TEXT NOT NULL, requests INTEGER,
        input INTEGER NOT NULL, cached INTEGER NOT NULL, output INTEGER NOT NULL, cost REAL,
        created_at TEXT, executor TEXT, model TEXT, uncounted INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (origin, task_id, prompt_id)
    ) WITHOUT ROWID;
    """,
}
VERSION = max(MIGRATIONS)
# How long to wait for other writers, in seconds. A write takes milliseconds: a file that is locked
# for WAIT without a change is stuck; one that many write to gets a little longer.
WAIT = 5.0
LONGEST_WAIT = 30.0

_DAMAGED = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class HistoryUnusable(RebyteError):
    """The history file cannot be read or written: damaged, read-only, of a newer version."""

    code = "history_unusable"


class Database:
    """One SQLite file, opened on first use; several threads and processes may share it.

    Every fault of SQLite or the disk comes out as HistoryUnusable. Another process that keeps
    the file locked costs WAIT seconds once: later calls fail at once.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._guard = threading.RLock()
        self._writer: int | None = None  # the thread that is in a transaction
        self._unreadable: HistoryUnusable | None = None
        self._unwritable: HistoryUnusable | None = None

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """The rows of a query; none when there is no file, which is not made for a query."""

        def query() -> list[sqlite3.Row]:
            connection = self._open(create=False)
            return [] if connection is None else connection.execute(sql, values).fetchall()

        if self._unreadable is not None:
            raise self._unreadable.copy_with()
        with self._faults(is_read=True):
            return self._retried(query)

    @contextmanager
    def transaction(self, *, synced: bool = False) -> Iterator[sqlite3.Connection]:
        """Write in one step; the file is made when it is missing.

        With `synced`, what was written survives a power cut once the block has ended; without,
        it survives the end of the process, however it ends. One within another is a part of it.
        """
        if self._writer == threading.get_ident():
            assert self._connection is not None
            yield self._connection
            return
        if self._unwritable is not None:
            raise self._unwritable.copy_with()
        with self._faults():
            connection = self._retried(lambda: self._begin(synced))
            self._writer = threading.get_ident()
            try:
                yield connection
                self._retried(lambda: connection.execute("COMMIT"))
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
            finally:
                self._writer = None
                self._guard.release()

    def close(self) -> None:
        """Let the file go; a later call opens it again."""
        with self._guard:
            connection, self._connection = self._connection, None
            if connection is not None:
                with suppress(sqlite3.Error):
                    connection.close()

    def _begin(self, synced: bool) -> sqlite3.Connection:
        """Begin to write. The guard stays held, so that no other thread writes in between."""
        connection = self._open(create=True)
        assert connection is not None
        if connection.in_transaction:  # left by an interrupt that came before the block
            connection.execute("ROLLBACK")
        connection.execute(f"PRAGMA synchronous={'FULL' if synced else 'NORMAL'}")
        connection.execute("BEGIN IMMEDIATE")
        version = sqlite.version(connection)
        if version != VERSION:  # another process has upgraded it since
            connection.execute("ROLLBACK")
            raise self._of_other_writer(version)
        self._guard.acquire()
        return connection

    def _retried(self, attempt: Callable[[], T]) -> T:
        """What `attempt` returns, tried again while another process has the file locked.

        SQLite could wait by itself, but a signal would have to wait with it, and so would every
        other thread: here the guard is free between two attempts.
        """

        def guarded() -> T:
            with self._guard:
                return attempt()

        return sqlite.retried(guarded, wait=WAIT, longest=LONGEST_WAIT, changes=self._changes)

    def _changes(self) -> int | None:
        """A number that changes when another process commits; None when that cannot be told."""
        with self._guard, suppress(sqlite3.Error):
            if self._connection is not None:
                return int(self._connection.execute("PRAGMA data_version").fetchone()[0])
        return None

    def _open(self, *, create: bool) -> sqlite3.Connection | None:
        if self._connection is not None:
            return self._connection
        if not self.path.exists():
            if not create:
                return None
            check_private(self.path)
            self._make()
        check_private(self.path)
        connection = sqlite.connect(self.path, timeout=0)
        try:
            if sqlite.version(connection) == 0:  # it is moved into place with all of its tables
                raise HistoryUnusable(
                    f"the history {self.path} was emptied: the keys of --once, and what is to be"
                    " searched for, are lost",
                    hint="Restore it from a backup. To continue without, delete it: a key then"
                    " creates another task",
                )
            self._upgrade(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _make(self) -> None:
        """Make the file aside and move it into place, so that other processes find it whole.

        Switching a file that others have open to WAL can fail with "database is locked" in spite
        of any time limit; a file that appears complete never needs it.
        """
        private_folder(self.path.parent)
        with locked(self.path.parent / LOCK_NAME, seconds=WAIT):
            if self.path.exists():
                return
            new = self.path.with_name(f".{self.path.name}.{os.getpid()}.new")
            _remove(new, *_side_files(new))
            # SQLite gives its side files the mode of this one.
            os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            try:
                with closing(sqlite.connect(new, timeout=0)) as connection:
                    self._upgrade(connection)
                    # Only now: in WAL, a full disk would let the commit pass and leave half a file.
                    connection.execute("PRAGMA journal_mode=WAL")
                self._move_into_place(new)
            finally:
                _remove(new, *_side_files(new))
            sync_folder(self.path.parent)

    def _move_into_place(self, new: Path) -> None:
        """Give a new file its name, unless one has appeared in spite of the lock."""
        if self.path.exists():
            return
        # What an earlier file left beside it would be read as a part of the new one.
        _remove(*_side_files(self.path))
        put_new(new, self.path)

    def _upgrade(self, connection: sqlite3.Connection) -> None:
        version = sqlite.version(connection)
        if version == VERSION:
            return
        if version not in (0, *MIGRATIONS):
            raise self._of_other_writer(version)
        connection.execute("PRAGMA synchronous=FULL")
        with sqlite.writing(connection):
            # Asked again: another process may have upgraded it while this one waited.
            before = sqlite.version(connection)
            for step in (step for step in MIGRATIONS if step > before):
                for statement in MIGRATIONS[step].split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version={step}")

    def _of_other_writer(self, version: int) -> HistoryUnusable:
        problem, hint = sqlite.other_writer(
            version,
            VERSION,
            self.path,
            "Once no other rebyte runs",
            "keys of --once and lost requests (to repeat one could create its task again), @last,"
            " aliases, labels and usage",
        )
        return HistoryUnusable(f"{self.path} was {problem}", hint=hint)

    @contextmanager
    def _faults(self, *, is_read: bool = False) -> Iterator[None]:
        unusable = f"the history {self.path} cannot be used"
        try:
            yield
        except sqlite3.Error as problem:
            if sqlite.is_busy(problem):
                self._unwritable = HistoryBusy(
                    f"{unusable}: another process has kept it locked for {WAIT:g} s",
                    hint="End the other `rebyte`, or try again later",
                )
                self._unreadable = self._unwritable if is_read else self._unreadable
                raise self._unwritable from None
            hint = None
            # Not when a disk is full: the keys of --once would be lost.
            if sqlite.code_of(problem) in _DAMAGED:
                hint = f"If it is damaged, move it away: mv {self.path} {self.path}.old"
            raise HistoryUnusable(f"{unusable}: {problem}", hint=hint) from None
        except UnsafeFile as problem:
            raise HistoryUnusable(problem.message, hint=problem.hint) from None
        except UnicodeEncodeError:
            raise HistoryUnusable(f"{unusable}: it cannot store text that is not UTF-8") from None
        except OSError as problem:
            raise HistoryUnusable(f"{unusable}: {problem.strerror}") from None


class HistoryBusy(HistoryUnusable):
    """Another process has kept the history locked for longer than a write takes."""


class Lenient:
    """A database for conveniences: if it cannot be used, reads find nothing and writes do nothing.

    `origin` is the one that queries are about; `warn` is told of the first fault,
    which `fault` is then.
    """

    def __init__(self, database: Database, origin: str, warn: Callable[[str], None] | None) -> None:
        self.origin = origin
        self._database = database
        self._warn = warn
        self.fault: RebyteError | None = None

    def rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        """The rows of a query, whose first value (`?1`) is the origin, before `values`."""
        try:
            return self._database.rows(sql, (self.origin, *values))
        except HistoryUnusable as problem:
            self._complain(problem)
            return []

    def change(self, act: Callable[[sqlite3.Connection], T], *, synced: bool = False) -> T | None:
        """What `act` returns, in one transaction; None when nothing could be written."""
        try:
            with self._database.transaction(synced=synced) as connection:
                return act(connection)
        except RebyteError as problem:
            self._complain(problem)
            return None

    def _complain(self, problem: RebyteError) -> None:
        self.fault = self.fault or problem
        warn, self._warn = self._warn, None
        if warn is not None:
            text = problem.message + "; continuing without the history"
            warn(text + " (" + problem.hint + ")" if problem.hint else text)


def _side_files(path: Path) -> list[Path]:
    return [path.with_name(path.name + end) for end in sqlite.SIDE_FILES]


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
