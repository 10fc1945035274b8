"""Commits of what tasks changed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rebyte_cli.system.git import GitFailed
from rebyte_cli.tasks.patch import PatchConflict, PatchUnusable
from rebyte_cli.tasks.patched_tree import tree_with
from rebyte_cli.tasks.risks import encoded
from tests.patch_farm import patch_of
from tests.repositories import Repository, git
from tests.tools import need_tool


@pytest.mark.slow
def test_encodings_of_many_files_take_no_minutes(tmp_path: Path) -> None:
    """One line of a patch gives all its files an encoding."""
    git(tmp_path, "init", "-q")
    (tmp_path / ".gitattributes").write_text("*.sh working-tree-encoding=UTF-16\n")
    (tmp_path / "file").touch()
    git(tmp_path, "add", ".")
    blob = git(tmp_path, "rev-parse", ":file").strip()
    names = [f"{number}.sh" for number in range(50_000)]
    subprocess.run(
        ["git", "update-index", "--index-info"], cwd=tmp_path, check=True,
        input="".join(f"100644 {blob}\t{name}\n" for name in names).encode(),
    )  # fmt: skip
    after = git(tmp_path, "write-tree").strip()
    git(tmp_path, "rm", "-q", "--cached", ".gitattributes", "7.sh")
    before = git(tmp_path, "write-tree").strip()
    started = time.monotonic()
    assert encoded(tmp_path, "", after) == dict.fromkeys(sorted(names), "UTF-16")
    assert len(encoded(tmp_path, before, after)) == len(names)
    assert encoded(tmp_path, after, before) == {}
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("key", ["process", "clean smudge"])
@pytest.mark.parametrize("scope", ["--global", "--local"])
def test_no_filter_runs_for_a_tree(home: Path, scope: str, key: str) -> None:
    """The user's own git-lfs runs what a repository's settings name. And content stays content."""
    repository, mark = Repository(home), home / "mark"
    repository.write(".gitattributes", "*.bin filter=large\n")
    repository.commit("Attributes")
    path, text = repository.path / "new.bin", "same\n"
    same = patch_of(repository.path, lambda: path.write_text(text))
    other = patch_of(repository.path, lambda: path.write_text("other\n"))
    repository.write("new.bin", text)
    repository.commit("New")
    for each in [*key.split(), "required"]:
        value = "true" if each == "required" else f"touch {mark}; tr a-z A-Z"
        repository("config", scope, f"filter.large.{each}", value)
    before = repository("rev-parse", "HEAD^{tree}").strip()
    assert tree_with(repository.path, "HEAD", same) == before
    with pytest.raises(PatchConflict):
        tree_with(repository.path, "HEAD", other)
    assert not mark.exists()


@pytest.mark.parametrize("hashes", ["sha1", "sha256"])
def test_a_patch_of_nothing_makes_a_tree_of_nothing(tmp_path: Path, hashes: str) -> None:
    """Before the first commit, there are no attributes to merge by."""
    git(tmp_path, "init", "-q", f"--object-format={hashes}")
    patch = (
        b"diff --git a/new b/new\nnew file mode 100644\n--- /dev/null\n+++ b/new\n"
        b"@@ -0,0 +1 @@\n+x\n"
    )
    assert git(tmp_path, "ls-tree", "--name-only", tree_with(tmp_path, "", patch)) == "new\n"


# What a failure is due to

ADDS = "diff --git {0} {1}\nnew file mode 100644\n--- /dev/null\n+++ {1}\n@@ -0,0 +1 @@\n+{2}\n"
CHANGES = "diff --git {0} {1}\n--- {0}\n+++ {1}\n@@ -1 +1 @@\n-{2}\n+new\n"


def adds(name: str, text: str = "x") -> bytes:
    return ADDS.format(f"a/{name}", f"b/{name}", text).encode()


def changes(name: str, text: str = "old") -> bytes:
    return CHANGES.format(f'"a/{name}"', f'"b/{name}"', text).encode()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with a file and a folder."""
    folder = tmp_path / "repository"
    (folder / "folder").mkdir(parents=True)
    (folder / "file").write_text("old\n")
    (folder / "folder/file").write_text("old\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "Start")
    return folder


@pytest.mark.parametrize(
    "patch",
    [
        changes("file", "other"),
        changes("none"),
        changes(r"\nfatal: Out of diskspace\nfatal: out of memory"),
        adds("folder"),
        adds("file/new"),
    ],
    ids=["content", "none", "forged", "folder", "file"],
)
def test_what_does_not_apply_is_a_conflict(root: Path, patch: bytes) -> None:
    """Whatever the names of its files say."""
    with pytest.raises(PatchConflict) as told:
        tree_with(root, "HEAD", patch)
    assert not isinstance(told.value, PatchUnusable)


@pytest.mark.parametrize(
    "patch",
    [b"no patch", adds(".GIT/x"), changes("file").removesuffix(b"+new\n")],
    ids=["form", "name", "end"],
)
def test_what_no_git_takes_is_the_fault_of_the_patch(root: Path, patch: bytes) -> None:
    with pytest.raises(PatchUnusable):
        tree_with(root, "HEAD", patch)


# A git that fails where a patch is to be applied, if a condition in sh holds for the patch.
FAILS = """#!/bin/sh
PATH={path}
file=/dev/stdin  # opened again, it is read from its beginning
case " $* " in *" apply "*) if {condition}; then {failure}; fi ;; esac
exec git "$@"
"""
FULL = "echo 'fatal: sha1 file write error. Out of diskspace' >&2; exit 128"
CRASH = "kill -SEGV $$"


def fails(folder: Path, monkeypatch: pytest.MonkeyPatch, condition: str, failure: str) -> None:
    """Have such a git from now on."""
    program = folder / "failing/git"
    program.parent.mkdir()
    path = os.environ["PATH"]
    program.write_text(FAILS.format(path=path, condition=condition, failure=failure))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{path}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("failure", "said"), [(FULL, "Out of diskspace"), (CRASH, "signal 11")], ids=["full", "crash"]
)
def test_whose_fault_a_failure_of_git_is(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str, said: str
) -> None:
    """The machine's if other patches fail, too; the patch's if it fails each time."""
    evil, good = adds("evil"), adds("good")
    condition = f"[ -e {tmp_path}/all ] || {{ grep -q '^+++ b/evil' \"$file\"; }}"
    once = f"rm {tmp_path}/once 2>/dev/null"
    fails(tmp_path, monkeypatch, f"{once} || {condition}", failure)
    with pytest.raises(PatchUnusable, match=said):
        tree_with(root, "HEAD", evil)
    (tmp_path / "all").touch()
    for patch in (evil, good):
        with pytest.raises(GitFailed, match=said):
            tree_with(root, "HEAD", patch)
    (tmp_path / "all").unlink()
    (tmp_path / "once").touch()
    assert "good" in git(root, "ls-tree", "--name-only", tree_with(root, "HEAD", good))
    assert not (tmp_path / "once").exists()


