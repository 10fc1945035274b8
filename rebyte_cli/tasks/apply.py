"""Bringing a patch into the working tree and the index here: all of it or nothing, but conflicts.

git checks a patch, then removes all files that it changes, and writes them. It may fail after that:
where a file is in the place of a folder, inside a submodule, or on a full disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Self

from ..errors import Interrupted, RebyteError
from ..system import git
from .git_apply import git_apply
from .patch import conflict, place, safe_repository, shown, uncommitted, unmerged
from .patch_headers import sections

NOTHING = "Nothing was applied"
_MOVED = re.compile(rb"^(?:copy|rename) from ", re.MULTILINE)
_States = Mapping[bytes, tuple[int, bytes]]  # a path's mode and a digest of its content
_ABSENT = (0, b"")


def apply(
    patch: bytes,
    root: Path,
    applied: Callable[[], None] = lambda: None,
    *,
    attributes: str | None = None,
) -> list[str]:
    """Apply the patch to the work tree and the index, with a merge where the files moved on.

    Returns the paths of the files that are different on disk now. Raises PatchConflict with the
    names of files that are left with conflict markers, or with git's reason when nothing was
    applied at all. git works to its end even if this process is told to stop, and the Interrupted
    says what it has done. `applied` is called when files were changed, with conflicts or without.
    With `attributes`, the `.gitattributes` files of this tree or commit are in force (git 2.41).
    """
    before: _States = {}
    with telling(lambda: _done(root, before)):
        touched = {name for each in sections(patch) for name in (each.old, each.new) if name}
        before = _states(root, touched)
        variables = safe_repository(root)
        if attributes is not None:
            variables["GIT_ATTR_SOURCE"] = attributes
        try:
            _apply(patch, root, before, variables)
        except BaseException:  # a signal that came while git worked, or there are conflicts
            if _changed(root, before):
                applied()
            raise
        applied()
        return _changed(root, before)


@contextlib.contextmanager
def telling(done: Callable[[], str] = lambda: NOTHING) -> Iterator[None]:
    """Add to an interrupt in the block what was done by then, unless it says so already."""
    try:
        yield
    except (KeyboardInterrupt, Interrupted) as stop:
        stop = Interrupted.of(stop)
        raise Interrupted(stop.exit_status, hint=stop.hint or done()) from None


def _done(root: Path, before: _States) -> str:
    if not _changed(root, before):
        return NOTHING
    conflicts = ", ".join(unmerged(root))
    return "The changes were applied" + (f", with conflicts in {conflicts}" if conflicts else "")


def _apply(patch: bytes, root: Path, before: _States, variables: Mapping[str, str]) -> None:
    undo = "" if uncommitted(root) else "; `git reset --hard` undoes everything"
    try:
        is_merged = _whole(["--3way"], patch, root, before, variables)
    except git.GitUnusable:  # it took too long to find out whether it applies
        raise
    except git.GitFailed as error:
        reason = error.message
        # With --force, files that have uncommitted changes are patched without the index, which
        # knows which files are the user's to show. Otherwise only the reason is wanted: a failed
        # merge often gives none.
        is_dirty = "does not match index" in error.said and not _MOVED.search(patch)
        try:
            if is_dirty:
                _whole([], patch, root, before, variables)
            else:
                git_apply(["--whitespace=nowarn", "--check"], patch, root, variables)
        except git.GitFailed as failure:
            reason = reason if error.is_partial else failure.message
        else:
            if is_dirty:
                return
        raise conflict([], reason) from None
    if not is_merged:
        hint = f"Edit them, then `git add` them{undo}"
        raise conflict(unmerged(root), "").copy_with(hint=hint)


def _whole(
    words: list[str], patch: bytes, root: Path, before: _States, variables: Mapping[str, str]
) -> bool:
    """Let git apply the patch. Returns False if it leaves conflicts.

    If it fails otherwise, all is as it was. Raises GitFailed then, and RebyteError.
    """
    words = [*words, "--whitespace=nowarn"]
    where = ["rev-parse", "--path-format=absolute", "--git-path", "index"]
    index = Path(git.line(where, root, variables))
    with _Backup(root, before, index.parent) as backup:
        # What is only newer than the index knows, git would take for changed.
        refresh = ["update-index", "-q", "--ignore-submodules", "--refresh"]
        with contextlib.suppress(git.GitFailed):
            git.run(refresh, root, variables, to_end=True)
        then = _identity(index)
        try:
            git_apply(words, patch, root, variables, to_end=True)
        except BaseException as error:
            # git writes the index last, with the conflicts that it has found.
            has_failed = isinstance(error, git.GitFailed)
            if _identity(index) == then or (has_failed and not unmerged(root)):
                backup.restore()
            elif has_failed:
                return False
            raise
    return True


def _identity(file: Path) -> tuple[int, int, int] | None:
    """What tells a file from another one with its name; None if there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


