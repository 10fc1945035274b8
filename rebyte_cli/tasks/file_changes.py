"""What a patch does, file by file: what `apply` says of it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ..errors import RebyteError
from .git_apply import git_apply
from .patch import EXECUTABLE, safe_repository, shown
from .patch_headers import PatchedFile, check_form, sections
from .trees import TreeChange


class FileChange(NamedTuple):
    """What a patch does to one file; without line counts for a binary one.

    `status` is added, deleted, modified or renamed (from `old_path`); `executable` says that it
    gains the bit.
    """

    path: str
    status: str
    additions: int | None
    deletions: int | None
    executable: bool
    old_path: str | None = None


def changes(patch: bytes, root: Path) -> list[FileChange]:
    """What the patch does, file by file, as git reads it. RebyteError when it is no patch."""
    check_form(patch)
    words = ["--numstat", "-z", "--whitespace=nowarn"]
    counts = git_apply(words, patch, root, safe_repository(root)).split(b"\0")[:-1]
    entries = [entry.split(b"\t", 2) for entry in counts]
    files = list(sections(patch))
    # What git finds besides the files that are told apart here, it applies as well.
    if [each.new or each.old for each in files] != [path for *_, path in entries]:
        raise RebyteError("the patch has changes that are not in git's format", code="bad_patch")
    result = []
    for section, (plus, minus, path) in zip(files, entries, strict=True):
        result.append(
            FileChange(
                shown(path),
                _status(section),
                None if plus == b"-" else int(plus),
                None if minus == b"-" else int(minus),
                section.mode == EXECUTABLE != section.old_mode,
                shown(section.old) if _status(section) == "renamed" else None,
            )
        )
    return result


def _status(section: PatchedFile) -> str:
    if not section.old:
        return "added"
    if not section.new:
        return "deleted"
    return "modified" if section.old == section.new else "renamed"


def made(changes: Iterable[FileChange], difference: Iterable[TreeChange]) -> list[FileChange]:
    """Those changes of a patch that are in the difference of two trees, with the modes there."""
    there = {shown(each.path): each for each in difference}
    result = []
    for change in changes:
        old, new = there.get(change.old_path or change.path), there.get(change.path)
        if new and change.status != "deleted":
            gains = new.mode == EXECUTABLE != (old or new).old_mode
            change = change._replace(executable=gains)
        result += [change] if old or new else []
    return result
