"""`--check`: a task is done when a command passes; until then, it is told what the command said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Done
from tests.repositories import CHECK, HINT, WRONG, with_answer
from tests.tools import need_jail

from .conftest import prompts_of

Local = Callable[..., Done]

NEVER = "ls | grep ^ans | xargs cat; exit 4"


@pytest.fixture
def repository(home: Path) -> Path:
    """A repository without a remote."""
    need_jail()
    return with_answer(home / "repository")


@pytest.fixture
def local(inside_local: Local, repository: Path) -> Local:
    """The command in the repository, against a local service that lasts as long as the test."""

    def run(*words: str, **options: Any) -> Done:
        return inside_local("-P", "local", *words, cwd=repository, **options)

    return run


def create(local: Local, prompt: str, *words: str) -> Done:
    return local("create", prompt, "-g", ".", "--wait", "-o", "json", *words)


@pytest.mark.slow
def test_the_first_try_passes(local: Local) -> None:
    done = create(local, HINT, "--check", CHECK)
    assert done.status == 0, done
    assert (done.json["status"], done.json["check"]["status"]) == ("completed", "passed")
    assert (done.json["check"]["tries"], done.json["check"]["exit"]) == (1, 0)
    assert len(prompts_of(local)) == 1


@pytest.mark.slow
def test_the_task_mends_what_the_check_says(local: Local) -> None:
    done = create(local, WRONG, "--check", CHECK)
    assert (done.status, done.json["check"]["status"], done.json["check"]["tries"]) == (
        0, "passed", 2
    ), done  # fmt: skip
    first, second = prompts_of(local)
    assert first == WRONG
    assert "fails with exit status 3" in second
    assert "(try 2 of 3)" in second
    assert second.endswith(f"wrong answer\n{HINT}")
    assert "right" in local("diff", "@last").out


@pytest.mark.slow
def test_one_that_never_passes(local: Local) -> None:
    words = ("--check", NEVER, "--tries", "2")
    done = create(local, WRONG, *words)
    assert done.status == 10
    found = done.json["check"]
    assert (found["status"], found["tries"], found["exit"]) == ("failed", 2, 4)
    assert found["output"] == "wrong"
    message = json.loads(done.err.splitlines()[-1])["error"]["message"]
    assert message.endswith("exited with status 4\nwrong")
    assert len(prompts_of(local)) == 2
    assert create(local, "[[write=answer.txt:x]]", "--check", NEVER, "--tries", "1").status == 10
    assert len(prompts_of(local)) == 1


def test_a_run_that_fails_is_not_checked(local: Local) -> None:
    done = create(local, "[[fail]]", "--check", "true")
    assert (done.status, "check" in done.json) == (10, False)


@pytest.mark.slow
def test_a_stream_shows_every_run(local: Local) -> None:
    words = ("create", WRONG, "-g", ".", "--stream", "--check")
    done = local(*words, CHECK)
    assert done.status == 0, done
    assert done.out.count("This is a simulation: ") == 2
    assert local(*words, NEVER, "--tries", "1").status == 10


@pytest.mark.slow
def test_follow_up_and_rerun(local: Local) -> None:
    create(local, WRONG)
    done = local("follow-up", "@last", "Try", "--wait", "-o", "json", "--check", CHECK)
    assert (done.status, done.json["check"]["tries"]) == (0, 2), done
    done = local("rerun", "@last", "--wait", "-o", "json", "--check", CHECK)
    assert (done.status, done.json["check"]["tries"]) == (0, 2), done
    several = local("rerun", "@1", "@2", "--wait", "-o", "jsonl", "--check", CHECK)
    tasks = [json.loads(line) for line in several.out.splitlines()]
    assert [(task["check"]["status"], task["check"]["tries"]) for task in tasks] == [
        ("passed", 2), ("passed", 2)
    ], several  # fmt: skip


@pytest.mark.slow
def test_the_first_attempt_that_passes_wins(local: Local) -> None:
    """Not the first that ends; nothing is left running."""

    done = create(local, f"{WRONG} [[run=3s]]", "--attempts", "3", "--check", CHECK, "--tries", "1")
    assert done.status == 10
    found = [json.loads(line)["error"]["code"] for line in done.err.splitlines() if line[:1] == "{"]
    assert found == ["check_failed"] * 3
    # Each attempt is told what is missing, and the first whose second run passes wins.
    done = create(local, WRONG, "--attempts", "4", "--check", CHECK)
    assert done.status == 0, done
    assert done.json["check"]["tries"] == 2
    assert f"Task {done.json['id']} passed first" in done.err
    rows = local("list", "--all", "-o", "json").json["data"]
    assert not [row for row in rows if row["status"] == "running"]


@pytest.mark.slow
def test_what_cannot_be_checked_is_refused_before_anything_is_sent(
    local: Local, inside_local: Local, home: Path
) -> None:
    for words in (
        ("create", "Hello", "--check", "true"),
        ("create", "Hello", "-g", ".", "--wait", "--tries", "2"),
        ("create", "Hello", "-g", ".", "--wait", "--protect", "x"),
        ("create", "Hello", "--wait", "--check", "true"),
        ("create", "Hello", "--wait", "-g", ".", "--check", ""),
        ("create", "Hello", "--wait", "-g", ".", "--check", "true", "--protect", "../x"),
    ):
        assert local(*words).status == 2, words
    assert local("list", "-o", "json").json["data"] == []
    assert inside_local("-P", "local", "create", "Hello", "--wait").status == 0
    assert local("follow-up", "@last", "More", "--wait", "--check", "true").status == 2
    assert len(prompts_of(local)) == 1


def test_nothing_to_check_with_is_an_error_of_the_check(local: Local, repository: Path) -> None:
    """The patch of the task is gone: 1, and its document says so."""
    done = create(local, "Hello", "--check", "true")
    assert done.status == 4, done  # the simulation has written nothing
