"""The JSON Schema of what commands print, made from the kinds alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .kinds import KINDS, Kind

_TYPES: dict[str, dict[str, Any]] = {
    "string": {"type": "string"},
    "text": {"type": "string"},
    "time": {"type": "string", "format": "date-time"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "object": {"type": "object"},
    "any": {},
}


def _field(type_: str) -> dict[str, Any]:
    bare = type_.removesuffix("?")
    item = bare.removesuffix("[]")
    schema = dict(_TYPES.get(item) or {} if item in _TYPES else {"$ref": f"#/$defs/{item}"})
    if bare != item:
        schema = {"type": "array", "items": schema}
    if type_ != bare and "type" in schema:
        schema["type"] = [schema["type"], "null"]
    return schema


def _record(kind: Kind) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: _field(type_) for name, type_ in kind.types.items()},
        "required": [name for name, type_ in kind.types.items() if not type_.endswith("?")],
    }


def _list(kind: Kind) -> dict[str, Any]:
    rows = {"type": "array", "items": {"$ref": f"#/$defs/{kind.name}"}}
    return {"type": "object", "properties": {"data": rows}, "required": ["data"]}


# What --dry-run prints: the body that is not sent. A batch names the line that it is of.
_REQUEST = {
    "type": "object",
    "properties": {
        "prompt": {"type": "string"},
        "executor": {"type": "string"},
        "model": {"type": "string"},
        "skills": {"type": "array", "items": {"type": "string"}},
        "githubUrl": {"type": "string"},
        "branchName": {"type": "string"},
        "workspaceId": {"type": "string"},
        "files": {"type": "array", "items": {"type": "object"}},
    },
    "required": ["prompt"],
}
_PLANNED = {
    "type": "object",
    "properties": {
        "key": {"type": "string"},
        "line": {"type": "integer"},
        "body": {"$ref": "#/$defs/request"},
    },
    "required": ["key", "line", "body"],
}
_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "status": {"type": ["integer", "null"]},
                "hint": {"type": ["string", "null"]},
                "exit": {"type": "integer"},
            },
            "required": ["code", "message", "status", "hint", "exit"],
        }
    },
    "required": ["error"],
}


def results_schema(commands: Mapping[str, Iterable[str]] | None = None) -> dict[str, Any]:
    """A JSON Schema document whose `$defs` are every kind, its list, what --dry-run
    prints (`request`, `planned` for a line of a batch), and the error on stderr.

    `NAME` is one record, `NAME-list` the document that a list command prints. The schemas hold
    for whole records: `--fields` leaves required keys out. Further keys are always allowed,
    since the API may add some. `commands` maps a command's name to the definitions that it may
    print; they become the key `commands`.
    """
    definitions: dict[str, Any] = {}
    for kind in KINDS.values():
        definitions[kind.name] = _record(kind)
        definitions[f"{kind.name}-list"] = _list(kind)
    definitions.update(request=_REQUEST, planned=_PLANNED, error=_ERROR)
    document: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What the rebyte command prints with -o json or -o jsonl",
        "$defs": definitions,
    }
    if commands is not None:
        document["commands"] = {
            name: {"anyOf": [{"$ref": f"#/$defs/{definition}"} for definition in printed]}
            for name, printed in commands.items()
        }
    return document
