"""The state of a line that its journal records add up to, and records that are rejected."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.batch.input import InputLine
from rebyte_cli.batch.results import LineProblem, row_of
from rebyte_cli.batch.state import (
    NEXT,
    LineState,
    LineTable,
    check_record,
    created_record,
    ended_record,
)
from tests.farm import Farm, lines_of
from tests.inside import inside

NOW = "2026-02-09T10:30:00.000Z"
ERROR = {"code": "c", "message": "m", "exit": 1}
TASK = {"id": "t1", "workspaceId": "w1", "url": "u", "createdAt": "2026-02-09T10:00:00.000Z"}
LINE = InputLine(3, "key", None, (), 0, 0)


def stands(*records: dict[str, Any]) -> tuple[LineState, dict[str, Any]]:
    """The state of a line after these records, and its row."""
    entry = LineState()
    for record in records:
        check_record(record)
        entry.apply(record)
    row = row_of(LINE, entry)
    return entry, dict(row.record if isinstance(row, LineProblem) else row)


def test_an_unknown_line_names_its_candidates() -> None:
    sending = {"line": 3, "is": "sending", "at": NOW}
    entry, row = stands(sending, {"line": 3, "is": "unknown", "candidates": ["t1", "t2"]})
    assert (entry.is_lost, entry.is_over, entry.has_failed) == (True, False, False)
    assert (row["status"], row["startedAt"]) == ("unknown", NOW)
    assert "it could be t1 or t2; the next run" in row["error"]["message"]
    assert stands(sending)[1]["status"] == "unknown"


def test_a_message_names_a_few_of_many_candidates() -> None:
    many = [f"t{number}" for number in range(300)]
    _, row = stands(
        {"line": 3, "is": "sending", "at": NOW}, {"line": 3, "is": "unknown", "candidates": many}
    )
    assert "it could be t0 or t1 or t2 or t3 or t4 or one of 295 more;" in row["error"]["message"]


def test_a_line_moves_only_as_the_table_allows() -> None:
    lines = LineTable([4])
    for state in ("queued", "created", "running"):
        lines.move(4, state)
    assert (lines.count("running"), lines.count("new", "queued")) == (1, 0)
    with pytest.raises(AssertionError, match="running -> queued"):
        lines.move(4, "queued")
    with pytest.raises(AssertionError, match="running -> refused"):
        lines.apply(4, {"is": "refused", "error": ERROR})


def test_each_state_has_one_word() -> None:
    """What a row says follows from the state alone; of a task that ended, from how."""
    words = {
        "new": "pending", "queued": "pending", "skipped": "skipped", "sending": "unknown",
        "lost": "unknown", "unknown": "unknown", "created": "running", "running": "running",
        "limited": "limited", "checking": "running", "mending": "running", "waiting": "waiting",
        "unreadable": "running", "unchecked": "unchecked", "ended": "gone", "refused": "refused",
    }  # fmt: skip
    found = {}
    for state in NEXT:
        entry = LineState()
        entry.state, entry.outcome, entry.resumes_at = state, "gone", NOW
        row = row_of(LINE, entry)
        row = row.row if isinstance(row, LineProblem) else row
        found[state] = row["status"]
        assert ("resumesAt" in row) == (state == "limited"), state
    assert found == words
    assert set().union(*NEXT.values()) == set(NEXT)


def test_only_the_thread_that_has_the_lines_moves_one() -> None:
    lines, wrong = LineTable([4]), list[BaseException]()

    def move() -> None:
        try:
            lines.move(4, "queued")
        except AssertionError as error:
            wrong.append(error)

    other = threading.Thread(target=move)
    other.start()
    other.join()
    assert len(wrong) == 1


def test_an_unsent_line_is_new_again() -> None:
    entry, row = stands({"line": 3, "is": "sending", "at": NOW}, {"line": 3, "is": "unsent"})
    assert (entry.state, entry.sent, row["status"]) == ("new", None, "pending")


def test_a_task_made_again_keeps_nothing_of_the_one_before() -> None:
    entry, row = stands(
        created_record(3, TASK),
        ended_record(3, {"id": "t1", "status": "failed"}, NOW),
        {"line": 3, "is": "sending", "at": NOW},
        created_record(3, {"id": "t2"}),
    )
    assert entry.state == "created"
    assert {name: row[name] for name in ("id", "workspaceId", "url", "error", "finishedAt")} == {
        "id": "t2", "workspaceId": None, "url": None, "error": None, "finishedAt": None,
    }  # fmt: skip


def test_a_refused_line_that_has_a_task_after_all_has_no_error() -> None:
    entry, row = stands({"line": 3, "is": "refused", "error": ERROR}, created_record(3, TASK))
    assert (entry.state, row["status"], row["error"]) == ("created", "running", None)


@pytest.mark.parametrize(
    ("status", "code", "words", "exit_status"),
    [("failed", "task_failed", "task t1 failed", 10),
     ("canceled", "task_canceled", "task t1 was canceled", 11),
     ("lost_in_space", "task_lost_in_space", "task t1 ended as lost_in_space", 1)],
)  # fmt: skip
def test_how_a_task_ended_badly(status: str, code: str, words: str, exit_status: int) -> None:
    record = ended_record(3, {"id": "t1", "status": status, "completedAt": "then"}, NOW)
    assert record["completedAt"] == "then"
    assert record["error"] == {"code": code, "message": words, "exit": exit_status}
    assert stands(record)[0].has_failed


def test_without_a_time_it_ended_now() -> None:
    record = ended_record(3, {"id": "t1", "status": "completed"}, NOW)
    assert record == {"line": 3, "is": "ended", "status": "completed", "completedAt": NOW}


def test_only_a_fault_of_the_server_leaves_a_refusal_in_doubt() -> None:
    for exit_status in (1, 5):
        error = {**ERROR, "exit": exit_status}
        entry, _ = stands({"line": 3, "is": "refused", "error": error})
        assert entry.has_failed
        assert entry.is_doubtful == (exit_status == 5)


@pytest.mark.parametrize(
    "record",
    [{"line": "1", "is": "unsent"}, {"is": "unsent"}, {"line": [], "is": "unsent"},
     {"line": 1, "is": "made"}, {"line": 1, "is": "created"}, {"line": 1, "is": "created", "id": 7},
     {"line": 1, "is": "sending", "at": 7}, {"line": 1, "is": "ended", "status": None},
     {"line": 1, "is": "unknown", "candidates": "t1"},
     {"line": 1, "is": "unknown", "candidates": ["t1", 2]},
     {"line": 1, "is": "refused", "error": "no"},
     *({"line": 1, "is": "refused", "error": {k: ERROR[k] for k in ERROR if k != without}}
       for without in ERROR),
     {"run": "pid 7"}, {}],
)  # fmt: skip
def test_a_record_that_no_run_of_ours_can_have_written(record: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not a record of a batch"):
        check_record(record)


def test_the_next_run_searches_for_an_unknown_line(home: Path, pace: Callable[..., None]) -> None:
    pace()
    (home / "t.txt").write_text("One <cut>\n")
    words = ("batch", "t.txt", "--text")
    with Farm(silent=True) as farm:
        assert inside(*words, cwd=home, env=farm.env).status == 6
        with (home / "t.txt.journal").open("a") as journal:
            journal.write(json.dumps({"line": 1, "is": "unknown", "candidates": []}) + "\n")
        farm.silent = False
        done = inside(*words, cwd=home, env=farm.env)
    assert [row["id"] for row in lines_of(done.out)] == ["task-00001"]
    assert "searching for 1 with unknown outcome" in done.err
