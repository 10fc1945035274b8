"""What git obeys outside the jail in a folder that an agent could write to."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rebyte_cli.local.agents import workspace_access
from rebyte_cli.local.agents.supervision import run_lock
from rebyte_cli.local.agents.workspaces import disarm as disarming
from rebyte_cli.local.agents.workspaces.disarm import disarm
from rebyte_cli.local.agents.workspaces.workspace_folder import (
    UploadedFile,
    Workspace,
    WorkspaceSource,
)
from rebyte_cli.system.deadline import Deadline
from rebyte_cli.system.git import GitFailed
from tests.repositories import git
from tests.waiting import eventually

from .bench import Bench, need_jail, script
from .test_seccomp import OTHER_USER, PYTHON, may_read, perform

PROGRAMS = (
    "core.fsmonitor", "core.pager", "pager.log", "pager.status", "core.sshCommand", "diff.external",
    "core.editor", "alias.st", "filter.evil.clean", "filter.evil.smudge", "diff.evil.textconv",
    "gpg.program", "credential.helper",
)  # fmt: skip


class Trap:
    """A workspace, and a program outside it that leaves a mark when it is run."""

    def __init__(self, folder: Path) -> None:
        self.mark = folder / "ran"
        self.program = script(folder / "trap", "pwn", f'echo "$0 $*" >> "{self.mark}"; cat; true')
        source = folder / "source"
        source.mkdir()
        git(source, "init", "-q", "-b", "main")
        (source / "a").write_text("a\n")
        (source / ".gitattributes").write_text("* filter=evil diff=evil\n")
        git(source, "add", "-A")
        git(source, "commit", "-q", "-m", "Start")
        self.included = folder / "included"
        self.included.write_text(f"[core]\n\tfsmonitor = {self.program}\n")
        self.workspace = Workspace(folder / "state", "ws")
        self.workspace.prepare(WorkspaceSource(str(source), None, False), ())
        disarming.remember_origin(self.workspace, str(source))
        self.code = self.workspace.code

    def arm(self, repository: Path) -> None:
        """Do to a repository's own folder what an agent can do to it."""
        with (repository / "config").open("a") as file:
            for name in PROGRAMS:
                section, key = name.rsplit(".", 1)
                section, _, inner = section.partition(".")
                shown = f'[{section} "{inner}"]' if inner else f"[{section}]"
                mark = "!" if section == "alias" else ""
                file.write(f"{shown}\n\t{key} = {mark}{self.program}\n")
            file.write(f"[include]\n\tpath = {self.included}\n")
            file.write("[extensions]\n\tworktreeConfig = true\n[log]\n\tshowSignature = true\n")
        (repository / "config.worktree").write_text(f"[core]\n\tfsmonitor = {self.program}\n")
        (repository / "info").mkdir(exist_ok=True)
        (repository / "info/attributes").write_text("* filter=evil diff=evil\n")
        (repository / "hooks").mkdir(exist_ok=True)
        for name in ("post-index-change", "reference-transaction", "post-checkout", "pre-commit"):
            (repository / "hooks" / name).symlink_to(self.program)

    def look(self, *folders: Path) -> None:
        """Nothing that people and their prompts run in these folders leaves a mark."""
        for folder in folders:
            assert not self._bites(folder), (folder, self.mark.read_text())

    def check(self, *folders: Path) -> None:
        """It does so before the workspace is disarmed: the test is of something."""
        for folder in folders:
            assert self._bites(folder), folder
            self.mark.unlink()

    def _bites(self, folder: Path) -> bool:
        terminal = {**os.environ, "GIT_PAGER_IN_USE": "", "TERM": "xterm"}
        for words in (
            "status", "log -p --stat", "diff HEAD", "status --porcelain=v2 --branch", "branch x",
            "add -A", "stash list", "-p log", "submodule status", "st",
        ):  # fmt: skip
            subprocess.run(
                ["git", *words.split(" ")], cwd=folder, env=terminal, capture_output=True,
                check=False, timeout=20,
            )  # fmt: skip
        return self.mark.exists()


@pytest.fixture
def trap(tmp_path: Path, user_home: Path) -> Trap:
    return Trap(tmp_path)


def dirty(folder: Path) -> None:
    """Change a file without its size, so that git has to read it, through any filter."""
    (folder / "a").write_text("b\n")
    os.utime(folder / "a", (2**31, 2**31))


