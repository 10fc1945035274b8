"""Commits of what tasks changed, made without a working tree: no checkout, no hook.

Author and committer, and whether and with which key a commit is signed, are as for `git commit` in
the repository, whose own configuration has a say; the programs are the user's or git's own.
"""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..errors import BadUsage, NotFound
from ..system import git
from .patch import (
    FileChange,
    own_repository,
    risks,
    safe_repository,
    shown,
)
from .patched_tree import DIFFERENCE, NO_FILE, difference

LONGEST_SUBJECT = 72
MOST_NAMES, MOST_BYTES = 100_000, 1 << 24  # of paths for one git, each of which reads the index
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


def risks_between(
    root: Path,
    before: str,
    after: str,
    encodings: Mapping[str, str] = MappingProxyType({}),
) -> list[str]:
    """As `patch.risks`, for what differs between two commits or trees. `before` may be empty.

    With `encodings` besides those that `encoded` finds. Raises GitFailed.
    """
    changes = []
    for each in difference(root, before or git.empty_tree(root, own_repository()), after):
        is_gone, is_new = each.mode == NO_FILE, each.old_mode == NO_FILE
        status = "deleted" if is_gone else "added" if is_new else "modified"
        mode = each.old_mode if is_gone else each.mode
        changes.append(FileChange(shown(each.path), status, None, None, False, None, mode))
    return risks(changes, {**encodings, **encoded(root, before, after)})


def encoded_here(root: Path, names: Iterable[bytes]) -> dict[str, str]:
    """As `encoded`, of files with these names, by the attributes that are in the work tree now.

    git obeys those, too, where a commit that it checks out has none.
    """
    paths = [os.fsdecode(name) for name in names if len(name) <= git.LONGEST_PATH]
    return _encodings(root, sorted(paths), None)


def _encodings(root: Path, paths: Sequence[str], tree: str | None) -> dict[str, str]:
    """Those of the files that are not UTF-8 by the attributes in a tree, or in the work tree."""
    result = {}
    with tempfile.TemporaryDirectory(prefix="rebyte-") as folder:
        variables = own_repository()
        if paths and tree is not None:
            variables["GIT_INDEX_FILE"] = str(Path(folder) / "index")
            git.run(["read-tree", tree], root, variables)
        names = Path(folder) / "names"
        words = ["check-attr", "-z", "--stdin"] + ["--cached"] * (tree is not None)
        words.append("working-tree-encoding")
        for some in git.portions(paths, MOST_NAMES, MOST_BYTES):
            names.write_bytes(b"".join(os.fsencode(path) + b"\0" for path in some))
            listed = git.run(words, root, variables, given=names)
            parts = os.fsdecode(listed).split("\0")[:-1]
            for path, _, encoding in zip(parts[::3], parts[1::3], parts[2::3], strict=False):
                if encoding.casefold() not in ("unspecified", "unset", "set", "utf-8", "utf8"):
                    result[shown(os.fsencode(path))] = encoding
    return result


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
    with tempfile.TemporaryDirectory(prefix="rebyte-") as folder:
        file = Path(folder) / "message"
        file.write_bytes(text.encode("utf-8", "replace"))
        words = ["-c", "i18n.commitEncoding=UTF-8", "commit-tree", tree, "-F", str(file)]
        words += [word for parent in parents for word in ("-p", parent)]
        words += ["-S"] if _signs(root) else []
        made = git.run(words, root, safe_repository(root) | dict(variables or {}))
    return made.decode().strip()


def _signs(root: Path) -> bool:
    words = ["config", "--type=bool", "--get", "commit.gpgSign"]
    try:
        return git.run(words, root, own_repository()).strip() == b"true"
    except git.GitFailed:
        return False


# Branches


def check_branch(root: Path, name: str, *, force: bool) -> str:
    """The commit that a branch is at, empty if there is none, or BadUsage if it may not be set.

    One that is checked out anywhere, or stands for another one, may not: the files there would be
    those of another commit.
    """
    try:
        full = git.run(["check-ref-format", "--branch", name], root, own_repository())
    except git.GitFailed:
        full = b""
    if full.rstrip(b"\n") != os.fsencode(name):  # `@{-1}` stands for another one
        raise BadUsage(f"{name!r} is not a valid name for a branch")
    ref = f"refs/heads/{name}"
    with suppress(git.GitFailed):
        other = git.line(["symbolic-ref", "--quiet", ref], root, own_repository())
        raise BadUsage(
            f"the branch {name} stands for {other}, which git would move",
            hint=f"Name another branch, or remove it: git symbolic-ref --delete {shlex.quote(ref)}",
        )
    trees = git.run(["worktree", "list", "--porcelain"], root, own_repository())
    if os.fsencode(f"branch {ref}") in trees.split(b"\n"):
        raise BadUsage(
            f"the branch {name} is checked out",
            hint="Name another branch; `apply --commit` commits on the current one",
        )
    old = git.commit_of(root, ref, own_repository())
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
