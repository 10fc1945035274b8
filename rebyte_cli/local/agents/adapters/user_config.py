"""Reading the user's own configuration of an agent. What cannot be read counts as empty."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ....system.untrusted import read_settings

# A line of `.env`: the name, and the value in quotes or up to a comment.
_VARIABLE = re.compile(
    r"""^[ \t]*(?:export[ \t]+)?([A-Za-z_]\w*)[ \t]*=[ \t]*"""
    r"""(?:"([^"\n]*)"|'([^'\n]*)'|([^#\n]*))""",
    re.MULTILINE,
)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, with the comments and trailing commas that agents allow."""
    return read_settings(_text(path))


def read_env(path: Path) -> dict[str, str]:
    """The variables in a `.env` file."""
    found = _VARIABLE.finditer(_text(path))
    return {line[1]: (line[2] or line[3] or line[4] or "").strip() for line in found}


def strings(value: object) -> dict[str, str]:
    """The members of an object as texts."""
    members = value.items() if isinstance(value, dict) else ()
    return {name: one if isinstance(one, str) else json.dumps(one) for name, one in members}


def only(value: object, names: Iterable[str]) -> dict[str, Any]:
    """The members of an object that are named."""
    return {name: value[name] for name in names if name in value} if isinstance(value, dict) else {}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