def begin(folder: Path) -> Path:
    """A repository of the agent's own with a commit; its `.git`."""
    folder.mkdir(parents=True)
    git(folder, "init", "-q")
    (folder / "a").write_text("a\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "Mine")
    return folder / ".git"


@pytest.mark.slow
def test_the_clone_obeys_nothing_and_keeps_the_commits_of_the_agent(trap: Trap) -> None:
    git(trap.code, "checkout", "-q", "-b", "topic")
    (trap.code / "b").write_text("b\n")
    git(trap.code, "add", "-A")
    git(trap.code, "commit", "-q", "-m", "Work of the agent")
    url = git(trap.code, "remote", "get-url", "origin")
    trap.arm(trap.code / ".git")
    dirty(trap.code)
    trap.check(trap.code)
    disarm(trap.workspace)
    dirty(trap.code)
    trap.look(trap.code)
    assert "Work of the agent" in git(trap.code, "log", "--format=%s", "topic")
    assert git(trap.code, "branch", "--show-current") == "topic\n"
    assert git(trap.code, "remote", "get-url", "origin") == url


def test_git_shows_the_commits_that_a_push_sends(trap: Trap) -> None:
    """git would show another object in the place of one that has a replacement."""
    inner = begin(trap.code / "inner")
    (inner / "config").unlink()
    folders = (trap.code, inner.parent)
    for folder in folders:
        real = git(folder, "rev-parse", "HEAD:a").strip()
        (folder / "other").write_text("harmless\n")
        git(folder, "replace", real, git(folder, "hash-object", "-w", "other").strip())
        git(folder, "pack-refs", "--all")
        assert git(folder, "show", "HEAD:a") == "harmless\n"
    disarm(trap.workspace)
    assert [git(folder, "show", "HEAD:a") for folder in folders] == ["a\n"] * 2


@pytest.mark.slow
def test_repositories_below_obey_nothing(trap: Trap) -> None:
    """One that is recorded as a submodule is asked for its status by the one above it."""
    inner = begin(trap.code / "inner")
    git(trap.code, "add", "inner")
    trap.arm(inner)
    (trap.code / ".gitmodules").write_text('[submodule "inner"]\n\tpath = inner\n\tignore = none\n')
    trap.arm(begin(trap.code / "deep/down"))
    (trap.code / "deep").chmod(0o311)
    folders = [trap.code, trap.code / "inner", trap.code / "deep/down"]
    for folder in folders:
        dirty(folder)
    trap.check(*folders)
    disarm(trap.workspace)
    for folder in folders:
        dirty(folder)
    trap.look(*folders)


def set_ids(top: Path) -> list[str]:
    """What below a folder, itself included, is setuid or setgid."""
    paths = (top, *top.rglob("*"))
    return [str(path.relative_to(top)) for path in paths if path.lstat().st_mode & 0o6000]


SET_IDS = """
git init -q; cp /bin/sh tool; mkdir -p folder/below .git/hooks; cp tool folder/unreadable
cp tool other; chmod 6755 tool other; ln tool folder/again; ln other .git/hooks/pre-commit
chmod 6000 folder/unreadable; chmod 2555 folder folder/below; chmod g+s .
test -u tool && test -u folder/again && test -g folder && echo made
"""


@pytest.mark.slow
def test_nothing_that_an_agent_made_gives_its_rights_to_others(bench: Bench) -> None:
    """A program that is setuid, once it is moved to where others can start it."""
    run = bench.run(["sh", "-c", SET_IDS])
    assert (run.outcome, run.answer) == ("succeeded", "made")
    code = bench.workspace().code
    assert set_ids(code) == []
    assert [(code / name).stat().st_mode & 0o7777 for name in ("tool", "other")] == [0o755] * 2


def test_what_is_elsewhere_keeps_its_rights(trap: Trap, tmp_path: Path) -> None:
    """A run without a jail can link to it; then not all links of the file are in the workspace."""
    (tmp_path / "other").mkdir()
    for name in ("linked", "named"):
        (tmp_path / "other" / name).touch()
        (tmp_path / "other" / name).chmod(0o6755)
    (tmp_path / "other").chmod(0o2755)
    os.link(tmp_path / "other/linked", trap.code / "linked")
    (trap.code / "named").symlink_to(tmp_path / "other/named")
    (trap.code / "folder").symlink_to(tmp_path / "other")
    (trap.workspace.home / "mine").touch()
    (trap.workspace.home / "mine").chmod(0o4711)
    os.link(trap.workspace.home / "mine", trap.code / "mine")
    disarm(trap.workspace)
    assert sorted(set_ids(tmp_path / "other")) == [".", "linked", "named"]
    assert set_ids(trap.workspace.home) == []


@pytest.mark.slow
def test_repositories_elsewhere_are_not_reached(trap: Trap) -> None:
    """By a `.git` that is a file or a link, a folder shared between work trees, or a submodule."""
    home = trap.workspace.home
    there = begin(home / "evil")
    trap.arm(there)
    for name, text in (
        ("absolute", f"gitdir: {there}\n"), ("relative", "gitdir: ../../home/evil/.git\n"),
        ("through", "gitdir: ../.git/modules/../../../home/evil/.git"),
        ("hidden", "gitdir: ../disguise"),
    ):  # fmt: skip
        (trap.code / name).mkdir()
        (trap.code / name / ".git").write_text(text)
    trap.arm(begin(trap.code / "x").rename(trap.code / "disguise"))
    (trap.code / "link").mkdir()
    (trap.code / "link/.git").symlink_to(there)
    shared = begin(trap.code / "shared")
    (shared / "commondir").write_text(f"{there}\n")
    (trap.code / ".git/modules").mkdir()
    begin(trap.code / "module").rename(trap.code / ".git/modules/module")
    (trap.code / "module/.git").write_text("gitdir: ../.git/modules/module\n")
    trap.arm(trap.code / ".git/modules/module")
    names = ("absolute", "relative", "through", "hidden", "link", "shared", "disguise", "module")
    folders = [trap.code / name for name in names]
    dirty(trap.code / "module")
    trap.check(*folders)
    disarm(trap.workspace)
    dirty(trap.code / "module")
    trap.look(trap.code, *folders)
    assert "Mine" in git(trap.code / "module", "log", "--format=%s"), "a submodule stays one"


def test_the_folder_itself_as_a_bare_repository(trap: Trap) -> None:
    """Which git finds once `.git` is gone."""
    subprocess.run(["rm", "-rf", trap.code / ".git"], check=True)
    git(trap.code, "init", "-q", "--bare", "--template=", ".")
    trap.arm(trap.code)
    trap.check(trap.code)
    disarm(trap.workspace)
    trap.look(trap.code)


def test_a_bare_repository_among_the_users_files_stays_as_it_is(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    git(source, "init", "-q")
    git(source, "init", "-q", "--bare", "fixture.git")
    with (source / "fixture.git/config").open("a") as file:
        file.write('# Mine\n[remote "origin"]\n\turl = git@example.com:x/y.git\n')
    for name in ("objects", "refs"):
        (source / "fixture.git" / name / "keep").touch()
    git(source, "add", "-A")
    git(source, "commit", "-q", "-m", "Start")
    workspace = Workspace(tmp_path / "state", "ws")
    workspace.prepare(WorkspaceSource(str(source), None, False), ())
    before = (workspace.code / "fixture.git/config").read_text()
    disarm(workspace)
    assert (workspace.code / "fixture.git/config").read_text() == before
    assert git(workspace.code, "status", "--porcelain") == ""


@pytest.mark.slow
@pytest.mark.parametrize("inside", ["", "docs"])
def test_a_committed_bare_repository_with_a_work_tree_is_harmless(
    tmp_path: Path, user_home: Path, inside: str
) -> None:
    """A stranger's repository; of the one at the top, an agent has only to remove `.git`."""
    trap = Trap(tmp_path)
    source = tmp_path / "source"
    place = source / inside
    for name in ("objects", "refs"):
        (place / name).mkdir(parents=True)
        (place / name / "x").touch()
    (place / "HEAD").write_text("ref: refs/heads/main\n")
    (place / "config").write_text(
        "[core]\n\trepositoryformatversion = 0\n\tbare = false\n\tworktree = .\n"
        f"\tfsmonitor = {trap.program}\n"
    )
    git(source, "add", "-A")
    git(source, "commit", "-q", "-m", "Evil")
    trap.workspace = Workspace(tmp_path / "state", "ws2")
    trap.workspace.prepare(WorkspaceSource(str(source), None, False), ())
    code = trap.workspace.code
    if not inside:
        subprocess.run(["rm", "-rf", code / ".git"], check=True)
    shutil.copytree(code, tmp_path / "copy")  # what git writes there changes it
    trap.check(tmp_path / "copy" / inside)
    disarm(trap.workspace)
    trap.look(code / inside)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        "[core]\n\tfsmonitor = {program}\n\tworktree = .\n",
        "[include]\n\tpath = {included}\n[core]\n\tbare = true\n",
        '[includeIf "gitdir:/"]\n\tpath = {included}\n',
        "[core] pager = {program}\n",
        "[core]\n\tbare = true\n\tpager = \\\n{program}\n",
        '[alias]\n\tst = "!{program}"\n',
        "[extensions]\n\tworktreeConfig = true\n",
        "# \\\n[core]\n\tPAGER={program}\n",
        '[remote "origin"]\n\turl = ext::{program}\n',
        "# {padding}\n",
    ],
)
def test_a_committed_bare_repository_whose_settings_name_more_is_harmless(
    tmp_path: Path, user_home: Path, settings: str
) -> None:
    """Whatever git reads there that is not known to be harmless, such as a file it cannot hold."""
    source = tmp_path / "source"
    git(tmp_path, "init", "-q", "source")
    git(source, "init", "-q", "--bare", "--template=", "tests/x.git")
    place = source / "tests/x.git"
    for name in ("objects", "refs"):
        (place / name / "keep").touch()
    padding = "x" * disarming.LONGEST_CONFIG
    names = {"program": "/bin/evil", "included": "/tmp/evil", "padding": padding}
    (place / "config").write_text(settings.format(**names))
    git(source, "add", "-A")
    git(source, "commit", "-q", "-m", "Evil")
    workspace = Workspace(tmp_path / "state", "ws")
    workspace.prepare(WorkspaceSource(str(source), None, False), ())
    disarm(workspace)
    text = (workspace.code / "tests/x.git/config").read_text()
    assert "evil" not in text
    assert "worktree" not in text
    assert len(text) < 1000


