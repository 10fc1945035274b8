"""The history file under many processes, over damage, and across versions."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.errors import RebyteError
from rebyte_cli.history import database, references
from rebyte_cli.history.database import VERSION, HistoryUnusable
from rebyte_cli.history.history import History
from rebyte_cli.history.rows import NewTask, Reservation
from rebyte_cli.system import sqlite
from tests.conftest import COMMAND, Done, need_tool
from tests.forks import run_forks
from tests.servers import RawServer, json_reply
from tests.waiting import eventually


def open_intent(history: History, key: str | None) -> int:
    with nullcontext() if key is None else history.intents.hold(key):
        return history.intents.open(
            key, digest="d", body_digest="b", started_at="now", owner="me"
        ).id


def use(number: int, path: str) -> None:
    """Create a task, as one of many processes that find no history."""
    history = History(Path(path), origin="o", warn=sys.exit)
    name = f"t{number}"
    with history.intents.hold(name):
        intent = history.intents.open(name, digest="", body_digest="", started_at="", owner="")
        history.add_tasks([NewTask({"id": name, "workspaceId": "w"}, prompt=name)])
        history.intents.settle(intent.id, state="done", task_id=name)
    history.update_tasks([{"id": name, "title": "t"}])
    found = history.intents.of(name)
    assert found is not None
    assert found.task_id == name


@pytest.mark.slow
def test_many_processes_create_the_history_at_once_and_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "state" / "history.db"
    done = run_forks(use, 40, path)
    assert (done.returncode, done.stderr) == (0, "")
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
    history.add_tasks([NewTask({"id": "a"}, prompt="x")])
    assert history.tasks() == history.workspaces() == []
    assert history.task("a") is None
    assert len(told) == 1
    assert told[0].startswith(f"the history {path} cannot be used: ")
    with pytest.raises(HistoryUnusable) as problem:
        open_intent(history, "key")
    assert f"mv {path}" in str(problem.value.hint)
    with pytest.raises(HistoryUnusable):
        history.intents.of("key")
    path.unlink()
    open_intent(History(path, origin="o"), "key")


def test_a_file_that_is_whole_is_not_to_be_moved_away(tmp_path: Path) -> None:
    """Its keys of --once would be gone with it, and the disk as full as before."""
    history = History(tmp_path / "history.db", origin="o")
    open_intent(history, "key")
    history.database.rows("PRAGMA max_page_count=1")  # what SQLite sees of a full disk
    with pytest.raises(HistoryUnusable, match="full") as problem:
        open_intent(history, "k" * 100_000)
    assert "mv " not in str(problem.value.hint)
    history.database.rows("PRAGMA query_only=ON")  # ... and of one that is mounted to be read
    with pytest.raises(HistoryUnusable, match="readonly") as problem:
        open_intent(history, "another")
    assert "mv " not in str(problem.value.hint)


def test_a_file_cut_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    whole = History(path, origin="o")
    for number in range(500):
        whole.add_tasks([NewTask({"id": f"t{number}"}, prompt="x" * 100)])
    whole.close()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    told: list[str] = []
    history = History(path, origin="o", warn=told.append)
    history.tasks()
    assert len(told) == 1


FULL_DISK = """
import os, sys
from pathlib import Path
from rebyte_cli.history.history import History
from rebyte_cli.history.rows import NewTask

def told(number):
    found = []
    history = History(Path(f"{sys.argv[2]}/h/history.db"), origin="o", warn=found.append)
    history.add_tasks([NewTask({"id": f"t{number}"}, prompt="x")])
    return [task["id"] for task in history.tasks()], len(found)

with open(f"{sys.argv[2]}/filler", "wb") as filler:
    filler.write(bytes(int(sys.argv[1])))
