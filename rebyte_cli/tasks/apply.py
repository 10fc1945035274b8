"""Bringing a patch into the working tree and the index here: all of it or nothing, but conflicts.

git checks a patch, then removes all files that it changes, and writes them. If it fails after that,
as on a full disk, the files are brought back that it has removed or written. What others write at
the same time stays.
"""

from __future__ import annotations

import bisect
import contextlib
import hashlib
import itertools
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from ..errors import Interrupted, RebyteError
from ..system import git
from ..system.locks import flock
from .git_apply import git_apply
from .patch import (
    SHORTEST_ID,
    SUBMODULE,
    PatchConflict,
    above,
    beyond_cone,
    blobs,
    conflict,
    own_repository,
    place,
    safe_repository,
    shown,
    uncommitted,
    unmerged,
)
from .patch_headers import PatchedFile, sections

NOTHING = "Nothing was applied"
_MOVED = re.compile(rb"^(?:copy|rename) from ", re.MULTILINE)
_States = Mapping[bytes, tuple[int, bytes]]  # a path's mode and a digest of its content
_ABSENT = (0, b"")


class _Target(NamedTuple):
    """Where a patch is applied: the root, git's variables, and the file of the index.

    `before` has what its files are, and `written` what the patch says of those that it leaves.
    """

    root: Path
    variables: Mapping[str, str]
    index_file: Path
    before: _States
    written: Mapping[bytes, PatchedFile]


def apply(
    patch: bytes,
    root: Path,
    applied: Callable[[], None] = lambda: None,
    *,
    force: bool = False,
    attributes: str | None = None,
) -> list[str]:
    """Apply the patch to the work tree and the index, with a merge where the files moved on.

    Returns the paths of the files that are different now. Raises PatchConflict with the
    names of files that are left with conflict markers, or with git's reason when nothing was
    applied at all. git works to its end even if this process is told to stop, and the Interrupted
    says what it has done. `applied` is called when files were changed, with conflicts or without.
    With `force`, files with uncommitted changes are patched, too, without the index. With
    `attributes`, the `.gitattributes` files of this tree or commit are in force (git 2.41).
    """
    done = [NOTHING]
    with telling(lambda: done[0]):
        files = list(sections(patch))
        names = sorted(
            {name for each in files for name in (each.old, each.new, each.keeps) if name}
        )
        before = _states(root, names)
        variables = safe_repository(root)
        if attributes is not None:
            variables["GIT_ATTR_SOURCE"] = attributes
        where = ["rev-parse", "--path-format=absolute", "--git-path", "index"]
        index_file = Path(git.line(where, root, variables))
        written = {each.new: each for each in files if each.new}
        target = _Target(root, variables, index_file, before, written)

        def succeed(conflicts: list[str]) -> None:
            applied()
            told = f", with conflicts in {', '.join(conflicts)}" if conflicts else ""
            done[0] = f"The changes were applied{told}"

        hidden = beyond_cone(root, {each.old for each in files if each.old != each.new})
        with _alone(index_file.parent):
            _check_folders(root, files, names)
            _apply(patch, target, succeed, force=force)
            after = _states(root, before)
            changed = {name for name in before if before[name] != after[name]}
            return sorted(map(shown, changed | hidden))


