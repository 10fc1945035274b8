"""Objects that workspaces borrow: kept once, complete for git, and nothing that an agent can write
or that its branch does not reach.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from rebyte_cli.local.agents import workspace_access
from rebyte_cli.local.agents.sources import lenders
from rebyte_cli.local.agents.supervision import disk_space
from rebyte_cli.local.agents.supervision.disk_space import sweep
from rebyte_cli.local.agents.workspaces.workspace_folder import Workspace, disk_usage
from rebyte_cli.system.git import GitFailed, watched
from tests.repositories import git, small_repository

from .bench import Bench, gone, with_mounts

LARGE = 4_000_000
ALTERNATES = ".git/objects/info/alternates"


class Source:
    """A repository of the user's with a large file, and agents that work on it."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        self.bench, self.folder = bench, folder
        folder.mkdir()
        git(folder, "init", "-q", "-b", "main")
        (folder / "large").write_bytes(os.urandom(LARGE))
        self.commit("a")

    def commit(self, name: str) -> str:
        """Commit one more small file; the commit."""
        (self.folder / name).write_text(f"content of {name}\n")
        git(self.folder, "add", "-A")
        git(self.folder, "commit", "-q", "-m", name)
        return git(self.folder, "rev-parse", "HEAD").strip()

    def agent(self, script: str, workspace: str, **options: object) -> str:
        """What a shell script prints that is the agent in a workspace."""
        chosen = {"source": [str(self.folder), None, False], **options}
        run = self.bench.run(["sh", "-c", f"{{ {script}\n}} 2>&1"], workspace=workspace, **chosen)
        assert run.outcome == "succeeded", (run, self.bench.said(run.prompt))
        return run.answer or ""

    def lenders(self) -> list[str]:
        return sorted(path.name for path in self.bench.folder.glob("lenders/*/*"))


@pytest.fixture
def source(bench: Bench, tmp_path: Path) -> Source:
    return Source(bench, tmp_path / "source")


def size(folder: Path) -> int:
    return disk_usage(folder)


@pytest.mark.slow
def test_the_second_workspace_is_little_more_than_its_files(source: Source) -> None:
    for name in ("one", "two"):
        source.agent("git log --oneline; echo more >> a", name)
        assert size(source.bench.workspace(name).folder) < 1.2 * LARGE
        assert "+more" in (source.bench.artifact("changes.patch", name) or "")
    assert size(source.bench.folder / "lenders") < 1.2 * LARGE
    assert disk_space.disk(source.bench.folder) > 2.9 * LARGE
    second = source.commit("b")
    assert "content of b" in source.agent("git show", "three")
    assert second in source.lenders()
    assert size(source.bench.folder / "lenders") < 1.4 * LARGE


@pytest.mark.slow
def test_git_works_with_what_is_borrowed(source: Source) -> None:
    work = (
        "git -c user.name=x -c user.email=x commit -qam work --allow-empty; git fsck;"
        " git gc -q; git repack -qad; git status --short; git log --format=%s; git clone -q . copy"
    )
    assert source.agent(work, "ws").splitlines()[-2:] == ["work", "a"]
    code = source.bench.workspace().code
    assert source.agent("git log --format=%s; git -C copy log --format=%s", "ws").split() == [
        "work", "a", "work", "a",
    ]  # fmt: skip
    assert git(code, "log", "--format=%s").split() == ["work", "a"]
    git(code / "copy", "fsck", "--strict")


@pytest.mark.slow
def test_with_changes_and_a_clone_of_elsewhere(
    source: Source, tmp_path: Path, user_home: Path
) -> None:
    """Uncommitted files are in no lender; a URL has none."""
    (source.folder / "a").write_text("mine\n")
    there = [str(source.folder), None, True]
    assert "mine" in source.agent("git show HEAD; cat a", "ws", source=there)
    blob = git(source.folder, "hash-object", "a").strip()
    for lender in source.bench.folder.glob("lenders/*/*"):
        with pytest.raises(subprocess.CalledProcessError):
            git(lender, "cat-file", "-e", blob)
    (user_home / ".gitconfig").write_text(
        f'[url "{source.folder}"]\n\tinsteadOf = https://github.com/acme/shop.git\n'
    )
    source.agent("git log", "url", source=["acme/shop", None, False])
    assert size(source.bench.workspace("url").folder) < 2.2 * LARGE


