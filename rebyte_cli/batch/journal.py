"""A journal: JSON records in a file, one a line, that outlive whatever ends the process.

Records are only ever added. A record that `commit` returned for is on the disk; records that
come at one moment share one sync. The last line may be torn by a crash and is then cut off.
The file is locked by whoever writes it, for as long as that process lives.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import sleep
from typing import Any

from ..config.atomic import lock, sync_folder
from ..errors import BadUsage, RebyteError

# -- The file of a journal: what in it is whole, whose it is, who has it locked.

FORMAT = 1
MARK = "rebyteBatch"
Record = dict[str, Any]
_FIRST = f'{{"{MARK}":'.encode()
_WORDS = {"input": "input: the file, or its template, was changed"}


class JournalHeld(RebyteError):
    """Another process is writing this journal."""

    code = "journal_held"


def replay(path: Path, header: Mapping[str, Any], each: Callable[[Record], None]) -> int:
    """Give every record after the header to `each`; returns the length of the whole part.

    0 for a file that is empty or holds no more than a torn header. Raises BadUsage when it is no
    journal, one of something else than `header`, or damaged: something whole after something
    broken is not the trace of a crash, nor is a record that `each` refuses with a ValueError.
    One of something else that tells of no task counts as empty: nothing can come twice by it.
    """
    if path.exists() and not path.is_file():  # a device has no end, and a pipe keeps us waiting
        raise BadUsage(f"the journal {path} is not a regular file")
    data = path.read_bytes()
    if data and not (data.startswith(_FIRST) or _FIRST.startswith(data.rstrip(b"\0"))):
        raise BadUsage(f"{path} is not the journal of a batch", hint="it was left as it is")
    size = torn_at = 0
    other: BadUsage | None = None
    open_lines: set[Any] = set()
    for number, line in enumerate(data.splitlines(keepends=True), 1):
        record = _parse(line)
        if record is None:
            torn_at = torn_at or number
            continue
        if torn_at:
            raise _damaged(path, torn_at)
        if size == 0:
            other = _differs(path, record, header)
        elif other is not None:
            if not _tells_nothing(record, open_lines):
                raise other
        else:
            try:
                each(record)
            except ValueError:
                raise _damaged(path, number) from None
        size += len(line)
    if open_lines and other is not None:
        raise other
    return size if other is None else 0


def _tells_nothing(record: Record, open_lines: set[Any]) -> bool:
    """Whether a record leaves open that no task was ever made; notes lines that were begun."""
    line, state = str(record.get("line")), record.get("is")
    if state == "sending":
        open_lines.add(line)
    elif state == "unsent":
        open_lines.discard(line)
    return "run" in record or state in ("sending", "unsent")


def _damaged(path: Path, number: int) -> BadUsage:
    return BadUsage(
        f"line {number} of the journal {path} is damaged",
        hint="restore it from a backup; without its records, lines would be sent twice",
    )


def _differs(path: Path, found: Record, header: Mapping[str, Any]) -> BadUsage | None:
    """What to say of a journal whose first record is not what `header` says.

    Raises it for a format that cannot be read.
    """
    if found.get(MARK) != FORMAT:
        raise BadUsage(
            f"{path} has the format {found.get(MARK)!r}, which this version cannot read",
            hint="--journal PATH names another",
        )
    for name, value in header.items():
        if found.get(name) != value:
            which = "" if name == "input" else f": {found.get(name)}, not {value}"
            return BadUsage(
                f"the journal {path} is of another {_WORDS.get(name, name)}{which}",
                hint="to begin anew, with another task for every line: --journal PATH",
            )
    return None


def _parse(line: bytes) -> Record | None:
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def encode(records: Iterable[Mapping[str, Any]]) -> bytes:
    """Records as they stand in the file."""
    return b"".join(
        json.dumps(record, separators=(",", ":")).encode() + b"\n" for record in records
    )


def identity() -> Record:
    """Who this process is, for whoever finds the journal locked."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": now}


def open_file(path: Path) -> int:
    """Open or make the file, for its owner alone; BadUsage when that cannot be."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        raise BadUsage(
            f"cannot write the journal {path}: {error.strerror}",
            hint="--journal PATH puts it elsewhere",
        ) from None


def hold(handle: int, path: Path) -> None:
    """Keep the file until the handle is closed; JournalHeld says who has it otherwise."""
    for _ in range(10):  # whoever asks who has it takes it for a moment
        if _lock(handle, path):
            return
        sleep(0.02)
    raise JournalHeld(
        f"another run has the journal {path}: {_last_run(path)}",
        hint="wait for it to end; --status shows how far it is",
    )


def holder(path: Path) -> str | None:
    """Who has the file now, found out by trying to take it; None for nobody."""
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
            run = (_parse(line) or {}).get("run") or run
    if not run:
        return "it has just begun"
    return f"pid {run.get('pid')} on {run.get('host')}, since {run.get('since')}"


def _lock(handle: int, path: Path) -> bool:
    """Take the lock, which ends with the process; False when another process has it.

    Without locks two runs could create every line twice, so a file system that has none is
    refused.
    """
    import errno

    try:
        lock(handle, at=1 << 40)  # far behind the end, so that others can still read the file
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK):
            return False
        raise BadUsage(
            f"{path} cannot be locked against a second run: {error.strerror}",
            hint="--journal PATH on a local disk",
        ) from None
    return True


def sync(handle: int) -> None:
    """Put what was written on the disk itself, through a power cut."""
    if sys.platform == "darwin":
        import fcntl

        with suppress(OSError):  # some file systems do not know it; then fsync is what there is
            fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
            return
        os.fsync(handle)
    elif hasattr(os, "fdatasync"):
        os.fdatasync(handle)
    else:
        os.fsync(handle)


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
        self._handle = open_file(path)
        try:
            hold(self._handle, path)
            self._size = replay(path, header, partial(self._replayed, each))
            self.name = self.name or os.urandom(8).hex()
            first: list[Record] = [] if self._size else [{MARK: FORMAT, **header}]
            os.ftruncate(self._handle, self._size)
            self._write(encode([*first, {"run": {**identity(), "journal": self.name, **run}}]))
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
        data = encode(records)
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
            sync(self._handle)
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