@contextlib.contextmanager
def telling(done: Callable[[], str] = lambda: NOTHING) -> Iterator[None]:
    """Add to an interrupt in the block what was done by then, unless it says so already."""
    try:
        yield
    except (KeyboardInterrupt, Interrupted) as stop:
        stop = Interrupted.of(stop)
        raise Interrupted(stop.exit_status, hint=stop.hint or done()) from None


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep every other `apply` out of a repository for as long as the block takes."""
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            flock(descriptor, wait=False)
        except BlockingIOError:
            raise RebyteError("another `apply` is at work in this repository") from None
        except OSError:
            pass  # some network file systems have no locks
        yield
    finally:
        os.close(descriptor)


def _check_folders(root: Path, files: Sequence[PatchedFile], names: Sequence[bytes]) -> None:
    """Refuse a patch where a file and a folder have one name, which git notices too late.

    And one about a file beyond a link, which git may follow if the index tells otherwise, or that
    removes a file which git cannot remove: it would only warn.
    """
    removed = {each.old for each in files if each.old != each.new}
    kinds = {each.new: each.mode for each in files if each.new and each.new != each.old}
    added = sorted(kinds, key=_in_order)
    for name, following in itertools.pairwise(added):
        if following.startswith(name + b"/"):
            raise _no_folder(name, following)
    known: dict[bytes, int] = {}
    for name in names:
        folder = b""
        for folder, mode in above(root, name, known):
            if stat.S_ISDIR(mode):
                continue
            if folder not in removed or name not in kinds or name in removed:
                raise _no_folder(folder, name)
            break
        else:
            if name in removed and not os.access(os.path.join(root, os.fsdecode(folder)), os.W_OK):
                raise conflict([], f"{shown(name)} cannot be removed from its folder")
    for name in added:
        if kinds[name] != SUBMODULE:
            _check_inside(root, name, removed)
    modules = list(map(os.fsencode, git.submodules(root, own_repository()) if added else ()))
    for module in modules:
        at = bisect.bisect(added, _in_order(module + b"/"), key=_in_order)
        for name in added[at : at + 1]:
            if name.startswith(module + b"/"):
                raise conflict([], f"{shown(name)} is in the submodule {shown(module)}")


def _in_order(name: bytes) -> bytes:
    """A key by which a folder comes right before what is in it."""
    return name.replace(b"/", b"\0")


def _no_folder(name: bytes, inside: bytes) -> PatchConflict:
    return conflict([], f"{shown(name)} is no folder, but {shown(inside)} is in it")


def _check_inside(root: Path, name: bytes, removed: set[bytes]) -> None:
    """Refuse a new file where a folder is with more in it than what the patch removes."""
    top = os.fsencode(root)
    path = os.path.join(top, name)
    if os.path.islink(path) or not os.path.isdir(path) or place(root, name) is None:
        return
    for folder, folders, files in os.walk(path):
        links = [each for each in folders if os.path.islink(os.path.join(folder, each))]
        empty = [b""] if folder != path and not folders and not files else []
        for each in [*files, *links, *empty]:
            inside = os.path.relpath(os.path.join(folder, each), top)
            if inside not in removed:
                raise conflict([], f"{shown(name)} is a folder, and {shown(inside)} is in it")


def _apply(
    patch: bytes, target: _Target, succeed: Callable[[list[str]], None], *, force: bool
) -> None:
    undo = "" if uncommitted(target.root) else "; `git reset --hard` undoes everything"
    try:
        conflicts = _whole(["--3way"], patch, target, succeed)
    except git.GitUnusable:  # it took too long to find out whether it applies
        raise
    except git.GitFailed as error:
        reason = error.message
        # What is moved has to be in the index, which knows what is the user's to show. Otherwise
        # only the reason is wanted: a failed merge often gives none.
        is_dirty = "does not match index" in error.said
        try:
            if force and is_dirty and not _MOVED.search(patch):
                _whole([], patch, target, succeed)
                return
            if not is_dirty:
                words = ["--whitespace=nowarn", "--check"]
                git_apply(words, patch, target.root, target.variables)
        except git.GitFailed as failure:
            reason = reason if error.is_partial else failure.message
        raise conflict([], reason) from None
    if conflicts:
        hint = f"Edit them, then `git add` them{undo}"
        raise conflict(conflicts, "").copy_with(hint=hint)


def _whole(
    words: list[str], patch: bytes, target: _Target, succeed: Callable[[list[str]], None]
) -> list[str]:
    """Let git apply the patch, and call `succeed` with the files that have conflicts: the result.

    If git fails, all is as it was. Raises GitFailed then, and RebyteError.
    """
    words, root, variables = [*words, "--whitespace=nowarn"], target.root, target.variables
    # What is only newer than the index knows, git would take for changed.
    refresh = ["update-index", "-q", "--ignore-submodules", "--refresh"]
    with contextlib.suppress(git.GitFailed):
        git.run(refresh, root, variables, to_end=True)
    # Within limits of time and memory, and Ctrl-C ends it.
    git_apply(["--check", *words], patch, root, variables)
    with _Backup(target) as backup, git.signals_later():
        # Links change what the index knows of a file, too.
        with contextlib.suppress(git.GitFailed):
            git.run(refresh, root, variables, to_end=True)
        then, conflicts = _identity(target.index_file), list[str]()
        backup.is_needed = True
        try:
            git_apply(words, patch, root, variables, to_end=True, seconds=None)
        except git.GitFailed as error:
            # git writes the index last, with the conflicts that it has found.
            if _identity(target.index_file) != then:
                conflicts = unmerged(root)
            if not conflicts:
                backup.restore(error.message)
                raise
        backup.is_needed = False
        succeed(conflicts)
        return conflicts


def _identity(path: str | Path, *, of_link: bool = False) -> tuple[int, int, int] | None:
    """What tells a file, or a link itself, from another one with that name; None for nothing."""
    try:
        found = os.stat(path, follow_symlinks=not of_link)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


class _Backup:
    """The files that git is about to change, for as long as the block takes, or `is_needed`.

    Those with content are kept in the repository, as further links where the file system has these,
    which takes no room. If rebyte is killed, they stay there, in a folder `rebyte-*`, under their
    own paths. What is brought back goes nowhere beyond a link: git may have made that just now.
    """

    def __init__(self, target: _Target) -> None:
        self._target = target
        self._modes: dict[bytes, int] = {}  # of the folders above the files
        self._links: dict[bytes, str] = {}
        self._kept: dict[bytes, str] = {}
        self._folder = ""
        self.is_needed = False

    def __enter__(self) -> Self:
        """Raises RebyteError."""
        self._folder = tempfile.mkdtemp(prefix="rebyte-", dir=self._target.index_file.parent)
        known: dict[bytes, int] = {}
        try:
            for name, (mode, content) in self._target.before.items():
                for folder, folder_mode in above(self._target.root, name, known):
                    if stat.S_ISDIR(folder_mode):
                        self._modes[folder] = folder_mode
                if stat.S_ISLNK(mode):
                    self._links[name] = os.fsdecode(content)
                elif stat.S_ISREG(mode):
                    self._kept[name] = os.path.join(self._folder, "before", os.fsdecode(name))
                    os.makedirs(os.path.dirname(self._kept[name]), exist_ok=True)
                    _copy(os.path.join(self._target.root, os.fsdecode(name)), self._kept[name])
        except OSError as error:
            self.__exit__()
            raise RebyteError(f"the files to change cannot be kept: {error}") from None
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        if self._folder and not self.is_needed:
            shutil.rmtree(self._folder, ignore_errors=True)

    def restore(self, reason: str) -> None:
        """Bring back what git has removed or written, and remove what it has added.

        Raises RebyteError, with the reason for which git failed, that names the files that are not
        as they were, and the folder where they are.
        """
        before, changed = self._target.before, list(self._target.before)
        try:
            now = _states(self._target.root, before)
            changed = [name for name in before if before[name] != now[name]]
            self._set_aside({name: now[name] for name in changed if now[name] != _ABSENT})
            self._restore_folders()
            failed = [name for name in changed if not self._bring_back(name)]
        except (OSError, git.GitFailed) as error:
            reason, failed = f"{reason}; {error}", changed
        if failed:
            names, kept = ", ".join(map(shown, failed)), os.path.join(self._folder, "before")
            raise RebyteError(
                f"the patch does not apply: {reason}. Not as they were before: {names}",
                hint=f"What they were is in {kept}" if os.path.exists(kept) else None,
            )
        self.is_needed = False

    def _set_aside(self, now: _States) -> None:
        """Take away the files that are what the patch makes of them, or changed in mode alone."""
        like = [each.blob for each in self._target.written.values()]
        paths = {name: place(self._target.root, name) or "" for name in now}
        then = {name: _identity(path, of_link=True) for name, path in paths.items()}
        ids = blobs(self._target.root, now, like)
        aside = tempfile.mkdtemp(dir=self._folder)
        for number, (name, state) in enumerate(now.items()):
            path, to = paths[name], os.path.join(aside, str(number))
            if not path or not self._is_gits(name, state, ids.get(name, "")):
                continue
            shutil.move(path, to)
            if _identity(to, of_link=True) != then[name] and not os.path.lexists(path):
                shutil.move(to, path)  # it was written again meanwhile

    def _is_gits(self, name: bytes, state: tuple[int, bytes], blob: str) -> bool:
        """Whether a file is what the patch makes of it, or changed in mode alone."""
        mode, content = state
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
            return False
        if content == self._target.before[name][1]:
            return True
        file = self._target.written.get(name)
        if file is None:
            return False
        if not file.blob:  # it was moved or copied, and no more
            return content == self._target.before.get(file.keeps or file.old, _ABSENT)[1]
        return len(file.blob) >= SHORTEST_ID and blob.startswith(file.blob)

    def _restore_folders(self) -> None:
        root = os.fsencode(self._target.root)
        for name, state in self._target.before.items():
            found = above(self._target.root, name) if state == _ABSENT else ()
            folders = [folder for folder, mode in found if stat.S_ISDIR(mode)]
            with contextlib.suppress(OSError):  # it has other files
                while folders and folders[-1] not in self._modes:
                    os.rmdir(os.path.join(root, folders.pop()))
        for name, mode in sorted(self._modes.items()):
            path = place(self._target.root, name)
            if path is not None and not os.path.lexists(path):
                os.mkdir(path)
                os.chmod(path, stat.S_IMODE(mode))

    def _bring_back(self, name: bytes) -> bool:
        """Whether a file is as it was, if nothing else is there by now."""
        path = place(self._target.root, name)
        if stat.S_ISDIR(self._target.before[name][0]):
            return path is not None and os.path.isdir(path) and not os.path.islink(path)
        if path is None or os.path.lexists(path):
            return False
        if name in self._links:
            os.symlink(self._links[name], path)
        elif name in self._kept:
            shutil.move(self._kept[name], path)
        return True


def _copy(path: str, to: str) -> None:
    try:
        os.link(path, to)
    except OSError:
        shutil.copy2(path, to)


def _states(root: Path, names: Iterable[bytes]) -> _States:
    """What each path is on disk."""
    result, known = {}, dict[bytes, int]()
    for name in names:
        result[name] = _ABSENT
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if (path := place(root, name, known)) is not None:
                mode = os.lstat(path).st_mode
                result[name] = (mode, _digest(path, mode))
    return result


def _digest(path: str, mode: int) -> bytes:
    if stat.S_ISLNK(mode):
        return os.fsencode(os.readlink(path))
    if not stat.S_ISREG(mode):
        return b""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
