"""The file of a journal: what in it is whole, whose it is, who has it locked."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from time import sleep
from typing import Any

from ...errors import BadUsage, RebyteError
from ...profiles.files import lock

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
