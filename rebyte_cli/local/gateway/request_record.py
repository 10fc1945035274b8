"""The record of what went through a gateway: one line of JSON for each request.

A line is written when its request has ended. A request to a model has earlier ones, with the same
`id`: before it goes out, and as its answer says what it used, a few times a second at most. So a
gateway that is killed has recorded all that the agent was told, or more. The last line counts. What
a request said is in it as far as it is harmless: host, port, method and path (of one to a model,
what follows the base URL), but no query, header or body. What has its default is left out.

A program in the sandbox can fill the disk. So the file is longer than its lines while a gateway
writes it: zeros at its end keep room for the last line of each request that went out.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...system.locks import flock

FILE = "network.jsonl"  # in the folder of a run
# The option that would let a request pass which was refused because nothing of the budget is left.
BUDGET = "--budget"
LOGIN = "login"  # instead of an option: the model refused the user's own login
# Programs in a sandbox can make requests without end. Those that went out are always recorded, also
# if they were refused then, and of each kind of the others so many.
MOST_LINES = 10_000
LONGEST_TEXT = 300  # characters of a path or a reason
PIECE = 1024 * 1024  # bytes that are read of a record at a time; more than there are zeros
LONGEST_LINE = 4096  # bytes that are kept for one
FREE_SECONDS = 5.0  # for the gateway of a supervisor that was killed to end
STEP = 16 * 1024  # bytes by which the file grows


class RequestEntry(NamedTuple):
    """One request: `time` in milliseconds since the epoch, `seconds` until its end.

    `sent` and `received` are the bytes of its body and of its answer, or all bytes of a tunnel
    (CONNECT). `status` is 0 if nothing was answered. `refused` is why the gateway did not pass it
    on, and `option` the option that would let it, or LOGIN; `fault` is what went wrong outside.
    `usage` has the tokens that `model` counted (see model_usage.py). `route` is the name of the
    ModelRoute of a request that makes a model work, and `asked` the model that it names, if that is
    certain. `refused_for` is the seconds for which requests are refused from then on, because a
    usage limit is reached. `uncounted` are the tokens for which a request counts beyond `usage`
    because the model did not say what it used (see model_budget.py); while `is_open`, it still may.
    """

    time: int
    host: str
    port: int
    method: str
    path: str
    status: int = 0
    sent: int = 0
    received: int = 0
    seconds: float = 0.0
    refused: str | None = None
    option: str | None = None
    fault: str | None = None
    usage: Mapping[str, Any] | None = None
    model: str | None = None
    id: str | None = None
    refused_for: float | None = None
    uncounted: Mapping[str, int] | None = None
    is_open: bool = False
    route: str | None = None
    asked: str | None = None

    @property
    def place(self) -> str:
        """`host` for the usual ports, otherwise `host:port`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port in (0, 80, 443) else f"{host}:{self.port}"


_DEFAULTS = RequestEntry._field_defaults


class RefusedHost(NamedTuple):
    """How often requests to a host were refused, why (the last time), and what would allow them."""

    requests: int
    reason: str
    option: str | None


