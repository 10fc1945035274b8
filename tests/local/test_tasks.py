"""Tasks on the local service: life, status rules, pages, keys and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.witness import Caller, Clock, serving

ROW = {"id", "url", "title", "executor", "model", "createdAt", "completedAt"}


def test_task_runs_half_a_second_and_keeps_what_was_sent(tmp_path: Path) -> None:
    clock = Clock()
    with serving(tmp_path, clock) as caller:
        created = caller.create("Review this\nline two", executor="claude", model="glm-5")
        young = caller.task(created["id"])
        clock.advance(0.499)
        nearly = caller.task(created["id"])
        clock.advance(0.001)
        done = caller.task(created["id"])

    assert set(created) == {"id", "workspaceId", "url", "status", "createdAt"}
    assert (created["status"], created["createdAt"]) == ("running", "2026-02-09T10:30:00.000Z")
    assert (young["status"], young["title"], young["completedAt"]) == ("running", None, None)
    assert "workspaceId" not in young
    assert (nearly["status"], nearly["title"]) == ("running", "Review this")
    assert (done["status"], done["completedAt"]) == ("completed", "2026-02-09T10:30:00.500Z")
    assert (done["executor"], done["model"]) == ("claude", "glm-5")
    assert [prompt["status"] for prompt in done["prompts"]] == ["succeeded"]
    assert done["prompts"][0]["submittedAt"] == "2026-02-09T10:30:00.000Z"
    assert done["prompts"][0]["completedAt"] == done["completedAt"]


def test_executor_and_model_default_to_those_of_the_seed(tmp_path: Path) -> None:
    with serving(tmp_path) as caller:
        task = caller.task(caller.create()["id"])
    assert (task["executor"], task["model"]) == ("opencode", "lite")


@pytest.mark.parametrize(
    ("word", "status", "prompt_status"),
    [("[[fail]]", "failed", "failed"), ("[[cancel]]", "canceled", "canceled")],
)
def test_other_ends(tmp_path: Path, word: str, status: str, prompt_status: str) -> None:
    clock = Clock()
    with serving(tmp_path, clock) as caller:
        task_id = caller.create(f"Do it {word} [[run=2s]]")["id"]
        clock.advance(1.9)
        assert caller.task(task_id)["status"] == "running"
        clock.advance(0.1)
        task = caller.task(task_id)
    assert (task["status"], task["prompts"][0]["status"]) == (status, prompt_status)


def test_follow_ups_queue_and_reopen_the_task(tmp_path: Path) -> None:
    clock = Clock()
    with serving(tmp_path, clock) as caller:
        task_id = caller.create("One [[run=10s]]")["id"]
        clock.advance(1)
        second = caller.call("POST", f"/tasks/{task_id}/prompts", {"prompt": "Two [[run=10s]]"})
        assert second.status == 201
        assert set(second.document) == {"promptId"}
        clock.advance(1)
        assert _statuses(caller, task_id) == ("running", ["running", "pending"])
        clock.advance(9)
        assert _statuses(caller, task_id) == ("running", ["succeeded", "running"])
        clock.advance(9)
        assert _statuses(caller, task_id) == ("completed", ["succeeded", "succeeded"])

        caller.call("POST", f"/tasks/{task_id}/prompts", {"prompt": "Three [[fail]]"})
        task = caller.task(task_id)
        assert (task["status"], task["completedAt"]) == ("running", None)
        assert caller.call("GET", "/tasks").document["data"][0]["completedAt"] is None
        clock.advance(0.5)
        assert _statuses(caller, task_id)[0] == "failed"
        assert caller.task(task_id)["prompts"][1]["id"] == second.document["promptId"]


def _statuses(caller: Caller, task_id: str) -> tuple[str, list[str]]:
    task = caller.task(task_id)
    return task["status"], [prompt["status"] for prompt in task["prompts"]]


def test_cancel_stops_what_runs_and_what_waits(tmp_path: Path) -> None:
    clock = Clock()
    with serving(tmp_path, clock) as caller:
        task_id = caller.create("One [[run=10s]]")["id"]
        caller.call("POST", f"/tasks/{task_id}/prompts", {"prompt": "Two"})
        clock.advance(1)
        answer = caller.call("POST", f"/tasks/{task_id}/cancel")
        assert answer.document == {"id": task_id, "status": "canceled", "canceledPrompts": 2}
        assert _statuses(caller, task_id) == ("canceled", ["canceled", "canceled"])
        assert caller.task(task_id)["completedAt"] == "2026-02-09T10:30:01.000Z"

        caller.call("POST", f"/tasks/{task_id}/prompts", {"prompt": "Three"})
        clock.advance(0.5)
        assert _statuses(caller, task_id) == ("completed", ["canceled", "canceled", "succeeded"])
        again = caller.call("POST", f"/tasks/{task_id}/cancel")
        assert again.document["canceledPrompts"] == 0
        assert again.document["status"] == "completed"


def test_deleted_task_is_gone_everywhere(tmp_path: Path) -> None:
    with serving(tmp_path) as caller:
        task_id = caller.create("[[run=1h]]")["id"]
        gone = caller.call("DELETE", f"/tasks/{task_id}")
        assert (gone.status, gone.raw) == (204, b"")
        assert "content-length" not in gone.headers
        for method, path in (
            ("GET", ""),
            ("DELETE", ""),
            ("POST", "/cancel"),
            ("GET", "/content"),
            ("GET", "/events"),
        ):
            answer = caller.call(method, f"/tasks/{task_id}{path}")
            assert (answer.status, answer.code) == (404, "not_found")
        follow_up = caller.call("POST", f"/tasks/{task_id}/prompts", {"prompt": "More"})
        assert follow_up.status == 404
        assert caller.call("GET", "/tasks").document["total"] == 0


def test_list_is_newest_first_page_by_page_even_within_one_millisecond(tmp_path: Path) -> None:
    with serving(tmp_path, Clock()) as caller:
        ids = [caller.create(f"Task {number}")["id"] for number in range(7)]
        pages = [
            caller.call("GET", "/tasks", query={"limit": 3, "offset": offset}).document
            for offset in (0, 3, 6, 9)
        ]
        whole = caller.call("GET", "/tasks").document
    assert [row["id"] for page in pages for row in page["data"]] == ids[::-1]
    assert [(page["total"], page["limit"], page["offset"]) for page in pages] == [
        (7, 3, 0), (7, 3, 3), (7, 3, 6), (7, 3, 9),
    ]  # fmt: skip
    assert (whole["limit"], whole["offset"]) == (50, 0)
    assert all(set(row) == ROW for row in whole["data"])


def test_visibility_gives_a_link_only_when_public(tmp_path: Path) -> None:
    with serving(tmp_path) as caller:
        task_id = caller.create("[[title=<script>alert(1)</script>]] [[run=0]]")["id"]
        path = f"/tasks/{task_id}/visibility"
        assert caller.call("PATCH", path, {"visibility": "private"}).document == {
            "visibility": "private"
        }
        assert caller.call("GET", f"//share/{task_id}", check=False).status == 404
        public = caller.call("PATCH", path, {"visibility": "public"}).document
        caller.key = None
        page = caller.call("GET", f"//share/{task_id}", check=False)
    assert public["shareUrl"].endswith(f"/share/{task_id}")
    assert public["shareUrl"].startswith(caller.service.base_url.removesuffix("/v1"))
    assert page.status == 200
    assert b"<script>alert" not in page.raw


def test_hostile_titles_come_through(tmp_path: Path) -> None:
    hostile = "\x1b]52;c;AAAA\x07 \u202e [/x] \ud800 \U0001f600"
    escaped = json.dumps(hostile)[1:-1]
    clock = Clock()
    with serving(tmp_path, clock) as caller:
        task_id = caller.create(f"[[title={escaped}]]")["id"]
        clock.advance(1)
        assert caller.task(task_id)["title"] == hostile


def test_long_first_line_is_cut_to_sixty_characters(tmp_path: Path) -> None:
    clock = Clock()
    with serving(tmp_path, clock) as caller:
        task_id = caller.create("x" * 99)["id"]
        clock.advance(1)
        title = caller.task(task_id)["title"]
    assert title == "x" * 59 + "…"


def test_workspace_is_reused_or_unknown(tmp_path: Path) -> None:
    with serving(tmp_path) as caller:
        first, other = caller.create(), caller.create()
        again = caller.create(workspaceId=first["workspaceId"])
        unknown = caller.call("POST", "/tasks", {"prompt": "x", "workspaceId": "nowhere"})
    assert first["workspaceId"] == again["workspaceId"] != other["workspaceId"]
    assert (unknown.status, unknown.code, unknown.message) == (
        404, "not_found", "Workspace not found",
    )  # fmt: skip
