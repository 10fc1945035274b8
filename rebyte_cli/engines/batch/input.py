"""The input of a batch: read once, checked whole, kept where it cannot change any more."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, Literal, NamedTuple

from ...errors import BadUsage
from .fields import Checker, from_cells
from .template import Template

Form = Literal["jsonl", "text", "csv"]
IN_MEMORY = 8 << 20  # bytes of bodies before they go to a file
LONGEST_LINE = 16 << 20  # bytes; a device or a picture has no lines at all
MOST_NAMED = 1000  # bad lines; a file with more is another kind of file


class Line(NamedTuple):
    """One line: `number` counts from 1 in the file, `key` is its name in the results.

    `workspace` is an id, `@key` for the workspace of another line, or None for a new one.
    `paths` are files to upload. `at` and `size` say where its body lies.
    """

    number: int
    key: str
    workspace: str | None
    paths: tuple[str, ...]
    at: int
    size: int


class Input:
    """Every line of a batch. `digest` stands for the content and how it was read."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.digest = ""
        # Aside, not in memory: ten thousand long prompts are a gigabyte. And not read from the
        # user's file later, which an editor may have changed by then.
        self._bodies = SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 -- lives as long as this
        self._end = 0
        self._lock = threading.Lock()

    def add(self, number: int, key: str, workspace: str | None, paths: tuple[str, ...],
            body: Mapping[str, Any]) -> None:  # fmt: skip
        """Keep one more line."""
        data = json.dumps(body, separators=(",", ":")).encode()
        try:
            self._bodies.write(data)
        except OSError as error:
            raise BadUsage(f"cannot keep the input aside: {error.strerror}") from None
        self.lines.append(Line(number, key, workspace, paths, self._end, len(data)))
        self._end += len(data)

    def body(self, line: Line) -> dict[str, Any]:
        """The fields of POST /tasks for a line, without `workspaceId` and without `paths`."""
        with self._lock:
            self._bodies.seek(line.at)
            data = self._bodies.read(line.size)
        body: dict[str, Any] = json.loads(data)
        return body


def lines_of(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file with their ends, none of them so long that it would fill the memory."""
    return iter(lambda: file.readline(LONGEST_LINE + 1), b"")


def read_input(
    source: Iterable[bytes],
    name: str,
    *,
    form: Form,
    template: Template | None,
    checker: Checker,
) -> Input:
    """Read and check every line of `source`, which yields them with their line ends.

    `name` is what errors call it. Raises one BadUsage that names every bad line, its field and
    what is wrong (of very many, the first thousand); then nothing may be sent. A key defaults to
    the number of its line.
    """
    digest = hashlib.sha256(f"{form}\0{template.text if template else ''}\0".encode())
    read = Input()
    bad: list[str] = []
    first_with: dict[str, int] = {}
    for number, record in _RECORDS[form](_decoded(source, digest, bad), bad):
        problems = []
        prompt = None
        if template is not None:
            try:
                prompt = template.fill(record, number)
            except BadUsage as error:
                problems.append(error.message + (f"; {error.hint}" if error.hint else ""))
                prompt = "?"  # so that the rest of the line is checked too
        fields, wrong = checker.check(record, prompt=prompt, data=template is not None)
        problems += [f"{_shown(field)}: {why}" for field, why in wrong]
        key = fields.key or str(number)
        if first_with.setdefault(key, number) != number:
            problems.append(f"key: {key!r} is the key of line {first_with[key]} already")
        if problems:
            bad += [f"line {number}: {problem}" for problem in problems]
        elif not bad:
            read.add(number, key, fields.workspace, fields.paths, fields.body)
    refuse_bad_lines(name, bad)
    read.digest = digest.hexdigest()
    return read


def refuse_bad_lines(name: str, bad: list[str]) -> None:
    """Raise BadUsage with every bad line, if there are any."""
    if bad:
        count = len({line.split(":", 1)[0] for line in bad})
        lines = "1 bad line" if count == 1 else f"{count} bad lines"
        if len(bad) >= MOST_NAMED:
            lines = f"at least {count} bad lines"
        raise BadUsage("\n".join([f"{name} has {lines}; nothing was sent", *bad[:MOST_NAMED]]))


def _decoded(source: Iterable[bytes], digest: Any, bad: list[str]) -> Iterator[tuple[int, str]]:
    """Lines as text with their numbers; one that is not UTF-8 is bad and left out."""
    for number, raw in enumerate(source, 1):
        if len(bad) >= MOST_NAMED:
            return
        if len(raw) > LONGEST_LINE:
            bad.append(f"line {number}: is longer than {LONGEST_LINE >> 20} MiB")
            return
        digest.update(raw)
        try:
            yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            byte = raw[error.start]
            bad.append(f"line {number}: not UTF-8: byte {error.start + 1} is 0x{byte:02x}")


Numbered = Iterator[tuple[int, str]]
Found = Iterator[tuple[int, dict[str, Any]]]


def _text(lines: Numbered, _bad: list[str]) -> Found:
    for number, line in lines:
        text = line.rstrip("\r\n")
        if text.strip():
            yield number, {"prompt": text}


def _jsonl(lines: Numbered, bad: list[str]) -> Found:
    for number, line in lines:
        if not line.strip():
            continue
        try:
            record = json.loads(line, object_pairs_hook=_once_each)
        except json.JSONDecodeError as error:
            why = error.msg.removesuffix(" at")
            bad.append(f"line {number}: not JSON: {why} at character {error.pos + 1}")
        except (ValueError, RecursionError) as error:
            why = "nested too deeply" if isinstance(error, RecursionError) else str(error)
            bad.append(f"line {number}: {why}")
        else:
            if isinstance(record, dict):
                yield number, record
            else:
                bad.append(f"line {number}: not a JSON object (--text takes one prompt per line)")


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{_shown(twice)}: given twice")
    return record


def _shown(name: str) -> str:
    return name if name.isprintable() else repr(name)


def _csv(lines: Numbered, bad: list[str]) -> Found:
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
            bad.append(f"line {current}: not CSV: {error}")
            return
        if not cells:
            continue
        if header is None:
            header = [cell.strip() for cell in cells]
            if len(header) == 1 and (sign := next((s for s in ";\t" if s in cells[0]), None)):
                bad.append(f"line {begins}: cells are divided by commas here, not by {sign!r}")
                return
            twice = [name for name in header if header.count(name) > 1 or not name]
            if twice:
                bad.append(f"line {begins}: the header has {twice[0]!r} twice or without a name")
                return
        elif len(cells) != len(header):
            bad.append(f"line {begins}: has {len(cells)} cells, and the header has {len(header)}")
        else:
            yield begins, from_cells(dict(zip(header, cells, strict=True)))


_RECORDS: dict[Form, Callable[[Numbered, list[str]], Found]] = {
    "jsonl": _jsonl,
    "text": _text,
    "csv": _csv,
}
