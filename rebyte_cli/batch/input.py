"""The input of a batch: read once, checked whole, kept where it cannot change any more."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, Literal, NamedTuple

from ..errors import BadUsage, RebyteError, did_you_mean
from ..tasks.prompt import check_prompt

# -- The fields of one line of a batch, each checked as far as that goes without the API.

Problem = tuple[str, str]  # the field, and what is wrong with it
LONGEST_KEY = 200


class Fields(NamedTuple):
    """What a line says, or what holds for every line that does not say otherwise.

    `body` holds fields of POST /tasks except `workspaceId`, which is `workspace` (an id, or
    `@key` for the workspace of another line). `paths` are files still to be uploaded.
    """

    body: dict[str, Any]
    workspace: str | None = None
    paths: tuple[str, ...] = ()
    key: str | None = None


class Checker:
    """Checks lines, one after another; what was found about a file is kept for the next line."""

    def __init__(
        self, defaults: Fields, *, fresh: bool, find_files: Callable[[str], list[str]]
    ) -> None:
        """`fresh`: no line may name a workspace. `find_files` gives the files that a path or a
        pattern names, and raises when one of them cannot be uploaded.
        """
        self._defaults = defaults
        self._fresh = fresh
        self._find_files = find_files
        self._files: dict[str, list[str] | str] = {}

    def check(
        self, given: Mapping[str, Any], *, prompt: str | None, data: bool
    ) -> tuple[Fields, list[Problem]]:
        """The fields of a line with the defaults under them, and everything wrong with them.

        `prompt` is the text that a template made, None when the line brings its own. With
        `data`, fields that a task does not have are data for the template; without, they are
        problems. A field that is null takes the default away.
        """
        problems: list[Problem] = []
        body = dict(self._defaults.body)
        if given.get("githubUrl") is not None:
            body.pop("branchName", None)  # it is the branch of the default repository
        workspace, paths, key = self._defaults.workspace, self._defaults.paths, None
        for name, value in given.items():
            if name == "prompt" and prompt is not None:
                continue
            if name not in KNOWN:
                if not data:
                    near = did_you_mean(name, KNOWN)
                    problems.append((name, f"no such field{f'; {near}' if near else ''}"))
                continue
            if value is None:
                body.pop(name, None)
                workspace = None if name == "workspaceId" else workspace
                paths = () if name == "files" else paths
                continue
            wrong = KNOWN[name](value)
            if wrong is not None:
                problems.append((name, wrong))
            elif name == "key":
                key = str(value)
            elif name == "workspaceId":
                workspace = value
            elif name == "files":
                paths = tuple(file for file in value if isinstance(file, str))
                ready = [dict(file) for file in value if not isinstance(file, str)]
                body.pop("files", None)
                body.update({"files": ready} if ready else {})
            else:
                body[name] = value
        if prompt is not None:
            body["prompt"] = prompt
        problems += self._whole(body, given)
        files: list[str] = []
        for path in paths:
            found = self._find(path)
            if isinstance(found, str):
                problems.append(("files", found))
            else:
                files += found
        return Fields(body, workspace, tuple(dict.fromkeys(files)), key), problems

    def _whole(self, body: Mapping[str, Any], given: Mapping[str, Any]) -> list[Problem]:
        problems: list[Problem] = []
        if "prompt" not in body:
            if given.get("prompt") is None:
                problems.append(("prompt", "missing"))
        else:
            try:
                check_prompt(body["prompt"])
            except BadUsage as error:
                problems.append(("prompt", error.message))
        if body.get("branchName") and not body.get("githubUrl"):
            problems.append(("branchName", "needs githubUrl"))
        if self._fresh and given.get("workspaceId") is not None:
            problems.append(("workspaceId", "contradicts --workspace-per-line"))
        return problems

    def _find(self, path: str) -> list[str] | str:
        """The files that a path of a line names, or what is wrong with it."""
        if path not in self._files:
            try:
                self._files[path] = self._find_files(path)
            except RebyteError as error:
                self._files[path] = error.message
        return self._files[path]


def _string(value: Any) -> str | None:
    if not isinstance(value, str):
        return f"must be a string, not {_kind(value)}"
    if not value.strip():
        return "is empty"
    # Half of a surrogate pair: JSON can spell it, UTF-8 cannot.
    return "is not valid UTF-8" if any("\ud800" <= sign <= "\udfff" for sign in value) else None


def _prompt(value: Any) -> str | None:
    return None if isinstance(value, str) else f"must be a string, not {_kind(value)}"


def _key(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return f"must be a string or a whole number, not {_kind(value)}"
    text = str(value)
    if not text.strip():
        return "is empty"
    if len(text) > LONGEST_KEY:
        return f"has more than {LONGEST_KEY} characters"
    return None if text.isprintable() else "has a character that cannot be printed"


def _strings(value: Any) -> str | None:
    if not isinstance(value, list):
        return f"must be a list of strings, not {_kind(value)}"
    return next((f"item {at}: {wrong}" for at, item in enumerate(value, 1)
                 if (wrong := _string(item))), None)  # fmt: skip


def _files(value: Any) -> str | None:
    if not isinstance(value, list):
        return f"must be a list of paths, not {_kind(value)}"
    for at, item in enumerate(value, 1):
        if isinstance(item, dict):
            if set(item) != {"id", "filename"} or not all(map(_is_text, item.values())):
                return f'item {at}: an uploaded file is {{"id": "…", "filename": "…"}}'
        elif wrong := _string(item):
            return f"item {at}: {wrong}"
        elif "\0" in item:
            return f"item {at}: has a NUL in it"
    return None


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    names = {int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}
    return next((word for kind, word in names.items() if isinstance(value, kind)), "null")


# The fields of POST /tasks (seed document; `files` vendor docs, `actor` seen in a client), and
# `key`, which is ours.
KNOWN: dict[str, Callable[[Any], str | None]] = {
    "prompt": _prompt,
    "key": _key,
    "executor": _string,
    "model": _string,
    "skills": _strings,
    "githubUrl": _string,
    "branchName": _string,
    "workspaceId": _string,
    "files": _files,
    "actor": _string,
}
LISTS = frozenset({"skills", "files"})


def from_cells(cells: Mapping[str, str]) -> dict[str, Any]:
    """A row of a CSV file as fields: an empty cell says nothing, lists are split at commas."""
    fields: dict[str, Any] = {}
    for name, cell in cells.items():
        if name in LISTS:
            parts = [part.strip() for part in cell.split(",") if part.strip()]
            if parts:
                fields[name] = parts
        elif cell or name not in KNOWN:
            fields[name] = cell
    return fields


# -- `{{field}}` in a text, filled in from the fields of one line.

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
        return _FIELD.sub(lambda hole: _template_text(known[hole[1].strip()]), self.text)


def _template_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


Form = Literal["jsonl", "text", "csv"]
IN_MEMORY = 8 << 20  # bytes of bodies before they go to a file
LONGEST_LINE = 16 << 20  # bytes; a device or a picture has no lines at all
MOST_NAMED = 1000  # bad lines; a file with more is another kind of file


class InputLine(NamedTuple):
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
        self.lines: list[InputLine] = []
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
        self.lines.append(InputLine(number, key, workspace, paths, self._end, len(data)))
        self._end += len(data)

    def body(self, line: InputLine) -> dict[str, Any]:
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


# -- What comes after what: lines that share a workspace run one after another, the rest at wil


class Plan(NamedTuple):
    """Which lines are ours, and which of them wait. Lines are named by their place in the input.

    `mine`: those of this shard, in order. `after`: the line that must have ended before this
    one is created, because both use one workspace. `leader`: the line whose workspace this one
    takes over, which must have completed.
    """

    mine: list[int]
    after: dict[int, int]
    leader: dict[int, int]


def make_plan(lines: Sequence[InputLine], name: str, shard: tuple[int, int] = (1, 1)) -> Plan:
    """The plan for `lines`; `shard` is (I, N), from 1.

    Lines of one workspace are one group: it stays in one shard, and its lines run in the order
    of the file, each after the line it follows. Groups are dealt out in turn, so that the same
    file gives the same shards everywhere. Raises BadUsage for an `@key` that no line has and for
    lines that follow each other in a circle.
    """
    leader = _leaders(lines, name)
    root = _roots(lines, leader, name)
    groups: dict[str | int, list[int]] = {}
    for at, top in enumerate(root):
        groups.setdefault(lines[top].workspace or top, []).append(at)
    number, of = shard
    mine: list[int] = []
    after: dict[int, int] = {}
    for turn, group in enumerate(groups.values()):
        if turn % of == number - 1:
            mine += group
            ordered = _in_order(group, leader)
            after.update(zip(ordered[1:], ordered, strict=False))
    chosen = set(mine)
    ours = {at: first for at, first in leader.items() if at in chosen}
    return Plan(sorted(mine), after, ours)


def _leaders(lines: Sequence[InputLine], name: str) -> dict[int, int]:
    by_key = {line.key: at for at, line in enumerate(lines)}
    leader: dict[int, int] = {}
    bad: list[str] = []
    for at, line in enumerate(lines):
        if line.workspace is None or not line.workspace.startswith("@"):
            continue
        key = line.workspace[1:]
        if key in by_key:
            leader[at] = by_key[key]
        else:
            near = did_you_mean(key, list(by_key)[:1000])
            bad.append(
                f"line {line.number}: workspaceId: no line has the key {key!r}"
                + (f"; {near}" if near else "")
            )
    refuse_bad_lines(name, bad)
    return leader


def _roots(lines: Sequence[InputLine], leader: dict[int, int], name: str) -> list[int]:
    """For each line the one at the head of its chain."""
    root: dict[int, int] = {}
    bad: list[str] = []
    for at in range(len(lines)):
        way: dict[int, None] = {}
        step = at
        while step in leader and step not in root and step not in way:
            way[step] = None
            step = leader[step]
        if step in way:
            circle = list(way)[list(way).index(step) :]
            keys = " → ".join(lines[place].key for place in [*circle, step])
            bad.append(f"line {lines[at].number}: workspaceId: goes in a circle: {keys}")
        top = root.get(step, step)
        root.update(dict.fromkeys(way, top))
        root[at] = top
    refuse_bad_lines(name, bad)
    return [root[at] for at in range(len(lines))]


def _in_order(group: list[int], leader: dict[int, int]) -> list[int]:
    """The lines of a group in the order of the file, each behind the line it follows."""
    placed: dict[int, None] = {}
    for at in group:
        way = []
        step: int | None = at
        while step is not None and step not in placed:
            way.append(step)
            step = leader.get(step)
        placed.update(dict.fromkeys(reversed(way)))
    return list(placed)
