"""The tree that a patch makes of another one: objects alone, no working tree and no hook."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from ..errors import RebyteError
from ..system import git
from .git_apply import git_apply
from .patch import (
    PatchConflict,
    PatchUnusable,
    conflict,
    listed,
    own_repository,
    parts,
    safe_repository,
    shown,
    unmerged,
)
from .patch_headers import PatchedFile, check_form, sections

T = TypeVar("T")
SHORTEST_ID = 7  # hexadecimal digits that git writes of an id by default
CONTENT = re.compile(rb"^(?:@@ |GIT binary patch|Binary files )", re.MULTILINE)
NO_FILE = "000000"  # git's mode of what is not there
# Else `.gitmodules` and the repository's configuration could hide new commits of submodules.
DIFFERENCE = ("diff-tree", "-r", "--no-renames", "--ignore-submodules=none")


class TreeChange(NamedTuple):
    """How a file differs between two trees: mode and blob in each, `NO_FILE` and zeros in none."""

    path: bytes
    old_mode: str
    mode: str
    old_blob: str
    blob: str


class PatchedTree(NamedTuple):
    """What a patch makes of a tree: the id of a new one, in which conflicts are marked.

    `stages` are the lines of git's index about these, by the names of the files. Of what `patched`
    returns, `changes` are all that the patch changes, and `new_index` is the file of one with it.
    """

    tree: str
    stages: Mapping[bytes, Sequence[bytes]]
    changes: Sequence[TreeChange] = ()
    new_index: str = ""

    @property
    def conflicts(self) -> list[str]:
        """The files with conflicts, for a list."""
        return [listed(shown(name)) for name in self.stages]


def tree_with(root: Path, base: str, patch: bytes, attributes: str = "") -> str:
    """The tree that a patch makes of the commit or tree `base`, or of nothing if that is empty.

    It is merged where files have changed, as the `.gitattributes` of the commit `attributes` say,
    or else those of `base` (git 2.41; an older git obeys those of `base` in any case). Only objects
    are written. Raises PatchConflict if the patch does not apply, which names the files with
    conflicts; and as `of_patch` does.
    """
    return _made(root, base, patch, attributes, "").tree


def patched(root: Path, base: str, patch: bytes, own: Mapping[str, str]) -> PatchedTree:
    """As `tree_with`, but with the tree if there are conflicts, too.

    `own` names an index of ours that has the files of `base`. The new one is beside it.
    """
    made = _made(root, base, patch, "", own["GIT_INDEX_FILE"])
    return made._replace(changes=difference(root, base, made.tree))


def _made(root: Path, base: str, patch: bytes, attributes: str, known: str) -> PatchedTree:
    try:
        check_form(patch)
    except RebyteError as error:
        raise PatchUnusable(error.message) from None

    def tree(given: bytes) -> PatchedTree:
        return _patched(root, base, given, attributes, known)

    return of_patch(lambda: tree(patch), lambda: tree(_harmless(patch)))


def of_patch(attempt: Callable[[], T], without: Callable[[], object]) -> T:
    """What `attempt` makes of a patch, or of what that made.

    What git says does not tell whose fault it is if it fails: the name of a file can be any text.
    So it is the patch's if git fails twice in `attempt`, and not in `without`, which does the same
    without the patch: that is not in git's form, has names that no repository takes, takes more
    memory, time or room than git may, or crashes it. PatchUnusable says so. In any other case, such
    as a full disk, it is this machine that fails. Raises that GitFailed, and what else `attempt`
    raises.
    """
    with suppress(git.GitFailed):
        return attempt()
    try:
        return attempt()
    except git.GitFailed as error:
        try:
            without()
        except git.GitFailed:
            raise error from None
        raise PatchUnusable(f"the patch cannot be used: {error.message}") from None


def _harmless(patch: bytes) -> bytes:
    """A patch that adds one file of one line, as long as another patch: it takes as much room."""
    name = b"rebyte-%s" % secrets.token_hex().encode()
    head = b"diff --git a/%b b/%b\nnew file mode 100644\n--- /dev/null\n+++ b/%b\n"
    return head % (name, name, name) + b"@@ -0,0 +1 @@\n+%b\n" % patch.replace(b"\n", b" ")


def _patched(root: Path, base: str, patch: bytes, attributes: str, known: str) -> PatchedTree:
    with tempfile.TemporaryDirectory(prefix="rebyte-") as folder:
        # Even with --cached, git checks out a file that the patch adds but the index has.
        scratch, index = Path(folder) / "tree", os.path.join(folder, "index")
        scratch.mkdir()
        variables = safe_repository(root, filters=False) | {
            "GIT_DIR": _git_dir(root),
            "GIT_WORK_TREE": str(scratch),
            "GIT_INDEX_FILE": index,
            "GIT_ATTR_SOURCE": attributes or base or git.empty_tree(root, own_repository()),
        }
        root = scratch
        if known:  # which is faster than to read the tree
            shutil.copyfile(known, index)
        else:
            git.run(["read-tree", base or "--empty"], root, variables)
        made, words = PatchedTree("", {}), ["--cached", "--3way", "--whitespace=nowarn"]
        patch = _absent(root, variables, patch)
        try:
            if patch:
                git_apply(words, patch, root, variables)
        except git.GitFailed as error:
            if error.is_partial:
                raise PatchUnusable(f"the patch does not apply: {error.message}") from None
            made = made._replace(stages=unmerged(root, variables))
            if made.stages and known:
                _mark_conflicts(root, variables, made.stages)
            # With this status, git has found that it does not apply; it stops with another one.
            elif made.stages or error.status == 1:
                if made.stages or not _is_there(root, variables, patch):
                    raise conflict(made.conflicts, error.message) from None
            else:
                _check_folders(root, variables, patch)
                raise
        made = made._replace(tree=tree_of(root, variables))
        # Only now: another attempt needs `known` as it is, and no lock of a git that was killed.
        return made._replace(new_index=shutil.move(index, f"{known}.new")) if known else made


def _absent(root: Path, variables: Mapping[str, str], patch: bytes) -> bytes:
    """The parts of a patch about files that the index does not have as the patch makes them."""
    wanted: dict[bytes, Callable[[str, str], bool]] = {}
    found = list(parts(patch))
    for part, each in found:
        if each.old and each.old != each.new:
            wanted[each.old] = lambda mode, _blob: not mode
        if each.new:
            wanted[each.new] = _is_like(part, each)
    there = entries_of(root, variables, wanted)
    like = {name for name, is_like in wanted.items() if is_like(*there.get(name, ("", "")))}
    dropped = [part for part, each in found if {each.old, each.new} - {b""} <= like]
    if not dropped or not _has(root, variables, dropped):
        return patch
    return b"".join(part for part, each in found if not {each.old, each.new} - {b""} <= like)


def _is_there(root: Path, variables: Mapping[str, str], patch: bytes) -> bool:
    """Whether the index has what a patch makes, although it does not tell its ids."""
    found = list(parts(patch))
    names = [name for _, each in found for name in {each.old, each.new} - {b""}]
    # git would take several parts about a file in the wrong order.
    is_once = len(set(names)) == len(names)
    return is_once and _has(root, variables, [part for part, _ in found])


def _has(root: Path, variables: Mapping[str, str], found: Sequence[bytes]) -> bool:
    """Whether the index has what parts of a patch make: the ids that they tell may be others'."""
    words = ["--cached", "--whitespace=nowarn", "--check", "--reverse"]
    with suppress(git.GitFailed):
        git_apply(words, b"".join(found), root, variables)
        return True
    return False


