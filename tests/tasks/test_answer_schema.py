"""Answers as JSON: what counts as the JSON of an answer, and which schemas can be used."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.errors import BadUsage, NotFound, RebyteError, WaitTimeout
from rebyte_cli.system.deadline import Deadline
from rebyte_cli.tasks.answer_schema import ASK, AnswerSchema, Misfit
from tests.waiting import eventually, is_running

ANYTHING = AnswerSchema.of({}, "it")
POINT: dict[str, Any] = {
    "type": "object",
    "properties": {"x": {"type": "integer"}, "y": {"$ref": "#/$defs/y"}},
    "required": ["x"],
    "$defs": {"y": {"type": "array", "items": {"type": "string"}}},
}


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ('{"x": 1}', {"x": 1}),
        ("\ufeff \n[1, 2]\n\n", [1, 2]),
        ("null", None),
        ('"```\\n1\\n```"', "```\n1\n```"),
        ('Here it is:\n```json\n{"x": 1}\n```\nDone.', {"x": 1}),
        ("~~~\n1\n~~~", 1),
        ("```\n1\n```\nNo, rather:\n   ````json title=x\r\n2\r\n   ````  \r\n", 2),
        ("````\n```\n3\n```\n````\nText\n```\n4\n```", 4),
        ("```\n5\n```\nand one that nothing closes\n```\n6", 5),
        ("`1` and ```2``` are no blocks, this is:\n```\n7\n```", 7),
        ('{"a": 1, "a": 2}', {"a": 2}),
    ],
)
def test_what_counts_as_the_json_of_an_answer(answer: str, value: Any) -> None:
    assert ANYTHING.value(answer) == value


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "It is 1.",
        "1 2",
        "NaN",
        '{"x": -Infinity}',
        "```\n{'x': 1}\n```",
        "```\n1\n```\n```\nnot JSON\n```",
        "1\n```\n",
        "[" * 101 + "]" * 101,
        "[" * 100_000,
        "9" * 5000,
    ],
)
def test_what_does_not(answer: str) -> None:
    with pytest.raises(Misfit):
        ANYTHING.value(answer)


def test_a_number_that_is_too_large_to_be_checked() -> None:
    schema = AnswerSchema.of({"multipleOf": 0.5}, "it")
    assert schema.value("1.5") == 1.5
    with pytest.raises(Misfit, match="too large"):
        schema.value("1" + "0" * 400)


@pytest.mark.parametrize(
    ("answer", "is_unique"),
    [
        ('[1, true, 0, false, "1", null, [1], [true], {"a": 1}, {"a": true}]', True),
        ("[1, 1.0]", False),
        ('[{"a": 1, "b": [2]}, {"b": [2.0], "a": 1}]', False),
        ('{"a": 1}', True),
    ],
)
def test_unique_items(answer: str, is_unique: bool) -> None:
    schema = AnswerSchema.of({"uniqueItems": True}, "it")
    if is_unique:
        schema.value(answer)
    else:
        with pytest.raises(Misfit, match="non-unique"):
            schema.value(answer)


@pytest.mark.slow
def test_no_answer_costs_the_square_of_its_items() -> None:
    schema = AnswerSchema.of({"uniqueItems": True}, "it")
    items = [{"a": number} for number in range(20_000)]
    assert schema.value(json.dumps(items)) == items


def kind(name: str) -> dict[str, Any]:
    """The schema of an expression that may hold another one."""
    inner = {"const": name}, {"$ref": "#/$defs/expression"}
    return {"properties": dict(zip(("kind", "inner"), inner, strict=True)), "required": ["kind"]}


EXPRESSION: dict[str, Any] = {
    "$ref": "#/$defs/expression",
    "$defs": {"expression": {"oneOf": [kind("not"), kind("negative"), kind("parentheses")]}},
}
MAIL = r"^([a-zA-Z0-9_\.\-])+\@(([a-zA-Z0-9\-])+\.)+([a-zA-Z0-9]{2,4})+$"
ENDLESS = (
    (EXPRESSION, '{"kind": "parentheses", "inner": ' * 25 + '{"kind": "not"}' + "}" * 25),
    ({"pattern": MAIL}, json.dumps("a@a." + "a" * 60 + "!")),
)


@pytest.mark.slow
@pytest.mark.parametrize(("schema", "answer"), ENDLESS)
def test_an_answer_that_takes_too_long_to_be_checked(schema: Any, answer: str) -> None:
    asked = AnswerSchema.of(schema, "it")
    with pytest.raises(Misfit, match="checking it takes more than 1 s"):
        asked.value(answer, cpu_seconds=1)


@pytest.mark.slow
def test_a_check_ends_with_the_time_limit() -> None:
    asked, deadline = AnswerSchema.of(ENDLESS[1][0], "it"), Deadline(0.5)
    with pytest.raises(WaitTimeout, match=r"answer of task t1 was not checked within 0\.5 s"):
        asked.value(ENDLESS[1][1], task_id="t1", deadline=deadline)
    assert deadline.has_passed
    assert asked.value('"a@b.example"', deadline=Deadline(0)) == "a@b.example"


@pytest.mark.slow
def test_a_schema_of_a_client_that_takes_too_long_to_be_checked() -> None:
    twice = {str(n): {"allOf": [{"$ref": f"#/$defs/{n + 1}"}] * 2} for n in range(40)}
    schema = {"$ref": "#/$defs/0", "$defs": {**twice, "40": {}}}
    with pytest.raises(BadUsage, match="checking it takes more than 1 s"):
        AnswerSchema.of(schema, "it", within=1)
    with pytest.raises(BadUsage, match="it: no such definition: /none"):
        AnswerSchema.of({"$ref": "#/none"}, "it", within=10)
    assert AnswerSchema.of(POINT, "it", within=10).value('{"x": 1}') == {"x": 1}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="lists the children of a process")
@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
def test_a_check_ends_with_the_command(name: str) -> None:
    code = (
        "import sys; from rebyte_cli.tasks.answer_schema import AnswerSchema;"
        f"AnswerSchema.of({{'pattern': {MAIL!r}}}, 'it').value({ENDLESS[1][1]!r})"
    )
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL) as command:
        children = Path(f"/proc/{command.pid}/task/{command.pid}/children")
        check = Path("/proc", eventually(lambda: children.read_text().strip()))
        eventually(lambda: b"answer_schema" in (check / "cmdline").read_bytes())
        command.send_signal(getattr(signal, name))
        command.wait(5)
    eventually(lambda: not is_running(int(check.name)), seconds=5)


@pytest.mark.slow
def test_each_problem_is_named_with_its_place() -> None:
    schema = AnswerSchema.of(POINT, "it")
    assert schema.value('{"x": 1, "y": ["a"]}') == {"x": 1, "y": ["a"]}
    with pytest.raises(Misfit) as caught:
        schema.value('{"x": "1", "y": ["a", 2]}')
    assert caught.value.problems == (
        "$.x: '1' is not of type 'integer'",
        "$.y[1]: 2 is not of type 'string'",
    )
    with pytest.raises(Misfit) as caught:
        schema.value(json.dumps({"x": "long" * 1000, "y": list(range(1000))}))
    assert len(caught.value.problems) == 10
    assert max(map(len, caught.value.problems)) == 300


def test_the_request_replaces_an_earlier_one() -> None:
    first, second = AnswerSchema.of({"minimum": 1}, "a"), AnswerSchema.of({"minimum": 2}, "b")
    asked = second.ask(first.ask("Count"))
    assert asked == "Count" + ASK + '{"minimum": 2}'
    with pytest.raises(BadUsage, match="100,000"):
        first.ask("x" * 99_990)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "is not JSON"),
        ("[]", "must be an object"),
        ("true", "must be an object"),
        ('{"type": "strin"}', r"not a JSON Schema: \$\.type"),
        ('{"properties": {"a": {"$ref": "#/$defs/b"}}}', "no such definition: "),
        ('{"$ref": "https://example.com/s.json"}', "no such definition: https://example.com"),
        ('{"$ref": "#"}', "refers to itself without end"),
        ('{"$schema": "https://example.com/draft"}', "no draft that is known"),
        ('{"$schema": []}', "no draft that is known"),
        ('{"pattern": "("}', "is not a"),
    ],
)
def test_a_schema_that_cannot_be_used(text: str, why: str, tmp_path: Path) -> None:
    file = tmp_path / "s.json"
    file.write_text(text)
    with pytest.raises(BadUsage, match=why):
        AnswerSchema.read(str(file))


@pytest.mark.slow
def test_the_draft_that_a_schema_names_decides(tmp_path: Path) -> None:
    file = tmp_path / "s.json"
    old = "http://json-schema.org/draft-04/schema#"
    text = json.dumps({"$schema": old, "minimum": 1, "exclusiveMinimum": True})
    file.write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\r\n")
    schema = AnswerSchema.read(str(file))
    assert schema.text == text
    assert schema.value("2") == 2
    with pytest.raises(Misfit):
        schema.value("1")
    meta = AnswerSchema.of({"$ref": "https://json-schema.org/draft/2020-12/schema"}, "it")
    assert meta.value('{"type": "string"}') == {"type": "string"}


def test_files(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        AnswerSchema.read(str(tmp_path / "none"))
    for data in (b"\xff{}", b" " * (1 << 20) + b"{}"):
        (tmp_path / "s.json").write_bytes(data)
        with pytest.raises(BadUsage):
            AnswerSchema.read(str(tmp_path / "s.json"))
    with pytest.raises(BadUsage):
        AnswerSchema.read(str(tmp_path))


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    with pytest.raises(RebyteError) as caught:
        AnswerSchema.of({}, "it")
    assert caught.value.code == "missing_extra"
    assert "schema" in str(caught.value.hint)
