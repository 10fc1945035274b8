"""No text from elsewhere reaches a terminal raw, in any field of any kind in any format."""

from __future__ import annotations

import csv
import io
import json
import re
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from rebyte_cli.errors import APIError, OutcomeUnknown, RebyteError
from rebyte_cli.output.messages import call_logger, note, show_error
from rebyte_cli.output.progress import progress_bar, spinner
from rebyte_cli.output.records import (
    KINDS,
    TASK,
    TASK_ROW,
    Document,
    Raw,
    RecordKind,
    RecordList,
    Records,
    Text,
)
from tests.screens import Shown, console, text_of

HOSTILE = [
    "\x1b[31mred\x1b[0m",
    "\x1b]8;;https://evil.example\x07click\x1b]8;;\x07",
    "\x1b]52;c;cm0gLXJmIC8=\x07",
    "\x1bP1$r0m\x1b\\",
    "\x9b31mC1\x9c\x85",
    "bell\x07 back\x08 \x00 nul \x7f del",
    "over\rwritten\x0bvertical\x0cform",
    "user\u202etxt.exe\u202c \u2066isolate\u2069 \u061c",
    "zero\u200bwidth\u2060\ufeff",
    "line\u2028paragraph\u2029",
    "tag\U000e0041\U000e0042\U000e007f",
    "soft\xadhyphen \u180e vowel \u206a\u206f shaping \ufff9anno\ufffatation\ufffb",
    "selectors\U000e0100\U000e01ef carry bytes",
    "lone \ud800 \udfff surrogate",
    "[/x] [bold]markup[/bold] [link=https://evil.example]",
    "{task.description} %s %(x)s {0}",
    "tab\tnew\nline\r\nCRLF",
    '=HYPERLINK("https://evil.example")',
    '"quoted", and \\ back',
]
FORMATS = ("json", "jsonl", "csv", "tsv", "id", "table")
# Not taken from the code under test, so that one mistake cannot hide in both.
RAW = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e01ef]"
)


