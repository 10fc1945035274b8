"""What the gateway reads of a model's use, out of anything."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rebyte_cli.local.gateway.model_usage import UsageReader

from . import tries

BOM = b"\xef\xbb\xbf"


def read(wire: str, *parts: bytes) -> UsageReader:
    reader = UsageReader(wire)
    for part in parts:
        reader.feed(part)
    return reader


@tries(200)
@given(
    wire=st.sampled_from(["anthropic", "openai", "gemini"]),
    parts=st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.sampled_from(
                b'{"usage": # " # \\ # { # } # [ # ] # , # data: # \r # \n # {"input_tokens":1} '
                b'# "model":"m" # "message" # \xef\xbb\xbf # \xef # '.split(b"# ")
            ),
        ),
        max_size=40,
    ),
)
def test_garbage_is_no_error(wire: str, parts: list[bytes]) -> None:
    reader = read(wire, *parts)
    assert all(number >= 0 for number in reader.usage().values())


@tries(200)
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_what_else_an_answer_holds_does_not_matter(value: Any) -> None:
    answer = json.dumps({"a": value, "usage": {"input_tokens": 3}, "b": [value, {"usage": value}]})
    assert read("anthropic", answer.encode()).usage() == {"input_tokens": 3}
