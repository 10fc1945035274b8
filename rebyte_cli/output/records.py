"""What commands print: the kinds of records, and the values that a command may return.

The fields of a kind are a line of words, from which `--fields`, tables and the JSON Schema are
derived. A word is `name:type`, where the type is `string` (also when none is given), `text` (a
string that a table may cut), `time` (ISO 8601), `integer`, `bytes` (an integer that a table shows
with a unit), `number`, `boolean`, `object`, `labels` (the value of each label by its name), `any`
or the name of another kind; `[]` makes a list of them and a final `?` says that the field may be
null or missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

from ..errors import BadUsage, RebyteError, RowOrError, did_you_mean, lines


class RecordKind:
    """One kind of record.

    `name`: its name. `plural`: what several are called ("no tasks"). `id`: the field printed by
    `-o id`, or "" when it has none. `types`: each field and its type, in the API's order.
    `columns`: what a table shows. `on_request`: fields that `csv` and `tsv` leave out unless
    they were asked for or the first record has them. `withheld`: keys that are never printed,
    such as those that hold secrets. `formerly`: names that fields had in the version before, as
    `old=new`; JSON still has them, and `--fields` takes them.
    """

    def __init__(
        self,
        name: str,
        plural: str,
        id: str,  # noqa: A002 - the field's own name
        fields: str,
        columns: str,
        *,
        on_request: str = "",
        withheld: str = "",
        formerly: str = "",
    ) -> None:
        self.name = name
        self.plural = plural
        self.id = id
        self.columns = tuple(columns.split())
        self.on_request = tuple(on_request.split())
        self.withheld = tuple(withheld.split())
        self.formerly = dict(word.split("=") for word in formerly.split())
        self._fields = fields

    @cached_property
    def types(self) -> Mapping[str, str]:
        """Each field and its type, parsed on first use: most runs need one kind."""
        found = {}
        for word in self._fields.split():
            field, _, type_ = word.partition(":")
            bare = field.rstrip("?")
            found[bare] = type_ or "string" + field[len(bare) :]
        return found

    @property
    def fields(self) -> tuple[str, ...]:
        """The names that `--fields` accepts."""
        return tuple(self.types)

    def has(self, field: str) -> bool:
        """Whether `--fields` accepts it: a name, or `name.member` of one that is an object."""
        name, dot, _ = field.partition(".")
        item = self.types.get(name, "").removesuffix("?")
        return field in self.types or bool(dot and (item in KINDS or item in _WITH_MEMBERS))

    def derived(self, row: Mapping[str, Any], fields: Iterable[str]) -> dict[str, Any]:
        """Those of the fields that are not in the row, but follow from what is."""
        found = {field: _member(row, field) for field in fields if "." in field}
        usage = row.get("usage") if "usage" in self.types else None
        if isinstance(usage, Mapping) and "tokens" in fields:
            found["tokens"] = usage.get("inputTokens", 0) + usage.get("outputTokens", 0)
        if isinstance(usage, Mapping) and "cost" in fields:
            found["cost"] = usage.get("costUsd")
        return found

    def status(self, row: Mapping[str, Any]) -> str | None:
        """What a run that the API calls running waits for, as a status; None if it works."""
        if "question" in self.types and row.get("question") is True:
            return "waiting"
        if "resumesAt" in self.types and row.get("resumesAt"):
            return "limited"
        return "queued" if "queue" in self.types and row.get("queue") else None


KINDS: dict[str, RecordKind] = {}
_WITH_MEMBERS = {"object", "any", "labels"}


def _member(row: Mapping[str, Any], path: str) -> Any:
    """What `usage.costUsd` means in a row; None if it has nothing there."""
    value: Any = row
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _kind(name: str, *rest: str, **more: str) -> RecordKind:
    KINDS[name] = kind = RecordKind(name, *rest, **more)
    return kind


# What a task used of its model. A kind with it takes the fields `tokens` and `cost`, which are read
# from it.
USAGE = _kind(
    "usage", "usages", "",
    "requests:integer? inputTokens:integer cachedInputTokens:integer outputTokens:integer"
    " costUsd:number? uncountedRequests:integer?",
    "requests inputTokens cachedInputTokens outputTokens costUsd",
)  # fmt: skip

# What `rebyte usage` adds up. `name` is what the tasks of a sum have in common.
USAGE_SUM = _kind(
    "usage-sum", "tasks with a known usage", "",
    "name:text? tasks:integer requests:integer? inputTokens:integer cachedInputTokens:integer"
    " outputTokens:integer tokens:integer costUsd:number? unpriced:integer"
    " uncountedRequests:integer?",
    "name tasks inputTokens cachedInputTokens outputTokens costUsd unpriced",
    on_request="uncountedRequests",
)  # fmt: skip

# GET /tasks/{id} (seed document). `finalResult` was seen in a client; `workspaceId` comes from
# the create answer and the local history. `question` is ours: whether the run waits for an answer.
# `queue` comes from the service on this machine: `position`, and what the run waits for; so does
# `resumesAt`: when the usage limit is reset that a run waits for, `endedBy`: what it failed of
# (`budget`, `limit`), `begun`: false if it failed of that before it was at work, `preparing`: what
# is done before the agent starts, and `baseCommit`: the commit that it started from. `check` and
# `output` are ours: what `--check` came to, and the value that `--schema` asked for.
TASK = _kind(
    "task", "tasks", "id",
    "id workspaceId? url status title:text? executor? model? createdAt:time completedAt:time?"
    " labels:labels? prompts:prompt-summary[] finalResult:text? question:boolean? queue:any?"
    " resumesAt:time? endedBy:text? begun:boolean? preparing:text? baseCommit? usage:usage?"
    " tokens:integer? cost:number? check:object? output:any?",
    "id status title createdAt",
    on_request="question queue resumesAt endedBy begun preparing baseCommit usage tokens cost check"
    " labels output",
)  # fmt: skip

PROMPT_SUMMARY = _kind(
    "prompt-summary", "prompts", "id",
    "id status submittedAt:time? completedAt:time? hasChanges:boolean?",
    "id status submittedAt completedAt",
)  # fmt: skip

# A row of GET /tasks (vendor docs). It has no status: `rebyte list` adds it.
TASK_ROW = _kind(
    "task-row", "tasks", "id",
    "id workspaceId? url title:text? executor? model? createdAt:time completedAt:time? status?"
    " question:boolean? queue:any? resumesAt:time? preparing:text? usage:usage? tokens:integer?"
    " cost:number? labels:labels? place:text?",
    "id status title createdAt",
    on_request="question queue resumesAt preparing usage tokens cost labels place",
)  # fmt: skip

# The answer of POST /tasks (seed document). It takes the names of a task as well, so that
# `create` and `create --wait` take the same `--fields`.
CREATED = _kind(
    "created", "tasks", "id",
    "id workspaceId? url status createdAt:time title:text? executor? model? completedAt:time?"
    " prompts:prompt-summary[]? finalResult:text? check:object? output:any?",
    "id status workspaceId createdAt",
    on_request="title executor model completedAt prompts finalResult check output",
)  # fmt: skip

# The answer of POST /tasks/{id}/prompts (seed document).
PROMPT = _kind("prompt", "prompts", "promptId", "promptId", "promptId")

# The answer of PATCH /tasks/{id}/visibility (vendor docs); the task's id is ours to add.
VISIBILITY = _kind(
    "visibility", "tasks", "id", "id? visibility shareUrl?", "id visibility shareUrl"
)

# What rebyte prints for deletes and answers: the API's body is empty or not documented.
# `rebyte label`: the labels of a task on this machine, and how many tasks have one.
LABELED = _kind("labeled", "tasks", "id", "id title:text? labels:labels", "id title labels")
LABEL = _kind("label", "labels", "", "name value:text tasks:integer", "name value tasks")
DELETED = _kind("deleted", "deletions", "id", "id deleted:boolean", "id deleted")
ANSWERED = _kind("answered", "answers", "id", "id answered:boolean", "id answered")

# From the local history and, where it is one, the agent computer behind it (all of it in `show`).
WORKSPACE = _kind(
    "workspace", "workspaces", "id",
    "id name:text? tasks:integer? lastTask? status? githubUrl? url? createdAt:time?"
    " lastUsedAt:time? sandboxId? icon? provisionError:text? updatedAt:time?"
    " agentInstructions:text? views:object[]? sandboxBaseUrl? sandboxApiKey? repository:text?"
    " size:bytes?",
    "id name tasks status lastUsedAt",
    on_request="repository size sandboxId icon provisionError updatedAt agentInstructions views"
    " sandboxBaseUrl sandboxApiKey",
)  # fmt: skip

# /agent-computers (vendor docs; the last three and the secret seen in a client).
COMPUTER = _kind(
    "computer", "agent computers", "id",
    "id name:text? status sandboxId? icon? url? provisionError:text? createdAt:time?"
    " updatedAt:time? agentInstructions:text? views:object[]? sandboxBaseUrl?",
    "id name status createdAt",
    withheld="sandboxApiKey",
)  # fmt: skip

# The answer of POST /files (vendor docs). Anyone with the signed URL may write there.
FILE = _kind(
    "file", "files", "id", "id filename size:bytes? contentType?", "id filename size",
    on_request="size contentType",
    withheld="uploadUrl",
)  # fmt: skip

# The shape of an artifact is a guess from a sibling API (inferred).
ARTIFACT = _kind(
    "artifact", "artifacts", "name",
    "name:text filename:text? size:bytes? contentType? url? path:text? createdAt:time?",
    "name size contentType",
    on_request="filename path createdAt",
)  # fmt: skip

# /webhooks (vendor docs), and what a webhook delivers (seen in a client).
WEBHOOK = _kind(
    "webhook", "webhooks", "id",
    "id url:text events:string[] description:text? hasSecret:boolean? isActive:boolean?"
    " createdAt:time? lastTriggeredAt:time? failureCount:integer?",
    "id url events isActive",
    withheld="secret",
)  # fmt: skip
DELIVERY = _kind(
    "delivery", "deliveries", "taskId", "taskId event? receivedAt:time?", "receivedAt event taskId"
)

# GET /billing/credits (seen in a client).
CREDITS = _kind(
    "credits", "credits", "",
    "balance:number? expiringBalance:number? expiringAllowance:number? totalAvailable:number?"
    " lifetimePurchased:number? lifetimeUsed:number? updatedAt:time?",
    "totalAvailable balance expiringBalance updatedAt",
)  # fmt: skip

# A record of the event stream (seen in a client). Only the last one, `done`, has the last three.
EVENT = _kind(
    "event", "events", "",
    "seq:integer? eventKey? timestamp? promptId? eventType? payload:any?"
    " status? lastSeq:integer? finalResult:text?",
    "seq eventType payload",
    on_request="status lastSeq finalResult",
)  # fmt: skip

# GET /tasks/{id}/content (seen in a client).
CONTENT = _kind("content", "transcripts", "id", "id status prompts:object[]", "id status")

# A request of an agent on this machine, as its gateway recorded it.
NETWORK_REQUEST = _kind(
    "network-request", "requests", "host",
    "time:time host:text port:integer method:text path:text status:integer sent:bytes"
    " received:bytes seconds:number refused:text? option:text? fault:text? usage:any?"
    " model:text? id:text? refused_for:number? uncounted:any?"
    " is_open:boolean? route:text? asked:text? promptId",
    "time method host path status received refused",
)  # fmt: skip

# A line of a batch's results.
RESULT = _kind(
    "result", "results", "id",
    "key line:integer id? workspaceId? url? status error:any? startedAt:time? finishedAt:time?"
    " title:text? usage:usage? tokens:integer? cost:number? check:object? output:any?"
    " resumesAt:time? place:text?",
    "line title status id error",
    on_request="usage tokens cost check output resumesAt place",
    withheld="reason",
)  # fmt: skip

# Profiles, their settings with the source of each, and the state of a key.
PROFILE = _kind(
    "profile", "profiles", "name",
    "name default:boolean? baseUrl:text? executor? model? skills:string[]? output?"
    " keyCommand:string[]? envKey:boolean? caBundle:text? timeout:number? history:boolean?"
    " ssh? remoteCommand:string[]?",
    "name default baseUrl ssh",
    formerly="base_url=baseUrl key_command=keyCommand env_key=envKey ca_bundle=caBundle",
)  # fmt: skip
SETTING = _kind("setting", "settings", "name", "name value:any? source:text", "name value source")
AUTH = _kind(
    "auth", "keys", "profile",
    "profile baseUrl:text? origin:text? source:text? keyEnding? accepted:boolean? error:any?",
    "profile origin source keyEnding accepted",
)  # fmt: skip

# The local service, and a file that was put in its place (completion, man page).
LOCAL = _kind(
    "local", "services", "serving",
    "path:text tasks:integer running:integer workspaces:integer webhooks:integer"
    " keyLeaks:integer agentsRunning:integer? agentsQueued:integer? disk:bytes? setupCaches:bytes?"
    " log:text? serving:text? pages:text?",
    "path tasks running agentsRunning agentsQueued disk setupCaches log serving pages",
    formerly="key_leaks=keyLeaks agents_running=agentsRunning agents_queued=agentsQueued",
)  # fmt: skip
# The real agents of the local service, the skills it can give them, and what a patch changes.
AGENT = _kind(
    "agent", "agents", "name",
    "name program:text? version? tested:boolean? login:text? credential:text? jail jailGaps:text?"
    " network launcher:text? usable:boolean problem:text? unused:text?",
    "name version tested login credential jail network usable problem",
)  # fmt: skip
TRUST = _kind(
    "trust", "trusted repositories", "repository",
    "repository:text digest at:time asks:text",
    "repository asks at",
)  # fmt: skip
SKILL = _kind(
    "skill", "skills", "name",
    "name profile:text description:text? folder:text?",
    "name profile description",
)  # fmt: skip
CHANGE = _kind(
    "change", "changes", "path",
    "path:text oldPath:text? status additions:integer? deletions:integer? executable:boolean"
    " commit?",
    "path status additions deletions",
    on_request="commit",
)  # fmt: skip
# What a check of a task's changes came to.
CHECKED = _kind(
    "checked", "checks", "id",
    "id status command:text exit:integer? tries:integer output:text file:text? restored:string[]",
    "id status exit command",
)  # fmt: skip
# What became of a task that was to land on a branch. `landedTask` is the rerun if there was one.
LAND = _kind(
    "land", "tasks", "id",
    "id? line:integer title:text? status commit? landedTask? reruns:integer url? error:any?"
    " check:any? risks:text[]?",
    "line title status commit reruns error",
)  # fmt: skip
# What `rebyte doctor` found.
CHECK = _kind(
    "check", "checks", "name",
    "name status message:text hint:text? details:object?",
    "name status message",
    on_request="details",
)  # fmt: skip
INSTALLED = _kind("installed", "files", "path", "path:text changed:boolean?", "path changed")


class Records(NamedTuple):
    """Independent records: in JSON, one document after another.

    A row that is a RebyteError is shown on stderr and counts towards the exit status; one that
    carries a record (a task that failed) shows that on stdout first.
    """

    kind: RecordKind
    rows: Iterable[RowOrError]


class RecordList(NamedTuple):
    """The records of a list: in JSON, one document `{"data": [...], **envelope}`.

    `envelope` holds the API's other keys (`total`, `limit`, `offset`), or makes them from the
    number of rows that were printed. `below` are notes for below a table, complete once the rows
    are; rows with such notes are results: what came before an interrupt is shown too. `shorten`
    gives short forms of ids, for a table on a terminal. `columns` are those of a table, instead of
    the usual ones of the kind. `footer` makes a note for stderr from the
    number of rows, if these are not all. `draw` makes lines of one row and a `table.Style`, which
    are printed in place of a table, as the rows arrive.
    """

    kind: RecordKind
    rows: Iterable[RowOrError]
    envelope: Mapping[str, Any] | Callable[[int], Mapping[str, Any]] | None = None
    below: Iterable[str] | None = None
    columns: tuple[str, ...] | None = None
    shorten: Callable[[Iterable[str]], Mapping[str, str]] | None = None
    footer: Callable[[int], str | None] | None = None
    draw: Callable[[Mapping[str, Any], Any], str] | None = None


PAGER = "REBYTE_PAGER"  # the variable that names the pager for text of the service


class Text(NamedTuple):
    """Text under every format: a transcript, a script, a page of the manual.

    The lines of `prose` are wrapped between words on a terminal, except those that are `Rendered`.
    A chunk that is a RebyteError is shown on stderr and counts towards the exit status. `pager` is
    the variable that names the pager for it, on a terminal; "" for text that is not paged.
    """

    chunks: str | Iterable[str | RebyteError]
    prose: bool = False
    pager: str = ""


class Document(NamedTuple):
    """A JSON document that is not a record: a schema, a request body."""

    value: Any


class Raw(NamedTuple):
    """Bytes printed unchanged, at once or in pieces; errors among them as in `Text`."""

    data: bytes | Iterable[bytes | RebyteError]


Value = Records | RecordList | Text | Document | Raw | None


def check_fields(kind: RecordKind, fields: tuple[str, ...] | None, form: str) -> None:
    """Raise BadUsage for a field that `kind` does not have, or for `-o id` without its id.

    The error lists the known names and the nearest one. Cheap, so that a command can check before
    it sends anything.
    """
    if form == "id" and not kind.id:
        raise BadUsage(f"-o id: {kind.plural} have no id", hint="Use -o json or -o csv")
    for field in fields or ():
        if not kind.has(field) and field not in kind.formerly:
            raise unknown_field(field, kind.types)
    if form == "id" and fields and kind.id not in fields:
        raise BadUsage(
            f"--fields: -o id prints only {kind.id}, which is not among them",
            hint=f"-o csv and -o jsonl print {', '.join(fields)}",
        )


def unknown_field(field: str, known: Iterable[str]) -> BadUsage:
    """The error for an unknown name in `--fields`, with the nearest one and all known ones."""
    names = list(known)
    hint = lines(did_you_mean(field, names), f"The fields are {', '.join(names)}")
    return BadUsage(f"--fields: no such field: {field}", hint=hint)


# JSON Schema

_TYPES: dict[str, dict[str, Any]] = {
    "string": {"type": "string"},
    "text": {"type": "string"},
    "time": {"type": "string", "format": "date-time"},
    "integer": {"type": "integer"},
    "bytes": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "object": {"type": "object"},
    "any": {},
    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
}


def _field(type_: str) -> dict[str, Any]:
    bare = type_.removesuffix("?")
    item = bare.removesuffix("[]")
    schema = dict(_TYPES.get(item) or {} if item in _TYPES else {"$ref": f"#/$defs/{item}"})
    if bare != item:
        schema = {"type": "array", "items": schema}
    if type_ != bare and "type" in schema:
        schema["type"] = [schema["type"], "null"]
    elif type_ != bare and "$ref" in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    return schema


def _properties(kind: RecordKind, types: Mapping[str, str]) -> dict[str, Any]:
    properties = {name: _field(type_) for name, type_ in types.items()}
    old = {name: {**properties[new], "deprecated": True} for name, new in kind.formerly.items()}
    return properties | old


def _record(kind: RecordKind) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": _properties(kind, kind.types),
        "required": [name for name, type_ in kind.types.items() if not type_.endswith("?")],
    }


def _picked(kind: RecordKind) -> dict[str, Any]:
    """What --fields leaves of a record: some of its fields, null where the record has none."""
    types = {name: type_.removesuffix("?") + "?" for name, type_ in kind.types.items()}
    return {
        "type": "object",
        "properties": _properties(kind, types),
        "additionalProperties": False,
    }


def _list(name: str) -> dict[str, Any]:
    rows = {"type": "array", "items": {"$ref": f"#/$defs/{name}"}}
    return {"type": "object", "properties": {"data": rows}, "required": ["data"]}


def _object(types: str, required: str) -> dict[str, Any]:
    """An object that is no record; its fields are written as those of a kind are."""
    fields = RecordKind("", "", "", types, "").types
    properties = {name: _field(type_) for name, type_ in fields.items()}
    return {"type": "object", "properties": properties, "required": required.split()}


# What --dry-run prints: the body that is not sent; for a batch, with its line.
_REQUEST = _object(
    "prompt executor model skills:string[] githubUrl branchName workspaceId files:object[]",
    "prompt",
)
_PLANNED = _object("key line:integer body:request", "key line body")
_ERROR = _object("error:object", "error")
_ERROR["properties"]["error"] = _object(
    "code message status:integer? hint? exit:integer", "code message status hint exit"
)


def results_schema(commands: Mapping[str, Iterable[str]] | None = None) -> dict[str, Any]:
    """A JSON Schema document whose `$defs` describe everything that commands print.

    `NAME` is one record, `NAME-list` the document that a list command prints, `request` and
    `planned` are what --dry-run prints, `error` is an error on stderr. Other keys are always
    allowed, since the API may add some. `commands` maps a command's name to the definitions that it
    may print; it becomes the key `commands`, and with it come `NAME-fields` and `NAME-list-fields`,
    which are the same with --fields.
    """
    definitions: dict[str, Any] = {}
    for kind in KINDS.values():
        definitions[kind.name] = _record(kind)
        definitions[f"{kind.name}-list"] = _list(kind.name)
    definitions.update(request=_REQUEST, planned=_PLANNED, error=_ERROR)
    document: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What the rebyte command prints with -o json or -o jsonl",
        "$defs": definitions,
    }
    if commands is not None:
        for kind in KINDS.values():
            definitions[f"{kind.name}-fields"] = _picked(kind)
            definitions[f"{kind.name}-list-fields"] = _list(f"{kind.name}-fields")
        document["commands"] = {
            command: {"anyOf": _references(names, definitions)}
            for command, names in commands.items()
        }
    return document


def _references(names: Iterable[str], definitions: Mapping[str, Any]) -> list[dict[str, str]]:
    """References to definitions, and to what --fields leaves of them."""
    both = (each for name in names for each in (name, f"{name}-fields") if each in definitions)
    return [{"$ref": f"#/$defs/{each}"} for each in both]
