"""Reading a few values out of a JSON text while it passes, in pieces."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from ...system.untrusted import read_json

LONGEST_VALUE = 65_536  # bytes of a wanted value; the usage of a model has a few hundred
LONGEST_NUMBER = 64  # bytes

Path = tuple[bytes, ...]

_AROUND_NUMBER = b": \t\r\n,]}"


class _Frame:
    """An object or array that leads to a wanted value: the key that the scanner is at."""

    def __init__(self, *, is_object: bool) -> None:
        self.is_object = is_object
        self.key: bytes | None = None


class JsonScanner:
    """Finds objects, strings and numbers by their paths in a JSON text, in constant memory.

    `found` is called with the path and the JSON text of each. A path is the keys from the root, as
    `spell` gives them; arrays do not count, but in others they are skipped. Only the way to a
    wanted value is followed: of anything else, no more than the depth of its brackets is
    remembered. What is not JSON finds nothing, or a value that stands in it. `has_ended` once the
    whole text has, if that is an object or an array.
    """

    # Possessive: what was matched is never tried again.
    _IN_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
    _SYNTAX = re.compile(rb'["{}\[\],]')
    _BRACKETS = re.compile(rb'["{}\[\]]')

    def __init__(
        self,
        wanted: Sequence[Path] = (),
        found: Callable[[Path, bytes], None] = lambda _path, _text: None,
        spell: Callable[[bytes], bytes] = bytes,
    ) -> None:
        self._wanted = frozenset(wanted)
        self._ways = frozenset(path[:length] for path in wanted for length in range(len(path)))
        self._found = found
        self._spell = spell
        self.has_ended = False
        self.reset()

    def reset(self) -> None:
        """Begin a new text."""
        self._frames: list[_Frame] = []
        self._depth = 0  # of open brackets in a value that is skipped or kept
        self._kept: bytearray | None = None  # a key or a wanted value
        self._number = b""  # what came since the last string, bracket or comma
        self._in_string = False
        self._escaped = False  # the backslash was the last byte

    def feed(self, data: bytes) -> None:
        """Take in the next bytes of the text."""
        at = 0
        while at < len(data):
            at = (self._through_string if self._in_string else self._through_syntax)(data, at)

    def _through_string(self, data: bytes, start: int) -> int:
        """Read a string to its end, or to that of `data`; where that is."""
        at = start + self._escaped
        self._escaped = False
        match = self._IN_STRING.match(data, at)
        at = match.end() if match else at
        if at < len(data):  # what stopped it
            self._in_string = data[at] != ord('"')
            self._escaped = self._in_string
            at += 1
        self._keep(data[start:at])
        if not self._in_string and not self._depth:
            self._end_string()
        return at

    def _end_string(self) -> None:
        text, self._kept = self._kept, None
        if not self._frames or text is None:
            return
        frame = self._frames[-1]
        if frame.is_object and frame.key is None:
            frame.key = self._spell(_plain(bytes(text)))
        else:
            self._found(self._path(), bytes(text))

    def _through_syntax(self, data: bytes, start: int) -> int:
        """Read up to the next character that matters, or to the end of `data`; where that is."""
        match = (self._BRACKETS if self._depth else self._SYNTAX).search(data, start)
        at = match.end() if match else len(data)
        if self._depth:
            self._keep(data[start:at])
        else:
            self._number = (self._number + data[start:at]).lstrip(_AROUND_NUMBER)[:LONGEST_NUMBER]
        if match:
            self._take(match.group())
        return at

    def _take(self, character: bytes) -> None:
        number, self._number = self._number.rstrip(_AROUND_NUMBER), b""
        if number[:1].isdigit() and self._path() in self._wanted:
            # What is cut may be any number.
            self._found(self._path(), number if len(number) < LONGEST_NUMBER else b"1e99")
        if character == b'"':
            self._in_string = True
            if not self._depth and self._is_wanted_string():
                self._kept = bytearray(character)
        elif character in b"{[":
            self._open(character)
        elif character == b",":
            if self._frames:
                self._frames[-1].key = None
        else:
            self._close()
            self.has_ended |= not self._depth and not self._frames

    def _close(self) -> None:
        if self._depth:
            self._depth -= 1
            if not self._depth:
                kept, self._kept = self._kept, None
                if kept is not None:
                    self._found(self._path(), bytes(kept))
        elif self._frames:
            self._frames.pop()

    def _is_wanted_string(self) -> bool:
        if not self._frames:
            return False
        frame = self._frames[-1]
        return (frame.is_object and frame.key is None) or self._path() in self._wanted

    def _open(self, bracket: bytes) -> None:
        if self._depth:
            self._depth += 1
            return
        path, is_object = self._path(), bracket == b"{"
        if path in self._ways and (is_object or not self._frames or self._frames[-1].is_object):
            self._frames.append(_Frame(is_object=is_object))
            return
        self._depth = 1
        if is_object and path in self._wanted:
            self._kept = bytearray(bracket)

    def _path(self) -> Path:
        """The keys that lead to the value at which the scanner is."""
        keys = [frame.key or b"" for frame in self._frames if frame.is_object]
        return tuple(keys)

    def _keep(self, part: bytes) -> None:
        if self._kept is not None:
            self._kept += part
            if len(self._kept) > LONGEST_VALUE:
                self._kept = None


def _plain(text: bytes) -> bytes:
    """A key as it is compared: what it is spelled with says nothing."""
    if b"\\" in text:
        try:
            return str(read_json(text.decode("utf-8", "replace"))).encode("utf-8", "replace")
        except ValueError:
            pass
    return text[1:-1]
