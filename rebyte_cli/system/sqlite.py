"""What each of our SQLite files needs: connections, transactions, patience with other writers."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shlex import join
from typing import TypeVar

T = TypeVar("T")

# Seconds between two attempts, doubled after each: hundreds of processes that asked every few
# milliseconds would keep the one that writes from running.
PAUSE, LONGEST_PAUSE = 0.02, 0.16
SIDE_FILES = ("-wal", "-shm", "-journal")  # what SQLite adds to the name of a file


def connect(path: Path, *, timeout: float) -> sqlite3.Connection:
    """A connection whose transactions begin and end with statements.

    Any thread may use it, but one at a time. A statement waits `timeout` seconds for other writers.
    """
    connection = sqlite3.connect(
        path, timeout=timeout, isolation_level=None, check_same_thread=False
    )
    connection.row_factory = sqlite3.Row
    return connection


@contextmanager
def writing(
    connection: sqlite3.Connection,
    retried: Callable[[Callable[[], object]], object] = lambda begin: begin(),
) -> Iterator[None]:
    """One write transaction: committed at the end of the block, undone by an error.

    It takes the write lock at once: one that read first and then asked for it would be refused
    without waiting when another process wrote in between. `retried` repeats that while the file is
    locked; an interrupt meanwhile leaves nothing open.
    """
    try:
        retried(lambda: connection.execute("BEGIN IMMEDIATE"))
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite may have undone it by itself
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise


def version(connection: sqlite3.Connection) -> int:
    """The version of the tables, which we keep in the file's header; 0 for a new file."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def other_writer(version: int, newest: int, path: Path, when: str, lost: str) -> tuple[str, str]:
    """Who wrote tables of a version that this rebyte does not take, and the hint about it.

    Those of an unreleased one stay in `path`, under another name, `when` that does no harm: a new
    one would know nothing of what is `lost`.
    """
    if version > newest:
        return f"written by a newer rebyte (version {version})", "Update this one"
    move = join(["mv", "-n", str(path), f"{path}.version{version}"])
    return (
        f"written by an unreleased rebyte (version {version})",
        f"{when}, keep it: {move}. A new one knows nothing of its {lost}",
    )


def retried(
    attempt: Callable[[], T],
    *,
    wait: float,
    longest: float,
    changes: Callable[[], object] = lambda: None,
) -> T:
    """What `attempt` returns, tried again while the file is locked and someone makes progress.

    It is given up after `wait` seconds in which `changes` gave the same, and after `longest` ones.
    SQLite's own time limit covers neither the switch to WAL nor the moment in which the last
    process closes the file while the next one opens it.
    """
    began = last_change = time.monotonic()
    seen, pause = None, PAUSE
    while True:
        try:
            return attempt()
        except sqlite3.OperationalError as problem:
            now, before, seen = time.monotonic(), seen, changes()
            if seen != before:
                last_change = now
            if not is_busy(problem) or now - last_change >= wait or now - began >= longest:
                raise
        # Different lengths, or two hundred processes started together would collide again.
        time.sleep(pause * (0.5 + os.urandom(1)[0] / 256))
        pause = min(2 * pause, LONGEST_PAUSE)


def code_of(problem: sqlite3.Error) -> int:
    """SQLite's primary result code; that of a plain error for a fault of the program."""
    return int(getattr(problem, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF


def is_busy(problem: sqlite3.Error) -> bool:
    """Whether another connection has the file locked."""
    return code_of(problem) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
