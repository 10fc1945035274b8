"""Reading what others wrote, within bounds: an agent, the author of a repository, another server.

A small text can mean a million values, ten thousand levels or a number that no sum takes, and a
name can lead to a pipe, a device or another folder. Nothing here takes more time than in proportion
to what it reads, nor much more memory, and each failure is one that its docstring names.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Iterable
from functools import partial
from itertools import accumulate, islice
from typing import Any
from urllib.parse import SplitResult, urlsplit

LARGEST_NUMBER = 10**15  # far below what a sum of numbers could not be written with
LONGEST_NUMBER = 100
DEEPEST = 100  # each level takes a few of the thousand calls that Python allows
DEEPEST_READ = 800  # from Python 3.13 on, 4000 levels are too many for a stack of 512 KiB
MOST_VALUES = 50_000  # with keys: while they are read, nothing else is done
MOST_PARTS = 100  # of a key in TOML; the library takes time with the square of their number

# What begins a value, or comes before one. A string counts as one, whatever is in it.
_VALUE = re.compile(r'[\[{,]|"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_BRACKET = re.compile(r'([\[{])|([\]}])|"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_STEPS = {1: 1, 2: -1, None: 0}  # by the group that it matched
# A string is matched first, whole or up to the end of the text, and kept.
_STRING = r'("(?:\\.|[^"\\])*+(?:"|\\?\Z))'
_COMMENT = re.compile(_STRING + r"|//[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)
_TRAILING_COMMA = re.compile(_STRING + r"|,(?=\s*+[}\]])", re.DOTALL)
_LONG_KEY = re.compile(
    rf"""^[\[\t ]*+(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[\t ]*+\.[\t ]*+){{{MOST_PARTS}}}""",
    re.MULTILINE,
)


def read_file(name: str, most: int, here: int | None = None) -> bytes | None:
    """The content of a regular file of up to `most` bytes; None for anything else, such as a link.

    `name` is in the folder with the descriptor `here`, or a path that the user has chosen.
    """
    try:
        descriptor = os.open(name, os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    with open(descriptor, "rb") as file:
        content = file.read(most + 1)
    return content if len(content) <= most else None


def url_parts(url: str) -> SplitResult | None:
    """The parts of an address; None for one that is none, such as with a bracket in its host."""
    try:
        return urlsplit(url)
    except ValueError:
        return None


def read_json(text: str) -> Any:
    """A JSON value which can be added up, nested and written without errors.

    Numbers that are very large or not finite are text, half a surrogate pair, which no database
    takes, is `?`, and what is nested very deeply is left out. Raises ValueError, also for more than
    50,000 values or 800 levels.
    """
    if any(islice(_VALUE.finditer(text), MOST_VALUES, None)):
        raise ValueError("too many values")
    if text.count("[") + text.count("{") > DEEPEST_READ and _levels(text) > DEEPEST_READ:
        raise ValueError("nested too deeply")
    try:
        value = _DECODER.decode(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return _flattened(value, DEEPEST)


def _levels(text: str) -> int:
    """How deeply the JSON is nested that a text begins with, of up to MOST_VALUES values."""
    found = islice(_BRACKET.finditer(text), 2 * MOST_VALUES)  # each value ends once
    return max(accumulate(_STEPS[each.lastindex] for each in found), default=0)


def read_number(read: Callable[[str], Any], text: str) -> Any:
    """The number that `read` makes of digits, or the text itself where that is very large."""
    if len(text) <= LONGEST_NUMBER and abs(number := read(text)) <= LARGEST_NUMBER:
        return number
    return text


_DECODER = json.JSONDecoder(
    parse_int=partial(read_number, int), parse_float=partial(read_number, float), parse_constant=str
)


def _flattened(value: Any, room: int) -> Any:
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if not isinstance(value, dict | list):
        return value
    if not room:
        return "[nested too deeply]"
    if isinstance(value, dict):
        return {_flattened(key, 1): _flattened(item, room - 1) for key, item in value.items()}
    return [_flattened(item, room - 1) for item in value]


def read_settings(text: str) -> dict[str, Any]:
    """The JSON object in a text with comments and trailing commas, as editors and agents keep their
    settings; an empty one if there is none.
    """
    text = _COMMENT.sub(lambda found: found[1] or " ", text)
    text = _TRAILING_COMMA.sub(lambda found: found[1] or "", text)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def read_toml(text: str) -> dict[str, Any]:
    """A TOML document. Raises ValueError, with `line N` where that is known."""
    if found := _LONG_KEY.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise ValueError(f"the key at line {line} has more than {MOST_PARTS} parts")
    import tomllib  # most commands read none

    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def is_deep(value: Any, levels: int) -> bool:
    """Whether something in a JSON value is within `levels` arrays and objects, or more."""
    level = [value]
    for _ in range(levels):
        level = [inner for each in level for inner in _parts(each)]
    return bool(level)


def _parts(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
