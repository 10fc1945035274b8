"""How long faults are borne while waiting, and how much is asked for: the edges of both."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from rebyte_cli.errors import APIError, KeyRejected, RebyteError, ServerFault, WaitTimeout
from rebyte_cli.tasks.wait import Target, watch
from tests.task_board import Board, Time


@pytest.fixture
def board() -> Iterator[Board]:
    with Board() as board:
        yield board


def wait(board: Board, *ids: str, at: Time, **options: Any) -> list[Any]:
    """What came out: ids of completed tasks, and errors."""
    deadline = at.deadline(options.pop("timeout", None))
    arguments: dict[str, Any] = {"deadline": deadline, "sleep": at.sleep, "random": lambda: 1.0}
    return [
        outcome if isinstance(outcome, RebyteError) else outcome["id"]
        for outcome in watch(
            board.client(), [Target(one) for one in ids], **{**arguments, **options}
        )
    ]


def failing(board: Board, status: int) -> None:
    board.answers = lambda _path: status


def test_the_first_minute_counts_from_the_beginning_of_the_wait(board: Board) -> None:
    board.add("a")
    at = Time()
    at.now = 5000.0  # a clock has its own idea of zero
    at.at[5300.0] = lambda: board.end("a")
    wait(board, "a", at=at)
    assert at.slept[:60] == [1.0] * 60
    later = at.slept[61:-1]
    assert all(after <= before * 1.3 for before, after in pairwise(later)), "it grows step by step"


def test_two_outages_are_not_added_up(board: Board) -> None:
    board.add("a")
    at = Time()
    for begin in (100.0, 500.0):
        at.at[begin] = lambda: failing(board, 503)
        at.at[begin + 200] = lambda: failing(board, 200)
    at.at[900.0] = lambda: board.end("a")
    assert wait(board, "a", at=at) == ["a"]


@pytest.mark.parametrize("ids", ["a", "abcde"])
def test_being_turned_away_for_a_while_is_borne(board: Board, ids: str) -> None:
    board.add(*ids)
    at = Time()
    at.at[5.0] = lambda: failing(board, 429)
    at.at[200.0] = lambda: failing(board, 200)
    at.at[210.0] = lambda: board.end(*ids)
    assert sorted(wait(board, *ids, at=at)) == sorted(ids)


@pytest.mark.parametrize("ids", ["a", "abcde"])
@pytest.mark.parametrize("status", [401, 403, 302])
def test_what_no_patience_mends_ends_it_at_once(board: Board, ids: str, status: int) -> None:
    board.add(*ids)
    at = Time()
    at.at[5.0] = lambda: failing(board, status)
    with pytest.raises(APIError) as caught:
        wait(board, *ids, at=at)
    assert at.now < 7
    assert isinstance(caught.value, KeyRejected) == (status != 302)


def test_one_that_cannot_be_read_is_given_up_no_sooner_than_after_five_minutes(
    board: Board,
) -> None:
    board.add("a", "b")
    board.answers = lambda path: 500 if path.endswith("/a") else 200
    at = Time()
    at.now = 7000.0
    options: Any = {"deadline": at.deadline(), "sleep": at.sleep}
    first = next(iter(watch(board.client(), [Target("a"), Target("b")], **options)))
    assert isinstance(first, ServerFault)
    assert 7300 <= at.now < 7330


def test_faults_with_answers_in_between_are_no_reason_to_give_up(board: Board) -> None:
    board.add("a", "b")
    turn = [0]

    def every_other(path: str) -> int:
        turn[0] += path.endswith("/a")
        return 500 if path.endswith("/a") and turn[0] % 2 else 200

    board.answers = every_other
    at = Time()
    at.at[1000.0] = lambda: board.end("a", "b")
    assert sorted(wait(board, "a", "b", at=at)) == ["a", "b"]


def test_a_list_that_answers_is_an_answer(board: Board) -> None:
    """Only that one task is given up which ended and cannot be read; the others are waited for."""
    board.add("a", "b", "c", "d")
    board.answers = lambda path: 200 if "?" in path else 500
    at = Time()
    at.at[10.0] = lambda: board.end("a")
    at.at[200.0] = lambda: setattr(
        board, "answers", lambda path: 500 if path.endswith("/a") else 200
    )
    at.at[700.0] = lambda: board.end("b", "c", "d")
    broken, *fine = wait(board, "a", "b", "c", "d", at=at)
    assert isinstance(broken, ServerFault)
    assert sorted(fine) == ["b", "c", "d"]


def test_a_call_at_the_very_limit_still_has_time_to_be_answered(board: Board) -> None:
    board.add("a")
    board.end("a")

    def slowly(_path: str) -> int:
        time.sleep(0.2)  # real: it is the socket that must not give up
        return 200

    board.answers = slowly
    assert wait(board, "a", at=Time(), timeout=0) == ["a"]


def test_the_limit_of_a_single_task_names_it(board: Board) -> None:
    board.add("a")
    with pytest.raises(WaitTimeout, match=r"^task a still running after 3 s$"):
        wait(board, "a", at=Time(), timeout=3)


# -- what is asked for -------------------------------------------------------------------------


def asked(board: Board) -> list[tuple[int, int]]:
    """(limit, offset) of each request for the list so far."""
    queries = [parse_qs(urlsplit(path).query) for path in board.requests if "?" in path]
    return [(int(query["limit"][0]), int(query["offset"][0])) for query in queries]


def reads(board: Board) -> int:
    return sum("?" not in path for path in board.requests)


def one_round(board: Board, *ids: str) -> None:
    """One round of asking, as the second of a wait."""
    at = Time()
    at.at[1.0] = board.requests.clear
    with pytest.raises(WaitTimeout):
        wait(board, *ids, at=at, timeout=1)


def test_the_list_is_asked_a_hundred_at_a_time_and_no_further_than_it_goes(board: Board) -> None:
    ids = [f"task-{number}" for number in range(250)]
    board.add(*ids)
    one_round(board, *ids)
    assert asked(board) == [(100, 0), (100, 100), (100, 200)]
    assert reads(board) == 1  # one that the list calls running, to hold it to its word


def test_tasks_behind_many_of_others_are_found_in_the_list(board: Board) -> None:
    ids = [f"task-{number}" for number in range(50)]
    board.add(*ids)
    board.add(*(f"other-{number}" for number in range(230)))
    one_round(board, *ids)
    assert asked(board) == [(100, 0), (100, 100), (100, 200)]
    assert reads(board) == 1


def test_two_tasks_are_read_and_three_are_looked_up(board: Board) -> None:
    board.add("a", "b", "c")
    one_round(board, "a", "b")
    assert (len(asked(board)), reads(board)) == (0, 2)
    one_round(board, "a", "b", "c")
    assert (len(asked(board)), reads(board)) == (1, 1)


@pytest.mark.parametrize("total", [None, True, "250"])
def test_a_list_that_does_not_say_how_long_it_is(board: Board, total: object) -> None:
    ids = [f"task-{number}" for number in range(250)]
    board.add(*ids)
    whole = board.answer

    def without(target: str) -> tuple[int, Any]:
        status, document = whole(target)
        if "?" in target:
            document = {**document, "total": total}
        return status, document

    board.answer = without  # type: ignore[method-assign]  # this board tells less
    one_round(board, *ids)
    # The first page says that there may be a second; each further one is asked in turn, until
    # one is not full. What is not seen in the list is read.
    assert [offset for _, offset in asked(board)][:2] == [0, 100]
    assert reads(board) <= 150
    at = Time()
    at.at[3.0] = lambda: board.end(*ids)
    assert sorted(wait(board, *ids, at=at)) == sorted(ids)
