"""The input of a batch: what each form means, and that every mistake is reported at once."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.batch.file_formats import BadLines, Fingerprint, decoded
from rebyte_cli.batch.input import IN_MEMORY, Input, InputLine, Template, make_plan, read_input
from rebyte_cli.batch.line_fields import LineChecker, LineFields
from rebyte_cli.batch.session import parse_resolutions
from rebyte_cli.errors import BadUsage
from rebyte_cli.tasks.upload import check
from tests.conftest import COMMAND, Done
from tests.farm import Farm, lines_of
from tests.inside import inside
from tests.servers import Answer, Request, error_reply

NONE = LineFields({})


def read(
    data: bytes | str,
    form: Any = "jsonl",
    *,
    template: str | None = None,
    defaults: LineFields = NONE,
    fresh: bool = False,
) -> Input:
    raw = data.encode() if isinstance(data, str) else data
    checker = LineChecker(defaults, workspace_per_line=fresh, find_files=lambda path: check([path]))
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
"""
    assert problems(data) == [
        "line 2: prompt: the prompt is empty",
        "line 3: promt: no such field. Did you mean 'prompt'?",
        "line 4: not JSON: Expecting value at character 1",
        "line 5: not a JSON object (--text takes one prompt per line)",
        "line 6: skills: must be a list of strings, not a string",
        "line 7: prompt: must be a string, not a number",
        "line 8: branchName: needs githubUrl",
        "line 9: model: is empty",
        "line 10: prompt: given twice",
        "line 11: not UTF-8: byte 13 is 0xff",
    ]
    odd = '{"prompt": "x", "key": {"a": 1}}\n{"prompt": "\\ud800"}\n{"prompt": "\\u0000 \\u0000"}\n'
    assert problems(odd) == [
        "line 1: key: must be a string or a whole number, not an object",
        "line 2: prompt: the prompt is not valid UTF-8",
        "line 3: prompt: the prompt is empty",
    ]


def test_a_mistake_of_many_lines_is_explained_once() -> None:
    data = '{"prompt": "fine"}\n' + '{"promt": "typo"}\n' * 500 + '{"prompt": ""}\n' * 3
    with pytest.raises(BadUsage) as caught:
        read(data)
    assert caught.value.message.split("\n") == [
        "tasks has 503 bad lines; nothing was sent",
        "lines 2, 3, 4, 5, 6 and 495 more: promt: no such field. Did you mean 'prompt'?",
        "lines 502, 503 and 504: prompt: the prompt is empty",
    ]


def test_after_ten_mistakes_only_their_number_is_told() -> None:
    data = "".join(f'{{"prompt": "x", "f{number}": 1}}\n' for number in range(37))
    found = problems(data)
    assert len(found) == 11
    assert found[9:] == ["line 10: f9: no such field", "and 27 more mistakes"]


@pytest.mark.parametrize(
    ("data", "form", "says", "hint"),
    [
        (
            "Fix the bug, then test it\nWrite the docs, and check them\n",
            "jsonl",
            "tasks is not JSON Lines: line 1 is not a JSON object; nothing was sent",
            "If it holds one prompt per line, pass --text. If it is CSV, pass --csv.",
        ),
        (
            'name,city\nAda,London\n"Zoë, the second",Oslo\n',
            "jsonl",
            "tasks is not JSON Lines: line 1 is not a JSON object; nothing was sent",
            "It looks like CSV with the columns name, city: pass --csv --template FILE.",
        ),
        (
            "key,prompt\na,Say one\n",
            "jsonl",
            "tasks is not JSON Lines: line 1 is not a JSON object; nothing was sent",
            "It looks like CSV with the columns key, prompt: pass --csv.",
        ),
        (
            '[\n  {"prompt": "One"},\n  {"prompt": "Two"}\n]\n',
            "jsonl",
            "tasks is a JSON array, not JSON Lines; nothing was sent",
            "Put each task on one line: jq -c '.[]' tasks > tasks.jsonl",
        ),
        (
            '{\n  "prompt": "One"\n}\n',
            "jsonl",
            "tasks is JSON over several lines, not JSON Lines; nothing was sent",
            "Put each task on one line: jq -c . tasks > tasks.jsonl",
        ),
        (
            "name,city\nAda,London\nBob,Paris\n",
            "csv",
            "tasks has no column 'prompt'; nothing was sent",
            "To make the prompts from the columns, pass --template FILE: a text with {{name}} "
            "where the value of that column should appear.",
        ),
        (
            "Promt,key\nOne,a\nTwo,b\n",
            "csv",
            "tasks has no column 'prompt'; nothing was sent",
            "Did you mean 'Promt'?",
        ),
        (
            "prompt,colour\nOne,red\nTwo,blue\n",
            "csv",
            "tasks has the column 'colour', which is no field of a task; nothing was sent",
            "Only a prompt made with --template FILE can use other columns.",
        ),
        (
            '{"title": "One", "key": "a"}\n{"title": "Two"}\n',
            "jsonl",
            "tasks has no line with a prompt; nothing was sent",
            "To make the prompts from other fields, pass --template FILE: a text with {{title}} "
            "where the value of that field should appear.",
        ),
        (
            "\ufeffSay one\n".encode("utf-16"),
            "text",
            "tasks is UTF-16, not UTF-8; nothing was sent",
            "Convert it: iconv -f UTF-16 -t UTF-8 tasks > tasks.utf8",
        ),
    ],
)
def test_a_file_of_another_form_is_explained_once(
    data: str | bytes, form: str, says: str, hint: str
) -> None:
    with pytest.raises(BadUsage) as caught:
        read(data, form)
    assert (caught.value.message, caught.value.hint) == (says, hint)


