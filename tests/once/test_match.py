"""Which prompts are the one that was sent, certainly are not, or cannot be told."""

from __future__ import annotations

import html
import time
import unicodedata

import pytest

from rebyte_cli.history.rows import digest_of
from rebyte_cli.once.match import is_prompt, may_be_cut

PROMPT = "Mend the login test,\nthen say what was wrong"


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (PROMPT, True),
        (f"\r\n {PROMPT}\r\n", True),
        (PROMPT.replace("\n", "\r\n"), True),
        (None, None),
        ("", None),
        (f"Be brief.\n\n{PROMPT}", None),
        (PROMPT[:5], None),
        (PROMPT.replace("\n", "\\n"), None),
        (PROMPT.lower(), None),
        (html.escape("<b>"), None),
        (unicodedata.normalize("NFD", "Prüfe"), None),
        ("Mend the logout test,\nthen say what was wrong", None),
        ("Something else", None),
    ],
)
def test_only_an_equal_prompt_is_a_match_and_nothing_by_itself_is_none(
    shown: str | None, expected: bool | None
) -> None:
    assert is_prompt(shown, digest_of(PROMPT), PROMPT, is_unchanged=False) is expected


def test_a_service_that_shows_this_prompt_unchanged_may_show_it_cut_or_with_more() -> None:
    def match(shown: str | None, prompt: str | None = PROMPT) -> bool | None:
        return is_prompt(shown, digest_of(PROMPT), prompt, is_unchanged=True)

    assert match("Something else") is False
    assert match(PROMPT) is True
    assert match(f"{PROMPT}\n\nRepository: acme/app") is None
    assert match(PROMPT.partition("\n")[0].upper()) is None
    assert match("***") is None
    assert match(None) is None
    assert match("Something else", None) is None


@pytest.mark.parametrize(
    ("theirs", "ours", "expected"),
    [
        ("Review PR 13", "Review PR 12", False),
        ("Translate a.md, keep the links", "Translate b.md, keep the links", False),
        ("Task 1", "Task 2", False),
        ("Task 1", "Task 10", None),  # cut short
        ("Task 10", "Task 1", None),  # added to
        ("Review", "Review\nthe login", None),
        ("Use the key ***", "Use the key sk-12", None),
        ("fix IT", "Fix it!", None),
        ("Fix%20it", "Fix it", None),
        ("STRASSE", "Straße", None),
        ("Prufe die App", "Prüfe die App", None),
        ("Task 1", "Task \uff11", None),  # a wide digit
    ],
)
def test_another_text_is_another_prompt_unless_letters_were_left_out(
    theirs: str, ours: str, expected: bool | None
) -> None:
    assert is_prompt(theirs, digest_of(ours), ours, is_unchanged=True) is expected


def test_the_longest_prompts_are_compared_in_no_time() -> None:
    long = "lorem ipsum 12 dolor " * 4_700
    begun = time.thread_time()
    assert not may_be_cut(long.replace("dolor", "color"), long)
    assert may_be_cut(long[:-9], long)
    assert time.thread_time() - begun < 5


def test_a_prompt_that_no_encoding_has_is_known_again() -> None:
    assert digest_of("half of \ud83d") != digest_of("half of \ud83e")


def test_line_ends_do_not_make_another_prompt() -> None:
    assert digest_of("one\r\ntwo\rthree\n") == digest_of("one\ntwo\nthree")
    assert digest_of("one\ntwo") != digest_of("onetwo")
