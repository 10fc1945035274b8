"""The record of requests: harmless to read, whatever was asked, and not endless."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest

from rebyte_cli.local.gateway.request_record import (
    BUDGET,
    LOGIN,
    MOST_LINES,
    RefusedHost,
    RequestEntry,
    RequestRecord,
    last_asked,
    read,
    refusals,
)


def entry(host: str = "evil.example", port: int = 443, **more: object) -> RequestEntry:
    return RequestEntry(1, host, port, "GET", "/", **more)  # type: ignore[arg-type]


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "record"
    written = [
        entry(status=200, sent=1, received=2, seconds=0.5, usage={"input_tokens": 3}),
        entry(port=8443, refused="no", option="--allow evil.example:8443"),
        entry(fault="broken"),
    ]
    record = RequestRecord(str(path))
    for each in written:
        record.add(each)
    assert read(path) == written
    assert [each.place for each in written] == ["evil.example", "evil.example:8443", "evil.example"]


def test_a_second_gateway_does_not_write_over_the_record(tmp_path: Path) -> None:
    path = tmp_path / "record"
    record = RequestRecord(str(path))
    record.add(entry(status=200))
    with pytest.raises(OSError, match="another gateway of the run is at work"):
        RequestRecord(str(path), 0.1)
    assert read(path) == [entry(status=200)]


def test_control_characters_are_never_raw(tmp_path: Path) -> None:
    path = tmp_path / "record"
    odd = "a\x1b[2J\r\n\x7f\x9b\u202e\u2028é" + "x" * 1000
    RequestRecord(str(path)).add(
        RequestEntry(1, "h", 80, odd, odd, refused=odd, fault=odd, option=odd)
    )
    raw = path.read_bytes().strip(b"\n\0")
    assert all(32 <= byte < 127 for byte in raw)
    (found,) = read(path)
    for text in (found.method, found.path, found.refused, found.fault, found.option):
        assert text
        assert len(text) <= 300
        assert "\x1b" not in text


@pytest.mark.slow
def test_refusals_end_but_what_costs_is_recorded(tmp_path: Path) -> None:
    path = tmp_path / "record"
    record = RequestRecord(str(path))
    for _ in range(MOST_LINES + 100):
        record.add(entry(refused="no", option="--allow evil.example"))
    record.add(entry("model.example", status=200, usage={"input_tokens": 1}))
    found = read(path)
    assert len(found) == MOST_LINES + 1
    assert found[-1].usage == {"input_tokens": 1}
    assert "no further" in str(found[-2].refused)
    assert refusals(path)["evil.example"].requests == MOST_LINES - 1
    broken_off = entry(id="x", refused="no valid HTTP", uncounted={"input_tokens": 2})
    broken_off = broken_off._replace(option="--allow evil.example")
    for went_out in (
        entry(status=200),
        entry(fault="broken"),
        entry(id="x", is_open=True),
        broken_off,
        entry(refused="no", option="--allow evil.example", sent=3),
    ):
        record.add(went_out)
        assert read(path)[-1] == went_out


@pytest.mark.slow
def test_refusals_of_one_kind_do_not_hide_those_of_another(tmp_path: Path) -> None:
    path = tmp_path / "record"
    record = RequestRecord(str(path))
    for _ in range(MOST_LINES + 1):
        record.add(entry("127.0.0.1", refused="no model is served at this path"))
    for other in ("--allow secret.example", BUDGET, LOGIN):
        record.add(entry("secret.example", refused="no", option=other))
        assert read(path)[-1].option == other


def test_a_record_that_is_missing_or_torn(tmp_path: Path) -> None:
    path = tmp_path / "record"
    assert read(path) == []
    assert refusals(path) == {}
    lines = [
        "",
        "null",
        "[1]",
        '{"time": 1}',
        "\udcff".encode("utf-8", "surrogatepass").hex(),
        json.dumps(entry(refused="no")._asdict() | {"new": 1}),
        '{"time": 1, "ho',
    ]
    path.write_text("\n".join(lines))
    assert refusals(path) == {"evil.example": RefusedHost(1, "no", None)}


@pytest.mark.slow
def test_a_record_of_any_length_is_searched_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "record"
    lines = [entry(host=f"{number}.example")._asdict() for number in range(1000)]
    text = "".join(f"{json.dumps(each)}\n" for each in lines)
    asked = [entry(id=each, status=number) for number, each in enumerate("abab")]
    path.write_text(text * 40 + "".join(f"{json.dumps(each._asdict())}\n" for each in asked))
    tracemalloc.start()
    try:
        assert refusals(path) == {}
        assert last_asked(path) == asked[3]
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 12_000_000  # a piece of the file, and what it says


def test_the_last_request_is_the_one_that_began_last(tmp_path: Path) -> None:
    path = tmp_path / "record"
    assert last_asked(path) is None
    record = RequestRecord(str(path))
    for each, status in (("a", 0), ("b", 0), ("b", 1), ("a", 2), (None, 3)):
        record.add(entry(id=each, status=status))
    assert last_asked(path) == entry(id="b", status=1)
