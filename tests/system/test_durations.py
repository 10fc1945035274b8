"""Durations as options take them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import click
import pytest

from rebyte_cli.commands._options import DURATION
from rebyte_cli.system.durations import PATTERN, duration, parse_duration, round_duration
from tests.conftest import Done


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("15m", 900),
        ("1h30m", 5400),
        ("1h30m15.5s", 5415.5),
        ("1h 30m", 5400),
        ("1w", 604800),
        ("2d", 172800),
        ("0.5", 0.5),
        (".5m", 30),
        ("250ms", 0.25),
        ("0", 0),
    ],
)
def test_a_duration(text: str, seconds: float) -> None:
    assert DURATION.convert(text, None, None) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "m", "-1", "1e3", "nan", "inf", "30m1h", "1h1h", "1h30", "1x", "1h m", "1000000000", "٣s"],
)
def test_invalid_durations(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a duration"):
        DURATION.convert(text, None, None)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0s"), (59.9, "59s"), (185, "3m 05s"), (7800, "2h 10m")]
)
def test_durations_for_people(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize("words", ["0.5s", "30s", "1m 30s", "15m", "1h", "1h 30m", "2d"])
def test_a_chosen_duration_is_shown_as_it_can_be_written(words: str) -> None:
    seconds = parse_duration(words)
    assert seconds is not None
    assert round_duration(seconds) == words
    assert re.search(PATTERN, words)


@pytest.mark.parametrize("piece", ["1", "1.", ".1", "1h", "1 ", " "])
def test_a_duration_is_read_in_linear_time(piece: str) -> None:
    began = time.thread_time()
    assert parse_duration(piece * 100_000 + "x") is None
    assert time.thread_time() - began < 5


@pytest.mark.parametrize(
    "command", ["wait x", "create x --wait", "follow-up x y --wait", "batch x"]
)
def test_every_timeout_takes_one(inside: Callable[..., Done], command: str) -> None:
    done = inside(*command.split(), "--timeout", "1h30")
    assert done.status == 2
    assert "'1h30' is not a duration (90, 90s, 15m, 1h30m)" in done.err
