"""Standard input: what `-` stands for in arguments and options."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TextIO

from ..errors import BadUsage, NotFound

MOST_LINES = 100_000
LONGEST_LINE = 10_000  # characters


def stdin() -> TextIO:
    """Standard input, which only `-` reads. Raises BadUsage if it was closed."""
    stream: TextIO | None = sys.stdin
    if stream is None:  # after `<&-`
        raise BadUsage("standard input is closed")
    return stream


def stdin_lines() -> Iterator[str]:
    """The lines of standard input, which is not touched before the first is asked for.

    Raises BadUsage for input without an end: a line or a number of lines beyond all use.
    """
    for number in range(1, MOST_LINES + 2):
        try:
            line = stdin().readline(LONGEST_LINE + 1)
        except UnicodeDecodeError:
            raise BadUsage(f"stdin, line {number}: not valid UTF-8") from None
        if not line:
            return
        if len(line) > LONGEST_LINE:
            raise BadUsage(f"stdin, line {number}: over {LONGEST_LINE} characters")
        if number > MOST_LINES:
            raise BadUsage(f"standard input has more than {MOST_LINES:,} lines")
        yield line


def read_bytes(file: str, *, limit: int, hint: str | None = None) -> bytes:
    """The bytes of a file, or of standard input for `-`; `limit` bytes at most.

    Raises NotFound for a missing file, BadUsage for one that cannot be read or is too large.
    """
    name = "standard input" if file == "-" else file
    try:
        if file == "-":
            data: bytes = stdin().buffer.read(limit + 1)
        else:
            with open(file, "rb") as source:
                data = source.read(limit + 1)
    except FileNotFoundError:
        raise NotFound(f"no such file: {file}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadUsage(f"cannot read {name}: {reason}") from None
    if len(data) > limit:
        raise BadUsage(f"{name} has more than {limit >> 20} MiB", hint=hint)
    return data
