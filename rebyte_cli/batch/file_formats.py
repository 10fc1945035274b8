"""The formats of an input file, JSON Lines, CSV and text, as fields by line.

A file in another format than was asked for would have a mistake in every line. It is recognized
and explained once instead, with the option that reads it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from shlex import quote
from typing import Any, Literal

from ..errors import BadUsage, did_you_mean
from .line_fields import KNOWN, MOST_COMPARED, from_cells

FileFormat = Literal["jsonl", "text", "csv"]
LONGEST_LINE = 16 << 20  # bytes; a device or a picture has no lines at all
MOST_LINES = 1_000_000
LARGEST_INPUT = 4 << 30  # bytes
_COLUMN = re.compile(r"\w[\w-]*")
MOST_FOUND = 1000  # mistakes; a file with more is another kind of file
MOST_SHOWN = 10  # mistakes that are named; of the others only the number is shown
MOST_NUMBERS = 5  # lines that are named for one mistake
_SIZE = 16  # bytes that a fingerprint keeps of each line

Numbered = Iterator[tuple[int, str]]
NumberedRecords = Iterator[tuple[int, dict[str, Any]]]


class Fingerprint:
    """Digests of an input: of all of it, and of its lines up to each one.

    By these a later run knows the input again after lines were added. Lines here are those of the
    file: blank ones count, and a record of CSV may take several.
    """

    def __init__(self, how: str) -> None:
        """`how` stands for the way in which the lines are read; another way is another input."""
        self._hash = hashlib.sha256(how.encode())
        self._ends = bytearray()
        self._line_end = b""

    def add(self, raw: bytes) -> None:
        """Take the next line, with its end."""
        text = raw.rstrip(b"\r\n")
        self._hash.update(self._line_end + text)
        self._line_end = raw[len(text) :]
        # Without its end: a last line may get one when others are appended.
        self._ends += self._hash.copy().digest()[:_SIZE]

    def include(self, text: str) -> None:
        """Take a text from elsewhere that the last line, or every line, stands for."""
        self._hash.update(f"\0{text}\0".encode())
        if self._ends:
            self._ends[-_SIZE:] = self._hash.copy().digest()[:_SIZE]

    @property
    def whole(self) -> str:
        """The digest of everything, to the byte."""
        last = self._hash.copy()
        last.update(self._line_end)
        return last.hexdigest()

    @property
    def mark(self) -> dict[str, Any]:
        """The number of lines and their digest, for `begins_with` of a longer input."""
        return {"lines": len(self._ends) // _SIZE, "digest": self._ends[-_SIZE:].hex()}

    def begins_with(self, mark: Mapping[str, Any]) -> bool:
        """Whether the first lines are those of the input that has this mark."""
        count = mark.get("lines")
        if not isinstance(count, int) or not 0 <= count <= len(self._ends) // _SIZE:
            return False
        return self._ends[max(count - 1, 0) * _SIZE : count * _SIZE].hex() == mark.get("digest")


class BadLines:
    """The mistakes of an input, gathered so that one error names them all.

    `name` is what errors call the input.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._found: dict[str, dict[int, None]] = {}  # mistakes, and the lines that have each
        self._count = 0

    def __bool__(self) -> bool:
        """Whether there is a mistake."""
        return bool(self._found)

    def add(self, number: int, problem: str) -> None:
        """Note a mistake in the line with this number."""
        self._found.setdefault(problem, {})[number] = None
        self._count += 1

    @property
    def are_too_many(self) -> bool:
        """Whether there are so many mistakes that looking for more is of no use."""
        return self._count >= MOST_FOUND

    def refuse(self) -> None:
        """Raise BadUsage that explains each of the first mistakes once, if there are any.

        Each comes with the first lines that have it and the number of the others.
        """
        if not self:
            return
        count = len({number for numbers in self._found.values() for number in numbers})
        lines = "1 bad line" if count == 1 else f"{count} bad lines"
        if self.are_too_many:
            lines = f"at least {lines}"
        shown = list(self._found.items())[:MOST_SHOWN]
        message = [f"{self.name} has {lines}; nothing was sent"]
        message += [f"{_lines(list(numbers))}: {problem}" for problem, numbers in shown]
        if rest := len(self._found) - len(shown):
            message.append(f"and {rest} more mistake{'s' if rest > 1 else ''}")
        raise BadUsage("\n".join(message))


