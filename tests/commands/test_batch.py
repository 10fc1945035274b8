"""`rebyte batch`: what it prints, what it leaves behind, and how it ends."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any
from urllib.request import urlopen

import pytest

from rebyte_cli.batch.throttle import Throttle
from rebyte_cli.local.local_service import Service

from ..conftest import Done
from ..farm import Farm, lines_of
from ..servers import Answer, Line, Request, error_reply, json_reply
from ..waiting import eventually, with_time

Rebyte = Callable[..., Done]


@pytest.fixture
def rebyte(inside: Callable[..., Done]) -> Callable[..., Done]:
    """The command, without a process for each call."""
    return inside


@pytest.fixture
def batch(rebyte: Rebyte, home: Path) -> Callable[..., Done]:
    """Write the lines to a file and run it against a farm."""

    def run(farm: Farm, lines: list[Any] | None, *options: str, **more: Any) -> Done:
        if lines is not None:
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (home / "tasks.jsonl").write_text(text)
        env = {**farm.env, **more.pop("env", {})}
        return rebyte("batch", "tasks.jsonl", *options, env=env, **more)

    return run


def test_each_line_becomes_a_task_and_a_result(batch: Callable[..., Done]) -> None:
    with Farm() as farm:
        done = batch(
            farm,
            [{"prompt": "One", "key": "a", "model": "big"}, {"prompt": "Two", "skills": ["pdf"]}],
            "-x",
            "codex",
            "-m",
            "lite",
        )
    assert done.status == 0
    rows = {row["line"]: row for row in lines_of(done.out)}
    first = farm.tasks[rows[1]["id"]]
    assert rows[1] == {
        "key": "a",
        "line": 1,
        "id": first["id"],
        "workspaceId": first["workspaceId"],
        "url": first["url"],
        "status": "completed",
        "error": None,
        "startedAt": first["createdAt"],
        "finishedAt": rows[1]["finishedAt"],
        "title": "One",
    }
    assert rows[2]["key"] == "2"
    assert sorted(farm.bodies, key=lambda body: str(body["prompt"])) == [
        {"prompt": "One", "executor": "codex", "model": "big"},
        {"prompt": "Two", "executor": "codex", "model": "lite", "skills": ["pdf"]},
    ]
    assert "2 lines: 2 completed (" in done.err


def test_a_table_has_titles_and_the_keys_of_lines_that_have_one(
    batch: Callable[..., Done],
) -> None:
    long = "Review the module:\n\nall of it"
    with Farm() as farm:
        batch(farm, [{"prompt": "  Fix   it "}, {"prompt": long}], "-q", "--jobs", "1")
        table = batch(farm, None, "--status", "-o", "table")
        assert table.out.splitlines() == [
            "LINE  TITLE               STATUS     ID          ERROR",
            "   1  Fix it              completed  task-00001",
            "   2  Review the module:  completed  task-00002",
        ]
        batch(farm, [{"prompt": "One", "key": "a"}, {"prompt": "Two"}], "-q", "--journal", "j")
        table = batch(farm, None, "--status", "--journal", "j", "-o", "table")
    assert table.out.splitlines()[0] == "LINE  KEY  TITLE  STATUS     ID          ERROR"


def test_a_finished_batch_is_told_again_without_a_request(batch: Callable[..., Done]) -> None:
    with Farm() as farm:
        first = batch(farm, [{"prompt": "One"}, {"prompt": "Two <fail>"}])
        calls = sum(farm.calls.values())
        again = batch(farm, None)
        assert sum(farm.calls.values()) == calls
    assert first.status == again.status == 10
    assert sorted(lines_of(first.out), key=str) == sorted(lines_of(again.out), key=str)
    assert json.loads(again.err.splitlines()[1])["error"]["code"] == "task_failed"


def test_bad_lines_stop_it_before_anything_is_sent(batch: Callable[..., Done], home: Path) -> None:
    with Farm() as farm:
        done = batch(farm, [{"prompt": "One"}, {"promt": "Two"}, {"prompt": ""}], "-o", "table")
        assert not farm.calls
    assert done.status == 2
    assert done.out == ""
    assert done.err == (
        "Error: tasks.jsonl has 2 bad lines; nothing was sent\n"
        "       line 2: promt: no such field. Did you mean 'prompt'?\n"
        "       line 3: prompt: the prompt is empty\n"
    )
    assert os.listdir(home) == ["tasks.jsonl"]


@pytest.mark.parametrize(
    ("word", "status", "exit_status"),
    [("<fail>", "failed", 10), ("<cancel>", "canceled", 11), ("<400>", "refused", 1),
     ("<500>", "refused", 5)],
)  # fmt: skip
def test_lines_that_end_badly(
    batch: Callable[..., Done], word: str, status: str, exit_status: int
) -> None:
    with Farm() as farm:
        done = batch(farm, [{"prompt": "fine"}, {"prompt": word, "key": "bad"}])
    assert done.status == exit_status
    rows = {row["key"]: row for row in lines_of(done.out)}
    assert rows["1"]["status"] == "completed"
    assert rows["bad"]["status"] == status
    assert rows["bad"]["error"]["message"]
    assert "line 2 (bad): " in done.err


def test_a_rejected_key_ends_the_batch_not_the_lines(batch: Callable[..., Done]) -> None:
    with Farm() as farm:
        done = batch(farm, [{"prompt": f"<401> {n}"} for n in range(100)], "--jobs", "4")
        assert sum(farm.tried.values()) <= 4
    assert done.status == 3
    assert {row["status"] for row in lines_of(done.out)} == {"pending"}
    with Farm() as farm:
        done = batch(farm, None, "--status", env={"REBYTE_API_KEY": ""})
    # Another port is another origin, but a journal without tasks is not bound to one.
    assert done.status == 0
    assert {row["status"] for row in lines_of(done.out)} == {"pending"}


def test_retry_failed_gives_new_tasks_to_those_lines_alone(batch: Callable[..., Done]) -> None:
    refused = {"prompt": "Two <400>"}
    with Farm() as farm:
        batch(farm, [{"prompt": "One <fail>"}, refused, {"prompt": "Three"}])
        assert farm.made == {"One <fail>": 1, "Three": 1}
        assert batch(farm, None).status == 1
        assert farm.tried["Two <400>"] == 1
        done = batch(farm, None, "--retry-failed")
        assert farm.made == {"One <fail>": 2, "Three": 1}
        assert farm.tried["Two <400>"] == 2
    rows = {row["line"]: row for row in lines_of(done.out)}
    assert rows[1]["id"] == "task-00003"
    assert len(rows) == 3


def test_fail_fast_creates_nothing_more_and_waits_for_what_runs(
    batch: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first line is refused while another create is under way, which ends after the stop."""

    def refuse(line: Line) -> None:
        eventually(lambda: farm.made)
        line.send(error_reply(400, "bad", "No"))

    def hook(request: Request) -> Answer | None:
        return refuse if b"refused" in request.body else None

    def stop(throttle: Throttle) -> None:
        stop_creates(throttle)
        stopped.set()

    stop_creates, stopped = Throttle.stop_creates, Event()
    monkeypatch.setattr(Throttle, "stop_creates", stop)
    lines = [{"prompt": "refused"}, *({"prompt": f"later {n} <run 0.5>"} for n in range(30))]
    with Farm(hook=hook) as farm:
        farm.until = stopped.is_set
        done = batch(farm, lines, "--fail-fast", "--jobs", "2")
        assert 1 <= sum(farm.made.values()) <= 2
    assert done.status == 1
    statuses = [row["status"] for row in lines_of(done.out)]
    assert statuses.count("completed") == sum(farm.made.values())
    assert statuses.count("pending") == 30 - sum(farm.made.values())
    assert "no further creates" in done.err


