"""What `-g .` says of the repository here, and the patch of its uncommitted changes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rebyte_cli.errors import BadUsage
from rebyte_cli.tasks import checkout
from rebyte_cli.tasks.patch import uncommitted
from rebyte_cli.tasks.repository import local_source, source
from tests.repositories import Repository, git


@pytest.fixture
def repository(home: Path) -> Repository:
    return Repository(home)


def lines(repository: Repository, branch: str = "main", *, with_changes: bool = False) -> list[str]:
    return list(
        checkout.check(
            str(repository.path), "origin", branch, is_named=False, with_changes=with_changes
        )
    )


def patched(repository: Repository) -> tuple[checkout.UncommittedChanges, bytes]:
    target = repository.path.parent / "changes.patch"
    changes = checkout.write_patch(str(repository.path), target)
    return changes, target.read_bytes()


def test_a_clean_and_pushed_branch_has_nothing_to_say(repository: Repository) -> None:
    repository.write("debug.log", "ignored")
    assert lines(repository) == []


def test_a_name_in_a_command_to_type_is_quoted(repository: Repository) -> None:
    """A clone has the branches that its remote thought of."""
    name = "x;id>y"
    for made in (("update-ref", f"refs/remotes/origin/{name}", "HEAD"), ("checkout", "-qb", name)):
        repository(*made)
    assert f"`git push -u origin '{name}'`" in lines(repository, name)[0]
    repository("checkout", "-q", "main")
    repository("branch", "-q", "-D", name)
    with pytest.raises(BadUsage) as error:
        local_source(str(repository.path), name, note=print)
    assert f"`git branch '{name}' 'origin/{name}'`" in str(error.value.hint)
    repository("branch", "-q", "-u", f"origin/{name}", "main")
    repository("update-ref", "-d", "refs/remotes/origin/main")
    with pytest.raises(BadUsage) as error:
        lines(repository)
    assert f"use its upstream: -b '{name}'" in str(error.value.hint)


def test_commits_that_the_remote_lacks_are_named_with_a_remedy(repository: Repository) -> None:
    repository.write("b.txt", "two\n")
    repository.commit("Second")
    repository.write("a.txt", "changed\n")
    repository.write("new file.txt", "new\n")
    repository("mv", "b.txt", "c.txt")
    assert lines(repository) == [
        "1 commit of main is not on origin: push first (`git push`)",
        "3 uncommitted changes stay here: commit and push, or add --with-changes",
    ]
    assert lines(repository, with_changes=True) == [
        "1 commit of main is not on origin: push first (`git push`)"
    ]
    repository("branch", "--unset-upstream")
    assert lines(repository, with_changes=True)[0] == (
        "Branch main has no upstream: set it with `git push -u origin main`"
    )


def test_a_branch_that_the_remote_cannot_have_is_an_error(repository: Repository) -> None:
    repository("checkout", "-qb", "topic")
    with pytest.raises(BadUsage, match="the branch topic is not on origin") as error:
        lines(repository, "topic")
    assert "git push -u origin topic" in str(error.value.hint)
    repository("branch", "-u", "origin/main")
    with pytest.raises(BadUsage) as error:
        lines(repository, "topic")
    assert "use its upstream: -b main" in str(error.value.hint)
    # The user may know more than this clone.
    named = checkout.check(
        str(repository.path), "origin", "topic", is_named=True, with_changes=False
    )
    assert list(named) == []
    repository("push", "-qu", "origin", "topic")
    assert lines(repository, "topic") == []


def test_the_patch_holds_all_that_is_not_committed(repository: Repository) -> None:
    repository.write("tool", "#!/bin/sh\n").chmod(0o755)
    repository.write("image.png", bytes(range(256)))
    repository.write('ümläut "x".txt', "hello\n")
    (repository.path / "link").symlink_to("a.txt")
    repository.write("a.txt", "one\ntwo\n")
    repository.write("deep/file.txt", "deep\n")
    repository.write("debug.log", "ignored")
    repository("add", "tool")
    before = repository("status", "--porcelain")
    changes, patch = patched(repository)
    assert repository("status", "--porcelain") == before
    assert set(changes.files) == {
        "a.txt", "tool", "image.png", "ümläut \"x\".txt", "link", "deep/file.txt",
    }  # fmt: skip
    assert set(changes.new) == set(changes.files) - {"a.txt"}
    assert "Sending 6 changed files as changes.patch" in checkout.described(changes)
    clone = repository.applied(patch)
    assert (clone / "a.txt").read_text() == "one\ntwo\n"
    assert os.access(clone / "tool", os.X_OK)
    assert (clone / "image.png").read_bytes() == bytes(range(256))
    assert os.readlink(clone / "link") == "a.txt"
    assert not (clone / "debug.log").exists()


def test_the_patch_is_of_the_whole_tree_also_from_a_folder_or_a_worktree(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.write("deep/file.txt", "deep\n")
    repository.write("b.txt", "b\n")
    monkeypatch.chdir(repository.path / "deep")
    changes = checkout.write_patch(".", repository.path.parent / "p")
    assert changes.files == ["b.txt", "deep/file.txt"]
    tree = repository.path.parent / "tree"
    repository("worktree", "add", "-qb", "side", str(tree))
    (tree / "only here.txt").write_text("x")
    assert checkout.write_patch(str(tree), tree.parent / "p").files == ["only here.txt"]


@pytest.mark.parametrize("more", [[], ["--sparse-index"]])
def test_a_sparse_checkout_has_a_patch_of_what_is_there(
    repository: Repository, more: list[str]
) -> None:
    for name in ("file", "other"):
        repository.write(f"left out/{name}.txt", "here\n")
    repository.write("kept/file.txt", "here\n")
    repository.commit("Folders")
    repository("sparse-checkout", "set", "--cone", *more, "kept")
    for name in ("new", "file"):
        repository.write(f"left out/{name}.txt", "new\n")
    repository.write("kept/file.txt", "changed\n")
    names = ["kept/file.txt", "left out/file.txt", "left out/new.txt"]
    assert patched(repository)[0].files == names


@pytest.mark.slow
def test_a_patch_of_nothing_and_one_that_is_too_large(repository: Repository) -> None:
    changes, patch = patched(repository)
    assert (changes.files, patch) == ([], b"")
    repository.write("big.txt", f"{'x' * 1023}\n" * (checkout.LARGEST_PATCH // 1024 + 1))
    with pytest.raises(BadUsage, match="the uncommitted changes are 30 MiB, and 30 MiB can be"):
        patched(repository)


def test_new_files_that_are_too_large_are_not_even_read(repository: Repository) -> None:
    with open(repository.write("huge", ""), "wb") as file:
        file.truncate(2 << 40)
    with pytest.raises(BadUsage, match="the uncommitted changes are 2097152 MiB"):
        patched(repository)


def test_a_broken_environment_is_told_as_git_does(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CONFIG_COUNT", "some")
    with pytest.raises(BadUsage, match="command-line config"):
        patched(repository)


def test_submodules_are_left_out(repository: Repository) -> None:
    inner = repository.path / "inner"
    subprocess.run(["git", "init", "-q", inner], check=True)
    (inner / "x").write_text("x")
    git(inner, "add", "x")
    git(inner, "commit", "-qm", "x")
    repository.write("b.txt", "b\n")
    empty = repository.write("folder/file", "x").parent / "no commit"
    subprocess.run(["git", "init", "-q", empty], check=True)
    (empty / "x").write_text("x")
    changes, patch = patched(repository)
    assert changes.files == ["b.txt", "folder/file"]
    assert b"Subproject" not in patch


def test_a_hostile_repository_runs_nothing(repository: Repository) -> None:
    """Each of these is a command that the repository's own configuration names."""
    ran = repository.path.parent / "ran"
    script = repository.path.parent / "evil"
    script.write_text(f'#!/bin/sh\necho "$0 $*" >> {ran}\ncat\n')
    script.chmod(0o755)
    for name in (
        "core.fsmonitor", "diff.external", "diff.evil.textconv", "diff.evil.command",
        "filter.evil.clean", "filter.evil.process", "filter.e=q.clean", "core.pager",
        "core.editor", "core.sshCommand", "uploadpack.packObjectsHook",
    ):  # fmt: skip
        repository("config", name, str(script))
    repository("config", "filter.evil.required", "true")
    hooks = repository.path.parent / "hooks"
    hooks.mkdir()
    for name in ("post-index-change", "reference-transaction", "pre-commit", "fsmonitor-watchman"):
        (hooks / name).symlink_to(script)
    repository("config", "core.hooksPath", str(hooks))
    attributes = "*.txt filter=evil diff=evil\n*.md filter=e=q\n"
    (repository.path / ".gitattributes").write_text(attributes)
    repository.write("a.txt", "changed\n")
    repository.write("b.txt", "new\n")
    repository.write("c.md", "new\n")
    ran.unlink(missing_ok=True)
    lines(repository)
    changes, patch = patched(repository)
    assert set(changes.files) == {".gitattributes", "a.txt", "b.txt", "c.md"}
    assert b"+changed" in patch
    assert not ran.exists(), ran.read_text()


