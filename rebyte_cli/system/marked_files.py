"""Files of ours where other programs look for them, known by a mark in each of their versions.

One without the mark is another author's: it is neither replaced nor removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from ..errors import BadUsage, RebyteError
from .files import content_of, write_shared
from .permissions import private_folder

HEAD = 200  # bytes at the beginning of a file, in which the mark is


def install(files: Mapping[Path, bytes], mark: bytes) -> list[tuple[Path, bool]]:
    """Write each file that is not up to date: each, and whether it changed.

    Raises BadUsage, before one is written, if a file without the mark is in the way, and
    RebyteError if one cannot be read or written.
    """
    present = {path: content_of(path) for path in files}
    for path, content in present.items():
        if content and mark not in content[:HEAD]:
            hint = "Move it away, then try again"
            raise BadUsage(f"{path} was not written by rebyte", hint=hint)
    changed = [path for path in files if present[path] != files[path]]
    for path in changed:
        private_folder(path.parent)
        if path.is_symlink():  # it may lead to a file of another environment
            _remove(path)
        write_shared(path, files[path])
    return [(path, path in changed) for path in files]


def uninstall(paths: Iterable[Path], mark: bytes) -> list[tuple[Path, bool]]:
    """Remove the files with the mark, and their folders that are then empty.

    Returns each path, and whether a file was removed. Raises RebyteError if one cannot be.
    """
    done = []
    for path in paths:
        # We make no links; pipx does, to the files in its environment of the command.
        is_ours = path.is_file() and not path.is_symlink() and mark in content_of(path)[:HEAD]
        if is_ours:
            _remove(path)
            with suppress(OSError):  # it has something else in it
                path.parent.rmdir()
        done.append((path, is_ours))
    return done


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except OSError as error:
        raise RebyteError(f"cannot remove {path}: {error.strerror}") from None
