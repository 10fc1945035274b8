"""What the repository here has that its remote lacks, and so the clone of a task does too."""

from __future__ import annotations

import contextlib
import os
import shlex
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import BadUsage, Term
from ..system import git

LARGEST_PATCH = 30 << 20  # bytes; a client of the API stops there (seen in a client)
MOST_COPIED = 10 * LARGEST_PATCH  # bytes of new files; what is binary becomes smaller in a patch
PATCH_NAME = "changes.patch"
BRANCH = Term("-b", "`branch`")
SHOWN_FILES = 3
# Added to the prompt. The service puts a short id before the ending of an uploaded file's name
# (vendor docs), so the prompt stays the same when the command is repeated.
APPLY = (
    "\n\nBefore you begin, apply the uncommitted changes of my working tree to the repository."
    " They are in the newest file that matches /code/changes*.patch:"
    " `git apply --3way FILE`. Leave the patch file itself out of commits."
)


class Checkout(NamedTuple):
    """The state of a working tree: what its branch follows, and how many files differ."""

    upstream: str | None
    uncommitted: int


class UncommittedChanges(NamedTuple):
    """A patch of all uncommitted changes: its size in bytes and the files in it."""

    size: int
    files: list[str]
    new: list[str]


def top_level(folder: str) -> str:
    """The root of the working tree that `folder` is in. BadUsage for one that is elsewhere."""
    try:
        return git.top_level(folder)
    except git.GitFailed as error:
        raise BadUsage(error.message, hint=error.hint) from None


def look(folder: str) -> Checkout:
    """Read the state of the working tree that `folder` is in. BadUsage outside a repository."""
    words = ["status", "--porcelain=v2", "--branch", "-z", "--ignore-submodules=dirty"]
    output = git.run(words, folder, git.filters_off(folder)).decode("utf-8", "replace")
    upstream = None
    uncommitted = skip = 0
    for entry in output.split("\0"):
        if skip:
            skip = 0  # the old name of a renamed file
        elif entry.startswith("# branch.upstream "):
            upstream = entry.removeprefix("# branch.upstream ")
        elif entry and not entry.startswith("#"):
            uncommitted += 1
            skip = entry.startswith("2 ")
    return Checkout(upstream, uncommitted)


def check(
    folder: str, remote: str, branch: str, *, is_named: bool, with_changes: bool
) -> Iterator[str]:
    """Compare the working tree with what `remote` has, as of the last fetch.

    Yields a line for each thing that a task on `branch` will not see, with what to do. With
    `is_named` the branch was named by the user, who may know more than this clone. Raises BadUsage
    for a branch that the remote cannot have.
    """
    state = look(folder)
    if not is_named:
        yield from _check_branch(folder, remote, branch, state.upstream)
    if state.uncommitted and not with_changes:
        yield f"{_staying(state)}: commit and push, or add --with-changes"
    elif state.uncommitted:
        yield from _repositories_inside(folder)


def left_out(folder: str, *, with_changes: bool) -> Iterator[str]:
    """As `check`, for a clone of this very folder, which has all commits."""
    state = look(folder)
    if state.uncommitted and not with_changes:
        yield f"{_staying(state)}: commit, or add --with-changes"
    elif state.uncommitted:
        yield from _repositories_inside(folder)
    yield from git.left_out(folder)


def _repositories_inside(folder: str) -> Iterator[str]:
    """A line that names the other repositories among the new files: no patch has them."""
    found: list[str] = []
    with contextlib.suppress(git.GitFailed):  # there are more new files than can be listed
        found += (name for name in git.new_files(top_level(folder), {}) if name.endswith("/"))
    if found:
        yield f"Repositories inside this one stay here: {_named(found)}"


def check_local_branch(folder: str, branch: str) -> None:
    """Raise BadUsage unless a clone of this very folder can check out `branch`, or a tag."""
    if any(git.has(folder, f"refs/{kind}/{branch}") for kind in ("heads", "tags")):
        return
    is_known = git.has(folder, f"refs/remotes/origin/{branch}")
    names = shlex.join([branch, f"origin/{branch}"])
    raise BadUsage(
        f"the repository {folder} has no branch or tag {branch!r}",
        hint=f"It is on origin: `git branch {names}` makes it here"
        if is_known
        else "`git branch --list` shows what there is",
    )


