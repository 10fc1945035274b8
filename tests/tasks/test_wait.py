"""Waiting for tasks: when it asks, how it ends, what it tolerates. Real server, injected clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

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
from rebyte_cli.system.deadline import Deadline
from rebyte_cli.tasks.wait import MOST_ASKED, Poll, WaitTarget, patient, watch
from tests.task_board import Board, Time


@pytest.fixture
def board() -> Iterator[Board]:
    with Board() as board:
        yield board


def wait(board: Board, *ids: str | WaitTarget, at: Time | None = None, **options: Any) -> list[Any]:
    """What came out: ids of completed tasks, and errors. An id may be `task/prompt`.

    The last answers have half a minute: the machine is busy.
    """
    at = at or Time()
    limit = at.deadline(options.pop("timeout", None))
    client = options.pop("client", None) or board.client()
    times = {name: options.pop(name) for name in ("interval", "random") if name in options}
    patience = patient(client, limit, **{"random": lambda: 0.0, "grace": 30.0, **times})
    targets = [one if isinstance(one, WaitTarget) else WaitTarget(*one.split("/")) for one in ids]
    return [
        outcome if isinstance(outcome, RebyteError) else outcome["id"]
        for outcome in watch(client, targets, patience=patience, pause=at.pause, **options)
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
    wait(board, "a", at=at, random=lambda: 1.0)
    assert at.slept == pytest.approx([0.8, 0.8, 0.8])


def test_interval_fixes_the_pauses(board: Board) -> None:
    board.add("a")
    at = Time()
    at.at[100.0] = lambda: board.end("a")
    wait(board, "a", at=at, interval=2.5)
    assert set(at.slept) == {2.5}


def test_each_end_has_its_class_and_carries_its_task(board: Board) -> None:
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


def test_an_unknown_status_is_not_terminal(board: Board) -> None:
    board.add("a")
    board.end("a", status="resting")
    with pytest.raises(WaitTimeout):
        wait(board, "a", timeout=5)


def test_a_target_given_twice_ends_once(board: Board) -> None:
    board.add("a")
    board.end("a")
    assert wait(board, "a", "a") == ["a"]


def test_a_missing_task_does_not_stop_the_others(board: Board) -> None:
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


# The time limit


def test_the_limit_names_what_still_runs_and_is_not_overslept(board: Board) -> None:
    board.add("a", "b")
    board.end("a")
    at = Time()
    with pytest.raises(WaitTimeout, match=r"1 of 2 tasks is still running after 2\.5 s") as caught:
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
        time.sleep(30)
        return 200

    board.answers = mute
    client = board.client()
    began = time.monotonic()
    patience = patient(client, Deadline(0.2), grace=0.5)
    with pytest.raises((WaitTimeout, NetworkError)):
        list(watch(client, [WaitTarget("a")], patience=patience, pause=Time().pause))
    assert time.monotonic() - began < 15


# Faults


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


# Stopping at the first end (--any)


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
    client = board.client()
    outcomes = watch(
        client,
        [WaitTarget("a"), WaitTarget("b")],
        until="first-success",
        patience=patient(client, at.deadline(3)),
        pause=at.pause,
    )
    assert isinstance(next(outcomes), TaskFailed)
    assert at.now == 3
    with pytest.raises(WaitTimeout):
        next(outcomes)


# Few requests for many tasks and single prompts


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


@pytest.mark.slow
def test_a_thousand_tasks_take_at_most_twelve_requests_a_round(board: Board) -> None:
    ids = [f"task-{number}" for number in range(1000)]
    board.add(*ids)
    board.add("other-account")
    at = Counted(board)
    seen: dict[str, float] = {}

    at.at[20.0] = lambda: board.end(*ids[500:520])
    at.at[30.0] = lambda: board.end(*ids[:500], *ids[520:])
    targets = [WaitTarget(task_id) for task_id in ids]
    client = board.client()
    patience = patient(client, at.deadline())
    for outcome in watch(client, targets, patience=patience, pause=at.pause):
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
        wait(board, "a", "b", at=at, timeout=3)
    assert not any("?" in path for path in board.requests)
    with pytest.raises(WaitTimeout):
        wait(board, "a", "b", "c", at=at, timeout=3)
    assert max(at.rounds[4:]) == 2  # the list, and one of the three in turn


def test_small_pages_are_noticed(board: Board) -> None:
    ids = [f"task-{number}" for number in range(40)]
    board.add(*ids)
    board.page = 10
    for task_id in ids:
        board.end(task_id)
    assert sorted(wait(board, *ids)) == sorted(ids)


def test_tasks_that_the_list_does_not_show_are_read(board: Board) -> None:
    ids = [f"task-{number}" for number in range(10)]
    board.add(*ids)
    board.unlisted = set(ids[:5])
    at = Time()
    at.at[4.0] = lambda: board.end(ids[0])
    at.at[5.0] = lambda: board.end(*ids[1:])
    assert sorted(wait(board, *ids, at=at)) == ids
    assert at.now < 7


def test_a_list_that_shows_none_of_them_is_left_alone_for_a_while(board: Board) -> None:
    ids = ["a", "b", "c"]
    board.add(*ids)
    board.unlisted = set(ids)
    with pytest.raises(WaitTimeout):
        wait(board, *ids, timeout=30)
    assert sum("?" in path for path in board.requests) <= 4


@pytest.mark.parametrize("count", [5, 150])
def test_rows_that_never_tell_do_not_keep_it_waiting(board: Board, count: int) -> None:
    ids = [f"task-{number}" for number in range(count)]
    board.add(*ids)
    board.rows_tell = False
    for task_id in ids:
        board.end(task_id, status="failed")
    at = Time()
    outcomes = wait(board, *ids, at=at)
    assert len(outcomes) == count
    assert at.now < 10


def test_a_row_that_calls_a_running_task_ended_is_not_believed(board: Board) -> None:
    """A follow-up starts a finished task again; its row may still hold the old `completedAt`."""
    board.add("a", "b", "c")
    board.tasks["a"]["completedAt"] = "2026-02-09T10:00:00.000Z"
    at = Time()
    at.at[8.0] = lambda: board.end(*"abc")
    assert sorted(wait(board, *"abc", at=at)) == ["a", "b", "c"]
    assert 8 <= at.now < 12
    # It is read in every round instead, and no other task is.
    assert sum("?" not in path for path in board.requests) < 25


def test_without_a_list_each_is_read(board: Board) -> None:
    board.add("a", "b", "c", "d")
    board.answers = lambda path: 404 if "?" in path else 200
    at = Time()
    at.at[3.0] = lambda: board.end(*"abcd")
    assert sorted(wait(board, *"abcd", at=at)) == ["a", "b", "c", "d"]
    assert at.now < 5


def test_a_few_are_read_ahead_of_those_that_are_used(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All documents of thousands of tasks at a time would take tens of megabytes."""
    submitted: list[int] = []
    submit = ThreadPoolExecutor.submit

    def counted(self: ThreadPoolExecutor, *args: Any) -> Any:
        submitted.append(1)
        return submit(self, *args)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", counted)
    each = Poll(board.client())._each(str, range(1000))
    seen = [next(each)[1] for _ in range(10)]
    assert len(submitted) <= MOST_ASKED + 10
    assert sorted([*seen, *(answer for _, answer in each)]) == sorted(map(str, range(1000)))