def tree_of(root: Path, variables: Mapping[str, str]) -> str:
    """The tree of what is in an index. Raises GitFailed, also for one with conflicts."""
    return git.line(["write-tree", "--missing-ok"], root, variables)


def entries_of(
    root: Path, variables: Mapping[str, str], names: Iterable[bytes]
) -> dict[bytes, tuple[str, str]]:
    """The modes and blobs of those of these files that an index has."""
    result = {}
    for some in git.portions(list(map(os.fsdecode, names))):
        words = ["--literal-pathspecs", "ls-files", "-z", "--stage", "--", *some]
        for line in git.run(words, root, variables).split(b"\0")[:-1]:
            about, _, name = line.partition(b"\t")
            mode, blob, _ = about.decode().split(" ")
            result[name] = (mode, blob)
    return result


def _is_like(part: bytes, file: PatchedFile) -> Callable[[str, str], bool]:
    """Whether a mode and a blob are those that a part of a patch gives a file, if it says so."""
    # It changes the mode alone, or the name: then what was moved away is the file that is there.
    keeps = bool(file.old) and not file.blob and not CONTENT.search(part)
    modes = [file.mode] if file.mode else ["100644", "100755", "120000"]

    def is_like(mode: str, blob: str) -> bool:
        has_blob = keeps or (len(file.blob) >= SHORTEST_ID and blob.startswith(file.blob))
        return mode in modes and has_blob

    return is_like


def _mark_conflicts(root: Path, variables: Mapping[str, str], names: Iterable[bytes]) -> None:
    """Replace the stages of each file in the index with one that has both sides, as git merges."""
    for some in git.portions(list(map(os.fsdecode, names))):
        words = ["--literal-pathspecs", "checkout", "--quiet", "--merge", "--", *some]
        git.run(words, root, variables)
        git.run(["update-index", "--", *some], root, variables)


def _check_folders(root: Path, variables: Mapping[str, str], patch: bytes) -> None:
    """Refuse a patch with a file in what is a file, or in place of a folder, in the index.

    git notices this last, and stops as it does for a full disk. Raises PatchConflict.
    """
    files = set(git.run(["ls-files", "-z"], root, variables).split(b"\0")[:-1])
    files.difference_update(each.old for each in sections(patch) if each.old != each.new)
    names = [each.new for each in sections(patch) if len(each.new) <= git.LONGEST_PATH]
    files.update(filter(None, names))
    for name in sorted(files):
        for folder in _above(name):
            if folder in files:
                raise no_folder(folder, name)


def no_folder(name: bytes, inside: bytes) -> PatchConflict:
    """The error for a file that would be in one which is no folder."""
    return conflict([], f"{shown(name)} is no folder, but {shown(inside)} is in it")


def difference(root: Path, before: str, after: str) -> list[TreeChange]:
    """The files that differ between two commits or trees. Raises GitFailed."""
    if before == after:
        return []
    words = [*DIFFERENCE, "-z", "--raw", before, after]
    fields = git.run(words, root, own_repository()).split(b"\0")[:-1]
    result = []
    for about, path in zip(fields[::2], fields[1::2], strict=True):
        old_mode, mode, old_blob, blob, _ = about.decode().removeprefix(":").split(" ")
        result.append(TreeChange(path, old_mode, mode, old_blob, blob))
    return result


def _above(path: bytes) -> Iterator[bytes]:
    while b"/" in path:
        path = path.rpartition(b"/")[0]
        yield path


def _git_dir(root: Path) -> str:
    return git.line(["rev-parse", "--absolute-git-dir"], root, own_repository())