@pytest.mark.slow
def test_a_very_deep_bare_repository_among_the_users_files_stays_too(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    git(source, "init", "-q")
    deep = source / "deep.git/refs" / "/".join("a" * 1200)  # more than Python takes calls
    for folder in (source / "deep.git/objects", deep):
        subprocess.run(["mkdir", "-p", folder], check=True)
        (folder / "keep").touch()
    (source / "deep.git/HEAD").write_text("ref: refs/heads/main\n")
    git(source, "add", "-A")
    git(source, "commit", "-q", "-m", "Start")
    workspace = Workspace(tmp_path / "state", "ws")
    try:
        workspace.prepare(WorkspaceSource(str(source), None, False), ())
        disarm(workspace)
        assert git(workspace.code, "status", "--porcelain") == ""
        assert (workspace.code / "deep.git/objects/keep").exists()
    finally:  # pytest itself cannot remove what is left of it
        subprocess.run(["rm", "-rf", source, workspace.folder], check=True)


@pytest.mark.slow
def test_a_bare_repository_of_the_users_in_which_anything_has_changed(tmp_path: Path) -> None:
    """Its settings alone say nothing: git also takes them from where `commondir` leads."""
    trap = Trap(tmp_path)
    source = tmp_path / "source"
    names = ("shared", "hooked", "executable", "same")
    for name in names:
        git(source, "init", "-q", "--bare", "--template=", name)
        (source / name / "hooks").mkdir()
        (source / name / "hooks/reference-transaction").write_text(f"#!/bin/sh\n{trap.program}\n")
        for empty in ("objects", "refs"):
            (source / name / empty / "keep").touch()
    git(source, "add", "-A")
    git(source, "commit", "-q", "-m", "Fixtures")
    trap.workspace = Workspace(tmp_path / "state", "ws2")
    trap.workspace.prepare(WorkspaceSource(str(source), None, False), ())
    code = trap.workspace.code
    trap.arm(begin(code / "x").rename(code / "evil"))
    for name in names[:2]:
        (code / name / "commondir").write_text("../evil\n")
    (code / "hooked/hooks/post-index-change").symlink_to(trap.program)
    (code / "executable/hooks/reference-transaction").chmod(0o755)
    trap.check(*(code / name for name in names[:2]))
    disarm(trap.workspace)
    trap.look(*(code / name for name in names[:2]))
    assert not (code / "executable/hooks").exists()
    assert (code / "same/hooks/reference-transaction").exists()


@pytest.mark.slow
def test_a_repository_between_others_takes_nothing_from_elsewhere(trap: Trap) -> None:
    """The settings of a linked work tree are where its `commondir` leads, if its name is odd, too.

    A submodule's own name can lead there as well, without any `.git` file.
    """
    shared = begin(trap.code / "x").rename(trap.code / "evil")
    trap.arm(shared)
    (shared / "HEAD").unlink()  # no repository by itself
    linked = trap.code / ".git/modules/foo/.git/worktrees/x"
    for place, up in ((linked, 7), (trap.code / ".git/worktrees/y", 3)):
        place.mkdir(parents=True)
        (place / "HEAD").write_text("ref: refs/heads/main\n")
        (place / "commondir").write_text("../" * (up - 1) + "evil\n")
    for name, target in (("odd", "modules/foo/.git/worktrees/x"), ("direct", "worktrees/y")):
        (trap.code / name).mkdir()
        (trap.code / name / ".git").write_text(f"gitdir: ../.git/{target}\n")
    commit = git(trap.code, "rev-parse", "HEAD").strip()
    git(trap.code, "update-index", "--add", "--cacheinfo", f"160000,{commit},odd")
    folders = [trap.code / "direct", trap.code / "odd", trap.code, linked]
    trap.check(*folders[1:])
    disarm(trap.workspace)
    trap.look(*folders)


def test_a_linked_work_tree_of_the_agents_stays_one(trap: Trap) -> None:
    """In the jail, where its absolute paths are."""
    git(trap.code, "worktree", "add", "-q", "trees/x")
    entry, tree = trap.code / ".git/worktrees/x", trap.code / "trees/x/.git"
    tree.write_text("gitdir: /code/.git/worktrees/x\n")
    (entry / "gitdir").write_text("/code/trees/x/.git\n")
    (entry / "index").unlink()  # which is written again
    before = {path.name: path.read_bytes() for path in entry.iterdir() if path.is_file()}
    assert before["commondir"] == b"../..\n"
    disarm(trap.workspace)
    after = {path.name: path.read_bytes() for path in entry.iterdir() if path.is_file()}
    assert after == before
    assert tree.read_text() == "gitdir: /code/.git/worktrees/x\n"
    for name in ("../../../tmp/x", ".."):
        tree.write_text(f"gitdir: /code/.git/worktrees/{name}\n")
        (entry / "gitdir").write_text(f"/code/{name}/.git\n")
        disarm(trap.workspace)
        assert not tree.exists()
        assert not (entry / "gitdir").exists()


def test_a_submodule_leads_to_the_top_repository_alone(trap: Trap, tmp_path: Path) -> None:
    """More steps up reach a repository of the user's, in which git would write."""
    above = begin(tmp_path / "mine")
    (above.parent.parent / ".git/modules").mkdir(parents=True)
    above.rename(tmp_path / ".git/modules/x")
    (trap.code / "sub").mkdir()
    up = "../" * len((trap.code / "sub").relative_to(tmp_path).parts)
    (trap.code / "sub/.git").write_text(f"gitdir: {up}.git/modules/x\n")
    assert "Mine" in git(trap.code / "sub", "log", "--format=%s")
    disarm(trap.workspace)
    assert not (trap.code / "sub/.git").exists()


def test_parts_of_a_bare_repository_are_not_elsewhere(trap: Trap, tmp_path: Path) -> None:
    mine = begin(tmp_path / "mine")
    bare = trap.code / "bare"
    git(trap.code, "init", "-q", "--bare", "bare")
    subprocess.run(["rm", "-rf", bare / "refs/heads"], check=True)
    (bare / "refs/heads").symlink_to(mine / "refs/heads")
    (trap.code / "other/objects").mkdir(parents=True)
    (trap.code / "other/HEAD").write_text("ref: refs/heads/main\n")
    (trap.code / "other/refs").symlink_to(mine / "refs")
    disarm(trap.workspace)
    assert not os.path.lexists(bare / "refs/heads")
    assert not os.path.lexists(trap.code / "other/refs")


@pytest.mark.slow
def test_the_private_home_obeys_nothing(trap: Trap) -> None:
    """`git push` runs the hooks of a repository there, and people change into folders."""
    home = trap.workspace.home
    trap.arm(begin(home / "deep/evil"))
    trap.arm(begin(home / "top").rename(home / ".git"))
    folders = [home, home / "deep/evil"]
    trap.check(*folders)
    disarm(trap.workspace)
    trap.look(*folders)


@pytest.mark.slow
def test_names_of_any_length_stop_nothing(trap: Trap) -> None:
    """What cannot be named by its path is reached all the same, and so is all after it."""
    trap.arm(trap.code / ".git")
    for number in range(12):
        here = os.open(trap.code, os.O_RDONLY)
        for name in (f"z{number}", ".git", "objects", *["d" * 200] * 30):
            os.mkdir(name, dir_fd=here)
            below = os.open(name, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.symlink("x", "l" * 250, dir_fd=here)
        os.mkdir(".git", dir_fd=here)
        os.close(os.open(".git/config.worktree", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        disarm(trap.workspace)
        assert os.listdir(here) == [".git"]
        assert os.listdir(os.open(".git", os.O_RDONLY, dir_fd=here)) == []
        os.close(here)
    trap.look(trap.code)
    subprocess.run(["rm", "-rf", trap.workspace.folder], check=True)


def test_what_cannot_be_made_safe_leaves_nothing_else_armed(trap: Trap) -> None:
    """An immutable file, say. The rest is disarmed, and the failure is told."""
    inner = begin(trap.code / "inner")
    (inner / "hooks").mkdir(exist_ok=True)
    for folder in (trap.code / ".git", inner):
        trap.arm(folder)
    (inner / "stuck").mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "x", inner / "stuck"], check=False)
    if mounted.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        with pytest.raises(OSError, match=r"inner/\.git/stuck: cannot be removed"):
            disarm(trap.workspace)
        trap.look(trap.code, trap.code / "inner")
    finally:
        subprocess.run(["umount", inner / "stuck"], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["code", "home"])
def test_a_top_folder_that_cannot_be_opened_leaves_the_other_one_disarmed(
    trap: Trap, tmp_path: Path, name: str
) -> None:
    trap.arm(begin(trap.workspace.home / "mine"))
    trap.arm(trap.code / ".git")
    trap.check(trap.code, trap.workspace.home / "mine")
    (trap.workspace.folder / name).rename(tmp_path / "elsewhere")
    (trap.workspace.folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=f"^{name}: "):
        disarm(trap.workspace)
    trap.look(trap.code if name == "home" else trap.workspace.home / "mine")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["code", "home", "code/m", "code/m/.git"])
def test_what_another_user_keeps_closed_leaves_nothing_else_armed(
    user_home: Path, name: str
) -> None:
    """The run is of an ordinary user, whom modes can stop."""
    if os.geteuid() != 0 or not PYTHON or not may_read(OTHER_USER):
        pytest.skip("needs root, and a checkout that other users may read")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        trap = Trap(Path(folder))
        places = [trap.code / "aa", trap.code / "m", trap.code / "z", trap.workspace.home / "mine"]
        for place in places:
            trap.arm(begin(place))
        os.mkdir(trap.code / "m/.git/odd")
        trap.check(*places)
        own(trap.workspace.folder.parents[2], OTHER_USER)
        closed = trap.workspace.folder / name
        own(closed, 0)
        closed.chmod(0o700)
        code = "import sys; sys.path.insert(0, sys.argv[1])\nfrom pathlib import Path\n"
        code += "from rebyte_cli.local.agents.workspaces.disarm import disarm\n"
        code += "from rebyte_cli.local.agents.workspaces.workspace_folder import Workspace\n"
        code += "try: disarm(Workspace(Path(sys.argv[2]), 'ws'))\n"
        code += "except OSError as error: print(error)"
        words = [PYTHON, "-I", "-c", code, str(Path(__file__).parents[3]), f"{folder}/state"]
        told = perform(words, OTHER_USER)
        assert told == [f"{name}: Operation not permitted"]
        own(trap.workspace.folder.parents[2], 0)  # git obeys nothing of other users
        open_ones = [place for place in places if not (place / ".git").is_relative_to(closed)]
        assert open_ones
        trap.look(*open_ones)


def own(folder: Path, user: int) -> None:
    """Give a folder with all that is in it to a user."""
    subprocess.run(["chown", "-hR", str(user), folder], check=True)


def test_a_folder_that_is_moved_away_on_the_way_misleads_nothing(tmp_path: Path) -> None:
    """Above it is another one then, and the walk would proceed there."""
    for name in ("top/a/x", "top/.git/.git/down", "top/.git/b", "other/b", "other/a/x"):
        (tmp_path / name).mkdir(parents=True)
    seen = []
    errors = disarming._Failures()
    for folder in disarming._walk(tmp_path / "top", errors, Deadline(60)):
        seen.append(os.fstat(folder.descriptor).st_ino)
        if folder.path == [".git", ".git"]:  # the first of the folders beside it
            (tmp_path / "top/.git/.git").rename(tmp_path / "other/.git")
    top, moved = tmp_path / "top", tmp_path / "other/.git"
    there = [top, top / ".git", moved, moved / "down", top / ".git/b", top / "a", top / "a/x"]
    assert seen == [path.stat().st_ino for path in there]
    assert errors == []


def test_what_can_no_longer_be_reached_is_told_and_passed(tmp_path: Path) -> None:
    for name in ("top/a", "top/.git/.git/down", "top/.git/b"):
        (tmp_path / name).mkdir(parents=True)
    seen = []
    errors = disarming._Failures()
    for folder in disarming._walk(tmp_path / "top", errors, Deadline(60)):
        seen.append("/".join(folder.path))
        if folder.path == [".git", ".git", "down"]:
            (tmp_path / "top/.git/.git").rename(tmp_path / "moved")
            (tmp_path / "top/.git").rename(tmp_path / "moved too")
            (tmp_path / "top/.git").touch()
    assert seen == ["", ".git", ".git/.git", ".git/.git/down", "a"]
    assert errors == ["top/.git: Not a directory"]


def test_settings_that_cannot_be_written_again_are_removed(trap: Trap) -> None:
    """On a full disk, say: a repository without any is harmless, too."""
    trap.arm(trap.code / ".git")
    trap.check(trap.code)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limit[1]))
    try:
        with pytest.raises(OSError, match=r"^code/\.git/config: File too large"):
            disarm(trap.workspace)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    trap.look(trap.code)


