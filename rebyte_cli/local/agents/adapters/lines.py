"""Reading what an agent prints, line by line, until it ends or a limit passes."""

from __future__ import annotations

import contextlib
import os
import selectors
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from ....system.durations import round_duration
from .adapter import AgentEvent, Parser

PIECE = 65_536
# Room for a whole file or a picture; to parse a line of tiny JSON values takes 30 times its size.
LONGEST_LINE = 8 * 1024 * 1024
# Of a line on stderr; to search one may take the square of its length.
LONGEST_COMPLAINT = 4_000
LARGEST_RAW = 256 * 1024 * 1024
LARGEST_ERRORS, KEPT_ERRORS = 4 * 1024 * 1024, 1024 * 1024
# How long to read on after the agent has ended: a child of it may hold the pipe open forever.
DRAIN_SECONDS = 0.5
LOOK_SECONDS = 0.2
# How long a line may wait to be read: what the agent starts after it can be older than that.
READ_SECONDS = 1.0


class TimeLimits(NamedTuple):
    """Seconds that a run may take, and seconds that it may do nothing; 0 for no limit.

    It does something if it prints a line that tells of no retry, while a tool is at work, and until
    the moment for which it has announced its next request to the model.
    """

    total: float
    silence: float


class RunningAgent(Protocol):
    """An agent whose output is read as it comes, from pipes."""

    stdout: IO[bytes] | None
    stderr: IO[bytes] | None

    def poll(self) -> int | None:
        """Its exit status; None while it runs."""


def pump(
    process: RunningAgent,
    parser: Parser,
    record: Callable[[list[AgentEvent]], None],
    raw: IO[bytes],
    errors: IO[bytes],
    limits: TimeLimits,
    watch: Callable[[], str],
    has_new: Callable[[float], bool],
) -> str:
    """Give each line to the parser and its events to `record`, and keep the bytes in `raw`.

    Its stderr is copied to `errors` (see ErrorCopy); both files are unbuffered. `watch` is called
    every 0.2 seconds, in which a fast disk takes a few hundred megabytes; it may return a reason to
    kill the agent. `has_new` tells whether it has started a process within so many seconds. Returns
    why the agent has to be killed, or an empty text when it ended by itself.
    """
    assert process.stdout is not None
    assert process.stderr is not None
    splitter, complaints = LineSplitter(parser), ErrorCopy(errors, parser)
    began = heard = watched = paused = time.monotonic()
    spoke: float | None = None
    ended: float | None = None

    def is_working(now: float) -> bool:
        """Whether a tool that the agent does not tell of seems to be at work.

        It begins after a line of the agent, whose own process would count before the first one.
        """
        if spoke is None or now - heard <= limits.silence or parser.trouble:
            return False
        return bool(limits.silence) and has_new(now - spoke + READ_SECONDS)

    def reason_to_end(now: float) -> str:
        nonlocal heard, watched
        if parser.tools or now < parser.waits_until or (parser.hides_tools and is_working(now)):
            heard = now
        reason = _passed(limits, now - began, now - heard, parser)
        if not reason and now - watched >= LOOK_SECONDS:
            reason, watched = watch(), now
        return reason

    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        selector.register(process.stderr, selectors.EVENT_READ)
        while selector.get_map():
            now = time.monotonic()
            if reason := reason_to_end(now):
                return reason
            if now - paused >= LOOK_SECONDS:
                record([*parser.pause(), *complaints.events()])
                paused = now
            if ended is None and process.poll() is not None:
                ended = now
            if ended is not None and now - ended > DRAIN_SECONDS:
                break
            for key, _ in selector.select(LOOK_SECONDS):
                piece = os.read(key.fd, PIECE)
                if not piece:
                    selector.unregister(key.fileobj)
                if key.fileobj is process.stderr:
                    complaints.add(piece)
                    continue
                if raw.tell() < LARGEST_RAW:
                    raw.write(piece)
                record(splitter.feed(piece))
                if not piece:  # it may take as long as before to end
                    heard = time.monotonic()
                elif not parser.trouble:
                    heard = spoke = time.monotonic()
        record([*splitter.end(), *parser.pause(), *complaints.events()])
    while process.poll() is None:  # it has closed both
        if reason := reason_to_end(time.monotonic()):
            return reason
        time.sleep(0.01)
    return ""


class ErrorCopy:
    """Copies an agent's stderr to a file, and gives the parser each line of it.

    Of more than 4 MiB, the file has the end.
    """

    def __init__(self, file: IO[bytes], parser: Parser) -> None:
        self._file = file
        self._path = Path(file.name)
        self._parser = parser
        self._read = 0

    def add(self, piece: bytes) -> None:
        """Copy what came."""
        self._file.write(piece)
        size = self._file.tell()
        if size > LARGEST_ERRORS:
            with self._path.open("rb") as file:
                file.seek(size - KEPT_ERRORS)
                rest = file.read()
            self._file.seek(0)
            self._file.truncate()
            self._file.write(rest)
            self._read = max(self._read - (size - KEPT_ERRORS), 0)

    def events(self) -> list[AgentEvent]:
        """The events of the lines that came since the last call; of very much text, of a part."""
        with self._path.open("rb") as file:
            file.seek(self._read)
            piece = file.read(PIECE)
        whole = piece.rfind(b"\n") + 1 or (len(piece) if len(piece) == PIECE else 0)
        self._read += whole
        lines = piece[:whole].decode("utf-8", "replace").splitlines()
        events: list[AgentEvent] = []
        for line in lines:
            with contextlib.suppress(Exception):  # the file keeps what is not understood
                events += self._parser.complain(line[:LONGEST_COMPLAINT])
        return events


class LineSplitter:
    """Cuts bytes into lines for a parser. A line that is too long is skipped."""

    def __init__(self, parser: Parser) -> None:
        self._parser = parser
        self._begun = bytearray()  # one piece: an agent can print a byte at a time
        self._size = 0

    def feed(self, piece: bytes) -> list[AgentEvent]:
        """The events of the lines that `piece` completes."""
        events: list[AgentEvent] = []
        *complete, rest = piece.split(b"\n")
        for line in complete:
            events += self._line(line)
        self._add(rest)
        return events

    def end(self) -> list[AgentEvent]:
        """The events of a last line without a newline."""
        return self._line(b"") if self._size else []

    def _add(self, part: bytes) -> None:
        if self._size <= LONGEST_LINE:
            self._begun += part
        self._size += len(part)

    def _line(self, last: bytes) -> list[AgentEvent]:
        self._add(last)
        line, size = self._begun, self._size
        self._begun, self._size = bytearray(), 0
        if size > LONGEST_LINE:
            self._parser.skip(size)
            return []
        return self._parser.feed(line.decode("utf-8", "replace").rstrip("\r"))


def _passed(limits: TimeLimits, total: float, silence: float, parser: Parser) -> str:
    if parser.hopeless:
        return f"{parser.agent} failed: {parser.hopeless}"
    if limits.total and total > limits.total:
        how = f"ran longer than its limit of {round_duration(limits.total)}"
    elif limits.silence and silence > limits.silence:
        what = "got no answer from its model" if parser.trouble else "printed nothing"
        how = f"{what} for {round_duration(limits.silence)}"
    else:
        return ""
    return ": ".join(filter(None, (f"{parser.agent} {how}", parser.last_error())))
