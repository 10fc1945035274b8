"""`rebyte share`: who can see a task."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any
from urllib.request import urlopen

import pexpect
import pytest

from tests.conftest import COMMAND, Done
from tests.terminals import finish

Run = Callable[..., Done]
NOW = "[[run=1ms]]"


def test_public_prints_the_link_and_anybody_can_read_it(inside_local: Run) -> None:
    task = inside_local("create", f"Say hello {NOW}").json["id"]
    shared = inside_local("share", "@last", "--public", "--yes").json
    assert (shared["id"], shared["visibility"]) == (task, "public")
    assert b"Say hello" in urlopen(shared["shareUrl"]).read()
    assert inside_local("share", "@last", "--private").json == {"id": task, "visibility": "private"}
    with pytest.raises(OSError, match="404"):
        urlopen(shared["shareUrl"])


@pytest.mark.slow
def test_the_link_of_a_local_task_is_there_while_it_is_served(local: Run) -> None:
    local("create", f"Say hello {NOW}")
    told = "The page is only available while `rebyte local serve` runs"
    assert told in local("share", "@last", "--public", "--yes").err
    assert told not in local("share", "@last", "--private").err


def test_shared_is_for_the_organization(inside_local: Run) -> None:
    inside_local("create", f"Say hello {NOW}")
    assert inside_local("share", "@last", "--shared").json["visibility"] == "shared"


def test_off_a_terminal_public_needs_a_yes(inside_local: Run) -> None:
    inside_local("create", f"Say hello {NOW}")
    done = inside_local("share", "@last", "--public")
    assert (done.status, done.out) == (2, "")
    assert "--yes" in json.loads(done.err)["error"]["hint"]


@pytest.mark.parametrize("words", [(), ("--public", "--private", "--yes")])
def test_exactly_one_is_said(inside_local: Run, words: tuple[str, ...]) -> None:
    inside_local("create", f"Say hello {NOW}")
    assert inside_local("share", "@last", *words).status == 2


def test_a_task_that_is_not_there_ends_in_4(inside_local: Run) -> None:
    assert inside_local("share", "nowhere", "--private").status == 4


@pytest.mark.parametrize(("said", "status"), [("n", 1), ("y", 0)])
def test_on_a_terminal_public_is_asked_for(
    inside_local: Run, service: Any, said: str, status: int
) -> None:
    del service
    inside_local("create", f"Say hello {NOW}")
    child = pexpect.spawn(
        COMMAND[0], [*COMMAND[1:], "share", "@last", "--public"], env=dict(os.environ), timeout=60
    )
    child.expect_exact("Let anyone with the link read task")
    child.sendline(said)
    rest = child.expect([r"Nothing was changed", r"/share/"])
    assert finish(child) == status
    assert rest == (0 if status else 1)
