"""One lock per input file, whatever journal a run has and by whatever name it was given the file.

A journal keeps two runs apart only if both use it. Runs of other shards, with another --journal,
through a link, or after the journal was deleted would create the same lines at the same time. So
every run holds a lock that is named after the file itself: shards of one division of the file
run side by side, anything else is refused.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import BadUsage, RebyteError
from ..system.files import check_locks, locked, persistently, take_lock
from ..system.permissions import private_folder
from .input import InputSource, journals_of

_NAME = re.compile(r"[0-9a-f]{40}\.(\d+)-of-(\d+)")


class InputHeld(RebyteError):
    """Another run is creating lines of this file. `is_same_shard`: the very same lines."""

    code = "input_held"

    def __init__(self, file: str, number: int, of: int, *, is_same_shard: bool) -> None:
        shard = "" if of == 1 else f" (shard {number}/{of})"
        super().__init__(
            f"another run is creating tasks from {file}{shard}",
            hint="Wait for it to end. Two runs at once would create lines twice.",
        )
        self.is_same_shard = is_same_shard


@contextmanager
def input_lock(folder: Path, file: str, shard: tuple[int, int], origin: str) -> Iterator[None]:
    """Hold the lock of one shard of an input file while the block runs.

    `folder` is where the locks are kept; `origin` is the service, since the same file may run on
    two. Raises InputHeld, and RebyteError if the folder cannot be used. Only a regular file has a
    lock: what a pipe holds comes once.
    """
    if not os.path.isfile(file):
        yield
        return
    found = os.stat(file)
    # Links have the device and the number of the file that they lead to.
    words = f"{origin}\0{found.st_dev}\0{found.st_ino}"
    name = hashlib.sha256(words.encode()).hexdigest()[:40]
    private_folder(folder)
    check_locks(folder)

    def take() -> Callable[[], None] | None:
        with locked(folder / "lock"):
            _refuse_others(folder, name, file, shard)
            return take_lock(folder / f"{name}.{shard[0]}-of-{shard[1]}", remove=True)

    release = persistently(take)
    if release is None:
        raise InputHeld(file, *shard, is_same_shard=True)
    try:
        yield
    finally:
        release()


def _refuse_others(folder: Path, name: str, file: str, shard: tuple[int, int]) -> None:
    for other in os.listdir(folder):
        match = _NAME.fullmatch(other)
        if match is None or not other.startswith(name) or int(match[2]) == shard[1]:
            continue
        release = take_lock(folder / other, remove=True)
        if release is None:
            raise InputHeld(file, int(match[1]), int(match[2]), is_same_shard=False)
        release()  # of a run that was killed


def refuse_other_shards(source: InputSource) -> None:
    """BadUsage when the file was begun with another number of shards: lines would run twice.

    Also for standard input without a journal, before any of it is read.
    """
    path = source.journal_path
    if source.journal is not None:
        return
    file, of = source.beside, source.shard[1]
    own = r"" if of == 1 else rf"\.\d+-of-{of}"
    own_part = re.compile(re.escape(os.path.basename(file)) + own + r"\.journal")
    for other in journals_of(file):
        if not own_part.fullmatch(other):
            raise BadUsage(
                f"{source.file} was started with another --shard: {path.with_name(other)} exists",
                hint="Its lines would get a second task. To start over, pass a new --journal.",
            )
