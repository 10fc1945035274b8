"""What an input holds, line by line, so that a later run knows it again after lines were added."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

_SIZE = 16  # bytes kept for each line


class Fingerprint:
    """Digests of an input: of all of it, and of its lines up to each one.

    Lines here are those of the file: blank ones count, and a record of CSV may take several.
    """

    def __init__(self, how: str) -> None:
        """`how` stands for the way in which the lines are read; another way is another input."""
        self._hash = hashlib.sha256(how.encode())
        self._ends = bytearray()
        self._line_end = b""

    def add(self, raw: bytes) -> None:
        """Take the next line, with its end."""
        text = raw.rstrip(b"\r\n")
        self._hash.update(self._line_end + text)
        self._line_end = raw[len(text) :]
        # Without its end: a last line may get one when others are appended.
        self._ends += self._hash.copy().digest()[:_SIZE]

    @property
    def whole(self) -> str:
        """The digest of everything, to the byte."""
        last = self._hash.copy()
        last.update(self._line_end)
        return last.hexdigest()

    @property
    def mark(self) -> dict[str, Any]:
        """The number of lines and their digest, for `begins_with` of a longer input."""
        return {"lines": len(self._ends) // _SIZE, "digest": self._ends[-_SIZE:].hex()}

    def begins_with(self, mark: Mapping[str, Any]) -> bool:
        """Whether the first lines are those of the input that has this mark."""
        count = mark.get("lines")
        if not isinstance(count, int) or not 0 <= count <= len(self._ends) // _SIZE:
            return False
        return self._ends[max(count - 1, 0) * _SIZE : count * _SIZE].hex() == mark.get("digest")
