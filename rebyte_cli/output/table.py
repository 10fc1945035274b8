"""Records as aligned text for people.

Our own few lines instead of a table widget: ten thousand rows take a tenth of a second, and
text from the API is never taken for markup.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from .kinds import KINDS, Kind
from .terminal import Screen, clean, one_line

BOLD, DIM, RED, GREEN, YELLOW = "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m"
RESET = "\x1b[0m"

_STATUS_COLORS = {
    **dict.fromkeys(("completed", "done", "succeeded", "ready"), GREEN),
    **dict.fromkeys(("running", "pending", "queued", "processing", "provisioning"), YELLOW),
    **dict.fromkeys(("failed", "error"), RED),
    **dict.fromkeys(("canceled", "cancelled"), DIM),
}
_GAP = "  "
# A column of text is never cut below this.
_NARROWEST = 8


class Look(NamedTuple):
    """How text is to look: `color`; `width` in cells, None for no limit; `ellipsis`; `now`, the
    time in seconds since the epoch."""

    color: bool
    width: int | None
    ellipsis: str
    now: float

    @classmethod
    def of(cls, screen: Screen, now: float) -> Look:
        """As stdout wants it. In a pipe nothing is cut: it is no wider than the next program."""
        return cls(
            screen.out_color,
            screen.width if screen.out_tty else None,
            "…" if screen.unicode else "...",
            now,
        )

    def paint(self, color: str, text: str) -> str:
        """`text` in that colour, where there are colours."""
        return f"{color}{text}{RESET}" if self.color and text else text


def width_of(text: str) -> int:
    """How many cells of a terminal `text` takes: wide characters take two."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def cut(text: str, width: int, ellipsis: str = "…") -> str:
    """`text` in at most `width` cells, with an ellipsis where something is missing."""
    if width_of(text) <= width:
        return text
    from rich.cells import set_cell_size

    return set_cell_size(text, max(width - len(ellipsis), 0)).rstrip() + ellipsis


def _pad(text: str, width: int, right: bool = False) -> str:
    space = " " * (width - width_of(text))
    return space + text if right else text + space


