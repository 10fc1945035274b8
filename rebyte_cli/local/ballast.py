"""Room on the disk: how much is left, and files that give some back when there is none.

A database cannot even forget on a full disk: `cancel`, `delete` and `local reset` write before they
free anything. So a few files lie in the state folder that are of no use but to be removed then.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

NAME = "ballast"
# Their number and the bytes of each: what one command writes, with new files of SQLite's.
FILES, SIZE = 8, 1 << 20
PLENTY = 512 << 20
LEAST_BYTES, LEAST_FILES = 1 << 20, 16
FEWEST_FILES = 1000  # that an agent leaves where the file system counts them


def full_disk(folder: Path, keep_free: int) -> str:
    """Why what fills this disk has to stop, or an empty text. Raises OSError."""
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    if free < keep_free:
        return f"the disk has only {free // 10**6} MB left ([local] keep_free)"
    if keep_free and disk.f_files and disk.f_favail < min(FEWEST_FILES, disk.f_files // 10):
        return f"the disk has room for only {disk.f_favail} more files ([local] keep_free)"
    return ""


def keep(folder: Path, *, plenty: int = PLENTY) -> None:
    """Make the files, unless they are there or the disk has less than `plenty` bytes left.

    Raises nothing.
    """
    place = folder / NAME
    with suppress(OSError):
        disk = os.statvfs(folder)
        if place.exists() or disk.f_bavail * disk.f_frsize < plenty:
            return
        place.mkdir(mode=0o700)
        for number in range(FILES):
            with (place / str(number)).open("xb") as file:
                file.write(bytes(SIZE))


def make_room(folder: Path) -> None:
    """Remove the files if the disk is full. Raises nothing."""
    with suppress(OSError):
        disk = os.statvfs(folder)
        files = disk.f_favail if disk.f_files else LEAST_FILES
        if disk.f_bavail * disk.f_frsize < LEAST_BYTES or files < LEAST_FILES:
            place = folder / NAME
            for file in place.iterdir():
                file.unlink()
            place.rmdir()