def test_a_column_that_the_template_needs_is_missed_once() -> None:
    with pytest.raises(BadUsage) as caught:
        read("name,city\nAda,London\nBob,Paris\n", "csv", template="{{line}}: Dear {{nme}}")
    assert caught.value.message == (
        "tasks has no column 'nme', which the template needs; nothing was sent"
    )
    assert caught.value.hint == "Did you mean 'name'?\nthe columns are name, city"


def test_lines_of_text_have_one_field_for_a_template() -> None:
    assert bodies(read("Ada\n", "text", template="Greet {{prompt}}")) == [{"prompt": "Greet Ada"}]
    with pytest.raises(BadUsage) as caught:
        read("Ada\nBob\n", "text", template="Greet {{name}}")
    assert caught.value.message == (
        "tasks is read with --text, so no line has 'name', which the template needs; "
        "nothing was sent"
    )
    assert caught.value.hint == "Write {{prompt}} where the text of the line should appear."


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
    assert problems(data) == ["line 3: key: line 1 already has the key '3'"]
    assert problems(data + '{"prompt": "d", "key": "k"}') == [
        "line 3: key: line 1 already has the key '3'",
        "line 4: key: line 2 already has the key 'k'",
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
    defaults = LineFields(
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
    assert problems(data, fresh=True) == [
        "line 1: workspaceId: not allowed with --workspace-per-line"
    ]


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
        "line 2: the template needs 'name', which the line does not have. Did you mean 'nam'?",
        "line 2: model: must be a string, not a number",
        "line 3: the template needs 'name', which the line has as null",
    ]
    with pytest.raises(BadUsage, match=r"contains no \{\{field\}\}"):
        read("", template="Hello")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("prompt,key\n1,2,3\n", "line 2: has 3 cells, and the header has 2"),
        ("a,a\n1,2\n", "line 1: the header has 'a' twice"),
        ('prompt\n"open\n', "line 2: not CSV: unexpected end of data"),
    ],
)
def test_csv_that_is_none(data: str, says: str) -> None:
    assert problems(data, "csv") == [says]


def test_the_digest_tells_content_form_and_template_apart() -> None:
    text = "Say {{x}}\n"
    assert read(text, "text").fingerprint.whole == read(text, "text").fingerprint.whole
    digests = {
        read(text, "text").fingerprint.whole,
        read(text.replace("Say", "say"), "text").fingerprint.whole,
        read('{"x": 1}', template="{{x}}").fingerprint.whole,
        read('{"x": 1}', template="{{x}}!").fingerprint.whole,
    }
    assert len(digests) == 4


@pytest.mark.parametrize(
    ("before", "now", "is_same"),
    [
        ("One\nTwo\n", "One\nTwo\nThree\n", True),
        ("One\nTwo", "One\nTwo\nThree\n", True),  # the last line had no end yet
        ("One\nTwo", "One\nTwo more\n", False),
        ("One\nTwo\n", "One\n", False),
        ("One\nTwo\n", "Zero\nOne\nTwo\n", False),
        ("One\nTwo\n", "One\n\nTwo\n", False),
        ("", "One\n", True),
        ("One\n", "One\n", True),
    ],
)
def test_an_input_that_has_grown_is_known_again(before: str, now: str, is_same: bool) -> None:
    mark = read(before, "text").fingerprint.mark
    assert read(now, "text").fingerprint.begins_with(mark) == is_same