@pytest.mark.slow
def test_an_agent_can_write_to_nothing_that_it_borrows(source: Source) -> None:
    """By no way that leads there."""
    attack = """
    base=$(cat .git/objects/info/alternates)
    for folder in $base $(cat $base/info/alternates); do
        echo "$folder"
        for file in "$folder" $(find "$folder"); do
            chmod u+w "$file" && echo changed; rm -rf "$file" && echo removed
            mv "$file" /tmp/x && echo moved; ln "$file" /code/linked && echo linked
            test -d "$file" || { echo x >> "$file"; } && echo written
            touch "$file/new" && echo made
        done
    done 2>/dev/null
    true"""
    said = source.agent(attack, "ws").split()
    lender = next(source.bench.folder.glob("lenders/*/*"))
    base = source.bench.workspace().base
    assert set(said) <= {str(base / "objects"), str(lender / "objects"), "written"}, said
    assert len(said) > 1
    for repository in (base, lender):
        git(repository, "fsck", "--strict")
        assert not list(repository.rglob("new"))
    assert "content of a" in source.agent("git show", "two")


@pytest.mark.slow
def test_an_agent_sees_only_what_its_branch_reaches(source: Source) -> None:
    """Not what other workspaces began with, and what has been thrown away since."""
    source.agent("true", "one")
    secret = source.commit("secret")
    source.agent("git show", "two")
    git(source.folder, "reset", "-q", "--hard", "HEAD^")
    source.commit("b")
    git(source.folder, "branch", "-q", "other", secret)
    look = f"git cat-file -t {secret}; ls $(cat .git/objects/info/alternates)/../../../../lenders/*"
    said = source.agent(look, "three")
    assert len(source.lenders()) == 3
    assert "could not get object info" in said
    assert secret not in said
    assert secret in source.agent("git log --format=%H", "four", source=[
        str(source.folder), "other", False,
    ])  # fmt: skip


@pytest.mark.slow
def test_a_history_that_is_only_said_to_be_one_shares_nothing(source: Source) -> None:
    """`git replace --graft` gives a commit parents that it does not have; what is sent has not."""
    secret = source.commit("secret")
    source.agent("git show", "one")
    git(source.folder, "checkout", "-q", "--orphan", "new")
    git(source.folder, "rm", "-q", "-r", "--cached", ".")
    (source.folder / "secret").unlink()
    alone = source.commit("b")
    git(source.folder, "replace", "--graft", alone, secret)
    said = source.agent(f"git cat-file -t {secret}; git cat-file -t HEAD", "two")
    assert said.split()[-1] == "commit"
    assert "could not get object info" in said


@pytest.mark.slow
def test_a_repository_without_its_whole_history_shares_nothing(
    source: Source, tmp_path: Path
) -> None:
    source.commit("b")
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{source.folder}", "shallow")
    shallow = [str(tmp_path / "shallow"), None, False]
    assert source.agent("git log --format=%s", "ws", source=shallow) == "b"
    assert source.lenders() == []


@pytest.mark.slow
def test_an_agent_cannot_lend_the_clone_anything(source: Source, tmp_path: Path) -> None:
    """What the clone borrows stays, as the only thing."""
    secret = tmp_path / "secret"
    secret.mkdir()
    git(secret, "init", "-q")
    forge = f"echo {secret}/.git/objects >> {ALTERNATES}; touch .git/objects/info/commit-graph"
    source.agent(forge, "ws")
    code, base = source.bench.workspace().code, source.bench.workspace().base
    assert (code / ALTERNATES).read_text() == f"{base}/objects\n"
    assert os.listdir((code / ALTERNATES).parent) == ["alternates"]
    source.agent("rm -rf .git; git init -q", "ws")
    assert not (code / ALTERNATES).exists()