def test_a_walk_that_takes_too_long_is_ended(trap: Trap) -> None:
    with pytest.raises(OSError, match="too many folders or repositories"):
        disarm(trap.workspace, seconds=-1.0)


@pytest.mark.slow
def test_more_repositories_than_are_remembered_are_harmless_and_told(trap: Trap) -> None:
    """Each may have a path of thousands of bytes. The index of the clone comes first."""
    inner = [begin(trap.code / name) for name in ("inner", "other")]
    for folder in (trap.code / ".git", *inner):
        trap.arm(folder)
    with pytest.raises(OSError, match="too many repositories") as failed:
        disarm(trap.workspace, room=len("code/.git"))
    assert str(failed.value).count("too many") == 2
    assert (trap.code / ".git/index").exists()
    assert [(folder / "index").exists() for folder in inner] == [False, False]
    trap.look(trap.code, trap.code / "inner", trap.code / "other")


def test_places_that_cannot_be_made_harmless_are_counted(trap: Trap) -> None:
    for number in range(10):
        begin(trap.code / f"inner{number}")
    with pytest.raises(OSError, match=r"([^;]*too many [^;]*; ){3}and 7 more$"):
        disarm(trap.workspace, room=len("code/.git"))


@pytest.mark.slow
def test_many_names_in_one_folder_take_no_memory(trap: Trap) -> None:
    """Names of one file cost an agent next to nothing."""
    places = (trap.workspace.home, trap.code / ".git")
    for place in places:
        (place / "d").mkdir(parents=True)
        (place / "d/x").touch()
        for number in range(20_000):
            os.link(place / "d/x", place / f"d/{number}")
    tracemalloc.start()
    try:
        disarm(trap.workspace)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_many_names_in_one_folder_take_no_longer_than_the_walk_may(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    walk = disarming._walk(tmp_path, disarming._Failures(), Deadline(0.05))
    folder = next(walk)
    assert [entry.name for entry in folder.entries()] == ["x"]
    time.sleep(0.05)
    with pytest.raises(TimeoutError, match="too many names"):
        list(folder.entries())
    walk.close()


def test_so_many_folders_that_their_names_would_fill_the_memory_are_not_harmless() -> None:
    """In one folder, half a million of them: made up here, since a disk takes minutes for them."""
    entry, failed = SimpleNamespace(name="x", is_dir=lambda follow_symlinks: True), list[str]()
    made = iter(range(10**9))
    folder = SimpleNamespace(entries=lambda: (entry for _ in made), fail=failed.append)
    assert disarming._folders(cast(disarming._Folder, folder)) == []
    assert failed == ["too many folders"]
    assert next(made) < 10**6


def test_a_long_list_of_what_failed_is_cut(tmp_path: Path) -> None:
    errors = disarming._Failures()
    for number in range(5):
        errors.add(["code", "x" * 300, f"\udcff{number}"], "cannot be removed")
    first, *others, last = str(errors).split("; ")
    assert first.startswith("…xxx")
    assert first.endswith("/\\xff0: cannot be removed")
    assert (len(first), len(others), last) == (220, 2, "and 2 more")


def test_only_what_git_writes_by_itself_stays_in_its_folder(trap: Trap) -> None:
    """Commands of an unfinished rebase, old remotes, and whatever a later git reads."""
    folder = trap.code / ".git"
    for name in ("rebase-merge", "rebase-apply", "sequencer", "remotes", "branches", "later"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "BISECT_RUN").touch()
    git(trap.code, "config", "extensions.refStorage", "files:///tmp/x")
    disarm(trap.workspace)
    kept = {path.name for path in folder.iterdir()}
    assert kept <= {
        "HEAD", "config", "index", "objects", "refs", "logs", "packed-refs", "description",
        "FETCH_HEAD", "ORIG_HEAD", "COMMIT_EDITMSG",
    }  # fmt: skip
    assert "files://" not in (folder / "config").read_text()


def test_links_and_pipes_in_a_repository_are_removed(trap: Trap, tmp_path: Path) -> None:
    """git writes its index and its logs through links, and waits at a pipe for ever."""
    mine = tmp_path / "bashrc"
    mine.write_text("mine")
    folder = trap.code / ".git"
    (folder / "index").unlink()
    (folder / "index").symlink_to(mine)
    (folder / "logs/HEAD").unlink(missing_ok=True)
    (folder / "logs").mkdir(exist_ok=True)
    (folder / "logs/HEAD").symlink_to(mine)
    (folder / "info").mkdir(exist_ok=True)
    os.mkfifo(folder / "info/grafts")
    os.mkfifo(folder / "packed-refs.x")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "s")[-100:]) if len(str(folder)) < 90 else None
    (folder / "objects/info/alternates").write_text(f"{tmp_path}/source/.git/objects\n")
    disarm(trap.workspace)
    git(trap.code, "add", "-A")
    git(trap.code, "commit", "-q", "--allow-empty", "-m", "By the user")
    assert mine.read_text() == "mine"
    assert not (folder / "objects/info/alternates").exists()


