"""Which files tools run or obey by themselves: `autorun.txt` has the list and its sources."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from pathlib import Path


def reader_of(path: str) -> str:
    """The tool that runs or obeys a file with this path by itself; an empty string for none."""
    pattern, readers = _table("")
    found = pattern.search(normalized(path))
    return readers[found.lastindex - 1] if found and found.lastindex else ""


def is_read_by_place(path: str) -> bool:
    """Whether programs that were started for something else read such a file, too."""
    return _table("!")[0].search(normalized(path)) is not None


def normalized(path: str) -> str:
    """The path as the most forgiving file system compares it.

    Case and the way an accent is written are ignored (macOS, Windows), so are invisible characters
    (HFS+), and dots, spaces and stream names at the end of a name (NTFS).
    """
    text = unicodedata.normalize("NFKC", path.replace("\\", "/")).casefold()
    text = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
    return "/".join(name.partition(":")[0].rstrip(" .") or name for name in text.split("/"))


@cache
def _table(mark: str) -> tuple[re.Pattern[str], list[str]]:
    """One expression with a group for each line with the mark, and what reads such a file."""
    expressions, readers = [], []
    text = (Path(__file__).parent / "autorun.txt").read_text(encoding="utf-8")
    for line in text.splitlines():
        if line and line.startswith(mark) and not line.startswith("#"):
            pattern, reader, _source = line.removeprefix("!").split("|")
            words = re.escape(pattern).replace(r"\*", "[^/]*")
            expressions.append(f"({words})" if pattern.endswith("/") else f"({words})$")
            readers.append(reader)
    return re.compile(f"(?:^|/)(?:{'|'.join(expressions)})", re.DOTALL), readers
