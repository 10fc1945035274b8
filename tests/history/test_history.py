"""What is remembered of tasks and workspaces, and what is not."""

from __future__ import annotations

import os
import sqlite3
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.errors import BadUsage
from rebyte_cli.history.history import MOST_ANSWERED, MOST_SHOWN, History
from rebyte_cli.history.rows import Intent, NewTask, Reservation, beginning_of

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
    history.add_tasks([NewTask({**CREATED, "id": task, "workspaceId": workspace}, prompt=prompt)])


def test_an_answered_question_is_remembered_for_its_account(
    history: History, tmp_path: Path
) -> None:
    assert not history.was_answered("am_1")
    history.remember_answered("am_1")
    history.remember_answered("am_1")
    assert history.was_answered("am_1")
    assert not history.was_answered("am_2")
    assert not History(history.path, origin="https://other.example").was_answered("am_1")
    history.clear()
    assert not history.was_answered("am_1")
    off = History(tmp_path / "off" / "history.db", origin=CLOUD, enabled=False)
    off.remember_answered("am_1")
    assert not off.path.exists()


def test_answered_questions_are_bounded(history: History) -> None:
    for number in range(MOST_ANSWERED + 2):
        history.remember_answered(f"am_{number}")
    assert [history.was_answered(f"am_{number}") for number in range(4)] == [False] * 2 + [True] * 2


def contents(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir() if path.is_file())


def test_questions_make_no_file(history: History) -> None:
    assert history.tasks() == history.workspaces() == history.shown("x") == []
    assert history.task("x") is None
    assert history.nth(1) is None
    assert history.intents.of("x") is None
    assert history.knows(["x"]) == set()
    history.update_tasks([{"id": "x", "title": "y"}])
    history.forget_task("x")
    assert not history.path.parent.exists()


def test_a_task_is_remembered_with_what_was_sent(history: History) -> None:
    body = {
        "prompt": "Fix\nit",
        "executor": "claude",
        "model": "lite",
        "skills": ["pdf"],
        "githubUrl": "o/r",
        "branchName": "next",
        "files": [{"id": "f1", "filename": "a.txt"}],
    }
    history.add_tasks([NewTask(CREATED, prompt="\n  Fix\nit", sent=body)])
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
            "branchName": "next",
            "files": ["a.txt"],
            "localRepository": None,
            "givenWorkspaceId": None,
            "baseCommit": None,
        }
    ]
    assert history.path.stat().st_mode & 0o777 == 0o600
    assert history.path.parent.stat().st_mode & 0o777 == 0o700


def test_the_options_that_a_rerun_needs_are_remembered(history: History) -> None:
    body = {
        "githubUrl": "o/r",
        "localRepository": "https://me:ghp_token@git.example/o/r",
        "workspaceId": "ws-0",
        "files": [{"id": "f1", "filename": "a-ab12.txt"}],
    }
    history.add_tasks(
        [NewTask({**CREATED, "workspaceId": "ws-9"}, prompt="x", sent=body, files=["/d/a.txt"])]
    )
    task = history.task("task-1")
    assert task is not None
    assert (task["workspaceId"], task["givenWorkspaceId"]) == ("ws-9", "ws-0")
    assert task["localRepository"] == "https://git.example/o/r"
    assert task["files"] == ["/d/a.txt"]


def test_only_the_first_line_of_a_prompt_is_kept_without_keys(history: History) -> None:
    add(history, "a", prompt=f"{'x' * 300}\nSECOND")
    body = {"githubUrl": "https://me:ghp_token@github.com/o/r"}
    history.add_tasks(
        [NewTask({"id": "b"}, prompt="use rbk_0123456789abcdef now\nTHIRD", sent=body)]
    )
    assert [task["prompt"] for task in history.tasks()] == ["use rbk_… now", "x" * 200]
    history.close()
    for secret in (b"SECOND", b"THIRD", b"rbk_0123", b"ghp_token"):
        assert secret not in contents(history.path.parent)


KEYS = (b"rbk_0123456789", b"RBK_0123456789", b"ghp_0123456789", b"sk-0123456789abc")


def opened(history: History) -> Intent:
    with history.intents.hold("k"):
        return history.intents.open("k", digest="d", body_digest="b", started_at="now", owner="me")


