"""Commits of what tasks changed."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from rebyte_cli.tasks.commit import encoded, tree_with
from rebyte_cli.tasks.patch import PatchConflict
from tests.patch_farm import patch_of
from tests.repositories import Repository, git


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
    assert time.monotonic() - started < 8


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
