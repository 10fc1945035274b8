"""The kinds, their schema, and the trace of requests."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace
from typing import Any

import pytest
from jsonschema import (  # type: ignore[import-untyped]  # it has no stubs
    Draft202012Validator,
    ValidationError,
)

from rebyte_cli.errors import BadUsage
from rebyte_cli.output.messages import call_logger
from rebyte_cli.output.records import (
    KINDS,
    TASK,
    TASK_ROW,
    RecordKind,
    RecordList,
    Records,
    results_schema,
)
from tests.screens import ROWS, TASK_DONE, Shown, console, text_of


def validate(document: Any, name: str) -> None:
    schema = results_schema()
    Draft202012Validator({**schema, "$ref": f"#/$defs/{name}"}).validate(document)


def test_the_schema_is_one() -> None:
    document = results_schema({"get": ["task"], "list": ["task-row-list"]})
    Draft202012Validator.check_schema(document)
    names = ("task-row-list", "task-row-list-fields")
    assert document["commands"]["list"] == {
        "anyOf": [{"$ref": f"#/$defs/{name}"} for name in names]
    }
    assert document["$defs"]["task"]["properties"]["prompts"] == {
        "type": "array",
        "items": {"$ref": "#/$defs/prompt-summary"},
    }
    assert json.loads(json.dumps(document)) == document


def test_printed_records_are_valid() -> None:
    validate(json.loads(Shown(Records(TASK, [TASK_DONE]), "json").out), "task")
    listing = RecordList(TASK_ROW, ROWS, {"total": 3, "limit": 50, "offset": 0})
    validate(json.loads(Shown(listing, "json").out), "task-row-list")
    validate(BadUsage("no").as_dict(), "error")


@pytest.mark.parametrize(
    ("document", "name"),
    [
        ({**TASK_DONE, "status": None}, "task"),
        ({key: value for key, value in TASK_DONE.items() if key != "id"}, "task"),
        ({**TASK_DONE, "prompts": [{"id": "p"}]}, "task"),
        ({"data": [{"id": 5}]}, "task-row-list"),
        ({"rows": []}, "task-row-list"),
    ],
)
def test_wrong_records_are_invalid(document: Any, name: str) -> None:
    with pytest.raises(ValidationError):
        validate(document, name)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_kind_makes_sense(kind: RecordKind) -> None:
    assert set(kind.columns) <= set(kind.fields)
    assert set(kind.on_request) <= set(kind.fields)
    assert not kind.id or kind.id in kind.fields
    assert not set(kind.withheld) & set(kind.fields)
    for type_ in kind.types.values():
        base = type_.removesuffix("?").removesuffix("[]")
        assert base in {*KINDS, *PLAIN}


PLAIN = (
    "string", "text", "time", "integer", "bytes", "number", "boolean", "object", "labels", "any",
)  # fmt: skip
CALL = {
    "method": "GET",
    "path": "/v1/tasks?limit=1",
    "status": 200,
    "seconds": 0.1324,
    "retry": 0,
    "error": None,
    "request_headers": {"API_KEY": "[hidden]"},
    "request_body": None,
    "response_headers": {"Content-Type": "application/json"},
    "response_body": '{"data": []}\n',
    "curl": 'curl https://api.example/v1/tasks -H "API_KEY: $REBYTE_API_KEY"',
}


def test_verbose_is_a_line_per_request() -> None:
    it = console()
    log = call_logger(it, debug=False)
    log(SimpleNamespace(**CALL))
    log(SimpleNamespace(**{**CALL, "status": None, "retry": 2, "error": "timed out"}))
    assert text_of(it.err) == (
        "GET /v1/tasks?limit=1 200 132ms\nGET /v1/tasks?limit=1 - 132ms retry 2 timed out\n"
    )


def test_debug_is_all_that_was_said() -> None:
    it = console()
    call_logger(it, debug=True)(SimpleNamespace(**{**CALL, "request_body": "a\n\nb"}))
    assert text_of(it.err) == (
        "GET /v1/tasks?limit=1 200 132ms\n"
        "> API_KEY: [hidden]\n"
        ">\n"
        "> a\n"
        ">\n"
        "> b\n"
        "< Content-Type: application/json\n"
        "<\n"
        '< {"data": []}\n'
        '$ curl https://api.example/v1/tasks -H "API_KEY: $REBYTE_API_KEY"\n'
    )


def test_quiet_is_quiet() -> None:
    it = console(quiet=True)
    call_logger(it, debug=True)(SimpleNamespace(**CALL))
    assert isinstance(it.err, io.StringIO)
    assert text_of(it.err) == ""
