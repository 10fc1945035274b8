"""What the repository here has that its remote lacks: it is not in the clone that a task works on.

Nothing that the repository names is run: no hooks, no file system monitor, no filters from its
configuration, no programs for diffs.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import BadUsage, RebyteError

# Commands that the repository's own configuration can name.
SAFE = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")
SECONDS = 120.0
LARGEST_PATCH = 30 << 20  # bytes; a client of the API stops there (seen in a client)
MOST_COPIED = 10 * LARGEST_PATCH  # bytes of new files; what is binary becomes smaller in a patch
PATCH_NAME = "changes.patch"
SHOWN_FILES = 3
# Added to the prompt. The service puts a short id before the ending of an uploaded file's name
# (vendor docs), so the prompt stays the same when the command is repeated.
APPLY = (
    "\n\nBefore you begin, apply the uncommitted changes of my working tree to the repository."
    " They are in the newest file that matches /code/changes*.patch:"
    " `git apply --3way FILE`. Leave the patch file itself out of commits."
)


class Checkout(NamedTuple):
    """The state of a working tree: its branch (None if HEAD is detached) and what differs."""

    branch: str | None
    upstream: str | None
    uncommitted: int


class UncommittedChanges(NamedTuple):
    """A patch of all uncommitted changes: its size in bytes and the files in it."""

    size: int
    files: list[str]
    new: list[str]


def look(folder: str) -> Checkout:
    """Read the state of the working tree that `folder` is in. BadUsage outside a repository."""
    words = ["status", "--porcelain=v2", "--branch", "-z", "--ignore-submodules=dirty"]
    output = run(words, folder, _filters_off(folder)).decode("utf-8", "replace")
    head = upstream = None
    uncommitted = skip = 0
    for entry in output.split("\0"):
        if skip:
            skip = 0  # the old name of a renamed file
        elif entry.startswith("# branch.head "):
            head = entry.removeprefix("# branch.head ")
        elif entry.startswith("# branch.upstream "):
            upstream = entry.removeprefix("# branch.upstream ")
        elif entry and not entry.startswith("#"):
            uncommitted += 1
            skip = entry.startswith("2 ")
    return Checkout(None if head == "(detached)" else head, upstream, uncommitted)


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


def left_out(folder: str, *, with_changes: bool) -> Iterator[str]:
    """As `check`, for a clone of this very folder, which has all commits."""
    state = look(folder)
    if state.uncommitted and not with_changes:
        yield f"{_staying(state)}: commit, or add --with-changes"


def check_local_branch(folder: str, branch: str) -> None:
    """Raise BadUsage unless a clone of this very folder can check out `branch`, or a tag."""
    if any(_has_ref(folder, f"refs/{kind}/{branch}") for kind in ("heads", "tags")):
        return
    is_known = _has_ref(folder, f"refs/remotes/origin/{branch}")
    raise BadUsage(
        f"the repository {folder} has no branch or tag {branch!r}",
        hint=f"It is on origin: `git branch {branch} origin/{branch}` makes it here"
        if is_known
        else "`git branch --list` shows what there is",
    )


def _has_ref(folder: str, name: str) -> bool:
    try:
        run(["rev-parse", "--quiet", "--verify", name], folder)
    except GitFailed:
        return False
    return True


def _staying(state: Checkout) -> str:
    count = _count(state.uncommitted, "uncommitted change")
    return f"{count} {'stays' if state.uncommitted == 1 else 'stay'} here"


def _check_branch(folder: str, remote: str, branch: str, upstream: str | None) -> Iterator[str]:
    if not _has_ref(folder, f"refs/remotes/{remote}/{branch}"):
        other = (upstream or "").removeprefix(f"{remote}/")
        instead = (
            f", or use its upstream: -b {other}" if other not in ("", upstream, branch) else ""
        )
        raise BadUsage(
            f"the branch {branch} is not on {remote}, so a task cannot check it out",
            hint=f"Push it with `git push -u {remote} {branch}`{instead}; -b NAME names another",
        )
    words = ["rev-list", "--count", "HEAD", "--not", f"--remotes={remote}"]
    ahead = int(run(words, folder).decode().strip() or 0)
    if upstream is None:
        yield f"Branch {branch} has no upstream: set it with `git push -u {remote} {branch}`"
    if ahead:
        count = _count(ahead, "commit")
        verb = "is" if ahead == 1 else "are"
        yield f"{count} of {branch} {verb} not on {remote}: push first (`git push`)"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number:,} {what}s"


def write_patch(folder: str, target: Path) -> UncommittedChanges:
    """Write what is uncommitted in the repository at `folder` to `target`, new files included.

    Binary files, modes and links are in it, ignored files and changes of submodules are not. The
    repository stays as it is. Raises BadUsage for a patch that is too large to upload.
    """
    root = run(["rev-parse", "--show-toplevel"], folder).decode("utf-8", "surrogateescape")
    root = root.removesuffix("\n")
    check_place(folder, root)
    with tempfile.TemporaryDirectory(prefix="rebyte-") as scratch:
        environment = _filters_off(root) | _own_index(root, Path(scratch))
        new = _new_files(root, environment)
        staged = [".", *_without_repositories(root, environment, new)]
        run(["-c", "advice.addEmbeddedRepo=false", "add", "--all", *staged], root, environment)
        compared = ["diff", "--cached", "--no-ext-diff", "--no-textconv", "--no-color"]
        compared += ["--ignore-submodules=all", "--no-renames"]
        listed = run([*compared, "--name-status", "-z", "HEAD"], root, environment)
        patch = ["--binary", "--full-index", "--src-prefix=a/", "--dst-prefix=b/", "HEAD"]
        with open(target, "wb") as file:
            run([*compared, *patch], root, environment, file.fileno())
    size = target.stat().st_size
    if size > LARGEST_PATCH:
        raise _too_large(size)
    words = listed.decode("utf-8", "replace").split("\0")[:-1]
    pairs = list(zip(words[::2], words[1::2], strict=True))
    return UncommittedChanges(
        size, [name for _, name in pairs], [name for mark, name in pairs if mark == "A"]
    )


def _new_files(root: str, environment: Mapping[str, str]) -> list[str]:
    """The files that git does not know, and the folders of other repositories, which end in `/`.

    Refuses more than can fit into a patch before it is all copied into a scratch folder.
    """
    listed = run(["ls-files", "--others", "--exclude-standard", "-z"], root, environment)
    names = listed.decode("utf-8", "surrogateescape").split("\0")[:-1]
    size = 0
    for name in names:
        with contextlib.suppress(OSError):  # gone meanwhile
            size += os.lstat(os.path.join(root, name)).st_size
    if size > MOST_COPIED:
        raise _too_large(size)
    return names


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
    new = ", ".join(changes.new[:SHOWN_FILES])
    if len(changes.new) > SHOWN_FILES:
        new += f" and {len(changes.new) - SHOWN_FILES} more"
    size = f"{changes.size / 1024:.0f} KiB" if changes.size >= 1024 else f"{changes.size} bytes"
    added = f"; new: {new}" if new else ""
    return f"Sending {_count(len(changes.files), 'changed file')} as {PATCH_NAME} ({size}{added})"


def _without_repositories(
    root: str, environment: Mapping[str, str], new: Iterable[str]
) -> Iterator[str]:
    """Pathspecs that leave out the submodules, and the other repositories among the `new` files.

    `git add` would run `git status` inside each submodule, with the filters of its configuration,
    and fails for a repository without a commit.
    """
    yield from (f":(exclude,literal){name}" for name in new if name.endswith("/"))
    listed = run(["ls-files", "--stage", "-z"], root, environment)
    for entry in listed.decode("utf-8", "surrogateescape").split("\0"):
        state, _, name = entry.partition("\t")
        if state.startswith("160000 "):
            yield f":(exclude,literal){name}"


def _own_index(root: str, scratch: Path) -> dict[str, str]:
    """An index and objects of our own, so that the user's repository stays as it is."""
    names = ["--git-path", "index", "--git-path", "objects"]
    found = run(["rev-parse", *names], root).decode("utf-8", "surrogateescape").split("\n")
    index, objects = (os.path.join(root, name) for name in found[:2])
    if os.path.exists(index):  # what git knows of unchanged files saves reading them all
        shutil.copyfile(index, scratch / "index")
    (scratch / "objects").mkdir()
    return {
        "GIT_INDEX_FILE": str(scratch / "index"),
        "GIT_OBJECT_DIRECTORY": str(scratch / "objects"),
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": _quoted(objects),
    }


