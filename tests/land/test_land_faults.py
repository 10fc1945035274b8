"""`rebyte land` on a machine that fails: it stops, and the same command ends as if nothing were."""

from __future__ import annotations

import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Done
from tests.land_bench import LandBench
from tests.servers import Answer, Request

Run = Callable[..., Done]
PROMPTS = ("count 1", "count 2", "add 3", "count 4")
ALL = [("landed", 0), ("landed", 1), ("landed", 0), ("landed", 1)]


class Machine:
    """Runs the command in another process, which can be made to fail while it creates."""

    def __init__(self, bench: LandBench, home: Path) -> None:
        self._bench = bench
        self._process: subprocess.Popen[str] | None = None
        self.state = home / ".local/state/rebyte"
        self.tasks: list[str] = []

    def land(self, *words: str) -> Done:
        """Land the tasks on the branch `b`."""
        line = [sys.executable, "-m", "rebyte_cli", "land", *self.tasks, "--branch", "b", "-o"]
        self._process = subprocess.Popen(
            [*line, "jsonl", "--push", "origin", *words],
            cwd=self._bench.repository,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        out, errors = self._process.communicate(timeout=120)
        return Done(self._process.returncode, out, errors)

    def lock(self, *words: str) -> sqlite3.Connection:
        """Keep the history locked, as another process does that is stuck."""
        other = sqlite3.connect(
            self.state / "history.db", isolation_level=None, check_same_thread=False
        )
        for each in words or ("BEGIN IMMEDIATE",):
            other.execute(each)
        return other

    def fill_disk(self, name: str) -> None:
        """Let no file of the command become longer than one of the state folder."""
        assert self._process is not None
        (file,) = self.state.glob(name)
        limits = (file.stat().st_size, resource.RLIM_INFINITY)
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, limits)

    def check_end(self) -> None:
        """The same command ends as one that nothing has happened to."""
        done = self.land()
        assert done.status == 0, done
        assert [(row["status"], row["reruns"]) for row in done.documents] == ALL
        assert [subject for subject, _, _ in self._bench.commits("b")] == list(PROMPTS)
        assert self._bench.builds("b") == [True] * 4
        assert self._bench.farm.made == {"count 1": 1, "count 2": 2, "add 3": 1, "count 4": 2}


@pytest.fixture
def machine(bench: LandBench, home: Path) -> Machine:
    """A service that tells the workspace of a task once, and tasks of which two conflict."""
    made = Machine(bench, home)
    bench.farm.tells_workspace = False
    made.tasks = bench.create(*PROMPTS)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["locked", "full"])
def test_a_history_that_does_not_take_the_rerun(
    bench: LandBench, machine: Machine, fault: str
) -> None:
    """It used to leave out what ran again, for ever: its workspace was nowhere."""
    locks = []

    def fail() -> None:
        bench.farm.made_one = lambda: None
        if fault == "locked":
            locks.append(machine.lock())
        else:
            machine.fill_disk("history.db-wal")

    bench.farm.made_one = fail
    done = machine.land()
    assert done.status == 1, done
    assert [row["status"] for row in done.documents] == ["landed"]
    assert "history.db cannot be used" in done.err
    assert "continuing" not in done.err
    for each in locks:
        each.close()
    machine.check_end()


@pytest.mark.slow
def test_a_disk_that_takes_nothing_more(bench: LandBench, machine: Machine) -> None:
    """Nothing here names the rerun: it is found at the service, which tells its workspace."""

    def fail() -> None:
        bench.farm.made_one = lambda: None
        machine.fill_disk("land/*.journal")

    bench.farm.made_one, bench.farm.tells_workspace = fail, True
    done = machine.land()
    assert (done.status, "File too large" in done.err) == (1, True), done
    machine.check_end()


@pytest.mark.slow
def test_a_history_that_is_off(machine: Machine, home: Path) -> None:
    """It does not keep the workspace of a rerun, and it was left out for that."""
    config = home / ".config/rebyte/config.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text("history = false\n")
    machine.check_end()


@pytest.mark.slow
def test_a_journal_that_does_not_take_the_rerun(bench: LandBench, machine: Machine) -> None:
    """The history has it then."""

    def fail() -> None:
        bench.farm.made_one = lambda: None
        (journal,) = machine.state.glob("land/*.journal")
        journal.rename(journal.with_name("elsewhere"))
        journal.write_bytes(b"")

    bench.farm.made_one = fail
    done = machine.land()
    assert (done.status, "was replaced by another file" in done.err) == (1, True), done
    (journal,) = machine.state.glob("land/*.journal")
    (machine.state / "land/elsewhere").rename(journal)
    machine.check_end()


