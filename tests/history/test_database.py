"""The history file under many processes, over damage, and across versions."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from rebyte_cli.errors import RebyteError
from rebyte_cli.history.database import VERSION, HistoryUnusable
from rebyte_cli.history.history import History

MANY = """
import sys
from pathlib import Path
from rebyte_cli.history.history import History
history = History(Path(sys.argv[1]), origin="o", warn=lambda text: sys.exit(text))
name = sys.argv[2]
intent = history.open_intent(name, digest="", body_digest="", started_at="", owner="")
history.add_task({"id": name, "workspaceId": "w"}, prompt=name)
history.settle_intent(intent.id, state="done", task_id=name)
history.update_task({"id": name, "title": "t"})
assert history.intent(name).task_id == name
"""


def open_intent(history: History, key: str | None) -> int:
    return history.open_intent(key, digest="d", body_digest="b", started_at="now", owner="me").id


def test_many_processes_start_on_no_file_at_once_and_none_loses(tmp_path: Path) -> None:
    path = tmp_path / "state" / "history.db"
    started = [
        subprocess.Popen([sys.executable, "-c", MANY, path, f"t{number}"], stderr=subprocess.PIPE)
        for number in range(40)
    ]
    ended = [(process.communicate(timeout=60)[1], process.returncode) for process in started]
    assert ended == [(b"", 0)] * 40
    history = History(path, origin="o")
    assert {task["id"] for task in history.tasks()} == {f"t{number}" for number in range(40)}
    assert all(task["title"] == "t" for task in history.tasks())
    assert os.listdir(path.parent / "once") == []


@pytest.mark.parametrize("damage", [b"not a database at all, but long enough" * 100, b"\0" * 4096])
def test_a_damaged_file_is_told_once_and_only_intents_fail(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "history.db"
    path.write_bytes(damage)
    told: list[str] = []
    history = History(path, origin="o", warn=told.append)
    history.add_task({"id": "a"}, prompt="x")
    assert history.tasks() == history.workspaces() == []
    assert history.task("a") is None
    assert len(told) == 1
    assert told[0].startswith(f"the history {path} cannot be used: ")
    with pytest.raises(HistoryUnusable) as problem:
        open_intent(history, "key")
    assert f"mv {path}" in str(problem.value.hint)
    with pytest.raises(HistoryUnusable):
        history.intent("key")
    path.unlink()
    open_intent(History(path, origin="o"), "key")


def test_a_file_that_is_whole_is_not_to_be_moved_away(tmp_path: Path) -> None:
    """Its keys of --once would be gone with it, and the disk as full as before."""
    history = History(tmp_path / "history.db", origin="o")
    open_intent(history, "key")
    history._database.rows("PRAGMA max_page_count=1")  # what SQLite sees of a full disk
    with pytest.raises(HistoryUnusable, match="full") as problem:
        open_intent(history, "k" * 100_000)
    assert "mv " not in str(problem.value.hint)
    history._database.rows("PRAGMA query_only=ON")  # ... and of one that is mounted to be read
    with pytest.raises(HistoryUnusable, match="readonly") as problem:
        open_intent(history, "another")
    assert "mv " not in str(problem.value.hint)


def test_a_file_cut_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    whole = History(path, origin="o")
    for number in range(500):
        whole.add_task({"id": f"t{number}"}, prompt="x" * 100)
    whole.close()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    told: list[str] = []
    history = History(path, origin="o", warn=told.append)
    history.tasks()
    assert len(told) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is where even root cannot write")
def test_a_folder_that_cannot_be_written() -> None:
    told: list[str] = []
    history = History(Path("/proc/rebyte/history.db"), origin="o", warn=told.append)
    history.add_task({"id": "a"}, prompt="x")
    assert history.tasks() == []
    assert len(told) == 1


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    told: list[str] = []
    history = History(tmp_path / "state" / "history.db", origin="o", warn=told.append)
    history.add_task({"id": "a"}, prompt="x")
    assert len(told) == 1
    with pytest.raises(RebyteError, match="Not a directory"):
        open_intent(history, "key")


def test_a_newer_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    History(path, origin="o").add_task({"id": "a"}, prompt="x")
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version={VERSION + 1}")
    told: list[str] = []
    assert History(path, origin="o", warn=told.append).tasks() == []
    assert told == [f"{path} was written by a newer rebyte; continuing without the history"]


def test_an_empty_file_becomes_a_history(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    path.touch()
    history = History(path, origin="o")
    history.add_task({"id": "a"}, prompt="x")
    assert [task["id"] for task in history.tasks()] == ["a"]


def test_an_older_file_is_brought_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two names are patched because there is no second version of the file yet."""
    from rebyte_cli.history import database

    path = tmp_path / "history.db"
    History(path, origin="o").add_task({"id": "a"}, prompt="x")
    step = "CREATE TABLE one (x); CREATE TABLE two (x)"
    monkeypatch.setattr(database, "MIGRATIONS", (*database.MIGRATIONS, step))
    monkeypatch.setattr(database, "VERSION", VERSION + 1)
    assert [task["id"] for task in History(path, origin="o").tasks()] == ["a"]
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (VERSION + 1,)
        connection.execute("SELECT * FROM one, two")


def test_a_file_that_was_moved_away_comes_back_in_no_part(tmp_path: Path) -> None:
    """As the hint for a damaged one says: what SQLite keeps beside it belongs to the old one."""
    path = tmp_path / "history.db"
    killed = History(path, origin="o")
    for number in range(50):
        killed.add_task({"id": f"t{number}"}, prompt="x")
    path.rename(tmp_path / "history.db.old")
    assert (tmp_path / "history.db-wal").stat().st_size
    fresh = History(path, origin="o")
    fresh.add_task({"id": "new"}, prompt="x")
    assert [task["id"] for task in fresh.tasks()] == ["new"]
