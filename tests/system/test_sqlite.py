"""What the history and the local service both ask of SQLite."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest

from rebyte_cli.system import sqlite


def interrupted(connection: sqlite3.Connection) -> None:
    with sqlite.writing(connection):
        connection.execute("INSERT INTO t VALUES (1)")
        raise KeyboardInterrupt


def test_an_error_undoes_the_transaction_and_the_connection_stays_usable(tmp_path: Path) -> None:
    with closing(sqlite.connect(tmp_path / "x.db", timeout=0)) as connection:
        connection.execute("CREATE TABLE t (n)")
        with pytest.raises(KeyboardInterrupt):
            interrupted(connection)
        with sqlite.writing(connection):
            connection.execute("INSERT INTO t VALUES (2)")
    with closing(sqlite.connect(tmp_path / "x.db", timeout=0)) as connection:
        assert [row["n"] for row in connection.execute("SELECT n FROM t")] == [2]


def test_a_locked_file_is_waited_for_as_long_as_others_make_progress(tmp_path: Path) -> None:
    shortest = 1e-9  # seconds
    with (
        closing(sqlite.connect(tmp_path / "x.db", timeout=0)) as holder,
        closing(sqlite.connect(tmp_path / "x.db", timeout=0)) as other,
    ):
        tries = count(1)

        def begin() -> int:
            if next(tries) == 3:
                holder.execute("COMMIT")
            other.execute("BEGIN IMMEDIATE")
            other.execute("COMMIT")
            return 7

        holder.execute("BEGIN IMMEDIATE")
        changes = count().__next__
        assert sqlite.retried(begin, wait=shortest, longest=60.0, changes=changes) == 7
        holder.execute("BEGIN IMMEDIATE")
        for stuck in (
            lambda: sqlite.retried(begin, wait=shortest, longest=60.0),
            lambda: sqlite.retried(begin, wait=60.0, longest=0.0, changes=changes),
        ):
            with pytest.raises(sqlite3.OperationalError) as found:
                stuck()
            assert sqlite.is_busy(found.value)


def test_what_is_no_lock_is_not_tried_again(tmp_path: Path) -> None:
    tries = []

    def attempt() -> None:
        tries.append(1)
        connection.execute("SELECT * FROM missing")

    with closing(sqlite.connect(tmp_path / "x.db", timeout=0)) as connection:
        with pytest.raises(sqlite3.OperationalError) as found:
            sqlite.retried(attempt, wait=60.0, longest=60.0)
        assert (tries, sqlite.code_of(found.value)) == ([1], sqlite3.SQLITE_ERROR)
