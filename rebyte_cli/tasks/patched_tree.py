"""The tree that a patch makes of another one: objects alone, no working tree and no hook."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from ..errors import RebyteError
from ..system import git
from .git_apply import git_apply
from .patch import PatchUnusable, conflict, own_repository, safe_repository, shown, unmerged
from .patch_headers import check_form, sections

T = TypeVar("T")


def tree_with(root: Path, base: str, patch: bytes, attributes: str = "") -> str:
    """The tree that a patch makes of the commit `base`, or of nothing if that is empty.

    It is merged where files have changed, as the `.gitattributes` of the commit `attributes` say,
    or else those of `base` (git 2.41; an older git obeys those of `base` in any case). Only objects
    are written. Raises PatchConflict if the patch does not apply, which names the files with
    conflicts; and as `of_patch` does.
    """

    try:
        check_form(patch)
    except RebyteError as error:
        raise PatchUnusable(error.message) from None

    def tree(given: bytes) -> str:
        return _tree_with(root, base, given, attributes)

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


def _tree_with(root: Path, base: str, patch: bytes, attributes: str) -> str:
    with tempfile.TemporaryDirectory(prefix="rebyte-") as folder:
        # Even with --cached, git checks out a file that the patch adds but the index has.
        scratch = Path(folder) / "tree"
        scratch.mkdir()
        variables = safe_repository(root, filters=False) | {
            "GIT_DIR": _git_dir(root),
            "GIT_WORK_TREE": str(scratch),
            "GIT_INDEX_FILE": str(Path(folder) / "index"),
            "GIT_ATTR_SOURCE": attributes or base or git.empty_tree(root, own_repository()),
        }
        root = scratch
        git.run(["read-tree", base or "--empty"], root, variables)
        try:
            git_apply(["--cached", "--3way", "--whitespace=nowarn"], patch, root, variables)
        except git.GitFailed as error:
            if error.is_partial:
                raise PatchUnusable(f"the patch does not apply: {error.message}") from None
            files = unmerged(root, variables)
            # With this status, git has found that it does not apply; it stops with another one.
            if files or error.status == 1:
                raise conflict(files, error.message) from None
            if name := _in_the_way(root, variables, patch):
                reason = f"{name} would be a file in place of a folder, or in another file"
                raise conflict([], reason) from None
            raise
        return git.run(["write-tree", "--missing-ok"], root, variables).decode().strip()


def _in_the_way(root: Path, variables: Mapping[str, str], patch: bytes) -> str:
    """A file that a patch adds where the index has a folder, or in what is a file there; or "".

    git notices this last, and stops as it does for a full disk.
    """
    files = set(git.run(["ls-files", "-z"], root, variables).split(b"\0")[:-1])
    files.difference_update(each.old for each in sections(patch) if each.old != each.new)
    folders = {above for path in files for above in _above(path)}
    for each in sections(patch):  # which may be millions
        path = each.new if len(each.new) <= git.LONGEST_PATH else b""
        if path in folders or not files.isdisjoint(_above(path)):
            return shown(path)
    return ""


def _above(path: bytes) -> Iterator[bytes]:
    while b"/" in path:
        path = path.rpartition(b"/")[0]
        yield path


def _git_dir(root: Path) -> str:
    return git.line(["rev-parse", "--absolute-git-dir"], root, own_repository())
