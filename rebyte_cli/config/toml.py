"""Reading TOML files, with errors that name the place and never repeat a value."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import BadUsage
from ..system.permissions import read_private


def read_toml(path: Path) -> tuple[str, dict[str, Any]]:
    """The text and the document of a TOML file; both empty when there is no such file.

    Raises BadUsage with the file's name, line and column. The parser's own words are kept
    without what they quote, which may be a key in the wrong place.
    """
    try:
        raw = read_private(path)
    except FileNotFoundError:
        return "", {}
    except OSError as problem:
        raise BadUsage(f"cannot read {path}: {problem.strerror}") from None
    import tomllib

    try:
        # A byte order mark is what some editors on Windows leave in front.
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = raw[: problem.start].count(b"\n") + 1
        raise BadUsage(f"{path}, line {line}: not UTF-8 text") from None
    try:
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        said, _, place = str(problem).rpartition(" (at ")
        found = re.match(r"line (\d+), column (\d+)", place)
        where = f", line {found[1]}, column {found[2]}" if found else ""
        what = re.sub(r"(['\"]).*\1", "…", said) if found else "it ends too early"
        raise BadUsage(f"{path}{where}: not valid TOML: {what}") from None
    except RecursionError:
        raise BadUsage(f"{path}: not valid TOML: nested too deeply") from None
    except ValueError:  # Python refuses integers beyond 4,300 digits
        raise BadUsage(f"{path}: not valid TOML: a number that cannot be read") from None


def line_of(text: str, keys: Sequence[str]) -> int | None:
    """The line (from 1) of a key or a table, given with the tables that it is in, or None.

    The parser does not keep positions, so this reads the headers of tables and the `key =` below
    them. A key of an inline table has the line on which that table begins.
    """
    wanted, table, inline = list(keys), [], None
    flat = re.sub(_STRINGS, _without_lines, text, flags=re.DOTALL)
    for number, line in enumerate(flat.split("\n"), 1):
        header = re.match(rf"\s*\[\[?\s*({_DOTTED})", line)
        assignment = re.match(rf"\s*({_DOTTED})\s*=", line)
        if header:
            here = table = _parts(header[1])
        elif assignment:
            here = table + _parts(assignment[1])
            if wanted[: len(here)] == here:
                inline = number
        else:
            continue
        if here[: len(wanted)] == wanted:
            return number
    return inline


_STRINGS = r'"""(?:[^\\]|\\.)*?"""|\'\'\'.*?\'\'\'|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'|#[^\n]*'
_KEY = r'(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|\'[^\']*\')'
_DOTTED = rf"{_KEY}(?:[ \t]*\.[ \t]*{_KEY})*"


def _parts(dotted: str) -> list[str]:
    return [part.strip("\"'") for part in re.findall(_KEY, dotted)]


def _without_lines(string: re.Match[str]) -> str:
    """The string itself; of one with several lines, their ends alone."""
    return "\n" * string[0].count("\n") or string[0]


def has_comments(text: str) -> bool:
    """Whether a valid TOML text holds a comment: a `#` outside of its strings."""
    return any(found[0].startswith("#") for found in re.finditer(_STRINGS, text, re.DOTALL))


def schema_line(text: str) -> str:
    """The line `#:schema PLACE` in the comments at the top of a TOML text, or "".

    The directive of Taplo and Even Better TOML, which editors find the schema of a file by.
    """
    found = re.match(r"(?:[ \t]*(?:#.*)?\r?\n)*?(#:schema[ \t]+\S.*)", text)
    return found[1].rstrip() if found else ""
