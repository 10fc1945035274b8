"""Creates whose answers are lost: looked for, never sent twice, and left unknown where in doubt."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.batch import search as batch_search

from . import farm as farm_module
from .conftest import Done
from .farm import Farm, lines_of
from .inside import inside
from .keyring_daemon import eventually
from .servers import Answer, Line, Request, json_reply, reset


@pytest.fixture
def batch(home: Path) -> Callable[..., Done]:
    def run(farm: Farm, prompts: list[str] | None, *options: str, **more: Any) -> Done:
        if prompts is not None:
            lines = [json.dumps({"prompt": prompt}) + "\n" for prompt in prompts]
            (home / "t.jsonl").write_text("".join(lines))
        return inside("batch", "t.jsonl", *options, cwd=home, env=farm.env, **more)

    return run


def statuses(done: Done) -> dict[int, str]:
    return {row["line"]: row["status"] for row in lines_of(done.out)}


def test_a_lost_answer_is_found_by_its_prompt(batch: Callable[..., Done]) -> None:
    with Farm() as farm:
        done = batch(farm, ["One <cut>", "Two", "Three <cut>"])
        assert farm.made == {"One <cut>": 1, "Two": 1, "Three <cut>": 1}
    assert done.status == 0
    assert statuses(done) == {1: "completed", 2: "completed", 3: "completed"}
    assert "Line 1: its answer was lost, but task task-0000" in done.err
    rows = {row["line"]: row for row in lines_of(done.out)}
    assert farm.tasks[rows[1]["id"]]["prompt"] == "One <cut>"


def test_one_that_made_nothing_is_sent_again_when_its_time_is_over(
    batch: Callable[..., Done], home: Path, one_clock: None
) -> None:
    prompt = "One <cut-before>"
    with Farm() as farm:
        farm.tried[prompt] = 1  # so that this one is answered
        earlier = inside("create", prompt, cwd=home, env=farm.env).json
        farm.tasks[earlier["id"]]["createdAt"] = "2026-01-01T00:00:00.000Z"
        farm.tried.clear()
        done = batch(farm, [prompt], "--resend-after", "0.1")
        assert farm.made == {prompt: 2}
        assert farm.tried == {prompt: 2}
    assert done.status == 0
    assert lines_of(done.out)[0]["id"] != earlier["id"]
    assert "its create made no task; sending it again" in done.err


def test_equal_lines_that_are_lost_together_get_a_task_each(
    batch: Callable[..., Done], one_clock: None
) -> None:
    def hook(_request: Request) -> None:
        if sum(farm.tried.values()) >= 6:
            farm.cuts = 0.0

    # The first six are not answered, and about half of them make nothing.
    with Farm(cuts=1.0, hook=hook) as farm:
        done = batch(farm, ["Same"] * 6, "--resend-after", "0.1", "--jobs", "6")
        assert done.status == 0
        assert farm.made == {"Same": 6}
        assert farm.tried["Same"] > 6
    assert sorted(row["id"] for row in lines_of(done.out)) == sorted(farm.tasks)


def test_without_transcripts_nobody_can_know(batch: Callable[..., Done], home: Path) -> None:
    with Farm(silent=True) as farm:
        done = batch(farm, ["One <cut>", "Two"], "--timeout", "0.5")
        assert farm.made == {"One <cut>": 1, "Two": 1}
        assert done.status == 6
        assert statuses(done) == {1: "unknown", 2: "completed"}
        problem = json.loads(done.err.splitlines()[-3])["error"]
        assert problem["code"] == "outcome_unknown"
        assert "--resolve 1=ID or 1=none settles it by hand" in problem["message"]

        wrong = batch(farm, None, "--resolve", "1=task-00009")
        assert wrong.status == 4
        done = batch(farm, None, "--resolve", "2=none")
        assert done.status == 2
        assert "line 2 is completed" in done.err
        taken = next(task["id"] for task in farm.tasks.values() if task["prompt"] == "Two")
        assert batch(farm, None, "--resolve", f"1={taken}").status == 2

        free = next(task["id"] for task in farm.tasks.values() if task["prompt"] != "Two")
        done = batch(farm, None, "--resolve", f"1={free}")
        assert done.status == 0
        assert {row["line"]: row["id"] for row in lines_of(done.out)}[1] == free
        assert farm.made == {"One <cut>": 1, "Two": 1}


def test_none_settles_a_line_that_has_no_task(batch: Callable[..., Done]) -> None:
    with Farm() as farm:
        done = batch(farm, ["One <cut-before>"], "--timeout", "0.5")
        assert done.status == 6
        assert farm.made == {}
        assert batch(farm, None, "--resolve", "1=none").status == 0
        assert farm.made == {"One <cut-before>": 1}


def test_a_line_refused_by_a_fault_is_looked_for_before_it_is_retried(
    batch: Callable[..., Done],
) -> None:
    with Farm() as farm:
        assert batch(farm, ["One <500>"]).status == 5
        task = farm._make({"prompt": "One <500>"})  # it had made one after all
        done = batch(farm, None, "--retry-failed")
        assert done.status == 0
        assert lines_of(done.out)[0]["id"] == task["id"]
        assert farm.made == {"One <500>": 1}


def chain(home: Path, leader: dict[str, str]) -> None:
    lines = [
        {"key": "build", "prompt": "Build <cut>", **leader},
        {"key": "test", "prompt": "Test", "workspaceId": "@build"},
        {"key": "ship", "prompt": "Ship <cut>", "workspaceId": "@test"},
        {"key": "tell", "prompt": "Tell", "workspaceId": "@ship"},
    ]
    (home / "t.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_those_who_follow_a_found_line_use_the_workspace_it_asked_for(
    batch: Callable[..., Done], home: Path
) -> None:
    chain(home, {"workspaceId": "ws-7"})
    with Farm() as farm:
        done = batch(farm, None)
        assert done.status == 0, done.err
        assert [body["workspaceId"] for body in farm.bodies] == ["ws-7"] * 4
        assert {row["workspaceId"] for row in lines_of(done.out)} == {"ws-7"}
        assert lines_of(batch(farm, None).out) == lines_of(done.out)


def tells_workspaces(farm: Farm) -> Callable[[Request], Answer | None]:
    """GET /tasks/{id} with its `workspaceId`, which no source shows there, nor in the list."""

    def hook(request: Request) -> Answer | None:
        task = farm.tasks.get(request.path.rsplit("/", 1)[-1])
        if request.method != "GET" or task is None:
            return None
        told = {name: task[name] for name in ("id", "url", "createdAt", "workspaceId")}
        return json_reply({**told, "status": "completed", "completedAt": task["createdAt"]})

    return hook


@pytest.mark.parametrize("in_list", [True, False])
def test_a_workspace_that_the_api_tells_after_all_is_used(
    batch: Callable[..., Done], home: Path, monkeypatch: pytest.MonkeyPatch, in_list: bool
) -> None:
    shown = farm_module._shown
    if in_list:
        monkeypatch.setattr(
            farm_module,
            "_shown",
            lambda task: {**shown(task), "workspaceId": task["workspaceId"]},
        )
    chain(home, {})
    with Farm() as farm:
        farm.hook = farm.hook if in_list else tells_workspaces(farm)
        done = batch(farm, None)
        assert done.status == 0, done.err
        assert len({task["workspaceId"] for task in farm.tasks.values()}) == 1


def test_a_workspace_that_nobody_told_skips_those_who_need_it(
    batch: Callable[..., Done], home: Path
) -> None:
    chain(home, {})
    with Farm() as farm:
        done = batch(farm, None)
        assert done.status == 1
        assert list(statuses(done).values()) == ["completed", "skipped", "skipped", "skipped"]
        assert "has no known workspace: the answer to its create was lost" in done.err
        assert farm.made == {"Build <cut>": 1}


def never_answers(
    farm: Farm, then: Callable[[Request], Answer | None]
) -> Callable[[Request], Answer | None]:
    """Makes each task and closes the line; `then` for all other requests."""

    def hook(request: Request) -> Answer | None:
        if request.method == "POST":
            farm._make(request.json)
            return reset
        return then(request)

    return hook


def with_workspaces(home: Path, asked: list[str | None]) -> None:
    lines = [{"prompt": "Same", "workspaceId": workspace} for workspace in asked]
    (home / "t.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("asked", [["ws-1", "ws-2"], ["ws-1", None], [None, "ws-2"]])
def test_equal_prompts_are_told_apart_by_their_workspaces_where_the_api_tells_them(
    batch: Callable[..., Done], home: Path, asked: list[str | None]
) -> None:
    with_workspaces(home, asked)
    with Farm() as farm:
        farm.hook = never_answers(farm, tells_workspaces(farm))
        done = batch(farm, None, "--timeout", "5")
        assert done.status == 0, done.err
        for row in lines_of(done.out):
            made = farm.tasks[row["id"]]["workspaceId"]
            assert asked[row["line"] - 1] in (made, None)
        assert len(farm.tasks) == 2


def test_where_it_does_not_they_are_settled_by_hand(
    batch: Callable[..., Done], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_search, "LOOK_FOR", 0.0)
    monkeypatch.setattr(batch_search, "LATER", 0.05)
    with_workspaces(home, ["ws-1", "ws-2"])
    with Farm() as farm:
        farm.hook = never_answers(farm, farm.hook)
        done = batch(farm, None)
        assert set(statuses(done).values()) == {"unknown"}
        assert "--resolve 2=ID or 2=none settles it by hand" in done.err


def test_a_task_that_was_found_is_not_its_twins(batch: Callable[..., Done], home: Path) -> None:
    """The batch itself knows it, also where the history cannot be written."""
    (home / ".local").write_text("")
    with Farm() as farm:
        farm.hook = never_answers(farm, farm.hook)
        done = batch(farm, ["Same", "Same"], "--rate", "2", "--timeout", "5")
    assert done.status == 0, done.err
    assert [row["id"] for row in lines_of(done.out)] == ["task-00001", "task-00002"]


def test_a_twin_that_is_lost_while_the_other_is_looked_for_may_have_made_the_task(
    batch: Callable[..., Done], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is under way when the look begins and not any more when the look is judged."""
    monkeypatch.setattr(batch_search, "LOOK_FOR", 0.0)
    monkeypatch.setattr(batch_search, "LATER", 0.05)
    with_workspaces(home, ["ws-1", "ws-2"])
    looks: list[str] = []

    def close_after(happened: Any) -> Answer:
        def close(line: Line) -> None:
            eventually(lambda: happened)
            reset(line)

        return close

    def hook(request: Request) -> Answer | None:
        if request.method == "POST":
            if request.json["workspaceId"] == "ws-1":
                return close_after(farm.tasks)  # with nothing made
            farm._make(request.json)
            return close_after(looks)
        if request.path.endswith("/content") and not looks:
            looks.append(request.path)
            time.sleep(0.2)  # the time in which the loss of the other is told
        return None

    with Farm(hook=hook) as farm:
        done = batch(farm, None)
    assert looks == ["/v1/tasks/task-00001/content"]
    assert set(statuses(done).values()) == {"unknown"}
