"""An error says which task, workspace, webhook or artifact it is about."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Done
from tests.farm import Farm
from tests.inside import inside

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


def test_the_profile_that_has_the_tasks_is_named(home: Path) -> None:
    def run(*words: str, **env: str | None) -> Done:
        return inside(*words, "-o", "table", cwd=home, env={"REBYTE_API_KEY": None, **env})

    created = inside("-P", "local", "create", "Hello", "-o", "id", cwd=home)
    run("-P", "local", "create", "Hello")
    two = "2 tasks were created with profile local: add -P local, or rebyte profile use local"
    one = "1 task was created with profile local: add -P local, or rebyte profile use local"
    assert two in run("list").err  # there is no key
    with Farm() as farm:
        asked = {name: str(value) for name, value in farm.env.items()}
        assert two in run("get", "@last", **asked).err
        assert one in run("get", created.out[:8], **asked).err
        assert "profile local" not in run("get", "unknown-id", **asked).err
        run("create", "Hello", **asked)
        assert "profile local" not in run("get", "@9", **asked).err
    assert "profile use" not in run("-P", "local", "get", "@9").err
