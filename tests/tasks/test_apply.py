"""A patch that git has begun to apply and cannot: the files of the user are as they were."""

from __future__ import annotations

import contextlib
import itertools
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

from rebyte_cli.errors import RebyteError
from rebyte_cli.tasks.patch import PatchConflict
from rebyte_cli.tasks.patched_tree import tree_with
from rebyte_cli.tasks.prepared_patch import prepared
from tests.patch_farm import bring, patch_of
from tests.repositories import git, introduce
from tests.waiting import eventually

CODE = "line\n" * 20
# Applies the patch in the first file to the second, a folder.
BRING = """
import sys
from pathlib import Path
from rebyte_cli.tasks import apply
from rebyte_cli.tasks.prepared_patch import prepared
with prepared(Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])) as ready:
    apply.apply(ready)
"""


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


def conflicting(root: Path) -> bytes:
    """The patch of these changes, in a repository in which one of the files has moved on."""
    theirs = patch_of(root, changed(root))
    (root / "first.txt").write_text(CODE + "mine\n")
    git(root, "commit", "-q", "-a", "-m", "Mine")
    return theirs


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
        bring(theirs, repository, pytest.fail, force=True)
    assert files(repository) == before


def test_a_path_inside_a_submodule(repository: Path) -> None:
    theirs = patch_of(repository, changed(repository, new="sub/new.txt"))
    git(repository, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},sub")
    git(repository, "commit", "-q", "-m", "Sub")
    (repository / "sub").mkdir()
    before = files(repository)
    with pytest.raises(PatchConflict, match=r"sub is no folder, but sub/new\.txt is in it"):
        bring(theirs, repository)
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
        bring(theirs, repository, pytest.fail, force=True)
    assert files(repository) == before


def test_a_folder_that_the_patch_empties_gives_way_to_a_file(repository: Path) -> None:
    def change() -> None:
        shutil.rmtree(repository / "folder")
        (repository / "folder").write_text("new\n")

    bring(patch_of(repository, change), repository)
    assert (repository / "folder").read_text() == "new\n"


def test_a_file_and_a_folder_of_one_name_in_a_patch(repository: Path) -> None:
    """Called `index.lock`, as if another git were at work."""
    one = patch_of(repository, lambda: write(repository / "index.lock"))
    other = patch_of(repository, lambda: write(repository / "index.lock/b"))
    theirs = patch_of(repository, changed(repository))
    (repository / "last.txt").write_text("mine, not committed\n" + CODE)
    before = files(repository)
    with pytest.raises(PatchConflict, match=r"index\.lock is no folder"):
        bring(one + other + theirs, repository, force=True)
    assert files(repository) == before


def test_paths_of_hundreds_of_parts(repository: Path) -> None:
    """Python cannot remove very deep folders."""

    def deep(parts: int) -> bytes:
        names = [f"{number}/{'a/' * parts}f" for number in range(50)]
        return b"".join(new.replace(b"/new", b"/" + each.encode()) for each in names)

    new = patch_of(repository, lambda: write(repository / "new"))
    (repository / "0").write_text("mine\n")
    with pytest.raises(PatchConflict, match="0 is no folder"):
        bring(deep(249), repository)
    with pytest.raises(RebyteError, match="below more than 250 folders"):
        bring(deep(250), repository)
    with pytest.raises(PatchConflict, match="below more than 250 folders"):
        tree_with(repository, "HEAD", deep(250))


def test_many_files_in_a_deep_folder(repository: Path) -> None:
    """500 took 15 s when each of its parts was asked for every one of them."""
    new = patch_of(repository, lambda: write(repository / "new"))
    folder = "a/" * 249
    (repository / folder).mkdir(parents=True)
    theirs = b"".join(new.replace(b"/new", f"/{folder}{number}".encode()) for number in range(500))
    started = time.process_time()
    assert len(bring(theirs, repository)) == 500
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
    with pytest.raises(PatchConflict, match=r"in the way: folder/gone\.txt"):
        bring(theirs, repository)
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
    with pytest.raises(PatchConflict, match=r"place/gone\.txt: does not exist in index"):
        bring(theirs, repository)
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
    program = BRING
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
    bring(theirs, repository)
    assert git(repository, "ls-files", "folder") == ""
    assert bring(theirs, repository) == []


