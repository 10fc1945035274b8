"""What a batch does next with a line that has a past, or none."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from . import farm as farm_module
from .conftest import Done
from .farm import Farm, lines_of
from .inside import inside
from .keyring_daemon import eventually
from .servers import Answer, Request, reset

Batch = Callable[..., Done]


@pytest.fixture
def batch(home: Path) -> Batch:
    def run(farm: Farm, lines: list[str] | None, *options: str) -> Done:
        if lines is not None:
            (home / "t.txt").write_text("".join(f"{line}\n" for line in lines))
        return inside("batch", "t.txt", "--text", *options, cwd=home, env=farm.env)

    return run


def statuses(done: Done) -> list[str]:
    rows = sorted(lines_of(done.out), key=lambda row: int(row["line"]))
    return [row["status"] for row in rows]


def test_a_line_that_fails_keeps_no_other_from_being_created(batch: Batch) -> None:
    with Farm() as farm:
        done = batch(farm, ["One <400>", "Two <fail>", "Three"], "--jobs", "1")
    assert statuses(done) == ["refused", "failed", "completed"]


def test_a_row_comes_when_its_task_is_made_and_nobody_waits_for_its_end(batch: Batch) -> None:
    def hook(request: Request) -> None:
        if len(farm.tasks) == 1 and request.method == "POST":
            eventually(lambda: '"line":1' in getattr(sys.stdout, "text", ""))
            came.append(request.json["prompt"])

    came: list[str] = []
    with Farm(run=60, hook=hook) as farm:
        done = batch(farm, ["One", "Two"], "--no-wait", "--jobs", "1")
    assert came == ["Two"]
    assert statuses(done) == ["running", "running"]


def test_a_follower_that_runs_already_is_not_made_again(batch: Batch) -> None:
    with Farm() as farm:
        lines = ["One", "Two <run 60>", "Three"]
        first = batch(farm, lines, "-w", "ws-7", "--timeout", "0.5")
        assert statuses(first) == ["completed", "running", "pending"]
        farm.tasks["task-00002"]["ends"] = 0.0
        assert statuses(batch(farm, None, "-w", "ws-7")) == ["completed"] * 3
        assert list(farm.made.values()) == [1, 1, 1]


def test_retrying_what_failed_leaves_alone_what_runs(batch: Batch) -> None:
    with Farm() as farm:
        batch(farm, ["One <run 60>", "Two <fail>"], "--timeout", "0.5")
        done = batch(farm, None, "--retry-failed", "--timeout", "0.5")
    assert statuses(done) == ["running", "failed"]
    assert farm.made == {"One <run 60>": 1, "Two <fail>": 2}


def test_retried_after_a_fault_it_is_sent_at_once_where_the_fault_made_no_task(
    batch: Batch, one_clock: None
) -> None:
    with Farm() as farm:
        assert batch(farm, ["One <500>"]).status == 5
        tried = farm.tried["One <500>"]
        done = batch(farm, None, "--retry-failed", "--timeout", "5")
        assert farm.tried["One <500>"] > tried
        assert "its create made no task; sending it again" in done.err
    assert statuses(done) == ["refused"]


def test_retried_after_a_fault_it_is_unknown_until_it_is_found(batch: Batch) -> None:
    with Farm() as farm:
        batch(farm, ["One <500>"])
        done = batch(farm, None, "--retry-failed", "--timeout", "0.3")
    assert (done.status, statuses(done)) == (6, ["unknown"])


def test_the_task_that_failed_is_not_taken_for_the_next_one(
    batch: Batch, home: Path, one_clock: None
) -> None:
    """Not even where the history is gone, and the clock of the service is behind."""
    prompt = "One <fail>"

    def hook(request: Request) -> Answer | None:
        if request.method == "POST" and farm.made and not lost:
            lost.append(request.json)
            return reset
        return None

    lost: list[Any] = []
    with Farm(hook=hook) as farm:
        assert batch(farm, [prompt]).status == 10
        next(home.rglob("history.db")).unlink()
        farm.tasks["task-00001"]["createdAt"] = farm_module._stamp(time.time() + 0.05)
        done = batch(farm, None, "--retry-failed", "--resend-after", "0.1")
        assert lost
        assert farm.made == {prompt: 2}
    assert lines_of(done.out)[0]["id"] == "task-00002"
