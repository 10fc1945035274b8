"""A file that appears under its name only when it is whole."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

MODE = 0o664  # less the umask; never one that everyone may write
_DESCRIPTORS = "/proc/self/fd"


@contextmanager
def whole_file(target: Path, *, overwrite: bool, folder: int | None = None) -> Iterator[BinaryIO]:
    """A file to write to, which becomes `target` when the block ends without an exception.

    On Linux it has no name until then, so even a process that is killed leaves nothing behind.
    Elsewhere it is hidden beside the target, and deleted if the block fails. A link at `target` is
    replaced, not followed. With `folder`, a descriptor of the folder that `target` is in, only the
    name of `target` counts. Raises FileExistsError if `target` exists and `overwrite` is not set,
    and any other OSError.
    """
    with ExitStack() as stack:
        hidden = f".{target.name[:100]}.{os.urandom(6).hex()}.part"
        if sys.platform != "win32" and folder is None:
            folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, folder)
        name = str(target) if folder is None else target.name
        temporary = str(target.with_name(hidden)) if folder is None else hidden
        descriptor = _open_nameless(folder)
        is_nameless = descriptor is not None
        if descriptor is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            descriptor = os.open(temporary, flags, MODE, dir_fd=folder)
            stack.callback(_remove, temporary, folder)
        file = stack.enter_context(open(descriptor, "wb", buffering=0))
        yield file
        if is_nameless and not overwrite:
            _name(descriptor, name, folder)
            return
        if is_nameless:
            stack.callback(_remove, temporary, folder)
            _name(descriptor, temporary, folder)
        else:
            file.close()  # Windows renames no open file
        _rename(temporary, name, overwrite, folder)


def _open_nameless(folder: int | None) -> int | None:
    """A file in the folder that has no name; None where the system or the file system has none."""
    flag = getattr(os, "O_TMPFILE", None)
    if flag is None or folder is None or not os.path.exists(_DESCRIPTORS):
        return None
    try:
        return os.open(".", flag | os.O_WRONLY, MODE, dir_fd=folder)
    except OSError:  # if there is another reason, opening one with a name meets it, too
        return None


def _name(descriptor: int, name: str, folder: int | None) -> None:
    os.link(f"{_DESCRIPTORS}/{descriptor}", name, dst_dir_fd=folder, follow_symlinks=True)


def _rename(temporary: str, name: str, overwrite: bool, folder: int | None) -> None:
    if not overwrite:
        try:
            # Unlike a rename, a link fails when something has appeared there meanwhile.
            os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            return
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            pass
    os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)


def _remove(temporary: str, folder: int | None) -> None:
    with suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=folder)
