"""`create -g .` with commits and changes that the remote does not have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Done
from tests.repositories import Repository
from tests.servers import RawServer, Request, json_reply

MADE = {"id": "task-0001", "workspaceId": "ws-1", "url": "http://x/run/task-0001"}
Run = Callable[..., Done]


@pytest.fixture
def repository(home: Path) -> Repository:
    """One whose remote is on GitHub, as far as its URL says."""
    made = Repository(home)
    made("remote", "set-url", "origin", "https://github.com/acme/shop.git")
    return made


def served(request: Request) -> bytes:
    if request.path == "/v1/files":
        url = f"http://{request.headers['host']}/put"
        return json_reply({"id": "f1", "filename": "changes-ab12.patch", "uploadUrl": url}, 201)
    return json_reply(MADE if request.method == "POST" else {"data": [], "total": 0}, 201)


def test_changes_are_uploaded_for_the_agent_to_apply(
    repository: Repository, inside: Run, aim: Callable[[RawServer], RawServer]
) -> None:
    repository.write("a.txt", "one\ntwo\n")
    with RawServer(served) as server:
        aim(server)
        words = ("create", "Finish it", "-g", ".", "--with-changes", "-o", "id")
        done = inside(*words, cwd=repository.path)
        assert (done.status, done.out) == (0, "task-0001\n"), done.err
        assert "Sending 1 changed file as changes.patch" in done.err
        (slot, create), (put,) = server.seen("POST"), server.seen("PUT")
        assert slot.json["filename"] == "changes.patch"
        assert b"+two" in put.body
        assert create.json["files"] == [{"id": "f1", "filename": "changes-ab12.patch"}]
        assert create.json["githubUrl"] == "acme/shop"
        assert create.json["prompt"].startswith("Finish it\n\nBefore you begin, apply")


def test_with_changes_but_without_any_or_without_a_repository(
    repository: Repository, inside: Run, aim: Callable[[RawServer], RawServer]
) -> None:
    with RawServer(served) as server:
        aim(server)
        done = inside("create", "x", "-g", ".", "--with-changes", cwd=repository.path)
        assert done.status == 0
        assert "There are no uncommitted changes to send" in done.err
        assert server.seen("PUT") == []
        assert server.seen("POST")[0].json["prompt"] == "x"
        done = inside("create", "x", "-g", "o/r", "--with-changes", cwd=repository.path)
        assert done.status == 2
        assert "--with-changes requires -g ." in done.err


def test_notes_come_before_anything_is_sent_and_an_error_sends_nothing(
    repository: Repository, inside: Run, aim: Callable[[RawServer], RawServer]
) -> None:
    repository.write("a.txt", "changed\n")
    with RawServer(served) as server:
        aim(server)
        done = inside("create", "x", "-g", ".", cwd=repository.path)
        assert done.status == 0
        assert done.err.index("1 uncommitted change stays") < done.err.index("Created task")
        repository("checkout", "-qb", "topic")
        done = inside("create", "x", "-g", ".", cwd=repository.path)
        assert done.status == 2
        assert "the branch topic is not on origin" in done.err
        assert len(server.seen("POST")) == 1
