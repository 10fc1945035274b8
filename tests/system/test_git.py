"""Repositories that lead elsewhere, or to a command, when `rebyte` reads them."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from rebyte_cli.local.agents.workspace import Workspace, WorkspaceSource
from rebyte_cli.system.git import GitFailed, filters_off, run, top_level
from rebyte_cli.tasks import checkout
from tests.repositories import Repository, git


@pytest.fixture
def private(home: Path) -> Repository:
    """A repository of the user that a download must not reach."""
    (home / "private").mkdir()
    repository = Repository(home / "private")
    repository.write("secret", "the user's secret\n")
    repository.commit("Secret")
    return repository


def dot_git_file(folder: Path, there: Path) -> None:
    (folder / ".git").write_text(f"gitdir: {there}\n")


def dot_git_link(folder: Path, there: Path) -> None:
    (folder / ".git").symlink_to(there)


def common_folder(folder: Path, there: Path) -> None:
    git(folder, "init", "-q", "-b", "main")
    (folder / ".git/commondir").write_text(f"{there}\n")


def linked_parts(folder: Path, there: Path) -> None:
    git(folder, "init", "-q", "-b", "main")
    for name in ("objects", "refs"):
        subprocess.run(["rm", "-r", folder / ".git" / name], check=True)
        (folder / ".git" / name).symlink_to(there / name)


def forged_worktree(folder: Path, there: Path) -> None:
    """It names the folder, as that of a linked working tree does."""
    forged = folder / "forged"
    forged.mkdir()
    (forged / "HEAD").write_text("ref: refs/heads/main\n")
    (forged / "commondir").write_text(f"{there}\n")
    (forged / "gitdir").write_text(f"{folder}/.git\n")
    (folder / ".git").write_text("gitdir: forged\n")


@pytest.mark.parametrize(
    "make", [dot_git_file, dot_git_link, common_folder, linked_parts, forged_worktree]
)
def test_a_download_cannot_name_a_repository_of_the_user(
    home: Path, private: Repository, make: Callable[[Path, Path], None]
) -> None:
    folder = home / "download"
    folder.mkdir()
    make(folder, private.path / ".git")
    assert "Secret" in git(folder, "log", "--format=%s"), "git itself is fooled"
    for read in (
        lambda: top_level(str(folder)),
        lambda: checkout.write_patch(str(folder), home / "patch"),
        lambda: Workspace(home, "ws").prepare(WorkspaceSource(str(folder), None, False), ()),
    ):
        with pytest.raises(Exception, match="elsewhere"):
            read()
    assert not (home / "workspaces/ws/code/secret").exists()


def test_working_trees_that_git_itself_made_elsewhere_are_read(
    home: Path, private: Repository
) -> None:
    linked, module, apart = home / "linked", private.path / "module", home / "apart"
    private("worktree", "add", "-q", str(linked))
    private(
        "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(private.origin),
        "module",
    )  # fmt: skip
    for folder in (linked, module, private.path):
        assert top_level(str(folder)) == str(folder)
    git(home, "clone", "-q", "--separate-git-dir", str(home / "kept"), str(private.origin), "apart")
    with pytest.raises(GitFailed, match="elsewhere") as error:
        top_level(str(apart))
    command = str(error.value.hint).partition(": ")[2].split(" ")[1:]
    git(home, *command)
    assert top_level(str(apart)) == str(apart)
    bare = Workspace(home, "ws")
    bare.prepare(WorkspaceSource(str(private.origin), None, False), ())
    assert (bare.code / "a.txt").exists()


def test_a_partial_clone_fetches_nothing_by_its_own_command(private: Repository) -> None:
    """Whatever is asked of it."""
    mark = private.path.parent / "ran"
    private("config", "extensions.partialClone", "origin")
    private("config", "remote.origin.promisor", "true")
    private("config", "remote.origin.uploadpack", f"touch {mark}; false")
    blob = private("rev-parse", "HEAD:secret").strip()
    (private.path / ".git/objects" / blob[:2] / blob[2:]).unlink()
    (private.path / ".git/index").unlink()
    subprocess.run(["git", "checkout", "-f"], cwd=private.path, capture_output=True, check=False)
    assert mark.exists(), "git itself runs it"
    mark.unlink()
    for words in (["read-tree", "HEAD"], ["cat-file", "-p", blob], ["checkout", "-f"]):
        with contextlib.suppress(GitFailed):
            run(words, private.path)
    place = Workspace(private.path.parent, "ws")
    with pytest.raises(GitFailed):
        place.prepare(WorkspaceSource(str(private.path), None, True), ())
    assert not mark.exists()


def test_a_command_that_the_repository_gives_git_lfs_is_not_run(
    private: Repository, tmp_path: Path
) -> None:
    """git-lfs is the user's own filter, and stays; it runs what `lfs.extension.*` names."""
    ran = private.path.parent / "ran"
    lfs = private.path.parent / "lfs"
    lfs.write_text('#!/bin/sh\nsh -c "$(git config lfs.extension.evil.clean)"; cat\n')
    lfs.chmod(0o755)
    subprocess.run(["git", "config", "--global", "filter.lfs.clean", lfs], check=True)
    private.write(".gitattributes", "* filter=lfs\n")
    private.write("secret", "the user's SECRET\n")
    os.utime(private.path / "secret", (2**31, 2**31))
    assert filters_off(str(private.path)) == {}
    private("config", "lfs.extension.evil.clean", f"touch {ran}")
    for read in (
        lambda: checkout.look(str(private.path)),
        lambda: checkout.write_patch(str(private.path), tmp_path / "patch"),
        lambda: Workspace(tmp_path, "ws").prepare(
            WorkspaceSource(str(private.path), None, True), ()
        ),
    ):
        with pytest.raises(GitFailed, match=r"lfs\.extension\.evil\.clean") as error:
            read()
    assert "git config --global" in str(error.value.hint) or "cannot copy" in error.value.message
    assert not ran.exists()
