"""Commits of what tasks changed, made without a working tree: no checkout, no hook.

Author and committer, and whether and with which key a commit is signed, are as for `git commit` in
the repository, whose own configuration has a say; the programs are the user's or git's own.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import BadUsage, NotFound
from ..system import git
from .patch import own_repository, safe_repository

LONGEST_SUBJECT = 72
TRAILERS = {"Rebyte-Task": "id", "Rebyte-Executor": "executor"}  # each with the task's field
_TRAILER = re.compile(r"[A-Za-z0-9-]+: \S.*")
# Commits that are not the user's alone to make: git itself would take them for the end of a merge.
_UNDER_WAY = {
    "MERGE_HEAD": "a merge",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
}


def message(text: str | None, task: Mapping[str, Any]) -> str:
    """The message of a commit: `text`, or else the task's title, and trailers that name the task.

    A title is anything that the service says; of it remains one line of `LONGEST_SUBJECT`
    characters that can be shown. The trailers join those that `text` ends with.
    """
    told = "" if text is None else text.replace("\r\n", "\n").replace("\0", "").strip()
    told = told or _one_line(task.get("title"), LONGEST_SUBJECT) or f"Apply task {task['id']}"
    values = {name: _one_line(task.get(field), 200) for name, field in TRAILERS.items()}
    trailers = "\n".join(f"{name}: {value}" for name, value in values.items() if value)
    paragraphs = told.split("\n\n")
    joins = len(paragraphs) > 1 and all(map(_TRAILER.fullmatch, paragraphs[-1].split("\n")))
    between = "\n" if joins else "\n\n"
    return f"{told}{between}{trailers}\n"


def _one_line(value: Any, longest: int) -> str:
    """A value as one line in which every character shows, cut with an ellipsis."""
    from ..output.console import replace_unsafe

    text = value if isinstance(value, str) else ""
    words = " ".join(replace_unsafe(" ".join(text.split()), lambda _code: " ").split())
    return words if len(words) <= longest else words[: longest - 1].rstrip() + "…"


def commit_tree(
    root: Path,
    tree: str,
    parents: Sequence[str],
    text: str,
    variables: Mapping[str, str] | None = None,
) -> str:
    """Make a commit that no reference names yet, and return its id.

    `variables` may set dates. Raises GitFailed, for example if git does not know the user's name.
    """
    words = ["-c", "i18n.commitEncoding=UTF-8", "commit-tree", tree, "-F", "-"]
    words += [word for parent in parents for word in ("-p", parent)]
    setting = ["config", "--type=bool", "--get", "commit.gpgSign"]
    words += ["-S"] if git.line_if_any(setting, root, own_repository()) == "true" else []
    known, given = safe_repository(root) | dict(variables or {}), text.encode("utf-8", "replace")
    return git.run(words, root, known, given=given).decode().strip()


# Branches


def check_branch(root: Path, name: str, *, force: bool) -> str:
    """The commit that a branch is at, empty if there is none, or BadUsage if it may not be set.

    One that is checked out anywhere, or stands for another one, may not: the files there would be
    those of another commit.
    """
    known = own_repository()
    # `@{-1}` stands for another one.
    if git.line_if_any(["check-ref-format", "--branch", name], root, known) != name:
        raise BadUsage(f"{name!r} is not a valid name for a branch")
    ref = f"refs/heads/{name}"
    if other := git.line_if_any(["symbolic-ref", "--quiet", ref], root, known):
        raise BadUsage(
            f"the branch {name} stands for {other}, which git would move",
            hint=f"Name another branch, or remove it: git symbolic-ref --delete {shlex.quote(ref)}",
        )
    trees = git.run(["worktree", "list", "--porcelain"], root, known)
    if os.fsencode(f"branch {ref}") in trees.split(b"\n"):
        raise BadUsage(
            f"the branch {name} is checked out",
            hint="Name another branch; `apply --commit` commits on the current one",
        )
    old = git.commit_of(root, ref, known)
    if old and not force:
        raise BadUsage(f"the branch {name} exists", hint="Use --force to replace it")
    return old


def set_branch(root: Path, name: str, commit: str, old: str, why: str) -> None:
    """Let a branch name a commit if it is still at `old`, as `check_branch` returned it."""
    ref = f"refs/heads/{name}"
    words = ["update-ref", "--no-deref", "--create-reflog", "-m", why, ref, commit]
    git.run([*words, old or _no_commit(commit)], root, own_repository(), to_end=True)


def advance_head(root: Path, commit: str, old: str, why: str) -> None:
    """Move the current branch, or a detached HEAD, from `old` to a commit; nothing else."""
    words = ["update-ref", "-m", why, "HEAD", commit, old or _no_commit(commit)]
    git.run(words, root, own_repository(), to_end=True)


def _no_commit(like: str) -> str:
    return "0" * len(like)


def revision(root: Path, name: str) -> str:
    """The commit that a revision of the user's names. Raises NotFound; GitFailed for two."""
    git.check_name(root, name, own_repository())
    found = "" if name.startswith("-") else git.commit_of(root, name, own_repository())
    if not found:
        raise NotFound(f"the repository here has no commit {name!r}")
    return found


def check_nothing_under_way(root: Path) -> None:
    """Raise BadUsage in the middle of a merge or the like, which the next commit would end."""
    for name, what in _UNDER_WAY.items():
        if git.commit_of(root, name, own_repository()):
            raise BadUsage(f"{what} is under way here", hint="End or abort it first")
