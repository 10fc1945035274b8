"""Records as aligned text for people.

Written by hand instead of with rich: ten thousand rows take a tenth of a second (rich: 4.4 s), and
text from the API is never taken for markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

from .console import Console, clean, ellipsis_for, one_line
from .records import KINDS, RecordKind

BOLD, DIM, RED, GREEN, YELLOW = "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m"
CYAN = "\x1b[36m"
RESET = "\x1b[0m"

_STATUS_COLORS = {
    **dict.fromkeys(("completed", "succeeded", "ready"), GREEN),
    **dict.fromkeys(("running", "pending", "queued", "processing", "provisioning"), CYAN),
    "limited": YELLOW,
    "waiting": BOLD + YELLOW,  # the only one that the user has to attend to
    **dict.fromkeys(("failed", "error"), RED),
    **dict.fromkeys(("canceled", "cancelled"), DIM),
}
COMMAND = "`rebyte"
# The text between spaces, commands in backquotes whole.
_UNBROKEN = rf"(?:^| )({COMMAND}[^`]*(?:`[^ ]*)?|[^ ]*)"
_GAP = "  "
_ACRONYMS = frozenset(("api", "ca", "id", "url"))
_NARROWEST = 8  # cells: a column of text is never cut below this
_MOST_LEAD = 12  # characters: a longer start of a line is no mark or indentation
_MOST_COLUMNS = 20  # of a table of objects that are no kind of ours
_ZWJ = "\u200d"  # zero width joiner
_EMOJI_SELECTOR = "\ufe0f"
_JOINERS = "\u200c" + _ZWJ
_FLAG_LETTERS = "".join(map(chr, range(0x1F1E6, 0x1F200)))
_SKIN_TONES = "\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff"


class Style(NamedTuple):
    """How text is to style: `color`; `width` in cells, None for no limit; `ellipsis`; `now`, the
    time in seconds since the epoch."""

    color: bool
    width: int | None
    ellipsis: str
    now: float

    @classmethod
    def of(cls, console: Console, now: float) -> Style:
        """The style for stdout. In a pipe nothing is truncated."""
        return cls(
            console.out_color,
            console.width if console.out_tty else None,
            ellipsis_for(console.out),
            now,
        )

    def paint(self, color: str, text: str) -> str:
        """`text` in that colour, if colours are on."""
        return f"{color}{text}{RESET}" if self.color and text else text


def width_of(text: str) -> int:
    """The cells that `text` takes on a terminal; wide characters take two.

    Terminals differ in joined emoji, and join nothing else: each character counts.
    """
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text.replace(_ZWJ, ""))


def truncate(text: str, width: int, ellipsis: str = "…") -> str:
    """`text` in at most `width` cells, with an ellipsis if it was cut."""
    if width_of(text) <= width:
        return text
    room = max(width - len(ellipsis), 0)
    return text[: _end_of(text, 0, room)].rstrip() + ellipsis


def _end_of(text: str, start: int, width: int) -> int:
    """The end of what fits in `width` cells from `start` on, without dividing what belongs
    together: a letter and its marks, joined emoji, a flag."""
    if text.isascii():
        return min(start + width, len(text))
    end = start
    while width > 0 and end < len(text):
        after = end + max(width // 2, 1)  # no character takes more than two cells
        after += text.startswith(_EMOJI_SELECTOR, after)  # which widens the character before it
        width -= width_of(text[end:after])
        if width < 0:
            break
        end = min(after, len(text))
    while end < len(text) and not width_of(text[end]):
        end += 1
    while start < end < len(text) and _continues(text, start, end):
        end -= 1
    return end


def _continues(text: str, start: int, at: int) -> bool:
    """Whether a character belongs to the one before it; something begins at `start`."""
    from unicodedata import category

    before, character = text[at - 1], text[at]
    if character in _FLAG_LETTERS:  # two make a flag
        head = text[start:at]
        return (len(head) - len(head.rstrip(_FLAG_LETTERS))) % 2 == 1
    return (
        before == _ZWJ
        or character in _JOINERS
        or character in _SKIN_TONES
        or category(character).startswith("M")
    )


def wrap(text: str, width: int) -> Iterator[str]:
    """Wrap one line to pieces of at most `width` cells, between words if possible.

    A link, and a command in backquotes, stay in one piece, however long, so that they can be
    copied.
    """
    if width_of(text) <= width:
        yield text
        return
    line, size = "", 0
    for number, word in enumerate(re.findall(_UNBROKEN, text.expandtabs())):
        length = width_of(word)
        if number and size + 1 + length <= width:
            line, size = f"{line} {word}", size + 1 + length
            continue
        if number:
            yield line
        start = 0
        is_whole = "://" in word or word.startswith(COMMAND)
        while length > width and not is_whole:
            end = _end_of(word, start, width)
            if end == start:  # nothing that people write
                end += max(width // 2, 1)
            yield word[start:end]
            length -= width_of(word[start:end])
            start = end
        line, size = word[start:], length
    yield line


def wrap_lines(text: str, width: int) -> str:
    """Wrap each line of a text between words; what continues a line is indented as its text is.

    The mark of a prompt (`>`) is repeated.
    """
    if max(map(len, text.split("\n"))) <= width // 2:  # nothing to measure
        return text
    wrapped = []
    for line in text.split("\n"):
        lead = line[: len(line) - len(line.lstrip(" >*?0123456789."))]
        lead = lead if lead.endswith(" ") and len(lead) <= _MOST_LEAD else ""
        first, *rest = wrap(line[len(lead) :], max(width - len(lead), _NARROWEST))
        under = lead if lead.startswith(">") else " " * len(lead)
        wrapped += [lead + first, *(under + each for each in rest)]
    return "\n".join(wrapped)


_UNITS = ((365 * 86400, "y"), (30 * 86400, "mo"), (86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def seconds_since(timestamp: str, now: float) -> float | None:
    """Seconds from an ISO 8601 time to `now`; None for other text."""
    try:
        then = datetime.fromisoformat(timestamp)
    except ValueError:
        return None
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return now - then.timestamp()


def ago(timestamp: str, now: float) -> str:
    """An ISO 8601 time relative to `now`: `3m ago`, `in 2h`; other text unchanged."""
    seconds = seconds_since(timestamp, now)
    if seconds is None:
        return one_line(timestamp)
    if -60 < seconds < 1:  # clocks differ a little
        return "now"
    distance = abs(seconds)
    size, unit = next((step for step in _UNITS if distance >= step[0]), _UNITS[-1])
    count = f"{int(distance // size)}{unit}"
    return f"{count} ago" if seconds > 0 else f"in {count}"


def byte_size(count: int) -> str:
    """A number of bytes for people: `165 B`, `1.2 MiB`."""
    size, units = float(count), iter(("KiB", "MiB", "GiB", "TiB"))
    unit = "B"
    while size >= 1023.95 and (larger := next(units, None)):
        size, unit = size / 1024, larger
    return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"


def _text(value: Any, type_: str, now: float) -> str:
    """A value on one line."""
    if value is None:
        return ""
    if isinstance(value, str):
        return ago(value, now) if type_.startswith("time") else one_line(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and type_.startswith("bytes"):
        return byte_size(value)
    if isinstance(value, list):
        if any(isinstance(item, Mapping | list) for item in value):
            kind = KINDS.get(type_.removesuffix("?").removesuffix("[]"))
            return f"{len(value)} {kind.plural if kind else 'items'}"
        return ", ".join(_text(item, "", now) for item in value)
    if isinstance(value, Mapping):
        if type_.startswith("labels"):
            return ", ".join(one_line(f"{name}={each}") for name, each in value.items())
        message = value.get("message")
        if isinstance(message, str):
            return one_line(message)
    from .formats import encode

    return one_line(encode(value))


def _values(kind: RecordKind, rows: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    if name == "status" and "question" in kind.types:
        return [_status(kind, row) for row in rows]
    return [row.get(name) for row in rows]


def _status(kind: RecordKind, row: Mapping[str, Any]) -> Any:
    """A task's status for people: a run that waits for something is running to the API."""
    if status := kind.status(row):
        return status
    if kind.name == "task":
        return row.get("status")
    # All that a row says whose status was not read: whether it has ended, not how.
    return row.get("status") or ("ended" if row.get("completedAt") else "running")