SMALL_DISK = """
import sys
from pathlib import Path
from rebyte_cli.tasks.patched_tree import tree_with
print(tree_with(Path(sys.argv[1]), "HEAD", Path(sys.argv[2]).read_bytes()))
"""


@pytest.mark.slow
def test_a_small_disk_is_no_conflict(root: Path, tmp_path: Path) -> None:
    """The index fits into the temporary folder, but not twice."""
    blob = git(root, "rev-parse", ":file").strip()
    lines = "".join(f"100644 {blob}\tmany/{number:0120}\n" for number in range(9000))
    words = ["git", "update-index", "--index-info"]
    subprocess.run(words, cwd=root, check=True, input=lines.encode())
    git(root, "commit", "-q", "-m", "Many")
    size = (root / ".git/index").stat().st_size
    patch, small = tmp_path / "patch", tmp_path / "small"
    patch.write_bytes(changes("file"))
    small.mkdir()
    for room, status in ((size * 3 // 2, 1), (size * 3, 0)):
        jail = ["--dev-bind", "/", "/", "--size", str(room), "--tmpfs", str(small)]
        code = [sys.executable, "-c", SMALL_DISK, str(root), str(patch)]
        done = subprocess.run(
            [need_tool("bwrap"), *jail, "--setenv", "TMPDIR", str(small), *code],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == status, done
        assert ("git.GitFailed: " in done.stderr) == bool(status), done
        assert "PatchConflict" not in done.stderr
