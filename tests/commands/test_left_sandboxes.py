"""What lives on in a sandbox when rebyte and its guard were killed, until the next command."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import outliving
from tests.conftest import COMMAND, Done
from tests.repositories import small_repository
from tests.waiting import eventually

from .conftest import SCRIPT, Run

pytestmark = pytest.mark.slow
MARK = f"94{os.getpid()}"
NEXT = [["list"], ["get", "@last"], ["cancel", "@last"], ["local", "status"]]
NEXT += [["local", "reset", "--yes"]]


@pytest.fixture
def run(home: Path, with_agents: Callable[[str], Run]) -> Iterator[Run]:
    """The command, where an agent that runs its prompt as a script has made a workspace."""
    run = with_agents(SCRIPT)
    repository = small_repository(home / "repository")
    assert run("create", "true", "-x", "mine", "-g", str(repository), "--wait").status == 0
    yield run
    outliving.kill(MARK)


def left(state: Path, *words: str) -> None:
    """Have a program live on in a sandbox of the command `words`, which is killed."""
    process = subprocess.Popen([*COMMAND, *words], stderr=subprocess.DEVNULL)
    eventually(lambda: outliving.is_at_work(MARK) or process.poll() is not None)
    if process.poll() is not None:
        pytest.skip("this kernel lets no program trace another that it did not start")
    outliving.kill_guards(state)
    process.kill()
    process.wait()
    assert outliving.is_at_work(MARK)


@pytest.mark.parametrize("words", NEXT, ids=lambda words: words[-1])
def test_a_command_ends_what_a_run_has_left(run: Run, home: Path, words: list[str]) -> None:
    """Also where the database cannot be read, nor written, as on a full disk."""
    state = home / ".local/state/rebyte"
    begun = run("create", outliving.command(MARK), "-x", "mine", "-o", "id")
    assert begun.status == 0, begun
    eventually(lambda: outliving.is_at_work(MARK))
    (lock,) = (
        path
        for path in (state / "local").glob("workspaces/*/runs/*/lock")
        if "gone" not in path.read_text()
    )
    outliving.kill_guards(state)
    os.kill(int(lock.read_text().split()[0]), signal.SIGKILL)
    assert outliving.is_at_work(MARK)
    (state / "local/service.db").write_bytes(b"not a database" * 1000)
    done = run(*words)
    assert done.status == 0 or "it is damaged" in done.err, done
    assert not outliving.is_at_work(MARK)


@pytest.mark.parametrize("words", [NEXT[0], NEXT[-1]], ids=lambda words: words[-1])
@pytest.mark.parametrize("what", ["check", "workspace run"])
def test_a_command_ends_what_one_by_hand_has_left(
    run: Run, home: Path, what: str, words: list[str]
) -> None:
    script = outliving.command(MARK)
    by_hand = {
        "check": ["check", "@last", script],
        "workspace run": ["workspace", "run", "@last", "--", "sh", "-c", script],
    }
    left(home / ".local/state/rebyte", *by_hand[what])
    done: Done = run(*words)
    assert done.status == 0, done
    assert not outliving.is_at_work(MARK)
    assert not list(home.glob(".local/state/rebyte/checks/tree-*"))


@pytest.mark.parametrize("words", [NEXT[0], NEXT[3]], ids=lambda words: words[-1])
def test_a_command_removes_the_tree_of_a_check_that_its_guard_has_ended(
    run: Run, home: Path, words: list[str]
) -> None:
    state = home / ".local/state/rebyte"
    process = subprocess.Popen([*COMMAND, "check", "@last", f"sleep {MARK}"])
    eventually(lambda: outliving.is_at_work(MARK))
    (tree,) = state.glob("checks/tree-*")
    assert run(*words).status == 0
    assert outliving.is_at_work(MARK)
    process.kill()
    process.wait()
    eventually(lambda: not list((tree / "jails").iterdir()))
    assert tree.exists()
    assert run(*words).status == 0
    assert not tree.exists()


def test_a_command_removes_the_tree_of_a_check_that_was_killed_before_its_sandbox(
    run: Run, home: Path
) -> None:
    """But none that may be just now being made."""
    old, new = (home / f".local/state/rebyte/checks/tree-{name}" for name in ("old", "new"))
    for tree in (old, new):
        (tree / "code/src").mkdir(parents=True)
    an_hour_ago = time.time() - 3600
    os.utime(old, (an_hour_ago, an_hour_ago))
    assert run("list").status == 0
    assert not old.exists()
    assert (new / "code/src").exists()
