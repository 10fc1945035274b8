"""What `rebyte doctor` found, as lines for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .console import one_line
from .table import GREEN, RED, YELLOW, Style, wrap

# The sign of each status, and the one for an encoding without it.
_SIGNS = {"ok": ("✓", "ok", GREEN), "warning": ("!", "!", YELLOW), "problem": ("✗", "x", RED)}
_NAME_WIDTH = 11  # of the longest name of a check, and a gap


def draw(record: Mapping[str, Any], style: Style) -> str:
    """A record of kind CHECK: its sign, name and message, and below it what to do."""
    sign, plain, color = _SIGNS[str(record["status"])]
    if style.ellipsis != "…":  # an encoding that does not have it
        sign = plain
    start = " " * (len(sign) + 1 + _NAME_WIDTH)
    room = max((style.width or 10_000) - len(start), 20)
    lines = list(wrap(one_line(str(record["message"])), room))
    if record["status"] != "ok":
        for line in str(record["hint"] or "").splitlines():
            lines += [f"  {piece}" for piece in wrap(one_line(line), room - 2)]
    head = f"{style.paint(color, sign)} {record['name']:<{_NAME_WIDTH}}{lines[0]}"
    return "\n".join([head, *(start + line for line in lines[1:])]) + "\n"
