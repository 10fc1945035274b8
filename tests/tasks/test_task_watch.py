"""Watching the list: what is asked for, how often, and what is known afterwards."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.errors import KeyRejected, ResourceNotFound, ServerFault
from rebyte_cli.history.history import History
from rebyte_cli.tasks.list import has_status, row_tests
from rebyte_cli.tasks.task_watch import TaskWatch
from tests.task_board import Time
from tests.tasks.test_question_watch import SAID, asks

TOOL = {"eventType": "tool_use", "payload": {"name": "Bash", "input": {"command": "npm  test"}}}
START = "2026-02-09T10:00:00.000Z"
END = "2026-02-09T10:05:00.000Z"


class Service:
    """Tasks by id, oldest first; `calls` holds when each request came, and what it was for."""

    def __init__(self, at: Time, count: int = 0) -> None:
        self.at = at
        self.tasks: dict[str, dict[str, Any]] = {}
        self.events: dict[str, list[dict[str, Any]]] = {}
        self.calls: list[tuple[float, str]] = []
        self.error: Exception | None = None
        self.broken: set[str] = set()  # tasks that cannot be read
        for number in range(count):
            self.add(f"task-{number:04d}")

    def add(self, *ids: str) -> None:
        for each in ids:
            self.tasks[each] = {
                "id": each,
                "title": f"Title of {each}",
                "status": "running",
                "createdAt": START,
                "completedAt": None,
            }
            self.events[each] = []

    def end(self, task_id: str, status: str = "completed", at: str = END) -> None:
        self.tasks[task_id].update(status=status, completedAt=at)

    def called(self, kind: str) -> list[str]:
        return [what for _, what in self.calls if what.startswith(kind)]

    def _call(self, what: str) -> None:
        self.calls.append((self.at.now, what))
        if self.error is not None:
            raise self.error

    def list_tasks(self, limit: int, offset: int, **_: Any) -> dict[str, Any]:
        self._call(f"list {offset}")
        rows = [{**task} for task in reversed(self.tasks.values())]
        for row in rows:
            del row["status"]
        return {"data": rows[offset : offset + limit], "total": len(rows)}

    def get_task(self, task_id: str, **_: Any) -> dict[str, Any]:
        self._call(f"get {task_id}")
        if task_id not in self.tasks:
            raise ResourceNotFound("gone", status_code=404)
        if task_id in self.broken:
            raise ServerFault("500 from http://x", status_code=500)
        return {**self.tasks[task_id]}

    def task_content(self, task_id: str, **_: Any) -> dict[str, Any]:
        self._call(f"look {task_id}")
        prompt = {"status": "running", "submittedAt": START, "events": self.events[task_id]}
        return {"prompts": [prompt]}


class Watching:
    """A watch of a service on a separate clock."""

    def __init__(self, home: Path, count: int = 0, **options: Any) -> None:
        self.at = Time()
        self.service = Service(self.at, count)
        self.notes: list[str] = []
        self.history = History(home / "history.db", origin="http://x", warn=self.notes.append)
        self.options = {"most": 100, "tests": list, **options}

    def begin(self) -> TaskWatch:
        client: Any = self.service
        self.watch = TaskWatch(
            client,
            self.history,
            note=self.notes.append,
            deadline=self.at.deadline(),
            **self.options,
        )
        self.watch.begin()
        return self.watch

    def run(self, seconds: float) -> None:
        end = self.at.now + seconds
        while self.at.now < end:
            self.at.sleep(self.watch.step())

    def states(self) -> dict[str, str | None]:
        return {task.id: task.status for task in self.watch.tasks}


Watch = Callable[..., Watching]


@pytest.fixture
def watching(home: Path) -> Watch:
    return lambda count=0, **options: Watching(home, count, **options)


@pytest.mark.parametrize("most", [100, 250])
def test_a_hundred_running_tasks_take_two_requests_a_second(watching: Watch, most: int) -> None:
    its = watching(count=most, most=most)
    its.begin()
    pages = len(its.service.called("list"))
    assert pages == -(-most // 100)
    its.run(0.1)
    assert len(its.service.called("look")) == most  # each once, at once
    first = pages + most
    its.run(60)
    times = [at for at, _ in its.service.calls[first:]]
    for at in range(60):
        assert sum(at <= each < at + 1 for each in times) <= 2
    reads = len(its.service.called("list 0")) - 1
    assert reads >= 10
    looks = its.service.called("look")[most:]
    assert len(set(looks)) == min(most, len(looks)) >= 60  # each in turn, none twice before


def test_what_begins_or_ends_is_read_at_once(watching: Watch) -> None:
    its = watching(count=60)
    its.service.events["task-0000"].append(asks("m"))
    watch = its.begin()
    its.run(0.1)
    assert watch.tasks[-1].question is not None
    for number in range(30):
        its.service.end(f"task-{number:04d}", "failed")
        its.service.add(f"task-1{number:03d}")
    its.service.events["task-1000"].append(asks("n"))
    its.run(3)
    assert list(its.states().values()) == ["running"] * 60 + ["failed"] * 30
    assert watch.tasks[29].question is not None


def test_what_cannot_be_read_at_once_is_read_in_turn(watching: Watch) -> None:
    its = watching(count=40)
    watch = its.begin()
    its.run(0.1)
    for task_id in its.service.tasks:
        its.service.broken.add(task_id)
        its.service.end(task_id)
    its.run(3)
    before = len(its.service.calls)
    its.run(60)
    assert len(its.service.calls) - before <= 120
    its.service.broken.clear()
    its.run(60)
    assert {task.status for task in watch.tasks} == {"completed"}


def test_few_running_tasks_are_left_alone_for_a_while(watching: Watch) -> None:
    its = watching(count=1)
    its.begin()
    its.run(30)
    assert 8 <= len(its.service.called("look")) <= 11
    assert 14 <= len(its.service.called("list")) <= 17


def test_tasks_come_end_and_go(watching: Watch) -> None:
    its = watching(count=3)
    its.service.end("task-0000", "failed")
    its.begin()
    assert its.states() == {"task-0002": "running", "task-0001": "running", "task-0000": "failed"}
    its.service.add("task-0003")
    its.service.end("task-0001", "canceled")
    del its.service.tasks["task-0002"]
    its.run(4)
    assert its.states() == {"task-0003": "running", "task-0001": "canceled", "task-0000": "failed"}
    its.run(20)
    # Each end is read once, and the one of a follow-up again.
    assert its.service.called("get") == ["get task-0000", "get task-0001"]
    its.service.tasks["task-0001"].update(status="running", completedAt=None)
    its.run(3)
    assert its.states()["task-0001"] == "running"
    its.service.end("task-0001", at="2026-02-09T11:00:00.000Z")
    its.run(4)
    assert its.states()["task-0001"] == "completed"
    assert its.history.ends(["task-0001"]) == {
        ("task-0001", "2026-02-09T11:00:00.000Z"): "completed"
    }


def test_the_last_step_and_the_question_are_shown(watching: Watch) -> None:
    its = watching(count=1)
    its.service.events["task-0000"] = [SAID, TOOL]
    watch = its.begin()
    its.run(1)
    (task,) = watch.tasks
    assert (task.step, task.question, task.began) == ("* Bash: npm test", None, START)
    its.service.events["task-0000"].append(asks("m"))
    its.run(5)
    (task,) = watch.tasks
    assert (task.step, task.record["question"]) == ("? Which, m?", True)
    assert [has_status(task.record, [word]) for word in ("running", "waiting", "failed")] == [
        True, True, False,
    ]  # fmt: skip
    its.service.events["task-0000"].append(SAID)
    its.run(5)
    (task,) = watch.tasks
    assert (task.step, "question" in task.record) == ("Working.", False)
    its.service.events["task-0000"].append(asks("n"))
    its.history.remember_answered("n")
    its.run(5)
    assert watch.tasks[0].question is None
    assert not has_status(watch.tasks[0].record, ["waiting"])


def test_an_outage_is_told_and_survived(watching: Watch) -> None:
    its = watching(count=2)
    watch = its.begin()
    its.service.error = ServerFault("502 from http://x")
    before = len(its.service.calls)
    its.run(60)
    assert watch.errors["the tasks"] == "502 from http://x"
    assert len(its.service.calls) - before < 15
    assert len(watch.tasks) == 2
    its.service.error = None
    its.run(11)
    assert watch.errors == {}
    its.service.error = KeyRejected("no", status_code=401)
    with pytest.raises(KeyRejected):
        its.run(5)


def test_a_task_that_is_gone_before_its_end_is_read(watching: Watch) -> None:
    its = watching(count=1)
    watch = its.begin()
    its.service.end("task-0000")
    while not watch.tasks[0].has_ended:
        its.at.sleep(watch.step())
    del its.service.tasks["task-0000"]
    its.run(0.5)
    assert its.states() == {"task-0000": "deleted"}
    its.run(3)
    assert its.states() == {}


def test_an_end_that_cannot_be_read_keeps_nothing_else_waiting(watching: Watch) -> None:
    its = watching(count=2)
    watch = its.begin()
    its.service.broken.add("task-0001")
    its.service.end("task-0001")
    its.service.events["task-0000"].append(asks("m"))
    its.run(30)
    assert watch.tasks[1].question is not None
    its.service.broken.clear()
    its.run(15)
    assert its.states()["task-0001"] == "completed"


def test_only_what_is_asked_for_is_watched(watching: Watch) -> None:
    its = watching(count=12, tests=lambda: row_tests(search="-0007"))
    its.begin()
    assert list(its.states()) == ["task-0007"]
    its.run(20)
    assert set(its.service.called("look")) == {"look task-0007"}


def test_changes_are_told_once(watching: Watch) -> None:
    its = watching(count=2)
    its.service.end("task-0000", "failed")
    watch = its.begin()
    its.at.at[5.0] = lambda: its.service.events["task-0001"].append(asks("m"))
    its.at.at[15.0] = lambda: its.service.end("task-0001")
    its.at.at[20.0] = lambda: its.service.add("task-0002")
    its.at.at[30.0] = lambda: setattr(its.service, "error", ServerFault("down"))
    its.at.at[40.0] = lambda: setattr(its.service, "error", None)
    its.at.at[60.0] = lambda: its.service.end("task-0002")
    changes = watch.changes(its.at.sleep)
    told = [(task.id, task.status, task.question is not None) for task in islice(changes, 6)]
    assert told == [
        ("task-0001", "running", False),
        ("task-0000", "failed", False),
        ("task-0001", "running", True),
        ("task-0001", "completed", False),
        ("task-0002", "running", False),
        ("task-0002", "completed", False),
    ]
    assert its.notes == ["Cannot read the tasks: down", "Reading the tasks again"]


def test_a_task_that_cannot_be_read_is_noted_once(watching: Watch) -> None:
    its = watching(count=2)
    watch = its.begin()
    its.service.broken.add("task-0001")
    its.service.end("task-0001")
    its.at.at[60.0] = lambda: its.service.broken.clear()
    told = [(task.id, task.status) for task in islice(watch.changes(its.at.sleep), 3)]
    assert told[2] == ("task-0001", "completed")
    assert its.at.now >= 60
    assert its.notes == ["Cannot read task task-0001: 500 from http://x"]
