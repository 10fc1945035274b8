"""get, wait, follow-up, list, delete, cancel: a task's life after its creation."""

from __future__ import annotations

import fcntl
import io
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli import RebyteClient
from rebyte_cli.history.rows import NewTask
from tests.conftest import Done
from tests.fork_server import commands
from tests.servers import RawServer, error_reply, json_reply
from tests.waiting import with_time

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
    local("create", "Two [[run=1h]]")
    running = local("list", "--status", "running", "-o", "id")
    local("cancel", "@last")
    done = local("wait", "-", "-o", "id", stdin=running.out)
    assert done.status == 11
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


def test_ignore_missing_covers_numbers_and_labels_that_name_no_task(local: Run) -> None:
    kept, gone = (local("create", prompt).json["id"] for prompt in ("Kept", "Gone"))
    assert local("delete", "@1").status == 0
    done = local("delete", "@1", "@9", "@2", "--ignore-missing", "-o", "id")
    assert (done.status, done.out.split()) == (0, [kept]), gone
    for words in (["@last"], ["--label", "no=such"]):
        assert local("delete", *words).status == 4
        done = local("delete", *words, "--ignore-missing", "-q")
        assert (done.status, done.out, done.err) == (0, "", "")


def test_deleting_by_number_deletes_what_was_listed(local: Run) -> None:
    ids = [local("create", f"Task {number}").json["id"] for number in range(4)]
    assert local("delete", "@1", "-o", "id").out.split() == [ids[3]]
    assert local("delete", "@2", "-o", "id").out.split() == [ids[2]]
    assert local("get", "@last", "-o", "id").out.split() == [ids[1]]
    gone = local("get", "@1")
    assert (gone.status, "was deleted" in gone.err) == (4, True)


def test_a_page_stands_for_its_task(local: Run) -> None:
    made = local("create", "Hello", "--wait").json
    assert local("get", made["url"], "-o", "id").out.split() == [made["id"]]
    again = local("create", "More", "-w", made["url"], "-o", "json").json
    assert again["workspaceId"] == made["workspaceId"]


def test_cancel_reads_the_truth(local: Run) -> None:
    local("create", "Slow [[run=60s]]")
    assert local("cancel", "@last").json["status"] == "canceled"
    assert local("follow-up", "@last", "Go on", "--wait").json["status"] == "completed"


def test_cancel_says_which_tasks_had_ended(inside_local: Run) -> None:
    done = inside_local("create", "Quick [[run=1ms]]", "--wait").json["id"]
    slow = inside_local("create", "Slow [[run=60s]]").json["id"]
    canceled = inside_local("cancel", done, slow)
    assert [task["status"] for task in canceled.documents] == ["completed", "canceled"]
    assert (canceled.status, canceled.err) == (0, f"Task {done} had already completed\n")


@pytest.mark.parametrize(("task", "ends_with"), [("failed", 0), ("running", 1)])
def test_a_refusal_to_cancel_matters_only_while_the_task_runs(
    inside: Run, aim: Any, task: str, ends_with: int
) -> None:
    refused = error_reply(409, "conflict", "task is not running")
    known = json_reply({"id": "t1", "status": task})
    with RawServer(lambda request: refused if request.method == "POST" else known) as server:
        aim(server)
        done = inside("cancel", "t1")
    assert done.status == ends_with
    assert ("had already failed" if task == "failed" else "task is not running") in done.err


def test_a_task_that_does_not_exist_says_where_to_look(inside_local: Run) -> None:
    inside_local("create", "Quick [[run=1ms]]")
    missing = inside_local("get", "999", "998", "-o", "table").err
    assert missing.splitlines() == [
        "Error: 999: task not found", "Hint: See `rebyte list`", "Error: 998: task not found",
    ]  # fmt: skip
    far = json.loads(inside_local("get", "@999").err)["error"]
    assert (
        far["message"]
        == "@999 doesn't exist: only one task was created on this machine for this service"
    )
    for words, hint in (
        (("webhook", "show", "x"), "See `rebyte webhook list`"),
        (("artifact", "get", "@last", "x"), "See `rebyte artifact list"),
        (("artifact", "list", "x"), "See `rebyte workspace list`"),
        (
            ("artifact", "get", "no-ws", "x"),
            "See `rebyte artifact list no-ws` or `rebyte workspace list`",
        ),
        (("workspace", "show", "x"), "See `rebyte workspace list`"),
    ):
        assert json.loads(inside_local(*words).err)["error"]["hint"].startswith(hint), words


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


@pytest.mark.parametrize("verb", ["get", "wait", "cancel", "delete"])
def test_the_one_that_is_missing_is_named_and_the_others_are_done(
    inside_local: Run, verb: str
) -> None:
    there = [inside_local("create", f"Task {n}").json["id"] for n in range(3)]
    done = inside_local(verb, there[0], "not-there", *there[1:], "also-not", "-o", "id")
    assert done.status == 4
    assert sorted(done.out.split()) == sorted(there)
    errors = [line for line in done.err.splitlines() if line.startswith("Error: ")]
    assert sorted(errors) == ["Error: also-not: task not found", "Error: not-there: task not found"]


def test_a_missing_task_is_one_json_object_a_line(inside_local: Run) -> None:
    done = inside_local("get", "no-1", "no-2")
    errors = [json.loads(line)["error"] for line in done.err.splitlines()]
    assert [error["message"][:5] for error in errors] == ["no-1:", "no-2:"]
    assert {(error["code"], error["status"], error["exit"]) for error in errors} == {
        ("not_found", 404, 4)
    }


