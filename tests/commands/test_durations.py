"""Durations as options take them."""

from __future__ import annotations

from collections.abc import Callable

import click
import pytest

from rebyte_cli.commands._options import Duration
from tests.conftest import Done


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("15m", 900),
        ("1h30m", 5400),
        ("1h30m15.5s", 5415.5),
        ("2d", 172800),
        ("0.5", 0.5),
        (".5m", 30),
        ("250ms", 0.25),
        ("0", 0),
    ],
)
def test_a_duration(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "m", "-1", "1e3", "nan", "inf", "30m1h", "1h1h", "1h30", "1x", "1 h", "1000000000", "٣s"],
)
def test_invalid_durations(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a duration"):
        Duration().convert(text, None, None)


@pytest.mark.parametrize(
    "command", ["wait x", "create x --wait", "follow-up x y --wait", "batch x"]
)
def test_every_timeout_takes_one(inside: Callable[..., Done], command: str) -> None:
    done = inside(*command.split(), "--timeout", "1h30")
    assert done.status == 2
    assert "'1h30' is not a duration (90, 90s, 15m, 1h30m)" in done.err
