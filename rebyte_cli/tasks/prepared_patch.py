"""What a patch makes of the files here, before any of them changes: objects alone."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..system import git
from .patch import (
    SUBMODULE,
    PatchConflict,
    beyond_cone,
    conflict,
    is_there,
    place,
    safe_repository,
    shown,
    unmerged,
)
from .patch_headers import names_in
from .patched_tree import PatchedTree, patched
from .trees import NO_FILE, TreeChange, difference, entries_of, set_entries, tree_of


class PreparedPatch(NamedTuple):
    """A patch, and what it makes of the tree `base`: the tree `after`.

    The base is that of the user's index, named by `users`, or, if this is None and that index is
    not to be changed, that of the files here. These are as in the tree `before`, which has some
    changes already; the `files` that differ have to be written. `own` names an index of ours with
    that tree. If all `is_here`, none has to be written.
    """

    root: Path
    own: Mapping[str, str]
    users: Mapping[str, str] | None
    base: str
    before: str
    after: PatchedTree
    files: Sequence[TreeChange]
    is_here: bool


@contextlib.contextmanager
def prepared(patch: bytes, root: Path, *, force: bool = False) -> Iterator[PreparedPatch]:
    """Find out what a patch makes of the files here, for as long as the block takes.

    It is applied to the index, as the files have to be unless they are what it makes of them. With
    `force`, those with other changes that are not in the index are patched as they are, and the
    index stays. Only objects are written. Raises PatchConflict, and GitFailed as
    `patched_tree.of_patch` does.
    """
    users = safe_repository(root)
    if conflicts := PatchedTree("", unmerged(root, users)).conflicts:
        raise conflict([], f"there are conflicts in {', '.join(conflicts)}, which come first")
    names = names_in(patch)
    hidden = beyond_cone(root, names)
    index = tree_of(root, users)
    with own_index(root, users, index) as own:
        failure = None
        try:
            after = patched(root, index, patch, own)
        except PatchConflict as error:
            failure = error
        here = _tree_of_files(root, own, names - hidden)
        dirty = {each.path for each in difference(root, index, here)}
        if failure is None:
            in_place = _in_place(root, users, after, dirty)
            dirty -= {each.path for each in in_place}
        elif not force or not dirty:
            raise failure
        if dirty and force:
            after = patched(root, here, patch, own)
            in_place = _in_place(root, users, after, dirty)
        if dirty and (not force or after.stages):
            raise conflict([], f"changes that are not in the index are in the way: {_list(dirty)}")
        if not hidden.isdisjoint(after.stages):
            names_of = _list(after.stages)
            raise conflict([], f"there are conflicts beyond the sparse checkout: {names_of}")
        beyond = [] if dirty else [each for each in after.changes if each.path in hidden]
        base, before, files = here if dirty else index, here, after.changes
        if in_place or beyond:
            set_entries(root, own, entries([*in_place, *beyond]))
            before = tree_of(root, own)
            files = difference(root, before, after.tree)
        is_here = not (files or beyond or after.stages)
        changed = None if dirty else users
        yield PreparedPatch(root, own, changed, base, before, after, files, is_here)


def _list(names: Iterable[bytes]) -> str:
    return ", ".join(map(shown, sorted(names)))


@contextlib.contextmanager
def own_index(root: Path, variables: Mapping[str, str], tree: str) -> Iterator[dict[str, str]]:
    """Variables with an index of our own that has the files of a tree."""
    with tempfile.TemporaryDirectory(prefix="rebyte-") as folder:
        own = {**variables, "GIT_INDEX_FILE": os.path.join(folder, "index")}
        git.run(["read-tree", tree], root, own)
        yield own


def entries(changes: Iterable[TreeChange]) -> list[bytes]:
    """What `set_entries` needs to make these changes."""
    return [f"{each.mode} {each.blob}\t".encode() + each.path for each in changes]


def _tree_of_files(root: Path, own: Mapping[str, str], names: Iterable[bytes]) -> str:
    """Bring an index up to date with the files of these names that it has; the tree of it."""
    known: dict[bytes, int] = {}
    for some in git.portions(sorted(map(os.fsdecode, names))):
        listed = entries_of(root, own, map(os.fsencode, some))
        # A submodule may be at another commit.
        there = {os.fsdecode(name) for name in listed if listed[name][0] != SUBMODULE} & {*some}
        beyond = {name for name in there if place(root, os.fsencode(name), known) is None}
        for way, found in (("--remove", there - beyond), ("--force-remove", beyond)):
            if found:
                git.run(["update-index", way, "--", *sorted(found)], root, own)
    return tree_of(root, own)


def _in_place(
    root: Path, users: Mapping[str, str], after: PatchedTree, dirty: set[bytes]
) -> list[TreeChange]:
    """What the patch changes and the disk has already, although the tree before it has not."""
    found = [
        each
        for each in after.changes
        if SUBMODULE not in (each.old_mode, each.mode) and each.path not in after.stages
        if each.path in dirty or (each.old_mode == NO_FILE and is_there(root, each.path))
    ]
    names = {each.path for each in found if each.mode != NO_FILE}
    others: set[bytes] = set()
    if names:
        with own_index(root, users, after.tree) as own:
            there = _tree_of_files(root, own, names)
        others = {each.path for each in difference(root, after.tree, there)}
    gone = {each.path for each in found if each.mode == NO_FILE and not is_there(root, each.path)}
    return [each for each in found if each.path in gone | names - others]
