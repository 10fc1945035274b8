"""An error says which task, workspace, webhook or artifact it is about."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.conftest import Done

Run = Callable[..., Done]


@pytest.mark.parametrize(
    "line",
    """get nope
    logs nope
    logs nope -f
    result nope
    result nope --wait
    answer nope --option 1
    cancel nope
    wait nope
    delete nope
    share nope --private
    open nope
    follow-up nope hello
    artifact list nope
    artifact get @last nope
    artifact get @last nope -O -
    artifact delete @last nope
    workspace show nope
    workspace delete nope --yes
    webhook show nope
    webhook delete nope""".splitlines(),
)
def test_a_missing_task_is_named(inside_local: Run, line: str) -> None:
    inside_local("create", "Hello [[run=1ms]]")
    done = inside_local(*line.split(), "-o", "json")
    assert done.status == 4, done
    told = [json.loads(row)["error"] for row in done.err.splitlines() if row.startswith("{")]
    assert told, done
    assert all("nope" in error["message"] for error in told)
    assert all(error["message"].count("nope") == 1 for error in told)
    assert all(error["code"] == "not_found" for error in told)


def test_every_missing_task_is_named(inside_local: Run) -> None:
    for words in (["get"], ["cancel"], ["delete"], ["wait"], ["webhook", "delete"]):
        done = inside_local(*words, "nope-1", "nope-2", "nope-3", "-o", "jsonl")
        messages = [json.loads(row)["error"]["message"] for row in done.err.splitlines()]
        assert done.status == 4, words
        for name in ("nope-1", "nope-2", "nope-3"):
            assert sum(name in message for message in messages) == 1, words
