"""The files that a check runs on: a commit with a patch, but protected paths as they were.

Everything is put together in git's index, where no link leads anywhere, before a file is written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..system import git
from .git_apply import git_apply
from .patch import LINK, SUBMODULE
from .patched_tree import of_patch
from .protection import Protection, protection
from .trees import Entry, entries_in, set_entries

FETCH_SECONDS = 1800.0
# All that one commit reaches, no branch needed; deltas are not worth the time (see lenders.py).
UPLOAD_PACK = "git -c pack.window=0 -c uploadpack.allowAnySHA1InWant=true upload-pack"
_WRITE = ("checkout-index", "--quiet", "-z", "--stdin")


class Base(NamedTuple):
    """The commit that an agent's work began with, and a repository on this machine that has it.

    `repository` is a working tree or a bare repository. One that `is_own` is the local service's,
    made by nothing else, and may borrow objects from others.
    """

    repository: Path
    commit: str
    is_own: bool = False


def make(
    folder: Path,
    base: Base,
    patch: bytes,
    command: str,
    protect: Sequence[str],
    trusted: str | None = None,
) -> list[str]:
    """Make the tree in `folder`, which exists and is empty; returns the paths that were put back.

    Those are paths that differ from the commit `trusted`, an ancestor of the base or that itself,
    although `protect` or what `command` reads by itself covers them: changed, deleted, replaced or
    added. Raises BadUsage for a pattern, GitFailed, and PatchUnusable if the base alone is no
    problem: no file system may take a name.
    """
    commit = _fetched(folder, base)
    # The tree says which filter is for which file, and has files that those may run.
    off = git.programs_off(folder, filters=False)
    trusted = trusted or commit
    before = _entries(folder, ["ls-tree", "-r", "-z", "--full-tree", trusted])
    git.run(["read-tree", trusted], folder)
    protected = protection(command, protect, before, _links(folder, before))

    def unpatched() -> None:
        git.run(["read-tree", commit], folder)
        write_all()

    def patched() -> list[str]:
        git.run(["read-tree", commit], folder)
        if patch.strip():
            words = ["--cached", "--whitespace=nowarn"]
            git_apply(words, patch, folder, off, options=git.AS_THEY_ARE)
        restored = _put_back(folder, before, protected)
        write_all()
        return restored

    def write_all() -> None:
        words = ["checkout-index", "--all", "--quiet", "--force"]
        git.run([*git.AS_THEY_ARE, *words], folder, off)

    restored = of_patch(patched, unpatched)
    kept = [path for path in before if protected.covers(path)]
    files = [path for path in kept if before[path].mode != SUBMODULE]
    _write_as_before(folder, trusted, files, off)
    git.run(["update-index", "-q", "--refresh", "--ignore-submodules"], folder, off)
    return restored


def _fetched(folder: Path, base: Base) -> str:
    """Make a repository with what the base commit reaches, checked out nowhere; the commit's id."""
    place = base.repository
    own = git.bare(place) if base.is_own else None
    if own is None:
        git.check_repository(str(place))
    commit = git.line(
        ["rev-parse", "--verify", "--end-of-options", f"{base.commit}^{{commit}}"], place, own
    )
    hashes = git.line(["rev-parse", "--show-object-format"], place, own)
    git.run(["init", "--quiet", "--template=", f"--object-format={hashes}", str(folder)])
    words = ["fetch", "--quiet", "--no-tags"]
    words += ["--update-shallow", "--upload-pack", UPLOAD_PACK, "--", os.path.abspath(place)]
    git.run([*words, commit], folder, timeout=FETCH_SECONDS)
    git.run(["update-ref", "HEAD", commit], folder)
    return commit


def _entries(folder: Path, words: Sequence[str]) -> dict[str, Entry]:
    """What is in a tree or in the index, by path."""
    return {os.fsdecode(name): each for name, each in entries_in(git.run(words, folder)).items()}


def _links(folder: Path, entries: Mapping[str, Entry]) -> dict[str, str]:
    """The targets of the links among these entries, which are those of the index."""
    aside = folder.parent / "links"
    paths = [path for path, entry in entries.items() if entry.mode == LINK]
    words = ["-c", "core.symlinks=true", *_WRITE, f"--prefix={aside}/"]
    _write(paths, words, folder)
    return {path: os.readlink(aside / path) for path in paths}


def _put_back(folder: Path, before: Mapping[str, Entry], protection: Protection) -> list[str]:
    """Make every protected path in the index what it was; returns those that were not."""
    after = _entries(folder, ["ls-files", "--stage", "-z"])
    added = [path for path in after if path not in before and protection.covers(path)]
    changed = [
        path
        for path, entry in before.items()
        if after.get(path) != entry and protection.covers(path)
    ]
    # A folder on the way to a protected file may be a file or a link now.
    in_the_way = {above for path in changed for above in _above(path) if above in after}
    removed = dict.fromkeys((*added, *sorted(in_the_way)))
    entries = [f"0 {'0' * len(after[path].blob)}\t{path}" for path in removed]
    entries += [f"{before[path].mode} {before[path].blob}\t{path}" for path in changed]
    set_entries(folder, {}, list(map(os.fsencode, entries)))
    return sorted({*added, *changed, *in_the_way})


def _write(
    paths: Sequence[str],
    words: Sequence[str],
    place: Path,
    variables: Mapping[str, str] | None = None,
) -> None:
    """Have one git write all these files of an index, since each reads the whole of it."""
    if paths:
        given = b"".join(os.fsencode(path) + b"\0" for path in paths)
        git.run(words, place, variables, given=given)


def _above(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _write_as_before(
    folder: Path, commit: str, paths: Sequence[str], off: Mapping[str, str]
) -> None:
    """Write protected files with the attributes of the base: those of the patch can change them.

    They are written elsewhere, where git finds no `.gitattributes` of the patch, and moved here.
    """
    aside = folder.parent / "protected"
    aside.mkdir(mode=0o700)
    index = {**off, "GIT_INDEX_FILE": f"{folder.parent / 'index'}", "GIT_WORK_TREE": f"{aside}"}
    git_dir = ["--git-dir", str(folder / ".git")]
    git.run([*git_dir, "read-tree", commit], aside, index)
    _write(paths, [*git_dir, *git.AS_THEY_ARE, *_WRITE], aside, index)
    for path in paths:
        os.replace(aside / path, folder / path)
