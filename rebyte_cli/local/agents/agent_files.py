"""Files inside a folder that an agent writes to, even at this moment: its links lead nowhere.

Every step is taken from the folder before it, by its descriptor, and follows no link.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from ...system.untrusted import read_file

SOME_NAMES = 1000  # of a folder, which can have millions, so many are held at a time
MOST_PASSES = 3  # over a folder, which an agent may fill meanwhile
MOST_OPEN = 50  # folders at a time
SET_IDS = stat.S_ISUID | stat.S_ISGID
# Linux alone can name a file or a folder that it may not read.
_UNREAD = getattr(os, "O_PATH", 0)


def folder(root: Path, relative: str) -> Path:
    """Make `relative` below `root` a real folder, in place of any link or file on the way."""
    with _opened(root, PurePosixPath(relative), make=True):
        return root / relative


@contextmanager
def new_folder(above: Path, begin: str) -> Iterator[Path]:
    """A folder with a random name that starts with `begin`, to be renamed once it is complete.

    It is removed at the end of the block, as are those that processes which were killed have left.
    A git that survived its process may still write to one of those. Raises OSError.
    """
    for left in above.glob(f"{begin}*"):
        remove_tree(left)
    made = above / f"{begin}{os.urandom(8).hex()}"
    made.mkdir(mode=0o700)
    try:
        yield made
    finally:  # the disk may be full of it
        remove_tree(made)


def write(root: Path | int, relative: str, content: bytes) -> None:
    """Write a file with mode 0600, all or nothing; a folder in its place is removed first."""
    _write(root, relative, io.BytesIO(content), 0o600)


def copy(source: Path, root: Path, relative: str) -> None:
    """Copy a file of ours below `root` as `write` does, but for everyone to read."""
    with source.open("rb") as content:
        _write(root, relative, content, 0o444)


def _write(root: Path | int, relative: str, content: BinaryIO, mode: int) -> None:
    path = PurePosixPath(relative)
    partial = f".{path.name}.new"
    with _opened(root, path.parent, make=True) as here:
        _remove(partial, here)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with open(os.open(partial, flags, mode, dir_fd=here), "wb") as file:
            shutil.copyfileobj(content, file, 1 << 20)
        try:
            os.replace(partial, path.name, src_dir_fd=here, dst_dir_fd=here)
        except IsADirectoryError:
            _remove_tree(path.name, here)
            os.replace(partial, path.name, src_dir_fd=here, dst_dir_fd=here)


def read(root: Path | int, relative: str, most: int) -> bytes | None:
    """The content of a regular file of up to `most` bytes; None for anything else."""
    path = PurePosixPath(relative)
    with suppress(OSError), _opened(root, path.parent) as here:
        return read_file(path.name, most, here)
    return None


def remove(root: Path | int, relative: str) -> None:
    """Remove a file, a link or a folder, if it is there and no link leads to it."""
    path = PurePosixPath(relative)
    with suppress(OSError), _opened(root, path.parent) as here:
        _remove(path.name, here)


def _remove(name: str, here: int) -> None:
    try:
        os.unlink(name, dir_fd=here)
    except FileNotFoundError:
        pass
    except (IsADirectoryError, PermissionError):
        _remove_tree(name, here)


def remove_tree(root: Path) -> None:
    """Remove a folder with all that an agent left there: any depth, any modes. May be missing."""
    with suppress(OSError), _opened(root.parent, PurePosixPath()) as here:
        _remove_tree(root.name, here)


def keep_only(root: Path | int, patterns: Iterable[str], relative: str = "") -> None:
    """Remove everything below a folder except the regular files that match one of the patterns.

    `*` matches within a name. Raises OSError when something cannot be removed.
    """
    with _opened(root, PurePosixPath(relative)) as here:
        _keep_only(here, [PurePosixPath(pattern).parts for pattern in patterns])


def _keep_only(here: int, patterns: list[tuple[str, ...]]) -> None:
    os.fchmod(here, 0o700)

    def remove_unless_kept(entry: os.DirEntry[str]) -> bool:
        name = entry.name
        rests = [parts[1:] for parts in patterns if fnmatchcase(name, parts[0])]
        if () in rests and entry.is_file(follow_symlinks=False):
            return False
        below = [rest for rest in rests if rest]
        if below and _keep_below(name, here, below):
            return False
        _remove(name, here)
        with suppress(FileNotFoundError):
            os.lstat(name, dir_fd=here)
            raise OSError(f"{name!r} cannot be removed")
        return True

    _clear(here, remove_unless_kept)


def _keep_below(name: str, here: int, patterns: list[tuple[str, ...]]) -> bool:
    """`_keep_only` for a folder; false for anything else, and for one that cannot be opened."""
    try:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
        below = os.open(name, flags, dir_fd=here)
    except OSError:
        return False
    try:
        _keep_only(below, patterns)
    finally:
        os.close(below)
    return True


def _remove_tree(name: str, here: int) -> None:
    """Remove what can be removed of a folder.

    Its folders are moved to the top one after another: a tree can be deeper than a path is long,
    than the interpreter's stack, and than descriptors can be open.
    """
    top = open_folder(name, here)
    # No agent can know the names, and numbers take no memory: a folder can have millions.
    begin = f".rebyte-{os.urandom(8).hex()}-"
    try:
        made = _emptied(top, top, begin, 0)
        waiting = [range(made)]
        while waiting:
            if not (numbers := waiting.pop()):
                continue
            folder = f"{begin}{numbers[-1]}"
            below = open_folder(folder, top)
            try:
                more = _emptied(below, top, begin, made)
            finally:
                os.close(below)
            with suppress(OSError):
                os.rmdir(folder, dir_fd=top)
            # The newest first: much faster on ext4.
            waiting += filter(None, (numbers[:-1], range(made, more)))
            made = more
    finally:
        os.close(top)
    with suppress(OSError):
        os.rmdir(name, dir_fd=here)


def _emptied(folder: int, top: int, begin: str, made: int) -> int:
    """Remove the files of a folder, and move its folders to `top`, where so many were `made`.

    Their names there are `begin` and a number. How many were made then.
    """

    def take(entry: os.DirEntry[str]) -> bool:
        nonlocal made
        if entry.name.startswith(begin):
            return False
        with suppress(OSError):
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.name, dir_fd=folder)
                return True
            os.close(open_folder(entry.name, folder))  # one that is read-only cannot be moved
            try:
                os.rename(entry.name, f"{begin}{made}", src_dir_fd=folder, dst_dir_fd=top)
                made += 1
            except OSError as error:  # such as out of a subvolume of btrfs, or if it is encrypted
                if error.errno == errno.EBUSY:  # what is mounted there is not the agent's
                    raise
                _remove_tree(entry.name, folder)
            return True
        return False

    _clear(folder, take)
    return made


def _clear(folder: int, take: Callable[[os.DirEntry[str]], bool]) -> None:
    """Call `take`, which says whether it has removed it, with each entry of a folder.

    Raises OSError.
    """
    # Some file systems leave out entries of a long folder in which others are removed meanwhile.
    for _ in range(MOST_PASSES):
        removed = is_long = False
        with os.scandir(folder) as entries:
            while some := list(islice(entries, SOME_NAMES)):
                is_long = len(some) == SOME_NAMES or is_long
                for entry in some:
                    removed = take(entry) or removed
        if not (removed and is_long):
            return


def walk(folder: Path, *, skip: bool = False) -> Iterator[os.DirEntry[str]]:
    """Everything below a folder, and no link that it follows; most names are held only in turn.

    Raises OSError, unless it is to `skip` what cannot be read.
    """
    levels = [_entries(str(folder), skip, is_held=False)]
    while levels:
        entry = next(levels[-1], None)
        if entry is None:
            levels.pop()
            continue
        yield entry
        if entry.is_dir(follow_symlinks=False):
            levels.append(_entries(entry.path, skip, is_held=len(levels) >= MOST_OPEN))


def _entries(folder: str, skip: bool, *, is_held: bool) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from [*entries] if is_held else entries
    except OSError:
        if not skip:
            raise


def open_folder(name: str | Path, here: int | None = None) -> int:
    """A descriptor of the folder `name` in `here`, which this process may then list and change.

    Modes are changed by descriptor: a name can have become a link, and `chmod` follows links.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(name, flags, dir_fd=here)
    except PermissionError:
        unread = os.open(name, flags | _UNREAD, dir_fd=here)  # elsewhere, this fails again
        try:
            os.chmod(f"/proc/self/fd/{unread}", 0o700)
        finally:
            os.close(unread)
        descriptor = os.open(name, flags, dir_fd=here)
    try:
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        if mode & 0o700 != 0o700:
            os.fchmod(descriptor, mode | 0o700)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def clear_set_ids(name: str, here: int) -> None:
    """Clear the setuid and setgid bits of a regular file in the folder `here`. Raises OSError."""
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | _UNREAD
    descriptor = os.open(name, flags, dir_fd=here)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode):
            place = f"/proc/self/fd/{descriptor}" if _UNREAD else descriptor
            os.chmod(place, stat.S_IMODE(mode) & ~SET_IDS)
    finally:
        os.close(descriptor)


@contextmanager
def _opened(root: Path | int, path: PurePosixPath, *, make: bool = False) -> Iterator[int]:
    """A descriptor of the folder `path` below `root`. Raises OSError, unless it can be made.

    Folders that an agent has made unreadable are made readable.
    """
    here = os.dup(root) if isinstance(root, int) else open_folder(root)
    try:
        for part in path.parts:
            if make:
                _make(part, here)
            below = open_folder(part, here)
            os.close(here)
            here = below
        yield here
    finally:
        os.close(here)


def _make(part: str, here: int) -> None:
    with suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(part, dir_fd=here, follow_symlinks=False).st_mode):
            return
        os.unlink(part, dir_fd=here)
    os.mkdir(part, 0o700, dir_fd=here)
