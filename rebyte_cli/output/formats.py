"""Records as text for programs: JSON, CSV, TSV and lines of ids.

No control or bidi character is printed raw: JSON uses its own escapes, the others visible ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from ..errors import BrokenAnswer
from .console import clean, is_plain, one_line, replace_unsafe


def encode(value: Any, *, pretty: bool = False, ascii_only: bool = False) -> str:
    """`value` as JSON, without a newline at the end.

    Keys keep their order. `pretty` indents by two; otherwise it is one compact line.
    `ascii_only` is for a stream that cannot encode every character. Infinity becomes `1e999`, which
    JSON readers take for infinity, and NaN becomes `null`.

    Raises BrokenAnswer for a value that is nested too deeply to be read back.
    """
    dumps = partial(
        json.dumps,
        value,
        ensure_ascii=ascii_only,
        indent=2 if pretty else None,
        separators=None if pretty else (",", ":"),
        default=str,
    )
    try:
        try:
            text = dumps(allow_nan=False)
        except ValueError:
            import re

            text = re.sub(
                r'"(?:[^"\\]|\\.)*"|-?Infinity|NaN',
                lambda match: {"Infinity": "1e999", "-Infinity": "-1e999", "NaN": "null"}.get(
                    match[0], match[0]
                ),
                dumps(),
            )
    except RecursionError:
        raise BrokenAnswer("the answer is nested too deeply to be printed") from None
    except ValueError as error:
        raise BrokenAnswer(f"the answer cannot be printed: {error}") from None
    return replace_unsafe(text, lambda code: json.dumps(chr(code))[1:-1])


def pick(row: Mapping[str, Any], fields: tuple[str, ...] | None) -> Mapping[str, Any]:
    """The selected fields of a row in order, null for missing ones; all of them for None."""
    return row if fields is None else {field: row.get(field) for field in fields}


def cell(value: Any) -> str:
    """A value as one cell of CSV or TSV: text as it is, null empty, the rest as compact JSON."""
    if value is None:
        return ""
    return clean(value) if isinstance(value, str) else encode(value)


def csv_line(values: Iterable[Any]) -> str:
    """A line of RFC 4180 CSV that ends with LF.

    Cells that a spreadsheet would take for a formula (`=…`, `+…`, `@…`) are not altered: the data
    is for programs, and altering it would silently corrupt it.
    """
    cells = [
        '"' + text.replace('"', '""') + '"' if '"' in text or "," in text or "\n" in text else text
        for text in map(cell, values)
    ]
    # One empty cell alone would be an empty line, which readers skip.
    return (",".join(cells) if cells != [""] else '""') + "\n"


def tsv_line(values: Iterable[Any]) -> str:
    r"""A line of TSV: in a value a backslash, tab, newline and CR become `\\`, `\t`, `\n`, `\r`."""
    return "\t".join(map(_tsv_cell, values)) + "\n"


def _tsv_cell(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else encode(value)
    if "\\" in text:
        text = text.replace("\\", "\\\\")
    if is_plain(text):
        return text
    return clean(text.replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r"))


def id_line(value: Any) -> str:
    """One id on one line; nothing for a record without one."""
    return "" if value is None or value == "" else one_line(str(value)) + "\n"