def test_case_67_no_key_is_kept_wherever_it_stands(history: History) -> None:
    one, two, three, four = (key.decode() for key in KEYS)
    body = {"model": one, "executor": two, "skills": ["pdf", three], "githubUrl": f"o/{four}"}
    history.add_tasks([NewTask({**CREATED, "title": f"Use {one}"}, prompt=f"Use {two}", sent=body)])
    history.update_tasks([{"id": "task-1", "title": f"Used {three}", "status": "completed"}])
    intent = opened(history)
    task = {**CREATED, "title": four, "prompts": [{"id": one}], "model": [two]}
    history.intents.settle(intent.id, state="done", task_id="task-1", task=task)
    known = history.task("task-1")
    assert known is not None
    assert (known["title"], known["skills"]) == ("Used ghp_…", ["pdf", "ghp_…"])
    history.close()
    stored = contents(history.path.parent)
    assert [key for key in KEYS if key in stored] == []


def test_the_newest_is_first_and_adding_again_changes_no_order(history: History) -> None:
    for task in ("a", "b", "c"):
        add(history, task)
    history.add_tasks([NewTask({"id": "a", "status": "completed"}, prompt="")])
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
    history.update_tasks([{"id": "a", "title": None}])
    known = history.task("a")
    assert known is not None
    assert (known["title"], known["status"], known["completedAt"]) == (
        "Hello",
        "completed",
        "2026-01-02",
    )
    assert history.task("stranger") is None
    history.update_tasks([{"id": "a", "status": "running", "completedAt": None}])
    known = history.task("a")
    assert known is not None
    assert (known["status"], known["completedAt"]) == ("running", None)


def test_tasks_are_found_by_all_of_their_labels_newest_first(history: History) -> None:
    for task, labels in (
        ("a", {"team": "search", "run": "1"}),
        ("b", {"team": "search"}),
        ("c", {"team": "web", "run": "1"}),
        ("d", {"team": "search", "run": "1"}),
    ):
        history.add_tasks([NewTask({"id": task}, prompt="x", labels=labels)])
    assert history.labels.having({"team": "search"}) == ["d", "b", "a"]
    assert history.labels.having({"team": "search", "run": "1"}) == ["d", "a"]
    assert history.labels.having({"team": "sea"}) == history.labels.having({}) == []
    assert history.labels.of(["a"])["a"] == {"run": "1", "team": "search"}
    history.add_tasks([NewTask({"id": "a"}, prompt="x", labels={"run": "2"})])
    assert history.labels.of(["a"])["a"] == {"run": "2", "team": "search"}
    history.forget_task("d")
    assert history.labels.having({"run": "1"}) == ["c"]
    assert History(history.path, origin="https://elsewhere").labels.having({"team": "web"}) == []
    history.clear()
    assert history.labels.having({"team": "web"}) == []


def test_labels_are_kept_even_if_the_history_is_off(tmp_path: Path) -> None:
    """The user asked for them. Nothing else is kept of such a task."""
    history = History(tmp_path / "history.db", origin="o", enabled=False)
    history.add_tasks([NewTask({"id": "a"}, prompt="Secret words", labels={"run": "1"})])
    assert history.labels.having({"run": "1"}) == ["a"]
    assert history.tasks() == []
    history.forget_task("a")
    assert history.labels.having({"run": "1"}) == []


@pytest.mark.slow
def test_ids_that_were_shown_are_bounded(history: History) -> None:
    last = MOST_SHOWN - 1
    history.remember_shown([{"id": "before"}])
    # Of one page, which comes newest first, the oldest are dropped.
    history.remember_shown({"id": f"t{n}"} for n in range(MOST_SHOWN + 1))
    assert history.shown("before") == history.shown(f"t{last + 1}") == []
    assert (history.shown(f"t{last}"), len(history.shown("t0"))) == ([f"t{last}"], 1)
    history.remember_shown([{"id": "after"}])
    assert (history.shown(f"t{last}"), history.shown("after")) == ([], ["after"])


def test_text_that_no_encoding_takes_is_kept_in_words(history: History) -> None:
    add(history, "task-1")
    odd = {"id": "task-2", "url": "https://x/\ud800", "workspaceId": "\udfff"}
    history.add_tasks([NewTask(odd, prompt="Say \ud800", sent={"model": "\ud800"})])
    history.update_tasks([{"id": "task-1", "title": "a\ud800", "status": "running"}])
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
    assert history.shown("ab_") == ["ab_1", "ab_2"]


