"""What a patch brings that tools run or read by themselves, or that is not as it looks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import MappingProxyType

from ..system import git
from .patch import EXECUTABLE, LINK, SUBMODULE, listed, own_repository, shown
from .prepared_patch import own_index
from .trees import DIFFERENCE, NO_FILE, difference

HEADING = "Files that tools run or read by themselves:"
MOST_NAMES, MOST_BYTES = 100_000, 1 << 24  # of paths for one git, each of which reads the index
_KINDS = {LINK: "symbolic link", SUBMODULE: "submodule"}


def risks_between(
    root: Path,
    before: str,
    after: str,
    encodings: Mapping[str, str] = MappingProxyType({}),
) -> list[str]:
    """The paths that tools run or read by themselves or that lead elsewhere, each with the reason.

    Of those that differ between two commits or trees; `before` may be empty. Links and submodules
    are known by their mode, whatever they are called. With `encodings` besides those that
    `encoded` finds. Raises GitFailed.
    """
    from .autorun import reader_of

    result = []
    for change in difference(root, before or git.empty_tree(root, own_repository()), after):
        path, is_gone = shown(change.path), change.mode == NO_FILE
        kind = _KINDS.get(change.old_mode if is_gone else change.mode, "")
        reasons = [reader_of(path), kind, "executable" if change.mode == EXECUTABLE else ""]
        if any(reasons):
            result.append(f"{listed(path)} ({', '.join(filter(None, reasons))})")
    for path, encoding in {**encodings, **encoded(root, before, after)}.items():
        result.append(f"{listed(path)} (its bytes are not those shown: {encoding})")
    return result


def encoded(root: Path, before: str, after: str) -> dict[str, str]:
    """Files that git writes in another encoding than a patch shows, and in which.

    Those of the commit or tree `after` that differ from `before`, which may be empty, in content or
    in encoding. A patch shows UTF-8, and in some encodings the same bytes are other characters,
    such as quotes and semicolons. Raises GitFailed.
    """
    known = own_repository()
    words = [*DIFFERENCE, "-z", "--name-only"]
    changed = git.paths([*words, before or git.empty_tree(root, known), after], root, known)
    for name in changed:
        if len(os.fsencode(name)) > git.LONGEST_PATH:
            raise git.GitFailed(
                f"a path is too long for any system: {shown(os.fsencode(name[:99]))}…"
            )
    if not any(os.path.basename(name) == ".gitattributes" for name in changed):
        return _encodings(root, changed, after)
    every = git.paths(["ls-tree", "-r", "-z", "--name-only", after], root, known)
    now = _encodings(root, every, after)
    earlier = _encodings(root, list(now), before) if before else {}
    differing = {shown(os.fsencode(path)) for path in changed}
    return {path: now[path] for path in now if path in differing or now[path] != earlier.get(path)}


def encoded_here(root: Path, names: Iterable[bytes]) -> dict[str, str]:
    """As `encoded`, of files with these names, by the attributes that are in the work tree now.

    git obeys those, too, where a commit that it checks out has none.
    """
    paths = [os.fsdecode(name) for name in names if len(name) <= git.LONGEST_PATH]
    return _encodings(root, sorted(paths), None)


def _encodings(root: Path, paths: Sequence[str], tree: str | None) -> dict[str, str]:
    """Those of the files that are not UTF-8 by the attributes in a tree, or in the work tree."""
    result, known = {}, own_repository()
    words = ["check-attr", "-z", "--stdin"] + ["--cached"] * (tree is not None)
    words.append("working-tree-encoding")
    with own_index(root, known, tree) if paths and tree else nullcontext(known) as variables:
        for some in git.portions(paths, MOST_NAMES, MOST_BYTES):
            given = b"".join(os.fsencode(path) + b"\0" for path in some)
            listed = git.run(words, root, variables, given=given)
            parts = os.fsdecode(listed).split("\0")[:-1]
            for path, _, encoding in zip(parts[::3], parts[1::3], parts[2::3], strict=False):
                if encoding.casefold() not in ("unspecified", "unset", "set", "utf-8", "utf8"):
                    result[shown(os.fsencode(path))] = encoding
    return result
