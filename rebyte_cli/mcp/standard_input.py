"""The server's standard input, in which every request can be answered.

The SDK drops a line that its parser refuses: half of a surrogate pair, a number of thousands of
digits, deep nesting. Its client would wait for an answer until it timed out.
"""

from __future__ import annotations

import io
import os
import re
import sys
from typing import Any, BinaryIO

from mcp.types import jsonrpc_message_adapter

ENDS = 1000  # bytes at either end of a line that are searched for its id

# The id outside of everything nested: before it, or behind it.
_ID = rb'"id"\s*:\s*(-?\d{1,18}|"[^"\\]{1,200}")'
_FLAT = rb"[^{}\[\]]*"
_FIRST = re.compile(rb"\s*\{" + _FLAT + _ID)
_LAST = re.compile(_ID + _FLAT + rb"\}\s*$")


def answerable(line: bytes) -> bytes:
    """The line, or for a request that the SDK would drop one that it answers with an error."""
    try:
        jsonrpc_message_adapter.validate_json(line.decode("utf-8", "replace"), by_name=False)
    except ValueError:
        found = _FIRST.match(line[:ENDS]) or _LAST.search(line[-ENDS:])
        if found is not None:
            method = b'"a request that is not valid JSON-RPC"'
            return b'{"jsonrpc":"2.0","id":%s,"method":%s}\n' % (found[1], method)
    return line


class _Lines(io.RawIOBase):
    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            line = self._source.readline()
            self._rest = answerable(line) if line.strip() else line
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


def take_stdin() -> None:
    """Have `sys.stdin` give lines that can be answered; child processes have an empty one."""
    source = os.fdopen(os.dup(0), "rb")
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    sys.stdin = io.TextIOWrapper(io.BufferedReader(_Lines(source)), encoding="utf-8")
