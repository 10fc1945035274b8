"""The input of a batch: read once, checked as a whole, kept where it cannot change any more.

Lines that share a workspace run one after another, the rest at will: see `Plan`.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from itertools import islice
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, TextIO

from ..errors import BadUsage, NotFound, did_you_mean
from ..system.safe_text import one_line
from .file_formats import (
    LONGEST_LINE,
    BadLines,
    FileFormat,
    Fingerprint,
    decoded,
    printable,
    records,
)
from .line_fields import MOST_COMPARED, NO_PROMPT, NO_SUCH_FIELD, LineChecker, LineFields

if TYPE_CHECKING:
    from ..tasks.answer_schema import AnswerSchema

LONGEST_TITLE = 72  # characters
IN_MEMORY = 8 << 20  # bytes of bodies before they go to a file
MOST_HINTS = 20  # unknown keys for which a similar one is named
LONGEST_CIRCLE = 20  # lines of a circle that are named
REPOSITORY = ("githubUrl", "branchName", "localRepository")  # one replaces the defaults of all
LARGEST_TEMPLATE = 1 << 20  # bytes; a prompt has 100,000 characters at most
_PLACEHOLDER = re.compile(r"\{\{([^{}\n]*[^{}\s][^{}\n]*)\}\}")


class InputSource(NamedTuple):
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
        """What errors and pages call the input: text, also if the name of the file is none."""
        return "standard input" if self.file == "-" else one_line(self.file)

    @property
    def form(self) -> FileFormat:
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
        # What a name such as /dev/stdin or /dev/fd/63 stands for differs from run to run.
        target = Path(os.path.realpath(self.file))
        is_lasting = target.is_file() or target.is_fifo()
        if self.file == "-" or (os.path.exists(self.file) and not is_lasting):
            raise BadUsage(
                f"a batch from {self.name} needs --journal PATH",
                hint="The next run reads it to resume.",
            )
        number, of = self.shard
        part = "" if of == 1 else f".{number}-of-{of}"
        return Path(f"{self.beside}{part}.journal")

    @property
    def beside(self) -> str:
        """The file that a journal is kept beside: the one that a link leads to.

        By whatever name a file is given, its lines are the same. A journal that was begun beside
        the link stays in use.
        """
        if not (os.path.islink(self.file) and os.path.isfile(self.file)):
            return self.file
        target = os.path.realpath(self.file)
        begun = [bool(journals_of(path)) for path in (self.file, target)]
        return self.file if begun == [True, False] else target

    def refuse_other_shards(self) -> None:
        """BadUsage when the file was begun with another number of shards: lines would run twice.

        Also for standard input without a journal, before any of it is read.
        """
        path = self.journal_path
        if self.journal is not None:
            return
        file, of = self.beside, self.shard[1]
        own = r"" if of == 1 else rf"\.\d+-of-{of}"
        own_part = re.compile(re.escape(os.path.basename(file)) + own + r"\.journal")
        for other in journals_of(file):
            if not own_part.fullmatch(other):
                raise BadUsage(
                    f"{self.file} was started with another --shard: {path.with_name(other)} exists",
                    hint="Its lines would get a second task. To start over, pass a new --journal.",
                )


def title_of(prompt: str) -> str:
    """How a prompt begins, on one line."""
    first = prompt.lstrip()[: 4 * LONGEST_TITLE].splitlines()[0]
    words = " ".join(first.split())
    return words if len(words) <= LONGEST_TITLE else words[: LONGEST_TITLE - 1].rstrip() + "…"


def journals_of(file: str) -> list[str]:
    """The names of the journals beside a file, whatever their shards."""
    folder, name = os.path.split(file)
    pattern = re.compile(re.escape(name) + r"(\.\d+-of-\d+)?\.journal")
    try:
        return list(filter(pattern.fullmatch, os.listdir(folder or ".")))
    except OSError:  # reading the file reports it better
        return []


class InputLine(NamedTuple):
    """One line: `number` counts from 1 in the file, `key` is its name in the results.

    `workspace` is an id, `@key` for the workspace of another line, or None for a new one.
    `paths` are files to upload, `labels` pairs for the history. `offset` and `size` say where its
    body is kept. `title` is how its prompt begins. `schema` is what its answer must fit.
    """

    number: int
    key: str
    workspace: str | None
    paths: tuple[str, ...]
    offset: int
    size: int
    labels: tuple[tuple[str, str], ...] = ()
    title: str = ""
    schema: AnswerSchema | None = None

    @property
    def has_own_key(self) -> bool:
        """Whether the input names it; else its key is its number."""
        return self.key != str(self.number)


class Input:
    """Every line of a batch. `fingerprint` stands for the content and how it was read."""

    def __init__(self, fingerprint: Fingerprint) -> None:
        self.lines: list[InputLine] = []
        self.fingerprint = fingerprint
        # Not in memory, where ten thousand long prompts are a gigabyte. And not read from the
        # user's file later, which an editor may have changed by then.
        self._bodies = SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 -- lives as long as this
        self._end = 0
        self._lock = threading.Lock()
        self._defaults: Mapping[str, Any] = {}

    def add(self, number: int, fields: LineFields) -> None:
        """Keep one more line, whose key defaults to its number."""
        data = json.dumps(fields.body, separators=(",", ":")).encode()
        try:
            self._bodies.write(data)
        except OSError as error:
            raise BadUsage(f"cannot store the input: {error.strerror}") from None
        key = fields.key or str(number)
        labels = tuple(fields.labels.items())
        title = title_of(fields.body["prompt"])
        where = (self._end, len(data))
        self.lines.append(
            InputLine(
                number, key, fields.workspace, fields.paths, *where, labels, title, fields.schema
            )
        )
        self._end += len(data)

    def body(self, line: InputLine) -> dict[str, Any]:
        """The fields of POST /tasks for a line, without `workspaceId` and without `paths`."""
        with self._lock:
            self._bodies.seek(line.offset)
            data = self._bodies.read(line.size)
        body: dict[str, Any] = json.loads(data)
        defaults = self._defaults
        if any(name in body for name in REPOSITORY):
            defaults = {name: defaults[name] for name in defaults if name not in REPOSITORY}
        return {**defaults, **body}

    def with_defaults(self, defaults: Mapping[str, Any]) -> Input:
        """The same lines, whose bodies have these fields unless they set them."""
        made = copy(self)
        made._defaults = defaults
        return made


# Reading


def read_source(
    source: InputSource,
    stdin: TextIO | None,
    *,
    defaults: Mapping[str, Any],
    files: Iterable[str],
    labels: Mapping[str, str],
    schema: AnswerSchema | None = None,
) -> Input:
    """The checked input of a batch.

    `defaults` are fields of POST /tasks, `files` paths, and `schema` is what answers must fit, for
    lines that do not name their own. All lines get `labels`.
    Raises BadUsage that names every bad line, and NotFound for a file that is missing.
    """
    from ..system.files import read_text
    from ..tasks.upload import check

    template = None
    if source.template is not None:
        template = Template(read_text(source.template, LARGEST_TEMPLATE), source.template)
    body = dict(defaults)
    workspace = body.pop("workspaceId", None)
    if source.workspace_per_line and workspace:
        raise BadUsage("--workspace and --workspace-per-line cannot be used together")
    checker = LineChecker(
        LineFields(body, workspace, tuple(check(files)), labels=labels, schema=schema),
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
    form: FileFormat,
    template: Template | None,
    checker: LineChecker,
) -> Input:
    """Read and check every line of `source`, which yields them with their line ends.

    `name` is what errors call it. Raises one BadUsage that says what is wrong with which lines, or
    that the file is of another form; then nothing may be sent.
    """
    read = Input(Fingerprint(f"{form}\0{template.text if template else ''}\0"))
    schema = checker.defaults.schema
    if schema is not None:  # what prompts ask for is a part of them
        read.fingerprint.include(schema.text)
    bad = BadLines(name)
    first_with: dict[str, int] = {}
    columns = template.fields if template is not None else None
    foreign: str | None = None  # a field that no task has
    has_prompts = False
    for number, record in records(form, decoded(source, read.fingerprint, bad), bad, columns):
        problems = []
        prompt = None
        if template is not None:
            try:
                prompt = template.fill(record, number)
            except BadUsage as error:
                problems.append(error.message + (f". {error.hint}" if error.hint else ""))
                prompt = "?"  # so that the rest of the line is checked too
        fields, wrong = checker.check(record, prompt=prompt)
        problems += [f"{printable(field)}: {why}" for field, why in wrong]
        key = fields.key or str(number)
        if first_with.setdefault(key, number) != number:
            problems.append(f"key: line {first_with[key]} already has the key {key!r}")
        has_prompts = has_prompts or NO_PROMPT not in wrong
        unknown = (field for field, why in wrong if why.startswith(NO_SUCH_FIELD))
        foreign = foreign or next(unknown, None)
        if fields.schema is not None and fields.schema is not schema:
            read.fingerprint.include(fields.schema.text)
        for problem in problems:
            bad.add(number, problem)
        if not bad:
            read.add(number, fields)
    if foreign is not None and not has_prompts:
        raise _needs_template(name, foreign)
    bad.refuse()
    return read


def _needs_template(name: str, field: str) -> BadUsage:
    """The error for a file without a single prompt, whose fields are data for one."""
    return BadUsage(
        f"{name} has no line with a prompt; nothing was sent",
        hint="To make the prompts from other fields, pass --template FILE: a text with "
        f"{{{{{printable(field)}}}}} where the value of that field should appear.",
    )


# Templates


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


# The order of the lines


class Plan(NamedTuple):
    """Which lines this shard runs, and which of them wait. Lines are named by their index.

    `mine`: the lines of this shard, in order. `after`: for a line, the one that must have ended
    before it is created, because both use one workspace. `leader`: for a line, the one whose
    workspace it takes over, which must have completed. `head`: for each line that shares a
    workspace, or asks for one by its id, the first one that uses it.
    """

    mine: list[int]
    after: dict[int, int]
    leader: dict[int, int]
    head: dict[int, int]


def make_plan(lines: Sequence[InputLine], name: str, shard: tuple[int, int] = (1, 1)) -> Plan:
    """The plan for `lines`; `shard` is (I, N), from 1.

    Lines of one workspace form a group. It stays in one shard, and its lines run in the order of
    the file, each after its leader. Groups are dealt out in turn, so that the same file gives the
    same shards on every machine. Raises BadUsage for an `@key` that no line has, and for lines
    that follow each other in a circle.
    """
    leader = _leaders(lines, name)
    root = _roots(lines, leader, name)
    groups: dict[str | int, list[int]] = {}
    for index, top in enumerate(root):
        groups.setdefault(lines[top].workspace or top, []).append(index)
    number, of = shard
    mine: list[int] = []
    after: dict[int, int] = {}
    head: dict[int, int] = {}
    for turn, group in enumerate(groups.values()):
        if turn % of == number - 1:
            mine += group
            ordered = _in_order(group, leader)
            after.update(zip(ordered[1:], ordered, strict=False))
            if len(ordered) > 1 or lines[ordered[0]].workspace is not None:
                head.update(dict.fromkeys(ordered, ordered[0]))
    chosen = set(mine)
    ours = {index: first for index, first in leader.items() if index in chosen}
    return Plan(sorted(mine), after, ours, head)


def _leaders(lines: Sequence[InputLine], name: str) -> dict[int, int]:
    """For each line that names `@key`, the line with that key."""
    by_key = {line.key: index for index, line in enumerate(lines)}
    near_keys = list(islice(by_key, MOST_COMPARED))
    leader: dict[int, int] = {}
    bad, hints = BadLines(name), 0
    for index, line in enumerate(lines):
        if line.workspace is None or not line.workspace.startswith("@"):
            continue
        key = line.workspace[1:]
        if key in by_key:
            leader[index] = by_key[key]
        elif not bad.are_too_many:
            near = did_you_mean(key, near_keys) if hints < MOST_HINTS else None
            hints += 1
            hint = f". {near}" if near else ""
            bad.add(line.number, f"workspaceId: no line has the key {key!r}{hint}")
    bad.refuse()
    return leader


def _roots(lines: Sequence[InputLine], leader: dict[int, int], name: str) -> list[int]:
    """For each line the one at the head of its chain."""
    root: dict[int, int] = {}
    bad = BadLines(name)
    for index in range(len(lines)):
        path: dict[int, None] = {}
        step = index
        while step in leader and step not in root and step not in path:
            path[step] = None
            step = leader[step]
        if step in path:
            steps = list(path)
            circle = steps[steps.index(step) :]
            keys = " → ".join(lines[each].key for each in [*circle[:LONGEST_CIRCLE], step])
            bad.add(lines[index].number, f"workspaceId: goes in a circle: {keys}")
        top = root.get(step, step)
        root.update(dict.fromkeys(path, top))
        root[index] = top
    bad.refuse()
    return [root[index] for index in range(len(lines))]


def _in_order(group: list[int], leader: dict[int, int]) -> list[int]:
    """The lines of a group in the order of the file, each behind its leader."""
    placed: dict[int, None] = {}
    for index in group:
        path = []
        step: int | None = index
        while step is not None and step not in placed:
            path.append(step)
            step = leader.get(step)
        placed.update(dict.fromkeys(reversed(path)))
    return list(placed)
