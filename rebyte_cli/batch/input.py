"""The input of a batch: read once, checked as a whole, kept where it cannot change any more."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, Literal, NamedTuple, TextIO

from ..errors import BadUsage, NotFound, did_you_mean
from .fields import Checker, Fields, from_cells

Form = Literal["jsonl", "text", "csv"]
IN_MEMORY = 8 << 20  # bytes of bodies before they go to a file
LONGEST_LINE = 16 << 20  # bytes; a device or a picture has no lines at all
MOST_LINES = 1_000_000
LARGEST_INPUT = 4 << 30  # bytes
LARGEST_TEMPLATE = 1 << 20  # bytes; a prompt has 100,000 characters at most
MOST_NAMED = 1000  # bad lines; a file with more is another kind of file


class Source(NamedTuple):
    """Which file a batch reads, how, which part of it, and where its journal is."""

    file: str
    text: bool = False
    csv: bool = False
    template: str | None = None
    workspace_per_line: bool = False
    shard: tuple[int, int] = (1, 1)
    journal: str | None = None

    @property
    def name(self) -> str:
        """What errors call the input."""
        return "standard input" if self.file == "-" else self.file

    @property
    def form(self) -> Form:
        """How the lines are written. BadUsage for two ways at once."""
        if self.text and self.csv:
            raise BadUsage("--text and --csv cannot be used together")
        if self.text:
            return "text"
        return "csv" if self.csv or self.file.lower().endswith(".csv") else "jsonl"

    @property
    def journal_path(self) -> Path:
        """Where the journal is. BadUsage for standard input without `--journal`."""
        if self.journal is not None:
            return Path(self.journal)
        if self.file == "-":
            raise BadUsage(
                "a batch from standard input needs --journal PATH",
                hint="The next run reads it to resume.",
            )
        number, of = self.shard
        part = "" if of == 1 else f".{number}-of-{of}"
        return Path(f"{self.file}{part}.journal")


class InputLine(NamedTuple):
    """One line: `number` counts from 1 in the file, `key` is its name in the results.

    `workspace` is an id, `@key` for the workspace of another line, or None for a new one.
    `paths` are files to upload. `offset` and `size` say where its body is kept.
    """

    number: int
    key: str
    workspace: str | None
    paths: tuple[str, ...]
    offset: int
    size: int


class Input:
    """Every line of a batch. `digest` stands for the content and how it was read."""

    def __init__(self) -> None:
        self.lines: list[InputLine] = []
        self.digest = ""
        # Not in memory, where ten thousand long prompts are a gigabyte. And not read from the
        # user's file later, which an editor may have changed by then.
        self._bodies = SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 -- lives as long as this
        self._end = 0
        self._lock = threading.Lock()

    def add(self, number: int, fields: Fields) -> None:
        """Keep one more line, whose key defaults to its number."""
        data = json.dumps(fields.body, separators=(",", ":")).encode()
        try:
            self._bodies.write(data)
        except OSError as error:
            raise BadUsage(f"cannot store the input: {error.strerror}") from None
        key = fields.key or str(number)
        line = InputLine(number, key, fields.workspace, fields.paths, self._end, len(data))
        self.lines.append(line)
        self._end += len(data)

    def body(self, line: InputLine) -> dict[str, Any]:
        """The fields of POST /tasks for a line, without `workspaceId` and without `paths`."""
        with self._lock:
            self._bodies.seek(line.offset)
            data = self._bodies.read(line.size)
        body: dict[str, Any] = json.loads(data)
        return body


# -- reading -----------------------------------------------------------------------------------


def read_source(
    source: Source,
    stdin: TextIO | None,
    *,
    defaults: Mapping[str, Any],
    files: Iterable[str],
) -> Input:
    """The checked input of a batch.

    `defaults` are fields of POST /tasks, and `files` paths, for lines that do not name their own.
    Raises BadUsage that names every bad line, and NotFound for a file that is missing.
    """
    from ..tasks.upload import check

    template = None
    if source.template is not None:
        template = Template(_read_template(source.template), source.template)
    body = dict(defaults)
    workspace = body.pop("workspaceId", None)
    if source.workspace_per_line and workspace:
        raise BadUsage("--workspace and --workspace-per-line cannot be used together")
    checker = Checker(
        Fields(body, workspace, tuple(check(files))),
        workspace_per_line=source.workspace_per_line,
        find_files=lambda path: check([path]),
    )

    def read(file: BinaryIO) -> Input:
        return read_input(
            lines_of(file), source.name, form=source.form, template=template, checker=checker
        )

    if source.file == "-":
        if stdin is None:
            raise BadUsage("standard input is closed")
        return read(stdin.buffer)
    try:
        with open(source.file, "rb") as file:
            return read(file)
    except FileNotFoundError:
        raise NotFound(f"no such file: {source.file}") from None
    except OSError as error:
        raise BadUsage(f"cannot read {source.file}: {error.strerror}") from None


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
    what is wrong (the first thousand of very many); then nothing may be sent.
    """
    digest = hashlib.sha256(f"{form}\0{template.text if template else ''}\0".encode())
    read = Input()
    bad: list[str] = []
    first_with: dict[str, int] = {}
    for number, record in _RECORDS[form](_decoded(source, name, digest, bad), bad):
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
            problems.append(f"key: line {first_with[key]} already has the key {key!r}")
        if problems:
            bad += [f"line {number}: {problem}" for problem in problems]
        elif not bad:
            read.add(number, fields)
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


