"""What is remembered of tasks and workspaces, and what is not."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.errors import BadUsage, RebyteError
from rebyte_cli.history.database import VERSION, HistoryUnusable
from rebyte_cli.history.history import History

CLOUD = "https://api.rebyte.ai"
CREATED = {
    "id": "task-1",
    "workspaceId": "ws-1",
    "url": "https://app.rebyte.ai/run/task-1",
    "status": "running",
    "createdAt": "2026-01-01T00:00:00.000Z",
}


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "state" / "history.db", origin=CLOUD)


def add(history: History, task: str, workspace: str = "ws-1", prompt: str = "Say hello") -> None:
    history.add_task({**CREATED, "id": task, "workspaceId": workspace}, prompt=prompt)


def contents(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir() if path.is_file())


def test_questions_make_no_file(history: History) -> None:
    assert history.tasks() == history.workspaces() == history.matching("x") == []
    assert history.task("x") is None
    assert history.nth(1) is None
    assert history.intent("x") is None
    assert history.knows(["x"]) == set()
    history.update_task({"id": "x", "title": "y"})
    history.forget_task("x")
    assert not history.path.parent.exists()


def test_a_task_is_remembered_with_what_was_sent(history: History) -> None:
    body = {
        "prompt": "Fix\nit",
        "executor": "claude",
        "model": "lite",
        "skills": ["pdf"],
        "githubUrl": "o/r",
    }
    history.add_task(CREATED, prompt="\n  Fix\nit", body=body)
    assert History(history.path, origin=CLOUD).tasks() == [
        {
            **CREATED,
            "title": None,
            "completedAt": None,
            "prompt": "Fix",
            "executor": "claude",
            "model": "lite",
            "skills": ["pdf"],
            "githubUrl": "o/r",
        }
    ]
    assert history.path.stat().st_mode & 0o777 == 0o600
    assert history.path.parent.stat().st_mode & 0o777 == 0o700


def test_of_a_prompt_only_the_first_line_is_kept_and_no_key(history: History) -> None:
    add(history, "a", prompt=f"{'x' * 300}\nSECOND")
    body = {"githubUrl": "https://me:ghp_token@github.com/o/r"}
    history.add_task({"id": "b"}, prompt="use rbk_0123456789abcdef now\nTHIRD", body=body)
    assert [task["prompt"] for task in history.tasks()] == ["use rbk_… now", "x" * 200]
    history.close()
    for secret in (b"SECOND", b"THIRD", b"rbk_0123", b"ghp_token"):
        assert secret not in contents(history.path.parent)


def test_the_newest_is_first_and_adding_again_changes_no_order(history: History) -> None:
    for task in ("a", "b", "c"):
        add(history, task)
    history.add_task({"id": "a", "status": "completed"}, prompt="")
    assert [task["id"] for task in history.tasks()] == ["c", "b", "a"]
    assert [task["id"] for task in history.tasks(2)] == ["c", "b"]
    again = history.task("a")
    assert again is not None
    assert (again["status"], again["workspaceId"]) == ("completed", "ws-1")


def test_news_of_a_known_task_are_taken_over_and_of_others_not(history: History) -> None:
    add(history, "a")
    history.update_tasks(
        [
            {"id": "a", "title": "Hello", "status": "completed", "completedAt": "2026-01-02"},
            {"id": "stranger", "title": "x"},
        ]
    )
    history.update_task({"id": "a", "title": None})
    known = history.task("a")
    assert known is not None
    assert (known["title"], known["status"], known["completedAt"]) == (
        "Hello",
        "completed",
        "2026-01-02",
    )
    assert history.task("stranger") is None
    history.update_task({"id": "a", "status": "running", "completedAt": None})
    known = history.task("a")
    assert known is not None
    assert (known["status"], known["completedAt"]) == ("running", None)


def test_text_that_no_encoding_takes_is_kept_in_words(history: History) -> None:
    add(history, "task-1")
    odd = {"id": "task-2", "url": "https://x/\ud800", "workspaceId": "\udfff"}
    history.add_task(odd, prompt="Say \ud800", body={"model": "\ud800"})
    history.update_task({"id": "task-1", "title": "a\ud800", "status": "running"})
    assert history.tasks()[0]["url"] == "https://x/\\ud800"
    assert history.tasks()[1]["title"] == "a\\ud800"
    assert history.task("\ud800") is None


def test_origins_are_kept_apart(history: History) -> None:
    other = History(history.path, origin="local")
    add(history, "a")
    add(other, "a", "ws-2")
    add(other, "b", "ws-2")
    history.name_workspace("ws-1", "shop")
    other.name_workspace("ws-2", "shop")
    assert [task["id"] for task in history.tasks()] == ["a"]
    assert history.knows(["a", "b"]) == {"a"}
    assert [workspace["id"] for workspace in history.workspaces()] == ["ws-1"]
    other.forget_task("a")
    assert history.task("a") is not None


def test_prefixes_are_taken_as_they_are_written(history: History) -> None:
    for task in ("ab_1", "abc1", "ab_2", "b"):
        add(history, task)
    assert [task["id"] for task in history.matching("ab_")] == ["ab_2", "ab_1"]


def test_many_ids_can_be_asked_about_at_once(history: History) -> None:
    add(history, "a")
    assert history.knows([*map(str, range(2000)), "a"]) == {"a"}


def test_a_history_that_is_off_writes_nothing_about_tasks(tmp_path: Path) -> None:
    off = History(tmp_path / "history.db", origin=CLOUD, enabled=False)
    add(off, "a")
    off.update_task({"id": "a", "title": "x"})
    assert os.listdir(tmp_path) == []
    intent = off.open_intent("k", digest="d", body_digest="b", started_at="now", owner="me")
    task: dict[str, Any] = {**CREATED, "title": "Made from the PROMPT", "prompts": ["PROMPT"]}
    off.settle_intent(intent.id, state="done", task_id="task-1", task=task)
    found = off.intent("k")
    assert found is not None
    assert (found.state, found.task) == ("done", CREATED)
    off.close()
    assert b"PROMPT" not in contents(tmp_path)


def test_words_used_before_are_offered_latest_first(history: History) -> None:
    for number, skills in enumerate((["pdf"], ["deep-research", "pdf"], [])):
        body = {"skills": skills, "model": "lite", "executor": f"e{number}"}
        history.add_task({"id": f"t{number}"}, prompt="x", body=body)
    assert history.words("skills") == ["deep-research", "pdf"]
    assert history.words("model") == ["lite"]
    assert history.words("executor") == ["e2", "e1", "e0"]


class TestWorkspaces:
    def test_the_last_used_is_first(self, history: History) -> None:
        for task, workspace in (("a", "ws-1"), ("b", "ws-2"), ("c", "ws-1")):
            add(history, task, workspace)
        history.name_workspace("ws-3", "empty")
        assert [(w["id"], w["tasks"], w["lastTask"]) for w in history.workspaces()] == [
            ("ws-1", 2, "c"),
            ("ws-2", 1, "b"),
            ("ws-3", 0, None),
        ]
        assert history.workspaces()[2]["name"] == "empty"

    def test_a_name_stands_for_one_workspace(self, history: History) -> None:
        add(history, "a", "ws-1")
        history.name_workspace("ws-1", "shop")
        history.name_workspace("ws-1", "store")
        found = history.workspace("store")
        assert found is not None
        assert (found["id"], found["name"]) == ("ws-1", "store")
        assert history.workspace("shop") is None
        with pytest.raises(BadUsage, match="store is workspace ws-1"):
            history.name_workspace("ws-2", "store")

    @pytest.mark.parametrize("alias", ["@last", "-x", "a b", "", "a/b", "x" * 65, "é"])
    def test_a_name_can_be_told_from_other_references(self, history: History, alias: str) -> None:
        with pytest.raises(BadUsage, match="a workspace's name has letters"):
            history.name_workspace("ws-1", alias)

    def test_a_forgotten_one_comes_back_with_its_next_task(self, history: History) -> None:
        add(history, "a", "ws-1")
        history.name_workspace("ws-1", "shop")
        history.forget_workspace("ws-1")
        assert history.workspaces() == []
        assert history.workspace("shop") is None
        history.name_workspace("ws-2", "shop")
        add(history, "b", "ws-1")
        assert [(w["id"], w["name"]) for w in history.workspaces()] == [
            ("ws-1", None),
            ("ws-2", "shop"),
        ]


def test_a_file_that_was_moved_away_comes_back_in_no_part(tmp_path: Path) -> None:
    """As the hint for a damaged one says: what SQLite keeps beside it belongs to the old one."""
    path = tmp_path / "history.db"
    killed = History(path, origin=CLOUD)
    for number in range(50):
        add(killed, f"t{number}")
    path.rename(tmp_path / "history.db.old")
    assert (tmp_path / "history.db-wal").stat().st_size
    anew = History(path, origin=CLOUD)
    add(anew, "new")
    assert [task["id"] for task in anew.tasks()] == ["new"]


# -- The history under many processes, over damage, and across versions.

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
    assert told == [f"{path} was written by a newer rebyte; going on without it"]


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