def _lines(numbers: list[int]) -> str:
    """`line 7`, `lines 1, 2 and 3`, or the first ones and the number of all others."""
    if len(numbers) == 1:
        return f"line {numbers[0]}"
    named = [str(number) for number in numbers[:MOST_NUMBERS]]
    rest = len(numbers) - len(named)
    last = f"{rest} more" if rest else named.pop()
    return f"lines {', '.join(named)} and {last}"


def decoded(
    source: Iterable[bytes],
    fingerprint: Fingerprint,
    bad: BadLines,
    *,
    largest: int = LARGEST_INPUT,
) -> Numbered:
    """Lines as text with their numbers; one that is not UTF-8 is bad and left out.

    `fingerprint` gets every line. Raises BadUsage for more than can be handled, as `largest` bytes.
    """
    size = 0
    for number, raw in enumerate(source, 1):
        if bad.are_too_many:
            return
        if len(raw) > LONGEST_LINE:
            bad.add(number, f"is longer than {LONGEST_LINE >> 20} MiB")
            return
        size += len(raw)
        if number > MOST_LINES or size > largest:
            limit = f"{MOST_LINES:,} lines" if number > MOST_LINES else f"{largest >> 30} GiB"
            raise BadUsage(
                f"{bad.name} has more than {limit}; nothing was sent",
                hint="Split it into several files, each a batch with its own journal.",
            )
        fingerprint.add(raw)
        try:
            yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            if number == 1 and raw.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise _is_utf_16(bad.name) from None
            byte = raw[error.start]
            bad.add(number, f"not UTF-8: byte {error.start + 1} is 0x{byte:02x}")


def records(
    form: FileFormat, lines: Numbered, bad: BadLines, template: tuple[str, ...] | None
) -> NumberedRecords:
    """The fields of each line, with its number. What cannot be read is added to `bad`.

    `template` names the fields that a template needs; None without one. Raises BadUsage for a file
    of another form.
    """
    if form == "text":
        return _text(bad.name, lines, template)
    return _jsonl(lines, bad) if form == "jsonl" else _csv(lines, bad, template)


def printable(name: str) -> str:
    """A name from the input as errors show it."""
    return name if name.isprintable() else repr(name)


def _is_utf_16(name: str) -> BadUsage:
    path = quote(name)
    return BadUsage(
        f"{name} is UTF-16, not UTF-8; nothing was sent",
        hint=f"Convert it: iconv -f UTF-16 -t UTF-8 {path} > {path}.utf8",
    )


def _text(name: str, lines: Numbered, template: tuple[str, ...] | None) -> NumberedRecords:
    for field in template or ():
        if field not in ("prompt", "line"):
            raise BadUsage(
                f"{name} is read with --text, so no line has {field!r}, which the template needs;"
                " nothing was sent",
                hint="Write {{prompt}} where the text of the line should appear.",
            )
    for number, line in lines:
        text = line.rstrip("\r\n")
        if text.strip():
            yield number, {"prompt": text}


# JSON Lines


def _jsonl(lines: Numbered, bad: BadLines) -> NumberedRecords:
    first: list[tuple[int, str]] = []  # lines with something in them, while none is an object
    has_objects = False
    for number, line in lines:
        if not line.strip():
            continue
        if not has_objects:
            has_objects = line.lstrip().startswith("{")
            first = [*first, (number, line.strip())][:2]
        try:
            record = json.loads(line, object_pairs_hook=_without_duplicates)
        except json.JSONDecodeError as error:
            why = error.msg.removesuffix(" at")
            bad.add(number, f"not JSON: {why} at character {error.pos + 1}")
        except (ValueError, RecursionError) as error:
            why = "nested too deeply" if isinstance(error, RecursionError) else str(error)
            bad.add(number, why)
        else:
            if isinstance(record, dict):
                yield number, record
            else:
                bad.add(number, "not a JSON object (--text takes one prompt per line)")
    if first and (not has_objects or first[0][1] in "{[" or first[0][1].startswith("[{")):
        raise _not_json_lines(bad.name, first)