def test_long_inputs_do_not_stay_in_memory() -> None:
    prompt = "x" * 90_000
    batch = read("".join(f'{{"prompt": "{n} {prompt}"}}\n' for n in range(100)))
    assert sum(line.size for line in batch.lines) > IN_MEMORY
    assert getattr(batch._bodies, "_rolled", False)  # it went to a file
    assert batch.body(batch.lines[57])["prompt"].startswith("57 x")


@pytest.mark.parametrize("sign", [";", "\t"])
def test_csv_with_other_signs_between_its_cells_is_named(sign: str) -> None:
    found = problems(f"prompt{sign}key\na{sign}b\n", "csv")
    assert found == [f"line 1: cells must be separated by commas, not by {sign!r}"]


def test_csv_cells_may_be_longer_than_a_prompt() -> None:
    batch = read(f"name,data\nAnn,{'x' * 200_000}\n", "csv", template="Dear {{name}}")
    assert bodies(batch) == [{"prompt": "Dear Ann"}]


def test_half_a_surrogate_pair_is_refused_in_every_field() -> None:
    data = r'{"prompt": "x", "model": "\ud800", "skills": ["a", "\udfff"], "key": "\udc00"}'
    assert problems(data) == [
        "line 1: model: is not valid UTF-8",
        "line 1: skills: item 2: is not valid UTF-8",
        "line 1: key: contains a character that cannot be printed",
    ]


def test_braces_without_a_name_are_text() -> None:
    batch = read('{"a": 1}', template="{{ }} {{}} {{{a}}} {{ a }}")
    assert bodies(batch) == [{"prompt": "{{ }} {{}} {1} 1"}]


def test_a_control_character_is_named_once() -> None:
    assert problems('{"prompt": "a\x00b"}') == [
        "line 1: not JSON: Invalid control character at character 14"
    ]


# What the command refuses before it sends anything.

Batch = Callable[..., Done]


@pytest.fixture
def farm() -> Any:
    with Farm() as running:
        yield running


@pytest.fixture
def batch(farm: Farm, home: Path) -> Batch:
    def run(*arguments: str, **more: Any) -> Done:
        return inside("batch", *arguments, cwd=home, env=farm.env, **more)

    return run


def test_a_file_that_is_no_file(batch: Batch, farm: Farm, home: Path) -> None:
    (home / "folder").mkdir()
    assert batch("folder").status == 2
    assert batch("absent").status == 4
    assert batch("absent/absent").status == 4
    done = batch("/dev/zero", "--journal", "j")
    assert done.status == 2
    assert "line 1: is longer than 16 MiB" in done.err
    assert not farm.calls
    assert not (home / "j").exists()


def test_a_pipe_is_read_to_its_end(batch: Batch, farm: Farm, home: Path) -> None:
    os.mkfifo(home / "pipe")
    text = '{"prompt": "One"}\n'
    writer = threading.Thread(target=(home / "pipe").write_text, args=(text,), daemon=True)
    writer.start()
    assert batch("pipe").status == 0
    assert farm.made == {"One": 1}
    assert (home / "pipe.journal").exists()


def test_standard_input_needs_a_journal_before_it_is_read(batch: Batch, home: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, "batch", "-"], cwd=home, stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:  # and nothing is ever written to it
        assert process.wait(timeout=60) == 2
        assert process.stderr is not None
        assert b"needs --journal PATH" in process.stderr.read()
    line = b'{"prompt": "One"}\n'
    done = batch("-", "--journal", "j", stdin=line)
    assert done.status == 0
    assert batch("-", "--journal", "j", stdin=line).out == done.out
    closed = subprocess.run(
        ["sh", "-c", f"exec {' '.join(COMMAND)} batch - --dry-run <&-"],
        cwd=home,
        capture_output=True,
        check=False,
    )
    assert (closed.returncode, b"standard input is closed" in closed.stderr) == (2, True)


def test_another_kind_of_file_is_not_listed_whole(batch: Batch, home: Path) -> None:
    (home / "picture").write_bytes(b"\x89PNG\r\n" * 4000)
    done = batch("picture", "-o", "table")
    assert done.status == 2
    assert "picture has at least 1000 bad lines; nothing was sent" in done.err
    assert done.err.endswith(
        "\n       lines 1, 2, 3, 4, 5 and 995 more: not UTF-8: byte 1 is 0x89\n"
    )