# Where a text can be in a value of the API.
PLACES: dict[str, Callable[[str], Any]] = {
    "text": lambda text: text,
    "list": lambda text: [text],
    "key": lambda text: {text: text},
    "objects": lambda text: [{text: text, "id": text}],
    "error": lambda text: {"message": text},
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("place", PLACES)
def test_case_43_every_field_in_every_format(kind: RecordKind, place: str) -> None:
    """Each hostile text fills every field of one row."""
    values = {text: PLACES[place](text) for text in HOSTILE}
    rows = [
        dict.fromkeys((*kind.types, *kind.formerly, text), value) for text, value in values.items()
    ]
    envelope = {f"note {number}": value for number, value in enumerate(values.values())}
    for form in FORMATS:
        if form == "id" and not kind.id:
            continue
        for shape in (Records(kind, rows), RecordList(kind, rows, envelope)):
            for tty in (False, True):
                shown = Shown(shape, form, tty=tty)
                assert shown.error is None
                assert not RAW.search(shown.out), (form, shown.out)
                check_shape(shown.out, form, shape, rows)


def check_shape(printed: str, form: str, shape: Any, rows: list[dict[str, Any]]) -> None:
    """The text neither breaks out of its cell nor gets lost."""
    if form == "json" and isinstance(shape, RecordList):
        assert json.loads(printed) == {"data": rows, **(shape.envelope or {})}  # type: ignore[dict-item]  # the tests pass mappings
    elif form == "jsonl":
        assert [json.loads(line) for line in printed.splitlines()] == rows
    elif form == "csv":
        cells = list(csv.reader(io.StringIO(printed), strict=True))
        assert len(cells) == len(rows) + 1
        assert len({len(row) for row in cells}) == 1
    elif form == "tsv":
        lines = printed.removesuffix("\n").split("\n")
        assert len(lines) == len(rows) + 1
        assert len({line.count("\t") for line in lines}) == 1
    elif form == "id":
        assert len(printed.splitlines()) == len(rows)
    elif form == "table" and isinstance(shape, RecordList):
        assert len(printed.splitlines()) == len(rows) + 1


# Persian, Hindi and Sinhala, an emoji of several people, and Hebrew beside a version number.
JOINED = "می‌خواهم क्‍ष ශ්‍රී 👩‍👩‍👧 ‏גרסה 1.2‎"


@pytest.mark.parametrize("form", FORMATS)
def test_joiners_and_directional_marks_stay(form: str) -> None:
    """People write with them, so no format on any stream escapes them."""
    for tty in (False, True):
        for kind, name in ((TASK_ROW, "title"), (TASK, "title"), (TASK, "finalResult")):
            row = {"id": JOINED, name: JOINED}
            values = (RecordList(kind, [row]), Records(kind, [row]))
            for value in values:
                fields = ("id",) if form == "id" else (name,)
                assert JOINED in Shown(value, form, tty=tty, fields=fields).out
        for text in (Text(JOINED), Document(JOINED), Raw(JOINED.encode())):
            assert tty is False or JOINED in Shown(text, "text", tty=tty).out
        it = console(tty=tty, width=200)
        note(it, JOINED)
        show_error(it, RebyteError(JOINED), as_json=form == "json")
        assert text_of(it.err).count(JOINED) == 2


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_text_documents_and_raw_bytes(text: str) -> None:
    for value in (Text(text), Text(list(text)), Document({text: [text]})):
        for form in ("text", *FORMATS):
            assert not RAW.search(Shown(value, form).out)
    assert json.loads(Shown(Document({text: [text]}), "json").out) == {text: [text]}
    raw = Shown(Raw(text.encode("utf-8", "surrogatepass")), "text", tty=True)
    assert not RAW.search(raw.out)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_text_for_stderr_is_safe(text: str) -> None:
    errors = [
        RebyteError(text, hint=text, code=text),
        APIError(text, status_code=400, response={text: text}),
        OutcomeUnknown(text, candidates=[{"id": text, "url": text, "createdAt": text}]),
    ]
    for as_json in (False, True):
        for err in errors:
            it = console()
            show_error(it, err, as_json=as_json)
            assert not RAW.search(text_of(it.err))
            if as_json:
                printed = text_of(it.err)
                assert printed.count("\n") == 1
                assert json.loads(printed) == err.as_dict()
    it = console()
    note(it, text)
    call_logger(it, debug=True)(
        SimpleNamespace(
            method="GET",
            path=text,
            status=None,
            seconds=0.1,
            retry=1,
            error=text,
            request_headers={text: text},
            request_body=text,
            response_headers={text: text},
            response_body=text,
            curl=text,
        )
    )
    assert not RAW.search(text_of(it.err))


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_the_line_that_moves(text: str) -> None:
    for show in (spinner, lambda it, text, **more: progress_bar(it, text, 10, **more)):
        it = console(tty=True, live=True, width=100)
        with show(it, text, delay=60):
            assert it.region is not None
            it.region.redraw()
            printed = text_of(it.err)
        shown = printed.removeprefix("\r").removesuffix("\x1b[J\r")
        assert shown
        assert not RAW.search(shown)


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", ["[" * 1_000_000, "\x1b" * 1_000_000, "é\u202e" * 500_000, "é\u200d" * 500_000]
)
@pytest.mark.parametrize("form", FORMATS)
def test_case_44_a_million_take_under_a_second(text: str, form: str) -> None:
    def seconds(text: str) -> float:
        began = time.thread_time()
        shown = Shown(RecordList(TASK, [{"id": text, "title": text}]), form, tty=True)
        assert shown.error is None
        return time.thread_time() - began

    # Or not much more than a tenth of them, ten times over, where the machine is slow or busy.
    assert any(
        took < 1 or took < 15 * seconds(text[:100_000])
        for took in (seconds(text) for _ in range(5))
    )
