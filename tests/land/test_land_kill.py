"""`rebyte land` that is killed at every step: the branch is that of one undisturbed run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.conftest import Done
from tests.land_bench import LandBench
from tests.repositories import git, snapshot

Run = Callable[..., Done]
PROMPTS = ("add 1", "count 2", "count 3", "nothing", "fail <fail>", "set key1 6", "count 7")
# Kills the process that started it at its N-th call since the file was written: before the real
# git does anything, or after.
GIT = """#!/bin/sh
left=$(cat "{folder}/left")
echo $((left - 1)) > "{folder}/left"
test "$left" != 0 || test "$(cat "{folder}/when")" != before || kill -9 $PPID
"{git}" "$@"
status=$?
test "$left" != 0 || test "$(cat "{folder}/when")" != after || kill -9 $PPID
exit $status
"""


class Killer:
    """Runs the command with a git that kills it."""

    def __init__(self, bench: LandBench, tasks: list[str]) -> None:
        self._bench, self._tasks = bench, tasks
        self.folder = bench.repository.parent / "killer"
        self.folder.mkdir()
        program = self.folder / "git"
        program.write_text(GIT.format(folder=self.folder, git=shutil.which("git")))
        program.chmod(0o755)
        self.pid = 0

    def run(self, branch: str, left: int = -1, when: str = "before") -> tuple[int, str, str]:
        """Status and output of a run that is killed at a call of git; `left` below 0 for never."""
        (self.folder / "left").write_text(str(left))
        (self.folder / "when").write_text(when)
        words = ["land", *self._tasks, "--branch", branch, "--push", "origin", "-o", "jsonl"]
        process = subprocess.Popen(
            [sys.executable, "-m", "rebyte_cli", *words],
            cwd=self._bench.repository,
            env={**os.environ, "PATH": f"{self.folder}:{os.environ['PATH']}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.pid = process.pid
        out, errors = process.communicate(timeout=120)
        return process.returncode, out, errors


@pytest.mark.slow
def test_killed_at_every_step(bench: LandBench) -> None:
    tasks = bench.create(*PROMPTS)
    killer = Killer(bench, tasks)
    status, out, errors = killer.run("whole")
    assert status == 10, errors
    assert out.count('"landed"') == 5
    whole = [(subject, tree) for subject, tree, _ in bench.commits("whole")]
    made, before = bench.farm.made.copy(), snapshot(bench.repository)
    seen, kills = [], 0
    for step in range(1000):
        status, out, errors = killer.run("killed", step, ("before", "after")[step % 2])
        seen.append(
            git(bench.repository, "for-each-ref", "--format=%(objectname)", "refs/heads/killed")
        )
        if status != -signal.SIGKILL:
            break
        kills += 1
    assert (status, out.count('"landed"')) == (10, 5), errors
    assert kills > 20
    assert [(subject, tree) for subject, tree, _ in bench.commits("killed")] == whole
    assert all(bench.builds("killed"))
    assert snapshot(bench.repository) == before
    # What a task was run again for ran once, however often it was killed.
    again = {prompt: count - made[prompt] for prompt, count in bench.farm.made.items()}
    assert {prompt: count for prompt, count in again.items() if count} == {
        "count 3": 1,
        "count 7": 1,
    }
    # Each commit that was ever on the branch is still there.
    commits = git(bench.repository, "rev-list", "killed").split()
    assert {each.strip() for each in seen if each} <= set(commits)
    assert killer.run("killed")[1] == out


@pytest.mark.slow
def test_killed_while_a_rerun_is_created(bench: LandBench) -> None:
    """The service made the task, and no answer came: it is found, and not made again."""
    tasks = bench.create("count 1", "count 2")
    killer = Killer(bench, tasks)
    bench.farm.made_one = lambda: os.kill(killer.pid, signal.SIGKILL)
    assert killer.run("b")[0] == -signal.SIGKILL
    bench.farm.made_one = lambda: None
    status, out, errors = killer.run("b")
    assert (status, out.count('"landed"')) == (0, 2), errors
    assert bench.farm.made["count 2"] == 2
    assert [subject for subject, _, _ in bench.commits("b")] == ["count 1", "count 2"]
    assert bench.builds("b") == [True, True]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_says_how_to_resume(bench: LandBench, number: signal.Signals) -> None:
    tasks = bench.create("count 1", "count 2")
    killer = Killer(bench, tasks)
    bench.farm.made_one = lambda: os.kill(killer.pid, number)
    status, _, errors = killer.run("b")
    assert (status, f"Resume with `rebyte land {tasks[0]}" in errors) == (128 + number, True), (
        errors
    )
    bench.farm.made_one = lambda: None
    assert killer.run("b")[0] == 0
    assert bench.farm.made["count 2"] == 2
    assert bench.builds("b") == [True, True]


@pytest.mark.slow
def test_two_landings_of_one_branch(bench: LandBench) -> None:
    tasks = bench.create("count 1", "count 2")
    killer, second = Killer(bench, tasks), []

    def meanwhile() -> None:
        words = [sys.executable, "-m", "rebyte_cli", "land", *tasks, "--branch", "b"]
        second.append(subprocess.run(words, cwd=bench.repository, capture_output=True, check=False))

    bench.farm.made_one = meanwhile
    assert killer.run("b")[0] == 0
    (done,) = second
    assert done.returncode == 1, done
    assert b"another run is using the journal" in done.stderr