def test_the_time_limit_names_what_still_runs(inside_local: Run) -> None:
    slow = inside_local("create", "Slow [[run=60s]]").json["id"]
    quick = inside_local("create", "Quick", "--wait").json["id"]

    def check(limit: float) -> None:
        done = inside_local("wait", slow, quick, "--timeout", str(limit), "-o", "id")
        assert (done.status, done.out) == (124, quick + "\n")
        assert f"Resume with `rebyte wait {slow}`" in done.err

    with_time(check, 0.2)


def test_references_that_are_ambiguous_list_what_they_could_be(
    inside_local: Run, home: Path
) -> None:
    from rebyte_cli.history.history import History

    # A service gives no ids that begin alike, so two are written to the history.
    origin = json.loads(inside_local("auth", "status").out)["origin"]
    history = History(home / ".local" / "state" / "rebyte" / "history.db", origin=origin)
    for task in ("abcd-1", "abcd-2"):
        history.add_tasks([NewTask({"id": task}, prompt="x")])
    history.close()
    done = inside_local("get", "abcd")
    assert done.status == 2
    assert "abcd-1" in done.err
    assert "abcd-2" in done.err
    assert inside_local("get", "-", stdin="abcd\n").err.startswith('{"error":{"code":"usage"')
    assert "abcd-1: task not found" in inside_local("get", "abcd-1").err


def test_a_finished_task_has_its_workspace_when_there_is_no_history(
    inside_local: Run, home: Path
) -> None:
    """The create answer alone tells it, and `create --wait` prints the finished task."""
    folder = home / ".config" / "rebyte"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text("history = false\n")
    done = inside_local("create", "x", "--wait")
    assert done.json["workspaceId"]
    failed = inside_local("create", "x [[fail]]", "--stream", "-o", "json")
    assert failed.status == 10
    assert failed.json["workspaceId"]
    assert "workspaceId" not in inside_local("get", failed.json["id"]).json
    assert inside_local("get", "@last").status == 4


def test_rows_of_the_list_have_the_workspace_that_is_known_here(
    inside_local: Run, service: Any
) -> None:
    made = inside_local("create", "From here").json
    other = _created_elsewhere(service)
    rows = {row["id"]: row for row in inside_local("list").json["data"]}
    assert rows[made["id"]]["workspaceId"] == made["workspaceId"]
    assert "workspaceId" not in rows[other]
    asked = inside_local("list", "-o", "tsv", "--fields", "id,workspaceId").out.splitlines()
    assert f"{made['id']}\t{made['workspaceId']}" in asked
    assert f"{other}\t" in asked
    table = inside_local("list", "-o", "table", "--fields", "workspaceId").out
    assert made["workspaceId"] in table


def _created_elsewhere(service: Any) -> str:
    with RebyteClient("rbk_x", base_url=service.base_url) as client:
        return str(client.create_task("From elsewhere")["id"])


def test_limits_of_a_list(inside_local: Run) -> None:
    for number in range(3):
        inside_local("create", f"Task {number}", "--wait")

    def envelope(*words: str) -> tuple[int | None, int, int, int]:
        page = inside_local("list", *words).json
        return page["total"], page["limit"], page["offset"], len(page["data"])

    assert envelope() == (3, 50, 0, 3)
    assert envelope("--search", "task 1") == (1, 50, 0, 1)
    assert envelope("--search", "task 1", "--all") == (1, 1, 0, 1)
    assert envelope("--status", "completed", "--limit", "2") == (None, 2, 0, 2)
    assert envelope("--limit", "101", "--offset", "1") == (3, 101, 1, 2)
    assert envelope("--search", "Task", "--limit", "9" * 30) == (3, int("9" * 30), 0, 3)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["jsonl", "csv", "json"])
def test_a_list_that_is_read_once_asks_for_one_page(service: Any, form: str) -> None:
    """A reader that leaves after the first line: no second page is asked for, no word, 141.

    A JSON document is not flushed with each row. From Python 3.14 on, a page fits into the buffer.
    """
    _many(service, 120)
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)  # less than a page, whichever process runs first
    process = subprocess.Popen(
        [commands() / "rebyte", "-v", "list", "--all", "-o", form],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing)
    with open(reading) as pipe:
        assert pipe.readline()
    _, err = process.communicate(timeout=60)
    is_buffered = form == "json" and io.DEFAULT_BUFFER_SIZE > 1 << 16
    asked = [f"GET /tasks?limit=100&offset={offset}" for offset in (0, 100)]
    assert re.findall(r"GET /tasks\?\S+", err) == asked[: 2 if is_buffered else 1]
    assert process.returncode == 141


def _many(service: Any, count: int) -> None:
    with RebyteClient("rbk_x", base_url=service.base_url) as client:
        for number in range(count):
            client.create_task(f"Task {number}")


def test_a_list_shows_none_twice_while_tasks_are_created(service: Any, inside_local: Run) -> None:
    """Every page is moved by a task that was created after the one before."""
    with (
        RebyteClient("rbk_x", base_url=service.base_url) as maker,
        RebyteClient("rbk_x", base_url=service.base_url) as reader,
    ):
        before = [maker.create_task(f"Task {number}")["id"] for number in range(230)]
        seen = []
        for count, row in enumerate(reader.iter_tasks()):
            seen.append(row["id"])
            if count % 50 == 0:
                maker.create_task("Meanwhile")
    assert len(seen) == len(set(seen))
    assert set(before) <= set(seen)
