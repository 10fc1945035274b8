"""The changes that a run made, and bringing them into a repository on this machine."""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import BadUsage, Next, NotFound, RebyteError, ResourceNotFound
from ..system import git
from .patch_headers import HUNK, check_form, counts, names_in, parts

if TYPE_CHECKING:
    from ..api.client import RebyteClient

PATCH_FILE = "changes.patch"
LARGEST = 256 << 20  # bytes; the service on this machine makes none of more than 64 MiB
LINK, SUBMODULE, EXECUTABLE = "120000", "160000", "100755"  # modes of git
# What git takes from the folder it is started in. The other locations it takes from the top of the
# work tree, where it is started here.
_FROM_HERE = ("GIT_COMMON_DIR", "GIT_DIR", "GIT_WORK_TREE")
_COLOURS = {"+": "32", "-": "31"}


class PatchConflict(RebyteError):
    """A patch that did not apply as a whole."""

    code = "conflict"


class PatchUnusable(PatchConflict):
    """A patch of which nothing can be made, wherever it is to apply and whatever was there."""


def conflict(files: Sequence[str], reason: str) -> PatchConflict:
    """The error for a patch that left conflicts in these files, or did not apply at all."""
    if not files:
        return PatchConflict(f"the patch does not apply: {reason}")
    many = "file has" if len(files) == 1 else "files have"
    return PatchConflict(f"{len(files)} {many} conflicts: {', '.join(files)}")


def no_folder(name: bytes, inside: bytes) -> PatchConflict:
    """The error for a file that would be in one which is no folder."""
    return conflict([], f"{shown(name)} is no folder, but {shown(inside)} is in it")


class PatchSource(NamedTuple):
    """Where the changes of a task are: in `runs`, oldest first, or all together in `workspace`.

    Where there are no `runs`, the service does not tell them apart. `document` is the task.
    """

    task: str
    workspace: str | None
    runs: list[str]
    document: Mapping[str, Any]


def source(client: RebyteClient, task_id: str, workspace_id: str | None) -> PatchSource:
    """Where the changes of a task are; `workspace_id` is what this machine knows of it."""
    task = client.get_task(task_id)
    prompts = [prompt for prompt in task.get("prompts") or () if isinstance(prompt, dict)]
    runs = [str(prompt["id"]) for prompt in prompts if prompt.get("hasChanges") is True]
    workspace_id = workspace_id or task.get("workspaceId")
    return PatchSource(task_id, workspace_id, runs, task)


def fetch(client: RebyteClient, found: PatchSource, runs: Sequence[str] = ()) -> bytes:
    """What these `runs` changed, or else all of the task's; NotFound if there is no such patch.

    Where runs are not told apart, it is what changed in the workspace since its creation. Raises
    RebyteError as `downloaded` does.
    """
    if found.runs:
        try:
            return downloaded(client.get_changes, found.task, runs or found.runs)
        except ResourceNotFound as error:
            if error.code == "no_patch":
                raise _none(found, error) from None
    if runs and list(runs) != found.runs:
        raise NotFound(f"the changes of single runs of task {found.task} were not kept")
    if not isinstance(found.workspace, str):
        raise NotFound(
            f"the workspace of task {found.task} is unknown on this machine",
            hint="Tasks created from this machine have one; see " + Next("workspace", "list"),
        )
    try:
        return downloaded(client.get_artifact, found.workspace, PATCH_FILE)
    except ResourceNotFound as error:
        raise _none(found, error) from None


def _none(found: PatchSource, error: ResourceNotFound) -> NotFound:
    told = error.hint if error.code == "no_patch" else None
    why = _why_there_is_none(found, told)
    return NotFound(f"task {found.task} has no {PATCH_FILE}", hint=why)


def downloaded(get: Callable[..., None], *what: object) -> bytes:
    """The patch that a method of the client saves, which takes `what` it is of.

    Raises PatchUnusable as soon as it is larger than `LARGEST` bytes, since an agent can have made
    it of any size, and RebyteError if this machine cannot save it.
    """
    size = 0

    def count(more: int) -> None:
        nonlocal size
        size += more
        if size > LARGEST:
            most = f"{LARGEST >> 20} MiB"
            raise PatchUnusable(f"the patch is larger than {most}", code="too_large")

    with tempfile.TemporaryDirectory(prefix="rebyte-") as folder:
        target = Path(folder) / PATCH_FILE
        try:
            get(*what, target, progress=count)
        except BadUsage as error:  # a path of ours cannot be the user's mistake
            raise RebyteError(error.message) from None
        return target.read_bytes()