def test_a_long_name_of_a_section_takes_no_time(trap: Trap) -> None:
    """Each setting below it was matched together with the name: half a megabyte, 72,000 times."""
    with (trap.code / ".git/config").open("a") as file:
        file.write(f'[branch "{"a" * 200_000}"]\n' + "\tremote = .\n" * 60_000)
    began = time.process_time()
    disarm(trap.workspace)
    assert time.process_time() - began < 3
    assert "branch.aaa" not in git(trap.code, "config", "--local", "--name-only", "--list")


def test_settings_that_name_nothing_stay(trap: Trap) -> None:
    for name, value in (
        ("user.name", "Jörg Müller"), ("branch.main.merge", "refs/heads/main"),
        ("remote.fork.url", "https://example.com/fork.git"), ("remote.bad.url", "ext::sh -c id"),
        ("remote.fork.uploadpack", "/bin/evil"), ("branch.a b.remote", "fork"),
    ):  # fmt: skip
        git(trap.code, "config", name, value)
    with (trap.code / ".git/config").open("a") as file:
        file.write("[user] email = x\n[ user ]\nemail = y\n[core]\nfsmonitor\n\tfilemode = true\n")
    disarm(trap.workspace)
    text = (trap.code / ".git/config").read_text()
    for kept in ("name = Jörg Müller", "merge = refs/heads/main", "https://example.com/fork.git"):
        assert kept in text
    for dropped in ("ext::", "uploadpack", "fsmonitor", "email"):
        assert dropped not in text
    before = text
    disarm(trap.workspace)
    assert (trap.code / ".git/config").read_text() == before


