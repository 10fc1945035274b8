"""A patch that git has begun to apply and cannot: the files of the user are as they were."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rebyte_cli.errors import Interrupted, RebyteError
from rebyte_cli.tasks import apply
from rebyte_cli.tasks.patch import PatchConflict, missing
from rebyte_cli.tasks.patched_tree import tree_with
from tests.patch_farm import patch_of
from tests.repositories import git, introduce
from tests.waiting import eventually

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


@pytest.mark.parametrize("way", ["untracked", "tracked", "dirty", "hidden", "link"])
def test_a_file_in_the_place_of_a_folder(repository: Path, way: str) -> None:
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
    before = files(repository)
    with pytest.raises(PatchConflict, match=r"notes is no folder, but notes/new\.txt is in it"):
        apply.apply(theirs, repository, pytest.fail, force=True)
    assert files(repository) == before
    assert not list((repository / ".git").glob("rebyte-*"))


def no_links(*_words: object, **_options: object) -> None:
    raise OSError("no links here")


def test_a_path_inside_a_submodule(repository: Path) -> None:
    theirs = patch_of(repository, changed(repository, new="sub/new.txt"))
    git(repository, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},sub")
    git(repository, "commit", "-q", "-m", "Sub")
    (repository / "sub").mkdir()
    before = files(repository)
    with pytest.raises(PatchConflict, match=r"sub/new\.txt is in the submodule sub"):
        apply.apply(theirs, repository)
    assert files(repository) == before


@pytest.mark.parametrize("inside", ["mine.txt", "deep/mine.txt", "empty/", "link"])
def test_a_folder_in_the_place_of_a_file(repository: Path, inside: str) -> None:
    """git notices it when all files that the patch changes are gone."""
    theirs = patch_of(repository, lambda: (repository / "first.txt").rename(repository / "new"))
    (repository / ".git/info/exclude").write_text("new\n")
    path = repository / "new" / inside
    path.parent.mkdir(parents=True)
    if inside.endswith("/"):
        path.mkdir()
    elif inside == "link":
        path.symlink_to("../folder")
    else:
        path.write_text("mine\n")
    before = files(repository)
    said = f"new is a folder, and new/{inside.strip('/')} is in it"
    with pytest.raises(PatchConflict, match=said):
        apply.apply(theirs, repository, pytest.fail, force=True)
    assert files(repository) == before


def test_a_folder_that_the_patch_empties_gives_way_to_a_file(repository: Path) -> None:
    def change() -> None:
        shutil.rmtree(repository / "folder")
        (repository / "folder").write_text("new\n")

    apply.apply(patch_of(repository, change), repository)
    assert (repository / "folder").read_text() == "new\n"


def test_a_file_and_a_folder_of_one_name_in_a_patch(repository: Path) -> None:
    """Called `index.lock`, as if another git were at work."""
    one = patch_of(repository, lambda: write(repository / "index.lock"))
    other = patch_of(repository, lambda: write(repository / "index.lock/b"))
    theirs = patch_of(repository, changed(repository))
    (repository / "last.txt").write_text("mine, not committed\n" + CODE)
    before = files(repository)
    with pytest.raises(PatchConflict, match=r"index\.lock is no folder"):
        apply.apply(one + other + theirs, repository, force=True)
    assert files(repository) == before


def test_paths_of_hundreds_of_parts(repository: Path) -> None:
    """Python cannot remove very deep folders."""

    def deep(parts: int) -> bytes:
        names = [f"{number}/{'a/' * parts}f" for number in range(50)]
        return b"".join(new.replace(b"/new", b"/" + each.encode()) for each in names)

    new = patch_of(repository, lambda: write(repository / "new"))
    (repository / "0").write_text("mine\n")
    with pytest.raises(PatchConflict, match="0 is no folder"):
        apply.apply(deep(249), repository)
    with pytest.raises(RebyteError, match="below more than 250 folders"):
        missing(deep(250), repository)
    with pytest.raises(PatchConflict, match="below more than 250 folders"):
        tree_with(repository, "HEAD", deep(250))


def test_many_files_in_a_deep_folder(repository: Path) -> None:
    """500 took 15 s when each of its parts was asked for every one of them."""
    new = patch_of(repository, lambda: write(repository / "new"))
    folder = "a/" * 249
    (repository / folder).mkdir(parents=True)
    theirs = b"".join(new.replace(b"/new", f"/{folder}{number}".encode()) for number in range(500))
    started = time.process_time()
    assert len(apply.apply(theirs, repository)) == 500
    assert time.process_time() - started < 3


@pytest.mark.parametrize("content", ["changed", None])
def test_a_file_beyond_a_link_that_the_index_does_not_know(
    repository: Path, home: Path, content: str | None
) -> None:
    """With such an index, git would change or remove a file outside."""
    file = repository / "folder/gone.txt"
    theirs = patch_of(repository, lambda: file.write_text(content) if content else file.unlink())
    git(repository, "config", "core.checkStat", "minimal")
    git(repository, "update-index", "--assume-unchanged", "folder/gone.txt")
    (repository / "folder").rename(home / "outside")
    (repository / "folder").symlink_to(home / "outside")
    with pytest.raises(PatchConflict, match=r"folder is no folder, but folder/gone\.txt is in it"):
        apply.apply(theirs, repository)
    assert (home / "outside/gone.txt").read_text() == CODE


def test_a_file_beyond_a_link_that_the_patch_removes(repository: Path, home: Path) -> None:
    """git removes the file first, and an index can have both."""
    (home / "outside").mkdir()
    (home / "outside/gone.txt").write_text(CODE)
    (repository / "place").symlink_to(home / "outside")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "Link")
    link = patch_of(repository, lambda: (repository / "place").unlink())
    file = patch_of(repository, lambda: (repository / "folder/gone.txt").unlink())
    theirs = file.replace(b"/folder/", b"/place/") + link
    with pytest.raises(PatchConflict, match=r"place is no folder, but place/gone\.txt is in it"):
        apply.apply(theirs, repository)
    assert (home / "outside/gone.txt").read_text() == CODE


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere root can write everywhere")
def test_a_link_that_cannot_be_removed_is_not_followed(repository: Path, home: Path) -> None:
    """git only warns of it."""
    (home / "outside").mkdir()
    (repository / "folder/link").symlink_to(home / "outside")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "Link")

    def change() -> None:
        (repository / "folder/link").unlink()
        write(repository / "folder/link/new")

    (home / "patch").write_bytes(patch_of(repository, change))
    (repository / "folder").chmod(0o555)
    lacks = ["/usr/bin/setpriv", "--bounding-set=-dac_override"] if os.getuid() == 0 else []
    program = "import sys; from pathlib import Path; from rebyte_cli.tasks import apply; "
    program += "apply.apply(Path(sys.argv[1]).read_bytes(), Path(sys.argv[2]))"
    words = [*lacks, sys.executable, "-c", program, home / "patch", repository]
    done = subprocess.run(words, cwd=repository, capture_output=True, text=True)
    assert "folder/link cannot be removed from its folder" in done.stderr
    assert list((home / "outside").iterdir()) == []
    (repository / "folder").chmod(0o755)


def test_a_deletion_beyond_a_sparse_checkout(repository: Path) -> None:
    def change() -> None:
        shutil.rmtree(repository / "folder")

    theirs = patch_of(repository, change)
    write(repository / "in/file")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "In")
    git(repository, "sparse-checkout", "set", "--cone", "in")
    assert not (repository / "folder").exists()
    assert missing(theirs, repository) == theirs
    assert apply.apply(theirs, repository) == ["folder/gone.txt"]
    assert git(repository, "ls-files", "folder") == ""
    assert missing(theirs, repository) == b""


def write(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("new\n")


# A git that removes files, writes some of what a patch says, and fails, as on a full disk.
FAILING = """#!/bin/sh
PATH={path}
case "$*" in
*"apply --check"*) ;;
*"apply --3way"*) cd {root}; {script}; echo "fatal: no space left" >&2; exit 128 ;;
esac
exec git "$@"
"""
BEGINS = (
    "rm first.txt last.txt link; rm -r folder; mkdir notes; echo new > notes/new.txt;"
    " yes line | head -20 > first.txt; echo theirs >> first.txt"
)


def failing(home: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Have git fail after a script in the working tree."""
    program = home / "failing/git"
    program.parent.mkdir()
    text = FAILING.format(path=os.environ["PATH"], root=home / "repository", script=script)
    program.write_text(text)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


