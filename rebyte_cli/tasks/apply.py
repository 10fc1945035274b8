"""Bringing a patch into the working tree and the index here: all of it or nothing, but conflicts.

The result is made as a tree first, where no file can be in the way. git checks it out then as it
does another commit: it looks at all files before it changes one, and goes nowhere beyond a link. If
it fails in the middle, as on a full disk, what it has changed is taken back. What others write at
the same time stays.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import RebyteError
from ..system import git
from ..system.files import flocked
from .patch import (
    SUBMODULE,
    above,
    blobs,
    conflict,
    is_there,
    no_folder,
    own_repository,
    path_of,
    place,
    shown,
    uncommitted,
)
from .prepared_patch import PreparedPatch, entries, own_index
from .trees import NO_FILE, TreeChange, entries_of, set_entries, tree_of

BEFORE = "refs/rebyte/before"  # what `apply --force` is about to change, by the id of its tree


def apply(ready: PreparedPatch, applied: Callable[[], None] = lambda: None) -> None:
    """Change the files here, and the index unless that has others.

    `applied` is called when that is done, with conflicts or without. Raises PatchConflict with the
    names of files that are left with conflict markers, or with git's reason when nothing was
    applied at all. git works to its end even if this process is told to stop, and `applied` is
    called before that.
    """
    root, conflicts = ready.root, ready.after.conflicts
    words = ["rev-parse", "--path-format=absolute", "--git-path", "index"]
    folder = Path(git.line(words, root, own_repository())).parent
    with _alone(folder):
        _check_places(ready)
        _try_out(ready, folder)
        undo = (
            "; `git reset --hard` undoes everything" if conflicts and _is_committed(ready) else ""
        )
        with git.signals_later():
            _check_out(ready)
            applied()
        if conflicts:
            hint = f"Edit them, then `git add` them{undo}"
            raise conflict(conflicts, "").copy_with(hint=hint)


def _is_committed(ready: PreparedPatch) -> bool:
    """Whether HEAD has all that the files here are, those that git is told not to look at, too."""
    if ready.files != ready.after.changes or uncommitted(ready.root):
        return False
    marks = git.paths(["ls-files", "-v", "-z"], ready.root, own_repository())
    return all(line.startswith("H ") for line in marks)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep every other `apply` out of a repository for as long as the block takes."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(flocked(folder, wait=False))
        except BlockingIOError:
            raise RebyteError("another `apply` is at work in this repository") from None
        except OSError:
            pass  # some network file systems have no locks
        yield


class _OnDisk(NamedTuple):
    """What is here before git changes anything: the modes of folders, and the files that change."""

    folders: dict[bytes, int]
    files: dict[bytes, os.stat_result]


def _check_places(ready: PreparedPatch) -> _OnDisk:
    """What is here where files change.

    Refuses what git would remove or replace although it is in no commit: ignored files and folders
    with more in them, links in place of folders, submodules. And a file that it cannot remove,
    of which it would only warn. Raises PatchConflict.
    """
    removed = {each.path for each in ready.files if each.mode == NO_FILE}
    found = _OnDisk({}, {})
    for each in ready.files:
        is_new, folder = each.old_mode == NO_FILE, b""
        for folder, mode in above(ready.root, each.path, found.folders):
            if not stat.S_ISDIR(mode):
                if not is_new or folder not in removed:
                    raise no_folder(folder, each.path)
                break
        else:
            path = path_of(ready.root, each.path)
            if (file := _stat(path)) is None:
                continue
            if each.path in removed and not os.access(os.path.dirname(path), os.W_OK):
                raise conflict([], f"{shown(each.path)} cannot be removed from its folder")
            if not stat.S_ISDIR(file.st_mode):
                if is_new:
                    raise conflict([], f"{shown(each.path)} already exists in the working tree")
            elif each.mode not in (NO_FILE, SUBMODULE):
                _check_inside(ready.root, each.path, removed)
            found.files[each.path] = file
    return found


def _stat(path: bytes) -> os.stat_result | None:
    with contextlib.suppress(OSError):
        return os.lstat(path)
    return None


def _check_inside(root: Path, name: bytes, removed: set[bytes]) -> None:
    """Refuse a file where a folder is with more in it than what the patch removes."""
    top = os.fsencode(root)
    path = os.path.join(top, name)
    for folder, folders, files in os.walk(path):
        links = [each for each in folders if os.path.islink(os.path.join(folder, each))]
        empty = [b""] if folder != path and not folders and not files else []
        for each in [*files, *links, *empty]:
            inside = os.path.relpath(os.path.join(folder, each), top)
            if inside not in removed:
                raise conflict([], f"{shown(name)} is a folder, and {shown(inside)} is in it")


def _try_out(ready: PreparedPatch, folder: Path) -> None:
    """Write the new files elsewhere: a full disk and a filter that fails change nothing then.

    Raises PatchConflict.
    """
    names = [os.fsdecode(each.path) for each in ready.files if each.mode != NO_FILE]
    new = {**ready.own, "GIT_INDEX_FILE": ready.after.new_index}
    try:
        with tempfile.TemporaryDirectory(prefix="rebyte-", dir=folder) as scratch:
            for some in git.portions(names):
                words = ["checkout-index", "--quiet", f"--prefix={scratch}/", "--", *some]
                git.run(words, ready.root, new, timeout=None)
    except (OSError, git.GitFailed) as error:
        raise conflict([], getattr(error, "message", str(error))) from None


def _check_out(ready: PreparedPatch) -> None:
    """Have git change the files and its index.

    If it fails, all is as it was. Raises PatchConflict then, or RebyteError if it is not.
    """
    root, users = ready.root, ready.users
    found = _check_places(ready)  # others may have written ignored files meanwhile
    # What is in no commit and no index has to be found if all of this is killed.
    kept = f"{BEFORE}/{ready.before}" if users is None else ""
    # Without the user's index, what a sparse checkout leaves out would be nowhere.
    words = ["-c", "core.sparseCheckout=false", "read-tree", "-m", "-u", "--no-recurse-submodules"]
    failure = None
    try:
        if kept:
            git.run(["update-ref", kept, ready.before], root, own_repository(), to_end=True)
        words += [ready.before, ready.after.tree]
        git.run(words, root, ready.own, to_end=True, timeout=None)
        if users is not None:
            _set_index(ready, users)
    except git.GitFailed as error:
        _take_back(ready, found, error.message)
        failure = conflict([], error.message)
    if kept:
        with contextlib.suppress(git.GitFailed):
            git.run(["update-ref", "-d", kept], root, own_repository(), to_end=True)
    if failure is not None:
        raise failure


def _set_index(ready: PreparedPatch, users: Mapping[str, str]) -> None:
    """Bring the user's index up to date, with both sides of conflicts, all at once.

    Last: files with markers would look resolved in it. Raises GitFailed if it has other files.
    """
    root, stages, changes = ready.root, ready.after.stages, ready.after.changes
    there = entries_of(root, users, [each.path for each in changes])
    for each in changes:
        if there.get(each.path, (NO_FILE, each.old_blob)) != (each.old_mode, each.old_blob):
            raise git.GitFailed(f"{shown(each.path)} was staged meanwhile")
    lines = entries(each for each in changes if each.path not in stages)
    nothing = b"0 %s\t" % (b"0" * len(ready.base))
    lines += [line for name in stages for line in (nothing + name, *stages[name])]
    set_entries(root, users, lines)
    names = [each.path for each in changes if each.mode != NO_FILE]
    with contextlib.suppress(git.GitFailed):
        # Else git takes what is left out for deleted, and the others, which are newer, for changed.
        for way, is_written in (("update-index --skip-worktree", False), ("add --refresh", True)):
            some = [os.fsdecode(name) for name in names if is_there(root, name) == is_written]
            for portion in git.portions(some):
                words = ["--literal-pathspecs", *way.split(), "--", *portion]
                git.run(words, root, users, to_end=True)
        tree_of(root, users)  # what a checkout notes there, too


def _take_back(ready: PreparedPatch, found: _OnDisk, reason: str) -> None:
    """Make the files again what they were, but those that are not what git was to write.

    A full disk is no problem for it. Raises RebyteError, with the reason for which git failed, that
    names the files that are not as they were.
    """
    root, failed = ready.root, list[TreeChange]()
    touched = [
        each
        for each in ready.files
        if _identity(_stat(path_of(root, each.path))) != _identity(found.files.get(each.path))
    ]
    try:
        _remove_written(ready, found, touched)
        gone = [
            each.path
            for each in touched
            if each.old_mode != NO_FILE and not is_there(root, each.path)
        ]
        with own_index(root, ready.own, ready.before) as own:
            for some in git.portions(list(map(os.fsdecode, gone))):
                git.run(["checkout-index", "--quiet", "--", *some], root, own)
        modes = {name: found.files[name].st_mode for name in gone if name in found.files}
        for name, mode in (found.folders | modes).items():
            path = place(root, name)
            now_is = None if path is None else _stat(os.fsencode(path))
            if path and now_is and not stat.S_ISLNK(now_is.st_mode) and now_is.st_mode != mode:
                os.chmod(path, stat.S_IMODE(mode))
        now = blobs(root, [each.path for each in touched], [ready.before])
        failed = [each for each in touched if not _is_as_before(root, each, now)]
    except (OSError, git.GitFailed) as error:
        reason, failed = f"{reason}; {error}", touched
    if failed:
        raise RebyteError(
            f"the patch does not apply: {reason}. Not as they were before: "
            + ", ".join(shown(each.path) for each in failed),
            hint=f"What they were: git show {ready.before}:FILE",
        )


def _identity(found: os.stat_result | None) -> tuple[int, ...]:
    """What tells a file from another one with that name; empty for none."""
    return () if found is None else (found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode)


def _remove_written(ready: PreparedPatch, found: _OnDisk, touched: Sequence[TreeChange]) -> None:
    """Remove what git has written, and the folders that it has made for that."""
    written = blobs(ready.root, [each.path for each in touched], [ready.before])
    for each in touched:
        if each.mode != NO_FILE and written.get(each.path) == each.blob:
            os.unlink(path_of(ready.root, each.path))
    for each in touched:
        folders = [name for name, mode in above(ready.root, each.path) if stat.S_ISDIR(mode)]
        if each.mode == SUBMODULE != each.old_mode:
            folders.append(each.path)
        with contextlib.suppress(OSError):  # it has other files
            while folders and folders[-1] not in found.folders:
                os.rmdir(path_of(ready.root, folders.pop()))


def _is_as_before(root: Path, change: TreeChange, now: Mapping[bytes, str]) -> bool:
    path = path_of(root, change.path)
    if change.old_mode in (NO_FILE, SUBMODULE):
        is_folder = os.path.isdir(path) and not os.path.islink(path)
        return is_folder or (change.old_mode == NO_FILE and not os.path.lexists(path))
    return now.get(change.path) == change.old_blob