@pytest.mark.parametrize("text", [b"", b"\xef\xbb\xbf", b"\n \r\n\n"])
def test_nothing_to_do_is_done(batch: Batch, farm: Farm, home: Path, text: bytes) -> None:
    (home / "t.jsonl").write_bytes(text)
    done = batch("t.jsonl")
    assert (done.status, done.out) == (0, "")
    assert re.fullmatch(r"no lines \(\d+s\)\n", batch("t.jsonl", "-o", "table").err)
    (home / "t.jsonl").write_text('{"prompt": "One"}')
    assert batch("t.jsonl").status == 0  # the file of no lines is not held against it
    assert farm.made == {"One": 1}


@pytest.mark.parametrize(
    "options",
    [
        ["--rate", "nan"],
        ["--rate", "inf"],
        ["--rate", "0"],
        ["--jobs", "0"],
        ["--jobs", "257"],
        ["--shard", "0/2"],
        ["--shard", "3/2"],
        ["--shard", "1/" + "9" * 5000],
        ["--timeout", "-1"],
        ["--resend-after", "nan"],
        ["--text", "--csv"],
        ["--fields", "nope"],
        ["--report", ""],
        ["--report", "r.pdf"],
        ["--report", "absent/r.html"],
        ["--status", "--resolve", "1=none"],
        ["--dry-run", "--resolve", "1=none"],
        ["-w", "ws-1", "--workspace-per-line"],
    ],
)
def test_a_wish_that_makes_no_sense(
    batch: Batch, farm: Farm, home: Path, options: list[str]
) -> None:
    (home / "t.jsonl").write_text('{"prompt": "One"}')
    done = batch("t.jsonl", *options)
    assert done.status == 2, done.err
    assert json.loads(done.err)["error"]["exit"] == 2
    assert not farm.calls
    assert not (home / "t.jsonl.journal").exists()


def test_a_report_never_takes_the_place_of_what_is_read(batch: Batch, home: Path) -> None:
    (home / "prompts.md").write_text("One\n")
    (home / "link.md").symlink_to("prompts.md")
    (home / "letter.md").write_text("Hello {{prompt}}\n")
    for report in ("prompts.md", "link.md"):
        done = batch("prompts.md", "--text", "--report", report)
        assert (done.status, "would overwrite prompts.md" in done.err) == (2, True)
    done = batch("prompts.md", "--text", "--template", "letter.md", "--report", "letter.md")
    assert done.status == 2
    assert (home / "prompts.md").read_text() == "One\n"


def test_a_key_that_is_taken_back_ends_it_and_what_was_sent_is_kept(
    batch: Batch, farm: Farm, home: Path
) -> None:
    def hook(request: Request) -> Answer | None:
        if request.method == "POST" and len(farm.tasks) >= 5:
            return error_reply(401, "invalid_api_key", "Key revoked")
        return None

    farm.hook = hook
    (home / "t.txt").write_text("".join(f"Task {number}\n" for number in range(20)))
    done = batch("t.txt", "--text", "--jobs", "2")
    assert done.status == 3
    assert "Set REBYTE_API_KEY to another key" in done.err
    made = [row for row in lines_of(done.out) if row["id"]]
    assert len(made) == len(farm.tasks) <= 6
    assert {row["status"] for row in lines_of(done.out)} <= {"pending", "running", "completed"}
    farm.hook = lambda _request: None
    assert batch("t.txt", "--text").status == 0
    assert set(farm.made.values()) == {1}
    assert len(farm.made) == 20


def test_a_first_run_that_made_nothing_does_not_bind_the_file(
    batch: Batch, farm: Farm, home: Path
) -> None:
    farm.hook = lambda request: error_reply(401, "invalid_api_key", "No such key")
    (home / "t.txt").write_text("One\n")
    assert batch("t.txt", "--text").status == 3
    farm.hook = lambda _request: None
    (home / "t.txt").write_text("One, and better\n")
    assert batch("t.txt", "--text").status == 0
    (home / "t.txt").write_text("One, and best\n")
    assert batch("t.txt", "--text").status == 2
    assert farm.made == {"One, and better": 1}


@pytest.mark.slow
def test_resolving_twice_is_a_slip_and_resolving_again_is_not(
    batch: Batch, farm: Farm, home: Path, pace: Callable[..., None]
) -> None:
    pace()
    farm.silent = True
    (home / "t.txt").write_text("One <cut>\nTwo <cut>\n")
    run = ("t.txt", "--text")
    assert batch(*run).status == 6
    one, two = farm.tasks
    for pair in ((f"1={one}", f"2={one}"), (f"1={one}", f"1={two}"), ("1=none", "1=none")):
        done = batch(*run, "--resolve", pair[0], "--resolve", pair[1])
        assert (done.status, "is named twice" in done.err) == (2, True)
    both = ("--resolve", f"1={one}", "--resolve", f"2={two}")
    assert batch(*run, *both).status == 0
    assert batch(*run, *both).status == 0
    assert batch(*run, "--resolve", f"1={two}").status == 2
    assert farm.made == {"One <cut>": 1, "Two <cut>": 1}


