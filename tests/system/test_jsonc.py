"""JSON with comments, which the author of a repository may have written to stop its readers."""

from __future__ import annotations

import time

import pytest

from rebyte_cli.system import jsonc


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"a": 1} // b', {"a": 1}),
        ('{/* "x": 1, */ "a": [1, 2, ], }', {"a": [1, 2]}),
        (r'{"a": "// \" /* , ] */"}', {"a": '// " /* , ] */'}),
        ('{"a": 1', {}),
        ('{"a": "1', {}),
        ("[1]", {}),
        ("", {}),
        ("[" * 100_000, {}),
    ],
)
def test_comments_and_trailing_commas(text: str, found: dict[str, object]) -> None:
    assert jsonc.loads(text) == found


@pytest.mark.parametrize("piece", [r"\"", '"', "/*", ",  ", "/", '",', "\\"])
def test_no_text_takes_more_time_than_its_length(piece: str) -> None:
    def seconds(count: int) -> float:
        began = time.process_time()
        jsonc.loads('{"' + piece * count)
        return time.process_time() - began

    assert seconds(40_000) < 30 * seconds(4_000) + 0.5