_UNITS = ((365 * 86400, "y"), (30 * 86400, "mo"), (86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def ago(timestamp: str, now: float) -> str:
    """An ISO 8601 time as seen from `now`: `3m ago`, `in 2h`; as it is when it is none."""
    from datetime import UTC, datetime

    try:
        then = datetime.fromisoformat(timestamp)
    except ValueError:
        return one_line(timestamp)
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    seconds = now - then.timestamp()
    distance = abs(seconds)
    for size, unit in _UNITS:
        if distance >= size:
            count = f"{int(distance // size)}{unit}"
            return f"{count} ago" if seconds > 0 else f"in {count}"
    return "now"


def _text(value: Any, type_: str, now: float) -> str:
    """A value in few words on one line."""
    if value is None:
        return ""
    if isinstance(value, str):
        return ago(value, now) if type_.startswith("time") else one_line(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        if any(isinstance(item, Mapping | list) for item in value):
            kind = KINDS.get(type_.removesuffix("?").removesuffix("[]"))
            return f"{len(value)} {kind.plural if kind else 'items'}"
        return ", ".join(_text(item, "", now) for item in value)
    if isinstance(value, Mapping):
        message = value.get("message")
        if isinstance(message, str):
            return one_line(message)
    from .formats import encode

    return one_line(encode(value))


def _value(kind: Kind, row: Mapping[str, Any], name: str) -> Any:
    value = row.get(name)
    if value is None and name == "status" and kind.name == "task-row":
        # A row of the list has no status; this is all it tells.
        return "done" if row.get("completedAt") else "running"
    return value


def listing(kind: Kind, rows: Iterable[Mapping[str, Any]], names: Sequence[str], look: Look) -> str:
    """Rows under a header, a line each. `names` are the columns."""
    rows = list(rows)
    types = [kind.types.get(name, "any?") for name in names]
    columns = [
        [_text(_value(kind, row, name), type_, look.now) for row in rows]
        for name, type_ in zip(names, types, strict=True)
    ]
    heads = [_head(name, type_) for name, type_ in zip(names, types, strict=True)]
    widths = [
        max(len(head), max(map(width_of, column), default=0))
        for head, column in zip(heads, columns, strict=True)
    ]
    if look.width is not None:
        elastic = [index for index, type_ in enumerate(types) if type_.startswith(("text", "any"))]
        _fit(widths, elastic, look.width)
        for index in elastic:
            columns[index] = [cut(text, widths[index], look.ellipsis) for text in columns[index]]
    painters: list[Callable[[str], str]] = []
    for index, (name, type_) in enumerate(zip(names, types, strict=True)):
        right = type_.startswith(("integer", "number"))
        last = index == len(widths) - 1
        heads[index] = look.paint(BOLD, _cell(heads[index], widths[index], right, last))
        painters.append(_painter(name, widths[index], right, last, look))
    lines = [_GAP.join(heads)]
    painted = [
        list(map(painter, column)) for painter, column in zip(painters, columns, strict=True)
    ]
    lines.extend(map(_GAP.join, zip(*painted, strict=True)))
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _head(name: str, type_: str) -> str:
    """A field's name as a heading: `createdAt` is CREATED, `workspaceId` WORKSPACE ID."""
    if type_.startswith("time"):
        name = name.removesuffix("At")
    return "".join(" " + letter if letter.isupper() else letter for letter in name).upper()


def _cell(text: str, width: int, right: bool, last: bool) -> str:
    return text if last and not right else _pad(text, width, right)


def _painter(name: str, width: int, right: bool, last: bool, look: Look) -> Callable[[str], str]:
    if name != "status" or not look.color:
        return lambda text: _cell(text, width, right, last)
    return lambda text: (
        look.paint(_STATUS_COLORS.get(text, ""), text)
        + _cell("", width - width_of(text), right, last)
    )


def _fit(widths: list[int], elastic: list[int], limit: int) -> None:
    """Shrink the widest elastic columns until the row fits, or none can give any more."""
    excess = sum(widths) + len(_GAP) * (len(widths) - 1) - limit
    while excess > 0 and elastic:
        widest = max(elastic, key=lambda index: widths[index])
        others = [widths[index] for index in elastic if index != widest]
        room = widths[widest] - max(
            [_NARROWEST, *(width for width in others if width < widths[widest])]
        )
        step = min(excess, max(room, 1))
        if widths[widest] <= _NARROWEST:
            return
        widths[widest] -= step
        excess -= step


def record(kind: Kind, row: Mapping[str, Any], fields: Sequence[str] | None, look: Look) -> str:
    """One record as lines of names and values; lists of records as small tables below theirs.

    Without `fields` it is everything the record has but nulls, the known fields first.
    """
    if fields is None:
        known = [name for name in kind.types if row.get(name) is not None]
        fields = known + [name for name in row if name not in kind.types and row[name] is not None]
    labels = [one_line(name) for name in fields]
    width = max(map(width_of, labels), default=0)
    lines = []
    for name, label in zip(fields, labels, strict=True):
        value = _value(kind, row, name)
        type_ = kind.types.get(name, "any?")
        shown = look.paint(BOLD, label)
        if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            lines.append(shown)
            lines.extend("  " + line for line in _nested(type_, value, look))
            continue
        first, *rest = _long(name, value, type_, look)
        if first:
            shown += " " * (width - width_of(label)) + _GAP + first
        lines.append(shown)
        lines.extend((" " * (width + len(_GAP)) + line).rstrip() for line in rest)
    return "\n".join(lines) + "\n"


def _nested(type_: str, value: list[Mapping[str, Any]], look: Look) -> list[str]:
    kind = KINDS.get(type_.removesuffix("?").removesuffix("[]"))
    names: Sequence[str] = (
        kind.columns if kind else list(dict.fromkeys(k for row in value for k in row))
    )
    kind = kind or Kind("", "items", "", {}, (), (), ())
    if look.width is not None:
        look = look._replace(width=look.width - 2)
    return listing(kind, value, names, look).splitlines()


def _long(name: str, value: Any, type_: str, look: Look) -> list[str]:
    """A value in full: all lines of a text, both forms of a time."""
    if isinstance(value, str):
        if type_.startswith("time"):
            shown, relative = one_line(value), ago(value, look.now)
            return [shown if shown == relative else f"{shown} ({relative})"]
        if name == "status":
            return [look.paint(_STATUS_COLORS.get(value, ""), one_line(value))]
        return clean(value.rstrip("\n")).split("\n")
    return [_text(value, type_, look.now)]
