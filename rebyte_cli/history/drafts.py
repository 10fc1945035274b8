"""Prompts written in an editor, kept in the state folder until their task exists.

The editor works on the draft itself, so whatever it has saved survives the end of this command,
however that ends.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ..errors import RebyteError
from ..system.files import sync_folder, take_lock
from ..system.permissions import private_folder

ENDING = ".md"
EMPTY_FOR = 86_400.0  # seconds after which a draft without text is removed


class Draft:
    """One prompt in a file. `discard` deletes it, once the task that it is for exists."""

    def __init__(self, path: Path, release: Callable[[], None] = lambda: None) -> None:
        """`release` lets go of the lock that says that a command works on the draft."""
        self.path = path
        self.is_discarded = False
        self._release = release

    def discard(self) -> None:
        """Delete the file. One that cannot be deleted stays, which loses nothing."""
        self.is_discarded = True
        with suppress(OSError):
            self.path.unlink()

    @property
    def is_empty(self) -> bool:
        """Whether there is no text in it, or it was discarded."""
        try:
            return self.is_discarded or not self.path.stat().st_size
        except OSError:
            return True

    def append(self, data: bytes) -> None:
        """Add text. Where there is no room for all of it, there is no draft."""
        if self.is_discarded:
            return
        try:
            with open(self.path, "ab") as file:
                file.write(data)
        except OSError:
            self.discard()

    def sync(self) -> None:
        """Make what the editor saved survive a power cut."""
        with suppress(OSError), open(self.path, "rb") as file:
            os.fsync(file.fileno())
        sync_folder(self.path.parent)

    def close(self) -> None:
        """Let others see the draft as one that no command works on."""
        self._release()


def new(folder: Path, name: str, text: str) -> Draft:
    """A draft in `folder` that starts with `text`; `name` is the command that it is for.

    Where the folder cannot be written, the draft is in a temporary folder instead. Raises
    RebyteError where neither can be.
    """
    stem = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{os.urandom(2).hex()}"
    try:
        private_folder(folder)
        release = take_lock(_lock_of(folder / f"{stem}{ENDING}"), remove=True)
        return Draft(_made(folder / f"{stem}{ENDING}", text), release or (lambda: None))
    except (OSError, RebyteError):
        import tempfile

        try:
            other = Path(tempfile.mkdtemp(prefix="rebyte-"))
            return Draft(_made(other / f"{stem}{ENDING}", text))
        except OSError as problem:
            raise RebyteError(f"cannot create a file for the prompt: {problem.strerror}") from None


def opened(folder: Path, path: str) -> Draft | None:
    """The draft that `path` is, or None for any other file."""
    file = Path(os.path.realpath(path))
    if file.suffix != ENDING or file.parent != Path(os.path.realpath(folder)):
        return None
    return Draft(file)


def unsent(folder: Path) -> list[Path]:
    """The drafts that no command works on, newest first; old ones without text are deleted."""
    found = []
    try:
        paths = [entry for entry in folder.iterdir() if entry.suffix == ENDING]
    except OSError:
        return []
    for path in paths:
        try:
            status = path.stat()
            release = take_lock(_lock_of(path), remove=True)
        except (OSError, RebyteError):
            continue
        if release is None:
            continue
        if status.st_size:
            found.append((status.st_mtime, path))
        elif time.time() - status.st_mtime > EMPTY_FOR:
            with suppress(OSError):
                path.unlink()
        release()
    return [path for _, path in sorted(found, reverse=True)]


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.stem}.lock")


def _made(path: Path, text: str) -> Path:
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
        file.write(text)
    return path
