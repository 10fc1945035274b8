"""Whether a server can have the whole of a question while its body has no end yet.

Servers that read one JSON value, as those in Go do, are at work once that is there: whatever the
length of the body says, and whether or not its last chunk comes.
"""

from __future__ import annotations

import re

# Possessive: what was matched is never tried again.
_IN_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_SYNTAX = re.compile(rb'["{}\[\]]')


class QuestionEnd:
    """Reads a body as it passes; `is_whole` once its first JSON value has ended.

    What is `packed` (`Content-Encoding`) is not read: any part of it may have everything.
    """

    def __init__(self, *, packed: bool) -> None:
        self.is_whole = False
        self._packed = packed
        self._depth = 0
        self._in_string = False
        self._escaped = False  # the backslash was the last byte

    def feed(self, data: bytes) -> None:
        """Take in the next bytes of the body."""
        at = 0
        self.is_whole |= self._packed
        while at < len(data) and not self.is_whole:
            at = (self._through_string if self._in_string else self._through_syntax)(data, at)

    def _through_string(self, data: bytes, at: int) -> int:
        match = _IN_STRING.match(data, at + self._escaped)
        at = match.end() if match else len(data)
        self._escaped = data[at : at + 1] == b"\\"
        self._in_string = data[at : at + 1] != b'"'
        return at + 1

    def _through_syntax(self, data: bytes, at: int) -> int:
        match = _SYNTAX.search(data, at)
        if match is None:
            return len(data)
        self._in_string = match.group() == b'"'
        if not self._in_string:
            self._depth += 1 if match.group() in b"{[" else -1
            self.is_whole = self._depth <= 0
        return match.end()
