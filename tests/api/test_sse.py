"""Bytes to events, as the HTML standard says, however the bytes are cut."""

from __future__ import annotations

import json
import time

import pytest

from rebyte_cli import RebyteClient
from rebyte_cli.api.sse import LARGEST, TooLarge, parse
from rebyte_cli.errors import BrokenAnswer, KeyRejected, NetworkError
from tests.servers import (
    RawServer,
    chunked,
    error_reply,
    parts,
    reply,
    stall,
    then_close,
    then_stall,
    transport_to,
)
from tests.waiting import with_time

HEAD = b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\n\r\n"


def read(*chunks: bytes) -> list[tuple[str, str]]:
    return list(parse(chunks))


def test_names_and_data() -> None:
    assert read(b"event: done\ndata: {}\n\ndata: x\n\n") == [("done", "{}"), ("message", "x")]


def test_case_40_crlf_split_over_chunks() -> None:
    assert read(b"data: a\r", b"\ndata: b\r\n", b"\r", b"\n", b"data: c\r\n\r\n") == [
        ("message", "a\nb"),
        ("message", "c"),
    ]


def test_case_40_separators_inside_data_stay() -> None:
    text = "a\u2028b\u2029c\u0085d\x0b\x0c\x1ce"
    assert read(f"data: {text}\n\n".encode()) == [("message", text)]


def test_case_40_a_character_split_over_chunks() -> None:
    whole = "data: né€𝄞\n\n".encode()
    assert read(*(whole[at : at + 1] for at in range(len(whole)))) == [("message", "né€𝄞")]


def test_case_40_an_event_that_is_cut_off_is_dropped() -> None:
    assert read(b"data: a\n\ndata: half") == [("message", "a")]
    assert read(b"data: a\n\ndata: no blank line\n") == [("message", "a")]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_every_line_end(end: bytes) -> None:
    lines = [b"event: e", b"data: 1", b"data: 2", b"", b"data: 3", b"", b""]
    assert read(end.join(lines)) == [("e", "1\n2"), ("message", "3")]


def test_comments_bom_and_odd_fields() -> None:
    assert read(
        b"\xef\xbb\xbf: keep-alive\n\ndata\n\nid: 7\nretry: 1\nother: x\ndata:  two\ndata:x:y\n\n",
        b"event: nothing\n\n",
        b"data: last\n\n",
    ) == [("message", ""), ("message", " two\nx:y"), ("message", "last")]


def test_a_byte_order_mark_is_stripped_at_the_beginning_alone() -> None:
    mark = b"\xef\xbb\xbf"
    assert read(mark + b"data: a\n\n") == [("message", "a")]
    assert read(b"", mark[:1], mark[1:], b"data: a\n\n") == [("message", "a")]
    assert read(b"data: a\n\n", mark + b"data: b\n\n") == [("message", "a")]
    assert read(mark + mark + b"data: b\n\n") == []


@pytest.mark.parametrize(
    ("chunks", "fits"),
    [
        ([b"data: 1234567\n\n"], True),
        ([b"data: 12345678\n\n"], False),
        ([b"data\n" * 8, b"\n"], True),
        ([b"data\n" * 9, b"\n"], False),
        ([b"data: 123\ndata: 123\n\n"] * 3, True),
        ([b"data: 123\ndata: 1234\n\n"], False),
        ([b"event: a\n", b": comments do not count\n"] * 9, True),
        ([b": 345678"], True),
        ([b": 3456789"], False),
        ([b": 34", b"5678", b"\n"] * 3, True),
        ([b": 34", b"5678", b"9"], False),
        ([b"data: 1\n\n", b"data: 12345678\n\n"], False),
        ([b": 3\n", b": 3456789"], False),
    ],
)
def test_an_event_and_a_line_have_a_largest_size(chunks: list[bytes], fits: bool) -> None:
    """The end of each line counts, since a list of empty ones takes memory as well."""
    if fits:
        list(parse(chunks, largest=8))
    else:
        with pytest.raises(TooLarge):
            list(parse(chunks, largest=8))


def test_bytes_that_are_no_text_become_marks() -> None:
    assert read(b"data: \xff\n\n") == [("message", "\ufffd")]


