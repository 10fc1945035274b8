"""Reading what an agent prints, line by line, until it ends or a limit passes."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections.abc import Callable
from typing import IO, NamedTuple

from .adapter import AgentEvent, Parser

PIECE = 65_536
# Room for a whole file or a picture; to parse a line of tiny JSON values takes 30 times its size.
LONGEST_LINE = 8 * 1024 * 1024
LARGEST_RAW = 256 * 1024 * 1024
# How long to read on after the agent has ended: a child of it may hold the pipe open forever.
DRAIN_SECONDS = 0.5
LOOK_SECONDS = 0.2


class RunLimits(NamedTuple):
    """Seconds that a run may take, and seconds that it may print nothing; 0 for no limit."""

    total: float
    silence: float


def pump(
    process: subprocess.Popen[bytes],
    parser: Parser,
    record: Callable[[list[AgentEvent]], None],
    raw: IO[bytes],
    limits: RunLimits,
    watch: Callable[[], str],
) -> str:
    """Give each line to the parser and its events to `record`, and keep the bytes in `raw`.

    `watch` is called every 0.2 seconds, in which a fast disk takes a few hundred megabytes; it may
    return a reason to kill the agent. Returns why the agent has to be killed, or an empty text when
    it ended by itself.
    """
    assert process.stdout is not None
    splitter = LineSplitter(parser)
    descriptor, kept = process.stdout.fileno(), 0
    began = heard = watched = paused = time.monotonic()
    ended: float | None = None

    def reason_to_end(now: float) -> str:
        nonlocal watched
        reason = _passed(limits, now - began, now - heard, parser)
        if not reason and now - watched >= LOOK_SECONDS:
            reason, watched = watch(), now
        return reason

    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            now = time.monotonic()
            if reason := reason_to_end(now):
                return reason
            if now - paused >= LOOK_SECONDS:
                record(parser.pause())
                paused = now
            if ended is None and process.poll() is not None:
                ended = now
            if ended is not None and now - ended > DRAIN_SECONDS:
                break
            if not selector.select(LOOK_SECONDS):
                continue
            piece = os.read(descriptor, PIECE)
            if not piece:
                break
            heard = time.monotonic()
            if kept < LARGEST_RAW:
                raw.write(piece)
                raw.flush()
                kept += len(piece)
            record(splitter.feed(piece))
        record([*splitter.end(), *parser.pause()])
    heard = time.monotonic()
    while process.poll() is None:  # it has closed its output, and may take as long as before
        if reason := reason_to_end(time.monotonic()):
            return reason
        time.sleep(0.01)
    return ""


class LineSplitter:
    """Cuts bytes into lines for a parser. A line that is too long is skipped."""

    def __init__(self, parser: Parser) -> None:
        self._parser = parser
        self._parts: list[bytes] = []
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
        return self._line(b"") if self._parts else []

    def _add(self, part: bytes) -> None:
        if part and self._size <= LONGEST_LINE:
            self._parts.append(part)
        self._size += len(part)

    def _line(self, last: bytes) -> list[AgentEvent]:
        self._add(last)
        line, size = b"".join(self._parts), self._size
        self._parts, self._size = [], 0
        if size > LONGEST_LINE:
            self._parser.skip(size)
            return []
        return self._parser.feed(line.decode("utf-8", "replace").rstrip("\r"))


def _passed(limits: RunLimits, total: float, silence: float, parser: Parser) -> str:
    if parser.hopeless:
        return f"{parser.agent} failed: {parser.hopeless}"
    if limits.total and total > limits.total:
        return f"{parser.agent} ran longer than its limit of {span(limits.total)}"
    if limits.silence and silence > limits.silence:
        return f"{parser.agent} printed nothing for {span(limits.silence)}"
    return ""


def span(seconds: float) -> str:
    """A duration as it is written in config.toml."""
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"