@pytest.mark.parametrize("read", [lines, patched, lambda each: uncommitted(each.path)])
def test_a_filter_in_python_imports_nothing_from_a_hostile_repository(
    repository: Repository, read: Callable[[Repository], object]
) -> None:
    """As that of nbstripout would, which begins with `python -m`."""
    ran = repository.path.parent / "ran"
    repository.write("quopri.py", f"open({str(ran)!r}, 'w')\n")
    repository.write(".gitattributes", "*.txt filter=python\n")
    clean = f"'{sys.executable}' -m quopri"
    repository("config", "--global", "filter.python.clean", clean)
    repository.write("a.txt", "two\n")
    subprocess.run(["git", "status"], cwd=repository.path, capture_output=True, check=True)
    assert ran.exists(), "git itself runs it"
    ran.unlink()
    os.utime(repository.path / "a.txt", (2**31, 2**31))
    read(repository)
    assert not ran.exists()


def test_a_hostile_submodule_runs_nothing(repository: Repository) -> None:
    inner = repository.path / "inner"
    subprocess.run(["git", "init", "-q", inner], check=True)
    (inner / "x").write_text("x")
    git(inner, "add", "x")
    git(inner, "commit", "-qm", "x")
    repository("add", "inner")
    repository.commit("Submodule")
    ran = repository.path.parent / "ran"
    git(inner, "config", "filter.evil.clean", f"touch {ran}; cat")
    (inner / ".gitattributes").write_text("x filter=evil\n")
    # Of the same size, so that git has to read it to see whether it changed.
    (inner / "x").write_text("y")
    os.utime(inner / "x", (2**31, 2**31))
    repository.write("b.txt", "b\n")
    lines(repository)
    changes, _ = patched(repository)
    assert changes.files == ["b.txt"]
    assert not ran.exists()


