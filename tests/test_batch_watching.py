"""What a batch makes of a task that it made and cannot follow to its end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import Done
from .farm import Farm, lines_of
from .inside import inside
from .servers import Answer, Request, error_reply, json_reply

FIRST = "/v1/tasks/task-00001"
Batch = Callable[..., Done]


@pytest.fixture
def batch(home: Path) -> Batch:
    def run(farm: Farm, lines: list[dict[str, Any]] | None, *options: str) -> Done:
        if lines is not None:
            (home / "t.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return inside("batch", "t.jsonl", *options, cwd=home, env=farm.env)

    return run


def answering(answer: Answer) -> Callable[[Request], Answer | None]:
    """A hook that gives this answer to whoever asks for the first task."""
    return lambda request: answer if request.path == FIRST else None


def by_line(done: Done) -> dict[int, dict[str, Any]]:
    return {row["line"]: row for row in lines_of(done.out)}


def test_a_task_that_is_not_there_any_more_has_ended(batch: Batch) -> None:
    lines = [
        {"prompt": "Build <run 60>", "key": "build"},
        {"prompt": "Test", "workspaceId": "@build"},
    ]
    with Farm(hook=answering(error_reply(404, "not_found", "Task not found"))) as farm:
        done = batch(farm, lines)
        calls = sum(farm.calls.values())
        again = batch(farm, None)
        assert sum(farm.calls.values()) == calls
    assert done.status == again.status == 4
    assert by_line(done) == by_line(again)
    gone, skipped = by_line(done).values()
    assert (gone["id"], gone["status"]) == ("task-00001", "gone")
    assert gone["finishedAt"]
    assert gone["error"] == {
        "code": "task_gone",
        "message": "task task-00001 is not there any more",
        "status": None,
    }
    assert skipped["error"]["message"].endswith("line 1 (build), which it follows, ended as gone")


def test_a_task_that_cannot_be_read_is_told_and_read_again_by_the_next_run(batch: Batch) -> None:
    with Farm(hook=answering(error_reply(400, "odd", "Not this one"))) as farm:
        done = batch(farm, [{"prompt": "One"}, {"prompt": "Two"}], "--jobs", "1")
        rows = by_line(done)
        assert (done.status, rows[2]["status"]) == (1, "completed")
        assert (rows[1]["id"], rows[1]["status"]) == ("task-00001", "running")
        told = {"code": "odd", "message": "task-00001: Not this one", "status": 400}
        assert rows[1]["error"] == told
        farm.hook = lambda _request: None
        again = batch(farm, None)
    assert (again.status, by_line(again)[1]["status"]) == (0, "completed")
    assert by_line(again)[1]["error"] is None
    assert farm.made == {"One": 1, "Two": 1}


def test_a_workspace_that_only_the_end_tells_is_kept_for_the_next_run(batch: Batch) -> None:
    """A list shows no workspace, and what was found in a list had no answer of its own."""
    lines = [
        {"prompt": "Build <cut>", "key": "build"},
        {"prompt": "Test <400>", "workspaceId": "@build"},
    ]
    asked: list[str | None] = []

    def hook(request: Request) -> Answer | None:
        if request.method == "POST" and request.json["prompt"] == "Test <400>":
            asked.append(request.json.get("workspaceId"))
        if request.path == FIRST and "task-00001" in farm.tasks:
            told = {"id": "task-00001", "status": "completed", "workspaceId": "ws-9"}
            return json_reply({**told, "createdAt": farm.tasks["task-00001"]["createdAt"]})
        return None

    with Farm(hook=hook) as farm:
        assert by_line(batch(farm, lines))[1]["workspaceId"] == "ws-9"
        assert by_line(batch(farm, None, "--retry-failed"))[1]["workspaceId"] == "ws-9"
    assert asked == ["ws-9", "ws-9"]


def test_one_that_has_ended_when_it_is_answered_is_not_asked_about(batch: Batch) -> None:
    def hook(request: Request) -> Answer | None:
        if request.method != "POST":
            return None
        return json_reply({"id": "t1", "status": "failed", "workspaceId": "w", "url": "u"}, 201)

    with Farm(hook=hook) as farm:
        done = batch(farm, [{"prompt": "One"}])
        assert [request.method for request in farm.server.requests] == ["POST"]
    assert (done.status, by_line(done)[1]["status"]) == (10, "failed")
