"""What a batch does next with a line that has a past, or none."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.batch.runner import MOST, PAUSE, HistoryWriter
from rebyte_cli.deadline import NO_LIMIT
from rebyte_cli.errors import RebyteError
from tests import farm as farm_module
from tests.conftest import Done
from tests.farm import Farm, lines_of
from tests.inside import inside
from tests.keyring_daemon import eventually
from tests.servers import Answer, Request, reset

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


# -- What the history is told of a batch, when, and after what.

BODY = {"prompt": "Say hi", "model": "big"}


class Told:
    """Journal, claims and history in one, which write down what they are told, in order."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []
        self.journal_fails = False
        stand_in: Any = self
        self.memory = HistoryWriter(
            stand_in,
            stand_in,
            lambda tasks: self.heard.append(("made", tasks)),
            lambda tasks: self.heard.append(("ended", tasks)),
        )

    def settle(self) -> None:
        self.heard.append(("settle", None))
        if self.journal_fails:
            raise RebyteError("no space")

    def over(self, number: int, task: str | None = None) -> None:
        """A claim is let go with the next flush."""

    def flush(self) -> None:
        self.heard.append(("flush", None))


def test_it_is_told_a_little_later_and_after_the_journal() -> None:
    told = Told()
    told.memory.made(1, {"id": "t1"}, BODY)
    told.memory.ended({"id": "t1", "title": "T", "status": "failed", "completedAt": "c", "x": 1})
    assert told.memory.due is not NO_LIMIT
    assert told.heard == []
    told.memory.flush()
    assert told.memory.due is NO_LIMIT
    assert told.heard == [
        ("settle", None),
        ("made", [({"id": "t1"}, "Say hi", BODY)]),
        ("ended", [{"id": "t1", "title": "T", "status": "failed", "completedAt": "c"}]),
        ("flush", None),
    ]


def test_whatever_comes_first_sets_the_time() -> None:
    for note in (
        lambda memory: memory.made(1, {"id": "t1"}, BODY),
        lambda memory: memory.not_made(1),
        lambda memory: memory.ended({"id": "t1"}),
    ):
        memory = Told().memory
        note(memory)
        due = memory.due
        assert due is not NO_LIMIT
        memory.not_made(2)
        assert memory.due == due
    assert PAUSE < 1, "a batch that is killed has told nearly all"


def test_of_many_it_is_told_at_once() -> None:
    told = Told()
    for number in range(MOST):
        assert told.heard == []
        told.memory.ended({"id": f"t{number}"})
    assert [kind for kind, _ in told.heard] == ["settle", "ended", "flush"]


def test_it_never_knows_what_the_journal_could_not_write() -> None:
    told = Told()
    told.journal_fails = True
    told.memory.made(1, {"id": "t1"}, BODY)
    told.memory.flush()
    assert told.heard == [("settle", None)]
