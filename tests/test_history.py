"""What is remembered of tasks and workspaces, and what is not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.errors import BadUsage
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