class _Column:
    """One column of a listing: its heading and cells, each measured once."""

    def __init__(self, kind: RecordKind, name: str, rows: Sequence[Mapping[str, Any]], now: float):
        self.name = name
        self.type = kind.types.get(name, "any?")
        self.head = " ".join(_words(name, self.type)).upper()
        # Nearly all values are text, and a long table spends most of its time here.
        short = partial(ago, now=now) if self.type.startswith("time") else one_line
        self.texts = [
            short(value) if type(value) is str else _text(value, self.type, now)
            for value in _values(kind, rows, name)
        ]
        self.sizes = list(map(width_of, self.texts))
        self.width = max(width_of(self.head), max(self.sizes, default=0))
        self.elastic = self.type.startswith(("text", "any"))
        self.right = self.type.startswith(("integer", "number", "bytes"))

    def truncate(self, ellipsis: str) -> None:
        """Truncate the cells that are wider than the column has become."""
        for index, size in enumerate(self.sizes):
            if size > self.width:
                self.texts[index] = text = truncate(self.texts[index], self.width, ellipsis)
                # Measured without the ellipsis, which is not ASCII and would slow this down.
                self.sizes[index] = width_of(text.removesuffix(ellipsis)) + len(ellipsis)

    def lines(self, style: Style) -> Iterator[str]:
        """The heading and the cells, padded and in colour."""
        head = truncate(self.head, self.width, style.ellipsis)
        space = " " * (self.width - width_of(head))
        head = style.paint(BOLD, head)
        yield space + head if self.right else head + space
        colors = _STATUS_COLORS if self.name == "status" and style.color else {}
        for text, size in zip(self.texts, self.sizes, strict=True):
            space = " " * (self.width - size)
            if text in colors:
                text = f"{colors[text]}{text}{RESET}"
            yield space + text if self.right else text + space


