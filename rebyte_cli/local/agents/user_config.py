"""Reading the user's own configuration of an agent. What cannot be read counts as empty."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

# Comments of JSONC, outside strings; a string is matched first and kept.
_COMMENTS = re.compile(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
# A line of `.env`: the name, and the value in quotes or up to a comment.
_VARIABLE = re.compile(
    r"""^[ \t]*(?:export[ \t]+)?([A-Za-z_]\w*)[ \t]*=[ \t]*"""
    r"""(?:"([^"\n]*)"|'([^'\n]*)'|([^#\n]*))""",
    re.MULTILINE,
)
_TRAILING_COMMAS = re.compile(r'("(?:\\.|[^"\\])*")|,(?=\s*[}\]])')


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, with the comments and trailing commas that agents allow."""
    return parse_json(_text(path))


def parse_json(text: str) -> dict[str, Any]:
    """The object in such a text."""
    for pattern in (_COMMENTS, _TRAILING_COMMAS):
        text = pattern.sub(lambda match: match.group(1) or "", text)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def read_env(path: Path) -> dict[str, str]:
    """The variables in a `.env` file."""
    found = _VARIABLE.finditer(_text(path))
    return {line[1]: (line[2] or line[3] or line[4] or "").strip() for line in found}


def strings(value: object) -> dict[str, str]:
    """The members of an object as texts."""
    members = value.items() if isinstance(value, dict) else ()
    return {name: one if isinstance(one, str) else json.dumps(one) for name, one in members}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
