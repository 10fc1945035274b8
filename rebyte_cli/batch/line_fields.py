"""The fields of one line of a batch, checked as far as that works without the API."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import BadUsage, NotFound, RebyteError, did_you_mean
from ..history.labels import problem_of_all
from ..tasks.prompt import check_prompt

if TYPE_CHECKING:
    from ..tasks.answer_schema import AnswerSchema

Problem = tuple[str, str]  # the field, and what is wrong with it
SCHEMA = "outputSchema"
LONGEST_KEY = 200
MOST_COMPARED = 1000  # names among which a similar one is searched for
NO_SUCH_FIELD = "no such field"
NO_PROMPT = ("prompt", "missing")
MOST_PROBLEMS = 20  # of one line; a line with more is not meant for a batch


class LineFields(NamedTuple):
    """What a line says, or what holds for every line that does not say otherwise.

    `body` holds fields of POST /tasks except `workspaceId`, which is `workspace` (an id, or
    `@key` for the workspace of another line). `paths` are files still to be uploaded. `labels`
    go to the history. `schema` is what the answer must fit; the prompt asks for it.
    """

    body: dict[str, Any]
    workspace: str | None = None
    paths: tuple[str, ...] = ()
    key: str | None = None
    labels: Mapping[str, str] = {}
    schema: AnswerSchema | None = None


class LineChecker:
    """Checks line after line, and each file that lines name only once."""

    def __init__(
        self,
        defaults: LineFields,
        *,
        workspace_per_line: bool,
        find_files: Callable[[str], list[str]],
    ) -> None:
        """`workspace_per_line`: no line may name a workspace. `find_files` gives the files that a
        path or a pattern names, and raises when one of them cannot be uploaded.
        """
        self.defaults = defaults
        self._workspace_per_line = workspace_per_line
        self._find_files = find_files
        self._files: dict[str, list[str] | str] = {}
        self._schemas: dict[str, AnswerSchema | str] = {}

    def check(
        self, given: Mapping[str, Any], *, prompt: str | None
    ) -> tuple[LineFields, list[Problem]]:
        """The fields of a line over the defaults, and everything wrong with them.

        `prompt` is the text that a template made: then fields that a task does not have are data
        for it. None when the line brings its own; then they are problems. A null removes the
        default. Labels of a line are added to the default ones.
        """
        problems: list[Problem] = []
        misspelt = False
        body = dict(self.defaults.body)
        # They belong to the default repository.
        if "githubUrl" in given:
            body.pop("localRepository", None)
        if given.get("githubUrl") is not None:
            body.pop("branchName", None)
        workspace, paths, key = self.defaults.workspace, self.defaults.paths, None
        labels = self.defaults.labels
        for name, value in given.items():
            if name == "prompt" and prompt is not None:
                continue
            if name not in KNOWN:
                if prompt is None and len(problems) < MOST_PROBLEMS:
                    near = did_you_mean(name, KNOWN)
                    misspelt = misspelt or "'prompt'" in (near or "")
                    problems.append((name, f"{NO_SUCH_FIELD}. {near}" if near else NO_SUCH_FIELD))
                continue
            if value is None:
                body.pop(name, None)
                workspace = None if name == "workspaceId" else workspace
                paths = () if name == "files" else paths
                labels = {} if name == "labels" else labels
                continue
            wrong = KNOWN[name](value)
            if wrong and prompt is not None and name == "labels":
                continue  # those of an issue, for the template
            if wrong is not None:
                problems.append((name, wrong))
            elif name == "key":
                key = str(value)
            elif name == "labels":
                labels = {**labels, **_pairs(value)}
            elif name == "workspaceId":
                workspace = value
            elif name == "files":
                paths = tuple(file for file in value if isinstance(file, str))
                ready = [dict(file) for file in value if not isinstance(file, str)]
                body.pop("files", None)
                body.update({"files": ready} if ready else {})
            elif name != SCHEMA:
                body[name] = value
        schema = self._schema(given)
        if isinstance(schema, str):
            problems.append((SCHEMA, schema))
            schema = None
        if prompt is not None:
            body["prompt"] = prompt
        if not misspelt:  # else the prompt is there, under another name
            problems += self._check_prompt(body, given, schema)
        problems += self._check_body(body, given)
        found = [self._find(path) for path in paths]
        problems += [("files", each) for each in found if isinstance(each, str)]
        files = (file for each in found if not isinstance(each, str) for file in each)
        every = tuple(dict.fromkeys(files))
        return LineFields(body, workspace, every, key, labels, schema), problems

    def _check_prompt(
        self, body: dict[str, Any], given: Mapping[str, Any], schema: AnswerSchema | None
    ) -> list[Problem]:
        """What is wrong with the prompt, which asks for an answer that fits the schema then."""
        if "prompt" not in body:
            return [NO_PROMPT] if given.get("prompt") is None else []
        try:
            check_prompt(body["prompt"])
            if schema is not None:
                body["prompt"] = schema.ask(body["prompt"])
        except BadUsage as error:
            return [("prompt", error.message)]
        return []

    def _check_body(self, body: Mapping[str, Any], given: Mapping[str, Any]) -> list[Problem]:
        problems: list[Problem] = []
        if body.get("branchName") and not body.get("githubUrl"):
            problems.append(("branchName", "needs githubUrl"))
        if self._workspace_per_line and given.get("workspaceId") is not None:
            problems.append(("workspaceId", "not allowed with --workspace-per-line"))
        return problems

    def _schema(self, given: Mapping[str, Any]) -> AnswerSchema | str | None:
        """The schema that a line has, or names a file of, or what is wrong with it."""
        from ..tasks.answer_schema import AnswerSchema

        value = given.get(SCHEMA)
        if value is None or _schema_or_path(value) is not None:
            return None if SCHEMA in given else self.defaults.schema
        try:
            if isinstance(value, dict):
                return AnswerSchema.of(value, "the value")
            if value not in self._schemas:
                self._schemas[value] = AnswerSchema.read(value)
        except (BadUsage, NotFound) as error:
            if isinstance(value, dict):
                return error.message
            self._schemas[value] = error.message
        return self._schemas[value]

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
    return None if text.isprintable() else "contains a character that cannot be printed"


def _strings(value: Any) -> str | None:
    if not isinstance(value, list):
        return f"must be a list of strings, not {_kind(value)}"
    return next((f"item {position}: {wrong}" for position, item in enumerate(value, 1)
                 if (wrong := _string(item))), None)  # fmt: skip


def _files(value: Any) -> str | None:
    if not isinstance(value, list):
        return f"must be a list of paths, not {_kind(value)}"
    for position, item in enumerate(value, 1):
        if isinstance(item, dict):
            if set(item) != {"id", "filename"} or not all(map(_is_text, item.values())):
                return f'item {position}: an uploaded file is {{"id": "…", "filename": "…"}}'
        elif wrong := _string(item):
            return f"item {position}: {wrong}"
        elif "\0" in item:
            return f"item {position}: contains a NUL"
    return None


def _schema_or_path(value: Any) -> str | None:
    if isinstance(value, dict):
        return None
    wrong = _string(value)
    return wrong and wrong.replace("a string", "an object or the path of a file")


def _labels(value: Any) -> str | None:
    if not isinstance(value, dict | str):
        return f"must be an object of names and values, not {_kind(value)}"
    return problem_of_all(_pairs(value))


def _pairs(labels: dict[str, Any] | str) -> dict[str, Any]:
    """Labels as an object, also those of a cell: `team=search,run=7`."""
    if isinstance(labels, dict):
        return labels
    words = [word.strip().partition("=") for word in labels.split(",") if word.strip()]
    return {name: value for name, _, value in words}


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    names = {int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}
    return next((word for kind, word in names.items() if isinstance(value, kind)), "null")


# The fields of POST /tasks (seed document; `files` vendor docs, `actor` seen in a client), and
# `key`, `labels` and `outputSchema`, which are ours.
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
    "labels": _labels,
    SCHEMA: _schema_or_path,
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