def test_a_huge_or_broken_config_and_a_git_folder_that_is_none(trap: Trap) -> None:
    with (trap.code / ".git/config").open("wb") as file:
        file.truncate(3 << 30)
    (trap.code / "empty/.git").mkdir(parents=True)
    (trap.code / "pipe").mkdir()
    os.mkfifo(trap.code / "pipe/.git")
    (trap.code / "folder/.git/config/x").mkdir(parents=True)
    (trap.code / "folder/.git/HEAD").write_text("ref: refs/heads/main\n")
    disarm(trap.workspace)
    assert (trap.code / ".git/config").stat().st_size < 1000
    names = git(trap.code, "config", "--local", "--name-only", "--list").split()
    assert names == ["core.usereplacerefs", "remote.origin.url"]
    assert not (trap.code / "pipe/.git").exists()
    trap.look(trap.code)


def test_uploads_stay_ignored_and_a_pipe_in_their_place_stops_nothing(
    trap: Trap, tmp_path: Path
) -> None:
    upload = tmp_path / "upload"
    upload.write_text("input")
    source = WorkspaceSource(None, None, False)
    trap.workspace.prepare(source, [UploadedFile("in.txt", upload)])
    disarm(trap.workspace)
    assert git(trap.code, "status", "--porcelain") == ""
    exclude = trap.code / ".git/info/exclude"
    for make in (os.mkfifo, lambda path: path.write_bytes(b""), os.mkdir):
        if exclude.is_dir():
            exclude.rmdir()
        exclude.unlink(missing_ok=True)
        make(exclude)
        if exclude.is_file():
            os.truncate(exclude, 3 << 30)
        trap.workspace.prepare(source, [UploadedFile("in.txt", upload)])
        assert exclude.read_text() == "/in.txt\n"


