"""A journal: JSON records in a file, one a line, that outlive whatever ends the process.

Records are only ever added. A record that `commit` returned for is on the disk; records that
come at one moment share one sync. The last line may be torn by a crash and is then cut off.
The file is locked by whoever writes it, for as long as that process lives.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import RebyteError
from ...profiles.files import sync_folder
from . import journal_file as file
from .journal_file import FORMAT, MARK, Record


class JournalFailed(RebyteError):
    """The journal cannot be written any more, so nothing more may be created."""

    code = "journal"


class _Group:
    """Records that share a sync."""

    __slots__ = ("data", "done")

    def __init__(self) -> None:
        self.data = bytearray()
        self.done = threading.Event()


class Journal:
    """A journal that this process holds and writes.

    `name` is its own, wherever the file is moved. `beside` is called by the writer before each
    sync: what was handed to it before a record was committed is done when `commit` returns.
    """

    def __init__(
        self,
        path: Path,
        header: Mapping[str, Any],
        *,
        run: Mapping[str, Any],
        each: Callable[[Record], None] = lambda _record: None,
    ) -> None:
        """Open or make the journal, hold it, and note this run.

        `header` says what the journal is of: every key must be as in the file. `run` says how
        this run was started. `each` is given the records of earlier runs, in order. Raises
        BadUsage for a journal of something else or a damaged one, JournalHeld when another
        process has it, JournalFailed when it cannot be written.
        """
        self.path = path
        self.name: str | None = None
        self.beside: Callable[[], None] = lambda: None
        self._failure: JournalFailed | None = None
        self._wake = threading.Condition()
        self._group = _Group()
        self._writing: _Group | None = None
        self._closing = False
        self._handle = file.open_file(path)
        try:
            file.hold(self._handle, path)
            self._size = file.replay(path, header, partial(self._replayed, each))
            self.name = self.name or os.urandom(8).hex()
            first: list[Record] = [] if self._size else [{MARK: FORMAT, **header}]
            os.ftruncate(self._handle, self._size)
            self._write(
                file.encode([*first, {"run": {**file.identity(), "journal": self.name, **run}}])
            )
            sync_folder(path.parent)
        except OSError as error:
            os.close(self._handle)
            raise _failed(path, error) from None
        except BaseException:
            os.close(self._handle)
            raise
        self._writer = threading.Thread(target=self._work, name="journal", daemon=True)
        self._writer.start()

    def _replayed(self, each: Callable[[Record], None], record: Record) -> None:
        each(record)
        run = None if "is" in record else record.get("run")
        name = run.get("journal") if isinstance(run, Mapping) else None
        self.name = name if isinstance(name, str) else self.name

    def append(self, *records: Record) -> None:
        """Write soon; with the next commit at the latest. Raises JournalFailed once it cannot."""
        self._add(records)

    def commit(self, *records: Record) -> None:
        """Write, and return when it is on the disk. Raises JournalFailed."""
        if not records:  # nothing would ever wake the writer for it
            return
        self._add(records).done.wait()
        if self._failure is not None:
            raise self._failure

    def settle(self) -> None:
        """Return when everything appended so far is on the disk. Raises JournalFailed."""
        with self._wake:
            group = self._group if self._group.data else self._writing
        if group is not None:
            group.done.wait()
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Write what is left and let go of the file. Raises JournalFailed."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._writer.join()
        os.close(self._handle)
        if self._failure is not None:
            raise self._failure

    def _add(self, records: Iterable[Record]) -> _Group:
        data = file.encode(records)
        with self._wake:
            if self._failure is not None:
                raise self._failure
            group = self._group
            group.data += data
            self._wake.notify()
        return group

    def _work(self) -> None:
        """The writer: whatever gathered while it synced goes out together."""
        while True:
            with self._wake:
                while not self._group.data and not self._closing:
                    self._wake.wait()
                group, self._group = self._group, _Group()
                if not group.data:
                    return
                self._writing = group
            self.beside()
            try:
                self._write(bytes(group.data))
            except OSError as error:
                with self._wake:
                    self._failure = _failed(self.path, error)
                    self._group.done.set()
                group.done.set()
                return
            group.done.set()

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self._handle, left) :]
            file.sync(self._handle)
        except OSError:
            # Half a record in the middle of a file would make all of it suspect.
            with suppress(OSError):
                os.ftruncate(self._handle, self._size)
            raise
        self._size += len(data)


def _failed(path: Path, error: OSError) -> JournalFailed:
    return JournalFailed(
        f"cannot write the journal {path}: {error.strerror}",
        hint="nothing is created without it; run the same command again when it can be written",
    )
