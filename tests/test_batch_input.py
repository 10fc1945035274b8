"""The input of a batch: what each form means, and that every mistake is named at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.batch.input import IN_MEMORY, Checker, Fields, Input, Template, read_input
from rebyte_cli.errors import BadUsage
from rebyte_cli.tasks.upload import check

NONE = Fields({})


def read(
    data: bytes | str,
    form: Any = "jsonl",
    *,
    template: str | None = None,
    defaults: Fields = NONE,
    fresh: bool = False,
) -> Input:
    raw = data.encode() if isinstance(data, str) else data
    checker = Checker(defaults, fresh=fresh, find_files=lambda path: check([path]))
    made = Template(template, "letter.txt") if template is not None else None
    lines = raw.splitlines(keepends=True)
    return read_input(lines, "tasks", form=form, template=made, checker=checker)


def bodies(batch: Input) -> list[dict[str, Any]]:
    return [batch.body(line) for line in batch.lines]


def problems(data: bytes | str, form: Any = "jsonl", **options: Any) -> list[str]:
    with pytest.raises(BadUsage) as caught:
        read(data, form, **options)
    first, *lines = caught.value.message.split("\n")
    assert "bad line" in first
    assert "nothing was sent" in first
    return lines


def test_jsonl_keeps_fields_keys_and_line_numbers() -> None:
    batch = read('{"prompt": "One", "key": "first", "model": "lite"}\n\n{"prompt": "Two"}\r\n')
    assert bodies(batch) == [{"prompt": "One", "model": "lite"}, {"prompt": "Two"}]
    assert [(line.number, line.key) for line in batch.lines] == [(1, "first"), (3, "3")]


def test_text_is_one_prompt_per_line() -> None:
    batch = read("\ufeffSay one\r\n\n  Say two\n", "text")
    assert bodies(batch) == [{"prompt": "Say one"}, {"prompt": "  Say two"}]
    assert [line.number for line in batch.lines] == [1, 3]


def test_csv_has_fields_by_its_header_and_lists_by_commas() -> None:
    data = 'key,prompt,skills,model\na,"Say ""hi""\nto all","pdf, web",\nb,Plain,,lite\n'
    batch = read(data, "csv")
    assert bodies(batch) == [
        {"prompt": 'Say "hi"\nto all', "skills": ["pdf", "web"]},
        {"prompt": "Plain", "model": "lite"},
    ]
    assert [line.number for line in batch.lines] == [2, 4]


def test_every_bad_line_is_named_with_its_field() -> None:
    data = b"""{"prompt": "fine"}
{"prompt": ""}
{"promt": "typo"}
not json
["a list"]
{"prompt": "x", "skills": "pdf"}
{"prompt": 7}
{"prompt": "x", "branchName": "main"}
{"prompt": "x", "model": ""}
{"prompt": "x", "prompt": "y"}
{"prompt": "\xff"}
{"prompt": "x", "key": {"a": 1}}
{"prompt": "\\ud800"}
"""
    assert problems(data) == [
        "line 2: prompt: the prompt is empty",
        "line 3: promt: no such field; did you mean 'prompt'?",
        "line 3: prompt: missing",
        "line 4: not JSON: Expecting value at character 1",
        "line 5: not a JSON object (--text takes one prompt per line)",
        "line 6: skills: must be a list of strings, not a string",
        "line 7: prompt: must be a string, not a number",
        "line 8: branchName: needs githubUrl",
        "line 9: model: is empty",
        "line 10: prompt: given twice",
        "line 11: not UTF-8: byte 13 is 0xff",
        "line 12: key: must be a string or a whole number, not an object",
        "line 13: prompt: the prompt is not valid UTF-8",
    ]


def test_limits_and_depth_are_named_and_nothing_crashes() -> None:
    long = '{"prompt": "' + "x" * 100_001 + '"}'
    deep = '{"prompt": ' + "[" * 100_000 + "}"
    huge = '{"prompt": ' + "9" * 5000 + "}"
    found = problems("\n".join([long, deep, huge]))
    assert found[0] == "line 1: prompt: the prompt has 100,001 characters; the API takes 100,000"
    assert found[1] == "line 2: nested too deeply"
    assert found[2].startswith("line 3: ")


def test_a_key_may_be_had_once_the_default_ones_too() -> None:
    data = '{"prompt": "a", "key": "3"}\n{"prompt": "b", "key": "k"}\n{"prompt": "c"}\n'
    assert problems(data) == ["line 3: key: '3' is the key of line 1 already"]
    assert problems(data + '{"prompt": "d", "key": "k"}') == [
        "line 3: key: '3' is the key of line 1 already",
        "line 4: key: 'k' is the key of line 2 already",
    ]


def test_files_must_be_there_before_anything_is_sent(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "b.txt").write_text("b")
    batch = read(f'{{"prompt": "x", "files": ["{tmp_path}/*.txt"]}}')
    assert [Path(path).name for path in batch.lines[0].paths] == ["a.txt", "b.txt"]
    ready = read('{"prompt": "x", "files": [{"id": "f1", "filename": "a-1.txt"}]}')
    assert bodies(ready)[0]["files"] == [{"id": "f1", "filename": "a-1.txt"}]
    found = problems(
        f'{{"prompt": "x", "files": ["{tmp_path}/c.txt"]}}\n'
        f'{{"prompt": "x", "files": ["{tmp_path}"]}}\n'
        '{"prompt": "x", "files": [{"id": "f1"}]}'
    )
    assert found[0] == f"line 1: files: no such file: {tmp_path}/c.txt"
    assert "is a folder" in found[1]
    assert found[2] == 'line 3: files: item 1: an uploaded file is {"id": "…", "filename": "…"}'


def test_options_are_defaults_that_a_line_replaces_or_takes_away(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    defaults = Fields(
        {"model": "lite", "skills": ["pdf"], "githubUrl": "o/r", "branchName": "dev"},
        "ws-1",
        (str(tmp_path / "a.txt"),),
    )
    batch = read(
        '{"prompt": "a"}\n'
        '{"prompt": "b", "model": "big", "skills": null, "workspaceId": null, "files": null}\n'
        '{"prompt": "c", "githubUrl": "x/y", "workspaceId": "ws-2"}\n',
        defaults=defaults,
    )
    assert bodies(batch) == [
        {"prompt": "a", **defaults.body},
        {"prompt": "b", "model": "big", "githubUrl": "o/r", "branchName": "dev"},
        {"prompt": "c", "model": "lite", "skills": ["pdf"], "githubUrl": "x/y"},
    ]
    assert [line.workspace for line in batch.lines] == ["ws-1", None, "ws-2"]
    assert [len(line.paths) for line in batch.lines] == [1, 0, 1]


def test_a_workspace_per_line_refuses_lines_that_name_one() -> None:
    data = '{"prompt": "a", "workspaceId": "ws"}\n{"prompt": "b"}'
    assert problems(data, fresh=True) == ["line 1: workspaceId: contradicts --workspace-per-line"]


def test_a_template_makes_each_prompt_of_the_lines_own_fields() -> None:
    template = "Dear {{ name }},\nyou are {{age}} and {{line}}; {{tags}}.\n"
    batch = read(
        '{"name": "Ann {{age}}", "age": 7, "tags": ["a"], "model": "lite", "key": "k"}',
        template=template,
    )
    assert bodies(batch) == [
        {"prompt": 'Dear Ann {{age}},\nyou are 7 and 1; ["a"].', "model": "lite"}
    ]
    rows = read("name,First name\nx,Bo\n", "csv", template="Hi {{First name}}")
    assert bodies(rows) == [{"prompt": "Hi Bo"}]


def test_a_field_that_the_template_needs_is_missed_by_line() -> None:
    found = problems('{"name": "x"}\n{"nam": "y", "model": 3}\n{"name": null}', template="{{name}}")
    assert found == [
        "line 2: the template needs 'name', which the line does not have; did you mean 'nam'?",
        "line 2: model: must be a string, not a number",
        "line 3: the template needs 'name', which the line does not have; did you mean 'name'?",
    ]
    with pytest.raises(BadUsage, match="names no field"):
        read("", template="Hello")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("a,b\n1,2,3\n", "line 2: has 3 cells, and the header has 2"),
        ("a,a\n1,2\n", "line 1: the header has 'a' twice or without a name"),
        ('prompt\n"open\n', "line 2: not CSV: unexpected end of data"),
    ],
)
def test_csv_that_is_none(data: str, says: str) -> None:
    assert problems(data, "csv") == [says]


def test_the_digest_tells_content_form_and_template_apart() -> None:
    text = "Say {{x}}\n"
    assert read(text, "text").digest == read(text, "text").digest
    digests = {
        read(text, "text").digest,
        read(text.replace("Say", "say"), "text").digest,
        read('{"x": 1}', template="{{x}}").digest,
        read('{"x": 1}', template="{{x}}!").digest,
    }
    assert len(digests) == 4


def test_long_inputs_do_not_stay_in_memory() -> None:
    prompt = "x" * 90_000
    batch = read("".join(f'{{"prompt": "{n} {prompt}"}}\n' for n in range(100)))
    assert sum(line.size for line in batch.lines) > IN_MEMORY
    assert getattr(batch._bodies, "_rolled", False)  # it went to a file
    assert batch.body(batch.lines[57])["prompt"].startswith("57 x")


@pytest.mark.parametrize("sign", [";", "\t"])
def test_csv_with_other_signs_between_its_cells_is_named(sign: str) -> None:
    found = problems(f"prompt{sign}key\na{sign}b\n", "csv")
    assert found == [f"line 1: cells are divided by commas here, not by {sign!r}"]


def test_csv_cells_may_be_longer_than_a_prompt() -> None:
    batch = read(f"name,data\nAnn,{'x' * 200_000}\n", "csv", template="Dear {{name}}")
    assert bodies(batch) == [{"prompt": "Dear Ann"}]


def test_half_a_surrogate_pair_is_refused_in_every_field() -> None:
    data = r'{"prompt": "x", "model": "\ud800", "skills": ["a", "\udfff"], "key": "\udc00"}'
    assert problems(data) == [
        "line 1: model: is not valid UTF-8",
        "line 1: skills: item 2: is not valid UTF-8",
        "line 1: key: has a character that cannot be printed",
    ]


def test_braces_without_a_name_are_text() -> None:
    batch = read('{"a": 1}', template="{{ }} {{}} {{{a}}} {{ a }}")
    assert bodies(batch) == [{"prompt": "{{ }} {{}} {1} 1"}]


def test_a_control_character_is_named_once() -> None:
    assert problems('{"prompt": "a\x00b"}') == [
        "line 1: not JSON: Invalid control character at character 14"
    ]