def _why_there_is_none(found: PatchSource, told: str | None) -> str:
    """Why a task has no patch; `told` is what the service on this machine says."""
    from ..api.status import is_terminal

    if found.runs:
        return told or "See why with " + Next("logs", found.task)
    if not is_terminal(str(found.document.get("status"))):
        return "It has not ended: " + Next("wait", found.task)
    return told or "Ask the agent to save its changes as an artifact of that name"


def only(patch: bytes, paths: Iterable[str], root: Path) -> bytes:
    """The parts of a patch about files at these paths or below them, seen from the folder here.

    Raises BadUsage for a path without changes, and for a file that is moved there or from there.
    """
    wanted: dict[str, bytes] = {}
    for path in paths:
        # A link at the end of a path is meant itself, as git understands it.
        folder, name = os.path.split(os.path.abspath(path))
        there = os.path.relpath(os.path.join(os.path.realpath(folder), name), root)
        wanted[path] = os.fsencode(there)
    kept, seen = [], set[str]()
    for part, section in parts(patch):
        at = [{g for g, path in wanted.items() if _is_at(path, name)} for name in section.names]
        if any(at) and not all(at):
            moved = " becomes ".join(listed(shown(name)) for name in (section.old, section.new))
            which = f"{moved}, and only one of them is at these paths"
            raise BadUsage(which, hint="Name both, or neither")
        kept += [part] if any(at) else []
        seen.update(*at)
    missing = [path for path in wanted if path not in seen]
    if missing:
        raise BadUsage(f"the changes have nothing at {', '.join(missing)}")
    return b"".join(kept)


def _is_at(path: bytes, name: bytes) -> bool:
    return path in (b".", name) or name.startswith(path + b"/")


def coloured(patch: bytes, *, color: bool) -> Iterator[str]:
    """The patch line by line for a terminal; what git would pass over has no colours."""
    from ..output.console import clean

    old = new = 0
    for row in io.BytesIO(patch):  # which may be millions
        if not row.endswith(b"\n"):
            return
        line = row[:-1].decode("utf-8", "replace")
        text = clean(line)
        if old > 0 or new > 0:
            code = _COLOURS.get(line[:1])
            old, new = old - (line[:1] in " -"), new - (line[:1] in " +")
        elif hunk := HUNK.match(row):
            code, (old, new) = "36", counts(hunk)
        else:  # the text around a patch can be anything
            code = "1" if row.startswith((b"diff --git ", b"index ", b"+++ ", b"--- ")) else None
        yield f"\x1b[{code}m{text}\x1b[m\n" if color and code else f"{text}\n"


def above(
    root: Path, name: bytes, known: dict[bytes, int] | None = None
) -> Iterator[tuple[bytes, int]]:
    """The folders above a file that are there, from the top, with their modes.

    Only the last one can be something else, as a link. Those that are `known` are added to that: a
    path may have hundreds of parts.
    """
    top, end, known = os.fsencode(root), name.find(b"/"), {} if known is None else known
    while end >= 0:
        folder = name[:end]
        if folder not in known:
            try:
                known[folder] = os.lstat(os.path.join(top, folder)).st_mode
            except OSError:
                return
        yield folder, known[folder]
        if not stat.S_ISDIR(known[folder]):
            return
        end = name.find(b"/", end + 1)


def place(root: Path, name: bytes, known: dict[bytes, int] | None = None) -> str | None:
    """The path of a file that a patch names; None beyond a link, where git changes nothing.

    `known`: see `above`.
    """
    is_beyond = any(stat.S_ISLNK(mode) for _, mode in above(root, name, known))
    return None if is_beyond else os.path.join(root, os.fsdecode(name))


def shown(path: bytes) -> str:
    """A path as text; a byte that is no UTF-8 as `\\xff`."""
    return path.decode("utf-8", "backslashreplace")


def listed(path: str) -> str:
    """A path for a list that people read: in quotes if it could look like more than one entry."""
    if not re.search(r'[\t\n"]|  |, ', path):
        return path
    quoted = path.replace('"', '\\"').replace("\t", "\\t").replace("\n", "\\n")
    return f'"{quoted}"'


def top_level() -> Path:
    """The root of the repository here. Raises BadUsage outside of one."""
    try:
        root = git.line(["rev-parse", "--show-toplevel"], extra=own_repository())
    except git.GitFailed as error:
        outside = re.search("(?:not|run in) (a git repository|a work tree)", error.said)
        if not outside:
            raise
        raise BadUsage(
            f"not inside {outside[1]}", hint="Run this command inside the repository to change"
        ) from None
    if any(name in os.environ for name in git.LOCATIONS):
        git.check_parts(Path(git.common_folder(root, own_repository())).resolve())
    else:
        git.check_nearest(os.curdir, root)
        git.check_place(root)
    return Path(root)


def head(root: Path) -> str:
    """The commit that is checked out, or an empty text before the first one."""
    return git.commit_of(root, "HEAD", own_repository())