def test_the_newest_tasks_are_found_without_a_sort(history: History) -> None:
    """TAB and @N ask for them: with 200,000 tasks, sorting all takes a tenth of a second."""
    add(history, "a")
    plans: list[str] = []
    with sqlite3.connect(history.path) as connection:
        for order in ("AND NOT deleted ORDER BY seq DESC LIMIT 9", "ORDER BY seq DESC LIMIT 1"):
            sql = f"EXPLAIN QUERY PLAN SELECT id, title FROM tasks WHERE origin = ? {order}"
            plans += [row[3] for row in connection.execute(sql, (history.origin,))]
    assert plans == ["SEARCH tasks USING INDEX tasks_by_origin (origin=?)"] * 2


def test_workspaces_are_found_in_few_queries(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        add(history, f"t{number}", f"ws-{number:02}")
    history.name_workspace("ws-07", "shop")
    queries = []
    rows = history.database.rows
    monkeypatch.setattr(history.database, "rows", lambda *args: queries.append(1) or rows(*args))
    assert len(history.workspaces()) == 20
    assert len(queries) == 1
    assert (history.workspace("shop") or {})["id"] == "ws-07"
    assert (history.workspace("ws-19") or {})["lastTask"] == "t19"
    assert history.workspace("ws-1") is None
    assert history.workspaces("ws-1")[0]["id"] == "ws-19"
    assert len(history.workspaces("ws-1")) == 10


def test_news_of_many_tasks_are_taken_over_with_one_query(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(50):
        add(history, f"t{number}")
    queries = []
    rows = history.database.rows
    monkeypatch.setattr(history.database, "rows", lambda *args: queries.append(1) or rows(*args))
    history.update_tasks({"id": f"t{number}", "status": "completed"} for number in range(50))
    assert len(queries) == 1
    assert {task["status"] for task in history.tasks()} == {"completed"}


def test_many_ids_can_be_asked_about_at_once(history: History) -> None:
    add(history, "a")
    assert history.knows([*map(str, range(2000)), "a"]) == {"a"}


def test_a_history_that_is_off_writes_nothing_about_tasks(tmp_path: Path) -> None:
    off = History(tmp_path / "history.db", origin=CLOUD, enabled=False)
    add(off, "a")
    off.update_tasks([{"id": "a", "title": "x"}])
    assert os.listdir(tmp_path) == []
    intent = opened(off)
    task: dict[str, Any] = {**CREATED, "title": "Made from the PROMPT", "prompts": ["PROMPT"]}
    off.intents.settle(intent.id, state="done", task_id="task-1", task=task)
    found = off.intents.of("k")
    assert found is not None
    assert (found.state, found.task) == ("done", CREATED)
    off.close()
    assert b"PROMPT" not in contents(tmp_path)


def test_words_used_before_are_offered_latest_first(history: History) -> None:
    for number, skills in enumerate((["pdf"], ["deep-research", "pdf"], [])):
        body = {"skills": skills, "model": "lite", "executor": f"e{number}"}
        history.add_tasks([NewTask({"id": f"t{number}"}, prompt="x", sent=body)])
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
        with pytest.raises(BadUsage, match="the name store is taken by workspace ws-1"):
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


def test_with_the_history_off_no_more_is_kept_than_what_is_never_sent_twice(tmp_path: Path) -> None:
    """Of what has a task: nothing of the prompt, and its link only under a key, which gives it."""
    history = History(tmp_path / "history.db", origin="o", enabled=False)
    intents = history.intents
    begins = beginning_of("Secret words")
    task = {"id": "a", "url": "https://x/a", "title": "Secret"}

    def made(key: str | None, **end: Any) -> Any:
        with intents.hold(key) if key else nullcontext():
            more = {"started_at": "2026-01-01T00:00:00Z", "owner": "me"}
            one = intents.open(key, digest="d", body_digest="b", begins=begins, **more)
            intents.settle(one.id, **end)
        return one.id

    made(None, state="done", task_id="a", task=task)
    made("k", state="done", task_id="b", task={**task, "id": "b"})
    made("refused", state="refused")
    made(None, state="unknown")
    line = Reservation(1, "d", "2026-01-01T00:00:00Z", begins)
    intents.release({next(iter(intents.reserve("batch", [line]).values())): "c"})
    rows = history.database.rows("SELECT key, state, task_id, task, shape FROM intents ORDER BY id")
    assert [tuple(row) for row in rows] == [
        (None, "done", "a", None, None),
        ("k", "done", "b", '{"id": "b", "url": "https://x/a"}', None),
        ("refused", "refused", None, None, None),
        (None, "unknown", None, None, None),
        (None, "done", "c", None, None),
    ]
    assert history.knows(["a", "b", "c", "d"]) == {"a", "b", "c"}