class RequestRecord:
    """The record, for the gateway that writes it. For several threads."""

    def __init__(self, path: str, patience: float = FREE_SECONDS) -> None:
        """Append to the file, which is made for the user alone. Raises OSError.

        Its lock tells those who wait for its end that this process lives, and keeps others out,
        which would write over these lines. One that is about to end has `patience` seconds for it.
        """
        from ...system.files import persistently

        self._file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        if not persistently(self._is_alone, patience):
            os.close(self._file)
            raise BlockingIOError(errno.EAGAIN, "another gateway of the run is at work")
        self._lock = threading.Lock()
        self._refusals = Counter[str]()  # by kind
        self._end = self._allocated = os.fstat(self._file).st_size
        self._kept = 0  # lines that there has to be room for

    def _is_alone(self) -> bool:
        try:
            flock(self._file, wait=False)
        except BlockingIOError:
            return False
        except (ImportError, OSError):
            pass  # there are no locks
        return True

    def keep_room(self) -> bool:
        """Keep room for the last line of a request, for `add`; False if the disk has none."""
        with self._lock:
            if not self._has_room(LONGEST_LINE):
                return False
            self._kept += 1
            return True

    def add(self, entry: RequestEntry, *, synced: bool = True, was_kept: bool = False) -> bool:
        """Write one line; whether it is in the record now.

        `was_kept` for the one that room was kept for. A disk that is full is no reason to end a
        request that went out.
        """
        with self._lock:
            self._kept -= was_kept
            if entry.refused is not None and entry.id is None and not entry.sent:
                # By option: those of one kind must not use up the lines of another.
                kind = (entry.option or "").partition(" ")[0]
                self._refusals[kind] += 1
                if self._refusals[kind] > MOST_LINES:
                    return False
                if self._refusals[kind] == MOST_LINES:
                    reason = "no further refusals of this kind are recorded"
                    entry = RequestEntry(now(), "", 0, "", "", refused=reason)
            document = {
                name: printable(value) if isinstance(value, str) else value
                for name, value in entry._asdict().items()
                if name not in _DEFAULTS or value != _DEFAULTS[name]
            }
            is_paid = entry.usage is not None or entry.uncounted is not None
            # The empty line ends one that a kill cut off, and zeros of an earlier gateway.
            return self._write(b"\n%b\n" % json.dumps(document).encode(), synced and is_paid)

    def _write(self, line: bytes, synced: bool) -> bool:
        if not self._has_room(len(line)):
            return False
        try:
            os.lseek(self._file, self._end, os.SEEK_SET)
            if os.write(self._file, line) < len(line):
                return False  # the next one is written over it
            self._end += len(line)
            if synced:
                os.fsync(self._file)  # what was paid for is known after a power cut, too
        except OSError:
            return False
        return True

    def _has_room(self, size: int) -> bool:
        """Whether the file has, or gets, so many bytes more than those that are kept."""
        needed = self._end + size + self._kept * LONGEST_LINE
        if needed <= self._allocated or sys.platform != "linux":
            return True
        needed += -needed % STEP
        try:
            os.posix_fallocate(self._file, self._allocated, needed - self._allocated)
        except OSError as error:
            # Not every file system can.
            return error.errno in (errno.EINVAL, errno.EOPNOTSUPP)
        self._allocated = needed
        return True

    def end(self) -> None:
        """Give back the room that no line needed."""
        with self._lock, contextlib.suppress(OSError):
            os.ftruncate(self._file, self._end)
            self._allocated = self._end


def read(path: Path | str) -> list[RequestEntry]:
    """The requests of a record, also while it is being written. None for a file that is missing.

    A line that is torn, or not of this form, is left out.
    """
    found: dict[object, RequestEntry] = {}
    for number, entry in enumerate(_lines(path)):
        found[entry.id or number] = entry
    return list(found.values())


def last_asked(path: Path | str) -> RequestEntry | None:
    """The request to a model that began last; None if there was none."""
    known = set[str]()
    last: RequestEntry | None = None
    for entry in _lines(path):
        if entry.id is not None and (entry.id not in known or (last and last.id == entry.id)):
            known.add(entry.id)
            last = entry
    return last


def refused(path: Path | str) -> Iterator[RequestEntry]:
    """The requests that were refused: thousands at most, among millions that were not."""
    return (entry for entry in _lines(path) if entry.refused is not None)


def _lines(path: Path | str) -> Iterator[RequestEntry]:
    return (entry for entries, _ in read_from(path, 0) for entry in entries)


def read_from(path: Path | str, at: int) -> Iterator[tuple[list[RequestEntry], int]]:
    """Every line from the byte `at` on, as `read`, in pieces: each also with where it ends."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        file.seek(at)
        while whole := (data := file.read(PIECE)).rfind(b"\n") + 1:
            at += whole
            file.seek(at)
            yield list(_entries(data[:whole])), at


def _entries(lines: bytes) -> Iterator[RequestEntry]:
    for line in lines.split(b"\n"):
        with contextlib.suppress(ValueError, TypeError, AttributeError):
            document = json.loads(line)
            known = {k: v for k, v in document.items() if k in RequestEntry._fields}
            yield RequestEntry(**known)


def wait_until_complete(path: Path | str, seconds: float) -> bool:
    """Wait until no gateway writes to a record any more; False if one still does.

    A gateway outlives a supervisor that was killed by a moment, in which an answer may come.
    """
    from ...system.files import flocked, persistently

    def is_complete() -> bool:
        try:
            with flocked(path, wait=False):
                return True
        except BlockingIOError:
            return False
        except OSError:
            return True  # there is none

    return persistently(is_complete, seconds)


def refusals(path: Path | str) -> dict[str, RefusedHost]:
    """The hosts that requests were refused to, in the order of their first refusal.

    The key is `host`, or `host:port` for an unusual port; empty where a request named no host.
    """
    found: dict[str, RefusedHost] = {}
    for entry in refused(path):
        if entry.option not in (BUDGET, LOGIN):  # said once
            count = found[entry.place].requests if entry.place in found else 0
            found[entry.place] = RefusedHost(count + 1, str(entry.refused), entry.option)
    return found


def now() -> int:
    """Milliseconds since the epoch."""
    return int(time.time() * 1000)


def printable(text: str) -> str:
    """The text, shortened, with every character that is not plain ASCII replaced by `?`."""
    short = text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"
    return "".join(c if " " <= c <= "~" or c == "…" else "?" for c in short)
