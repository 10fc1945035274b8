"""The changes that a run made, and bringing them into a repository on this machine."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..errors import BadUsage, NotFound, RebyteError, ResourceNotFound

if TYPE_CHECKING:
    from ..api.client import RebyteClient

PATCH_FILE = "changes.patch"
GIT_SECONDS = 120
# Files that tools read or run by themselves, without anyone opening them first.
_RUNS = re.compile(
    r"""(?ix) (^|/) (?:
    \.github/ | \.gitlab-ci\.yml | \.circleci/ | \.husky/ | \.githooks/ | hooks/ | \.vscode/
    | \.idea/ | \.devcontainer/ | \.claude/ | \.codex/ | \.gemini/ | \.opencode/ | \.mcp\.json$
    | \.gitattributes$ | \.gitmodules$ | \.gitconfig$
    | \.envrc$ | \.env$ | \.pre-commit-config\.ya?ml$ | \.npmrc$ | \.yarnrc | \.pypirc$
    | (GNU)?makefile$ | justfile$ | .*\.mk$ | dockerfile | docker-compose | compose\.ya?ml$
    | package\.json$ | pyproject\.toml$ | setup\.(py|cfg)$ | conftest\.py$ | sitecustomize\.py$
    | build\.rs$ | build\.gradle | jenkinsfile$
    | package-lock\.json$ | yarn\.lock$ | pnpm-lock\.yaml$ | .*\.lock$ | go\.sum$
    )"""
)
_COLOURS = {"+": "32", "-": "31", "@": "36"}


class FileChange(NamedTuple):
    """What a patch does to one file; without line counts for a binary one.

    `status` is added, deleted, modified or renamed; `executable` says that it gains the bit.
    """

    path: str
    status: str
    additions: int | None
    deletions: int | None
    executable: bool


class PatchConflict(RebyteError):
    """A patch that did not apply as a whole."""

    code = "conflict"


def fetch(client: RebyteClient, task_id: str, workspace_id: str | None) -> bytes:
    """The patch of the last run in the task's workspace. NotFound when it has none."""
    if workspace_id is None:
        workspace_id = client.get_task(task_id).get("workspaceId")
    if not isinstance(workspace_id, str):
        raise NotFound(
            f"the workspace of task {task_id} is unknown on this machine",
            hint="Tasks created from this machine have one; see `rebyte workspace list`",
        )
    with tempfile.TemporaryDirectory(prefix="rebyte-") as folder:
        target = Path(folder) / PATCH_FILE
        try:
            client.get_artifact(workspace_id, PATCH_FILE, target)
        except ResourceNotFound:
            raise NotFound(
                f"task {task_id} has no {PATCH_FILE}",
                hint="Only runs of real agents create one, when they end",
            ) from None
        return target.read_bytes()


def coloured(patch: bytes, *, color: bool) -> Iterator[str]:
    """The patch line by line for a terminal."""
    from ..output.console import clean

    for line in patch.decode("utf-8", "replace").split("\n")[:-1]:
        text = clean(line)
        heading = line.startswith(("diff ", "index ", "+++ ", "--- "))
        code = "1" if heading else _COLOURS.get(line[:1])
        yield f"\x1b[{code}m{text}\x1b[m\n" if color and code else f"{text}\n"


def changes(patch: bytes, root: Path) -> list[FileChange]:
    """What the patch does, file by file, as git reads it. RebyteError when it is no patch."""
    if not patch.strip():
        return []
    # In a folder below the root, git would leave out every file that is not in that folder.
    counts = _git(["apply", "--numstat", "-z"], patch, folder=root).decode("utf-8", "replace")
    summary = _git(["apply", "--summary"], patch, folder=root)
    added, deleted, renamed, executable = _summary(summary.decode("utf-8", "replace"))
    result = []
    for entry in filter(None, counts.split("\0")):
        plus, minus, path = entry.split("\t", 2)
        status = "added" if path in added else "deleted" if path in deleted else "modified"
        result.append(
            FileChange(
                path,
                "renamed" if path in renamed else status,
                None if plus == "-" else int(plus),
                None if minus == "-" else int(minus),
                path in executable,
            )
        )
    return result


def risks(found: Iterable[FileChange]) -> list[str]:
    """The paths that tools run or read by themselves, and those that become executable."""
    return [
        f"{change.path} (executable)" if change.executable else change.path
        for change in found
        if change.executable or _RUNS.search(change.path)
    ]


