"""`rebyte land` with agents on this machine, which clone the branch from here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rebyte_cli.local.store import Store
from tests import script_agent
from tests.conftest import Done
from tests.repositories import git, introduce, small_repository, snapshot
from tests.tools import need_jail

COUNT = "number=$(cut -d' ' -f1 total); echo $((number + 1)) by {0} > total; echo {0} > {0}.txt"


@pytest.fixture
def local(home: Path, inside: Callable[..., Done], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository, and an agent `mine` that runs its prompt as a script."""
    need_jail()
    monkeypatch.delenv("REBYTE_LOCAL_AGENTS")
    introduce(home)
    script_agent.install(home)
    repository = small_repository(home / "repository")
    (repository / "total").write_text("0\n")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "Count")
    return repository


@pytest.mark.slow
def test_a_conflict_runs_again_on_the_branch(local: Path, inside: Callable[..., Done]) -> None:
    """The branch is on no remote, and the user has changed the files meanwhile."""
    words = ("-P", "local", "create", "-x", "mine", "-g", ".", "-o", "id")
    made = [inside(*words, COUNT.format(name), cwd=local) for name in ("a", "b", "c")]
    assert [done.status for done in made] == [0, 0, 0], made
    tasks = [done.out.strip() for done in made]
    (local / "total").write_text("mine, not committed\n")
    before = snapshot(local)
    words = ("-P", "local", "land", *tasks, "--branch", "all", "-o", "jsonl")
    done = inside(*words, cwd=local)
    assert done.status == 0, done
    assert [row["reruns"] for row in done.documents] == [0, 1, 1]
    assert git(local, "show", "all:total") == "3 by c\n"
    assert git(local, "ls-tree", "--name-only", "all").split() == [
        "a.txt", "b.txt", "c.txt", "code.txt", "total"
    ]  # fmt: skip
    assert snapshot(local) == before
    reran = inside("-P", "local", "get", done.documents[2]["landedTask"], "-o", "json").json
    assert reran["baseCommit"] == git(local, "rev-parse", "all~").strip()


@pytest.mark.slow
def test_a_rerun_has_what_the_task_had(
    local: Path, home: Path, inside: Callable[..., Done]
) -> None:
    """The network, the setup and the budget that its user chose, not the usual ones."""
    words = ("-P", "local", "create", "-x", "mine", "-g", ".", "-o", "id", "--wait")
    chosen = ("--network", "none", "--no-setup", "--budget", "5ktok", "--on-limit", "stop")
    made = [inside(*words, *chosen, COUNT.format(name), cwd=local) for name in ("a", "b")]
    assert [done.status for done in made] == [0, 0], made
    tasks = [done.out.strip() for done in made]
    done = inside("-P", "local", "land", *tasks, "--branch", "all", "-o", "jsonl", cwd=local)
    assert done.status == 0, done
    with Store(home / ".local/state/rebyte/local").read() as db:
        rows = db.execute("SELECT options FROM runs ORDER BY seq").fetchall()
    options = [json.loads(row[0]) for row in rows]
    assert len(options) == 3
    for name in ("network", "hosts", "setup", "budgets", "onLimit"):
        assert options[2][name] == options[0][name], name
