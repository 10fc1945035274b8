"""A patch that git has begun to apply and cannot: the files of the user are as they were."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from rebyte_cli.errors import Interrupted, RebyteError
from rebyte_cli.tasks import apply
from rebyte_cli.tasks.patch import PatchConflict
from tests.patch_farm import patch_of
from tests.repositories import git, introduce

CODE = "line\n" * 20


@pytest.fixture
def repository(home: Path) -> Path:
    introduce(home)
    root = home / "repository"
    root.mkdir()
    git(root, "init", "-q", "-b", "main")
    (root / "first.txt").write_text(CODE)
    (root / "last.txt").write_text(CODE)
    (root / "link").symlink_to("first.txt")
    (root / "folder").mkdir()
    (root / "folder/gone.txt").write_text(CODE)
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "Start")
    return root


def changed(root: Path, *, new: str = "notes/new.txt") -> Callable[[], None]:
    """Changes of every kind, in which a new file is written before others are."""

    def change() -> None:
        for name in ("first.txt", "last.txt"):
            (root / name).write_text(CODE + "theirs\n")
        (root / "link").unlink()
        (root / "link").symlink_to("last.txt")
        shutil.rmtree(root / "folder")
        (root / new).parent.mkdir(parents=True)
        (root / new).write_text("new\n")
        (root / new).parent.joinpath("run.sh").write_text("new\n")

    return change


def files(root: Path) -> dict[str, object]:
    """Everything in the working tree, and the index."""
    found: dict[str, object] = {"index": git(root, "ls-files", "--stage", "--debug").count("\n")}
    for path in sorted(root.rglob("*")):
        if ".git" not in path.parts:
            content = os.readlink(path) if path.is_symlink() else path.is_dir() or path.read_bytes()
            found[str(path)] = (path.lstat().st_mode, content)
    return found


@pytest.mark.parametrize("has_links", [True, False])
@pytest.mark.parametrize("way", ["untracked", "tracked", "dirty", "hidden", "link"])
def test_a_file_in_the_place_of_a_folder(
    repository: Path, monkeypatch: pytest.MonkeyPatch, way: str, has_links: bool
) -> None:
    theirs = patch_of(repository, changed(repository))
    if way == "link":
        (repository / "notes").symlink_to("folder")
    else:
        (repository / "notes").write_text("mine\n")
    if way == "tracked":
        git(repository, "add", "-A")
        git(repository, "commit", "-q", "-m", "Mine")
    if way in ("dirty", "hidden"):
        (repository / "last.txt").write_text("mine, not committed\n" + CODE)
    if way == "hidden":
        git(repository, "update-index", "--skip-worktree", "last.txt")
    if not has_links:
        monkeypatch.setattr(os, "link", no_links)
    before = files(repository)
    asked: list[bool] = []
    with pytest.raises(PatchConflict, match="does not apply"):
        apply.apply(theirs, repository, lambda: asked.append(True))
    assert files(repository) == before
    assert not asked
    assert not list((repository / ".git").glob("rebyte-*"))


def no_links(*_words: object, **_options: object) -> None:
    raise OSError("no links here")


def test_a_path_inside_a_submodule(repository: Path) -> None:
    theirs = patch_of(repository, changed(repository, new="sub/new.txt"))
    git(repository, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},sub")
    git(repository, "commit", "-q", "-m", "Sub")
    (repository / "sub").mkdir()
    before = files(repository)
    with pytest.raises(PatchConflict):
        apply.apply(theirs, repository)
    assert files(repository) == before


def test_a_signal_while_git_fails(repository: Path, tmp_path: Path) -> None:
    theirs = patch_of(repository, changed(repository))
    (repository / "notes").write_text("mine\n")
    before = files(repository)
    # git runs this when it has removed files, and writes them again.
    git(repository, "config", "filter.slow.smudge", f"kill -INT {os.getpid()}; cat")
    (repository / ".git/info/attributes").write_text("first.txt filter=slow\n")
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(Interrupted) as stopped:
            apply.apply(theirs, repository)
    finally:
        signal.signal(signal.SIGINT, old)
    assert stopped.value.hint == "Nothing was applied"
    assert files(repository) == before


def test_what_cannot_be_kept_is_not_touched(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = patch_of(repository, changed(repository))
    before = files(repository)
    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(shutil, "copy2", no_links)
    with pytest.raises(RebyteError, match="cannot be kept"):
        apply.apply(theirs, repository)
    assert files(repository) == before
    assert not list((repository / ".git").glob("rebyte-*"))


def test_a_file_that_is_only_newer_than_the_index_is_staged(repository: Path) -> None:
    theirs = patch_of(repository, changed(repository))
    os.utime(repository / "first.txt", (1, 1))
    assert "first.txt" in apply.apply(theirs, repository)
    assert git(repository, "diff", "--name-only") == ""
    assert "theirs" in git(repository, "show", ":first.txt")


def test_conflicts_stay(repository: Path) -> None:
    theirs = patch_of(repository, changed(repository))
    (repository / "first.txt").write_text(CODE + "mine\n")
    git(repository, "commit", "-q", "-a", "-m", "Mine")
    with pytest.raises(PatchConflict, match=r"first\.txt"):
        apply.apply(theirs, repository)
    assert "<<<<<<<" in (repository / "first.txt").read_text()
    assert "theirs" in (repository / "last.txt").read_text()