def top_level() -> Path:
    """The root of the repository here. Raises BadUsage outside of one."""
    try:
        return Path(_git(["rev-parse", "--show-toplevel"], b"").decode().removesuffix("\n"))
    except RebyteError as error:
        outside = re.search("(?:not|run in) (a git repository|a work tree)", error.message)
        if not outside:
            raise
        raise BadUsage(
            f"not inside {outside[1]}", hint="Run this command inside the repository to change"
        ) from None


def uncommitted(root: Path) -> list[str]:
    """Tracked files with changes that are not committed."""
    output = _git(["status", "--porcelain", "-z", "--untracked-files=no"], b"", folder=root)
    return [entry[3:] for entry in output.decode("utf-8", "replace").split("\0") if len(entry) > 3]


def apply(patch: bytes, root: Path) -> None:
    """Apply the patch to the work tree and the index, with a merge where the files moved on.

    Raises PatchConflict with the names of files that are left with conflict markers, or with git's
    reason when nothing was applied at all.
    """
    words = ["apply", "--3way", "--whitespace=nowarn"]
    undo = "" if uncommitted(root) else "; `git reset --hard` undoes everything"
    try:
        _git(words, patch, folder=root)
        return
    except RebyteError as error:
        conflicts = _unmerged(root)
        if conflicts:
            many = "file has" if len(conflicts) == 1 else "files have"
            raise PatchConflict(
                f"{len(conflicts)} {many} conflicts: {', '.join(conflicts)}",
                hint=f"Edit them, then `git add` them{undo}",
            ) from None
        reason = error.message
    # With --force, files that have uncommitted changes are patched without the index. Otherwise
    # only the reason is wanted: a failed merge often gives none.
    is_dirty = "does not match index" in reason
    words = ["apply", "--whitespace=nowarn"] if is_dirty else ["apply", "--check"]
    try:
        _git(words, patch, folder=root)
    except RebyteError as error:
        reason = error.message
    else:
        if is_dirty:
            return
    raise PatchConflict(f"the patch does not apply: {reason}")


def _unmerged(root: Path) -> list[str]:
    output = _git(["diff", "--name-only", "--diff-filter=U", "-z"], b"", folder=root)
    return list(filter(None, output.decode("utf-8", "replace").split("\0")))


def _summary(text: str) -> tuple[set[str], set[str], set[str], set[str]]:
    """Paths that are added, deleted, renamed, made executable, out of `git apply --summary`."""
    added, deleted, renamed, executable = set[str](), set[str](), set[str](), set[str]()
    moved = ""
    # git prints names as they are, line breaks included.
    for entry in re.split(r"\n(?= (?:create|delete|rename|copy|rewrite|mode change) )", text):
        line = entry.removesuffix("\n")
        if found := re.fullmatch(r" (create|delete) mode (\d+) (.*)", line, re.DOTALL):
            (added if found[1] == "create" else deleted).add(found[3])
            if found[1] == "create" and found[2] == "100755":
                executable.add(found[3])
        elif found := re.fullmatch(r" mode change \d+ => (\d+)(?: (.*))?", line, re.DOTALL):
            if found[1] == "100755":
                executable.add(found[2] or moved)
        elif found := re.fullmatch(r" (?:rename|copy) (.*) \(\d+%\)", line, re.DOTALL):
            moved = _renamed_to(found[1])
            renamed.add(moved)
    return added, deleted, renamed, executable


def _renamed_to(text: str) -> str:
    """The new name in `a/{b => c}/d` or `old => new`."""
    if found := re.fullmatch(r"(.*)\{(.*) => (.*)\}(.*)", text, re.DOTALL):
        return re.sub("/+", "/", f"{found[1]}{found[3]}{found[4]}")
    return text.partition(" => ")[2]


def _git(words: list[str], stdin: bytes, *, folder: Path | None = None) -> bytes:
    """The output of git. RebyteError with its last `error:` or `fatal:` line."""
    import os

    try:
        done = subprocess.run(
            ["git", *words],
            input=stdin,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C"},
            capture_output=True,
            check=False,
            timeout=GIT_SECONDS,
        )
    except FileNotFoundError:
        raise RebyteError("git is not installed") from None
    except subprocess.TimeoutExpired:
        raise RebyteError(f"git {words[0]} did not finish within {GIT_SECONDS} s") from None
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        told = [line for line in lines if line.startswith(("error: ", "fatal: "))] or lines
        reason = told[-1] if told else f"git {words[0]} ended with status {done.returncode}"
        raise RebyteError(reason.removeprefix("error: ").removeprefix("fatal: "))
    return done.stdout
