"""The tree that a patch makes of another one: objects alone, no working tree and no hook."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from ..errors import RebyteError
from ..system import git
from .absent_parts import SHORTEST_ID, absent, joined
from .git_apply import git_apply
from .patch import (
    PatchUnusable,
    conflict,
    listed,
    no_folder,
    own_repository,
    safe_repository,
    shown,
    unmerged,
)
from .patch_headers import PatchedFile, check_form, names_in, parts
from .trees import TreeChange, difference, entries_of, tree_of

T = TypeVar("T")


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
    return _made(root, base, patch, "", own["GIT_INDEX_FILE"])


def _made(root: Path, base: str, patch: bytes, attributes: str, known: str) -> PatchedTree:
    try:
        check_form(patch)
    except RebyteError as error:
        raise PatchUnusable(error.message) from None

    def tree(given: bytes) -> PatchedTree:
        return _patched(root, base, given, attributes, known)

    made = of_patch(lambda: tree(patch), lambda: tree(_harmless(patch)))
    before = base or git.empty_tree(root, own_repository())
    made = made._replace(changes=difference(root, before, made.tree))
    if odd := {each.path for each in made.changes} - names_in(patch):
        names = ", ".join(map(shown, sorted(odd)))
        raise conflict([], f"it changes what it does not name: {names}")
    return made


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
        given = list(parts(patch))
        names = {name for _, each in given for name in (*each.names, each.copied)}
        before = entries_of(root, variables, names - {b""})
        found = absent(root, variables, given, before)
        try:
            if found or not given:
                git_apply(words, joined(found), root, variables)
        except git.GitFailed as error:
            if error.is_partial:
                raise PatchUnusable(f"the patch does not apply: {error.message}") from None
            made = made._replace(stages=unmerged(root, variables))
            if made.stages and known:
                _mark_conflicts(root, variables, made.stages)
            # With this status, git has found that it does not apply; it stops with another one.
            elif made.stages or error.status == 1:
                raise conflict(made.conflicts, error.message) from None
            else:
                _check_folders(root, variables, [each for _, each in found])
                raise
        told = {each.new: each for _, each in found if len(each.old_blob) >= SHORTEST_ID}
        told.pop(b"", None)  # what is deleted
        for name, (_, blob) in entries_of(root, variables, told.keys() - made.stages).items():
            _, old_blob = before.get(told[name].old or told[name].copied, ("", ""))
            # git takes hunks that fit elsewhere.
            if old_blob.startswith(told[name].old_blob) and not blob.startswith(told[name].blob):
                raise conflict([], f"{listed(shown(name))} would not be what the patch says")
        made = made._replace(tree=tree_of(root, variables))
        # Only now: another attempt needs `known` as it is, and no lock of a git that was killed.
        return made._replace(new_index=shutil.move(index, f"{known}.new")) if known else made


def _mark_conflicts(root: Path, variables: Mapping[str, str], names: Iterable[bytes]) -> None:
    """Replace the stages of each file in the index with one that has both sides, as git merges."""
    for some in git.portions(list(map(os.fsdecode, names))):
        words = ["--literal-pathspecs", "checkout", "--quiet", "--merge", "--", *some]
        git.run(words, root, variables)
        git.run(["update-index", "--", *some], root, variables)


def _check_folders(root: Path, variables: Mapping[str, str], patch: Sequence[PatchedFile]) -> None:
    """Refuse a patch with a file in what is a file, or in place of a folder, in the index.

    git notices this last, and stops as it does for a full disk. Raises PatchConflict.
    """
    files = set(git.run(["ls-files", "-z"], root, variables).split(b"\0")[:-1])
    files.difference_update(each.old for each in patch if each.old != each.new)
    names = [each.new for each in patch if len(each.new) <= git.LONGEST_PATH]
    files.update(filter(None, names))
    for name in sorted(files):
        for folder in _above(name):
            if folder in files:
                raise no_folder(folder, name)


def _above(path: bytes) -> Iterator[bytes]:
    while b"/" in path:
        path = path.rpartition(b"/")[0]
        yield path


def _git_dir(root: Path) -> str:
    return git.line(["rev-parse", "--absolute-git-dir"], root, own_repository())