told(1)
os.unlink(f"{sys.argv[2]}/filler")
ids, problems = told(2)
print(ids[0], problems)
"""


@pytest.mark.parametrize("free", [16, 80, 140])  # KiB
def test_a_history_that_a_full_disk_stopped_is_made_once_there_is_room(
    free: int, tmp_path: Path
) -> None:
    """A part of it used to stay, as a damaged file."""
    size = 1 << 20
    disk = ["--size", str(size), "--tmpfs", str(tmp_path)]
    code = [sys.executable, "-c", FULL_DISK, str(size - (free << 10)), str(tmp_path)]
    words = [need_tool("bwrap"), "--dev-bind", "/", "/", *disk, *code]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "t2 0\n"


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is where even root cannot write")
def test_a_folder_that_cannot_be_written() -> None:
    told: list[str] = []
    history = History(Path("/proc/rebyte/history.db"), origin="o", warn=told.append)
    history.add_tasks([NewTask({"id": "a"}, prompt="x")])
    assert history.tasks() == []
    assert len(told) == 1


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    told: list[str] = []
    history = History(tmp_path / "state" / "history.db", origin="o", warn=told.append)
    history.add_tasks([NewTask({"id": "a"}, prompt="x")])
    assert len(told) == 1
    with pytest.raises(RebyteError, match="Not a directory"):
        open_intent(history, "key")


def test_a_newer_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    History(path, origin="o").add_tasks([NewTask({"id": "a"}, prompt="x")])
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version={VERSION + 1}")
    told: list[str] = []
    assert History(path, origin="o", warn=told.append).tasks() == []
    assert told == [
        f"{path} was written by a newer rebyte (version {VERSION + 1});"
        " continuing without the history (Update this one)"
    ]


@pytest.mark.parametrize("version", [2, 6, VERSION - 1])
def test_a_file_of_an_unreleased_version_is_refused_and_its_hint_loses_nothing(
    tmp_path: Path, version: int
) -> None:
    made = History(tmp_path / "made/history.db", origin="o")
    made.add_tasks([NewTask({"id": "a"}, prompt="x")])
    with sqlite3.connect(tmp_path / "made/history.db") as connection:
        connection.execute(f"PRAGMA user_version={version}")
    # As a process leaves it that is killed: what it wrote last is in a file beside it.
    path, kept = (tmp_path / "my state" / f"history.db{end}" for end in ("", f".version{version}"))
    shutil.copytree(tmp_path / "made", path.parent)
    assert path.with_name("history.db-wal").stat().st_size
    history, move = History(path, origin="o"), f"mv -n '{path}' '{kept}'"
    for act in (lambda: history.intents.of("key"), lambda: open_intent(history, "key")):
        with pytest.raises(HistoryUnusable) as caught:
            act()
        assert caught.value.message == (
            f"{path} was written by an unreleased rebyte (version {version})"
        )
        assert caught.value.hint == (
            f"Once no other rebyte runs, keep it: {move}. A new one knows nothing of its keys of"
            " --once and lost requests (to repeat one could create its task again), @last, aliases,"
            " labels and usage"
        )
    subprocess.run(["sh", "-c", move], check=True)
    open_intent(History(path, origin="o"), "key")
    with sqlite3.connect(kept) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (version,)
        assert connection.execute("SELECT id FROM tasks").fetchall() == [("a",)]


def test_an_emptied_file_does_not_pass_for_a_new_one(tmp_path: Path) -> None:
    """Its keys are lost, so that each would create another task."""
    path = tmp_path / "history.db"
    history = History(path, origin="o")
    history.intents.settle(open_intent(history, "key"), state="done", task_id="a")
    history.close()
    path.write_bytes(b"")
    told: list[str] = []
    history = History(path, origin="o", warn=told.append)
    assert history.tasks() == []
    assert len(told) == 1
    for act in (lambda: history.intents.of("key"), lambda: open_intent(history, "key")):
        with pytest.raises(HistoryUnusable) as caught:
            act()
        assert "was emptied" in caught.value.message
        assert "delete it" in str(caught.value.hint)
    path.unlink()
    open_intent(History(path, origin="o"), "key")


def test_a_file_of_the_first_version_keeps_its_tasks_and_is_brought_up_to_date(
    tmp_path: Path,
) -> None:
    """As the release before wrote it: from it, deleting a task keeps the numbers of the others."""
    path = tmp_path / "history.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(database.MIGRATIONS[1])
        connection.execute("PRAGMA user_version=1")
        connection.execute("INSERT INTO tasks (origin, id, title) VALUES ('o', 'a', 'A')")
        connection.execute("INSERT INTO tasks (origin, id, title) VALUES ('o', 'b', 'B')")
    connection.close()
    path.chmod(0o600)
    history = History(path, origin="o")
    assert [task["title"] for task in history.tasks()] == ["B", "A"]
    history.forget_task("b")
    assert (history.nth(2) or {})["id"] == "a"
    assert [task["title"] for task in History(path, origin="o").tasks()] == ["A"]
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)


def test_a_file_that_was_moved_away_comes_back_in_no_part(tmp_path: Path) -> None:
    """As the hint for a damaged one says: what SQLite keeps beside it belongs to the old one."""
    path = tmp_path / "history.db"
    killed = History(path, origin="o")
    for number in range(50):
        killed.add_tasks([NewTask({"id": f"t{number}"}, prompt="x")])
    path.rename(tmp_path / "history.db.old")
    assert (tmp_path / "history.db-wal").stat().st_size
    fresh = History(path, origin="o")
    fresh.add_tasks([NewTask({"id": "new"}, prompt="x")])
    assert [task["id"] for task in fresh.tasks()] == ["new"]


# A writer that hangs delays the others once, and briefly


@pytest.fixture
def stuck(tmp_path: Path) -> Iterator[Path]:
    """A history that another program has begun to write to, and never ends."""
    path = tmp_path / "history.db"
    History(path, origin="o").add_tasks([NewTask({"id": "a"}, prompt="x")])
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    yield path
    writer.close()


def test_case_57_a_stuck_writer_is_waited_for_once(
    stuck: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    pauses = Pauses(lambda: None)
    monkeypatch.setattr(sqlite, "time", pauses)
    history = History(stuck, origin="o", warn=told.append)
    for number in range(20):
        history.add_tasks([NewTask({"id": f"t{number}"}, prompt="x")])
    assert history.intents.reserve("batch", [Reservation(1, "d", "now")]) == {}
    assert history.tasks() != []  # reading needs no lock
    with pytest.raises(HistoryUnusable, match="another process has kept it locked for 5 s"):
        open_intent(history, "key")
    assert database.WAIT <= sum(pauses) < 2 * database.WAIT  # twenty times as long otherwise
    assert len(told) == 1
    assert "continuing without the history" in told[0]


class Pauses(list[float]):
    """Stands in for `time`: a pause is noted and passes at once, then `meanwhile` is called."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        super().__init__()
        self._meanwhile = meanwhile

    def monotonic(self) -> float:
        return sum(self)

    def sleep(self, seconds: float) -> None:
        self.append(seconds)
        self._meanwhile()