def _decoded(
    source: Iterable[bytes], name: str, digest: Any, bad: list[str]
) -> Iterator[tuple[int, str]]:
    """Lines as text with their numbers; one that is not UTF-8 is bad and left out."""
    size = 0
    for number, raw in enumerate(source, 1):
        if len(bad) >= MOST_NAMED:
            return
        if len(raw) > LONGEST_LINE:
            bad.append(f"line {number}: is longer than {LONGEST_LINE >> 20} MiB")
            return
        size += len(raw)
        if number > MOST_LINES or size > LARGEST_INPUT:
            limit = f"{MOST_LINES:,} lines" if number > MOST_LINES else f"{LARGEST_INPUT >> 30} GiB"
            raise BadUsage(
                f"{name} has more than {limit}; nothing was sent",
                hint="Split it into several files, each a batch with its own journal.",
            )
        digest.update(raw)
        try:
            yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            byte = raw[error.start]
            bad.append(f"line {number}: not UTF-8: byte {error.start + 1} is 0x{byte:02x}")


def _shown(name: str) -> str:
    return name if name.isprintable() else repr(name)


# -- the three forms ---------------------------------------------------------------------------

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
            record = json.loads(line, object_pairs_hook=_without_duplicates)
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


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        raise ValueError(f"{_shown(_repeated(name for name, _ in pairs))}: given twice")
    return record


def _repeated(names: Iterable[str]) -> str:
    """The first of the names that are there more than once."""
    return next(name for name, count in Counter(names).items() if count > 1)


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
            if wrong := _header_problem(header, cells):
                bad.append(f"line {begins}: {wrong}")
                return
        elif len(cells) != len(header):
            bad.append(f"line {begins}: has {len(cells)} cells, and the header has {len(header)}")
        else:
            yield begins, from_cells(dict(zip(header, cells, strict=True)))


def _header_problem(header: list[str], cells: list[str]) -> str | None:
    if len(header) == 1 and (sign := next((sign for sign in ";\t" if sign in cells[0]), None)):
        return f"cells must be separated by commas, not by {sign!r}"
    if "" in header:
        return f"the header has no name in column {header.index('') + 1}"
    return f"the header has {_repeated(header)!r} twice" if len(set(header)) < len(header) else None


_RECORDS: dict[Form, Callable[[Numbered, list[str]], Found]] = {
    "jsonl": _jsonl,
    "text": _text,
    "csv": _csv,
}


# -- templates ---------------------------------------------------------------------------------

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
                    f"the template needs {field!r}, which the line does not have",
                    hint=did_you_mean(field, islice(values, MOST_NAMED)),
                )
        return _PLACEHOLDER.sub(lambda found: _inserted(known[found[1].strip()]), self.text)


def _inserted(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _read_template(path: str) -> str:
    try:
        with open(path, "rb") as file:  # it may be a device, which has no end
            data = file.read(LARGEST_TEMPLATE + 1)
    except FileNotFoundError:
        raise NotFound(f"no such file: {path}") from None
    except OSError as error:
        raise BadUsage(f"cannot read {path}: {error.strerror}") from None
    if len(data) > LARGEST_TEMPLATE:
        raise BadUsage(f"{path} is larger than {LARGEST_TEMPLATE >> 20} MiB")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise BadUsage(f"{path} is not UTF-8 (byte {error.start + 1})") from None
