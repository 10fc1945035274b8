"""get, wait, follow-up, list, delete, cancel: a task's life after its creation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Done

Run = Callable[..., Done]


@pytest.fixture
def local(inside_local: Run) -> Run:
    """The command against a service of the test's own, without a process for each call."""
    return inside_local


def test_get_prints_one_document_per_task(local: Run) -> None:
    first, second = local("create", "One").json["id"], local("create", "Two").json["id"]
    done = local("get", first, "@last")
    assert [task["id"] for task in done.documents] == [first, second]
    assert all(task["workspaceId"] for task in done.documents)


def test_get_shows_what_is_there_and_names_what_is_not(local: Run) -> None:
    there = local("create", "One").json["id"]
    done = local("get", "not-there", there)
    assert done.status == 4
    assert done.json["id"] == there
    assert json.loads(done.err.strip().splitlines()[-1])["error"]["code"] == "not_found"


def test_references_come_from_stdin_beside_others(local: Run) -> None:
    first, second = local("create", "One").json["id"], local("create", "Two").json["id"]
    done = local("get", "-", "@last", "-o", "id", stdin=f"{first}\n\n")
    assert done.out.split() == [first, second]


def test_follow_up_wait_waits_for_that_prompt(local: Run) -> None:
    task = local("create", "One", "--wait").json["id"]
    done = local("follow-up", task, "Two [[run=1s]]", "--wait")
    assert done.status == 0
    assert [prompt["status"] for prompt in done.json["prompts"]] == ["succeeded", "succeeded"]


def test_follow_up_wait_tells_the_outcome_of_that_prompt(local: Run) -> None:
    task = local("create", "One", "--wait").json["id"]
    assert local("follow-up", task, "Two [[fail]]", "--wait").status == 10


def test_follow_up_prints_the_prompt_id(local: Run) -> None:
    task = local("create", "One").json["id"]
    done = local("follow-up", task, "Two")
    assert set(done.json) == {"promptId"}
    again = local("follow-up", task, "Three", "-o", "id").out.strip()
    assert again == local("get", task).json["prompts"][-1]["id"]


def test_wait_for_several_ends_in_the_worst_status(local: Run) -> None:
    local("create", "Fine")
    local("create", "Bad [[fail]]")
    done = local("wait", "@1", "@2")
    assert done.status == 10
    assert {task["status"] for task in done.documents} == {"completed", "failed"}


def test_first_success_is_a_success(local: Run) -> None:
    local("create", "Bad [[fail]]")
    local("create", "Fine [[run=1s]]")
    done = local("wait", "@1", "@2", "--first-success", "-o", "id")
    assert done.status == 0
    assert done.out.split() == [local("get", "@1").json["id"]]


def test_any_stops_at_the_first(local: Run) -> None:
    local("create", "Slow [[run=60s]]")
    quick = local("create", "Quick").json["id"]
    done = local("wait", "@1", "@2", "--any", "-o", "id")
    assert done.status == 0
    assert done.out.split() == [quick]


def test_running_ids_pipe_into_wait(local: Run) -> None:
    local("create", "One")
    local("create", "Two [[run=2s]]")
    running = local("list", "--status", "running", "-o", "id")
    done = local("wait", "-", "-o", "id", stdin=running.out)
    assert done.status == 0
    assert sorted(done.out.split()) == sorted(running.out.split())


def test_list_prints_the_envelope(local: Run) -> None:
    assert local("list").json == {"data": [], "total": 0, "limit": 50, "offset": 0}
    ids = [local("create", f"Task {number}").json["id"] for number in range(3)]
    page = local("list", "--limit", "2", "--offset", "1").json
    assert [row["id"] for row in page["data"]] == [ids[1], ids[0]]
    assert (page["total"], page["limit"], page["offset"]) == (3, 2, 1)
    everything = local("list", "--all").json
    assert [row["id"] for row in everything["data"]] == ids[::-1]
    assert (everything["total"], everything["limit"]) == (3, 3)


def test_list_reads_each_task_for_its_status(local: Run) -> None:
    local("create", "Fine", "--wait")
    local("create", "Bad [[fail]]", "--wait")
    rows = local("list", "--fields", "status,title", "-o", "jsonl").out.splitlines()
    assert [json.loads(row)["status"] for row in rows] == ["failed", "completed"]
    failed = local("list", "--status", "failed").json["data"]
    assert [row["status"] for row in failed] == ["failed"]


def test_list_searches_and_bounds_by_time(local: Run) -> None:
    local("create", "Apples and pears", "--wait")
    local("create", "Plums", "--wait")
    assert len(local("list", "--search", "PEARS").json["data"]) == 1
    assert len(local("list", "--since", "1h").json["data"]) == 2
    assert local("list", "--until", "1h").json["data"] == []
    assert local("list", "--since", "yesterday-ish").status == 2


def test_delete(local: Run) -> None:
    task = local("create", "One").json["id"]
    assert local("delete", "@last").json == {"id": task, "deleted": True}
    assert local("get", task).status == 4
    assert local("delete", task).status == 4
    ignored = local("delete", task, "--ignore-missing")
    assert ignored.status == 0
    assert ignored.json == {"id": task, "deleted": False}


def test_cancel_reads_the_truth(local: Run) -> None:
    local("create", "Slow [[run=60s]]")
    assert local("cancel", "@last").json["status"] == "canceled"
    assert local("follow-up", "@last", "Go on", "--wait").json["status"] == "completed"


def test_the_history_is_kept_per_origin(local: Run, rebyte: Run, home: Path) -> None:
    local("create", "One")
    elsewhere = rebyte(
        *("get", "@last"),
        env={"REBYTE_API_URL": "http://127.0.0.1:9/v1", "REBYTE_API_KEY": "rbk_x"},
    )
    assert elsewhere.status == 4


def test_mistyped_words_are_answered_with_the_nearest(rebyte: Run) -> None:
    assert "create" in rebyte("craete", "x").err
    assert "--timeout" in rebyte("wait", "x", "--timout", "3").err
    assert "workspace" in rebyte("worksapce").err


def test_no_key_no_profile_no_terminal_says_what_to_do(rebyte: Run) -> None:
    done = rebyte("list")
    assert done.status == 3
    for remedy in ("settings/api-keys", "REBYTE_API_KEY", "auth login", "-P local"):
        assert remedy in done.err
