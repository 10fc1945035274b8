"""A batch's file and its journal, whatever is in them: taken as they are meant, or refused."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rebyte_cli.batch.input import FileFormat, Input, Template, make_plan, read_input
from rebyte_cli.batch.journal import Journal
from rebyte_cli.batch.journal_format import Record
from rebyte_cli.batch.line_fields import KNOWN, LineChecker, LineFields
from rebyte_cli.batch.state import check_record
from rebyte_cli.errors import BadUsage, RebyteError

from ..servers import KEY, RawServer, json_reply
from . import ANY_JSON, ANY_TEXT, ends_well, tries, within

NAMES = st.sampled_from([*KNOWN, "promt", "é\n", "line"])
LINES = st.one_of(
    st.binary(max_size=12),
    ANY_JSON.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(NAMES, ANY_JSON, max_size=4).map(lambda value: json.dumps(value).encode()),
    st.sampled_from(
        [
            b'{"prompt":"x"}', b'{"prompt":"x","key":"k","workspaceId":"@k"}', b"prompt,key",
            b'{"prompt":"x","prompt":"y"}', b'"a,b', b"a,b", b"", b"\r", b"\xef\xbb\xbf", b"\x00",
            b'{"prompt":"x","workspaceId":"@2"}', b'{"prompt":"\\ud800"}', b"[" * 5000,
            b'{"a":' + b"9" * 5000 + b"}", b'{"a":NaN}', b'{"prompt":"{{a}}"}',
        ]
    ),
)  # fmt: skip
FILES = st.lists(LINES, max_size=6).map(b"\n".join)


def read(raw: bytes, form: FileFormat, template: Template | None) -> Input:
    def find(_path: str) -> list[str]:
        raise BadUsage("no such file")

    checker = LineChecker(LineFields({}), workspace_per_line=False, find_files=find)
    source = iter(BytesIO(raw).readline, b"")
    return read_input(source, "t.jsonl", form=form, template=template, checker=checker)


@tries(250)
@example(b'{"\\u00e9\\n": null}', "jsonl", None)
@example(b'{"a\\nb": 1, "a\\nb": 2}', "jsonl", None)
@given(FILES, st.sampled_from(get_args(FileFormat)), st.sampled_from([None, "Do {{a}} {{line}}"]))
def test_any_file_is_tasks_or_its_mistakes_are_named(
    raw: bytes, form: FileFormat, text: str | None
) -> None:
    template = None if text is None else Template(text, "letter.txt")
    try:
        batch = read(raw, form, template)
        plan = make_plan(batch.lines, "t.jsonl")
    except BadUsage as problem:
        explains_itself(problem)
        return
    assert plan.mine == list(range(len(batch.lines)))
    assert len({line.key for line in batch.lines}) == len(batch.lines)
    for line in batch.lines:
        body = batch.body(line)
        assert body["prompt"].replace("\0", "").strip()
        assert json.dumps(body).encode()
        assert set(body) <= set(KNOWN) - {"key", "workspaceId"}
    assert read(raw, form, template).fingerprint.whole == batch.fingerprint.whole


@tries(60)
@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), max_size=4))
def test_prompts_come_out_as_they_went_in(prompts: list[str]) -> None:
    asked = [prompt for prompt in prompts if prompt.replace("\0", "").strip()]
    raw = "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in asked).encode()
    batch = read(raw, "jsonl", None)
    assert [batch.body(line)["prompt"] for line in batch.lines] == asked


def explains_itself(problem: BadUsage) -> None:
    first, *bad = problem.message.split("\n")
    assert first.startswith("t.jsonl ")
    assert bad or problem.hint
    for line in bad:
        assert re.match(r"lines? \d.*: .|and \d+ more mistakes?$", line), problem.message


# The journal

HEADER = {"input": "x", "lines": 2, "origin": "http://127.0.0.1"}
RECORDS: list[Record] = [
    {"line": 1, "is": "sending", "at": "2026-02-09T10:30:00.000+00:00"},
    {"line": 1, "is": "created", "id": "t1", "workspaceId": "w1", "url": "u", "createdAt": "c"},
    {"line": 2, "is": "sending", "at": "2026-02-09T10:30:00.000+00:00"},
    {"line": 2, "is": "unknown", "candidates": ["t2"]},
    {"line": 1, "is": "ended", "status": "failed", "completedAt": "c",
     "error": {"code": "task_failed", "message": "task t1 failed", "exit": 10}},
]  # fmt: skip


def opened(path: Path) -> list[Record]:
    """The records of earlier runs, as a new run is given them."""
    found: list[Record] = []

    def each(record: Record) -> None:
        check_record(record)
        found.append(record)

    Journal(path, HEADER, run={"jobs": 1}, each=each).close()
    return [record for record in found if "is" in record]


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    path = tmp_path_factory.mktemp("journal") / "j"
    made = Journal(path, HEADER, run={"jobs": 1})
    made.commit(*RECORDS)
    made.close()
    return path, path.read_bytes()


@tries(100)
@given(st.binary(max_size=40) | ANY_JSON.map(lambda value: json.dumps(value).encode() + b"\n"))
@example(b"[" * 50_000 + b"\n")
@example(b'{"rebyteBatch":1,"x":' + b"[" * 50_000 + b"\n")
@example(b'{"rebyteBatch":1,"x":' + b"9" * 5_000 + b"}\n")
@example(b'{"rebyteBatch":')
def test_any_bytes_in_place_of_a_journal(journal: tuple[Path, bytes], raw: bytes) -> None:
    path, _ = journal
    path.write_bytes(raw)
    with suppress(BadUsage):
        opened(path)
        return
    assert path.read_bytes() == raw, "what is refused is left as it was"


def test_a_record_of_a_line_is_never_taken_for_that_of_a_run(tmp_path: Path) -> None:
    made = Journal(tmp_path / "j", HEADER, run={"jobs": 1})
    made.commit({"line": 1, "is": "sending", "run": None})
    made.close()
    assert opened(tmp_path / "j") == [{"line": 1, "is": "sending", "run": None}]


@tries(120)
@given(st.data())
def test_a_journal_cut_anywhere_tells_a_beginning(
    journal: tuple[Path, bytes], data: st.DataObject
) -> None:
    """With whatever a file system leaves behind the cut after a crash: nothing, or zeros."""
    path, whole = journal
    cut = data.draw(st.integers(0, len(whole)))
    zeros = data.draw(st.sampled_from([0, 1, 4096]))
    path.write_bytes(whole[:cut] + b"\0" * zeros)
    found = opened(path)
    assert found == RECORDS[: len(found)]
    assert opened(path) == found, "cut off once, it stays whole"
    complete = whole[:cut].count(b"\n")  # the header and the run come first
    assert len(found) == max(0, complete - 2)


@tries(120)
@given(st.data())
def test_a_journal_with_a_wrong_byte_never_forgets_a_record_in_silence(
    journal: tuple[Path, bytes], data: st.DataObject
) -> None:
    path, whole = journal
    at = data.draw(st.integers(0, len(whole) - 1))
    wrong = data.draw(st.integers(0, 255))
    path.write_bytes(whole[:at] + bytes([wrong]) + whole[at + 1 :])
    try:
        found = opened(path)
    except BadUsage:
        return
    # What cannot be read at the end is taken for the trace of a crash, which is all that it can be
    # when nothing whole follows; a wrong byte between two records makes both unreadable.
    assert len(found) >= len(RECORDS) - 2
    different = [one for one, other in zip(found, RECORDS, strict=False) if one != other]
    assert len(different) <= 1


STATES = st.sampled_from(["sending", "unsent", "created", "ended", "refused", "unknown", "x", None])
ODD = st.fixed_dictionaries(
    {"line": st.sampled_from([1, 2, 3]) | ANY_JSON, "is": STATES | ANY_JSON},
    optional=dict.fromkeys(
        ("id", "workspaceId", "url", "createdAt", "status", "completedAt", "error", "candidates",
         "at", "run"),
        ANY_JSON,
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str], bytes]:
    """A file, what points the command at its service, and the first line of its journal."""
    file = tmp_path_factory.mktemp("begun") / "t.txt"
    file.write_text("One\nTwo\n")
    with RawServer(json_reply({"data": []})) as server:
        env = {"REBYTE_API_KEY": KEY, "REBYTE_API_URL": server.base_url}
        within("batch", str(file), "--text", "--timeout", "0.01", home=file.parent, env=env)
    return file, env, Path(f"{file}.journal").read_bytes().partition(b"\n")[0]


@tries(60)
@given(st.lists(ODD | st.sampled_from(RECORDS), max_size=4), st.sampled_from(["jsonl", "table"]))
@example([{"line": [1], "is": "created"}], "jsonl")
@example([{"line": 1, "is": "unknown", "candidates": 5}], "jsonl")
@example([{"line": 1, "is": "ended", "status": "failed", "error": "no"}], "jsonl")
@example([{"line": 1, "is": "refused", "error": {}}], "table")
@example([{"line": 1, "is": "sending", "run": None}], "jsonl")
@example(RECORDS, "table")
def test_any_records_are_shown_or_refused(
    begun: tuple[Path, dict[str, str], bytes], records: list[dict[str, Any]], form: str
) -> None:
    """`--status` reads a journal that another program wrote, without contacting the service."""
    file, env, head = begun
    lines = [head, *(json.dumps(record).encode() for record in records)]
    Path(f"{file}.journal").write_bytes(b"".join(line + b"\n" for line in lines))
    words = ("batch", str(file), "--text", "--status", "-o", form)
    done = within(*words, home=file.parent, env=env)
    ends_well(done)
    assert done.status != 5
    if all(record in RECORDS for record in records):
        assert "damaged" not in done.err


@tries(60)
@given(ANY_TEXT)
def test_any_template(text: str) -> None:
    try:
        template = Template(text, "letter.txt")
        template.fill({"a": 1, "b": [text]}, 7)
    except RebyteError as problem:
        assert isinstance(problem, BadUsage)  # noqa: PT017 -- the other way is as good
