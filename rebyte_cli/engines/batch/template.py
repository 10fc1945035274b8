"""`{{field}}` in a text, filled in from the fields of one line."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ...errors import BadUsage, did_you_mean

_FIELD = re.compile(r"\{\{([^{}\n]*[^{}\s][^{}\n]*)\}\}")


class Template:
    """A prompt with holes. `fields` are their names, in order of appearance."""

    def __init__(self, text: str, name: str) -> None:
        """`name` is what errors call it. BadUsage for a text without a single `{{field}}`."""
        # The newline that ends the file is the editor's; it would end every prompt.
        self.text = text.removesuffix("\n")
        self.fields = tuple(dict.fromkeys(hole.strip() for hole in _FIELD.findall(text)))
        if not self.fields:
            raise BadUsage(
                f"{name} names no field, so every line would get the same prompt",
                hint="write {{field}} where a field of the line goes",
            )

    def fill(self, values: Mapping[str, Any], line: int) -> str:
        """The prompt for one line. `{{line}}` is its number, unless it has such a field.

        Text goes in as it is, anything else as JSON; what goes in is not looked at for holes.
        Raises BadUsage for a field that the line lacks or has as null.
        """
        known = {"line": line, **values}
        for field in self.fields:
            if known.get(field) is None:
                raise BadUsage(
                    f"the template needs {field!r}, which the line does not have",
                    hint=did_you_mean(field, values),
                )
        return _FIELD.sub(lambda hole: _text(known[hole[1].strip()]), self.text)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