def _quoted(path: str) -> str:
    """A path in the list of alternates, where colons separate and quotes escape."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def check_place(folder: str, root: str) -> None:
    """Refuse a working tree that the configuration of the repository at `folder` puts elsewhere.

    `root` is where git takes it to be, and everything there would be read. Raises BadUsage.
    """
    path = Path(os.path.realpath(folder))
    above = (one for one in (path, *path.parents) if os.path.lexists(one / ".git"))
    if next(above, None) != Path(os.path.realpath(root)):
        raise BadUsage(f"the working tree of the repository here is elsewhere: {root}")


def _filters_off(folder: str) -> dict[str, str]:
    """Variables that disable the filters that the repository's own configuration defines.

    Those of the user, such as git-lfs, stay: without them, unchanged files would look changed.
    Raises GitFailed rather than leave one on.
    """
    words = ["config", "-z", "--show-scope", "--name-only", "--list"]
    parts = run(words, folder).decode("utf-8", "surrogateescape").split("\0")
    count = int(os.environ.get("GIT_CONFIG_COUNT") or 0)
    variables = {}
    # Not with -c, which cannot spell a name with `=` in it.
    for scope, name in zip(parts[::2], parts[1::2], strict=False):
        found = re.fullmatch(r"filter\..*\.(clean|smudge|process|required)", name)
        if scope in ("local", "worktree") and found:
            variables[f"GIT_CONFIG_KEY_{count}"] = name
            variables[f"GIT_CONFIG_VALUE_{count}"] = "false" if found[1] == "required" else ""
            count += 1
    return {**variables, "GIT_CONFIG_COUNT": str(count)} if variables else {}


class GitFailed(RebyteError):
    """git ended with an error; the message is its own."""

    code = "git_failed"


def run(
    words: Sequence[str],
    folder: str,
    environment: Mapping[str, str] | None = None,
    output: int = subprocess.PIPE,
) -> bytes:
    """What `git WORDS` prints when it is run in `folder`. GitFailed with git's own reason."""
    variables = {
        **os.environ,
        "GIT_OPTIONAL_LOCKS": "0",
        # A missing object is fetched by a program that the repository can name.
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
        **(environment or {}),
    }
    try:
        done = subprocess.run(
            ["git", "-C", folder, *SAFE, *words],
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.PIPE,
            check=False,
            timeout=SECONDS,
        )
    except FileNotFoundError:
        raise BadUsage("git is not installed", hint="-g owner/repo works without it") from None
    except subprocess.TimeoutExpired:
        raise BadUsage(f"git did not answer within {SECONDS:g} s") from None
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        told = [line for line in lines if line.startswith(("fatal:", "error:"))]
        reason = (told or lines or [f"git exited with status {done.returncode}"])[-1]
        raise GitFailed(reason.removeprefix("fatal: ").removeprefix("error: "))
    return done.stdout or b""
