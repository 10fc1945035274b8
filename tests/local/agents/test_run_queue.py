"""A run that waits for its turn, as the commands show it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import COMMAND, Done
from tests.terminals import Session
from tests.waiting import eventually

CONFIG = """
[local]
jail = "off"
parallel = 1

[local.agents.steps]
command = ["sh", "-c", "echo one; until [ -e {go} ]; do sleep 0.02; done; echo two"]
"""
Run = Callable[..., Done]


@pytest.fixture
def go(home: Path) -> Path:
    """The file for which the program `steps` waits."""
    return home / "go"


@pytest.fixture
def steps(rebyte: Run, home: Path, go: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command, with a program as `-x steps`, of which one runs at a time."""
    monkeypatch.delenv("REBYTE_LOCAL_AGENTS")
    monkeypatch.setenv("REBYTE_PROFILE", "local")
    (home / ".config/rebyte").mkdir(parents=True)
    (home / ".config/rebyte/config.toml").write_text(CONFIG.replace("{go}", str(go)))
    return rebyte


@pytest.mark.slow
def test_a_queued_task_is_shown_as_queued(steps: Run, go: Path) -> None:
    steps("create", "First", "-x", "steps")
    eventually(lambda: "one" in steps("logs", "@last").out)
    created = steps("create", "Second", "-x", "steps")
    try:
        message = "number 1 in the queue, waits until fewer than 1 runs work ([local] parallel)"
        task = steps("get", "@last").json
        assert task["status"] == "running"  # as the API has it
        assert task["queue"] == {"position": 1, "message": message}
        row, first = steps("list").json["data"]
        assert (row["queue"]["position"], first.get("queue")) == (1, None)
        shown = steps("list", "-o", "csv", "--fields", "id,status").out.splitlines()
        assert shown == ["id,status", f"{row['id']},queued", f"{first['id']},running"]
        for status, ids in (
            ("queued", [row]),
            ("running", [row, first]),
            ("waiting,queued", [row]),
        ):
            listed = steps("list", "--status", status, "-o", "id").out.split()
            assert listed == [one["id"] for one in ids]
        watch = Session([*COMMAND, "list", "--watch", "--status", "queued", "--full-ids"])
        watch.until(
            lambda lines: any(row["id"][:20] in line and "queued" in line for line in lines)
        )
        watch.child.sendcontrol("c")
        watch.finish()
        session = Session([*COMMAND, "get", "@last"])
        assert session.finish() == 0
        screen = " ".join(" ".join(session.everything).split())
        assert "Status queued" in screen
        assert f"Queue {message}" in screen
        waiting = Session([*COMMAND, "wait", "@last"])
        waiting.until(lambda lines: any("Queued: number 1" in line for line in lines))
    finally:
        go.touch()
    waiting.until(lambda lines: any("completed" in line for line in lines))
    assert waiting.finish() == 0
    assert "queue" not in steps("get", created.json["id"]).json


@pytest.mark.slow
def test_a_created_task_has_no_link_while_nothing_answers_at_it(steps: Run, go: Path) -> None:
    go.touch()
    done = steps("create", "Go", "-x", "steps", "--wait", "-o", "id")
    notes = [line for line in done.err.splitlines() if "Created task" in line or "/run/" in line]
    assert len(notes) == 1
    assert "http" not in json.dumps(notes)
