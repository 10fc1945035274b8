"""The thread of a batch that asks again and again: when it asks, and what ends it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue
from types import SimpleNamespace
from typing import Any

import pytest

from rebyte_cli.batch.poller import Poller, watch_tasks
from rebyte_cli.batch.throttle import Throttle, ThrottleStopped
from rebyte_cli.errors import APIError, KeyRejected, NetworkError, ServerFault
from rebyte_cli.tasks.wait import Poll
from tests.batch.test_lost_lines import Known
from tests.conftest import Done
from tests.farm import Farm, lines_of
from tests.inside import inside
from tests.servers import Answer, Request, error_reply, json_reply
from tests.waiting import eventually

SOON = 30.0  # seconds; it takes hardly any


class Bench:
    """Rounds whose every look is put in `asked`, and does what `act` says."""

    def __init__(self) -> None:
        self.act: Callable[[], None] = lambda: None
        self.asked: Queue[dict[int, str]] = Queue()
        self.paused: Queue[tuple[float, int]] = Queue()
        self.reports: Queue[tuple[Any, ...]] = Queue()
        self.seconds = 0.01
        self.throttle = Throttle()
        self.client: Any = Known()
        self.rounds = self.poller(self.throttle)

    def poller(self, throttle: Throttle) -> Poller[str]:
        return Poller("bench", self.client, throttle, self.report, ask=self.ask, pause=self.pause)

    def report(self, *report: Any) -> None:
        self.reports.put(report)

    def ask(self, things: dict[int, str]) -> None:
        self.asked.put(things)
        self.act()

    def pause(self, since: float, count: int) -> float:
        self.paused.put((since, count))
        return self.seconds

    def raising(self, error: Exception) -> None:
        def act() -> None:
            raise error

        self.act = act

    def has_ended(self) -> bool:
        return not any(thread.name == "bench" for thread in threading.enumerate())


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.rounds.stop()
    eventually(bench.has_ended)


def test_a_mistake_of_ours_is_told_and_ends_it(bench: Bench) -> None:
    error = ZeroDivisionError()
    bench.raising(error)
    bench.rounds.add(1, "t1")
    assert bench.reports.get(timeout=SOON) == ("crash", None, error)
    eventually(bench.has_ended)
    assert bench.asked.qsize() == 1


def test_a_batch_does_not_hang_after_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A patch, since no answer of a server is known that does it."""

    def wrong(*_: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(Poll, "round", wrong)
    (home / "t.txt").write_text("Task <run 60>\nAnother\n")
    before = set(threading.enumerate())
    with Farm() as farm:
        done = inside("batch", "t.txt", "--text", "--rate", "0.1", cwd=home, env=farm.env)
    assert (done.status, "ZeroDivisionError" in done.err) == (1, True)
    eventually(lambda: not at_work(before))  # nor does anything wait to be sent


@pytest.mark.parametrize(
    ("prompt", "options", "status"),
    [("Task <cut>", [], 6), ("Task <run 60>", ["--timeout", "0.2"], 124)],
    ids=["lost", "running"],
)
def test_nothing_is_asked_about_when_it_has_ended(
    prompt: str, options: list[str], status: int, home: Path, pace: Callable[..., None]
) -> None:
    pace()
    (home / "t.txt").write_text(prompt)
    before = set(threading.enumerate())
    with Farm(silent=True) as farm:
        done = inside("batch", "t.txt", "--text", *options, cwd=home, env=farm.env)
        assert done.status == status, done.err
        eventually(lambda: not at_work(before))


def at_work(before: set[threading.Thread]) -> list[str]:
    """The threads of a batch that are left."""
    names = [thread.name for thread in set(threading.enumerate()) - before]
    return [name for name in names if name.startswith(("create-", "watch", "search", "journal"))]


def test_every_item_is_polled_until_it_is_dropped(bench: Bench) -> None:
    bench.rounds.add(1, "t1")
    assert bench.asked.get(timeout=SOON) == {1: "t1"}
    bench.rounds.add(2, "t2")
    eventually(lambda: bench.asked.get(timeout=SOON) == {1: "t1", 2: "t2"})
    bench.rounds.drop(1)
    eventually(lambda: bench.asked.get(timeout=SOON) == {2: "t2"})
    bench.rounds.drop(2)
    bench.rounds.drop(2)  # dropped already: by the look that is under way
    with suppress(Empty):
        while True:
            bench.asked.get_nowait()
    time.sleep(0.1)
    assert bench.asked.qsize() <= 1, "one look may have been under way"
    with suppress(Empty):
        bench.asked.get_nowait()
    bench.rounds.add(3, "t3")
    assert bench.asked.get(timeout=SOON) == {3: "t3"}
    assert bench.reports.empty()


def test_its_pauses_count_from_look_to_look(bench: Bench) -> None:
    """However slow the answers are, on a clock that moves only with the looks."""
    now = [1000.0]
    bench.rounds = bench.poller(Throttle(clock=lambda: now[0]))

    def act() -> None:
        now[0] += 400.0

    bench.act, bench.seconds = act, 400.0
    bench.rounds.add(1, "t1")
    began = [bench.paused.get(timeout=SOON) for _ in range(3)]
    assert began == [(0.0, 1), (400.0, 1), (800.0, 1)], "seconds since it was added"


def test_the_pause_is_kept(bench: Bench) -> None:
    bench.seconds = 0.25
    begun = time.monotonic()
    bench.rounds.add(1, "t1")
    for _ in range(2):
        bench.asked.get(timeout=SOON)
    assert time.monotonic() - begun >= 0.2


@pytest.mark.parametrize("is_alone", [True, False])
def test_a_new_item_does_not_wait_out_a_long_pause(bench: Bench, is_alone: bool) -> None:
    """Neither after the round that dropped all others, nor beside one that is polled seldom."""
    bench.seconds = 600.0
    bench.act = lambda: bench.rounds.drop(1) if is_alone else None
    bench.rounds.add(1, "t1")
    bench.asked.get(timeout=SOON)
    bench.paused.get(timeout=SOON)
    bench.seconds = 0.01
    bench.rounds.add(2, "t2")
    old = {} if is_alone else {1: "t1"}
    assert bench.asked.get(timeout=SOON) == {**old, 2: "t2"}


@pytest.mark.parametrize("busy", [True, False])
def test_the_poller_stops_at_once(bench: Bench, busy: bool) -> None:
    """In a pause, and with nothing to ask about."""
    bench.seconds = 60.0 if busy else 0.01
    bench.rounds.add(1, "t1")
    bench.asked.get(timeout=SOON)
    if not busy:
        bench.rounds.drop(1)
    bench.paused.get(timeout=SOON)
    bench.rounds.stop()
    eventually(bench.has_ended)
    assert bench.reports.empty()


def test_a_stopped_poller_reports_nothing(bench: Bench) -> None:
    bench.raising(ThrottleStopped())
    bench.rounds.add(1, "t1")
    bench.asked.get(timeout=SOON)
    eventually(bench.has_ended)
    assert bench.reports.empty()


@pytest.mark.parametrize("error", [NetworkError("gone"), ServerFault("down", status_code=503)])
def test_a_fault_closes_the_gate_until_a_look_succeeds(bench: Bench, error: APIError) -> None:
    bench.raising(error)
    bench.rounds.add(1, "t1")
    eventually(lambda: bench.throttle.network_is_down)
    bench.act = lambda: None
    eventually(lambda: not bench.throttle.network_is_down)
    assert bench.reports.empty()


@pytest.mark.parametrize("known", [True, False])
def test_permanent_errors_end_the_batch(bench: Bench, known: bool) -> None:
    """A refused key, and a service that never answered: its address is wrong."""
    error = KeyRejected("no", status_code=401) if known else NetworkError("refused")
    if not known:
        bench.client.transport = SimpleNamespace(has_answered=False)
    bench.raising(error)
    bench.rounds.add(1, "t1")
    assert bench.reports.get(timeout=SOON) == ("fatal", None, error)
    eventually(bench.has_ended)
    assert not bench.throttle.network_is_down


@pytest.mark.parametrize(
    ("since", "count", "seconds"),
    [
        (0.0, 1, 0.25),
        (2.9, 10, 0.25),
        (2.9, 11, 1.0),
        (3.0, 1, 1.0),
        (120.0, 1, 2.0),
        (900.0, 5000, 10.0),
    ],
)
def test_young_tasks_are_asked_about_often(since: float, count: int, seconds: float) -> None:
    client: Any = Known()
    assert watch_tasks(client, Throttle(), print).pause(since, count) == seconds


# Tasks that were created and cannot be read afterwards

FIRST = "/v1/tasks/task-00001"
Batch = Callable[..., Done]


def answering(answer: Answer) -> Callable[[Request], Answer | None]:
    """A hook that gives this answer to requests for the first task."""
    return lambda request: answer if request.path == FIRST else None


def by_line(done: Done) -> dict[int, dict[str, Any]]:
    return {row["line"]: row for row in lines_of(done.out)}


def test_a_task_that_is_not_there_any_more_has_ended(batch_of: Batch) -> None:
    lines = [
        {"prompt": "Build <run 60>", "key": "build"},
        {"prompt": "Test", "workspaceId": "@build"},
    ]
    with Farm(hook=answering(error_reply(404, "not_found", "Task not found"))) as farm:
        done = batch_of(farm, lines)
        calls = sum(farm.calls.values())
        again = batch_of(farm, None)
        assert sum(farm.calls.values()) == calls
    assert done.status == again.status == 4
    assert by_line(done) == by_line(again)
    gone, skipped = by_line(done).values()
    assert (gone["id"], gone["status"]) == ("task-00001", "gone")
    assert gone["finishedAt"]
    assert gone["error"] == {
        "code": "task_gone",
        "message": "task task-00001 no longer exists",
        "status": None,
    }
    assert skipped["error"]["message"].endswith("line 1 (build), which it follows, ended as gone")


def test_a_task_that_cannot_be_read_is_told_and_read_again_by_the_next_run(batch_of: Batch) -> None:
    with Farm(hook=answering(error_reply(400, "odd", "Not this one"))) as farm:
        done = batch_of(farm, [{"prompt": "One"}, {"prompt": "Two"}], "--jobs", "1")
        rows = by_line(done)
        assert (done.status, rows[2]["status"]) == (1, "completed")
        assert (rows[1]["id"], rows[1]["status"]) == ("task-00001", "running")
        told = {"code": "odd", "message": "task-00001: not this one", "status": 400}
        assert rows[1]["error"] == told
        farm.hook = lambda _request: None
        again = batch_of(farm, None)
    assert (again.status, by_line(again)[1]["status"]) == (0, "completed")
    assert by_line(again)[1]["error"] is None
    assert farm.made == {"One": 1, "Two": 1}


def test_a_workspace_that_only_the_end_tells_is_kept_for_the_next_run(batch_of: Batch) -> None:
    """A list shows no workspace, and a task found in a list had no response to its create."""
    lines = [
        {"prompt": "Build <cut>", "key": "build"},
        {"prompt": "Test <400>", "workspaceId": "@build"},
    ]
    asked: list[str | None] = []

    def hook(request: Request) -> Answer | None:
        if request.method == "POST" and request.json["prompt"] == "Test <400>":
            asked.append(request.json.get("workspaceId"))
        if request.path == FIRST and "task-00001" in farm.tasks:
            told = {"id": "task-00001", "status": "completed", "workspaceId": "ws-9"}
            return json_reply({**told, "createdAt": farm.tasks["task-00001"]["createdAt"]})
        return None

    with Farm(hook=hook) as farm:
        assert by_line(batch_of(farm, lines))[1]["workspaceId"] == "ws-9"
        assert by_line(batch_of(farm, None, "--retry-failed"))[1]["workspaceId"] == "ws-9"
    assert asked == ["ws-9", "ws-9"]


def test_a_task_that_ended_on_create_is_not_polled(batch_of: Batch) -> None:
    def hook(request: Request) -> Answer | None:
        if request.method != "POST":
            return None
        return json_reply({"id": "t1", "status": "failed", "workspaceId": "w", "url": "u"}, 201)

    with Farm(hook=hook) as farm:
        done = batch_of(farm, [{"prompt": "One"}])
        paths = [request.path for request in farm.server.requests if request.method == "GET"]
        assert paths == ["/v1/tasks?limit=1&offset=0"]  # the baseline
    assert (done.status, by_line(done)[1]["status"]) == (10, "failed")
