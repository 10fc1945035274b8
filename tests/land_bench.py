"""What the tests of `rebyte land` work on: a repository with tasks that were made for it.

Each prompt is an order that `edited` carries out, on whatever the branch has when the task runs:

    add NAME        a file `src/NAME.txt`
    count NAME      the same, and the number in `total.txt` is one more, which NAME signs
    tally NAME      the same without NAME: two of them merge, and the number is wrong then
    new TEXT        a file `src/new.txt` that says TEXT
    set KEY VALUE   the line of KEY in `keys.txt`
    weaken          the test of the build passes always
    nothing, none, fail
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conftest import Done
from tests.patch_farm import PatchFarm
from tests.repositories import git

# What holds in every state of the branch, if no change was lost, doubled or merged wrongly.
SCRIPT = """
test "$(ls src | grep -c '^count-')" = "$(cut -d' ' -f1 total.txt)" && ! grep -rq '^<<<<<<<' .
"""
BUILD = "sh build.sh"
KEYS = 12


class LandBench:
    """A service, an `origin` that it clones, and the user's `repository`."""

    def __init__(self, folder: Path, run: Callable[..., Done]) -> None:
        self.origin, self.repository = folder / "origin.git", folder / "shop"
        self._agents, self._run, self._lock = folder / "agents", run, threading.Lock()
        first = folder / "first"
        (first / "src").mkdir(parents=True)
        (first / "src/start.txt").write_text("start\n")
        (first / "total.txt").write_text("0\n")
        (first / "build.sh").write_text(SCRIPT)
        keys = "".join(f"key{number} = 0\n-\n-\n-\n" for number in range(KEYS))
        (first / "keys.txt").write_text(keys)
        git(first, "init", "-q", "-b", "main")
        git(first, "add", "-A")
        git(first, "commit", "-q", "-m", "Start")
        git(folder, "clone", "-q", "--bare", str(first), str(self.origin))
        git(folder, "clone", "-q", str(self.origin), str(self.repository))
        git(folder, "clone", "-q", str(self.origin), str(self._agents))
        (self.repository / "total.txt").write_text("not committed\n")
        self.farm = PatchFarm(self._agent)

    def _agent(self, body: dict[str, Any]) -> bytes | None:
        """What an agent changes on the branch that it is told to clone."""
        with self._lock:
            git(self._agents, "fetch", "-q", "origin")
            git(self._agents, "checkout", "-q", "-f", "--detach", f"origin/{body['branchName']}")
            git(self._agents, "clean", "-qfd")
            if not edited(self._agents, body["prompt"]):
                return None
            git(self._agents, "add", "-A")
            words = ["git", "diff", "--cached", "--binary", "--full-index"]
            return subprocess.run(words, cwd=self._agents, capture_output=True, check=True).stdout

    def create(self, *prompts: str) -> list[str]:
        """The ids of tasks with these prompts, which began on `main`."""
        words = ("-g", "acme/shop", "-b", "main", "-o", "id")
        made = [self._run("create", prompt, *words) for prompt in prompts]
        assert not any(done.status for done in made), made
        return [done.out.strip() for done in made]

    def commits(self, branch: str) -> list[tuple[str, str, str]]:
        """Subject, tree and task of each commit on a branch, oldest first."""
        form = "--format=%s\t%T\t%(trailers:key=Rebyte-Task,valueonly,separator=)"
        log = git(self.repository, "log", "--reverse", form, f"main..{branch}")
        return [(each[0], each[1], each[2]) for each in map(_cells, log.splitlines())]

    def builds(self, branch: str) -> list[bool]:
        """Whether each commit of a branch builds."""
        commits = git(self.repository, "rev-list", "--reverse", f"main..{branch}").split()
        return [self._builds(commit) for commit in commits]

    def _builds(self, commit: str) -> bool:
        folder = self.repository.parent / "build"
        script = f"rm -rf {folder}; mkdir {folder}; git archive {commit} | tar x -C {folder}"
        subprocess.run(["sh", "-ec", script], cwd=self.repository, check=True)
        return subprocess.run(["sh", "-c", BUILD], cwd=folder, check=False).returncode == 0


def _cells(line: str) -> list[str]:
    return line.split("\t")


def edited(folder: Path, prompt: str) -> bool:
    """Carry out a prompt; False if it leaves no patch."""
    order, *words = prompt.split()
    if order in ("add", "count", "tally"):
        name = "count-" * (order != "add") + words[0]
        (folder / f"src/{name}.txt").write_text(f"{words[0]}\n")
    if order in ("count", "tally"):
        total = folder / "total.txt"
        number = int(total.read_text().split()[0]) + 1
        total.write_text(f"{number}{f' by {words[0]}' * (order == 'count')}\n")
    if order == "new":
        (folder / "src/new.txt").write_text(f"{words[0]}\n")
    if order == "weaken":
        (folder / "build.sh").write_text("exit 0\n")
    if order == "set":
        keys = folder / "keys.txt"
        lines = [
            f"{words[0]} = {words[1]}" if line.startswith(f"{words[0]} ") else line
            for line in keys.read_text().splitlines()
        ]
        keys.write_text("\n".join(lines) + "\n")
    return order != "none"