class _Backup:
    """Files of the user as they are at the beginning of the block.

    They are kept as further links where the file system has these, which takes no room, and
    bringing them back does not either.
    """

    def __init__(self, root: Path, before: _States, folder: Path) -> None:
        """`before` has what they are. They are kept in a folder inside `folder`."""
        self._root, self._before, self._inside = root, before, folder
        self._kept: dict[bytes, str] = {}
        self._new_folders: list[str] = []

    def __enter__(self) -> Self:
        """Raises RebyteError."""
        self._folder = tempfile.mkdtemp(prefix="rebyte-", dir=self._inside)
        try:
            for number, (name, (mode, _)) in enumerate(self._before.items()):
                if (path := place(self._root, name)) is None:
                    continue
                if stat.S_ISREG(mode) or stat.S_ISLNK(mode):
                    self._kept[name] = os.path.join(self._folder, str(number))
                    _copy(path, self._kept[name])
                self._new_folders += _missing_above(self._root, path)
        except OSError as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise RebyteError(f"the files to change cannot be kept: {error}") from None
        return self

    def __exit__(self, *_error: object) -> None:
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def restore(self) -> None:
        """Bring back what is no longer as it was, and remove what was not there.

        Raises RebyteError that names the folder in which the files are then.
        """
        with git.signals_later():
            now = _states(self._root, self._before)
            changed = [name for name in self._before if self._before[name] != now[name]]
            try:
                self._restore(changed)
            except OSError as error:
                folder, self._folder = self._folder, ""
                raise RebyteError(
                    f"git failed, and the files cannot be brought back: {error}",
                    hint=f"As they were, they are in {folder}",
                ) from None

    def _restore(self, changed: list[bytes]) -> None:
        for name in changed:
            path = place(self._root, name)
            is_folder = path is not None and os.path.isdir(path) and not os.path.islink(path)
            if path is not None and self._before[name] == _ABSENT and not is_folder:
                os.unlink(path)
        for folder in sorted(self._new_folders, key=len, reverse=True):
            with contextlib.suppress(OSError):  # it is not there, or has other files
                os.rmdir(folder)
        for name in changed:
            if (kept := self._kept.get(name)) is not None:
                path = os.path.join(self._root, os.fsdecode(name))
                os.makedirs(os.path.dirname(path), exist_ok=True)
                os.replace(kept, path)


def _copy(path: str, to: str) -> None:
    try:
        os.link(path, to, follow_symlinks=False)
    except (OSError, NotImplementedError):
        shutil.copy2(path, to, follow_symlinks=False)


def _missing_above(root: Path, path: str) -> list[str]:
    """The folders between the root and a path that are not there."""
    found = []
    above = os.path.dirname(path)
    while len(above) > len(os.fspath(root)) and not os.path.isdir(above):
        found.append(above)
        above = os.path.dirname(above)
    return found


def _states(root: Path, names: Iterable[bytes]) -> _States:
    """What each path is on disk."""
    result = {}
    for name in names:
        result[name] = _ABSENT
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if (path := place(root, name)) is not None:
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


def _changed(root: Path, before: _States) -> list[str]:
    after = _states(root, before)
    return sorted(shown(name) for name in before if before[name] != after[name])
