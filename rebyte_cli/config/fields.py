"""The settings that a profile may hold: their names, their types, and how each is typed."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from typing import Any

from ..api.urls import check_base_url
from ..errors import BadUsage, Next, did_you_mean, lines
from . import FORMATS

LOCAL = "local"
# What `[profiles.local]` may say. It has no address and no key of the user's.
LOCAL_FIELDS = frozenset({"executor", "history", "model", "output", "skills", "timeout"})
# What `[prices.MODEL]` takes, in dollars per million tokens; `cached` may be left out.
PRICES = ("input", "cached", "output")
# Names that people try for a key. A key has no place in a file that is shown and shared.
KEY_NAMES = ("key", "api_key", "apikey", "token", "rebyte_api_key")
NO_KEYS = "config.toml cannot contain API keys"
KEY_PLACES = Next("auth", "login") + " stores one in the keyring; key_command names a program"
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def _value_that(fits: Callable[[Any], bool], must: str) -> Callable[[Any], Any]:
    """A check that returns the value if it `fits`, and raises ValueError otherwise."""

    def check(value: Any) -> Any:
        if not fits(value):
            raise ValueError(must)
        return value

    return check


_text = _value_that(lambda value: isinstance(value, str) and bool(value.strip()), "must be text")
_words = _value_that(
    lambda value: isinstance(value, list) and all(isinstance(word, str) and word for word in value),
    'must be a list of texts, as in ["a", "b"]',
)
_format = _value_that(lambda value: value in FORMATS, f"must be one of {', '.join(FORMATS)}")
_flag = _value_that(lambda value: isinstance(value, bool), "must be true or false")
_target = _value_that(
    # What begins with a hyphen would be an option of ssh.
    lambda value: isinstance(value, str) and bool(re.fullmatch(r"[^\s-]\S*", value)),
    "must be a host for ssh, as in user@host",
)


def _path(value: Any) -> Any:
    return os.path.expanduser(_text(value))


def _argv(value: Any) -> Any:
    if not _words(value):
        raise ValueError('must name a program, as in ["pass", "show", "rebyte"]')
    return value


def _seconds(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a number of seconds")
    if not math.isfinite(value) or not 0 < value <= 86400:
        raise ValueError("must be a number of seconds, above 0 and at most 86400")
    return float(value)


def _url(value: Any) -> Any:
    return check_base_url(_text(value))


# Each takes what TOML gave and returns it usable, or raises ValueError saying what it must be.
# The value itself is never repeated: it may be a key in the wrong place.
FIELDS: dict[str, Callable[[Any], Any]] = {
    "base_url": _url,
    "executor": _text,
    "model": _text,
    "skills": _words,
    "output": _format,
    "key_command": _argv,
    "env_key": _flag,
    "ca_bundle": _path,
    "timeout": _seconds,
    "history": _flag,
    "ssh": _target,
    "remote_command": _argv,
}

# What the checks accept, as JSON Schema: for editors, through `schema`. A check may be stricter.
SCHEMAS: dict[Callable[[Any], Any], dict[str, Any]] = {
    _url: {"type": "string", "pattern": r"^[Hh][Tt][Tt][Pp][Ss]?://"},
    _text: {"type": "string", "pattern": r"\S"},
    _path: {"type": "string", "pattern": r"\S"},
    _words: {"type": "array", "items": {"type": "string", "minLength": 1}},
    _argv: {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
    _format: {"enum": list(FORMATS)},
    _seconds: {"type": "number", "exclusiveMinimum": 0, "maximum": 86400},
    _flag: {"type": "boolean"},
    _target: {"type": "string", "pattern": r"^[^\s-]\S*$"},
}


def check_name(name: str) -> str:
    """The name of a setting; BadUsage with the nearest and all known names otherwise."""
    if name in FIELDS:
        return name
    if name.lower() in KEY_NAMES:
        raise BadUsage(NO_KEYS, hint=KEY_PLACES)
    hint = lines(did_you_mean(name, FIELDS), f"The settings are {', '.join(FIELDS)}")
    # Repeat the name only when it can be one: it may be a key, typed in the wrong place.
    plausible = name.replace("_", "").isalpha() and not name.startswith("rbk")
    shown = f": {name}" if plausible else ""
    raise BadUsage(f"no such setting{shown}", hint=hint)


def parse_value(name: str, text: str) -> Any:
    """The value of `NAME=TEXT` as it is typed on a command line, ready for the file.

    Lists are separated by commas; `key_command` is split as a shell would split it; flags are
    true or false. Raises BadUsage, without repeating the text.
    """
    check_name(name)
    value = _from_text(name, text)
    try:
        usable = FIELDS[name](value)
    except ValueError as problem:
        raise BadUsage(f"{name} {problem}") from None
    return usable if name == "base_url" else value


def _from_text(name: str, text: str) -> Any:
    """What TOML would have given for the text; a value of the wrong type where it cannot be."""
    check = FIELDS[name]
    if check is _words:
        return [word.strip() for word in text.split(",") if word.strip()]
    if check is _argv:
        import shlex

        try:
            return shlex.split(text)
        except ValueError:
            raise BadUsage(f"{name} has an unclosed quote") from None
    if check is _seconds:
        try:
            number = float(text)
            return int(number) if number.is_integer() else number
        except (ValueError, OverflowError):
            return text
    if check is _flag:
        return {**dict.fromkeys(_TRUE, True), **dict.fromkeys(_FALSE, False)}.get(text.lower())
    return text
