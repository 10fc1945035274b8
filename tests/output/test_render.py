"""Each value in each format, as a whole: once for a pipe, once for a terminal."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from rebyte_cli.errors import BadUsage
from rebyte_cli.output.records import (
    CREDITS,
    KINDS,
    PROMPT,
    TASK,
    TASK_ROW,
    Document,
    Raw,
    RecordList,
    Records,
    Text,
)
from tests.screens import ROWS, TASK_DONE, Shown, dedent, out

ENVELOPE = {"total": 42, "limit": 3, "offset": 0}


def test_json_of_a_record_is_the_document_key_for_key() -> None:
    printed = out(Records(TASK, [TASK_DONE]), "json")
    assert printed == json.dumps(TASK_DONE, indent=2, ensure_ascii=False) + "\n"
    assert list(json.loads(printed)) == list(TASK_DONE)


def test_json_of_several_records_is_one_document_after_another() -> None:
    printed = out(Records(PROMPT, [{"promptId": "a"}, {"promptId": "b"}]), "json")
    assert printed == '{\n  "promptId": "a"\n}\n{\n  "promptId": "b"\n}\n'


@pytest.mark.parametrize("rows", [[], ROWS[:1], ROWS, [{}], [{"a": [], "b": {}, "c": [{}]}]])
@pytest.mark.parametrize("envelope", [None, {}, ENVELOPE, {"data2": {"x": [1]}}])
def test_json_of_a_listing_is_what_json_would_make_of_the_whole(rows: Any, envelope: Any) -> None:
    whole = {"data": rows, **(envelope or {})}
    printed = out(RecordList(TASK_ROW, iter(rows), envelope), "json")
    assert printed == json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def test_json_envelope_is_made_from_the_number_of_rows() -> None:
    value = RecordList(TASK_ROW, iter(ROWS), lambda count: {"total": count, "limit": count})
    document = json.loads(out(value, "json"))
    assert (document["total"], document["limit"], len(document["data"])) == (3, 3, 3)


def test_jsonl_is_one_compact_record_per_line_without_envelope() -> None:
    rows = [{"id": "a", "n": 2**70, "title": "é\n"}, {"id": "b", "n": 1.5, "x": None}]
    assert out(RecordList(TASK_ROW, rows, ENVELOPE), "jsonl") == (
        '{"id":"a","n":1180591620717411303424,"title":"é\\n"}\n{"id":"b","n":1.5,"x":null}\n'
    )


def test_json_has_no_infinity() -> None:
    row = {"id": "Infinity", "big": float("inf"), "low": float("-inf"), "none": float("nan")}
    printed = out(Records(TASK, [row]), "jsonl")
    assert printed == '{"id":"Infinity","big":1e999,"low":-1e999,"none":null}\n'


def test_csv_of_a_listing() -> None:
    assert out(RecordList(TASK_ROW, ROWS, ENVELOPE), "csv") == dedent("""
        id,workspaceId,url,title,executor,model,createdAt,completedAt,status
        550e8400-e29b-41d4-a716-446655440000,,https://app.rebyte.ai/run/550e8400,"A security review of the whole code base, slowly",opencode,lite,2026-02-09T10:30:00.000Z,2026-02-09T10:32:00.000Z,
        660e8400-e29b-41d4-a716-446655440001,,https://app.rebyte.ai/run/660e8400,日本語のレビュー,claude,lite,2026-02-07T10:30:00.000Z,,
        770e8400-e29b-41d4-a716-446655440002,,https://app.rebyte.ai/run/770e8400,,,,2026-02-09T10:34:55.000Z,,
    """)  # noqa: E501 - a row is a row


def test_csv_reads_back_as_it_was() -> None:
    values = ['say "hi"', "a,b", "two\nlines", "", " spaces ", "=1+1", "plain", "tab\there"]
    rows = [{"id": value, "title": value} for value in values]
    printed = out(Records(TASK, rows), "csv", fields=("id", "title"))
    assert "\r" not in printed
    assert list(csv.reader(io.StringIO(printed), strict=True)) == [
        ["id", "title"],
        *([value, value] for value in values),
    ]


def test_csv_of_one_empty_cell_is_still_a_line() -> None:
    assert out(Records(TASK, [{}, {"title": "x"}]), "csv", fields=("title",)) == 'title\n""\nx\n'


def test_csv_and_tsv_show_nested_values_as_compact_json() -> None:
    fields = ("status", "prompts", "finalResult")
    assert out(Records(TASK, [TASK_DONE]), "csv", fields=fields) == (
        "status,prompts,finalResult\n"
        'completed,"[{""id"":""880e8400"",""status"":""succeeded"",'
        '""submittedAt"":""2026-02-09T10:30:01.000Z"",'
        '""completedAt"":""2026-02-09T10:32:00.000Z""}]",'
        '"Two ""problems"",\nboth small."\n'
    )


def test_tsv_escapes_what_would_break_a_line() -> None:
    rows = [{"id": "a\tb", "title": "one\ntwo\r\nC:\\new", "prompts": [{"id": "\n"}]}]
    assert out(Records(TASK, rows), "tsv", fields=("id", "title", "model", "prompts")) == (
        'id\ttitle\tmodel\tprompts\na\\tb\tone\\ntwo\\r\\nC:\\\\new\t\t[{"id":"\\\\n"}]\n'
    )


@pytest.mark.parametrize("form", ["csv", "tsv"])
def test_an_empty_listing_still_has_its_header(form: str) -> None:
    separator = "," if form == "csv" else "\t"
    header = "id workspaceId url title executor model createdAt completedAt status"
    assert out(RecordList(TASK_ROW, []), form) == header.replace(" ", separator) + "\n"


def test_id_is_one_per_line_and_the_prompts_own_for_a_follow_up() -> None:
    assert out(RecordList(TASK_ROW, [{"id": "a"}, {"id": None}, {}, {"id": "b\nc"}]), "id") == (
        "a\nb c\n"
    )
    assert out(Records(PROMPT, [{"promptId": "p1"}]), "id") == "p1\n"


def test_id_of_what_has_none_is_refused() -> None:
    shown = Shown(Records(CREDITS, [{"balance": 1}]), "id")
    assert isinstance(shown.error, BadUsage)
    assert (shown.error.message, shown.out) == ("-o id: credits have no id", "")


def test_fields_pick_and_order() -> None:
    value = Records(TASK, [{"id": "a", "status": "running", "title": "t"}])
    fields = ("title", "model", "id")
    assert out(value, "jsonl", fields=fields) == '{"title":"t","model":null,"id":"a"}\n'
    assert out(value, "csv", fields=fields) == "title,model,id\nt,,a\n"
    assert out(value, "tsv", fields=fields) == "title\tmodel\tid\nt\t\ta\n"
    assert out(value, "table", fields=fields) == "Title  t\nModel\nID     a\n"
    listing = RecordList(TASK, value.rows, {"total": 1})
    assert out(listing, "table", fields=fields) == "TITLE  MODEL  ID\nt             a\n"
    assert json.loads(out(listing, "json", fields=fields)) == {
        "data": [{"title": "t", "model": None, "id": "a"}],
        "total": 1,
    }


def test_an_unknown_field_names_the_known_ones_and_the_nearest() -> None:
    shown = Shown(Records(PROMPT, [{"promptId": "p"}]), "json", fields=("promptid",))
    assert isinstance(shown.error, BadUsage)
    assert shown.error.message == "--fields: no such field: promptid"
    assert shown.error.hint == "Did you mean 'promptId'?\nThe fields are promptId"
    assert shown.out == ""


def test_fields_of_a_document_are_its_keys() -> None:
    value = Document({"prompt": "p", "skills": ["a"]})
    assert out(value, "jsonl", fields=("skills",)) == '{"skills":["a"]}\n'
    assert isinstance(Shown(value, "json", fields=("model",)).error, BadUsage)
    assert isinstance(Shown(Document([1]), "json", fields=("model",)).error, BadUsage)
    assert isinstance(Shown(Text("x"), "text", fields=("model",)).error, BadUsage)


@pytest.mark.parametrize("form", ["text", "json", "table", "csv", "id"])
@pytest.mark.parametrize("tty", [True, False])
def test_text_and_documents_keep_their_form(form: str, tty: bool) -> None:
    assert out(Text("complete -F _rebyte\n"), form, tty=tty) == "complete -F _rebyte\n"
    assert out(Document({"a": [1]}), form, tty=tty) == '{\n  "a": [\n    1\n  ]\n}\n'


@pytest.mark.parametrize(
    ("chunks", "printed"),
    [
        ("", ""),
        ([], ""),
        ("no newline", "no newline\n"),
        (["a", "b\n"], "ab\n"),
        (["CRLF\r", "\nover chunks\r\n"], "CRLF\nover chunks\n"),
        (["a lone \r", "one"], "a lone \\x0done\n"),
        ("at the end\r", "at the end\\x0d\n"),
    ],
)
def test_text_ends_with_one_newline(chunks: Any, printed: str) -> None:
    assert out(Text(chunks), "text") == printed


def test_nothing_returned_prints_nothing() -> None:
    assert out(None, "json") == ""


def test_raw_bytes_on_a_terminal_are_made_safe() -> None:
    assert out(Raw(b'{"a":"\x1b[31m"}\xff'), "text", tty=True) == '{"a":"\\x1b[31m"}\\xff\n'


def test_secrets_are_no_fields_and_never_printed() -> None:
    rows = [{"id": "c1", "status": "ready", "sandboxApiKey": "hunter2", "uploadUrl": "hunter2"}]
    for name in ("computer", "file"):
        kind = KINDS[name]
        withheld = kind.withheld[0]
        for form in ("json", "jsonl", "csv", "tsv", "id", "table"):
            for value in (Records(kind, rows), RecordList(kind, rows)):
                assert withheld not in out(value, form)
        assert isinstance(Shown(Records(kind, rows), "json", fields=(withheld,)).error, BadUsage)