def _not_json_lines(name: str, first: list[tuple[int, str]]) -> BadUsage:
    """The error for a file of another form, from its first lines."""
    number, line = first[0]
    path = quote(name if name != "standard input" else "FILE")
    if line.startswith(("[", "{")):
        what = "a JSON array" if line.startswith("[") else "JSON over several lines"
        each = "'.[]'" if line.startswith("[") else "."
        return BadUsage(
            f"{name} is {what}, not JSON Lines; nothing was sent",
            hint=f"Put each task on one line: jq -c {each} {path} > tasks.jsonl",
        )
    if columns := _columns(first):
        how = "--csv" if "prompt" in columns else "--csv --template FILE"
        hint = f"It looks like CSV with the columns {', '.join(columns)}: pass {how}."
    else:
        hint = "If it holds one prompt per line, pass --text. If it is CSV, pass --csv."
    return BadUsage(
        f"{name} is not JSON Lines: line {number} is not a JSON object; nothing was sent", hint=hint
    )


def _columns(first: list[tuple[int, str]]) -> list[str] | None:
    """The names in the first line if that is the header of a CSV file, as far as two lines tell."""
    cells = [line.split(",") for _, line in first]
    names = [name.strip('"') for name in cells[0]]
    is_header = len(names) > 1 and all(map(_COLUMN.fullmatch, names))
    return names if is_header and all(len(row) >= len(names) for row in cells) else None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        raise ValueError(f"{printable(_repeated(name for name, _ in pairs))}: given twice")
    return record


def _repeated(names: Iterable[str]) -> str:
    """The first of the names that are there more than once."""
    return next(name for name, count in Counter(names).items() if count > 1)


# CSV


def _csv(lines: Numbered, bad: BadLines, template: tuple[str, ...] | None) -> NumberedRecords:
    import csv

    current = 0

    def texts() -> Iterator[str]:
        nonlocal current
        for number, line in lines:
            current = number
            yield line

    csv.field_size_limit(LONGEST_LINE)  # data for a template may be longer than a prompt
    rows = csv.reader(texts(), strict=True)
    header: list[str] | None = None
    while True:
        begins = current + 1
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            bad.add(current, f"not CSV: {error}")
            return
        if not cells:
            continue
        if header is None:
            header = [cell.strip() for cell in cells]
            if wrong := _header_problem(header, cells):
                bad.add(begins, wrong)
                return
            _check_columns(bad.name, header, template)
        elif len(cells) != len(header):
            bad.add(begins, f"has {len(cells)} cells, and the header has {len(header)}")
        else:
            yield begins, from_cells(dict(zip(header, cells, strict=True)))


def _header_problem(header: list[str], cells: list[str]) -> str | None:
    if len(header) == 1 and (sign := next((sign for sign in ";\t" if sign in cells[0]), None)):
        return f"cells must be separated by commas, not by {sign!r}"
    if "" in header:
        return f"the header has no name in column {header.index('') + 1}"
    return f"the header has {_repeated(header)!r} twice" if len(set(header)) < len(header) else None


def _check_columns(name: str, header: list[str], template: tuple[str, ...] | None) -> None:
    """Raise BadUsage for a header that no row of the file can make good."""
    some = header[:MOST_COMPARED]
    if template is not None:
        missing = {*template} - {*header, "line"}
        if field := next((field for field in template if field in missing), None):
            near = did_you_mean(field, some)
            columns = f"the columns are {', '.join(map(printable, header[:MOST_SHOWN]))}"
            raise BadUsage(
                f"{name} has no column {field!r}, which the template needs; nothing was sent",
                hint=f"{near}\n{columns}" if near else columns,
            )
        return
    if "prompt" not in header:
        raise BadUsage(
            f"{name} has no column 'prompt'; nothing was sent",
            hint=did_you_mean("prompt", some)
            or "To make the prompts from the columns, pass --template FILE: a text with "
            f"{{{{{printable(header[0])}}}}} where the value of that column should appear.",
        )
    for column in header:
        if column not in KNOWN:
            raise BadUsage(
                f"{name} has the column {column!r}, which is no field of a task; nothing was sent",
                hint=did_you_mean(column, KNOWN)
                or "Only a prompt made with --template FILE can use other columns.",
            )
