"""The journal of a batch: records that outlive whatever ends the process.

Records are only ever appended. A record that `commit` returned for is on the disk; records of one
moment are a group, written together and synced once. The writer holds a lock on the file for as
long as its process lives.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import BadUsage, RebyteError
from ..system.deadline import NO_LIMIT, Deadline
from ..system.files import check_locks, persistently, sync_folder, write_all
from ..system.locks import flock
from ..system.permissions import check_private
from .journal_format import FORMAT, GROUP, MARK, Record, encode, parse, replay

LINGER = 0.01  # seconds that records nothing waits for may gather; a commit mostly follows at once


class JournalHeld(RebyteError):
    """Another process is writing this journal."""

    code = "journal_held"

    def __init__(self, path: Path, run: str) -> None:
        super().__init__(
            f"another run is using the journal {path}: {run}",
            hint="Wait for it to end; --status shows its progress.",
        )


class JournalFailed(RebyteError):
    """The journal cannot be written any more, so nothing more may be created."""

    code = "journal"


class _SyncGroup:
    """Records that share a sync. `is_awaited`: a thread waits for it.

    `done` is set when it is on the disk, or the writer failed.
    """

    __slots__ = ("data", "done", "due", "is_awaited", "records")

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.data = bytearray()
        self.is_awaited = False
        self.due = NO_LIMIT
        self.done = threading.Event()


class Journal:
    """A journal that this process holds and writes.

    `name` stays the same wherever the file is moved. `after_write` is called by the writer with the
    records of each group, when they are on the disk and before `commit` returns.
    """

    def __init__(
        self,
        path: Path,
        header: Mapping[str, Any],
        *,
        run: Mapping[str, Any],
        each: Callable[[Record], None] = lambda _record: None,
        begins_with: Callable[[Record], bool] = lambda _mark: False,
        loose: Collection[str] = (),
        linger: float = LINGER,
    ) -> None:
        """Open or create the journal, lock it, and record this run.

        `header` says what the journal belongs to: every key must be as in the file, except that
        its input may have grown since the run before, and the `loose` keys may differ. `run` says
        how this run was started; `run["input"]` is the mark of its input, and `begins_with` whether
        the input of this run begins with that of a mark. `each` is given the records of earlier
        runs, in order. Raises BadUsage for a journal of something else or a damaged one,
        JournalHeld when another process has it, JournalFailed when it cannot be written. What
        nothing waits for is written within `linger` seconds.
        """
        self.path = path
        self._linger = linger
        self._file = Path(os.path.realpath(path))
        self.name: str | None = None
        self.after_write: Callable[[Sequence[Record]], None] = lambda _records: None
        self._failure: RebyteError | None = None
        self._wake = threading.Condition()
        self._group = _SyncGroup()
        self._writing: _SyncGroup | None = None
        self._closing = False
        self._handle = open_file(path)
        try:
            check_locks(self._file.parent)
            hold(self._handle, path)
            found = os.fstat(self._handle).st_size
            self._size = replay(path, header, partial(self._replayed, each), begins_with, loose)
            if os.fstat(self._handle).st_size != found:
                raise JournalHeld(path, _last_run(path))
            self.name = self.name or os.urandom(8).hex()
            begin = GROUP if self._size else encode([{MARK: FORMAT, **header}])
            if found > self._size:
                os.ftruncate(self._handle, self._size)
            this = {"run": {**identity(), "journal": self.name, "groups": True, **run}}
            self._write(begin + encode([this]))
            sync_folder(self._file.parent)
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
        """Write soon; with the next commit at the latest. Raises JournalFailed."""
        data = encode(records)
        with self._wake:
            self._add(data, records)

    def commit(self, *records: Record) -> None:
        """Write, and return when it is on the disk. Raises JournalFailed."""
        if not records:
            return
        data = encode(records)
        with self._wake:
            group = self._add(data, records)
            self._await(group)
        group.done.wait()
        if self._failure is not None:
            raise self._failure

    def sync(self) -> None:
        """Return when everything appended so far is on the disk. Raises JournalFailed."""
        with self._wake:
            group = self._group if self._group.data else self._writing
            if group is not None:
                self._await(group)
        if group is not None:
            group.done.wait()
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Write what is left and let go of the file, once. Raises JournalFailed."""
        if self._closing:
            return
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._writer.join()
        try:
            if self._failure is None:
                self._keep_in_place()
        except (OSError, RebyteError) as error:
            self._failure = _failed(self.path, error)
        os.close(self._handle)
        if self._failure is not None:
            raise self._failure

    def _add(self, data: bytes, records: Sequence[Record]) -> _SyncGroup:
        """Put records into the group that is written next. The caller holds the lock."""
        if self._failure is not None:
            raise self._failure
        group = self._group
        if not group.data:
            group.due = Deadline(self._linger)
            self._wake.notify()
        group.data += data
        group.records += records
        return group

    def _await(self, group: _SyncGroup) -> None:
        """Have a group written at once. The caller holds the lock."""
        if not group.is_awaited:
            group.is_awaited = True
            self._wake.notify()

    def _work(self) -> None:
        """The writer's thread: what gathered during one sync goes out with the next."""
        while True:
            with self._wake:
                while not (self._closing or self._group.is_awaited or self._group.due.has_passed):
                    self._wake.wait(self._group.due.left() if self._group.data else None)
                group, self._group = self._group, _SyncGroup()
                if not group.data:
                    return
                self._writing = group
            try:
                self._write(GROUP + group.data)
                self.after_write(group.records)
            except Exception as error:  # whatever it is: all others wait for this thread
                with self._wake:
                    self._failure = _failed(self.path, error)
                    self._group.done.set()
                group.done.set()
                return
            group.done.set()

    def _write(self, data: bytes) -> None:
        self._refuse_strangers()
        try:
            write_all(self._handle, data)
            sync(self._handle)
        except OSError:
            # Half a record in the middle of a file would make all of it suspect.
            with suppress(OSError):
                os.ftruncate(self._handle, self._size)
            raise
        self._size += len(data)
        self._keep_in_place()
        self._refuse_strangers()

    def _refuse_strangers(self) -> None:
        """Raise JournalFailed if the file has records that are not ours, or lost some.

        The lock keeps other runs away; this notices one that it did not keep away, before either
        of them has sent what the other one is about to send.
        """
        size = os.fstat(self._handle).st_size
        if size > self._size:
            raise JournalFailed(
                f"another run is writing the journal {self.path}, in spite of its lock",
                hint="Wait for it to end. Keep the journal on a local disk with --journal PATH.",
            )
        if size < self._size:
            raise JournalFailed(
                f"the journal {self.path} was cut short during this run",
                hint="Restore it from a backup before the next run. Without its records, lines"
                " would be created twice.",
            )

    def _keep_in_place(self) -> None:
        """Put the journal back if it was deleted: the next run would create its lines again.

        Raises OSError, and JournalFailed if another file took its place; what is known is then
        kept beside it.
        """
        with suppress(OSError):
            if os.path.samestat(os.stat(self.path), os.fstat(self._handle)):
                return
        try:
            self._copy_to(self._file)
        except FileExistsError:
            beside = self._file.with_name(f"{self._file.name}.{self.name}")
            self._copy_to(beside)
            raise JournalFailed(
                f"the journal {self.path} was replaced by another file during this run",
                hint=f"What this run did is in {beside}. Move it back before the next run: without"
                " it, lines would be created twice.",
            ) from None

    def _copy_to(self, path: Path) -> None:
        """Go on in a new file with the same records, locked as before. Raises OSError."""
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        try:
            hold(handle, path)
            with open(os.dup(self._handle), "rb") as before:
                before.seek(0)
                write_all(handle, before.read(self._size))
            sync(handle)
            sync_folder(path.parent)
        except BaseException:
            os.close(handle)
            raise
        os.close(self._handle)
        self._handle = handle