@pytest.mark.slow
def test_a_folder_whose_place_is_told_needs_no_lender(source: Source, tmp_path: Path) -> None:
    """Its user may clone it, or copy it, and delete the task."""
    source.agent("echo more >> a; git -c user.name=x -c user.email=x commit -qam more", "ws")
    workspace = source.bench.workspace()
    assert workspace_access.disarmed(source.bench.folder, "ws", complete=True)
    git(tmp_path, "clone", "-q", str(workspace.code), "cloned")
    shutil.copytree(workspace.code, tmp_path / "copied")
    assert "more" in source.agent("git log --format=%s", "ws").split()
    workspace.remove()
    shutil.rmtree(source.bench.folder / "lenders")
    for name in ("cloned", "copied"):
        git(tmp_path / name, "fsck", "--strict")
        assert git(tmp_path / name, "log", "--format=%s").split() == ["more", "a"]


@pytest.mark.slow
def test_a_lender_is_removed_when_none_needs_it(source: Source) -> None:
    first = git(source.folder, "rev-parse", "HEAD").strip()
    source.agent("true", "one")
    second = source.commit("b")
    source.agent("true", "two")
    third = source.commit("c")
    source.agent("true", "three")
    source.bench.workspace("two").remove()
    source.bench.workspace("three").remove()
    sweep(source.bench.store)
    assert source.lenders() == sorted([first, second, third]), "they were used a moment ago"
    for path in source.bench.folder.glob("lenders/*/*"):
        os.utime(path, (0, 0))
    with lenders.in_use(source.bench.folder):
        sweep(source.bench.store)
    assert len(source.lenders()) == 3, "a workspace is being made"
    sweep(source.bench.store)
    assert source.lenders() == [first]
    assert "a" in source.agent("git log --format=%s", "one")


def test_a_lender_that_would_fill_the_disk_is_not_made(source: Source) -> None:
    """Git is ended that reads what never comes."""
    blob = git(source.folder, "rev-parse", "HEAD:large").strip()
    slow = source.folder / ".git/objects" / blob[:2] / blob[2:]
    slow.unlink()
    os.mkfifo(slow)
    with watched(lambda: "the disk is full"), pytest.raises(GitFailed, match="the disk is full"):
        lenders.find(source.bench.folder, source.folder, None)
    assert source.lenders() == []
    assert gone(str(source.folder))


@pytest.mark.slow
def test_a_lender_keeps_those_that_it_borrows_from(source: Source) -> None:
    first = git(source.folder, "rev-parse", "HEAD").strip()
    source.agent("true", "one")
    second = source.commit("b")
    source.agent("true", "two")
    for name in ("one", "two"):
        source.bench.workspace(name).remove()
    os.utime(next(source.bench.folder.glob(f"lenders/*/{first}")), (0, 0))
    sweep(source.bench.store)
    assert source.lenders() == sorted([first, second])


@pytest.mark.slow
def test_an_agent_outside_the_jail_has_its_own_objects(source: Source) -> None:
    source.agent("git log", "ws", jail=False)
    assert source.lenders() == []
    assert not (Workspace(source.bench.folder, "ws").code / ALTERNATES).exists()


LINKED_HOME = 'mount -t tmpfs none /home && ln -s "$PWD" /home/agent || exit 9\nexec "$@"'
BORROWS = """
from pathlib import Path
from rebyte_cli.local.agents.sandbox import jail
from rebyte_cli.local.agents.workspaces.workspace_folder import Workspace, WorkspaceSource
for state in (Path.cwd(), Path("/home/agent")):
    workspace = Workspace(state, f"ws{len(str(state))}")
    source = WorkspaceSource(str(Path.cwd() / "repository"), None, False)
    workspace.prepare(source, (), share=True)
    print(bool(jail.layout_of(workspace.folder, jailed=True).borrowed))
"""


def test_nothing_is_shown_in_a_folder_of_the_agents(tmp_path: Path) -> None:
    """Which could be a link of the agent's by then."""
    small_repository(tmp_path / "repository")
    done = with_mounts(tmp_path, LINKED_HOME, BORROWS)
    assert done.stdout.split() == ["True", "False"], done
