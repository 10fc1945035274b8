"""Patches that git reads otherwise than we do must not get through; real git applies them."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from rebyte_cli.errors import BadUsage, RebyteError
from rebyte_cli.system import git as safe_git
from rebyte_cli.tasks import apply, file_changes, patch, patch_headers
from rebyte_cli.tasks.patched_tree import tree_with
from rebyte_cli.tasks.prepared_patch import prepared
from rebyte_cli.tasks.risks import risks_between
from tests.patch_farm import bring, patch_of
from tests.repositories import git

NEW = b"""--- /dev/null
+++ b/x
@@ -0,0 +1 @@
+/etc/passwd
\\ No newline at end of file
"""
CHANGED = b"--- a/f\n+++ b/f\n@@ -1 +1 @@\n-a\n+b\n"
BINARY = b"""diff --git a/f b/f
index 7898192..6178079 100644
GIT binary patch
literal 1
IcmZPo000310RR91

"""
HUNK = b"@@ -0,0 +1 @@\n+a\n"
MORE = b"--- /dev/null\n+++ b/Makefile\n@@ -0,0 +1 @@\n+evil\n"


def added(*headers: str) -> bytes:
    return b"diff --git a/x b/x\n" + "".join(f"{line}\n" for line in headers).encode() + NEW


def modified(*headers: str) -> bytes:
    return b"diff --git a/f b/f\n" + "".join(f"{line}\n" for line in headers).encode() + CHANGED


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "f").write_text("a\n")
    (folder / "run").write_text("a\n")
    (folder / "run").chmod(0o755)
    git(folder, "add", "-A")
    git(folder, "config", "user.name", "A")
    git(folder, "config", "user.email", "a@b")
    git(folder, "commit", "-q", "-m", "A")
    return folder


@pytest.mark.parametrize("name", ["../x", "/x", "a/../x", ".git/x", "a/.GIT/x", "a//x", "."])
def test_a_name_that_no_file_in_a_repository_has(root: Path, name: str) -> None:
    """It is refused before anything there is read."""
    odd = added("new file mode 100644").replace(b"/x", b"/" + name.encode())
    with pytest.raises(RebyteError, match="a repository has no file called"):
        file_changes.changes(odd, root)


def test_a_file_beyond_a_link_is_not_read(root: Path) -> None:
    (root.parent / "x").write_text("x\n")
    (root / "out").symlink_to("..")
    odd = added("new file mode 100644", "index 0000000..587be6b").replace(b"/x", b"/out/x")
    with pytest.raises(patch.PatchConflict, match="out is no folder"):
        bring(odd, root)


@pytest.mark.parametrize("quotes", ["true", "false"])
def test_every_name_that_git_writes_is_read(root: Path, quotes: str) -> None:
    odd = [
        b"a b",
        b'q"',
        b"back\\",
        b"tab\t",
        b"new\nline",
        b"\x01\x7f",
        b"\xff",
        "é".encode(),
        b"b/a b/x",
    ]
    for name in odd:
        path = os.path.join(os.fsencode(root), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(os.fsdecode(path)).write_bytes(name)
    git(root, "config", "core.quotePath", quotes)
    git(root, "mv", "f", "moved é")
    git(root, "add", "-A")
    words = ["diff", "--cached", "-M", "--full-index", "--binary"]
    for first, other in (("1/", "2/"), ("old/", "new/"), ("A.x/", "B-y/")):
        prefixes = [f"--src-prefix={first}", f"--dst-prefix={other}"]
        patch_headers.check_form(safe_git.run([*words, *prefixes], root))
    written = safe_git.run(words, root)
    git(root, "reset", "-q", "--hard")
    assert {change.status for change in file_changes.changes(written, root)} == {"added", "renamed"}
    names = {file.new for file in patch_headers.sections(written)}
    assert names == {*odd, "moved é".encode()}


def test_a_file_that_only_the_index_knows_as_executable_is_named(root: Path) -> None:
    git(root, "config", "core.fileMode", "false")
    (root / "run").chmod(0o644)
    with prepared(modified().replace(b"/f", b"/run"), root) as ready:
        assert risks_between(root, ready.before, ready.after.tree) == ["run (executable)"]


@pytest.mark.slow
def test_more_files_than_memory_has_room_for(root: Path) -> None:
    many = b"diff --git a/f b/f\nold mode 100644\nnew mode 100755\n" * 250_001
    with pytest.raises(RebyteError, match="more than 250,000 files"):
        file_changes.changes(many, root)


@pytest.mark.slow
@pytest.mark.parametrize(
    "odd",
    [
        added("new mode 100644", "new file mode 120000"),
        added("new file mode 100644", "new mode 120000"),
        added("new mode 100644", "new file mode 100755"),
        added("new file mode 120000", "new file mode 100644"),
        added("new file mode 0100755"),
        added("new file mode 0120000"),
        added("new file mode 100755 "),
        added("new file mode 100755\r"),
        added("new file mode 100777"),
        added("new file mode 100755", "index 0000000..6178079 100644"),
        added("new file mode 100644", "old mode 120000"),
        added("new file mode 100644", "something else"),
        modified("index 7898192..6178079 0120000"),
        modified("new mode 100755"),
        modified() + MORE,
        MORE + modified(),
        MORE,
        HUNK + modified(),
        modified().replace(b"--- a/f", b"--- a/f\tx"),
        modified().replace(b"--- a/f", b'--- "a/f"x'),
        modified().replace(b"--- a/f", b'--- "a\\057f"'),
        modified().replace(b"--- a/f", b'--- "a/\\q"'),
        modified().replace(b"--- a/f", b'--- "a/f\\000g"'),
        modified().replace(b"/f", b"/f\0g"),
        modified().replace(b"a/f", b'"a/\\146"').replace(b"b/f", b'"b/\\146"'),
        modified() + b"@@ -1 +1 @@x\n-b\n+c",
        modified().replace(b"--- a/f", b"--- a/run"),
        modified().replace(b"--- a/f", b"--- /dev/null"),
        modified().replace(b"git a/f", b"git a/run"),
        modified().replace(b"+++ b/f", b"+++ /dev/null"),
        modified("rename from run", "rename to f").replace(b"git a/f", b"git a/run"),
        modified("rename from run"),
        modified("rename from f", "copy to f"),
        b"diff --git a/f b/f\n" + CHANGED.partition(b"+++ b/f\n")[2],
        b"diff --git a/f b/f\n" + modified(),
        modified() + b"@@ -1 +1 @@ \n",
        modified().replace(b"-1 +1 @@", b"-1,2 +1 @@"),
        modified().replace(b"+b\n", b"+b"),
        modified().replace(b"-a\n", b"-a\n?\n"),
        BINARY + b"GIT binary patch\n",
        BINARY[:-1] + modified() + b"\n",
        BINARY.partition(b"\n")[2] + modified(),
        b"diff --git a/f b/run\n--- a/f\n+++ b/run\n@@ -1 +1 @@\n-a\n+b\n",
        b"diff --git a/f b/f\nindex 7898192..6178079 100644\nBinary files a/f and b/f differ\n"
        b"deleted file mode 100644\n",
    ],
)
def test_what_git_does_not_write_is_refused(root: Path, odd: bytes) -> None:
    with pytest.raises(RebyteError, match=r"as git writes it|not in git's format"):
        file_changes.changes(odd, root)
    with pytest.raises(patch.PatchConflict):
        tree_with(root, "HEAD", odd)


@pytest.mark.parametrize(
    "odd",
    [
        modified("", "old mode 100755", "new mode 100644").replace(b"/f", b"/run"),
        modified("", "index 7898192..6178079 100644"),
        modified("old mode 100644", "new mode 100755", ""),
        added("new file mode 100644", "", "index 0000000..6178079"),
        modified("") + MORE,
        b"diff --git a/f b/f\nold mode 100644\nnew mode 100755\n\n"
        + CHANGED.partition(b"+++ b/f\n")[2],
    ],
)
def test_an_empty_line_ends_a_header_and_nothing_follows_it(root: Path, odd: bytes) -> None:
    """git takes what does for the text around a patch, or for one in another format."""
    with pytest.raises(RebyteError, match="as git writes it"):
        file_changes.changes(odd, root)


@pytest.mark.parametrize("content", [b"literal 1\nbroken\n", b"literal 1\nMcmZPo000310RR91\n"])
def test_binary_content_that_ends_elsewhere_than_it_says_is_refused(
    root: Path, content: bytes
) -> None:
    odd = BINARY.replace(b"literal 1\nIcmZPo000310RR91\n", content)
    assert odd != BINARY
    with pytest.raises(safe_git.GitFailed):
        file_changes.changes(odd, root)


@pytest.mark.parametrize(
    "odd",
    [
        b"Subject: x\n--- a/run\n+++ b/run\n" + modified(),
        modified() + b"\n-- \n2.47.3\n\n",
        modified() + b"\nbase-commit: %s\n-- \n2.47.3 (Apple Git-1)" % (b"1" * 40),
        b"commit 1234567\n\n    - One\n    @@ two\n\n" + modified(),
    ],
)
def test_what_git_passes_over_brings_nothing_along(root: Path, odd: bytes) -> None:
    assert [(each.path, each.status) for each in file_changes.changes(odd, root)] == [
        ("f", "modified")
    ]
    assert bring(odd, root) == ["f"]
    assert git(root, "status", "--porcelain") == "M  f\n"


FAKE = b"@@  -1 +1 @@\n-a\n+b\n"


@pytest.mark.parametrize(
    "more",
    [
        b"+++ b/x\n",
        b"+c\n",
        b"-c\n",
        b" c\n",
        b"Binary files a/run and b/run differ\n",
        b"\n-- \n+c\n",
        b"\n-- \n2.47.3\n+c\n",
        b"Submodule mod 1234567..2345678:\n  > Work\n",
        b"diff  --git a/run b/run\n",
        FAKE,
        b"From %s Mon Sep 17 00:00:00 2001\n%s" % (b"1" * 40, FAKE),
    ],
)
def test_text_that_reads_like_a_change_is_refused(root: Path, more: bytes) -> None:
    """git passes over it, and a reader of the patch takes it for a part."""
    for odd in (modified() + more, modified() + more + modified().replace(b"/f", b"/run")):
        with pytest.raises(RebyteError, match="as git writes it"):
            file_changes.changes(odd, root)


@pytest.mark.parametrize("text", [FAKE, b"Submodule mod 1234567..2345678:\n  > Work\n"])
def test_text_before_a_patch_that_reads_like_a_change_is_refused(root: Path, text: bytes) -> None:
    with pytest.raises(RebyteError, match="as git writes it"):
        file_changes.changes(text + modified(), root)


def test_only_what_is_applied_has_colours() -> None:
    text = b"Subject: x\n\n- One\n+ Two\n---\n" + modified() + b"+c\n-- \n2.47.3\n" + FAKE
    shown = "".join(patch.coloured(text, color=True))
    assert [line for line in shown.splitlines() if "\x1b[3" in line] == [
        "\x1b[36m@@ -1 +1 @@\x1b[m",
        "\x1b[31m-a\x1b[m",
        "\x1b[32m+b\x1b[m",
    ]


@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n" + modified().replace(b"/f", b"/run")])
def test_empty_lines_after_a_change_of_the_mode_are_fine(root: Path, end: bytes) -> None:
    mode = b"diff --git a/f b/f\nold mode 100644\nnew mode 100755\n"
    first, *_ = file_changes.changes(mode + end, root)
    assert (first.path, first.executable) == ("f", True)


def test_a_part_brings_no_other_file_along(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    with pytest.raises(RebyteError, match=r"as git writes it|not in git's format"):
        file_changes.changes(patch.only(modified() + MORE, ["f"], root), root)


@pytest.mark.parametrize("paths", [["src"], ["lib"], ["lib/f", "other"], ["src", "lib"]])
def test_a_path_is_a_limit_for_what_is_moved_too(
    root: Path, monkeypatch: pytest.MonkeyPatch, paths: list[str]
) -> None:
    monkeypatch.chdir(root)
    moved = b"diff --git a/src/f b/lib/f\nsimilarity index 100%\n"
    moved += b"rename from src/f\nrename to lib/f\n" + modified().replace(b"/f", b"/other")
    if paths == ["src", "lib"]:
        assert b"other" not in patch.only(moved, paths, root)
        return
    with pytest.raises(BadUsage, match="src/f becomes lib/f") as caught:
        patch.only(moved, paths, root)
    assert caught.value.hint == "Name both, or neither"


def test_a_path_takes_copies_by_what_they_make(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    copied = b"diff --git a/f b/lib/f\nsimilarity index 100%\ncopy from f\ncopy to lib/f\n"
    assert patch.only(copied, ["lib"], root) == copied
    with pytest.raises(BadUsage, match="nothing at f"):
        patch.only(copied, ["f"], root)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("odd", "risk"),
    [
        (added("new file mode 120000") + CHANGED.replace(b"f", b"x"), None),
        (added("new file mode 120000"), "x (symbolic link)"),
        (added("new file mode 100755"), "x (executable)"),
        (added("new file mode 100644"), None),
        (modified("old mode 100644", "new mode 100755"), "f (executable)"),
        (modified("old mode 100755", "new mode 100755"), "f (executable)"),
        (modified("index 7898192..6178079 100755"), None),
        (modified().replace(b"/f", b"/run") + b"", "run (executable)"),
        (
            modified("index 7898192..6178079 100755").replace(b"/f", b"/run"),
            "run (executable)",
        ),
        (modified("index 7898192..6178079 100644"), None),
    ],
)
def test_what_becomes_a_link_or_can_be_run_is_named(
    root: Path, odd: bytes, risk: str | None
) -> None:
    """Whatever git makes a link or an executable is among the risks, or the patch is refused."""
    try:
        file_changes.changes(odd, root)
        before = {path.name: path.read_bytes() for path in root.iterdir() if path.is_file()}
        with prepared(odd, root) as ready:
            found = risks_between(root, ready.before, ready.after.tree)
            apply.apply(ready)
    except RebyteError:
        return
    telling = set()
    for path in root.iterdir():
        if path.name == ".git" or (
            not path.is_symlink() and before.get(path.name) == path.read_bytes()
        ):
            continue
        if path.is_symlink() or os.access(path, os.X_OK):
            telling.add(path.name)
    assert telling <= {entry.partition(" ")[0] for entry in found}, found
    if risk is not None:
        assert risk in found


@pytest.mark.slow
def test_a_patch_that_unpacks_to_gigabytes_ends_git_not_the_machine(root: Path) -> None:
    """A few bytes of it are a kilobyte: the limit is on what git takes, not on the patch."""
    with (root / "large").open("wb") as file:
        file.truncate(300 * 1024**2)
    git(root, "add", "large")
    small = safe_git.run(["diff", "--cached", "--binary"], root)
    assert len(small) < 2 * 1024**2
    git(root, "reset", "-q", "--hard")
    file = root.parent / "p.patch"
    file.write_bytes(small)
    assert safe_git.run(["apply", "--numstat", str(file)], root, memory=2 * 1024**3)
    with pytest.raises(safe_git.GitFailed, match=r"more than 0.2 GiB of memory"):
        safe_git.run(["apply", "--numstat", str(file)], root, memory=200 * 1024**2)


@pytest.mark.slow
def test_a_patch_of_millions_of_lines_takes_no_memory() -> None:
    start = added("new file mode 100644").partition(b"@@")[0]
    text = start + HUNK.replace(b"+1", b"+1,1000001") + b"+a\n" * 1_000_000
    tracemalloc.start()
    try:
        patch_headers.check_form(text)
        assert [each.new for each in patch_headers.sections(text + (start + HUNK))] == [b"x", b"x"]
        assert sum(1 for _ in patch.coloured(text, color=True)) == 1_000_006
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 2 * len(text)


def commits(root: Path, *changes: Callable[[], object]) -> bytes:
    """Commits of what these functions change, one after the other, as `format-patch` writes them.

    The tree is as before them in the end.
    """
    git(root, "checkout", "-q", "--detach", "main")
    for change in changes:
        change()
        git(root, "add", "-A")
        git(root, "commit", "-q", "-m", "Work\n\n- One\n+ Another")
    made = safe_git.run(["format-patch", "--stdout", "--binary", "main..HEAD"], root)
    git(root, "checkout", "-q", "main")
    return made


@pytest.mark.parametrize("way", ["moved", "removed", "made and removed", "renamed and removed"])
def test_what_one_commit_makes_and_another_one_takes_away_is_refused(root: Path, way: str) -> None:
    """git would leave it there: all that a patch removes, it removes first."""
    first, second = {
        "moved": (lambda: (root / "f").write_text("a\n" * 9), lambda: git(root, "mv", "f", "g")),
        "removed": (lambda: (root / "f").write_text("b\n"), (root / "f").unlink),
        "made and removed": ((root / "new").touch, (root / "new").unlink),
        "renamed and removed": (lambda: git(root, "mv", "f", "g"), lambda: git(root, "rm", "g")),
    }[way]
    odd = commits(root, first, second)
    with pytest.raises(RebyteError, match=r"the patch names '.*' twice"):
        file_changes.changes(odd, root)
    with pytest.raises(patch.PatchUnusable, match="apply them one by one"):
        tree_with(root, "HEAD", odd)


def test_commits_that_change_a_file_in_place_are_applied_together(root: Path) -> None:
    odd = commits(
        root,
        (root / "new").touch,
        lambda: (root / "new").write_text("b\n"),
        lambda: (root / "new").write_text("b\nc\n"),
    )
    assert bring(odd, root) == ["new"]
    assert (root / "new").read_text() == "b\nc\n"
    assert bring(odd, root) == []


@pytest.mark.parametrize("names", [["f", "run"], ["f", "run", "data"]])
def test_files_that_change_places_are_refused_if_only_their_names_tell_it(
    root: Path, names: list[str]
) -> None:
    """To apply it again would undo it, and whether it was applied already cannot be told."""
    for name in names:
        (root / name).write_text(f"{name}\n" * 300)
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "Large")
    contents = [(root / name).read_text() for name in names]

    def change(more: str = "") -> None:
        for name, content in zip(names, [*contents[1:], contents[0] + more], strict=True):
            (root / name).write_text(content)

    odd = patch_of(root, change, "HEAD", "-B", "-M")
    assert odd.count(b"rename from") == len(names)
    with pytest.raises(patch.PatchConflict, match="have changed places already: use `git apply`"):
        bring(odd, root)
    told = patch_of(root, lambda: change("more\n"), "HEAD", "-B", "-M")
    assert told.count(b"rename from") == len(names)
    assert sorted(bring(told, root)) == sorted(names)
    assert bring(told, root) == []


def test_blanks_at_the_end_of_lines_are_no_reason_to_refuse(root: Path) -> None:
    git(root, "config", "apply.whitespace", "error")
    blank = modified().replace(b"+b\n", b"+b \n")
    assert [each.path for each in file_changes.changes(blank, root)] == ["f"]
    assert bring(blank, root) == ["f"]
