"""Records leave as they arrive; what ends early ends honestly; real pipes, disks and locales."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from rebyte_cli.errors import (
    Interrupted,
    NetworkError,
    RebyteError,
    ResourceNotFound,
    TaskCanceled,
    TaskFailed,
)
from rebyte_cli.output.console import Console
from rebyte_cli.output.records import TASK, TASK_ROW, Raw, RecordList, Records, Text
from rebyte_cli.output.render import show
from tests.conftest import need_tool
from tests.screens import Shown, console, text_of


class Piped(Console):
    """A screen whose stdout shows only what was flushed, as the reader of a pipe sees it."""

    def __init__(self) -> None:
        self.bytes = io.BytesIO()
        super().__init__(io.TextIOWrapper(self.bytes, "utf-8"), io.StringIO())

    @property
    def arrived(self) -> str:
        return self.bytes.getvalue().decode()


@pytest.mark.parametrize(
    ("shape", "form"),
    [
        *(
            (shape, form)
            for shape in (Records, RecordList)
            for form in ("jsonl", "csv", "tsv", "id")
        ),
        (Records, "json"),
        (Records, "table"),
    ],
)
def test_a_record_is_out_before_the_next_is_asked_for(shape: Any, form: str) -> None:
    piped = Piped()
    seen = []

    def rows() -> Iterator[dict[str, Any]]:
        for name in ("first", "second"):
            seen.append(piped.arrived)
            yield {"id": name}
        seen.append(piped.arrived)

    assert show(shape(TASK, rows()), console=piped, format=form) == 0
    assert seen[0] == ""
    assert "first" in seen[1]
    assert "second" not in seen[1]
    assert "second" in seen[2]


def test_text_is_out_as_it_arrives() -> None:
    piped = Piped()

    def chunks() -> Iterator[str]:
        yield "one "
        assert piped.arrived == "one "
        yield "two"
        assert piped.arrived == "one two"

    show(Text(chunks()), console=piped, format="text")
    assert piped.arrived == "one two\n"


def test_raw_bytes_stay_as_they_came() -> None:
    piped = Piped()
    piped.write_out("before ")
    data = bytes(range(256))
    assert show(Raw(data), console=piped, format="json") == 0
    assert piped.bytes.getvalue() == b"before " + data


def failures() -> Iterator[Any]:
    yield {"id": "t1", "status": "completed"}
    yield TaskFailed({"id": "t2", "status": "failed"})
    yield ResourceNotFound("no such task: t3", status_code=404)
    yield TaskCanceled({"id": "t4", "status": "canceled"})


def test_errors_among_the_records_in_json() -> None:
    shown = Shown(Records(TASK, failures()), "jsonl")
    assert shown.status == 4
    assert shown.out == (
        '{"id":"t1","status":"completed"}\n'
        '{"id":"t2","status":"failed"}\n'
        '{"id":"t4","status":"canceled"}\n'
    )
    assert [json.loads(line)["error"]["exit"] for line in shown.err.splitlines()] == [10, 4, 11]
    assert json.loads(shown.err.splitlines()[1]) == {
        "error": {
            "code": "not_found",
            "message": "no such task: t3",
            "status": 404,
            "hint": None,
            "exit": 4,
        }
    }


def test_errors_among_the_records_in_a_table() -> None:
    shown = Shown(RecordList(TASK, failures()), "table", fields=("id", "status"))
    assert shown.status == 4
    assert shown.out == "ID  STATUS\nt1  completed\nt2  failed\nt4  canceled\n"
    assert shown.err == (
        "Error: task t2 failed\nError: no such task: t3\nError: task t4 was canceled\n"
    )


def test_a_failed_task_stands_before_its_error() -> None:
    order: list[str] = []

    class Watched(io.StringIO):
        def write(self, text: str) -> int:
            order.append(text)
            return super().write(text)

    both = Console(Watched(), Watched())
    task = TaskFailed({"id": "t2"})
    assert show(Records(TASK, [task]), console=both, format="id") == 10
    assert [text for text in order if text] == ["t2\n", "Error: task t2 failed\n"]


def breaking(after: int, error: BaseException) -> Iterator[Any]:
    for index in range(after):
        yield {"id": f"t{index}"}
    raise error


@pytest.mark.parametrize("form", ["json", "jsonl", "csv", "tsv", "id", "table"])
@pytest.mark.parametrize("shape", [Records, RecordList])
def test_nothing_is_printed_when_the_first_record_cannot_be_had(shape: Any, form: str) -> None:
    lost = NetworkError("no answer")
    shown = Shown(shape(TASK_ROW, breaking(0, lost)), form)
    assert shown.error is lost
    assert (shown.out, shown.err) == ("", "")


def test_a_json_list_that_broke_off_cannot_be_taken_for_whole() -> None:
    lost = NetworkError("no answer")
    shown = Shown(RecordList(TASK_ROW, breaking(2, lost), {"total": 5}), "json")
    assert shown.error is lost
    assert shown.out.startswith('{\n  "data": [\n    {\n      "id": "t0"\n    },')
    with pytest.raises(json.JSONDecodeError):
        json.loads(shown.out)


def test_lines_that_broke_off_are_whole_lines() -> None:
    lost = NetworkError("no answer")
    assert Shown(RecordList(TASK, breaking(2, lost)), "id").out == "t0\nt1\n"
    assert Shown(RecordList(TASK, breaking(2, lost)), "jsonl").out == '{"id":"t0"}\n{"id":"t1"}\n'
    shown = Shown(RecordList(TASK, breaking(2, lost)), "table", fields=("id",))
    assert (shown.out, shown.error) == ("ID\nt0\nt1\n", lost)


def test_an_interrupt_does_not_wait_for_a_table() -> None:
    shown = Shown(RecordList(TASK, breaking(2, Interrupted(143))), "table")
    assert isinstance(shown.error, Interrupted)
    assert shown.out == ""


@pytest.mark.parametrize("end", [Interrupted(143), NetworkError("no answer"), None])
def test_results_are_shown_with_what_stands_below_them_however_they_end(
    end: RebyteError | Interrupted | None,
) -> None:
    on = console()
    rows = breaking(2, end) if end else [{"id": "t0"}, {"id": "t1"}]
    listing = RecordList(TASK, rows, below=["2 tasks"])
    with suppress(RebyteError, Interrupted):
        show(listing, console=on, format="table", fields=("id",))
        assert end is None
    assert (text_of(on.out), text_of(on.err)) == ("ID\nt0\nt1\n", "2 tasks\n")


def test_text_that_broke_off_ends_its_line() -> None:
    def chunks() -> Iterator[str]:
        yield "half a li"
        raise NetworkError("no answer")

    assert Shown(Text(chunks()), "text").out == "half a li\n"


def test_bytes_in_pieces() -> None:
    day = "日".encode()
    pieces = [b"<", day[:1], day[1:], b"\x1b>"]
    piped = Piped()
    assert show(Raw(iter(pieces)), console=piped, format="text") == 0
    assert piped.bytes.getvalue() == b"".join(pieces)
    assert Shown(Raw(iter(pieces)), "text", tty=True).out == "<日\\x1b>\n"


# What a process prints and how it ends, with the interpreter's own tidying up at exit.
PROGRAM = """
import os, sys
from rebyte_cli.errors import RebyteError
from rebyte_cli.output.records import *
from rebyte_cli.output.messages import show_error
from rebyte_cli.output.render import show
from rebyte_cli.output.console import Console

