"""`rebyte local prune` and the sizes in `rebyte workspace list`: what agents here take up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rebyte_cli.local.store import Store
from tests.repositories import small_repository
from tests.waiting import eventually

from .conftest import SCRIPT, Run


@pytest.fixture
def run(home: Path, with_agents: Callable[[str], Run]) -> Run:
    """The command, with an agent that runs its prompt as a script."""
    small_repository(home / "repository")
    return with_agents(SCRIPT)


@pytest.fixture
def folders(home: Path) -> Callable[[], list[str]]:
    root = home / ".local/state/rebyte/local/workspaces"
    return lambda: sorted(path.name for path in root.glob("*"))


def create(run: Run, home: Path, script: str, *words: str) -> dict[str, str]:
    done = run("create", script, "-x", "mine", "-g", str(home / "repository"), *words)
    assert done.status == 0, done.err
    return dict(done.json)


@pytest.fixture
def waiting(run: Run, home: Path) -> Iterator[dict[str, str]]:
    """A task whose agent is at work."""
    task = create(run, home, "echo begun > begun; until test -e end; do sleep 0.1; done")
    yield task
    run("cancel", task["id"])


@pytest.mark.slow
def test_what_was_not_used_for_long_is_removed(
    run: Run, home: Path, folders: Callable[[], list[str]], waiting: dict[str, str]
) -> None:
    old = create(run, home, "echo work >> code.txt", "--wait")
    ids = sorted([old["workspaceId"], waiting["workspaceId"]])
    assert run("local", "prune", "--older", "1h").json["data"] == []
    planned = run("local", "prune", "--older", "0", "--dry-run")
    row = planned.json["data"][0]
    assert (row["id"], row["repository"]) == (old["workspaceId"], str(home / "repository"))
    assert row["size"] > 4096
    assert "Would free " in planned.err
    assert folders() == ids
    done = run("local", "prune", "--older", "0")
    assert [each["id"] for each in done.json["data"]] == [old["workspaceId"]]
    assert "Freed " in done.err
    assert folders() == [waiting["workspaceId"]], "one at work stays"
    assert not list((home / ".local/state/rebyte/local/trash").iterdir())
    # What the task brought about is still there, and it can go on.
    assert "+work" in run("diff", old["id"]).out
    assert "local prune" in run("workspace", "path", old["id"]).err
    assert run("follow-up", old["id"], "cat code.txt", "--wait").status == 0
    assert run("result", old["id"]).out.split() == ["one"]


@pytest.mark.slow
def test_the_list_shows_repository_and_size(run: Run, home: Path) -> None:
    create(run, home, "head -c 300000 /dev/zero > large", "--wait")

    def size() -> int:
        (row,) = run("workspace", "list", "--search", "repository").json["data"]
        assert row["repository"] == str(home / "repository")
        return int(row["size"] or 0)

    assert 300_000 < eventually(size) < 3_000_000
    head = run("workspace", "list", "-o", "table").out.splitlines()[0].split()
    assert head[2:4] == ["REPOSITORY", "SIZE"]


@pytest.mark.slow
def test_a_list_of_tasks_removes_what_no_task_needs(
    run: Run, home: Path, folders: Callable[[], list[str]]
) -> None:
    """Within the hour, without another run."""
    task = create(run, home, "true", "--wait")
    run("list")
    run("delete", task["id"], "--yes")
    store = Store(home / ".local/state/rebyte/local")
    with store.write() as db:
        db.execute("UPDATE tasks SET deleted = 0")
    run("list")
    assert folders() == [task["workspaceId"]], "that was done a moment ago"
    store.remember("swept", "0")
    store.close()
    run("list")
    assert folders() == []
