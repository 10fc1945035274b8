"""Merging new commits of the user's repository into a workspace, whatever ends it."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from rebyte_cli.local.agents.sandbox.jail_group import end_rest
from rebyte_cli.local.agents.workspaces import changes
from rebyte_cli.local.agents.workspaces.sync import bring, complete_merge
from rebyte_cli.local.agents.workspaces.workspace_folder import Workspace, WorkspaceSource
from rebyte_cli.system.git import GitFailed
from tests.repositories import git

from .bench import need_jail

FILES = 3000  # git takes a while to write them
# Brings commits in and kills itself in the middle of a line of Python: before it starts its program
# number N, or renames or removes such a file.
DIES = """
import os, signal, sys
from pathlib import Path
from rebyte_cli.local.agents.workspaces.sync import bring, complete_merge
from rebyte_cli.local.agents.workspaces.workspace_folder import Workspace
state, source, left = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
def look(event, arguments):
    global left
    if event in ("subprocess.Popen", "os.rename", "os.remove"):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
workspace = Workspace(state, "ws")
sys.addaudithook(look)
if sys.argv[4:]:
    complete_merge(workspace)
else:
    bring(workspace, source, None, "run", {}, str)
"""


class Place:
    """A repository with new commits, and a workspace in which an agent has changed it."""

    def __init__(self, folder: Path) -> None:
        need_jail()
        self.folder = folder
        self.source = folder / "source"
        self.workspace = Workspace(folder / "state", "ws")
        self.code = self.workspace.code
        self.first = self.code / "many/0"
        self.plan = self.workspace.folder / "sync"

    def make(self, *, commits: bool = False, files: int = 5) -> Place:
        """Make both; with `commits`, the agent has committed a part of what it changed."""
        self.source.mkdir(parents=True)
        (self.source / "code.txt").write_text("".join(f"line {n}\n" for n in range(20)))
        (self.source / "old.txt").write_text("old\n")
        git(self.source, "init", "-q", "-b", "main")
        self.commit("Start")
        self.workspace.prepare(WorkspaceSource(str(self.source), None, False), ())
        self.change(self.code, "line 3\n", "AGENT\n")
        if commits:
            git(self.code, "commit", "-q", "-a", "-m", "Agent")
        (self.code / "added.txt").write_text("AGENT\n")
        changes.patch(self.workspace, "run", jailed=True)
        (self.source / "many").mkdir()
        for number in range(files):
            (self.source / f"many/{number}").write_text(f"USER {number}\n")
        (self.source / "old.txt").unlink()
        self.change(self.source, "line 15\n", "USER\n")
        self.commit("More")
        return self

    def commit(self, message: str) -> None:
        git(self.source, "add", "-A")
        git(self.source, "commit", "-q", "-m", message)

    @staticmethod
    def change(folder: Path, before: str, after: str) -> None:
        text = (folder / "code.txt").read_text()
        assert before in text
        (folder / "code.txt").write_text(text.replace(before, after))

    def copy(self, folder: Path) -> Place:
        shutil.copytree(self.folder, folder, symlinks=True)
        return Place(folder)

    def bring(self, watch: Callable[[], str] = str) -> bool:
        return bring(self.workspace, self.source, None, "run", {}, watch)

    def child(self, steps: int = 0, *more: str) -> subprocess.Popen[bytes]:
        """A process that brings the commits, and dies before that step; with more, that settles."""
        words = [str(self.workspace.state_dir), str(self.source), str(steps), *more]
        return subprocess.Popen([sys.executable, "-c", DIES, *words])

    def judge(self) -> bool:
        """Settle what was left. Whether the commits are there; fails if they are only in part."""
        complete_merge(self.workspace)
        assert not self.plan.exists()
        patch = changes.patch(self.workspace, "run", jailed=True)
        assert changes.of_runs(self.workspace, ["run"], ["run"], jailed=True) == patch
        assert patch.count(b"\n+AGENT\n") == 2
        assert b"\n+USER" not in patch
        assert b"\n-USER" not in patch
        assert b"old.txt" not in patch
        files = len(list((self.code / "many").glob("*")))
        log = git(self.code, "log", "--format=%s").split("\n")
        has_commits = git(self.source, "rev-parse", "HEAD").strip() in git(
            self.workspace.base, "rev-parse", "refs/heads/base"
        )
        assert ("More" in log) is has_commits
        assert files == (len(list((self.source / "many").glob("*"))) if has_commits else 0)
        status = set(git(self.code, "status", "--short").splitlines())
        committed = "Agent" in log
        assert status == {"?? added.txt"} | (set() if committed else {" M code.txt"})
        git(self.code, "fsck", "--connectivity-only")
        git(self.workspace.base, "fsck", "--connectivity-only")
        return has_commits


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "place").make()


def killed_at_each_step(place: Place, folder: Path, *more: str) -> list[bool]:
    """Kill it before each of its steps: whether the commits were there afterwards."""
    found = []
    for steps in count(1):
        at = place.copy(folder / str(steps))
        status = at.child(steps, *more).wait()
        found.append(at.judge())
        assert at.bring() is not found[-1]
        shutil.rmtree(at.folder)
        if status == 0:
            return found
        assert status == -signal.SIGKILL
    raise AssertionError


@pytest.mark.slow
@pytest.mark.parametrize("commits", [False, True])
def test_killed_at_each_step(tmp_path: Path, commits: bool) -> None:
    place = Place(tmp_path / "place").make(commits=commits)
    found = killed_at_each_step(place, tmp_path)
    assert found == sorted(found)
    assert found.count(True) > 8
    assert found.count(False) > 8


def half_merged(place: Place) -> Place:
    """Kill it while git writes the files."""
    with place.child() as process:
        while not place.first.exists():
            assert process.poll() is None
        process.kill()
    end_rest(place.workspace.folder, wait=True)
    assert len(list((place.code / "many").iterdir())) < FILES
    return place


@pytest.mark.slow
def test_killed_while_git_writes_the_files(tmp_path: Path) -> None:
    place = half_merged(Place(tmp_path / "place").make(files=FILES))
    # git in the sandbox and outside may have held more.
    for name in (".git/index", ".git/HEAD", ".git/refs/heads/main"):
        (place.code / f"{name}.lock").touch()
    (place.workspace.base / "refs/heads/base.lock").touch()
    (place.code / "many/1").write_text("US")
    assert place.judge()
    assert not place.bring()
    assert (place.code / "many/1").read_text() == "USER 1\n"


@pytest.mark.slow
def test_killed_again_while_that_is_settled(place: Place, tmp_path: Path) -> None:
    for steps in count(1):
        at = place.copy(tmp_path / "killed")
        at.child(steps).wait()
        if at.plan.exists():
            break
        shutil.rmtree(at.folder)
    assert all(killed_at_each_step(at, tmp_path, "complete_merge"))


@pytest.mark.slow
def test_a_full_disk_ends_the_merge_and_changes_nothing(tmp_path: Path) -> None:
    place = Place(tmp_path / "place").make(commits=True, files=FILES)
    with pytest.raises(GitFailed, match="the disk is full"):
        place.bring(lambda: "the disk is full")
    assert not place.judge()

    def full() -> str:
        """The disk becomes full while git writes the files."""
        if not place.plan.exists():
            return ""
        while not place.first.exists():
            pass
        return "the disk is full"

    with pytest.raises(GitFailed, match="the disk is full"):
        place.bring(full)
    assert not place.plan.exists()
    assert not place.judge()
    (place.workspace.base / "shallow.lock").touch()  # of a fetch that was killed
    assert place.bring()
    assert place.judge()


@pytest.mark.slow
def test_a_head_that_cannot_be_moved_changes_nothing(place: Place) -> None:
    (place.code / ".git/refs/heads/main.lock").mkdir()
    with pytest.raises(GitFailed, match="remove the file manually"):
        place.bring()
    assert not place.judge()


@pytest.mark.slow
def test_the_agent_was_killed_in_a_merge_of_its_own(place: Place) -> None:
    """Its conflict is content like any other; of the state of its git, the index is replaced."""
    git(place.code, "checkout", "-q", "-b", "other", "HEAD")
    git(place.code, "commit", "-q", "-a", "-m", "Agent")
    git(place.code, "checkout", "-q", "-b", "theirs", "HEAD^")
    place.change(place.code, "line 3\n", "OTHER\n")
    git(place.code, "commit", "-q", "-a", "-m", "Other")
    with pytest.raises(subprocess.CalledProcessError):
        git(place.code, "merge", "other")
    assert git(place.code, "ls-files", "--unmerged")
    (place.code / ".git/index.lock").touch()
    assert place.bring()
    text = (place.code / "code.txt").read_text()
    assert "<<<<<<< HEAD\nOTHER\n=======\nAGENT\n>>>>>>> other\n" in text
    assert "\nUSER\n" in text
    assert not git(place.code, "ls-files", "--unmerged")
    assert git(place.code, "log", "-1", "--format=%s") == "Merge new commits\n"
    patch = changes.patch(place.workspace, "run", jailed=True)
    assert b"+AGENT\n+>>>>>>> other\n" in patch
    assert b"USER\n+" not in patch
    assert b"+USER" not in patch


@pytest.mark.slow
def test_new_files_that_are_ignored_are_no_changes_of_the_agent(place: Place) -> None:
    (place.source / ".gitignore").write_text("*.log\n")
    (place.source / "kept.log").write_text("USER\n")
    git(place.source, "add", "--force", "kept.log")
    place.commit("Ignored")
    assert place.bring()
    assert b"kept.log" not in changes.patch(place.workspace, "run", jailed=True)


@pytest.mark.slow
def test_the_work_in_a_repository_in_the_place_of_a_file_stays(place: Place) -> None:
    work = place.code / "old.txt/work"
    (place.code / "old.txt").unlink()
    work.parent.mkdir()
    git(work.parent, "init", "-q")
    work.write_text("AGENT\n")
    assert place.bring()
    assert work.read_text() == "AGENT\n"
    assert (place.code / "many/0").exists()
    assert b"+++ b/old.txt/work\n" in changes.patch(place.workspace, "run", jailed=True)


BUMPED = f"git update-index --cacheinfo 160000,{'2' * 40},p/q"
GONE = "git rm -q --cached p/q; rmdir p/q;"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("agent", "user", "named"),
    [
        ("echo AGENT > p/q/work", f"{GONE} echo USER > p/q", "p/q"),
        ("echo AGENT > p/q/work", f"{GONE} ln -s ../old.txt p/q", "p/q"),
        ("echo AGENT > p/q/work", f"{GONE} rmdir p; echo USER > p", "p"),
        ("echo AGENT > p/q/work", f"{GONE} mkdir p/q; echo USER > p/q/work", "p/q/work"),
        ("echo AGENT > p/q/work", f"{GONE} mkdir p/q; echo USER > p/q/other", ""),
        ("echo AGENT > p/q/work", GONE, ""),
        ("echo AGENT > p/q/work", BUMPED, ""),
        ("rmdir p/q; echo AGENT > p/q", BUMPED, "p/q"),
        ("rmdir p/q; ln -s AGENT p/q", BUMPED, "p/q"),
        ("rmdir p/q; echo AGENT > p/q", GONE, "p/q"),
        ("rm -r p; echo AGENT > p", BUMPED, "p/q"),
        ("rm -r p; ln -s AGENT p", BUMPED, "p/q"),
        ("true", f"{GONE} echo USER > p/q", ""),
    ],
)
def test_the_work_in_the_place_of_a_submodule_stays(
    tmp_path: Path, agent: str, user: str, named: str
) -> None:
    """Or in its folder: where it is in the way, it is named, and nothing is changed."""
    place = Place(tmp_path / "place")
    (place.source / "p/q").mkdir(parents=True)
    git(place.source, "init", "-q", "-b", "main")
    git(place.source, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},p/q")
    place.commit("Start")
    place.workspace.prepare(WorkspaceSource(str(place.source), None, False), ())
    subprocess.run(["sh", "-ec", agent], cwd=place.code, check=True)
    changes.patch(place.workspace, "run", jailed=True)
    before = work(place.code)
    subprocess.run(["sh", "-ec", user], cwd=place.source, check=True)
    (place.source / "new").touch()
    place.commit("More")
    if named:
        with pytest.raises(GitFailed, match=f": {named}$|conflicts in .*{named}"):
            place.bring()
        assert work(place.code) == before
    else:
        assert place.bring()
        assert before.items() <= work(place.code).items()
        assert (place.code / "new").exists()


@pytest.mark.slow
def test_a_conflict_is_named_on_one_line(tmp_path: Path) -> None:
    """The last line of what git says is the reason."""
    place = Place(tmp_path / "place").make()
    for folder in (place.code, place.source):
        (folder / "new\nline").write_text(str(folder))
    place.commit("New")
    with pytest.raises(GitFailed, match=r'^conflicts in "new\\nline"$'):
        place.bring()


def work(folder: Path) -> dict[Path, str]:
    """The files and links below a folder but git's, with what they say."""
    return {
        path: str(path.readlink()) if path.is_symlink() else path.read_text()
        for path in folder.rglob("*")
        if (path.is_file() or path.is_symlink()) and ".git" not in path.parts
    }


@pytest.mark.slow
def test_what_changes_after_the_merge_counts(place: Place) -> None:
    """As the last run's, as `workspace run` says."""
    assert place.bring()
    (place.code / "later.txt").write_text("LATER\n")
    changes.patch(place.workspace, "run", jailed=True)
    patch = changes.of_runs(place.workspace, ["run"], ["run"], jailed=True)
    assert patch is not None
    assert b"+LATER\n" in patch
    assert b"+USER" not in patch


def test_what_only_the_agents_git_tracked_stays_when_its_index_is_a_new_one(
    tmp_path: Path,
) -> None:
    place = Place(tmp_path).make(commits=True)
    (place.code / ".gitignore").write_text("*.log\n")
    (place.code / "own.log").write_text("AGENT LOG\n")
    git(place.code, "add", "-f", "own.log")
    changes.patch(place.workspace, "run", jailed=True)
    assert place.bring()
    assert not git(place.code, "ls-files", "own.log")
    assert b"\n+AGENT LOG\n" in changes.patch(place.workspace, "next", jailed=True)