def test_an_event_without_end_is_stopped() -> None:
    with pytest.raises(TooLarge):
        list(parse(b"x" * (1 << 20) for _ in range(LARGEST // (1 << 20) + 1)))
    with pytest.raises(TooLarge):
        list(parse(b"data: " + b"x" * (1 << 20) + b"\n" for _ in range(17)))


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_cuts_change_nothing(end: str) -> None:
    values = ["", "ü", "a: b", "{}\u2028", "\0"]
    whole = "".join(f"event: e{end}data: {value}{end}{end}" for value in values).encode()
    for size in range(1, len(whole)):
        chunks = [whole[at : at + size] for at in range(0, len(whole), size)]
        assert read(*chunks) == [("e", value) for value in values], size


def events(server: RawServer, **options: float) -> list[tuple[str, dict[str, object]]]:
    client = RebyteClient(transport=transport_to(server))
    return [(event.name, event.data) for event in client.stream_events("t1", **options)]


def record(name: str, **data: object) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


@pytest.mark.usefixtures("home")
class TestOverASocket:
    """The same through the transport."""

    @pytest.mark.parametrize(
        "answer",
        [
            chunked([record("event", seq=0)[:9], record("event", seq=0)[9:], record("done", a=1)]),
            parts(
                HEAD, record("event", seq=0)[:20], record("event", seq=0)[20:], record("done", a=1)
            ),
        ],
        ids=["chunked", "until the end"],
    )
    def test_an_event_is_read_whatever_the_framing(self, answer: bytes) -> None:
        with RawServer(lambda request: answer) as server:
            assert events(server) == [("event", {"seq": 0}), ("done", {"a": 1})]
        (request,) = server.requests
        assert request.path == "/v1/tasks/t1/events"
        assert request.headers["accept"] == "text/event-stream"

    def test_events_come_as_they_arrive(self) -> None:
        with RawServer(lambda request: then_stall(HEAD + record("event", seq=0))) as server:
            client = RebyteClient(transport=transport_to(server))
            stream = client.stream_events("t1", idle=30)
            assert next(stream).data == {"seq": 0}
            stream.close()  # type: ignore[attr-defined]  # it is a generator

    def test_case_40_a_mute_stream_ends_by_its_idle_limit(self) -> None:
        mute = then_stall(HEAD + b": hello\n\n")

        def check(limit: float) -> None:
            with RawServer(lambda request: mute) as server, pytest.raises(NetworkError) as caught:
                events(server, idle=limit)
            assert f"nothing came for {limit:g} s" in caught.value.message
            assert caught.value.code == "timeout"

        with_time(check, 0.3)

    def test_a_stream_may_last_longer_than_a_call_as_long_as_events_come(self) -> None:
        def check(limit: float) -> None:
            slow = parts(HEAD, *[record("event", seq=0)] * 8, every=limit / 4)
            with RawServer(lambda request: slow) as server:
                client = RebyteClient(transport=transport_to(server, timeout=limit))
                assert len(list(client.stream_events("t1"))) == 8

        with_time(check, 0.4)

    @pytest.mark.parametrize("noise", [b": alive\n\n", b"data: 7\n\n", b"id: 1\n", b"data:\n"])
    def test_case_63_keep_alives_do_not_hide_that_nothing_comes(self, noise: bytes) -> None:
        endless = parts(HEAD, record("event", seq=0), *[noise] * 2000, every=0.05)

        def check(limit: float) -> None:
            with RawServer(lambda request: endless) as server:
                client = RebyteClient(transport=transport_to(server))
                events = client.stream_events("t1", idle=limit)
                assert next(events).data == {"seq": 0}
                begun = time.monotonic()
                with pytest.raises(NetworkError, match=f"nothing came for {limit:g} s") as caught:
                    next(events)
            assert caught.value.code == "timeout"
            assert 0.7 * limit < time.monotonic() - begun < limit + 15

        with_time(check, 0.4)

    def test_case_63_a_deadline_ends_a_stream_that_never_pauses(self) -> None:
        endless = parts(HEAD, *[record("event", seq=0)] * 2000, every=0.05)
        with RawServer(lambda request: endless) as server:
            client = RebyteClient(transport=transport_to(server))
            begun = time.monotonic()
            with pytest.raises(NetworkError):
                list(client.stream_events("t1", timeout=0.5))
        assert time.monotonic() - begun < 20

    def test_a_line_that_breaks_is_an_error(self) -> None:
        broken = then_close(HEAD + record("event", seq=0), abrupt=True)
        with RawServer(lambda request: broken) as server, pytest.raises(NetworkError):
            events(server)

    def test_names_without_meaning_and_data_that_is_no_object(self) -> None:
        body = (
            b"data: {}\n\nevent: odd\ndata: {}\n\ndata: [1]\n\ndata: {\n\nevent: done\ndata: no\n\n"
        )
        with RawServer(reply(200, body)) as server:
            assert events(server) == [("event", {}), ("event", {}), ("done", {})]

    def test_a_bomb_of_one_event_is_stopped(self) -> None:
        assert LARGEST == 16 * 2**20  # as the message says
        body = b"data: " + b"x" * (LARGEST + 10)
        with RawServer(reply(200, body)) as server, pytest.raises(BrokenAnswer, match="16 MiB"):
            events(server)

    def test_a_refusal_is_an_error_and_503_is_asked_again(self) -> None:
        refused = error_reply(401, "invalid_api_key", "no")
        with RawServer(refused) as server, pytest.raises(KeyRejected):
            events(server)
        with RawServer([reply(503), reply(200, record("done", a=1))]) as server:
            assert events(server) == [("done", {"a": 1})]

    def test_a_stream_that_never_begins_ends_by_its_idle_limit(self) -> None:
        began = time.monotonic()
        with RawServer(lambda request: stall) as server, pytest.raises(NetworkError) as caught:
            events(server, idle=0.3)
        assert time.monotonic() - began < 20
        assert caught.value.code == "timeout"