def test_no_wait_ends_when_all_are_created(batch: Callable[..., Done]) -> None:
    with Farm() as farm:
        done = batch(farm, [{"prompt": "One <run 60>"}, {"prompt": "Two <run 60>"}], "--no-wait")
        # The list tells the server's time before the first create.
        assert farm.calls == {"GET list": 1, "POST 2": 2}
    assert done.status == 0
    assert [row["status"] for row in lines_of(done.out)] == ["running", "running"]


def test_a_time_limit_reports_the_rest(batch: Callable[..., Done]) -> None:
    lines = [{"prompt": "One"}, {"prompt": "Two <run 120>"}]

    def check(limit: float) -> None:
        words = ("--journal", f"{limit}.journal")
        with Farm() as farm:
            done = batch(farm, lines, "--timeout", str(limit), "-o", "csv", *words)
            assert done.status == 124
            header, *rows = done.out.splitlines()
            assert header.startswith("key,line,id,workspaceId,url,status")
            assert [row.split(",")[5] for row in rows] == ["completed", "running"]
            assert f"1 of 2 lines not finished after {limit:g} s" in done.err
            farm.tasks["task-00002"]["ends"] = 0.0
            farm.tasks["task-00001"]["ends"] = 0.0
            again = batch(farm, None, *words)
            assert again.status == 0
            assert farm.made == {"One": 1, "Two <run 120>": 1}

    with_time(check)


