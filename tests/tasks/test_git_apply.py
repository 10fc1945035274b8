"""What a patch unpacks to is known before git reads it, and git's memory has a limit."""

from __future__ import annotations

import base64
import random
import time
import zlib
from pathlib import Path

import pytest

from rebyte_cli.errors import RebyteError
from rebyte_cli.system import git as safe_git
from rebyte_cli.tasks import check_tree, file_changes, git_apply, patch, patched_tree
from tests.patch_farm import bring
from tests.repositories import git

MIB = 1024**2


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "data").write_bytes(random.Random(1).randbytes(100_000))
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "Start")
    return folder


def made(root: Path) -> bytes:
    """The patch for what is changed in the repository, which then is as before."""
    git(root, "add", "-A")
    found = safe_git.run(["diff", "--cached", "--binary", "--full-index"], root)
    git(root, "reset", "-q", "--hard")
    return found


def sparse(root: Path, *sizes: int) -> bytes:
    """A patch that adds files of zeros."""
    for number, size in enumerate(sizes):
        with (root / f"zeros{number}").open("wb") as file:
            file.truncate(size)
    return made(root)


def encoded(content: bytes) -> bytes:
    """Bytes as git writes them in a patch, four in each line."""
    packed = zlib.compress(content)
    parts = [packed[at : at + 4] for at in range(0, len(packed), 4)]
    lines = (b"%c%s\n" % (64 + len(part), base64.b85encode(part, pad=True)) for part in parts)
    return b"".join(lines)


def binary(kind: bytes, number: bytes, content: bytes) -> bytes:
    """A patch that adds the file `x`."""
    zero, one = b"0" * 40, b"1" * 40
    head = b"diff --git a/x b/x\nnew file mode 100644\nindex %s..%s\n" % (zero, one)
    return head + b"GIT binary patch\n%s %s\n%s\n" % (kind, number, encoded(content))


def test_the_sizes_are_those_that_git_makes(root: Path) -> None:
    assert git_apply.unpacked(sparse(root, 3 * MIB, 5 * MIB)) == 8 * MIB
    before = (root / "data").read_bytes()
    (root / "data").write_bytes(before[:50_000] + b"new" + before[50_000:])
    delta = made(root)
    assert b"\ndelta " in delta
    assert 100_003 < git_apply.unpacked(delta) < 100_100
    (root / "text").write_text("GIT binary patch\nliteral 5000000000000\n")
    assert git_apply.unpacked(made(root)) == 0


def test_a_delta_counts_as_what_it_makes() -> None:
    large = bytes([0x80, 0x80, 0x40, 0x80, 0x80, 0x80, 0x80, 0x20])  # 1 MiB, then 8 GiB
    assert git_apply.unpacked(binary(b"delta", b"8", large)) == 8 * 1024 * MIB + 8


@pytest.mark.parametrize(
    ("kind", "number", "content"),
    [
        (b"literal", b" 5000000000", b"x"),
        (b"literal", b"+5000000000", b"x"),
        (b"literal", b"-1", b"x"),
        (b"literal", b"", b"x"),
        (b"delta", b"1", b"\x80"),
        (b"delta", b"20", b"\x80" * 19 + b"\x01"),
        (b"other", b"1", b"x"),
    ],
)
def test_what_git_does_not_write_is_refused(kind: bytes, number: bytes, content: bytes) -> None:
    with pytest.raises(safe_git.GitFailed, match="not in git's format"):
        git_apply.unpacked(binary(kind, number, content))


def test_too_much_is_refused_wherever_a_patch_is_read(root: Path, tmp_path: Path) -> None:
    """The number alone says it: git would take the memory before it sees that the rest is short."""
    large = binary(b"literal", b"%d" % (1200 * MIB), b"x")
    said = "unpack to 1.2 GiB, and 1 GiB is the most"
    head = git(root, "rev-parse", "HEAD").strip()
    with pytest.raises(RebyteError, match=said):
        file_changes.changes(large, root)
    with pytest.raises(patch.PatchConflict, match=said):
        bring(large, root)
    with pytest.raises(patch.PatchConflict, match=said):
        patched_tree.tree_with(root, head, large)
    (tmp_path / "check").mkdir()
    with pytest.raises(patch.PatchUnusable, match=said):
        check_tree.make(tmp_path / "check", check_tree.Base(root, head), large, "true", ())


@pytest.mark.slow
def test_what_git_tries_before_it_writes_has_a_limit_of_memory(root: Path) -> None:
    found = sparse(root, 10, 60 * MIB)
    with pytest.raises(safe_git.GitFailed, match="GiB of memory"):
        safe_git.run(["apply", "--check", "--3way"], root, given=found, memory=64 * MIB)
    bring(found, root)
    assert (root / "zeros1").stat().st_size == 60 * MIB


@pytest.mark.slow
def test_a_file_that_a_patch_names_often_is_read_once(root: Path) -> None:
    text = b"diff --git a/data b/data\nindex 1234567..1234567 100644\n" * 200_000
    started = time.monotonic()
    with pytest.raises(patch.PatchConflict):
        bring(text, root)
    assert time.monotonic() - started < 60


@pytest.mark.slow
def test_many_headings_take_no_hours() -> None:
    """Each could be the begin of all that follows."""
    text = b"GIT binary patch\nliteral 1\n"
    started = time.monotonic()
    assert git_apply.unpacked((text + b"\n") * 1_000_000) == 1_000_000
    assert git_apply.unpacked(text * 1_000_000 + b"\n") == 1  # git refuses the second line
    with pytest.raises(safe_git.GitFailed, match="not in git's format"):
        git_apply.unpacked(text * 1_000_000)
    assert time.monotonic() - started < 60


@pytest.mark.slow
def test_a_filter_of_the_user_may_take_longer_than_git_otherwise_may(root: Path) -> None:
    """git-lfs downloads each file, and git that is ended leaves some without content."""
    (root / ".gitattributes").write_text("*.big filter=slow\n")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "Attributes")
    (root / "x.big").write_text("new\n")
    found = made(root)
    git(root, "config", "filter.slow.smudge", "sleep 2; cat")
    bring(found, root)
    assert (root / "x.big").read_text() == "new\n"
    assert git(root, "status", "--porcelain") == "A  x.big\n"


def test_no_filter_of_the_repository_makes_a_tree(root: Path, tmp_path: Path) -> None:
    """git checks out a file that a patch adds and the tree has."""
    (root / "new").write_text("one\n")
    found = made(root)
    (root / "new").write_text("two\n")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "Two")
    git(root, "config", "filter.x.smudge", f"touch {tmp_path}/mark; cat")
    (root / ".git/info").mkdir(exist_ok=True)
    (root / ".git/info/attributes").write_text("* filter=x\n")
    base = git(root, "rev-parse", "HEAD").strip()
    with pytest.raises(RebyteError):
        patched_tree.tree_with(root, base, found)
    assert not (tmp_path / "mark").exists()


def test_a_working_tree_around_another_is_not_changed(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings of a download can name the folder of the user's in which it is."""
    git(tmp_path, "init", "-q")
    git(root, "config", "core.worktree", str(tmp_path))
    monkeypatch.chdir(root)
    with pytest.raises(RebyteError, match="elsewhere"):
        patch.top_level()