def test_without_a_further_thread_the_rest_is_read_one_by_one(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted: list[int] = []
    submit = ThreadPoolExecutor.submit

    def limited(self: ThreadPoolExecutor, *args: Any) -> Any:
        submitted.append(1)
        if len(submitted) > 2:
            raise RuntimeError("can't start new thread")
        return submit(self, *args)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", limited)
    answers = Poll(board.client())._each(str, range(10))
    assert sorted(answer for _, answer in answers) == list(map(str, range(10)))
    assert len(submitted) == 3


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
    assert len(wait(board, *ids, at=at)) == 300
    assert max(at.rounds[3:5]) <= 5  # four tries at the list, one task


# Prompts


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
    assert wait(board, "a/new", at=at) == ["a"]
    assert at.now == 5.0


def test_a_prompt_has_ended_although_a_newer_one_runs(board: Board) -> None:
    board.add("a")
    prompts(board, "a", "running", mine="failed", newer="running")
    (outcome,) = wait(board, "a/mine")
    assert isinstance(outcome, TaskFailed)
    assert outcome.task["status"] == "running"


def test_a_task_and_two_of_its_prompts(board: Board) -> None:
    board.add("a", "b", "c")
    prompts(board, "a", "running", one="succeeded", two="running")
    for task_id in ("b", "c"):
        board.end(task_id)
    at = Time()
    at.at[2.0] = lambda: prompts(board, "a", "completed", one="succeeded", two="succeeded")
    targets = [
        WaitTarget("a"),
        WaitTarget("a", "one"),
        WaitTarget("a", "two"),
        WaitTarget("b"),
        WaitTarget("c"),
    ]
    assert sorted(wait(board, *targets, at=at)) == ["a", "a", "a", "b", "c"]


def test_a_task_that_is_seldom_read_is_not_given_up_for_two_faults(board: Board) -> None:
    """The list tells what runs, so ten minutes may lie between two reads of one task."""
    ids = [f"task-{number}" for number in range(60)]
    board.add(*ids)
    board.answers = lambda path: 500 if path.endswith("/task-7") else 200
    at = Time()
    at.at[1500.0] = lambda: setattr(board, "answers", lambda _path: 200)
    at.at[2000.0] = lambda: board.end(*ids)
    assert sorted(wait(board, *ids, at=at)) == sorted(ids)


# Lists that lag behind


def lists(board: Board) -> list[str]:
    return [path for path in board.requests if "?" in path]


def test_tasks_far_down_the_list_are_read_and_not_searched_for(board: Board) -> None:
    ids = ["a", "b", "c"]
    board.add(*ids, *(f"newer-{number}" for number in range(1000)))
    board.end(*ids)
    assert sorted(wait(board, *ids)) == ids
    assert len(lists(board)) <= 3


def test_pages_are_read_for_as_long_as_they_show_ours(board: Board) -> None:
    """Among as many tasks of others: a page still tells of fifty, a read of one."""
    ids = [f"task-{number}" for number in range(200)]
    for task_id in ids:
        board.add(task_id, f"other-{task_id}")
    with pytest.raises(WaitTimeout):
        wait(board, *ids, timeout=0)
    assert len(lists(board)) == 4
    assert len(board.requests) == 5


def test_a_list_that_stays_down_is_asked_seldom(board: Board) -> None:
    ids = ["a", "b", "c"]
    board.add(*ids)
    board.answers = lambda path: 503 if "?" in path else 200
    at = Time()
    at.at[40.0] = lambda: board.end(*ids)
    assert sorted(wait(board, *ids, at=at)) == ids
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
        wait(board, *ids, at=at, timeout=40)
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
    assert sorted(wait(board, *ids, at=at)) == sorted(ids)
    assert at.now < 4


def test_a_row_that_names_no_task_is_passed_over(board: Board) -> None:
    board.add("a", "b", "c")
    board.tasks["odd"] = {"id": ["a"], "completedAt": None}
    board.end("a", "b", "c")
    assert sorted(wait(board, "a", "b", "c")) == ["a", "b", "c"]


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
    assert len(wait(board, *ids, until="any")) == 1
    enough.set()
    for thread in threading.enumerate():
        if thread.name.startswith("rebyte-wait"):
            thread.join(20)
    assert len(board.requests) < 20


def test_an_old_end_in_the_list_does_not_keep_a_task_from_being_read(board: Board) -> None:
    """After a follow-up, the list still shows how the run before it ended."""
    ids = [f"task-{number}" for number in range(40)]
    board.add(*ids)
    board.stale = set(ids)
    at = Time()
    at.at[5.0] = lambda: board.end(*ids)
    assert sorted(wait(board, *ids, at=at)) == sorted(ids)
    assert at.now < 7


# How long faults are tolerated, and the size of requests


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
def test_refusals_for_a_while_are_tolerated(board: Board, ids: str) -> None:
    board.add(*ids)
    at = Time()
    at.at[5.0] = lambda: failing(board, 429)
    at.at[200.0] = lambda: failing(board, 200)
    at.at[210.0] = lambda: board.end(*ids)
    assert sorted(wait(board, *ids, at=at)) == sorted(ids)


@pytest.mark.parametrize("ids", ["a", "abcde"])
@pytest.mark.parametrize("status", [401, 403, 302])
def test_permanent_errors_end_the_wait_at_once(board: Board, ids: str, status: int) -> None:
    board.add(*ids)
    at = Time()
    at.at[5.0] = lambda: failing(board, status)
    with pytest.raises(APIError) as caught:
        wait(board, *ids, at=at)
    assert at.now < 7
    assert isinstance(caught.value, KeyRejected) == (status != 302)


def test_an_unreadable_task_is_given_up_after_five_minutes(
    board: Board,
) -> None:
    board.add("a", "b")
    board.answers = lambda path: 500 if path.endswith("/a") else 200
    at = Time()
    at.now = 7000.0
    client = board.client()
    options: Any = {"patience": patient(client, at.deadline()), "pause": at.pause}
    first = next(iter(watch(client, [WaitTarget("a"), WaitTarget("b")], **options)))
    assert isinstance(first, ServerFault)
    assert 7300 <= at.now < 7330


def test_faults_with_answers_in_between_are_tolerated(board: Board) -> None:
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
    with pytest.raises(WaitTimeout, match=r"^task a is still running after 3 s$"):
        wait(board, "a", at=Time(), timeout=3)


# Requests


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