def test_standard_input_needs_a_journal(rebyte: Rebyte, home: Path) -> None:
    with Farm() as farm:
        done = rebyte("batch", "-", "--text", env=farm.env, stdin="Say hi\n")
        assert done.status == 2
        assert "a batch from standard input needs --journal PATH" in done.err
        done = rebyte("batch", "/dev/stdin", "--text", env=farm.env, stdin="Say hi\n")
        assert done.status == 2
        assert "a batch from /dev/stdin needs --journal PATH" in done.err
        assert farm.made == {}
        for _ in range(2):
            done = rebyte("batch", "-", "--text", "--journal", "j", env=farm.env, stdin="Say hi\n")
            assert [row["status"] for row in lines_of(done.out)] == ["completed"]
        assert farm.made == {"Say hi": 1}
    assert (home / "j").exists()


def test_dry_run_prints_bodies_and_leaves_no_trace(rebyte: Rebyte, home: Path) -> None:
    (home / "people.csv").write_text("name,key\nAnn,a\nBo,b\n")
    (home / "letter.txt").write_text("Dear {{name}}\n")
    done = rebyte("batch", "people.csv", "--template", "letter.txt", "-w", "ws-1", "--dry-run")
    assert done.status == 0
    assert lines_of(done.out) == [
        {"key": "a", "line": 2, "body": {"prompt": "Dear Ann", "workspaceId": "ws-1"}},
        {"key": "b", "line": 3, "body": {"prompt": "Dear Bo", "workspaceId": "ws-1"}},
    ]
    assert not (home / "people.csv.journal").exists()


def test_tasks_of_a_batch_are_in_the_history(batch: Callable[..., Done], rebyte: Rebyte) -> None:
    with Farm() as farm:
        batch(farm, [{"prompt": "Say hello"}])
        done = rebyte("get", "@last", env=farm.env)
    assert done.json["id"] == "task-00001"
    assert done.json["workspaceId"] == "ws-00001"


def test_the_carried_service_runs_a_batch_too(local: Rebyte, home: Path) -> None:
    (home / "p.txt").write_text("Say one [[run=1ms]]\nSay two [[run=1ms]]\n")
    done = local("batch", "p.txt", "--text", "-o", "id")
    assert done.status == 0
    assert len(done.out.split()) == 2


# Why lines failed


