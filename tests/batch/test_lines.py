"""Odd lines of a batch: what is passed over, what is refused, and what a template gets."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import pytest

from rebyte_cli.batch.input import Checker, Fields, Form, Input, Template, lines_of, read_input
from rebyte_cli.errors import BadUsage


def read(text: str, form: Form = "jsonl", template: str | None = None) -> Input:
    checker = Checker(Fields({}), fresh=False, find_files=lambda path: [path])
    made = None if template is None else Template(template, "letter")
    source = lines_of(BytesIO(text.encode()))
    return read_input(source, "t", form=form, template=made, checker=checker)


def bodies(read: Input) -> list[dict[str, Any]]:
    return [read.body(line) for line in read.lines]


def test_an_empty_row_of_csv_is_passed_over() -> None:
    found = read("prompt\nOne\n\nTwo\n", "csv")
    assert [(line.number, read_body["prompt"]) for line, read_body in
            zip(found.lines, bodies(found), strict=True)] == [(2, "One"), (4, "Two")]  # fmt: skip


@pytest.mark.parametrize(
    "text", ['prompt\n"One"x\nTwo\n', 'prompt\n"One\nTwo\n', "prompt\n" + "Two," * 3 + "\n"]
)
def test_csv_that_is_none_is_named_once(text: str) -> None:
    with pytest.raises(BadUsage) as caught:
        read(text, "csv")
    first, *bad = caught.value.message.splitlines()
    assert first == "t has 1 bad line; nothing was sent"
    assert len(bad) == 1


@pytest.mark.parametrize(
    "files", ["a.txt", [{"id": "", "filename": "a"}], [{"id": "f1", "filename": ""}], [""]]
)
def test_files_that_are_none(files: Any) -> None:
    with pytest.raises(BadUsage, match="line 1: files: "):
        read(json.dumps({"prompt": "x", "files": files}))


def test_the_actor_is_a_field_of_a_task() -> None:
    assert bodies(read('{"prompt":"x","actor":"me"}')) == [{"prompt": "x", "actor": "me"}]


def test_a_template_gets_empty_cells_and_words_of_every_language() -> None:
    found = bodies(read("name,word\nAda,\n", "csv", "{{name}}: {{word}}."))
    assert found == [{"prompt": "Ada: ."}]
    found = bodies(read('{"who":["Zoë"]}', template="For {{who}}"))
    assert found == [{"prompt": 'For ["Zoë"]'}]