def _failed(path: Path, error: Exception) -> RebyteError:
    if isinstance(error, RebyteError):
        return error
    why = "out of memory" if isinstance(error, MemoryError) else repr(error)
    why = str(error.strerror) if isinstance(error, OSError) else why
    return JournalFailed(
        f"cannot write the journal {path}: {why}",
        hint="Nothing is created without it. Run the same command again once it can be written.",
    )


def identity() -> Record:
    """Who this process is, for a process that finds the journal locked."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": now}


def open_file(path: Path) -> int:
    """Open or create the file, for its owner alone. Raises BadUsage when that fails.

    A file that other users can change is refused; its folder may be that of a group.
    """
    check_private(path, shared_folder=True)
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        raise BadUsage(
            f"cannot write the journal {path}: {error.strerror}",
            hint="To keep it elsewhere, pass --journal PATH.",
        ) from None


def hold(handle: int, path: Path) -> None:
    """Lock the file until the handle is closed. JournalHeld names the process that has it."""
    if not persistently(lambda: _lock(handle, path)):  # `holder` too takes it for a moment
        raise JournalHeld(path, _last_run(path))


def holder(path: Path) -> str | None:
    """Who has the file now, found out by trying to lock it; None when it is free."""
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        return None if _lock(handle, path) else _last_run(path)
    except BadUsage:
        return None
    finally:
        os.close(handle)


def _last_run(path: Path) -> str:
    run: Record = {}
    with suppress(OSError):
        for line in path.read_bytes().splitlines(keepends=True):
            run = (parse(line) or {}).get("run") or run
    if not run:
        return "it has just started"
    return f"pid {run.get('pid')} on {run.get('host')}, since {run.get('since')}"


def _lock(handle: int, path: Path) -> bool:
    """Take the lock, which ends with the process; False when another process has it.

    Without locks two runs could create every line twice, so a file system without them is
    refused.
    """
    import errno

    try:
        flock(handle, wait=False)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise BadUsage(
            f"{path} cannot be locked against a second run: {error.strerror}",
            hint="Keep it on a local disk with --journal PATH.",
        ) from None
    return True


def sync(handle: int) -> None:
    """Make what was written survive a power cut."""
    if sys.platform == "darwin":
        import fcntl

        with suppress(OSError):  # some file systems do not support it
            fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
            return
        os.fsync(handle)
    else:
        os.fdatasync(handle)
