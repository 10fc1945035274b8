"""The ledger of a batch: what it reserves, what it releases, and what the history learns when."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.errors import RebyteError
from rebyte_cli.history.history import History
from rebyte_cli.history.rows import NewTask
from rebyte_cli.once.ledger import DELAY, LARGEST_GROUP, Ledger
from rebyte_cli.system.deadline import NO_LIMIT

BODY = {"prompt": "Say hi", "model": "big"}
NEW = NewTask({"id": "t1"}, "Say hi", BODY, {"run": "7"})
THEN, NOW = "2026-02-09T10:30:00Z", "2026-02-09T10:31:00Z"


class Told:
    """Journal and history in one, which record their calls in order."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []
        self.journal_fails = False
        stand_in: Any = self
        self.ledger = Ledger(stand_in, "batch x", self.settle)

    def settle(self) -> None:
        self.heard.append(("settle", None))
        if self.journal_fails:
            raise RebyteError("no space")

    def add_tasks(self, tasks: Any) -> None:
        self.heard.append(("made", tasks))

    def update_tasks(self, tasks: Any) -> None:
        self.heard.append(("ended", tasks))


def test_tasks_reach_the_history_after_the_journal() -> None:
    told = Told()
    told.ledger.answered(1, NEW)
    told.ledger.created(1, "t1")
    told.ledger.ended({"id": "t1", "title": "T", "status": "failed", "completedAt": "c", "x": 1})
    assert told.ledger.due is not NO_LIMIT
    assert told.heard == []
    told.ledger.flush()
    assert told.ledger.due is NO_LIMIT
    assert told.heard == [
        ("settle", None),
        ("made", [({"id": "t1"}, "Say hi", BODY, {"run": "7"}, None, "batch x 1", None)]),
        ("ended", [{"id": "t1", "title": "T", "status": "failed", "completedAt": "c"}]),
    ]


def test_the_first_task_sets_the_time_of_the_write() -> None:
    for note in (
        lambda ledger: ledger.created(1, "t1"),
        lambda ledger: ledger.not_created(1),
        lambda ledger: ledger.ended({"id": "t1"}),
    ):
        ledger = Told().ledger
        note(ledger)
        due = ledger.due
        assert due is not NO_LIMIT
        ledger.not_created(2)
        assert ledger.due == due
    assert DELAY < 1, "a batch that is killed has told nearly all"


def test_many_tasks_are_written_at_once() -> None:
    told = Told()
    for number in range(LARGEST_GROUP):
        assert told.heard == []
        told.ledger.ended({"id": f"t{number}"})
    assert [kind for kind, _ in told.heard] == ["settle", "ended"]


def test_the_history_never_gets_what_the_journal_could_not_write() -> None:
    told = Told()
    told.journal_fails = True
    told.ledger.answered(1, NEW)
    told.ledger.flush()
    assert told.heard == [("settle", None)]


class Desk:
    """The ledger of one batch, and the history that holds it."""

    def __init__(self, path: Path) -> None:
        self.history = History(path, origin="o")
        self.ledger = self.of("batch")

    def of(self, owner: str) -> Ledger:
        return Ledger(self.history, owner, lambda: None)

    def reserve(self, number: int, sent: str = THEN) -> None:
        self.ledger.reserve(number, f"Line {number}", sent)
        self.ledger.write([{"line": number, "is": "sending"}])

    def reserved(self) -> dict[int, str]:
        """The reserved lines, and since when."""
        rows = self.history.database.rows("SELECT body_digest, started_at FROM intents")
        return {int(row["body_digest"].split()[1]): row["started_at"] for row in rows}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "history.db")


def test_the_history_learns_what_the_journal_says(desk: Desk) -> None:
    for number in (1, 2):
        desk.ledger.reserve(number, f"Line {number}", THEN)
    desk.ledger.answered(3, NEW)
    desk.ledger.write([{"run": {}}, {"line": 2, "is": "sending"}])
    assert desk.reserved() == {2: THEN}
    assert desk.history.tasks() == []
    desk.ledger.write([{"line": 3, "is": "created"}, {"line": 1, "is": "sending"}])
    assert desk.reserved() == {1: THEN, 2: THEN}
    assert [task["id"] for task in desk.history.tasks()] == ["t1"]
    assert desk.history.tasks_of_lines("batch") == {3: ["t1"]}


def test_a_line_that_is_sent_again_is_reserved_again(desk: Desk) -> None:
    """A reservation says when its line may have been sent."""
    desk.reserve(1)
    desk.ledger.sending(1)
    desk.ledger.unsent(1)
    desk.reserve(1, NOW)
    desk.ledger.flush()
    assert desk.reserved() == {1: NOW}
    rows = desk.history.database.rows("SELECT id FROM intents")
    assert len(rows) == 1, "the older reservation is released"


def test_a_released_line_can_be_reserved_again(desk: Desk) -> None:
    desk.reserve(1)
    desk.ledger.not_created(1)
    desk.ledger.flush()
    assert desk.reserved() == {}
    desk.reserve(1, NOW)
    assert desk.reserved() == {1: NOW}


def test_lines_without_an_outcome_stay_reserved(desk: Desk) -> None:
    for number in (1, 2, 3):
        desk.reserve(number)
    desk.ledger.sending(2)
    desk.ledger.doubt(3)
    assert (desk.ledger.under_way, desk.ledger.unsettled) == ({2}, {2, 3})
    desk.ledger.release_settled()
    desk.ledger.flush()
    assert desk.reserved() == {2: THEN, 3: THEN}
    assert desk.of("batch").load(()) == {2, 3}
    assert desk.of("another").load(()) == set()
    desk.ledger.unsent(2)
    desk.ledger.created(3, "t1")
    assert desk.ledger.unsettled == set()


def test_a_task_belongs_to_the_first_line_that_was_answered_with_it(desk: Desk) -> None:
    desk.ledger.load(["t0"])
    assert [desk.ledger.claim(task_id) for task_id in ("t0", "t1", "t1")] == [True, False, True]
    assert desk.ledger.named(["t0", "t1", "t2"]) == {"t0", "t1"}


def test_only_the_thread_of_the_batch_settles_lines(desk: Desk) -> None:
    wrong: list[BaseException] = []

    def settle() -> None:
        for act in (desk.ledger.doubt, desk.ledger.not_created):
            try:
                act(1)
            except AssertionError as error:
                wrong.append(error)

    other = threading.Thread(target=settle)
    other.start()
    other.join()
    assert len(wrong) == 2
