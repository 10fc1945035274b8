"""What the list of tasks is worth while many are waited for, and when it is left alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from rebyte_cli.errors import RebyteError, WaitTimeout
from rebyte_cli.tasks.wait import Target, watch
from tests.task_board import Board, Time


@pytest.fixture
def board() -> Iterator[Board]:
    with Board() as board:
        yield board


def wait(board: Board, ids: list[str], at: Time, **options: Any) -> list[Any]:
    targets = [Target(task_id) for task_id in ids]
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


def lists(board: Board) -> list[str]:
    return [path for path in board.requests if "?" in path]


def test_tasks_far_down_the_list_are_read_and_not_searched_for(board: Board) -> None:
    ids = ["a", "b", "c"]
    board.add(*ids, *(f"newer-{number}" for number in range(1000)))
    board.end(*ids)
    assert sorted(wait(board, ids, Time())) == ids
    assert len(lists(board)) <= 3


def test_pages_are_read_for_as_long_as_they_show_ours(board: Board) -> None:
    """Among as many of somebody else's: a page still tells of fifty, a read of one."""
    ids = [f"task-{number}" for number in range(200)]
    for task_id in ids:
        board.add(task_id, f"other-{task_id}")
    with pytest.raises(WaitTimeout):
        wait(board, ids, Time(), timeout=0)
    assert len(lists(board)) == 4
    assert len(board.requests) == 5


def test_a_list_that_stays_down_is_asked_seldom(board: Board) -> None:
    ids = ["a", "b", "c"]
    board.add(*ids)
    board.answers = lambda path: 503 if "?" in path else 200
    at = Time()
    at.at[40.0] = lambda: board.end(*ids)
    assert sorted(wait(board, ids, at)) == ids
    assert at.now < 43
    assert 24 <= len(lists(board)) <= 60  # four tries each, three rounds of thirteen


def test_a_list_that_comes_back_is_used_again(board: Board) -> None:
    ids = [f"task-{number}" for number in range(50)]
    board.add(*ids)
    at = Time()
    board.answers = lambda path: 503 if "?" in path else 200
    at.at[8.0] = lambda: setattr(board, "answers", lambda _path: 200)
    at.at[30.0] = board.requests.clear
    with pytest.raises(WaitTimeout):
        wait(board, ids, at, timeout=40)
    assert len(board.requests) <= 24  # the list, and one of the fifty


def test_a_later_page_in_trouble_is_a_fault_of_the_list(board: Board) -> None:
    ids = [f"task-{number}" for number in range(150)]
    board.add(*ids)
    board.answers = lambda path: 503 if "offset=100" in path else 200
    at = Time()

    def up() -> None:
        board.answers = lambda _path: 200
        board.end(*ids)

    at.at[2.0] = up
    assert sorted(wait(board, ids, at)) == sorted(ids)
    assert at.now < 4


def test_a_row_that_names_no_task_is_passed_over(board: Board) -> None:
    board.add("a", "b", "c")
    board.tasks["odd"] = {"id": ["a"], "completedAt": None}
    board.end("a", "b", "c")
    assert sorted(wait(board, ["a", "b", "c"], Time())) == ["a", "b", "c"]


def test_once_one_is_enough_the_others_are_not_asked_for(board: Board) -> None:
    ids = [f"task-{number}" for number in range(60)]
    board.add(*ids)
    board.end(*ids)
    board.unlisted = set(ids)
    asked, enough = threading.Lock(), threading.Event()

    def one_answers(path: str) -> int:
        if "?" not in path and not asked.acquire(blocking=False):
            enough.wait(20)
        return 200

    board.answers = one_answers
    assert len(wait(board, ids, Time(), until="any")) == 1
    enough.set()
    for thread in threading.enumerate():
        if thread.name.startswith("rebyte-wait"):
            thread.join(20)
    assert len(board.requests) < 20
