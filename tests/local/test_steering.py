"""The words that steer the simulation, and what reading them costs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from rebyte_cli.local.simulation import make_title
from rebyte_cli.local.steering import STEERING, Words, plain
from tests.witness import Clock, serving


def test_words_are_found_wherever_they_stand() -> None:
    words = Words("[[run=2s]] and [[[fail]] then\n[[title=a [[b]] [[unknown=[[cancel]]")
    assert words.duration("run", 0) == 2000
    assert "fail" in words
    assert words.text("title") == "a [[b"
    assert "cancel" not in words


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("Say [[run=2s]]hello [[fail]]", "Say hello"),
        ("[[unknown=1]] stays [[ -f x ]]", "[[unknown=1]] stays [[ -f x ]]"),
        ("[[run=1s\n]] is none", "[[run=1s\n]] is none"),
        ("[[title=a]]]", "]"),
    ],
)
def test_plain_is_the_prompt_without_its_words(prompt: str, expected: str) -> None:
    assert plain(prompt) == expected


@pytest.mark.parametrize(
    "piece", ["[[run=", "[[", "[[a", "[[run=1s]]", "[[fail]] ", "[[a-", "]]", "[[x=[[", "[[fail]\n"]
)
def test_case_73_words_are_read_in_linear_time(piece: str) -> None:
    """A prompt of 100,000 characters took 43 seconds, and the service was deaf meanwhile."""

    def seconds(count: int) -> float:
        prompt = piece * (count // len(piece))
        began = time.thread_time()
        Words(prompt)
        plain(prompt)
        make_title(prompt)
        return time.thread_time() - began

    # Four times as much costs four times as much; sixteen times would be its square. One of ten:
    # a busy machine takes its caches away.
    assert any(seconds(100_000) < 8 * seconds(25_000) + 0.01 for _ in range(10))


def test_words_with_bad_values_are_refused_and_unknown_ones_left_alone(tmp_path: Path) -> None:
    with serving(tmp_path, Clock()) as caller:
        for word in STEERING:
            if "=" in word and word not in ("[[title=TEXT]]", "[[say=TEXT]]"):
                broken = word.split("=")[0] + "=x!]]"
                answer = caller.call("POST", "/tasks", {"prompt": broken})
                assert (answer.status, answer.code) == (400, "validation_error"), broken
                assert answer.message.startswith("prompt: [[")
        caller.create("if [[ -f x ]]; then [[unknown=1]] [[fail")
