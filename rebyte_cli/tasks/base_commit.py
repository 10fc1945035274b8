"""The commit of a repository here that a task's changes are changes of."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import NotFound
from ..system import git
from .patch import SUBMODULE, own_repository
from .patch_headers import PatchedFile, sections
from .trees import Entry, entries_in

MOST_COMMITS = 200  # that are compared with a patch
ID = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")


def base_commit(
    task: Mapping[str, Any],
    patch: bytes,
    root: Path,
    *,
    branch: str | None = None,
    noted: str | None = None,
) -> str:
    """The commit in the repository at `root` that the run of `task` started from.

    The service on this machine says it, by its whole id. Elsewhere it is the one that was `noted`
    when the task was created, if the patch is one of that, or else the newest commit from before
    the task was created that has the files which the patch changes, as they were: of `branch`,
    which the task was told to work on, of its remote's, of HEAD, then of any branch.
    Raises NotFound.
    """
    told = task.get("baseCommit")
    if isinstance(told, str) and told:
        # Any other name could be that of a branch which the user has never sent.
        if ID.fullmatch(told) and git.commit_of(root, told, own_repository()) == told:
            return told
        raise NotFound(
            f"the repository here does not have commit {told}, from which the task started",
            hint="Fetch it, or run the command in the repository that the task worked on",
        )
    files = list(sections(patch))
    if noted and git.has(root, f"{noted}^{{commit}}") and _fits(root, noted, files):
        return noted
    for revisions in _places(root, branch):
        for commit in _commits(root, revisions, str(task.get("createdAt") or "")):
            if _fits(root, commit, files):
                return commit
    raise NotFound(
        "no commit here has the files as they were when the task started",
        hint="Fetch the branch that it worked on",
    )


def _places(root: Path, branch: str | None) -> Iterator[list[str]]:
    if branch:
        names = (f"refs/heads/{branch}", f"refs/remotes/origin/{branch}")
        yield [name for name in names if git.has(root, name)]
    yield ["HEAD"] if git.has(root, "HEAD") else []
    yield ["--branches", "--remotes"]


def _commits(root: Path, revisions: list[str], created: str) -> list[str]:
    if not revisions:
        return []
    until = [f"--before={created}"] if created else []
    words = ["rev-list", f"--max-count={MOST_COMMITS}", *until, *revisions, "--"]
    return git.run(words, root, own_repository()).decode().split()


def _fits(root: Path, commit: str, files: list[PatchedFile]) -> bool:
    """Whether a commit has each file as the patch expects it, and none that the patch adds."""
    names = sorted({name for each in files for name in each.names})
    found: dict[bytes, Entry] = {}
    for some in git.portions(names):
        words = ["--literal-pathspecs", "ls-tree", "--full-tree", "-z", commit, "--"]
        words += map(os.fsdecode, some)
        found |= entries_in(git.run(words, root, own_repository()))
    for each in files:
        if each.mode == SUBMODULE:
            continue
        if not each.old:
            if each.new in found:
                return False
        elif not found.get(each.old, Entry("", "")).blob.startswith(each.old_blob):
            return False
    return True