@pytest.mark.slow
@pytest.mark.parametrize("given", ["ids", "names", "results"])
def test_a_history_that_is_locked_from_the_start(machine: Machine, given: str) -> None:
    """Without it, no workspace is known, and no name of a task."""
    reading = ("PRAGMA locking_mode=EXCLUSIVE", "BEGIN EXCLUSIVE", "SELECT * FROM tasks")
    lock = machine.lock(*(() if given == "ids" else reading))
    ids, words = machine.tasks, list[str]()
    if given == "names":
        machine.tasks = ["@4", "@3", "@2", "@1"]
    if given == "results":
        file = machine.state / "results.jsonl"
        rows = ({"id": task, "status": "completed"} for task in ids)
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        machine.tasks, words = [], ["--results", str(file)]
    done = machine.land(*words)
    assert (done.status, done.documents) == (1, []), done
    assert "another process has kept it locked" in done.err
    lock.close()
    machine.tasks = ids
    machine.check_end()


@pytest.mark.slow
def test_a_journal_that_cannot_be_written(machine: Machine) -> None:
    land = machine.state / "land"
    land.symlink_to("/proc")
    done = machine.land()
    assert (done.status, done.documents) == (1, []), done
    assert "cannot write the journal" in done.err
    assert "--journal" not in done.err
    land.unlink()
    machine.check_end()


@pytest.mark.slow
def test_a_patch_that_there_is_no_room_for(bench: LandBench, machine: Machine) -> None:
    place = bench.farm.tasks[machine.tasks[2]]["workspaceId"]
    known, patches = bench.farm.hook, bench.farm.patches
    small, patches[place] = patches[place], bytes(1 << 20)

    def hook(request: Request) -> Answer | None:
        if place in request.path:
            machine.fill_disk("history.db-wal")
        return known(request)

    bench.farm.hook = hook
    done = machine.land()
    assert (done.status, "changes.patch: File too large" in done.err) == (1, True), done
    bench.farm.hook, patches[place] = known, small
    machine.check_end()


@pytest.mark.slow
def test_a_check_on_a_disk_that_is_full(bench: LandBench, machine: Machine, home: Path) -> None:
    """It fails for that, or may do so: nothing runs again because of it."""
    config = home / ".config/rebyte/config.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    fill = f"echo '[local]' > {config}; echo 'keep_free = \"900T\"' >> {config}; false"
    done = machine.land("--check", fill, "--no-jail")
    assert (done.status, done.documents) == (1, []), done
    assert "the check cannot run: the disk has only" in done.err
    config.unlink()
    machine.check_end()


# A git that is killed in one of its commands, for as long as a file is there.
KILLED = """#!/bin/sh
case " $* " in *" {word} "*) if [ -e {mark} ]; then {then} kill -9 $$; fi; esac
exec {git} "$@"
"""
# In this order, each of them is still to come in the landing when the ones before have stopped it.
WORDS = (
    *("refs/heads/b^{commit}", "symbolic-ref", "check-ref-format", "worktree", "config"),
    *("apply", "read-tree", "write-tree", "check-attr", "diff-tree", "checkout-index"),
    *("commit.gpgSign", "commit-tree", "update-ref", "push"),
)
Kill = Callable[..., Path]


@pytest.fixture
def kill(home: Path, monkeypatch: pytest.MonkeyPatch) -> Kill:
    """Has git killed in commands with a word: once, or while the file is there that it returns."""
    program, mark = home / "killed/git", home / "mark"
    program.parent.mkdir()
    found = shutil.which("git")
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    def make(word: str, *, once: bool = False) -> Path:
        then = f"rm {mark};" if once else ""
        program.write_text(KILLED.format(word=word, mark=mark, git=found, then=then))
        program.chmod(0o755)
        mark.touch()
        return mark

    return make


@pytest.mark.slow
def test_a_git_that_is_killed(bench: LandBench, machine: Machine, kill: Kill) -> None:
    """It used to mean no: no such branch, and the journal was forgotten; no signature wanted."""
    bench.farm.made_one = lambda: kill("apply")
    check = ("--check", "true", "--no-jail")
    assert machine.land(*check).status == 1
    bench.farm.made_one = lambda: None
    for word in WORDS:
        mark = kill(word)
        done = machine.land(*check)
        assert done.status == 1, (word, done)
        assert {row["status"] for row in done.documents} <= {"landed"}, (word, done)
    mark.unlink()
    machine.check_end()


@pytest.mark.slow
def test_a_git_that_is_killed_once(machine: Machine, kill: Kill) -> None:
    """It is no failed check of the task that it was for."""
    mark = kill("checkout-index", once=True)
    done = machine.land("--check", "true", "--no-jail")
    assert (done.status, mark.exists()) == (0, False), done
    machine.check_end()
