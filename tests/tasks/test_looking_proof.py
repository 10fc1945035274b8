"""What proves that a prompt is the one that was sent, and what a look makes of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import pytest

from rebyte_cli.tasks.search import (
    LostRequest,
    Matches,
    contradicts,
    digest_of,
    find_prompts,
    is_prompt,
    pauses,
)

NOW = datetime(2026, 2, 9, 10, tzinfo=UTC)
PROMPT = "Mend the login test, then say what was wrong"


def sent(prompt: str | None = PROMPT) -> LostRequest:
    window = (NOW - timedelta(minutes=1), NOW + timedelta(minutes=1))
    return LostRequest(digest_of(PROMPT), lambda: window, prompt)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (PROMPT, True),
        (f"\r\n {PROMPT}\r\n", True),
        (None, None),
        (f"Be brief.\n\n{PROMPT}", None),
        (PROMPT[:20], None),
        (f"{PROMPT[:20]}…", None),
        (PROMPT[:19], False),
        (f"{PROMPT[:19]}.....", False),
        ("Mend the logout test, then say what was wrong", False),
    ],
)
def test_what_a_prompt_proves(asked: str | None, expected: bool | None) -> None:
    assert is_prompt(asked, sent()) is expected


def test_without_its_text_only_the_same_prompt_counts() -> None:
    assert is_prompt(PROMPT, sent(prompt=None)) is True
    assert is_prompt(PROMPT + " now", sent(prompt=None)) is False


@pytest.mark.parametrize(
    ("has", "wanted", "expected"),
    [
        ({"executor": "gemini"}, {"executor": "claude"}, True),
        ({"executor": "claude"}, {"executor": "claude"}, False),
        ({"executor": None}, {"executor": "claude"}, False),
        ({"executor": ""}, {"executor": "claude"}, False),
        ({"executor": 7}, {"executor": "claude"}, False),
        ({"executor": "claude"}, {"executor": ""}, False),
        ({"executor": "claude", "model": "sonnet-4"}, {}, False),
        ({"model": "sonnet-4"}, {"model": "opus-4.5"}, True),
        ({"model": "sonnet-4"}, {"model": "lite"}, False),
        ({"executor": "claude", "model": "sonnet-4"}, {"model": "opus-4.5"}, True),
    ],
)
def test_what_contradicts(has: dict[str, Any], wanted: dict[str, Any], expected: bool) -> None:
    assert contradicts(has, wanted) is expected


def test_prompts_of_a_follow_up() -> None:
    def prompt(name: str, asked: Any, ago: float | None = 0) -> dict[str, Any]:
        at = None if ago is None else (NOW - timedelta(minutes=ago)).isoformat()
        return {"id": name, "userPrompt": asked, "submittedAt": at}

    rows = [
        prompt("old", PROMPT, ago=5),
        "no prompt at all",
        prompt("other", "Something else"),
        prompt("first", PROMPT, ago=1),
        prompt("last", PROMPT, ago=-1),
        prompt("odd", 7),
        prompt("ours", PROMPT),
        prompt("longer", PROMPT + " now"),
        prompt("empty", " "),
        prompt("timeless", PROMPT, ago=None),
        {"userPrompt": PROMPT},
    ]
    sight = find_prompts({"prompts": rows}, sent())
    assert [one["id"] for one in sight.same] == ["first", "last", "ours"]
    assert [one["id"] for one in sight.unsure] == ["odd", "longer", "empty", "timeless"]
    assert sight.whole
    assert find_prompts({"prompts": None}, sent()).candidates == []


def test_a_prompt_that_no_encoding_has_is_known_again() -> None:
    assert digest_of("half of \ud83d") != digest_of("half of \ud83e")


def test_line_ends_do_not_make_another_prompt() -> None:
    assert digest_of("one\r\ntwo\rthree\n") == digest_of("one\ntwo\nthree")
    assert digest_of("one\ntwo") != digest_of("onetwo")


def test_another_look_may_settle_what_is_unsure() -> None:
    ours, twin, unsure = {"id": "ours"}, {"id": "twin"}, {"id": "unsure"}
    assert Matches([ours], [], True).is_settled
    assert Matches([ours, twin], [unsure], True).is_settled  # two are two, whatever the third is
    assert not Matches([ours], [unsure], True).is_settled
    assert not Matches([], [], True).is_settled


def test_looks_are_close_together_at_first() -> None:
    assert list(islice(pauses(), 7)) == pytest.approx([0.5, 0.8, 1.28, 2.048, 3.2768, 4, 4])