console = Console.detect(os.environ)
rows = [{"id": "t%d" % n, "title": "\\u65e5\\xe9\\U0001f642 " + "x" * 200} for n in range(COUNT)]
try:
    sys.exit(show(RecordList(TASK, iter(rows)), console=console, format=sys.argv[1]))
except RebyteError as err:
    show_error(console, err)
    sys.exit(err.exit_status)
"""


def shell(line: str, form: str, count: int = 2, **environment: str) -> tuple[int, bytes, str]:
    """Run `line` with $PROGRAM; the program's own status, stdout and stderr."""
    done = subprocess.run(
        [need_tool("bash"), "-c", f"{line}; exit ${{PIPESTATUS[0]}}", "bash", sys.executable],
        capture_output=True,
        check=False,
        env={
            **os.environ,
            "PROGRAM": PROGRAM.replace("COUNT", str(count)),
            "FORM": form,
            **environment,
        },
    )
    return done.returncode, done.stdout, done.stderr.decode()


FORMATS = ("json", "jsonl", "csv", "id", "table")


@pytest.mark.slow
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("form", FORMATS)
def test_case_45_a_reader_that_goes_away_is_no_fuss(form: str, unbuffered: str) -> None:
    status, printed, said = shell(
        '"$1" -c "$PROGRAM" $FORM | head -1', form, count=20_000, PYTHONUNBUFFERED=unbuffered
    )
    assert (status, said) == (141, "")
    assert printed.count(b"\n") == 1


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("form", FORMATS)
def test_case_45_a_full_disk_is_told(form: str, unbuffered: str) -> None:
    status, _, said = shell(
        '"$1" -c "$PROGRAM" $FORM > /dev/full', form, PYTHONUNBUFFERED=unbuffered
    )
    assert (status, said) == (1, "Error: cannot write to stdout: No space left on device\n")


@pytest.mark.parametrize("form", FORMATS)
def test_a_closed_stdout_is_told(form: str) -> None:
    status, _, said = shell('"$1" -c "$PROGRAM" $FORM >&-', form)
    assert (status, said) == (1, "Error: cannot write to stdout: it is closed\n")


def test_a_closed_stderr_stops_nothing() -> None:
    assert shell('"$1" -c "$PROGRAM" $FORM 2>&-', "id")[:2] == (0, b"t0\nt1\n")
    assert shell('"$1" -c "$PROGRAM" $FORM 2>&-', "table", count=0)[:2] == (0, b"")
    assert shell('"$1" -c "$PROGRAM" $FORM 2>/dev/full', "table", count=0)[:2] == (0, b"")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8:strict"])
@pytest.mark.parametrize("form", FORMATS)
def test_a_locale_that_cannot_spell_a_title(form: str, encoding: str) -> None:
    run = '"$1" -c "$PROGRAM" $FORM'
    status, printed, said = shell(run, form, PYTHONIOENCODING=encoding)
    assert (status, said) == (0, "")
    text = printed.decode(encoding.partition(":")[0])
    if form == "json":
        assert json.loads(text)["data"][0]["title"].startswith("日é🙂 ")
    elif form == "jsonl":
        assert json.loads(text.splitlines()[0])["title"].startswith("日é🙂 ")
    elif form != "id":
        assert ("日" if encoding.startswith("utf") else "\\u65e5") in text


def test_the_plain_c_locale() -> None:
    status, printed, said = shell(
        '"$1" -c "$PROGRAM" $FORM', "jsonl", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"
    )
    assert (status, said) == (0, "")
    assert json.loads(printed.splitlines()[0])["title"].startswith("日é🙂 ")