def listing(
    kind: RecordKind, rows: Iterable[Mapping[str, Any]], names: Sequence[str], style: Style
) -> str:
    """Rows under a header, a line each. `names` are the columns."""
    rows = list(rows)
    columns = [_Column(kind, name, rows, style.now) for name in names]
    if style.width is not None:
        _fit(columns, style.width)
        for column in columns:
            column.truncate(style.ellipsis)
    lines = map(_GAP.join, zip(*(column.lines(style) for column in columns), strict=True))
    return "\n".join(line.rstrip(" ") for line in lines) + "\n"


def _words(name: str, type_: str) -> list[str]:
    """The words of a field's name in lower case: `workspaceId` is `workspace`, `id`; `isActive` is
    `active`."""
    if type_.startswith("time"):
        name = name.removesuffix("At")
    if type_.startswith("boolean"):
        name = name.removeprefix("is")
    spaced = "".join(" " + letter if letter.isupper() else letter for letter in one_line(name))
    return spaced.replace("_", " ").lower().split()


def _label(name: str, type_: str) -> str:
    """A field's name as a label: `createdAt` is Created, `workspaceId` Workspace ID."""
    words = [word.upper() if word in _ACRONYMS else word for word in _words(name, type_)]
    label = " ".join(words)
    return label[:1].upper() + label[1:]


def _fit(columns: Sequence[_Column], limit: int) -> None:
    """Shrink the widest elastic columns to a common width, so that rows fit if possible."""
    elastic = sorted((c for c in columns if c.elastic), key=lambda column: column.width)
    fixed = sum(column.width for column in columns if not column.elastic)
    left = limit - fixed - len(_GAP) * (len(columns) - 1)
    for index, column in enumerate(elastic):
        share = max(left // (len(elastic) - index), _NARROWEST)
        column.width = min(column.width, share)
        left -= column.width


def record(
    kind: RecordKind, row: Mapping[str, Any], fields: Sequence[str] | None, style: Style
) -> str:
    """One record as lines of names and values, lists of records as small tables below their name.

    Without `fields`, shows everything but nulls, the known fields first.
    """
    if fields is None:
        known = [name for name in kind.types if row.get(name) is not None]
        fields = known + [name for name in row if name not in kind.types and row[name] is not None]
    labels = [_label(name, kind.types.get(name, "")) or one_line(name) for name in fields]
    if style.width is not None:  # a long name from the API must leave room for values
        labels = [
            truncate(label, max(style.width // 3, _NARROWEST), style.ellipsis) for label in labels
        ]
    width = max(map(width_of, labels), default=0)
    room = None if style.width is None else max(style.width - width - len(_GAP), _NARROWEST)
    lines = []
    for name, label in zip(fields, labels, strict=True):
        (value,) = _values(kind, [row], name)
        type_ = kind.types.get(name, "any?")
        shown = style.paint(BOLD, label)
        if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            lines.append(shown)
            lines.extend("  " + line for line in _nested(type_, value, style))
            continue
        first, *rest = _long(name, value, type_, style, room)
        if first:
            shown += " " * (width - width_of(label)) + _GAP + first
        lines.append(shown)
        lines.extend((" " * (width + len(_GAP)) + line).rstrip() for line in rest)
    return "".join(line + "\n" for line in lines)


def _nested(type_: str, value: list[Mapping[str, Any]], style: Style) -> list[str]:
    """A small table, or a line of JSON for each item where they have too many different keys."""
    if style.width is not None:
        style = style._replace(width=style.width - 2)
    kind = KINDS.get(type_.removesuffix("?").removesuffix("[]"))
    if kind is not None:
        return listing(kind, value, kind.columns, style).splitlines()
    names = list(dict.fromkeys(key for row in value for key in row))
    if len(names) > _MOST_COLUMNS:  # rows times columns would grow with the square of the answer
        return [_json_line(row, style) for row in value]
    return listing(RecordKind("", "items", "", "", ""), value, names, style).splitlines()


def _json_line(value: Any, style: Style) -> str:
    from .formats import encode

    line = one_line(encode(value))
    return line if style.width is None else truncate(line, style.width, style.ellipsis)


def _long(name: str, value: Any, type_: str, style: Style, room: int | None) -> list[str]:
    """A value in full: all lines of a text in at most `room` cells, both forms of a time."""
    if isinstance(value, str):
        if type_.startswith("time"):
            shown, relative = one_line(value), ago(value, style.now)
            return [shown if shown == relative else f"{shown} ({relative})"]
        if name == "status":
            return [style.paint(_STATUS_COLORS.get(value, ""), one_line(value))]
        lines = clean(value.rstrip("\n")).split("\n")
    else:
        lines = [_text(value, type_, style.now)]
    return lines if room is None else [piece for line in lines for piece in wrap(line, room)]