def test_a_writer_that_gets_on_is_waited_for_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "history.db"
    history = History(path, origin="o", warn=pytest.fail)
    history.add_tasks([NewTask({"id": "a"}, prompt="x")])
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    commits: list[float] = []

    def commit_now_and_then() -> None:
        if pauses.monotonic() > (commits or [0])[-1] + 0.8 * database.WAIT:
            commits.append(pauses.monotonic())
            writer.execute("UPDATE tasks SET title = ?", (f"{len(commits)}",))
            writer.execute("COMMIT")
            if len(commits) < 5:
                writer.execute("BEGIN IMMEDIATE")

    pauses = Pauses(commit_now_and_then)
    monkeypatch.setattr(sqlite, "time", pauses)
    history.add_tasks([NewTask({"id": "b"}, prompt="x")])
    writer.close()
    assert pauses.monotonic() > 4 * database.WAIT
    assert [task["id"] for task in history.tasks()] == ["b", "a"]


def test_a_writer_that_waits_for_long_asks_less_and_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds of creates at once would keep the one that writes from running."""
    path = tmp_path / "history.db"
    history = History(path, origin="o", warn=pytest.fail)
    history.add_tasks([NewTask({"id": "a"}, prompt="x")])
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    pauses = Pauses(lambda: writer.close() if pauses.monotonic() > 2 else None)
    monkeypatch.setattr(sqlite, "time", pauses)
    history.add_tasks([NewTask({"id": "b"}, prompt="x")])
    assert [task["id"] for task in history.tasks()] == ["b", "a"]
    assert len(pauses) < 20


def test_case_58_sigterm_ends_a_create_that_waits_for_the_history(
    rebyte: Callable[..., Done], home: Path
) -> None:
    """Nothing that puts up with a fault of the history takes the signal for one."""
    asked: list[str] = []

    def service(request: Any) -> Any:
        asked.append(request.method)
        return json_reply({"id": "t1", "status": "running"}, 201)

    with RawServer(service) as server:
        env = {**os.environ, "REBYTE_API_URL": server.base_url, "REBYTE_API_KEY": "rbk_key"}
        path = home / ".local" / "state" / "rebyte" / "history.db"
        History(path, origin=server.base_url.removesuffix("/v1")).add_tasks(
            [NewTask({"id": "a"}, prompt="x")]
        )
        writer = sqlite3.connect(path, isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")
        process = subprocess.Popen([*COMMAND, "create", "Say hello"], env=env)
        held = path.parent / "once"
        eventually(lambda: held.is_dir() and any(held.iterdir()), what="its intent")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 143
        writer.close()
    assert asked == []


@pytest.mark.slow
def test_case_57_neither_a_create_nor_a_batch_is_held_up_by_a_stuck_writer(
    rebyte: Callable[..., Done], home: Path, service: Any
) -> None:
    path = home / ".local" / "state" / "rebyte" / "history.db"
    assert rebyte("create", "Say hello [[run=1ms]]").status == 0
    (home / "t.txt").write_text("Say hello [[run=1ms]]\n" * 8)
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    commands = [["create", "Say hello [[run=1ms]]"], ["batch", "t.txt", "--text", "--jobs", "1"]]
    started = [
        subprocess.Popen([*COMMAND, *words], cwd=home, stdout=subprocess.DEVNULL)
        for words in commands
    ]
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    # Waiting once is right. Waiting for each of the writes would take ten times as long.
    assert time.monotonic() - began < 8 * database.WAIT
    writer.close()


# Rows of other versions, and damaged ones


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE tasks SET skills = 'not json'",
        "UPDATE tasks SET skills = '{\"a\": [1]}'",
        "UPDATE tasks SET skills = '[1, null]', title = x'ff00', prompt = 7, created_at = 1.5",
        "UPDATE tasks SET skills = " + repr("[" * 20_000),
        "UPDATE tasks SET workspace_id = x'00ff'",
        "UPDATE workspaces SET alias = x'ff'",
        "UPDATE intents SET task = '[]', task_id = 5",
        "UPDATE intents SET task = 'x', started_at = x'ff', owner = 3, state = 'sleeping'",
        "UPDATE intents SET body_digest = 'line x', owner = 'batch', state = 'open'",
        "UPDATE intents SET body_digest = x'ff', owner = 'batch', state = 'open'",
    ],
)
def test_case_59_odd_rows_are_read_as_far_as_they_go(tmp_path: Path, change: str) -> None:
    path = tmp_path / "history.db"
    history = History(path, origin="o")
    history.add_tasks(
        [NewTask({"id": "a", "workspaceId": "w"}, prompt="x", sent={"skills": ["pdf"]})]
    )
    history.name_workspace("w", "shop")
    intent = open_intent(history, "key")
    history.intents.settle(intent, state="done", task_id="a", task={"id": "a"})
    history.close()
    with sqlite3.connect(path) as connection:
        connection.execute(change)
    told: list[str] = []
    history = History(path, origin="o", warn=told.append)
    assert [task["id"] for task in history.tasks()] == ["a"]
    assert history.workspaces()
    assert history.words("skills") in ([], ["pdf"])
    assert history.intents.of("key") is not None
    history.intents.reservations_of("batch")
    history.intents.rivals("batch")
    history.tasks_of_lines("batch")
    references.task(history, "@last")
    references.workspace(history, "w")
    assert told == []


def test_text_in_no_encoding_is_a_fault_of_the_history(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    History(path, origin="o").add_tasks([NewTask({"id": "a"}, prompt="x")])
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE tasks SET title = CAST(x'ff' AS TEXT)")
    told: list[str] = []
    assert History(path, origin="o", warn=told.append).tasks() == []
    assert len(told) == 1


def test_a_file_that_becomes_newer_while_it_is_open_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    told: list[str] = []
    history = History(path, origin="o", warn=told.append)
    history.add_tasks([NewTask({"id": "a"}, prompt="x")])
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version={VERSION + 1}")
    history.add_tasks([NewTask({"id": "b"}, prompt="x")])
    assert told == [
        f"{path} was written by a newer rebyte (version {VERSION + 1});"
        " continuing without the history (Update this one)"
    ]
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT id FROM tasks").fetchall() == [("a",)]