@pytest.mark.parametrize("has_links", [True, False])
def test_a_git_that_fails_halfway(
    repository: Path, home: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    theirs = patch_of(repository, changed(repository))
    (repository / "folder").chmod(0o700)
    before = files(repository)
    failing(home, monkeypatch, BEGINS)
    if not has_links:
        monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(PatchConflict, match="no space left"):
        apply.apply(theirs, repository, pytest.fail)
    assert files(repository) == before
    assert not list((repository / ".git").glob("rebyte-*"))


def test_what_the_user_saves_meanwhile_stays(
    repository: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = patch_of(repository, changed(repository))
    saves = "echo mine > saved; mv saved last.txt; echo mine > notes/run.sh"
    failing(home, monkeypatch, f"{BEGINS}; {saves}")
    with pytest.raises(RebyteError, match=r"Not as they were before: .*last\.txt") as told:
        apply.apply(theirs, repository)
    assert (repository / "last.txt").read_text() == "mine\n"
    assert (repository / "notes/run.sh").read_text() == "mine\n"
    assert (repository / "first.txt").read_text() == CODE
    (kept,) = (repository / ".git").glob("rebyte-*")
    assert str(kept) in str(told.value.hint)
    assert (kept / "before/last.txt").read_text() == CODE


def test_what_another_git_does_meanwhile_stays(repository: Path) -> None:
    theirs = patch_of(repository, changed(repository))
    lock = repository / ".git/index.lock"
    lock.touch()
    before = files(repository)
    with pytest.raises(PatchConflict, match=r"index\.lock"):
        apply.apply(theirs, repository)
    assert files(repository) == before
    lock.unlink()
    apply.apply(theirs, repository)


def test_what_a_patch_tells_no_id_of_stays_and_is_named(
    repository: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = patch_of(repository, changed(repository))
    theirs = re.sub(rb"^index .*\n", b"", theirs, flags=re.MULTILINE)
    failing(home, monkeypatch, BEGINS)
    with pytest.raises(RebyteError, match=r"Not as they were before: .*first\.txt"):
        apply.apply(theirs, repository)
    (kept,) = (repository / ".git").glob("rebyte-*/before/first.txt")
    assert kept.read_text() == CODE
    assert (repository / "last.txt").read_text() == CODE


@pytest.mark.parametrize("is_known", [True, False])
def test_nothing_is_brought_back_beyond_a_link(
    repository: Path, home: Path, monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    """A folder that git has replaced by a link of the patch, which may tell a false id."""

    def change() -> None:
        shutil.rmtree(repository / "folder")
        (repository / "folder").symlink_to(home / "outside")

    (home / "outside").mkdir()
    (repository / "link").unlink()
    (repository / "link").symlink_to(home / "outside")
    git(repository, "commit", "-q", "-a", "-m", "Link")
    theirs = patch_of(repository, change)
    if not is_known:
        blob = git(repository, "rev-parse", ":link").strip()
        theirs = theirs.replace(blob.encode(), b"1" * 40)
    before = files(repository)
    failing(home, monkeypatch, f"rm -r folder; ln -s {home}/outside folder")
    if is_known:
        with pytest.raises(PatchConflict, match="no space left"):
            apply.apply(theirs, repository)
        assert files(repository) == before
    else:
        with pytest.raises(RebyteError, match=r"Not as they were before: .*folder/gone\.txt"):
            apply.apply(theirs, repository)
        (kept,) = (repository / ".git").glob("rebyte-*/before/folder/gone.txt")
        assert kept.read_text() == CODE
    assert list((home / "outside").iterdir()) == []


def test_a_file_that_is_only_moved_is_taken_back(
    repository: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of which a patch does not tell the id."""
    theirs = patch_of(repository, lambda: (repository / "link").rename(repository / "moved"))
    before = files(repository)
    failing(home, monkeypatch, "mv link moved")
    with pytest.raises(PatchConflict, match="no space left"):
        apply.apply(theirs, repository)
    assert files(repository) == before


def test_two_at_once(repository: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = patch_of(repository, changed(repository))
    wait = f'touch {home}/begun; while [ ! -e {home}/go ]; do sleep 0.01; done; exec git "$@"'
    failing(home, monkeypatch, wait)
    program = "import sys; from pathlib import Path; from rebyte_cli.tasks import apply; "
    program += "apply.apply(Path(sys.argv[1]).read_bytes(), Path(sys.argv[2]))"
    (home / "patch").write_bytes(theirs)
    words = [sys.executable, "-c", program, home / "patch", repository]
    with subprocess.Popen(words, cwd=repository) as first:
        eventually((home / "begun").exists)
        with pytest.raises(RebyteError, match="another `apply` is at work"):
            apply.apply(theirs, repository, pytest.fail)
        (home / "go").touch()
        assert first.wait(60) == 0
    assert "theirs" in git(repository, "show", ":last.txt")


@pytest.mark.parametrize("flag", ["--skip-worktree", "--assume-unchanged"])
def test_changes_that_git_is_told_not_to_see(repository: Path, flag: str) -> None:
    theirs = patch_of(repository, changed(repository))
    git(repository, "update-index", flag, "last.txt")
    (repository / "last.txt").write_text("mine\n" + CODE)
    before = files(repository)
    with pytest.raises(PatchConflict, match="does not match index"):
        apply.apply(theirs, repository, pytest.fail)
    assert files(repository) == before
    apply.apply(theirs, repository, force=True)
    assert (repository / "last.txt").read_text() == "mine\n" + CODE + "theirs\n"


def test_a_signal_while_the_files_are_kept(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = patch_of(repository, changed(repository))
    before = files(repository)
    monkeypatch.setattr(os, "link", lambda *_words: signal.raise_signal(signal.SIGINT))
    with pytest.raises(Interrupted) as stopped:
        apply.apply(theirs, repository)
    assert stopped.value.hint == "Nothing was applied"
    assert files(repository) == before
    assert not list((repository / ".git").glob("rebyte-*"))


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
