"""`--max-running`: how many tasks of a batch may run at a time, whatever happens to its lines."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Done
from tests.farm import Farm, statuses
from tests.inside import inside
from tests.servers import Request

Batch = Callable[..., Done]


class Crowd(Farm):
    """A farm that notes how many of its tasks run whenever a create comes, that one included."""

    def __init__(self, **options: Any) -> None:
        self.running: list[int] = []
        super().__init__(hook=self._count, **options)

    def _count(self, request: Request) -> None:
        if request.method == "POST":
            self.running.append(1 + sum(task["ends"] > time.time() for task in self.tasks.values()))


@pytest.fixture
def batch(home: Path) -> Batch:
    def run(farm: Farm, lines: list[str], *options: str) -> Done:
        (home / "t.txt").write_text("".join(f"{line}\n" for line in lines))
        return inside("batch", "t.txt", "--text", *options, cwd=home, env=farm.env)

    return run


def test_no_more_run_at_a_time(batch: Batch) -> None:
    lines = [f"Task {number}" for number in range(12)]
    with Crowd(run=0.2) as farm:
        done = batch(farm, lines, "--jobs", "8", "--max-running", "3")
    assert statuses(done) == ["completed"] * 12
    assert max(farm.running) == 3
    assert farm.most_under_way <= 3


def test_without_it_jobs_bounds_creates_only(batch: Batch) -> None:
    with Crowd(run=2) as farm:
        batch(farm, [f"Task {number}" for number in range(12)], "--jobs", "2")
    assert farm.most_under_way <= 2 < max(farm.running)


def test_lines_that_fail_make_room(batch: Batch) -> None:
    lines = ["One <400>", "Two <fail>", "Three <500>", "Four <429>", "Five <cancel>", "Six"]
    with Crowd(run=0.05) as farm:
        done = batch(farm, lines, "--max-running", "1")
    assert statuses(done) == ["refused", "failed", "refused", "completed", "canceled", "completed"]
    assert max(farm.running) == 1


def test_what_an_earlier_run_left_running_counts(batch: Batch) -> None:
    lines = [f"Task {number}" for number in range(6)]
    with Crowd(run=60) as farm:
        first = batch(farm, lines, "--max-running", "2", "--timeout", "0.5")
        assert statuses(first) == ["running"] * 2 + ["pending"] * 4
        again = batch(farm, lines, "--max-running", "2", "--timeout", "0.5")
        assert statuses(again) == statuses(first)
        assert max(farm.running) == 2
        farm.run = 0.5  # so that two of them run at the same time on a busy machine too
        for task in farm.tasks.values():
            task["ends"] = 0.0
        farm.running.clear()
        done = batch(farm, lines, "--max-running", "2")
    assert statuses(done) == ["completed"] * 6
    assert max(farm.running) == 2


def test_a_lost_create_counts_until_its_task_is_found(batch: Batch, one_clock: None) -> None:
    lines = ["One <cut> <run 0.3>", "Two <cut-before>", "Three", "Four"]
    with Crowd(run=0.1) as farm:
        done = batch(farm, lines, "--max-running", "1", "--resend-after", "0.2")
    assert statuses(done) == ["completed"] * 4
    assert max(farm.running) == 1
    assert set(farm.made.values()) == {1}


def test_a_create_that_is_never_known_keeps_its_place_and_holds_nothing_up(
    batch: Batch, one_clock: None
) -> None:
    """Its task may run for hours, and nothing tells: the other lines are left for the next run."""
    lines = ["One <cut>", "Two", "Three"]
    with Crowd(silent=True, run=60) as farm:
        farm.page = lambda answer: {**answer, "data": [], "total": 0}
        done = batch(farm, lines, "--max-running", "1", "--resend-after", "60")
        assert (done.status, statuses(done)) == (6, ["unknown", "pending", "pending"])
        assert "2 lines were not created: 1 with an unknown outcome may still run" in done.err
        farm.run = 0.0
        done = batch(farm, lines, "--max-running", "1", "--resolve", "1=none")
    assert statuses(done) == ["completed"] * 3


def test_lines_of_one_workspace_take_turns_with_others(home: Path) -> None:
    text = "".join(f'{{"prompt": "Step {n}", "workspaceId": "ws-7"}}\n' for n in range(4))
    (home / "t.jsonl").write_text(text + '{"prompt": "Other"}\n' * 4)
    with Crowd(run=0.05) as farm:
        done = inside("batch", "t.jsonl", "--max-running", "1", cwd=home, env=farm.env)
    assert statuses(done) == ["completed"] * 8
    assert max(farm.running) == 1
    steps = [body["prompt"] for body in farm.bodies if "workspaceId" in body]
    assert steps == [f"Step {n}" for n in range(4)]


def test_a_question_without_an_answer_makes_room(inside_local: Batch, home: Path) -> None:
    (home / "t.txt").write_text("Ask [[ask]] [[run=1ms]]\nTwo [[run=1ms]]\nThree [[run=1ms]]\n")
    done = inside_local("batch", "t.txt", "--text", "--max-running", "1")
    assert (done.status, statuses(done)) == (12, ["waiting", "completed", "completed"])


def test_it_is_for_a_command_that_watches(inside: Batch, home: Path) -> None:
    (home / "t.txt").write_text("One\n")
    done = inside("batch", "t.txt", "--text", "--max-running", "2", "--no-wait")
    assert (done.status, "--max-running requires --wait" in done.err) == (2, True)
    assert inside("batch", "t.txt", "--text", "--max-running", "0").status == 2
