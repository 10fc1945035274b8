"""Why a task failed: where the reason is found, what it costs, and how it reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from rebyte_cli.errors import RebyteError, TaskFailed
from rebyte_cli.tasks.failure import FAULTS, LONGEST, PAUSE, first_line
from rebyte_cli.tasks.wait import Poll, WaitTarget
from tests.task_board import Board, Time


@pytest.fixture
def board() -> Iterator[Board]:
    with Board() as board:
        board.add("a")
        board.end("a", status="failed")
        yield board


def messages(board: Board, *targets: WaitTarget, poll: Poll | None = None) -> list[str]:
    """The messages of what one round says about these targets."""
    outcomes = (poll or Poll(board.client())).round(targets or [WaitTarget("a")])
    return [outcome.message for _, outcome in outcomes if isinstance(outcome, RebyteError)]


def contents(board: Board) -> list[str]:
    """The requests that only a reason needs."""
    return [path for path in board.requests if path.endswith("/content")]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("no key", "no key"),
        ("\n\n---\n```\n  No key \t ·  Run /login \nmore", "No key · Run /login"),
        ("x\r\ny", "x"),
        ("", ""),
        ("...\n", ""),
        ("拒否されました\n", "拒否されました"),
        ("\x1b]0;own\x07ed\u202e\x07", "ed\\u202e\\x07"),
        ("\x1b[0m\n\x1b[1;31mNo quota\x1b[0m left\x1b[", "No quota left"),
        ("wrong key sk-abcdefghijkl", "wrong key sk-…"),
        ("a" * LONGEST, "a" * LONGEST),
        ("b" * (LONGEST + 1), "b" * (LONGEST - 1) + "…"),
    ],
)  # fmt: skip
def test_the_first_line_with_a_word(text: str, reason: str) -> None:
    assert first_line(text) == reason


def test_the_text_in_the_task_costs_no_request(board: Board) -> None:
    board.tasks["a"]["finalResult"] = "no key\nRun login."
    assert messages(board) == ["task a failed: no key"]
    assert board.requests == ["/v1/tasks/a"]


def test_a_task_without_its_text_is_asked_for_it_once(board: Board) -> None:
    board.contents["a"] = {"id": "a", "prompts": [{"id": "p", "response": "no key"}]}
    assert messages(board) == ["task a failed: no key"]
    assert board.requests == ["/v1/tasks/a", "/v1/tasks/a/content"]


@pytest.mark.parametrize("content", [None, {}, {"prompts": [{"response": None}]}])
def test_without_any_text_there_is_no_reason(board: Board, content: dict[str, Any] | None) -> None:
    if content is not None:
        board.contents["a"] = content
    assert messages(board) == ["task a failed"]
    assert len(contents(board)) == 1


def test_only_failures_are_asked_about(board: Board) -> None:
    board.add("b", "c")
    board.end("b")
    board.end("c", status="canceled")
    list(Poll(board.client()).round([WaitTarget(task_id) for task_id in "abc"]))
    assert contents(board) == ["/v1/tasks/a/content"]


@pytest.mark.parametrize("status", [401, 403, 404, 500, 302])
def test_a_request_that_fails_costs_the_reason_alone(board: Board, status: int) -> None:
    board.answers = lambda path: status if path.endswith("/content") else 200
    assert messages(board) == ["task a failed"]


def test_each_prompt_has_its_own_reason(board: Board) -> None:
    prompts = [{"id": "p1", "status": "failed"}, {"id": "p2", "status": "failed"}]
    board.tasks["a"].update(prompts=prompts, finalResult="second")
    responses = [{"id": "p1", "response": "first"}, {"id": "p2", "response": "other"}]
    board.contents["a"] = {"prompts": responses}
    targets = [WaitTarget("a", "p1"), WaitTarget("a", "p2")]
    assert messages(board, *targets) == ["task a failed: first", "task a failed: second"]
    assert len(contents(board)) == 1


def test_a_service_that_has_no_reasons_is_left_alone_for_a_while(board: Board) -> None:
    at, poll = Time(), Poll(board.client())
    for _ in range(FAULTS + 5):
        list(poll.round([WaitTarget("a")], at.deadline()))
    assert len(contents(board)) == FAULTS
    at.now += PAUSE
    board.contents["a"] = {"prompts": [{"response": "no key"}]}
    (found,) = list(poll.round([WaitTarget("a")], at.deadline()))
    assert isinstance(found[1], TaskFailed)
    assert found[1].reason == "no key"
