"""What a profile may hold: the name and type of each setting, and how it is typed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..api.origin import check_base_url
from ..choices import FORMATS
from ..errors import BadUsage, did_you_mean

# The names that people try for a key. It has no place in a file that is shown and shared.
_KEYLIKE = ("key", "api_key", "apikey", "token", "rebyte_api_key")


def _text(value: Any) -> Any:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be text")
    return value


def _path(value: Any) -> Any:
    import os

    return os.path.expanduser(_text(value))


def _words(value: Any) -> Any:
    if not isinstance(value, list) or not all(isinstance(word, str) and word for word in value):
        raise ValueError('must be a list of texts, as in ["a", "b"]')
    return value


def _argv(value: Any) -> Any:
    if not _words(value):
        raise ValueError('must name a program, as in ["pass", "show", "rebyte"]')
    return value


def _format(value: Any) -> Any:
    if value not in FORMATS:
        raise ValueError(f"must be one of {', '.join(FORMATS)}")
    return value


def _seconds(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a number of seconds")
    if not math.isfinite(value) or not 0 < value <= 86400:
        raise ValueError("must be a number of seconds, above 0 and at most 86400")
    return float(value)


def _flag(value: Any) -> Any:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _url(value: Any) -> Any:
    return check_base_url(_text(value))


# Each takes what TOML gave and returns it usable, or raises ValueError saying what it must be.
# The value itself is never repeated: somebody may have put a key in the wrong place.
FIELDS: dict[str, Callable[[Any], Any]] = {
    "base_url": _url,
    "executor": _text,
    "model": _text,
    "skills": _words,
    "output": _format,
    "key_command": _argv,
    "ca_bundle": _path,
    "timeout": _seconds,
    "history": _flag,
}


def check_name(name: str) -> str:
    """The name of a setting, or BadUsage with the nearest and all known ones."""
    if name in FIELDS:
        return name
    if name.lower() in _KEYLIKE:
        raise BadUsage(
            "a key is not kept in config.toml",
            hint="`rebyte auth login` stores it in the keyring; key_command names a program",
        )
    hint = did_you_mean(name, FIELDS)
    known = f"settings: {', '.join(FIELDS)}"
    # A name is repeated when it can be one: a key that was typed in its place is not.
    plain = name.replace("_", "").isalpha() and not name.startswith("rbk")
    shown = f": {name}" if plain else ""
    raise BadUsage(f"no such setting{shown}", hint=f"{hint}\n{known}" if hint else known)


def parse(name: str, text: str) -> Any:
    """The value of `NAME=TEXT` as it is typed on a command line, ready for the file.

    Lists are separated by commas; `key_command` is split as a shell would split it; flags are
    true or false. Raises BadUsage, without repeating the text.
    """
    check_name(name)
    value: Any = text
    if name == "skills":
        value = [word.strip() for word in text.split(",") if word.strip()]
    elif name == "key_command":
        import shlex

        try:
            value = shlex.split(text)
        except ValueError:
            raise BadUsage("key_command has an open quote") from None
    elif name == "timeout":
        try:
            value = float(text)
            value = int(value) if value.is_integer() else value
        except (ValueError, OverflowError):
            raise BadUsage("timeout must be a number of seconds") from None
    elif name == "history":
        value = {"true": True, "yes": True, "on": True, "1": True}.get(text.lower())
        if text.lower() in ("false", "no", "off", "0"):
            value = False
    try:
        usable = FIELDS[name](value)
    except ValueError as problem:
        raise BadUsage(f"{name} {problem}") from None
    return usable if name == "base_url" else value