ARM = (
    'git init -q . 2>/dev/null; git config core.fsmonitor "touch {mark}; true"; echo armed; {then}'
)


@pytest.mark.slow
def test_the_end_of_a_run_disarms(bench: Bench, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    bench.run(["sh", "-c", ARM.format(mark=mark, then="true")])
    subprocess.run(["git", "status"], cwd=bench.workspace().code, check=True, capture_output=True)
    assert not mark.exists()


def test_a_run_that_was_killed_is_disarmed_by_the_next_look(bench: Bench, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    prompt = bench.start(["sh", "-c", ARM.format(mark=mark, then="sleep 600")])
    bench.until_started(prompt)
    assert not workspace_access.disarmed(bench.folder, "ws"), "an agent works there"
    os.kill(bench.supervisor(prompt), signal.SIGKILL)
    eventually(lambda: run_lock.wait_until_free(bench.folder, "ws"))
    assert workspace_access.disarmed(bench.folder, "ws")
    subprocess.run(["git", "status"], cwd=bench.workspace().code, check=True, capture_output=True)
    assert not mark.exists()


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True])
def test_a_run_says_what_could_not_be_made_safe(bench: Bench, tmp_path: Path, killed: bool) -> None:
    mark = tmp_path / "mark"
    until_told = "while ! test -e /code/end; do sleep 0.05; done"
    line = ARM.format(mark=mark, then="sleep 600" if killed else until_told)
    prompt = bench.start(["sh", "-c", f"mkdir ~/mine; cd ~/mine; git init -q; {line}"])
    bench.until_started(prompt)
    workspace = bench.workspace()
    workspace.code.rename(tmp_path / "moved")
    workspace.code.symlink_to(tmp_path / "moved")
    if killed:
        os.kill(bench.supervisor(prompt), signal.SIGKILL)
        eventually(lambda: run_lock.wait_until_free(bench.folder, "ws"))
    else:
        (tmp_path / "moved/end").touch()
    bench.wait(prompt)
    told = "git is not safe in the folder of the workspace: code: Not a directory"
    assert told in bench.said(prompt)
    subprocess.run(["git", "status"], cwd=workspace.home / "mine", check=True, capture_output=True)
    assert not mark.exists()
    with pytest.raises(OSError, match=r"^code: "):
        workspace_access.disarmed(bench.folder, "ws")