def test_a_working_tree_that_is_elsewhere_is_not_uploaded(repository: Repository) -> None:
    """Not even one that is itself a repository, above this one."""
    elsewhere = repository.path.parent / "private"
    elsewhere.mkdir()
    (elsewhere / "secret").write_text("secret")
    git(repository.path.parent, "init", "-q")
    for there in (elsewhere, repository.path.parent):
        repository("config", "core.worktree", str(there))
        message = "the working tree of the repository in .* is elsewhere"
        with pytest.raises(BadUsage, match=message):
            patched(repository)
        with pytest.raises(BadUsage, match=message):
            local_source(str(repository.path), note=print)


def test_a_branch_that_a_folder_lacks_is_refused(repository: Repository) -> None:
    """Before a task exists: the clone of it can have no other."""
    repository("tag", "v1")
    for known in ("main", "v1", None):
        found = local_source(str(repository.path), known, note=print)
        assert found["branchName"] == known
    with pytest.raises(BadUsage, match="has no branch or tag 'topic'") as error:
        local_source(str(repository.path), "topic", note=print)
    assert "git branch topic origin/topic" not in str(error.value.hint)
    repository("update-ref", "refs/remotes/origin/topic", "HEAD")
    with pytest.raises(BadUsage) as error:
        local_source(str(repository.path), "topic", note=print)
    assert "git branch topic origin/topic" in str(error.value.hint)


