"""JSON with comments and trailing commas, as editors and agents keep their settings.

The text may be anyone's: reading it takes time in proportion to its length.
"""

from __future__ import annotations

import json
import re
from typing import Any

# A string is matched first, whole or up to the end of the text, and kept.
_STRING = r'("(?:\\.|[^"\\])*+(?:"|\Z))'
_COMMENT = re.compile(_STRING + r"|//[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)
_TRAILING_COMMA = re.compile(_STRING + r"|,(?=\s*+[}\]])", re.DOTALL)


def loads(text: str) -> dict[str, Any]:
    """The object in the text; an empty one if there is none."""
    text = _COMMENT.sub(lambda found: found[1] or " ", text)
    text = _TRAILING_COMMA.sub(lambda found: found[1] or "", text)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
