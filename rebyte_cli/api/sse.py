"""Server-sent events: bytes to events, as the HTML standard defines them.

Only CR, LF and CRLF end a line here. `str.splitlines`, and whatever is built on it, would also
cut at U+2028 and U+0085, which a JSON string may hold as they are.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

# The largest event that is accepted (characters).
LARGEST = 16 * 1024 * 1024


class StreamEvent(NamedTuple):
    """One event of a run: its name (`event` or `done`) and its JSON object."""

    name: str
    data: dict[str, Any]


class TooLarge(Exception):
    """An event, or a line, that does not end in time."""


def parse(chunks: Iterable[bytes], *, largest: int = LARGEST) -> Iterator[tuple[str, str]]:
    """(name, data) of each event; the name is `message` where none is given.

    An event that the end of the stream cuts off is dropped. Bytes that are not UTF-8 become
    U+FFFD, as the standard says. Fields other than `event` and `data` are ignored. Raises TooLarge
    for an event, or a line, of more than `largest` characters.
    """
    name = ""
    data: list[str] = []
    size = 0
    for line in _lines(chunks, largest):
        if not line:
            if data:
                yield name or "message", "\n".join(data)
            name, data, size = "", [], 0
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
            size += len(value) + 1  # an empty line takes memory as well
            if size > largest:
                raise TooLarge


def _lines(chunks: Iterable[bytes], largest: int) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    first = True
    after_cr = False
    parts: list[str] = []  # of the line that has not ended yet
    held = 0
    for chunk in chunks:
        text = decoder.decode(chunk)
        if not text:
            continue
        if first:
            text = text.removeprefix("\ufeff")
            first = False
        if after_cr:
            # The line ended with the CR of the last chunk; its LF is no second end.
            text = text.removeprefix("\n")
        after_cr = text.endswith("\r")
        *ended, rest = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        for line in ended:
            yield "".join([*parts, line])
            parts, held = [], 0
        if rest:
            parts.append(rest)
            held += len(rest)
            if held > largest:
                raise TooLarge
