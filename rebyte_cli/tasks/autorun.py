"""Which files tools run or obey by themselves: `autorun.txt` has the list and its sources."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from pathlib import Path

LONGEST_PATH = 4096  # characters that are looked at: no system takes longer paths
LONGEST_END = 1024  # of those, for the files; the expression takes the square of that
DEEPEST = 3  # names in the deepest line for a file


def reader_of(path: str, *, by_place: bool = False) -> str:
    """The tool that runs or obeys a file with this path by itself; an empty string for none.

    With `by_place`, only what programs read that were started for something else.
    """
    text = normalized(path[-LONGEST_PATH:])
    end = "/".join(text.split("/")[-DEEPEST:])[-LONGEST_END:]
    for (pattern, readers), part in zip(_tables("!" if by_place else ""), (text, end), strict=True):
        if (found := pattern.search(part)) and found.lastindex:
            return readers[found.lastindex - 1]
    return ""


def normalized(path: str) -> str:
    """The path as the most forgiving file system compares it.

    Case and the way an accent is written are ignored (macOS, Windows), so are invisible characters
    (HFS+), and dots, spaces and stream names at the end of a name (NTFS).
    """
    text = unicodedata.normalize("NFKC", path.replace("\\", "/")).casefold()
    text = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
    return "/".join(name.partition(":")[0].rstrip(" .") or name for name in text.split("/"))


@cache
def _tables(mark: str) -> list[tuple[re.Pattern[str], list[str]]]:
    """For folders, and for files: one expression with a group for each line with the mark, and what
    reads such a file.

    There are many lines for files, and only the end of a path can be one.
    """
    text = (Path(__file__).parent / "autorun.txt").read_text(encoding="utf-8")
    lines = [
        line.removeprefix("!").split("|")
        for line in text.splitlines()
        if line and line.startswith(mark) and not line.startswith("#")
    ]
    tables = []
    for end, is_folder in (("", True), ("$", False)):
        kept = [each for each in lines if each[0].endswith("/") == is_folder]
        words = (re.escape(pattern).replace(r"\*", "[^/]*") for pattern, *_ in kept)
        names = "|".join(f"({each}){end}" for each in words)
        pattern = re.compile(f"(?:^|/)(?:{names})", re.DOTALL)
        tables.append((pattern, [reader for _, reader, _ in kept]))
    return tables
