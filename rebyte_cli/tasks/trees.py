"""Trees, and what is in an index: how git lists them, and how they differ."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..system import git
from .patch import own_repository

NO_FILE = "000000"  # git's mode of what is not there
# Else `.gitmodules` and the repository's configuration could hide new commits of submodules.
DIFFERENCE = ("diff-tree", "-r", "--no-renames", "--ignore-submodules=none")


class Entry(NamedTuple):
    """A file in a tree, or in an index."""

    mode: str
    blob: str


Entries = Mapping[bytes, Entry]  # by the names of the files


class TreeChange(NamedTuple):
    """How a file differs between two trees: mode and blob in each, `NO_FILE` and zeros in none."""

    path: bytes
    old_mode: str
    mode: str
    old_blob: str
    blob: str


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


def tree_of(root: Path, variables: Mapping[str, str]) -> str:
    """The tree of what is in an index. Raises GitFailed, also for one with conflicts."""
    return git.line(["write-tree", "--missing-ok"], root, variables)


def entries_in(listed: bytes) -> dict[bytes, Entry]:
    """The entries that `ls-files --stage -z` has printed, or `ls-tree -z`."""
    result = {}
    for line in listed.split(b"\0")[:-1]:
        about, _, name = line.partition(b"\t")
        mode, *others = about.decode().split(" ")  # the id, and a type before it or a stage behind
        result[name] = Entry(mode, max(others, key=len))
    return result


def entries_of(
    root: Path, variables: Mapping[str, str], names: Iterable[bytes]
) -> dict[bytes, Entry]:
    """The entries of those of these files that an index has."""
    result: dict[bytes, Entry] = {}
    for some in git.portions(list(map(os.fsdecode, names))):
        words = ["--literal-pathspecs", "ls-files", "-z", "--stage", "--", *some]
        result |= entries_in(git.run(words, root, variables))
    return result


def set_entries(root: Path, variables: Mapping[str, str], lines: Sequence[bytes]) -> None:
    """Put lines as `ls-files --stage` prints them into an index; mode 0 removes. GitFailed."""
    if lines:
        given = b"".join(line + b"\0" for line in lines)
        git.run(["update-index", "-z", "--index-info"], root, variables, given=given)