def _staying(state: Checkout) -> str:
    count = _count(state.uncommitted, "uncommitted change")
    return f"{count} {'stays' if state.uncommitted == 1 else 'stay'} here"


def _check_branch(folder: str, remote: str, branch: str, upstream: str | None) -> Iterator[str]:
    if not git.has(folder, f"refs/remotes/{remote}/{branch}"):
        other = (upstream or "").removeprefix(f"{remote}/")
        instead = (
            ", or use its upstream: " + BRANCH + f" {shlex.quote(other)}"
            if other not in ("", upstream, branch)
            else ""
        )
        raise BadUsage(
            f"the branch {branch} is not on {remote}, so a task cannot check it out",
            hint=f"Push it with `{_push(remote, branch)}`"
            + instead
            + "; "
            + BRANCH
            + " NAME names another",
        )
    words = ["rev-list", "--count", "HEAD", "--not", f"--remotes={remote}"]
    ahead = int(git.run(words, folder).decode().strip() or 0)
    if upstream is None:
        yield f"Branch {branch} has no upstream: set it with `{_push(remote, branch)}`"
    if ahead:
        count = _count(ahead, "commit")
        verb = "is" if ahead == 1 else "are"
        yield f"{count} of {branch} {verb} not on {remote}: push first (`git push`)"


def _push(remote: str, branch: str) -> str:
    return f"git push -u {shlex.join([remote, branch])}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number:,} {what}s"


def write_patch(folder: str, target: Path) -> UncommittedChanges:
    """Write what is uncommitted in the repository at `folder` to `target`, new files included.

    Binary files, modes and links are in it, ignored files and changes of submodules are not. The
    repository stays as it is. Raises BadUsage for a patch that is too large to upload.
    """
    root = top_level(folder)
    with tempfile.TemporaryDirectory(prefix="rebyte-") as scratch:
        index = git.own_index(root, Path(scratch))
        new = git.new_files(root, index)
        _check_size(root, new)
        git.add_all(root, index, new)
        before = git.last_commit(root)
        listed = git.run([*git.DIFF, "--name-status", "-z", before], root, index)
        with open(target, "wb") as file:
            words = [*git.DIFF, "--binary", "--full-index", before]
            git.run(words, root, index, file.fileno())
    size = target.stat().st_size
    if size > LARGEST_PATCH:
        raise _too_large(size)
    words = listed.decode("utf-8", "replace").split("\0")[:-1]
    pairs = list(zip(words[::2], words[1::2], strict=True))
    return UncommittedChanges(
        size, [name for _, name in pairs], [name for mark, name in pairs if mark == "A"]
    )


def _check_size(root: str, names: Iterable[str]) -> None:
    """Refuse new files that cannot fit into a patch, before they are copied into a folder."""
    size = 0
    for name in names:
        with contextlib.suppress(OSError):  # gone meanwhile
            size += os.lstat(os.path.join(root, name)).st_size
    if size > MOST_COPIED:
        raise _too_large(size)


def _too_large(size: int) -> BadUsage:
    return BadUsage(
        f"the uncommitted changes are {size / (1 << 20):.0f} MiB, and {LARGEST_PATCH >> 20}"
        " MiB can be uploaded",
        hint="Commit and push large files, or list them in .gitignore",
    )


def described(changes: UncommittedChanges) -> str:
    """What is sent, for a person: files that git does not know yet are named."""
    if not changes.files:
        return "There are no uncommitted changes to send"
    new = _named(changes.new)
    size = f"{changes.size / 1024:.0f} KiB" if changes.size >= 1024 else f"{changes.size} bytes"
    added = f"; new: {new}" if new else ""
    return f"Sending {_count(len(changes.files), 'changed file')} as {PATCH_NAME} ({size}{added})"


def _named(names: list[str]) -> str:
    """The first of some names, and how many more there are; empty for none."""
    more = len(names) - SHOWN_FILES
    return ", ".join(names[:SHOWN_FILES]) + (f" and {more} more" if more > 0 else "")
