"""Prompts made from a template and the fields of a line."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import islice
from typing import Any

from ..errors import BadUsage, NotFound, did_you_mean
from .fields import MOST_COMPARED

LARGEST = 1 << 20  # bytes; a prompt has 100,000 characters at most
_PLACEHOLDER = re.compile(r"\{\{([^{}\n]*[^{}\s][^{}\n]*)\}\}")


class Template:
    """A prompt with `{{field}}` placeholders. `fields` are their names, in order of appearance."""

    def __init__(self, text: str, name: str) -> None:
        """`name` is what errors call it. BadUsage for a text without a single placeholder."""
        # The newline that ends the file is the editor's; it would end every prompt.
        self.text = text.removesuffix("\n")
        self.fields = tuple(dict.fromkeys(name.strip() for name in _PLACEHOLDER.findall(text)))
        if not self.fields:
            raise BadUsage(
                f"{name} contains no {{{{field}}}}, so every line would get the same prompt",
                hint="Write {{field}} where the value of a field should appear.",
            )

    def fill(self, values: Mapping[str, Any], line: int) -> str:
        """The prompt for one line. `{{line}}` is its number, unless it has such a field.

        Text is inserted as it is, anything else as JSON; placeholders in inserted text stay.
        Raises BadUsage for a field that the line lacks or has as null.
        """
        known = {"line": line, **values}
        for field in self.fields:
            if known.get(field) is None:
                raise BadUsage(
                    f"the template needs {field!r}, which the line "
                    + ("has as null" if field in known else "does not have"),
                    hint=did_you_mean(field, islice(values, MOST_COMPARED))
                    if field not in known
                    else None,
                )
        return _PLACEHOLDER.sub(lambda found: _inserted(known[found[1].strip()]), self.text)


def _inserted(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def read_template(path: str) -> str:
    """The text of a template file. Raises NotFound and BadUsage."""
    try:
        with open(path, "rb") as file:  # it may be a device, which has no end
            data = file.read(LARGEST + 1)
    except FileNotFoundError:
        raise NotFound(f"no such file: {path}") from None
    except OSError as error:
        raise BadUsage(f"cannot read {path}: {error.strerror}") from None
    if len(data) > LARGEST:
        raise BadUsage(f"{path} is larger than {LARGEST >> 20} MiB")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise BadUsage(f"{path} is not UTF-8 (byte {error.start + 1})") from None
