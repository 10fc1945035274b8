"""What the history learns from a batch, when, and after what."""

from __future__ import annotations

from typing import Any

from rebyte_cli.batch.history_writer import DELAY, LARGEST_GROUP, HistoryWriter
from rebyte_cli.batch.input import InputLine
from rebyte_cli.deadline import NO_LIMIT
from rebyte_cli.errors import RebyteError

BODY = {"prompt": "Say hi", "model": "big"}
LINE = InputLine(1, "1", None, (), 0, 0, (("run", "7"),))


class Told:
    """Journal, reservations and history in one, which record their calls in order."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []
        self.journal_fails = False
        stand_in: Any = self
        self.writer = HistoryWriter(
            stand_in,
            stand_in,
            lambda tasks: self.heard.append(("made", tasks)),
            lambda tasks: self.heard.append(("ended", tasks)),
        )

    def settle(self) -> None:
        self.heard.append(("settle", None))
        if self.journal_fails:
            raise RebyteError("no space")

    def release(self, number: int, task: str | None = None) -> None:
        """A line is released with the next flush."""

    def flush(self) -> None:
        self.heard.append(("flush", None))


def test_tasks_reach_the_history_after_the_journal() -> None:
    told = Told()
    told.writer.created(LINE, {"id": "t1"}, BODY)
    told.writer.ended({"id": "t1", "title": "T", "status": "failed", "completedAt": "c", "x": 1})
    assert told.writer.due is not NO_LIMIT
    assert told.heard == []
    told.writer.flush()
    assert told.writer.due is NO_LIMIT
    assert told.heard == [
        ("settle", None),
        ("made", [({"id": "t1"}, "Say hi", BODY, {"run": "7"}, None)]),
        ("ended", [{"id": "t1", "title": "T", "status": "failed", "completedAt": "c"}]),
        ("flush", None),
    ]


def test_the_first_task_sets_the_time_of_the_write() -> None:
    for note in (
        lambda writer: writer.created(LINE, {"id": "t1"}, BODY),
        lambda writer: writer.not_created(1),
        lambda writer: writer.ended({"id": "t1"}),
    ):
        writer = Told().writer
        note(writer)
        due = writer.due
        assert due is not NO_LIMIT
        writer.not_created(2)
        assert writer.due == due
    assert DELAY < 1, "a batch that is killed has told nearly all"


def test_many_tasks_are_written_at_once() -> None:
    told = Told()
    for number in range(LARGEST_GROUP):
        assert told.heard == []
        told.writer.ended({"id": f"t{number}"})
    assert [kind for kind, _ in told.heard] == ["settle", "ended", "flush"]


def test_the_history_never_gets_what_the_journal_could_not_write() -> None:
    told = Told()
    told.journal_fails = True
    told.writer.created(LINE, {"id": "t1"}, BODY)
    told.writer.flush()
    assert told.heard == [("settle", None)]
