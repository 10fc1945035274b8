"""A run that waits for a usage limit of its model, as each command shows it."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import COMMAND, Done
from tests.local.agents.test_usage_limit import LimitedModel, after
from tests.terminals import Session
from tests.waiting import eventually, kill_supervisor

from .test_task_budget import asking as asking

Run = Callable[..., Done]
PROMPT = "Hello [[run=0s]] [[limit=1h]]"


@pytest.fixture
def limited(local: Run) -> Any:
    """A task that waits for an hour."""
    return local("create", PROMPT).json


@pytest.mark.slow
def test_a_task_that_waits_for_a_limit_is_shown_as_limited(local: Run, limited: Any) -> None:
    task = local("get", limited["id"]).json
    assert task["status"] == "running"  # as the API has it
    left = datetime.fromisoformat(task["resumesAt"]) - datetime.now(UTC)
    assert 3000 < left.total_seconds() < 3600
    (row,) = local("list").json["data"]
    assert row["resumesAt"] == task["resumesAt"]
    shown = local("list", "-o", "csv", "--fields", "id,status").out.splitlines()
    assert shown == ["id,status", f"{limited['id']},limited"]
    for status, ids in (("limited", [limited["id"]]), ("running", [limited["id"]]), ("queued", [])):
        assert local("list", "--status", status, "-o", "id").out.split() == ids
    assert f"* limited: the simulated usage limit is reached; resumes at {task['resumesAt']}" in (
        local("logs", limited["id"]).out
    )
    (event,) = [each for each in local("logs", limited["id"], "-o", "jsonl").documents
                if each["eventType"] == "limited"]  # fmt: skip
    assert event["payload"]["resumesAt"] == task["resumesAt"]


@pytest.mark.slow
def test_the_terminal_shows_when_it_resumes(local: Run, limited: Any) -> None:
    resumes_at = local("get", limited["id"]).json["resumesAt"]
    session = Session([*COMMAND, "-P", "local", "get", limited["id"]])
    assert session.finish() == 0
    assert "Status limited" in " ".join(" ".join(session.everything).split())
    waiting = Session([*COMMAND, "-P", "local", "wait", limited["id"]])
    waiting.until(lambda lines: any(f"resumes at {resumes_at}" in line for line in lines))
    waiting.child.sendcontrol("c")
    waiting.finish()
    watch = Session([*COMMAND, "-P", "local", "list", "--watch"])
    watch.until(lambda lines: any("limited" in line for line in lines))
    watch.child.sendcontrol("c")
    watch.finish()


@pytest.mark.slow
def test_it_continues_once_the_limit_is_reset(local: Run) -> None:
    done = local("create", "Hello [[run=0s]] [[limit=1s]]", "--stream")
    assert done.status == 0
    assert re.search(r"\* limited: .*; resumes at 20", done.out)
    task = local("get", "@last").json
    assert (task["status"], "resumesAt" in task) == ("completed", False)
    began, ended = map(datetime.fromisoformat, (task["createdAt"], task["completedAt"]))
    assert (ended - began).total_seconds() >= 1


@pytest.mark.slow
def test_a_limited_task_is_canceled_at_once(local: Run, limited: Any) -> None:
    assert local("cancel", limited["id"]).status == 0
    task = local("get", limited["id"]).json
    assert (task["status"], "resumesAt" in task) == ("canceled", False)


@pytest.mark.slow
def test_a_batch_that_does_not_wait_any_longer_shows_its_limited_lines(
    local: Run, tmp_path: Path
) -> None:
    (tmp_path / "in.txt").write_text(f"{PROMPT}\n")
    batch = ["batch", str(tmp_path / "in.txt"), "--text", "-o", "jsonl", "--timeout", "3"]
    done = local(*batch)
    assert done.status == 124
    (row,) = done.documents
    assert (row["status"], row["resumesAt"][:2]) == ("limited", "20")
    local("cancel", row["id"])
    done = local(*batch)
    (row,) = done.documents
    assert (row["status"], "resumesAt" in row) == ("canceled", False)


@pytest.mark.slow
def test_a_word_without_a_duration_is_refused(local: Run) -> None:
    done = local("create", "[[limit=soon]]")
    assert done.status == 1
    assert "[[limit]] needs a duration" in done.err
    assert local("list").json["data"] == []


# Real agents


@pytest.mark.slow
def test_any_command_with_the_key_resumes_a_run_that_lost_its_process(
    asking: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LimitedModel() as model:
        threading.Thread(target=model.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("ANTHROPIC_BASE_URL", model.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-real")
        model.refuses, model.refusal = 1, lambda: after(3600)
        create = ["-P", "local", "create", "-x", "mine", "-o", "json"]
        task = asking(*create, "ask()").json["id"]
        get = ["-P", "local", "get", task]
        eventually(lambda: "resumesAt" in asking(*get).json)
        (lock,) = (home / ".local/state/rebyte/local/workspaces").glob("*/runs/*/lock")
        kill_supervisor(lock)
        (file,) = (home / ".local/state/rebyte/local/limits").glob("?" * 32)
        resumes, seconds, boot, _ = file.read_text().split()
        file.write_text(f"{resumes} {seconds} {boot} 0")
        with monkeypatch.context() as without:
            without.delenv("ANTHROPIC_API_KEY")
            assert asking("profile", "list").status == 0
            assert "resumesAt" in asking(*get).json
        assert len(model.asked) == 1
        assert asking("profile", "list").status == 0
        eventually(lambda: len(model.answered) == 1)
        done = asking("-P", "local", "wait", task, "-o", "json")
        assert (done.status, len(model.asked)) == (0, 2)
        model.shutdown()


# --on-limit


@pytest.mark.slow
def test_a_task_that_is_not_to_wait_fails_with_status_13(local: Run) -> None:
    done = local("create", PROMPT, "--on-limit", "stop", "--wait", "-o", "json")
    assert (done.status, done.json["status"], done.json["endedBy"]) == (13, "failed", "limit")
    assert "The run was stopped: the simulated usage limit is reached" in done.err
    assert local("wait", done.json["id"]).status == 13
    assert local("result", done.json["id"]).status == 13
    done = local("follow-up", done.json["id"], PROMPT, "--on-limit", "stop", "--wait")
    assert done.status == 13


def test_a_task_continues_with_another_executor(local: Run) -> None:
    done = local("create", PROMPT, "--on-limit", "codex", "--wait", "-o", "json")
    assert (done.status, done.json["status"]) == (0, "completed")


def test_lines_that_are_not_to_wait_fail(local: Run, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text(f"{PROMPT}\nHello\n")
    batch = ["batch", str(tmp_path / "in.txt"), "--text", "-o", "jsonl", "--on-limit", "stop"]
    done = local(*batch)
    assert done.status == 13
    rows = sorted(done.documents, key=lambda row: int(row["line"]))
    assert [row["status"] for row in rows] == ["failed", "completed"]
    assert rows[0]["error"]["code"] == "usage_limit"


def test_limits_are_those_of_this_machine(rebyte: Run) -> None:
    done = rebyte("create", "Hello", "--on-limit", "stop", env={"REBYTE_API_KEY": "rbk_x"})
    assert done.status == 2
    assert "--on-limit requires -P local" in done.err


@pytest.mark.slow
def test_lines_of_another_executor_run_while_one_is_limited(local: Run, tmp_path: Path) -> None:
    lines = [
        {"prompt": PROMPT, "executor": "claude"},
        {"prompt": "Hello", "executor": "claude"},
        {"prompt": "Hello", "executor": "codex"},
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    batch = ["batch", str(tmp_path / "in.jsonl"), "--max-running", "1", "--timeout", "15"]
    done = local(*batch, "-o", "jsonl", env={"REBYTE_LOCAL_AGENTS": "0"})
    assert done.status == 124
    rows = sorted(done.documents, key=lambda row: int(row["line"]))
    assert [row["status"] for row in rows] == ["limited", "pending", "completed"]
