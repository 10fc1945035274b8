"""What a run has to record, kept in a file of its folder until the database takes it.

Another process may hold the database for longer than anyone waits: a backup, a debugger. A run
does not end for that, nor is what it printed lost if it is killed meanwhile.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from ...store import StateError, Store

FILE = "unrecorded"
# How long one attempt may hold up the agent's output, and the time between attempts.
ATTEMPT_SECONDS = 0.5
PAUSE_SECONDS = 1.0
FULL = (errno.ENOSPC, errno.EDQUOT)
# The name of what is to be recorded, and its values; `runs.record` knows them.
Record: TypeAlias = list[Any]
Result = TypeVar("Result")


class Outbox:
    """Records on their way to the database: first into `file`, then to `write`.

    `write` commits all of the given records, or none and raises StateError. Records may come a
    second time after a crash.
    """

    def __init__(self, file: Path, write: Callable[[list[Record]], None]) -> None:
        self._file = file
        self._write = write
        self._waiting: list[Record] = []
        self._next_attempt = 0.0

    def add(self, records: Iterable[Record], *, synced: bool = False) -> None:
        """Keep records and try to write all that wait. Raises OSError if the disk is full."""
        fresh = list(records)
        self._waiting += fresh
        if fresh:
            # The empty line ends one that a full disk cut off.
            lines = ["", *map(json.dumps, fresh), ""]
            missing = suppress(FileNotFoundError)  # the workspace may be deleted already
            with missing, self._file.open("ab", buffering=0) as file:
                file.write("\n".join(lines).encode())
                if synced:
                    os.fsync(file.fileno())
        self._flush()

    def finish(self) -> None:
        """Return when the database has taken everything, however long that takes."""
        patiently(self._flush_now)

    def _flush(self) -> None:
        if not self._waiting or time.monotonic() < self._next_attempt:
            return
        try:
            self._flush_now()
        except StateError as error:
            if _is_final(error):
                raise
            self._next_attempt = time.monotonic() + PAUSE_SECONDS

    def _flush_now(self) -> None:
        self._write(self._waiting)
        self._waiting = []
        with suppress(FileNotFoundError):
            os.truncate(self._file, 0)


def left_behind(folder: Path) -> list[Record]:
    """What a supervisor that was killed had not written to the database yet."""
    try:
        lines = (folder / FILE).read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []
    records = []
    for line in lines:
        with suppress(ValueError):
            records.append(json.loads(line))
    return records


def patient_store(state_dir: str) -> Store:
    """The store for a process that can wait: it asks again until the database can be used."""
    return patiently(lambda: Store(Path(state_dir), busy_seconds=ATTEMPT_SECONDS))


def patiently(action: Callable[[], Result]) -> Result:
    """Repeat `action` until the database can be used, and the disk has room for what it keeps.

    Raises StateError when the database never can be, and other OSErrors.
    """
    while True:
        try:
            return action()
        except OSError as error:
            if _is_final(error):
                raise
        time.sleep(PAUSE_SECONDS)


def _is_final(error: OSError) -> bool:
    if not isinstance(error, StateError):
        return error.errno not in FULL
    return error.damaged or not os.path.exists(error.filename)