def can_be_here(applied_to: str, root: Path, applied: Callable[[], bytes]) -> bool:
    """Whether what was applied when `applied_to` was checked out may still be in the tree.

    It is not if that commit is still checked out without changes to the files of the patch that
    `applied` gets, or is no part of the history: what was applied was thrown away, or this is
    another branch or clone. If that patch cannot be had, a change to any file counts.
    """
    now = head(root)
    if now == applied_to:
        try:
            return _is_changed(root, applied())
        except RebyteError:
            return bool(uncommitted(root))
    if not re.fullmatch("[0-9a-f]*", applied_to):
        return False
    return git.is_ancestor(root, applied_to or now, now, own_repository())


def _is_changed(root: Path, patch: bytes) -> bool:
    """Whether there are uncommitted changes to files of a patch. Raises RebyteError as `changes`.

    Those that it adds may be staged or not, and ignored.
    """
    check_form(patch)
    words = ["--literal-pathspecs", "status", "--porcelain", "-z", "--untracked-files=all"]
    words += ["--ignored", "--no-renames", "--ignore-submodules=dirty", "--"]
    portions = git.portions(sorted(map(os.fsdecode, names_in(patch))))
    return any(git.run([*words, *some], root, own_repository()) for some in portions)


def uncommitted(root: Path) -> list[str]:
    """Tracked files with changes that are not committed, for a list."""
    words = ["status", "--porcelain", "-z", "--untracked-files=no", "--no-renames"]
    output = git.run([*words, "--ignore-submodules=dirty"], root, own_repository())
    return [listed(shown(entry[3:])) for entry in output.split(b"\0") if len(entry) > 3]


def beyond_cone(root: Path, names: Iterable[bytes]) -> set[bytes]:
    """Those files that a sparse checkout has in its index, and not on disk."""
    gone = [os.fsdecode(name) for name in names if name and not is_there(root, name)]
    found = set()
    for some in git.portions(gone):
        words = ["--literal-pathspecs", "ls-files", "-z", "-v", "--", *some]
        entries = git.run(words, root, own_repository()).split(b"\0")
        found |= {entry[2:] for entry in entries if entry[:2] in (b"S ", b"s ")}
    return found


def is_there(root: Path, name: bytes) -> bool:
    """Whether anything is at the path of a file that a patch names."""
    return os.path.lexists(path_of(root, name))


def path_of(root: Path, name: bytes) -> bytes:
    """The path of a file that a patch names, wherever that leads."""
    return os.path.join(os.fsencode(root), name)


def blobs(root: Path, names: Iterable[bytes], like: Iterable[str]) -> dict[bytes, str]:
    """The ids of the files as they are now, as git would store them; without those that are not.

    They have the form of the ids `like` which a patch has.
    """
    hashes = "sha256" if any(len(each) > 40 for each in like) else "sha1"
    result, files, known = {}, [], dict[bytes, int]()
    for name in names:
        path = place(root, name, known) or ""
        if os.path.islink(path):
            target = os.fsencode(os.readlink(path))
            content = b"blob %d\0%s" % (len(target), target)
            result[name] = hashlib.new(hashes, content, usedforsecurity=False).hexdigest()
        elif os.path.isfile(path):
            files.append(name)
    for some in git.portions(files):
        output = git.run(["hash-object", "--", *map(os.fsdecode, some)], root, own_repository())
        result |= dict(zip(some, output.decode().split(), strict=True))
    return result


def own_repository() -> dict[str, str]:
    """Variables for git in the user's own repository, the one that they name if they name one.

    Filters such as git-lfs do their work.
    """
    named = {name: os.environ[name] for name in git.LOCATIONS if name in os.environ}
    for name in _FROM_HERE:
        if (path := named.get(name)) and not os.path.isabs(path):
            # Without `abspath`, which takes `link/..` for the folder here.
            named[name] = os.path.join(os.getcwd(), path)
    return {**named, **git.IN_PYTHON, "GIT_LFS_SKIP_SMUDGE": "0"}


def safe_repository(root: Path, *, filters: bool = True) -> dict[str, str]:
    """Variables for git that merges or signs in the user's own repository.

    See `git.programs_off` for the programs that run. Raises GitFailed.
    """
    known = own_repository()
    return known | git.programs_off(root, known, filters=filters)


def unmerged(root: Path, variables: Mapping[str, str]) -> dict[bytes, list[bytes]]:
    """The files with conflicts in an index, each with its lines there."""
    found: dict[bytes, list[bytes]] = {}
    lines = git.run(["ls-files", "--unmerged", "-z"], root, variables)
    for line in lines.split(b"\0")[:-1]:
        found.setdefault(line.partition(b"\t")[2], []).append(line)
    return found
