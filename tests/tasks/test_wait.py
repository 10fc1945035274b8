"""Waiting for tasks: when it asks, how it ends, what it survives. Real server, injected clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from rebyte_cli.deadline import Deadline
from rebyte_cli.errors import (
    APIError,
    KeyRejected,
    NetworkError,
    RebyteError,
    ResourceNotFound,
    ServerFault,
    TaskCanceled,
    TaskFailed,
    WaitTimeout,
)
from rebyte_cli.tasks.wait import Target, watch
from tests.task_board import Board, Time


@pytest.fixture
def board() -> Iterator[Board]:
    with Board() as board:
        yield board


def wait(board: Board, *ids: str, at: Time | None = None, **options: Any) -> list[Any]:
    """What came out: ids of completed tasks, and errors."""
    at = at or Time()
    deadline = at.deadline(options.pop("timeout", None))
    arguments: dict[str, Any] = {"deadline": deadline, "sleep": at.sleep, "random": lambda: 1.0}
    client = options.pop("client", None) or board.client()
    targets = [Target(*one.split("/")) for one in ids]
    return [
        outcome if isinstance(outcome, RebyteError) else outcome["id"]
        for outcome in watch(client, targets, **{**arguments, **options})
    ]


def test_asks_at_once(board: Board) -> None:
    board.add("a")
    board.end("a")
    at = Time()
    assert wait(board, "a", at=at) == ["a"]
    assert at.slept == []
    assert board.requests == ["/v1/tasks/a"]


def test_every_second_in_the_first_minute_then_at_growing_intervals(board: Board) -> None:
    board.add("a")
    at = Time()
    at.at[300.0] = lambda: board.end("a")
    wait(board, "a", at=at)
    minute = [pause for pause in at.slept[:60] if pause == 1.0]
    later = at.slept[61:]
    assert len(minute) == 60
    assert later == sorted(later)
    assert later[0] > 1.0
    assert max(later) == 10.0


def test_jitter_only_ever_asks_a_little_earlier(board: Board) -> None:
    board.add("a")
    at = Time()
    at.at[2.0] = lambda: board.end("a")
    wait(board, "a", at=at, random=lambda: 0.0)
    assert at.slept == pytest.approx([0.8, 0.8, 0.8])


def test_interval_fixes_the_pauses(board: Board) -> None:
    board.add("a")
    at = Time()
    at.at[100.0] = lambda: board.end("a")
    wait(board, "a", at=at, interval=2.5)
    assert set(at.slept) == {2.5}


def test_each_end_is_told_apart_and_carries_its_task(board: Board) -> None:
    board.add("a", "b", "c", "d")
    board.end("b", status="failed")
    board.end("c", status="cancelled")
    board.end("d", status="succeeded")
    at = Time()
    at.at[3.0] = lambda: board.end("a")
    outcomes = wait(board, "a", "b", "c", "d", at=at)
    assert outcomes[-1] == "a"
    by_type = {type(outcome): outcome for outcome in outcomes}
    assert by_type[TaskFailed].task == board.tasks["b"]
    assert by_type[TaskCanceled].task == board.tasks["c"]
    assert "d" in outcomes


def test_a_word_nobody_knows_is_no_end(board: Board) -> None:
    board.add("a")
    board.end("a", status="resting")
    with pytest.raises(WaitTimeout):
        wait(board, "a", timeout=5)


def test_a_target_given_twice_ends_once(board: Board) -> None:
    board.add("a")
    board.end("a")
    assert wait(board, "a", "a") == ["a"]


def test_one_that_is_not_there_does_not_keep_the_others(board: Board) -> None:
    board.add("a", "b", "c")
    for task_id in "abc":
        board.end(task_id)
    *_, first = sorted(wait(board, "a", "gone", "b", "c"), key=lambda one: not isinstance(one, str))
    assert isinstance(first, ResourceNotFound)
    assert first.exit_status == 4


def test_progress_counts(board: Board) -> None:
    board.add("a", "b")
    board.end("a")
    at = Time()
    at.at[1.0] = lambda: board.end("b")
    told: list[tuple[int, int]] = []
    wait(board, "a", "b", at=at, progress=lambda done, total: told.append((done, total)))
    assert told == [(0, 2), (1, 2), (2, 2)]


# -- the time limit ----------------------------------------------------------------------------


def test_the_limit_names_what_still_runs_and_is_not_overslept(board: Board) -> None:
    board.add("a", "b")
    board.end("a")
    at = Time()
    with pytest.raises(WaitTimeout, match=r"1 of 2 tasks still running after 2\.5 s") as caught:
        wait(board, "a", "b", at=at, timeout=2.5)
    assert caught.value.pending == ["b"]
    assert caught.value.exit_status == 124
    assert at.now == 2.5


def test_it_asks_once_more_at_the_limit(board: Board) -> None:
    board.add("a")
    at = Time()
    at.at[7.0] = lambda: board.end("a")
    assert wait(board, "a", at=at, timeout=7, interval=60) == ["a"]


def test_no_time_at_all_still_asks_once(board: Board) -> None:
    board.add("a")
    board.end("a")
    assert wait(board, "a", timeout=0) == ["a"]


def test_a_server_that_says_nothing_does_not_stretch_the_limit(board: Board) -> None:
    board.add("a")

    def mute(_path: str) -> int:
        time.sleep(8)
        return 200

    board.answers = mute
    client = board.client()
    began = time.monotonic()
    with pytest.raises((WaitTimeout, NetworkError)):
        list(watch(client, [Target("a")], deadline=Deadline(0.2)))
    assert time.monotonic() - began < 4


# -- faults ------------------------------------------------------------------------------------


def test_faults_in_between_are_survived(board: Board) -> None:
    board.add("a")
    at = Time()

    def down() -> None:
        board.answers = lambda _path: 503

    def up() -> None:
        board.answers = lambda _path: 200
        board.end("a")

    at.at[2.0] = down
    at.at[200.0] = up
    assert wait(board, "a", at=at) == ["a"]


def test_five_minutes_without_an_answer_are_enough(board: Board) -> None:
    board.add("a")
    at = Time()

    def down() -> None:
        board.answers = lambda _path: 503

    at.at[10.0] = down
    with pytest.raises(ServerFault):
        wait(board, "a", at=at)
    assert 310 <= at.now <= 330


def test_a_service_that_never_answered_is_given_up_at_once() -> None:
    with Board() as board:
        client = board.client()
    at = Time()
    with pytest.raises(NetworkError):
        wait(board, "a", at=at, client=client)
    assert at.slept == []


def test_a_rejected_key_ends_it_at_once(board: Board) -> None:
    board.add("a", "b", "c", "d")
    at = Time()

    def revoke() -> None:
        board.answers = lambda _path: 401

    at.at[5.0] = revoke
    with pytest.raises(KeyRejected):
        wait(board, "a", "b", "c", "d", at=at)
    assert at.now < 7


def test_one_task_that_cannot_be_read_is_given_up_after_five_minutes(board: Board) -> None:
    board.add("a", "b")
    board.answers = lambda path: 500 if path.endswith("/a") else 200
    at = Time()
    at.at[400.0] = lambda: board.end("b")
    broken, fine = wait(board, "a", "b", at=at)
    assert isinstance(broken, APIError)
    assert fine == "b"


# -- one is enough -----------------------------------------------------------------------------


def test_any_stops_after_the_first_that_ended_however_it_did(board: Board) -> None:
    board.add("a", "b", "c")
    at = Time()
    at.at[3.0] = lambda: board.end("b", status="failed")
    at.at[9.0] = lambda: board.end("a")
    (outcome,) = wait(board, "a", "b", "c", at=at, until="any")
    assert isinstance(outcome, TaskFailed)
    assert at.now < 5


def test_any_does_not_take_a_missing_task_for_an_end(board: Board) -> None:
    board.add("a")
    at = Time()
    at.at[3.0] = lambda: board.end("a")
    missing, ended = wait(board, "gone", "a", at=at, until="any")
    assert isinstance(missing, ResourceNotFound)
    assert ended == "a"


def test_first_success_passes_over_failures(board: Board) -> None:
    board.add("a", "b", "c")
    at = Time()
    at.at[3.0] = lambda: board.end("b", status="failed")
    at.at[6.0] = lambda: board.end("a")
    assert wait(board, "a", "b", "c", at=at, until="first-success") == ["a"]


def test_first_success_without_any_shows_every_failure(board: Board) -> None:
    board.add("a", "b")
    at = Time()
    at.at[3.0] = lambda: board.end("b", status="failed")
    at.at[6.0] = lambda: board.end("a", status="canceled")
    failed, canceled = wait(board, "a", "b", at=at, until="first-success")
    assert isinstance(failed, TaskFailed)
    assert isinstance(canceled, TaskCanceled)


def test_first_success_at_the_limit_shows_what_failed_so_far(board: Board) -> None:
    board.add("a", "b")
    board.end("a", status="failed")
    at = Time()
    outcomes = watch(
        board.client(),
        [Target("a"), Target("b")],
        until="first-success",
        deadline=at.deadline(3),
        sleep=at.sleep,
    )
    assert isinstance(next(outcomes), TaskFailed)
    assert at.now == 3
    with pytest.raises(WaitTimeout):
        next(outcomes)
