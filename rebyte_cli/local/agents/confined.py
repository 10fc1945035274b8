"""Files inside a folder that an agent writes to, even at this moment: its links lead nowhere.

Every step is taken from the folder before it, by its descriptor, and follows no link.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath


def folder(root: Path, relative: str) -> Path:
    """Make `relative` below `root` a real folder, in place of any link or file on the way."""
    with _opened(root, PurePosixPath(relative), make=True):
        return root / relative


def write(root: Path, relative: str, content: bytes) -> None:
    """Write a file with mode 0600, all or nothing."""
    path = PurePosixPath(relative)
    partial = f".{path.name}.new"
    with _opened(root, path.parent, make=True) as here:
        _remove(partial, here)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with open(os.open(partial, flags, 0o600, dir_fd=here), "wb") as file:
            file.write(content)
        try:
            os.replace(partial, path.name, src_dir_fd=here, dst_dir_fd=here)
        except IsADirectoryError:
            shutil.rmtree(path.name, ignore_errors=True, dir_fd=here)
            os.replace(partial, path.name, src_dir_fd=here, dst_dir_fd=here)


def read(root: Path, relative: str, most: int) -> bytes | None:
    """The content of a regular file of up to `most` bytes; None for anything else."""
    path = PurePosixPath(relative)
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with _opened(root, path.parent) as here:
            descriptor = os.open(path.name, flags, dir_fd=here)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    with open(descriptor, "rb") as file:
        content = file.read(most + 1)
    return content if len(content) <= most else None


def remove(root: Path, relative: str) -> None:
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
        shutil.rmtree(name, ignore_errors=True, dir_fd=here)


@contextmanager
def _opened(root: Path, path: PurePosixPath, *, make: bool = False) -> Iterator[int]:
    """A descriptor of the folder `path` below `root`. Raises OSError, unless it can be made."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    here = os.open(root, flags)
    try:
        for part in path.parts:
            if make:
                _make(part, here)
            below = os.open(part, flags | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = below
        yield here
    finally:
        os.close(here)


def _make(part: str, here: int) -> None:
    try:
        is_folder = stat.S_ISDIR(os.stat(part, dir_fd=here, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        is_folder = False
    else:
        if not is_folder:
            os.unlink(part, dir_fd=here)
    if not is_folder:
        os.mkdir(part, 0o700, dir_fd=here)
