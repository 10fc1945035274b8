"""Waiting for many tasks, at few requests, and for single prompts of a task."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from rebyte_cli.errors import RebyteError, TaskFailed, WaitTimeout
from rebyte_cli.tasks.wait import Target, watch
from tests.task_board import Board, Time


@pytest.fixture
def board() -> Iterator[Board]:
    with Board() as board:
        yield board


class Counted(Time):
    """A clock that also notes how many requests each round took."""

    def __init__(self, board: Board) -> None:
        super().__init__()
        self._board = board
        self._before = 0
        self.rounds: list[int] = []

    def sleep(self, seconds: float) -> None:
        self.rounds.append(len(self._board.requests) - self._before)
        self._before = len(self._board.requests)
        super().sleep(seconds)


def wait(board: Board, targets: list[Target], at: Time, **options: Any) -> list[Any]:
    deadline = at.deadline(options.pop("timeout", None))
    return [
        outcome if isinstance(outcome, RebyteError) else outcome["id"]
        for outcome in watch(
            board.client(),
            targets,
            deadline=deadline,
            sleep=at.sleep,
            random=lambda: 1.0,
            **options,
        )
    ]


def test_a_thousand_tasks_take_at_most_twelve_requests_a_round(board: Board) -> None:
    ids = [f"task-{number}" for number in range(1000)]
    board.add(*ids)
    board.add("somebody-elses")
    at = Counted(board)
    seen: dict[str, float] = {}

    at.at[20.0] = lambda: board.end(*ids[500:520])
    at.at[30.0] = lambda: board.end(*ids[:500], *ids[520:])
    targets = [Target(task_id) for task_id in ids]
    for outcome in watch(board.client(), targets, deadline=at.deadline(), sleep=at.sleep):
        assert not isinstance(outcome, RebyteError)
        seen[outcome["id"]] = at.now
    assert sorted(seen) == sorted(ids)
    assert max(at.rounds[:18]) <= 12
    # Each end is noticed by the round right after it.
    assert all(20 <= seen[task_id] < 21.1 for task_id in ids[500:520])
    assert all(seen[task_id] < 31.1 for task_id in ids)
    # All in all: the rounds, one read for each task, and little more.
    assert len(board.requests) < 1000 + 12 * (len(at.rounds) + 1)


def test_three_tasks_are_asked_for_together_and_two_one_by_one(board: Board) -> None:
    board.add("a", "b", "c")
    at = Counted(board)
    with pytest.raises(WaitTimeout):
        wait(board, [Target("a"), Target("b")], at, timeout=3)
    assert not any("?" in path for path in board.requests)
    with pytest.raises(WaitTimeout):
        wait(board, [Target("a"), Target("b"), Target("c")], at, timeout=3)
    assert max(at.rounds[4:]) == 2  # the list, and one of the three in turn


def test_small_pages_are_noticed(board: Board) -> None:
    ids = [f"task-{number}" for number in range(40)]
    board.add(*ids)
    board.page = 10
    for task_id in ids:
        board.end(task_id)
    assert sorted(wait(board, [Target(one) for one in ids], Time())) == sorted(ids)


def test_tasks_that_the_list_does_not_show_are_read(board: Board) -> None:
    ids = [f"task-{number}" for number in range(10)]
    board.add(*ids)
    board.unlisted = set(ids[:5])
    at = Time()
    at.at[4.0] = lambda: board.end(ids[0])
    at.at[5.0] = lambda: board.end(*ids[1:])
    assert sorted(wait(board, [Target(one) for one in ids], at)) == ids
    assert at.now < 7


def test_a_list_that_shows_none_of_them_is_left_alone_for_a_while(board: Board) -> None:
    ids = ["a", "b", "c"]
    board.add(*ids)
    board.unlisted = set(ids)
    with pytest.raises(WaitTimeout):
        wait(board, [Target(one) for one in ids], Time(), timeout=30)
    assert sum("?" in path for path in board.requests) <= 4


@pytest.mark.parametrize("count", [5, 150])
def test_rows_that_never_tell_do_not_keep_it_waiting(board: Board, count: int) -> None:
    ids = [f"task-{number}" for number in range(count)]
    board.add(*ids)
    board.rows_tell = False
    for task_id in ids:
        board.end(task_id, status="failed")
    at = Time()
    outcomes = wait(board, [Target(one) for one in ids], at)
    assert len(outcomes) == count
    assert at.now < 10


def test_a_row_that_calls_a_running_task_ended_is_not_believed(board: Board) -> None:
    """A follow-up starts a finished task again; its row may still hold the old `completedAt`."""
    board.add("a", "b", "c")
    board.tasks["a"]["completedAt"] = "2026-02-09T10:00:00.000Z"
    at = Time()
    at.at[8.0] = lambda: board.end(*"abc")
    assert sorted(wait(board, [Target(one) for one in "abc"], at)) == ["a", "b", "c"]
    assert 8 <= at.now < 12
    # Nor is it read again in every round.
    assert sum("?" not in path for path in board.requests) < 15


def test_without_a_list_each_is_read(board: Board) -> None:
    board.add("a", "b", "c", "d")
    board.answers = lambda path: 404 if "?" in path else 200
    at = Time()
    at.at[3.0] = lambda: board.end(*"abcd")
    assert sorted(wait(board, [Target(one) for one in "abcd"], at)) == ["a", "b", "c", "d"]
    assert at.now < 5


def test_a_list_in_trouble_does_not_bring_a_read_for_each(board: Board) -> None:
    ids = [f"task-{number}" for number in range(300)]
    board.add(*ids)
    at = Counted(board)

    def down() -> None:
        board.answers = lambda path: 503 if "?" in path else 200

    def up() -> None:
        board.answers = lambda _path: 200
        for task_id in ids:
            board.end(task_id)

    at.at[3.0] = down
    at.at[5.0] = up
    assert len(wait(board, [Target(one) for one in ids], at)) == 300
    assert max(at.rounds[3:5]) <= 5  # four tries at the list, one task


# -- prompts -----------------------------------------------------------------------------------


def prompts(board: Board, task_id: str, status: str, **prompts: str) -> None:
    board.tasks[task_id].update(
        status=status,
        prompts=[{"id": name, "status": prompt} for name, prompt in prompts.items()],
    )


def test_a_prompt_is_waited_for_although_the_task_reads_completed(board: Board) -> None:
    board.add("a")
    prompts(board, "a", "completed", old="succeeded")
    at = Time()
    at.at[2.0] = lambda: prompts(board, "a", "running", old="succeeded", new="running")
    at.at[5.0] = lambda: prompts(board, "a", "completed", old="succeeded", new="succeeded")
    assert wait(board, [Target("a", "new")], at) == ["a"]
    assert at.now == 5.0


def test_a_prompt_has_ended_although_a_newer_one_runs(board: Board) -> None:
    board.add("a")
    prompts(board, "a", "running", mine="failed", newer="running")
    (outcome,) = wait(board, [Target("a", "mine")], Time())
    assert isinstance(outcome, TaskFailed)
    assert outcome.task["status"] == "running"


def test_a_task_and_two_of_its_prompts(board: Board) -> None:
    board.add("a", "b", "c")
    prompts(board, "a", "running", one="succeeded", two="running")
    for task_id in ("b", "c"):
        board.end(task_id)
    at = Time()
    at.at[2.0] = lambda: prompts(board, "a", "completed", one="succeeded", two="succeeded")
    targets = [Target("a"), Target("a", "one"), Target("a", "two"), Target("b"), Target("c")]
    assert sorted(wait(board, targets, at)) == ["a", "a", "a", "b", "c"]


def test_a_task_that_is_seldom_read_is_not_given_up_for_two_faults(board: Board) -> None:
    """The list tells what runs, so ten minutes may lie between two reads of one task."""
    ids = [f"task-{number}" for number in range(60)]
    board.add(*ids)
    board.answers = lambda path: 500 if path.endswith("/task-7") else 200
    at = Time()
    at.at[1500.0] = lambda: setattr(board, "answers", lambda _path: 200)
    at.at[2000.0] = lambda: board.end(*ids)
    assert sorted(wait(board, [Target(task_id) for task_id in ids], at)) == sorted(ids)
