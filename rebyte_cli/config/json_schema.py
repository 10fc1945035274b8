"""The JSON Schema of `config.toml`: for editors, and for the names that mean nothing in a file.

The settings of a profile are described beside the functions that check them, in `fields`. What
stands here is the rest of the file; `[local]` is the local service's to read, which shares no code
with the client, and a test holds both against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ..system import budgets
from ..system.durations import PATTERN
from ..system.files import locked, write_private
from ..system.permissions import LOCK_NAME, SCHEMA_NAME, check_private
from .fields import FIELDS, LOCAL, LOCAL_FIELDS, PRICES, SCHEMAS
from .toml import has_comments, read_toml, schema_line

LINE = f"#:schema ./{SCHEMA_NAME}"

_STRINGS = {"type": "array", "items": {"type": "string"}}
_DURATION = {
    "anyOf": [
        {"type": "number", "minimum": 0},
        {"type": "string", "pattern": PATTERN},
    ]
}
_SIZE = {
    "anyOf": [
        {"type": "integer", "minimum": 0},
        {"type": "string", "pattern": r"^\d{1,9}\s*[kMGT]B?$"},
    ]
}
_FOLDERS = {"type": "array", "items": {"type": "string", "pattern": "^(~/|/)"}}
# No placeholder but these two; `${name}` is a shell's.
_WORD = r"^(?![\s\S]*(^|[^$])\{(?!(prompt|workspace)\})[A-Za-z0-9_]+\})[\s\S]"
_LAUNCHER = {"type": "array", "minItems": 1, "items": {"type": "string", "pattern": _WORD}}
_COMMAND = {"anyOf": [{"type": "string", "minLength": 1}, _STRINGS]}
_PRICE = {name: {"type": "number", "minimum": 0} for name in PRICES}
_HOSTS = {"type": "array", "items": {"type": "string", "pattern": r"^[^/@,;\s]+$"}}
_VARIABLE = {"type": "string", "pattern": r"^[A-Za-z_]\w*$"}
_AGENT = {
    "command": _COMMAND,
    "env": _STRINGS,
    "read": _STRINGS,
    "model": {"enum": ["anthropic", "openai", "gemini"]},
    "key_env": _VARIABLE,
    "base_url_env": _VARIABLE,
}
_LOCAL = {
    "parallel": {"type": "integer", "minimum": 1, "maximum": 64},
    "limit": _DURATION,
    "stall": _DURATION,
    "keep_free": _SIZE,
    "jail": {"enum": ["on", "off"]},
    "network": {"enum": ["list", "none", "host"]},
    "allow": _HOSTS,
    "tools": _FOLDERS,
    "caches": _FOLDERS,
    "on_limit": {"type": "string", "minLength": 1},
    "launcher": _LAUNCHER,
    "launcher_stop": _LAUNCHER,
    "budget_per_day": {"type": "string", "pattern": budgets.PATTERN},
    "agents": {
        "type": "object",
        "propertyNames": {"pattern": r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"},
        "additionalProperties": {
            "type": "object",
            "properties": _AGENT,
            "dependentRequired": {"key_env": ["model"], "base_url_env": ["model"]},
            "additionalProperties": False,
        },
    },
}


def config_schema() -> dict[str, Any]:
    """A JSON Schema document for `config.toml`."""
    settings = {name: SCHEMAS[check] for name, check in FIELDS.items()}
    local = {name: schema for name, schema in settings.items() if name in LOCAL_FIELDS}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "config.toml of the rebyte command",
        **_table(
            {
                "default_profile": {"type": "string"},
                "history": {"type": "boolean"},
                "profiles": {
                    "type": "object",
                    "properties": {LOCAL: _table(local)},
                    "additionalProperties": _table(settings),
                },
                "local": {
                    **_table(_LOCAL),
                    "dependentRequired": {
                        "launcher": ["launcher_stop"],
                        "launcher_stop": ["launcher"],
                    },
                },
                "prices": {"type": "object", "additionalProperties": _table(_PRICE)},
            }
        ),
    }


class UnknownName(NamedTuple):
    """A name in a file that the schema does not know.

    `keys` are the tables that it is in and itself, `known` the names that could stand there.
    """

    keys: tuple[str, ...]
    known: tuple[str, ...]
    is_table: bool


def unknown_names(
    table: Mapping[str, Any],
    schema: Mapping[str, Any] | None = None,
    above: tuple[str, ...] = (),
) -> Iterator[UnknownName]:
    """Each name that means nothing in the document of a `config.toml`, or in a table of it."""
    schema = schema or config_schema()
    known = schema.get("properties", {})
    for name, value in table.items():
        below, is_table = known.get(name, schema["additionalProperties"]), isinstance(value, dict)
        if not below:
            yield UnknownName((*above, name), tuple(known), is_table)
        elif is_table and below.get("type") == "object":
            yield from unknown_names(value, below, (*above, name))


@contextmanager
def edit_config(path: Path, *, note: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Change `config.toml`: the block gets its document and changes it in place.

    The file is read again under a lock beside it, so that two writers lose nothing; it is replaced
    in one step, mode 0600, with its schema beside it where editors look. A file that names another
    schema keeps that name, and gets no schema. Nothing is written when nothing changed or the block
    raised. `note` reports, before the file is replaced, that comments will be lost.
    """
    import copy
    import json

    with locked(path.parent / LOCK_NAME):
        check_private(path)
        text, document = read_toml(path)
        before = copy.deepcopy(document)
        yield document
        if document == before:
            return
        import tomli_w

        line = schema_line(text)
        if has_comments(text.replace(line, "", 1)):
            note(f"Comments in {path} will be lost: the file is rewritten")
        if line in ("", LINE):
            schema = json.dumps(config_schema(), indent=2) + "\n"
            write_private(path.parent / SCHEMA_NAME, schema.encode())
        write_private(path, f"{line or LINE}\n\n{tomli_w.dumps(document)}".encode())


def _table(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False}