def write(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("new\n")


# A git that removes files, writes some of what a patch says, and fails, as on a full disk.
FAILING = """#!/bin/sh
PATH={path}
case "$*" in
*"read-tree -m -u"*) cd {root}; {script}; echo "fatal: no space left" >&2; exit 128 ;;
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


def test_a_git_that_fails_halfway(
    repository: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = patch_of(repository, changed(repository))
    (repository / "folder").chmod(0o700)
    (repository / "first.txt").chmod(0o600)
    before = files(repository)
    failing(home, monkeypatch, BEGINS)
    with pytest.raises(PatchConflict, match="no space left"):
        bring(theirs, repository, pytest.fail)
    assert files(repository) == before
    assert git(repository, "status", "--porcelain") == ""


def test_what_the_user_saves_meanwhile_stays(
    repository: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = patch_of(repository, changed(repository))
    saves = "echo mine > saved; mv saved last.txt; echo mine > notes/run.sh"
    failing(home, monkeypatch, f"{BEGINS}; {saves}")
    with pytest.raises(RebyteError, match=r"Not as they were before: .*last\.txt") as told:
        bring(theirs, repository)
    assert (repository / "last.txt").read_text() == "mine\n"
    assert (repository / "notes/run.sh").read_text() == "mine\n"
    assert (repository / "first.txt").read_text() == CODE
    _, _, source = str(told.value.hint).partition("git show ")
    assert git(repository, "show", source.replace("FILE", "last.txt")) == CODE


def test_what_another_git_does_meanwhile_stays(repository: Path) -> None:
    theirs = patch_of(repository, changed(repository))
    lock = repository / ".git/index.lock"
    lock.touch()
    before = files(repository)
    with pytest.raises(RebyteError, match=r"index\.lock"):
        bring(theirs, repository)
    assert files(repository) == before
    lock.unlink()
    bring(theirs, repository)


def test_a_patch_that_tells_no_ids_is_taken_back(
    repository: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = patch_of(repository, changed(repository))
    theirs = re.sub(rb"^index .*\n", b"", theirs, flags=re.MULTILINE)
    before = files(repository)
    failing(home, monkeypatch, BEGINS)
    with pytest.raises(PatchConflict, match="no space left"):
        bring(theirs, repository)
    assert files(repository) == before


def test_nothing_is_brought_back_beyond_a_link(
    repository: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that git has replaced by a link of the patch, and that by one of others."""

    def change() -> None:
        shutil.rmtree(repository / "folder")
        (repository / "folder").symlink_to(home / "outside")

    (home / "outside").mkdir()
    theirs = patch_of(repository, change)
    before = files(repository)
    failing(home, monkeypatch, f"rm -r folder; ln -s {home}/outside folder")
    with pytest.raises(PatchConflict, match="no space left"):
        bring(theirs, repository)
    assert files(repository) == before
    script = home / "failing/git"
    script.write_text(script.read_text().replace("/outside folder", "/outside/. folder"))
    with pytest.raises(RebyteError, match=r"Not as they were before: .*folder/gone\.txt"):
        bring(theirs, repository)
    assert list((home / "outside").iterdir()) == []


def test_a_file_that_is_only_moved_is_taken_back(
    repository: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of which a patch does not tell the id."""
    theirs = patch_of(repository, lambda: (repository / "link").rename(repository / "moved"))
    before = files(repository)
    failing(home, monkeypatch, "mv link moved")
    with pytest.raises(PatchConflict, match="no space left"):
        bring(theirs, repository)
    assert files(repository) == before


def test_two_at_once(repository: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = patch_of(repository, changed(repository))
    wait = f'touch {home}/begun; while [ ! -e {home}/go ]; do sleep 0.01; done; exec git "$@"'
    failing(home, monkeypatch, wait)
    program = BRING
    (home / "patch").write_bytes(theirs)
    words = [sys.executable, "-c", program, home / "patch", repository]
    with subprocess.Popen(words, cwd=repository) as first:
        eventually((home / "begun").exists)
        with pytest.raises(RebyteError, match="another `apply` is at work"):
            bring(theirs, repository, pytest.fail)
        (home / "go").touch()
        assert first.wait(60) == 0
    assert "theirs" in git(repository, "show", ":last.txt")


@pytest.mark.parametrize("flag", ["--skip-worktree", "--assume-unchanged"])
def test_changes_that_git_is_told_not_to_see(repository: Path, flag: str) -> None:
    theirs = patch_of(repository, changed(repository))
    git(repository, "update-index", flag, "last.txt")
    (repository / "last.txt").write_text("mine\n" + CODE)
    before = files(repository)
    with pytest.raises(PatchConflict, match="changes that are not in the index"):
        bring(theirs, repository, pytest.fail)
    assert files(repository) == before
    bring(theirs, repository, force=True)
    assert (repository / "last.txt").read_text() == "mine\n" + CODE + "theirs\n"


def test_a_file_that_is_only_newer_than_the_index_is_staged(repository: Path) -> None:
    theirs = patch_of(repository, changed(repository))
    os.utime(repository / "first.txt", (1, 1))
    assert "first.txt" in bring(theirs, repository)
    assert git(repository, "diff", "--name-only") == ""
    assert "theirs" in git(repository, "show", ":first.txt")


def test_conflicts_stay(repository: Path) -> None:
    theirs = conflicting(repository)
    with pytest.raises(PatchConflict, match=r"first\.txt"):
        bring(theirs, repository)
    assert "<<<<<<<" in (repository / "first.txt").read_text()
    assert "theirs" in (repository / "last.txt").read_text()


def test_ignored_files_are_in_the_way(repository: Path) -> None:
    """git itself would overwrite them."""
    theirs = patch_of(repository, changed(repository))
    (repository / ".git/info/exclude").write_text("notes\n")
    (repository / "notes").mkdir()
    (repository / "notes/new.txt").write_text("mine\n")
    before = files(repository)
    with pytest.raises(PatchConflict, match=r"notes/new\.txt already exists"):
        bring(theirs, repository, pytest.fail, force=True)
    assert files(repository) == before


def test_a_submodule_with_files_does_not_give_way_to_a_file(repository: Path) -> None:
    """git would remove them, those that are in no commit, too."""
    submodule = repository / "sub"
    git(repository, "init", "-q", "sub")
    git(submodule, "commit", "-q", "--allow-empty", "-m", "Sub")
    (submodule / "mine.txt").write_text("mine\n")
    git(repository, "-c", "advice.addEmbeddedRepo=false", "add", "sub")
    git(repository, "commit", "-q", "-m", "Sub")
    old = git(repository, "ls-files", "--stage", "sub").split()[1]
    gone = f"diff --git a/sub b/sub\ndeleted file mode 160000\nindex {old}..{'0' * 40}\n"
    gone += f"--- a/sub\n+++ /dev/null\n@@ -1 +0,0 @@\n-Subproject commit {old}\n"
    new = "diff --git a/sub b/sub\nnew file mode 100644\n"
    new += "--- /dev/null\n+++ b/sub\n@@ -0,0 +1 @@\n+x\n"
    with pytest.raises(PatchConflict, match="sub is a folder, and"):
        bring((gone + new).encode(), repository)
    assert (submodule / "mine.txt").read_text() == "mine\n"
    git(submodule, "commit", "-q", "--allow-empty", "-m", "Mine")
    bring(gone.encode(), repository)
    assert (submodule / "mine.txt").read_text() == "mine\n"
    assert git(repository, "ls-files", "sub") == ""


def test_a_name_that_the_disk_does_not_take_changes_nothing(repository: Path) -> None:
    """git finds out when other files are written."""
    theirs = patch_of(repository, changed(repository))
    new = patch_of(repository, lambda: write(repository / "name"))
    before = files(repository)
    with pytest.raises(PatchConflict, match="File name too long"):
        bring(theirs + new.replace(b"/name", b"/" + b"n" * 300), repository, pytest.fail)
    assert files(repository) == before


def test_with_force_changes_stay_and_the_index_too(repository: Path) -> None:
    theirs = patch_of(repository, changed(repository))
    (repository / "first.txt").write_text("mine, staged\n" + CODE)
    git(repository, "add", "first.txt")
    (repository / "last.txt").write_text("mine\n" + CODE)
    (repository / "last.txt").chmod(0o755)
    with pytest.raises(PatchConflict, match=r"not in the index are in the way: last\.txt"):
        bring(theirs, repository)
    bring(theirs, repository, force=True)
    assert (repository / "first.txt").read_text() == "mine, staged\n" + CODE + "theirs\n"
    assert (repository / "last.txt").read_text() == "mine\n" + CODE + "theirs\n"
    assert (repository / "last.txt").stat().st_mode & 0o777 == 0o755
    assert (repository / "notes/new.txt").read_text() == "new\n"
    assert git(repository, "diff", "--cached", "--name-only") == "first.txt\n"
    assert git(repository, "for-each-ref", "refs/rebyte") == ""


def test_with_force_nothing_is_marked_in_files_with_changes(repository: Path) -> None:
    theirs = patch_of(repository, changed(repository))
    (repository / "last.txt").write_text(CODE + "mine\n")
    before = files(repository)
    with pytest.raises(PatchConflict, match=r"in the way: last\.txt"):
        bring(theirs, repository, pytest.fail, force=True)
    assert files(repository) == before


def test_with_force_what_is_outside_of_a_sparse_checkout_is_written(repository: Path) -> None:
    """The index of the user does not get it."""
    write(repository / "in/file")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "In")
    theirs = patch_of(repository, lambda: write(repository / "out/new"))
    theirs += patch_of(repository, lambda: (repository / "in/file").write_text("new\nmore\n"))
    git(repository, "sparse-checkout", "set", "--cone", "in")
    (repository / "in/file").write_text("mine\nnew\n")
    bring(theirs, repository, force=True)
    assert (repository / "out/new").read_text() == "new\n"
    assert (repository / "in/file").read_text() == "mine\nnew\nmore\n"


def test_changes_of_ones_own_are_found_if_all_is_killed(
    repository: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = patch_of(repository, changed(repository))
    (repository / "last.txt").write_text("mine\n" + CODE)
    failing(home, monkeypatch, "rm last.txt; kill -9 $PPID; exit 1")
    (home / "patch").write_bytes(theirs)
    program = BRING.replace("argv[2])", "argv[2]), force=True")
    done = subprocess.run([sys.executable, "-c", program, home / "patch", repository])
    assert done.returncode == -signal.SIGKILL
    (kept,) = git(repository, "for-each-ref", "--format=%(refname)", "refs/rebyte").split()
    git(repository, "restore", f"--source={kept}", "last.txt")
    assert (repository / "last.txt").read_text() == "mine\n" + CODE


def test_conflicts_are_in_the_index(repository: Path) -> None:
    """With what both sides added, and those of binary files."""
    (repository / "data").write_bytes(b"\0one")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "Data")

    def change() -> None:
        (repository / "data").write_bytes(b"\0theirs")
        (repository / "both").write_text("theirs\n")

    theirs = patch_of(repository, change)
    (repository / "data").write_bytes(b"\0mine")
    (repository / "both").write_text("mine\n")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "Mine")
    with pytest.raises(PatchConflict, match="2 files have conflicts: both, data"):
        bring(theirs, repository)
    assert git(repository, "status", "--porcelain") == "AA both\nUU data\n"
    assert (
        "<<<<<<< ours\nmine\n=======\ntheirs\n>>>>>>> theirs\n" in (repository / "both").read_text()
    )
    assert (repository / "data").read_bytes() == b"\0mine"
    with pytest.raises(PatchConflict, match="there are conflicts in both, data"):
        bring(theirs, repository, force=True)


@pytest.mark.parametrize("attribute", ["text eol=crlf", "working-tree-encoding=UTF-16", "ident"])
def test_conflicts_in_files_that_git_writes_in_another_form(
    repository: Path, attribute: str
) -> None:
    (repository / ".gitattributes").write_text(f"first.txt {attribute}\n")
    (repository / "first.txt").unlink()
    git(repository, "add", ".gitattributes")
    git(repository, "checkout", "--", "first.txt")
    git(repository, "commit", "-q", "-m", "Attributes")
    encoding = "utf-16" if "16" in attribute else "utf-8"

    def add(line: str) -> None:
        text = (repository / "first.txt").read_text(encoding)
        (repository / "first.txt").write_text(f"{text}{line}\n", encoding)

    theirs = patch_of(repository, lambda: add("theirs"))
    add("mine")
    git(repository, "commit", "-q", "-a", "-m", "Mine")
    with pytest.raises(PatchConflict, match=r"1 file has conflicts: first\.txt"):
        bring(theirs, repository)
    assert "\n=======\n" in (repository / "first.txt").read_text(encoding)
    assert git(repository, "status", "--porcelain") == "UU first.txt\n"


def test_a_conflict_that_leaves_the_file_as_it_is_is_one(repository: Path) -> None:
    (repository / "data").write_bytes(b"\0one")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "Data")
    theirs = patch_of(repository, lambda: (repository / "data").write_bytes(b"\0theirs"))
    (repository / "data").write_bytes(b"\0mine")
    git(repository, "commit", "-q", "-a", "-m", "Mine")
    with pytest.raises(PatchConflict, match="1 file has conflicts: data"):
        bring(theirs, repository)
    assert git(repository, "status", "--porcelain") == "UU data\n"


def turn(path: Path, kind: str, content: str) -> None:
    """Make a file a link, an executable or an ordinary file."""
    path.unlink()
    if kind == "link":
        path.symlink_to(content)
    else:
        path.write_text(content)
        path.chmod(0o755 if kind == "executable" else 0o644)


KINDS = ["file", "link", "executable"]


@pytest.mark.parametrize(("old", "new"), [(a, b) for a in KINDS for b in KINDS if a != b])
def test_a_file_becomes_another_kind_with_the_same_content(
    repository: Path, old: str, new: str
) -> None:
    path = repository / "kind"
    path.touch()
    turn(path, old, "first.txt")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "Kind")
    theirs = patch_of(repository, lambda: turn(path, new, "first.txt"))
    for changed_files in (["kind"], []):
        assert bring(theirs, repository) == changed_files
        assert path.is_symlink() == (new == "link")
        assert os.access(path, os.X_OK) == (new != "file") or new == "link"
        git(repository, "commit", "-q", "--allow-empty", "-m", "Theirs")


def test_what_is_here_already_is_staged_with_the_rest(repository: Path) -> None:
    """Untracked, ignored, not staged, or such that git is told not to see it."""
    theirs = patch_of(repository, changed(repository))
    (repository / "notes").mkdir()
    (repository / "notes/new.txt").write_text("new\n")
    (repository / ".git/info/exclude").write_text("notes\n")
    (repository / "first.txt").write_text(CODE + "theirs\n")
    git(repository, "update-index", "--assume-unchanged", "last.txt")
    (repository / "last.txt").write_text(CODE + "theirs\n")
    shutil.rmtree(repository / "folder")
    assert bring(theirs, repository) == ["link", "notes/run.sh"]
    assert git(repository, "status", "--porcelain").split("\n")[:-1] == [
        "M  first.txt", "D  folder/gone.txt", "M  last.txt", "M  link", "A  notes/new.txt",
        "A  notes/run.sh",
    ]  # fmt: skip
    assert bring(theirs, repository) == []


def test_without_modes_on_disk_a_patch_changes_them_in_the_index(repository: Path) -> None:
    theirs = patch_of(repository, lambda: (repository / "first.txt").chmod(0o755))
    git(repository, "config", "core.fileMode", "false")
    (repository / "first.txt").chmod(0o755)
    assert bring(theirs, repository) == ["first.txt"]
    assert git(repository, "ls-files", "--stage", "first.txt").startswith("100755")


@pytest.mark.parametrize("kind", ["copy", "rename"])
def test_what_tells_no_content_is_in_place_only_if_it_can_be(repository: Path, kind: str) -> None:
    head = f"diff --git a/first.txt b/new.txt\nsimilarity index 100%\n{kind} from first.txt\n"
    theirs = f"{head}{kind} to new.txt\n".encode()
    (repository / "new.txt").write_text("mine\n")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "Mine")
    with pytest.raises(PatchConflict, match="the patch does not apply"):
        bring(theirs, repository)
    git(repository, "rm", "-q", "new.txt")
    git(repository, "commit", "-q", "-m", "None")
    assert sorted(bring(theirs, repository))[-1] == "new.txt"
    assert bring(theirs, repository) == []


def test_a_submodule_that_is_moved_is_moved_once(repository: Path) -> None:
    (repository / "old").mkdir()
    git(repository, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},old")
    git(repository, "commit", "-q", "-m", "Submodule")
    theirs = b"diff --git a/old b/new\nsimilarity index 100%\nrename from old\nrename to new\n"
    assert sorted(bring(theirs, repository)) == ["new", "old"]
    assert git(repository, "ls-files", "--stage", "new").startswith("160000")
    assert bring(theirs, repository) == []


def moved(root: Path, kind: str) -> Callable[[], object]:
    """Changes that make `new.txt`: of another file, or of nothing."""

    def change() -> None:
        if kind in ("rename", "copy"):
            (root / "new.txt").write_text(CODE + "theirs\n")
        if kind == "rename":
            (root / "first.txt").unlink()
        if kind == "copy":
            (root / "first.txt").write_text("changed\n" + CODE)
        if kind in ("100644", "100755"):
            (root / "new.txt").touch(int(kind[-3:], 8))

    return change


def empty(mode: str) -> bytes:
    """A patch with an empty file, or a link or a submodule that leads nowhere."""
    return f"diff --git a/new.txt b/new.txt\nnew file mode {mode}\n".encode()


@pytest.mark.parametrize("is_committed", [True, False])
@pytest.mark.parametrize("kind", ["rename", "copy", "100644", "100755", "120000", "160000"])
def test_a_file_in_the_place_of_one_that_a_patch_makes_stays(
    repository: Path, kind: str, is_committed: bool
) -> None:
    """git makes it what became of the file with the old name, or gives it the mode of the link."""
    theirs = patch_of(repository, moved(repository, kind), "HEAD", "-M", "-C")
    theirs = theirs or empty(kind)
    mine = repository / "new.txt"
    mine.write_text("staged\n")
    git(repository, "add", "new.txt")
    if is_committed:
        git(repository, "commit", "-q", "-m", "Mine")
    for content in ("staged\n", "dirty\n", "hidden\n"):
        mine.write_text(content)
        if content == "hidden\n":
            git(repository, "update-index", "--skip-worktree", "new.txt")
        before = files(repository)
        for force in (False, True):
            with pytest.raises(PatchConflict, match=r"new\.txt is there already"):
                bring(theirs, repository, pytest.fail, force=force)
            assert files(repository) == before
    with pytest.raises(PatchConflict, match=r"new\.txt is there already"):
        tree_with(repository, git(repository, "write-tree").strip(), theirs)


@pytest.mark.parametrize("kind", ["rename", "copy"])
def test_what_is_moved_and_changed_is_applied_once(repository: Path, kind: str) -> None:
    theirs = patch_of(repository, moved(repository, kind), "HEAD", "-M", "-C")
    assert f"\n{kind} from first.txt".encode() in theirs
    assert sorted(bring(theirs, repository)) == ["first.txt", "new.txt"]
    assert bring(theirs, repository) == []
    with (repository / "new.txt").open("a") as file:
        file.write("mine\n")
    before = files(repository)
    with pytest.raises(PatchConflict, match=r"new\.txt is there already"):
        bring(theirs, repository, pytest.fail, force=True)
    assert files(repository) == before


@pytest.mark.parametrize("tells", ["another", "nothing"])
def test_what_was_added_to_another_content_is_not_added_again(repository: Path, tells: str) -> None:
    """Where the lines around it are alike, it fits behind itself."""
    block = "def test_%d():\n    run()\n    look()\n    assert ok\n\n"
    file, other = repository / "first.txt", repository / "last.txt"

    def change() -> None:
        file.write_text("# theirs\n" + block % 1 + block % 2)
        other.write_text(CODE + "theirs\n")

    file.write_text("# theirs\n" + block % 1)
    git(repository, "commit", "-q", "-a", "-m", "Block")
    theirs = patch_of(repository, change)
    index = b"index 1111111..2222222" if tells == "another" else b"REMOVED"
    theirs = re.sub(rb"^index [\w.]+", index, theirs, flags=re.M)
    theirs = re.sub(rb"^REMOVED.*\n", b"", theirs, flags=re.M)
    git(repository, "reset", "-q", "--hard")
    file.write_text("# mine\n" + block % 1)
    git(repository, "commit", "-q", "-a", "-m", "Mine")
    assert bring(theirs, repository) == ["first.txt", "last.txt"]
    assert bring(theirs, repository) == []
    git(repository, "checkout", "-q", "HEAD", "last.txt")
    assert bring(theirs, repository) == ["last.txt"]
    assert file.read_text() == "# mine\n" + block % 1 + block % 2


@pytest.mark.parametrize("there", ["none", "some", "all"])
def test_git_is_not_asked_about_each_file_whose_old_content_is_unknown(
    repository: Path, monkeypatch: pytest.MonkeyPatch, there: str
) -> None:
    names = [f"{number}.txt" for number in range(40)]

    def write(names: list[str], end: str) -> None:
        for name in names:
            (repository / name).write_text(f"{name}\n" + CODE + end)

    write(names, "")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "Many")
    theirs = patch_of(repository, lambda: write(names, "theirs"))
    assert b"\n\\ No newline" in theirs
    numbers = itertools.count(1 << 100)
    theirs = re.sub(
        rb"^index \w+\.\.", lambda _: b"index %040x.." % next(numbers), theirs, flags=re.M
    )
    theirs = re.sub(rb"\.\.\w+ ", b".." + b"2" * 40 + b" ", theirs)
    mine = {"none": [], "some": names[::3], "all": names}[there]
    write(mine, "theirs")
    git(repository, "commit", "-q", "-a", "-m", "Mine", "--allow-empty")
    log = repository.parent / "trace"
    monkeypatch.setenv("GIT_TRACE2_EVENT", str(log))
    with prepared(theirs, repository) as ready:
        changes = {os.fsdecode(each.path) for each in ready.after.changes}
    monkeypatch.delenv("GIT_TRACE2_EVENT")
    assert changes == {*names} - {*mine}
    started = [line for line in log.read_text().splitlines() if '"event":"start"' in line]
    assert 10 < len(started) < 40
    reverse = sum('"--reverse"' in line for line in started)
    assert reverse == (there != "none")


def test_a_file_that_others_ignore_and_write_meanwhile_stays(
    repository: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = patch_of(repository, changed(repository))
    (repository / ".git/info/exclude").write_text("notes\n")
    script = "mkdir -p notes; echo mine > notes/new.txt"
    failing(home, monkeypatch, script)
    program = home / "failing/git"
    text = program.read_text().replace("read-tree -m -u", "checkout-index --quiet --prefix")
    program.write_text(text.replace('echo "fatal: no space left" >&2; exit 128', ""))
    with pytest.raises(PatchConflict, match=r"notes/new\.txt already exists"):
        bring(theirs, repository, pytest.fail)
    assert (repository / "notes/new.txt").read_text() == "mine\n"
    assert git(repository, "status", "--porcelain") == ""


def test_conflicts_look_resolved_at_no_time(
    repository: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files with markers that are staged would be committed."""
    theirs = conflicting(repository)
    failing(home, monkeypatch, 'kill -9 $PPID; exec git "$@"')
    (home / "patch").write_bytes(theirs)
    done = subprocess.run([sys.executable, "-c", BRING, home / "patch", repository])
    assert done.returncode == -signal.SIGKILL
    file = repository / "first.txt"

    def is_marked() -> bool:
        with contextlib.suppress(FileNotFoundError):  # git is replacing it
            return "<<<<<<<" in file.read_text()
        return False

    eventually(is_marked)
    looking = ("--no-optional-locks", "diff", "--cached", "--name-only")
    assert git(repository, *looking) == ""


def test_what_fails_leaves_the_index_as_it_was(
    repository: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was here already is not staged then, and no conflict either."""
    theirs = conflicting(repository)
    (repository / "notes").mkdir()
    (repository / "notes/new.txt").write_text("new\n")
    before = files(repository)
    path = os.environ["PATH"]
    failing(home, monkeypatch, "true")
    program = home / "failing/git"
    stops = 'echo "fatal: no space left" >&2; exit 128'
    # The index of the user is the one that no variable names.
    for step in ('*"read-tree -m -u"*', '" "*"update-index -z --index-info"*'):
        case = f'case "$GIT_INDEX_FILE $*" in {step}) {stops} ;; esac'
        program.write_text(f'#!/bin/sh\nPATH={path}\n{case}\nexec git "$@"\n')
        with pytest.raises(PatchConflict, match="no space left"):
            bring(theirs, repository, pytest.fail)
        assert files(repository) == before
        assert git(repository, "status", "--porcelain") == "?? notes/\n"


@pytest.mark.parametrize("way", ["id", "place", "same id"])
def test_a_part_that_does_not_make_what_it_tells_is_refused(repository: Path, way: str) -> None:
    """Another id, or a hunk that git would apply at the end, where it is not shown."""
    (repository / "first.txt").write_text(CODE + "end\n")
    git(repository, "commit", "-q", "-a", "-m", "End")
    options = ["-U0"] if way == "place" else []

    def change() -> None:
        (repository / "first.txt").write_text(f"{CODE}more\nend\n")

    theirs = patch_of(repository, change, "HEAD", *options)
    blob = git(repository, "rev-parse", "HEAD:first.txt").strip().encode()
    new = {"id": b"1" * 40, "same id": blob}.get(way, rb"\1")
    theirs = re.sub(rb"^index \w+\.\.(\w+)", b"index " + blob + b".." + new, theirs, flags=re.M)
    said = "no line around" if way == "place" else r"first\.txt would not be what the patch says"
    with pytest.raises(RebyteError, match=said):
        bring(theirs, repository, pytest.fail)
    assert git(repository, "status", "--porcelain") == ""


def test_what_a_patch_says_of_a_binary_file_is_all_that_it_brings(repository: Path) -> None:
    """git takes the blob that is told, if there is one, whatever is in the patch."""
    file, secret, copy = (repository / name for name in ("picture", "secret", "copy"))
    file.write_bytes(b"\0old" * 99)
    secret.write_text("secret\n")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "Picture")
    blob = git(repository, "rev-parse", "HEAD:secret").strip().encode()

    def change() -> None:
        file.write_bytes(b"\0old" * 99 + b"theirs")
        copy.write_bytes(b"\0new" + bytes(range(99)))

    theirs = patch_of(repository, change)
    assert b"\nGIT binary patch\ndelta " in theirs
    data = re.compile(rb"^GIT binary patch\n.*?(?=^diff|\Z)", re.DOTALL | re.MULTILINE)
    without = data.sub(b"Binary files a/it and b/it differ\n", theirs)
    forged = re.sub(rb"^index (\w+)\.\.\w+", rb"index \1.." + blob, theirs, flags=re.M)
    with pytest.raises(PatchConflict, match="not what it says of a binary file: "):
        bring(forged, repository, pytest.fail)
    with pytest.raises(PatchConflict, match="copy is binary, and its content is not in the patch"):
        bring(without, repository, pytest.fail)
    assert git(repository, "status", "--porcelain") == ""
    assert bring(theirs, repository) == ["copy", "picture"]
    assert bring(theirs, repository) == bring(without, repository) == []


def test_lines_that_end_otherwise_on_disk_are_no_reason_to_refuse(repository: Path) -> None:
    theirs = conflicting(repository)
    for key, value in (("core.autocrlf", "true"), ("core.safecrlf", "true")):
        git(repository, "config", key, value)
    (repository / "last.txt").write_text(CODE + "theirs\n")
    with pytest.raises(PatchConflict, match=r"1 file has conflicts: first\.txt"):
        bring(theirs, repository, force=True)


def test_no_hint_loses_what_git_is_told_not_to_see(repository: Path) -> None:
    theirs = conflicting(repository)
    for options in (["--assume-unchanged"], ["--no-assume-unchanged"]):
        git(repository, "update-index", *options, "folder/gone.txt")
        with pytest.raises(PatchConflict) as told:
            bring(theirs, repository)
        assert ("git reset" in str(told.value.hint)) == (options == ["--no-assume-unchanged"])
        git(repository, "reset", "-q", "--hard")


def test_git_looks_at_the_files_that_change_alone(
    repository: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repository may have hundreds of thousands: each look at all of them takes seconds."""
    theirs = patch_of(repository, changed(repository))
    path, log = os.environ["PATH"], home / "log"
    failing(home, monkeypatch, "true")
    logging = f'#!/bin/sh\nPATH={path}\necho "$*" >> {log}\nexec git "$@"\n'
    (home / "failing/git").write_text(logging)
    bring(theirs, repository)
    done = log.read_text()
    assert (done.count("read-tree"), done.count(" status "), done.count(" diff ")) == (2, 0, 0)
    assert "update-index -q" not in done
    # This one does not look at the files: it takes what is newer than the index for changed.
    assert git(repository, "diff-files", "--name-only") == ""
