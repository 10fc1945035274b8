"""Files inside a folder that an agent has written to: links that it left there are not followed.

No run of the workspace is under way when these are called, so a check holds until it is used.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path, PurePosixPath


def folder(root: Path, relative: str) -> Path:
    """Make `relative` below `root` a real folder, in place of any link or file on the way."""
    path = root
    for part in PurePosixPath(relative).parts:
        path = path / part
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            path.mkdir(mode=0o700)
            continue
        if not stat.S_ISDIR(mode):
            path.unlink()
            path.mkdir(mode=0o700)
    return path


def write(root: Path, relative: str, content: bytes) -> None:
    """Write a file with mode 0600, all or nothing."""
    name = PurePosixPath(relative)
    parent = folder(root, str(name.parent))
    target, partial = parent / name.name, parent / f".{name.name}.new"
    remove(root, str(name.parent / partial.name))
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target, ignore_errors=True)
    os.replace(partial, target)


def read(root: Path, relative: str, most: int) -> bytes | None:
    """The content of a regular file of up to `most` bytes; None for anything else."""
    path = root
    for part in PurePosixPath(relative).parts:
        path = path / part
        if path.is_symlink():
            return None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > most:
            return None
        return os.read(descriptor, most)
    finally:
        os.close(descriptor)


def remove(root: Path, relative: str) -> None:
    """Remove a file or a link, if it is there and no link leads to it."""
    path = root
    parts = PurePosixPath(relative).parts
    for part in parts[:-1]:
        path = path / part
        if path.is_symlink():
            return
    path = path / parts[-1]
    try:
        path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (IsADirectoryError, PermissionError):
        shutil.rmtree(path, ignore_errors=True)