def test_the_current_branch_has_its_name_whatever_tags_there_are(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any remote can send one of that name."""
    repository("tag", "main")
    repository("remote", "set-url", "origin", "https://github.com/acme/shop.git")
    monkeypatch.chdir(repository.path)
    assert source(".", None, is_local=False, note=print)["branchName"] == "main"


def test_folders_of_every_kind_are_taken(repository: Repository) -> None:
    """Bare ones, URLs of folders and of other hosts, and those without a commit."""
    bare = repository.origin.parent / "a b.git"
    repository.origin.rename(bare)
    for given in (str(bare), "file://" + str(bare).replace(" ", "%20")):
        found = local_source(given, note=print)
        assert found == {
            "githubUrl": str(bare),
            "branchName": None,
            "localRepository": str(bare),
        }
    for given, plain in (
        ("https://host.example/p.git", "https://host.example/p.git"),
        ("https://me:pw@host.example:8443/a/b/c", "https://host.example:8443/a/b/c"),
        ("https://host.example/acme/shop.git", "acme/shop"),
    ):
        found = local_source(given, "topic", note=print)
        assert found == {"githubUrl": plain, "branchName": "topic", "localRepository": given}
    with pytest.raises(BadUsage, match="is not a repository"):
        local_source("https://host.example/", note=print)
    with pytest.raises(BadUsage, match="is a bare repository: it has no uncommitted changes"):
        local_source(str(bare), with_changes=True, note=print)


def test_a_repository_without_a_commit_has_a_patch_and_no_branch_to_clone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init", "-q", "-b", "main", "shop")
    git(tmp_path / "shop", "remote", "add", "origin", "https://github.com/acme/shop.git")
    (tmp_path / "shop/a.txt").write_text("one\n")
    monkeypatch.chdir(tmp_path / "shop")
    assert local_source(".", with_changes=True, note=print)["branchName"] is None
    changes = checkout.write_patch(".", tmp_path / "patch")
    assert changes.new == ["a.txt"]
    assert "+one" in (tmp_path / "patch").read_text()


def test_submodules_that_a_clone_will_not_have_are_named(repository: Repository) -> None:
    add = ("-c", "protocol.file.allow=always", "submodule", "add", "-q")
    repository(*add, str(repository.origin), "libs/one")
    repository.commit("Add a submodule")
    said: list[str] = []
    local_source(str(repository.path), note=said.append)
    assert said == ["Submodules are not cloned; these folders are empty: libs/one"]


@pytest.mark.parametrize("given", ["/src/shop", "./shop", "~/shop", "file:///src/shop"])
def test_a_folder_is_refused_where_no_service_can_read_it(given: str) -> None:
    with pytest.raises(BadUsage, match="is on this machine") as error:
        source(given, None, is_local=False, note=print)
    assert "-P local" in str(error.value.hint)


@pytest.mark.parametrize("is_local", [False, True])
def test_repositories_inside_are_named(repository: Repository, is_local: bool) -> None:
    """Uncommitted changes have nothing of them, whether they have a commit or not."""
    for name in ("nested", "empty"):
        (repository.path / name).mkdir()
        git(repository.path / name, "init", "-q")
        (repository.path / name / "file").write_text("work\n")
    git(repository.path / "nested", "add", "-A")
    git(repository.path / "nested", "commit", "-q", "-m", "Nested")
    folder = str(repository.path)
    if is_local:
        lines = checkout.left_out(folder, with_changes=True)
    else:
        lines = checkout.check(folder, "origin", "main", is_named=False, with_changes=True)
    assert [*lines] == ["Repositories inside this one stay here: empty/, nested/"]