@pytest.mark.slow
def test_git_in_the_jail_has_no_effect_outside(
    trap: Trap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_jail()
    monkeypatch.setenv("https_proxy", "http://user:password@proxy.invalid")
    state = tmp_path / "state"
    inside = f"cat /proc/[0-9]*/environ > /code/ran-inside; touch {trap.mark}; true"
    (trap.code / ".git/config").write_text("")
    for name in ("core.fsmonitor", "core.pager"):
        git(trap.code, "config", name, inside)
    output = b"".join(workspace_access.git_inside(state, "ws", ["status", "--porcelain"]))
    seen = (trap.code / "ran-inside").read_bytes()
    assert b"HOME=/tmp" in seen, output
    assert b"password" not in seen
    assert not trap.mark.exists()
    assert b"Start" in b"".join(workspace_access.git_inside(state, "ws", ["log", "--format=%s"]))
    git(trap.code, "config", "alias.network", "!readlink /proc/self/ns/net")
    (network,) = workspace_access.git_inside(state, "ws", ["network"])
    assert network.decode().strip() not in ("", os.readlink("/proc/self/ns/net"))
    with pytest.raises(GitFailed, match="ambiguous argument"):
        list(workspace_access.git_inside(state, "ws", ["log", "nothing"]))


def test_a_walk_does_not_build_the_path_of_each_folder(
    trap: Trap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only that of a folder that cannot be opened: a tree can be 150,000 folders deep."""
    names, opened = 0, disarming._opened

    def counting(
        name: str | Path, here: int | None, place: Iterable[str], errors: Any
    ) -> int | None:
        nonlocal names
        names += len(place) if isinstance(place, list) else 0
        return opened(name, here, place, errors)

    (trap.code / "/".join("d" * 500)).mkdir(parents=True)
    monkeypatch.setattr(disarming, "_opened", counting)
    disarm(trap.workspace)
    assert names < 500


@pytest.mark.slow
def test_a_deep_tree_stops_nothing_and_is_removed(trap: Trap) -> None:
    here = os.open(trap.code, os.O_RDONLY)
    for _ in range(1500):  # more than a path, a stack and the open files of a process take
        os.mkdir("deep", dir_fd=here)
        below = os.open("deep", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.mkdir("x", 0o500, dir_fd=here)
    os.close(here)
    try:
        disarm(trap.workspace)
        trap.workspace.remove()
        assert not trap.workspace.folder.exists()
    finally:  # pytest itself cannot remove what is left of it
        subprocess.run(["rm", "-rf", trap.workspace.folder], check=True)
