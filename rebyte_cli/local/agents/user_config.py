"""Reading the user's own configuration of an agent. What cannot be read counts as empty."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

# Comments of JSONC, outside strings; a string is matched first and kept.
_COMMENTS = re.compile(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
_TRAILING_COMMAS = re.compile(r'("(?:\\.|[^"\\])*")|,(?=\s*[}\]])')


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, with the comments and trailing commas that agents allow."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return {}
    for pattern in (_COMMENTS, _TRAILING_COMMAS):
        text = pattern.sub(lambda match: match.group(1) or "", text)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
