"""The event stream means the same however its bytes are cut, and means what the standard says."""

from __future__ import annotations

import re
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from rebyte_cli.api.sse import parse

from . import tries

PIECES = st.sampled_from(
    [
        b"data", b"event", b"id", b":", b": ", b"\r", b"\n", b"\r\n", b"\n\n", b"\r\r", b"{}",
        b"done", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\xc2\x85", b"\xff", b"\xe2\x82", b"\xac",
        b"\xf0\x9f", b"\x99\x82", b"\x00", b" ", b"data: x\n\n", b"event: e\r\ndata: y\r\n\r\n",
    ]
)  # fmt: skip
STREAMS = st.lists(PIECES | st.binary(max_size=3), max_size=20).map(b"".join)


def by_the_standard(stream: bytes) -> list[tuple[str, str]]:
    """The whole stream at once, written from the standard's text alone."""
    text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
    lines = re.split("\r\n|\r|\n", text)[:-1]  # what no line end follows is not a line
    events: list[tuple[str, str]] = []
    name, data = "", ""
    for line in lines:
        if line == "":
            if data:
                events.append((name or "message", data.removesuffix("\n")))
            name, data = "", ""
            continue
        field, colon, value = line.partition(":")
        if colon and not field:
            continue
        value = value[1:] if value.startswith(" ") else value
        if field == "event":
            name = value
        elif field == "data":
            data += value + "\n"
    return events


@tries(300)
@given(STREAMS, st.data())
@example(b"data: a\r\n\r\ndata: b\r\n\r\n", None)
@example(b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", None)
@example(b"data\n\n", None)
@example(b":\n\ndata:\n\n", None)
def test_any_split_of_any_stream(stream: bytes, data: st.DataObject | None) -> None:
    wanted = by_the_standard(stream)
    assert list(parse([stream])) == wanted
    assert list(parse(stream[at : at + 1] for at in range(len(stream)))) == wanted
    if data is None or not stream:
        return
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    edges = [0, *cuts, len(stream)]
    chunks = [stream[a:b] for a, b in pairwise(edges)]
    assert list(parse(chunks)) == wanted


@tries(100)
@given(STREAMS, st.integers(0, 400))
def test_a_stream_that_breaks_off_tells_a_beginning_of_it(stream: bytes, at: int) -> None:
    whole = list(parse([stream]))
    begun = list(parse([stream[:at]]))
    assert begun == whole[: len(begun)]