def test_a_row_an_error_and_the_journal_say_why(batch: Callable[..., Done]) -> None:
    """Of failed lines alone, with one request each; a run that resumes needs none."""

    def hook(request: Request) -> Answer | None:
        if not request.path.endswith("/content"):
            return None
        asked.append(request.path)
        return json_reply({"prompts": [{"response": "Invalid API key\nPlease run /login"}]})

    asked: list[str] = []
    lines = [{"prompt": "Fine"}, *({"prompt": f"{n} <fail>"} for n in range(2))]
    with Farm(hook=hook) as farm:
        done = batch(farm, [*lines, {"prompt": "<cancel>"}])
        failed = {row["id"] for row in lines_of(done.out) if row["status"] == "failed"}
        assert sorted(asked) == sorted(f"/v1/tasks/{task_id}/content" for task_id in failed)
        calls = sum(farm.calls.values())
        again = batch(farm, None)
        status = batch(farm, None, "--status")
        assert (len(asked), sum(farm.calls.values())) == (2, calls)
    for run in (done, again, status):
        rows = [row for row in lines_of(run.out) if row["status"] == "failed"]
        assert {row["error"]["message"] for row in rows} == {
            f"task {task_id} failed: Invalid API key" for task_id in failed
        }
        assert "\n2 lines failed: Invalid API key\n" in run.err
    for run in (done, again):
        told = [json.loads(line)["error"] for line in run.err.splitlines() if line[0] == "{"]
        names = {f"line {row['line']}: {row['error']['message']}" for row in rows}
        assert names < {error["message"] for error in told}


def test_lines_that_completed_cost_no_further_request(batch: Callable[..., Done]) -> None:
    with Farm() as farm:
        done = batch(farm, [{"prompt": f"Line {n}"} for n in range(50)])
        assert done.status == 0
        assert farm.calls["POST 2"] == farm.calls["GET 3"] == 50
        assert farm.calls["GET 4"] == 0


def test_reasons_that_cannot_be_read_leave_the_batch_as_it_is(batch: Callable[..., Done]) -> None:
    def hook(request: Request) -> Answer | None:
        return error_reply(500, "odd", "No") if request.path.endswith("/content") else None

    with Farm(hook=hook) as farm:
        done = batch(farm, [{"prompt": "One"}, {"prompt": "<fail>"}])
    rows = {row["line"]: row for row in lines_of(done.out)}
    assert (done.status, rows[1]["status"], rows[2]["status"]) == (10, "completed", "failed")
    assert rows[2]["error"]["message"] == f"task {rows[2]['id']} failed"


def test_a_table_and_the_reports_have_the_reason_without_the_id(
    inside_local: Rebyte, home: Path
) -> None:
    (home / "p.txt").write_text("Say one [[run=1ms]]\nBad [[fail]]\nWorse [[fail]]\n")
    reason = "The prompt contains [[fail]]."
    shown = inside_local("batch", "p.txt", "--text", "-o", "table", "--report", "r.html")
    assert sum(line.endswith(f"  {reason}") for line in shown.out.splitlines()) == 2
    assert f"\n2 lines failed: {reason}\n" in shown.err
    failures = (home / "r.html").read_text().partition("Failures</h2>")[2]
    assert failures.count(f"<p>{reason}</p>") == 2
    inside_local("batch", "p.txt", "--text", "-q", "--report", "r.md")
    rows = [line for line in (home / "r.md").read_text().splitlines() if line.startswith("| ")]
    assert sum(line.endswith(r" | The prompt contains \[\[fail\]\]. |") for line in rows) == 2


DEEP = "/".join(12 * ["d" * 200])


@pytest.mark.parametrize(
    ("file", "title"),
    [
        ("p.txt", "p.txt"),
        ("caf\udce9.txt", r"caf\udce9.txt"),  # no UTF-8, as old systems named files
        (f"{DEEP}/p.txt", f"{DEEP}/p.txt"[-2000:]),  # longer than a title may be
    ],
    ids=["plain", "not UTF-8", "long"],
)
def test_the_pages_of_the_local_service_show_the_batch(
    local: Rebyte, home: Path, file: str, title: str
) -> None:
    (home / file).parent.mkdir(parents=True, exist_ok=True)
    (home / file).write_text("Say one [[run=0]]\nSay two [[run=0]] [[fail]]\n")
    local("batch", file, "--text", "-q", "--report", "r.html")
    state = local("local", "status", "-o", "json").json["path"]
    with Service(Path(state)) as service, urlopen(service.origin) as page:
        shown = page.read().decode()
    assert re.search(rf'<a href="/\?batch=\w+">{re.escape(title)}</a> 2 of 2 ended', shown)
    assert f"{title}</h1>" in (home / "r.html").read_text()