def test_a_file_that_goes_away_meanwhile_refuses_its_line_and_pauses_nothing(
    batch: Batch, farm: Farm, home: Path
) -> None:
    def hook(request: Request) -> Answer | None:
        if request.method == "POST":
            (home / "f").unlink(missing_ok=True)
        return None

    farm.hook = hook
    (home / "f").write_text("x")
    (home / "t.jsonl").write_text('{"prompt": "One"}\n{"prompt": "Two", "files": ["f"]}\n')
    done = batch("t.jsonl", "--jobs", "1")
    ends = {row["line"]: row["status"] for row in lines_of(done.out)}
    assert ends == {1: "completed", 2: "refused"}
    assert done.status not in (0, 2), "the batch itself was no bad usage"
    assert "Paused" not in done.err
    assert farm.made == {"One": 1}


# Unusual lines: skipped, refused, or passed to a template


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
    assert first == "tasks has 1 bad line; nothing was sent"
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
    found = bodies(read("name,word\nAda,\n", "csv", template="{{name}}: {{word}}."))
    assert found == [{"prompt": "Ada: ."}]
    found = bodies(read('{"who":["Zoë"]}', template="For {{who}}"))
    assert found == [{"prompt": 'For ["Zoë"]'}]


# Limits: how much is read, and time that grows linearly with the file


def test_a_template_that_has_no_end(batch: Batch, farm: Farm, home: Path) -> None:
    (home / "t.jsonl").write_text('{"prompt": "One"}')
    done = batch("t.jsonl", "--template", "/dev/zero")
    assert (done.status, "/dev/zero is larger than 1 MiB" in done.err) == (2, True)
    assert not farm.calls


def test_bad_lines_that_have_no_end(batch: Batch, farm: Farm, home: Path) -> None:
    os.mkfifo(home / "pipe")

    def write() -> None:
        with suppress(BrokenPipeError), (home / "pipe").open("wb") as pipe:
            while True:
                pipe.write(b"\xff\n" * 1000)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    done = batch("pipe", "--text", "--journal", "j")
    assert (done.status, "pipe has at least 1000 bad lines" in done.err) == (2, True)
    writer.join(60)
    assert not writer.is_alive()
    assert not farm.calls


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "options", "limit"),
    [
        (b"y\n", {}, "1,000,000 lines"),
        (b"x" * (1 << 20), {"largest": 1 << 30}, "1 GiB"),
    ],
)
def test_an_input_that_has_no_end(line: bytes, options: dict[str, int], limit: str) -> None:
    bad = BadLines("tasks")
    with pytest.raises(BadUsage, match=f"tasks has more than {limit}; nothing was sent"):
        for _ in decoded(repeat(line), Fingerprint(""), bad, **options):
            pass


def duplicate_fields(count: int) -> None:
    names = ", ".join(f'"name {number}": 1' for number in range(count))
    problems("{" + names + ', "prompt": "a", "prompt": "b"}')


def wide_header(count: int) -> None:
    problems(",".join(f"name {number}" for number in range(count)) + ",prompt,prompt\nx\n", "csv")


def unknown_fields(count: int) -> None:
    problems('{"prompt": "x", ' + ", ".join(f'"name {number}": 1' for number in range(count)) + "}")


def unknown_leaders(count: int) -> None:
    with suppress(BadUsage):
        make_plan([InputLine(n, f"key {n}", f"@lost {n}", (), 0, 0) for n in range(count)], "x")


def resolutions(count: int) -> None:
    lines = [InputLine(number, str(number), None, (), 0, 0) for number in range(count)]
    parse_resolutions([f"{number}=t{number}" for number in range(count)], lines, range(count))


@pytest.mark.slow
@pytest.mark.parametrize(
    "work", [duplicate_fields, wide_header, unknown_fields, unknown_leaders, resolutions]
)
def test_four_times_the_input_costs_no_sixteen_times_the_time(work: Callable[[int], None]) -> None:
    def seconds(count: int) -> float:
        """CPU time, of the best of three."""
        taken = []
        for _ in range(3):
            begun = time.thread_time()
            work(count)
            taken.append(time.thread_time() - begun)
        return min(taken)

    assert seconds(16_000) < 9 * seconds(4_000) + 0.02
