"""Lines that share a workspace, follow one another, or bring files."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Done
from tests.farm import Farm, lines_of
from tests.inside import inside


@pytest.fixture
def batch(home: Path) -> Callable[..., Done]:
    def run(farm: Farm, lines: list[Any] | None, *options: str) -> Done:
        if lines is not None:
            (home / "t.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return inside("batch", "t.jsonl", *options, cwd=home, env=farm.env)

    return run


def test_one_workspace_for_all_runs_one_after_another(batch: Callable[..., Done]) -> None:
    with Farm(run=0.05) as farm:
        done = batch(farm, [{"prompt": f"Step {n}"} for n in range(3)], "-w", "ws-7")
        assert done.status == 0
        assert [body["prompt"] for body in farm.bodies] == ["Step 0", "Step 1", "Step 2"]
        assert {body["workspaceId"] for body in farm.bodies} == {"ws-7"}
        tasks = list(farm.tasks.values())
        for first, second in pairwise(tasks):
            assert first["ends"] <= farm.at[tasks.index(second)] + _wall_offset()
        assert farm.most_under_way == 1


def _wall_offset() -> float:
    return time.time() - time.monotonic()


def test_a_line_follows_another_into_its_workspace(batch: Callable[..., Done]) -> None:
    lines = [
        {"prompt": "Test", "key": "test", "workspaceId": "@build"},
        {"prompt": "Build", "key": "build"},
        {"prompt": "Else"},
    ]
    with Farm() as farm:
        done = batch(farm, lines)
        assert done.status == 0
        rows = {row["key"]: row for row in lines_of(done.out)}
        assert rows["test"]["workspaceId"] == rows["build"]["workspaceId"]
        bodies = {body["prompt"]: body for body in farm.bodies}
        assert bodies["Test"]["workspaceId"] == rows["build"]["workspaceId"]
        assert "workspaceId" not in bodies["Build"]
        order = [body["prompt"] for body in farm.bodies]
        assert order.index("Build") < order.index("Test")


def test_those_who_follow_a_failed_line_are_skipped_and_say_why(
    batch: Callable[..., Done],
) -> None:
    lines = [
        {"prompt": "Build <fail>", "key": "build"},
        {"prompt": "Test", "key": "test", "workspaceId": "@build"},
        {"prompt": "Ship", "key": "ship", "workspaceId": "@test"},
    ]
    with Farm() as farm:
        done = batch(farm, lines)
        assert done.status == 10
        rows = {row["key"]: row for row in lines_of(done.out)}
        assert [rows[key]["status"] for key in ("build", "test", "ship")] == [
            "failed",
            "skipped",
            "skipped",
        ]
        assert rows["test"]["error"]["message"] == (
            "not created: line 1 (build), which it follows, ended as failed"
        )
        assert rows["ship"]["error"]["message"].endswith("which it follows, was skipped")
        assert farm.made == {"Build <fail>": 1}
        again = batch(farm, None)
        assert lines_of(again.out) == lines_of(done.out)


def test_a_chain_goes_on_in_the_next_run(batch: Callable[..., Done]) -> None:
    lines = [
        {"prompt": "Build <run 60>", "key": "build"},
        {"prompt": "Test", "key": "test", "workspaceId": "@build"},
    ]
    with Farm() as farm:
        done = batch(farm, lines, "--timeout", "0.5")
        assert done.status == 124
        statuses = {row["key"]: row["status"] for row in lines_of(done.out)}
        assert statuses == {"build": "running", "test": "pending"}
        farm.tasks["task-00001"]["ends"] = 0.0
        done = batch(farm, None, "--no-wait")
        statuses = {row["key"]: row["status"] for row in lines_of(done.out)}
        # Nobody waits for the last one; the first had to be waited for.
        assert statuses == {"build": "completed", "test": "running"}
        assert farm.bodies[1]["workspaceId"] == "ws-00001"


def test_a_circle_stops_it_before_anything_is_sent(batch: Callable[..., Done]) -> None:
    lines = [
        {"prompt": "a", "key": "a", "workspaceId": "@b"},
        {"prompt": "b", "key": "b", "workspaceId": "@a"},
    ]
    with Farm() as farm:
        done = batch(farm, lines)
        assert done.status == 2
        assert "line 1: workspaceId: goes in a circle: a → b → a" in done.err
        assert not farm.calls


def test_files_go_up_before_the_task_and_a_shared_one_once(service: Any, home: Path) -> None:
    (home / "shared.txt").write_text("for all")
    (home / "own.txt").write_text("for one")
    lines = [
        {"prompt": "One [[run=1ms]]"},
        {"prompt": "Two [[run=1ms]]"},
        {"prompt": "Three [[run=1ms]]", "files": ["own.txt"]},
    ]
    (home / "t.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = inside("batch", "t.jsonl", "-f", "shared.txt", "-v", cwd=home)
    assert done.status == 0, done.err
    assert done.err.count("POST /files") == 2
    answers = [inside("result", row["id"], cwd=home).out for row in lines_of(done.out)]
    assert sum("shared" in answer for answer in answers) == 2
    assert sum("own" in answer for answer in answers) == 1


def test_a_rate_is_kept_over_all_workers(batch: Callable[..., Done]) -> None:
    with Farm() as farm:
        lines = [{"prompt": f"n {number}"} for number in range(8)]
        begun = time.monotonic()
        assert batch(farm, lines, "--rate", "20", "--no-wait").status == 0
        # Seven pauses of a twentieth of a second; how they lie is tested on the gate itself.
        assert time.monotonic() - begun >= 0.35


def test_jobs_bound_the_creates_under_way(batch: Callable[..., Done]) -> None:
    with Farm(delay=0.1) as farm:
        batch(farm, [{"prompt": f"n {number}"} for number in range(12)], "--jobs", "3", "--no-wait")
        assert farm.most_under_way == 3


def test_a_429_of_one_create_slows_all_of_them(batch: Callable[..., Done]) -> None:
    # The first is told to wait a second, so nobody else may be created in that second.
    lines = [{"prompt": "<429>"}, *({"prompt": f"n {number}"} for number in range(8))]
    with Farm(delay=0.1) as farm:
        done = batch(farm, lines, "--jobs", "2", "--no-wait")
        assert done.status == 0
        assert farm.tried["<429>"] == 2
        assert set(farm.made.values()) == {1}
        waits = [later - sooner for sooner, later in pairwise(sorted(farm.at))]
        assert sum(wait > 0.8 for wait in waits) == 1
