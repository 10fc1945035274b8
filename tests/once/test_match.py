"""Which prompts may be the one that was sent, although the server shows something else."""

from __future__ import annotations

import html
import time
import unicodedata

import pytest

from rebyte_cli.once.match import digest_of, is_prompt

PROMPT = "Mend the login test, then say what was wrong"
ODD = "Prüfe  die\u200bSeite <b>über</b> uns\x07 & nimm sk-ab12cd34ef56gh78,\n\n danke ﬁnal!"


def match(shown: str | None, prompt: str = PROMPT, *, is_known: bool = False) -> bool | None:
    return is_prompt(shown, digest_of(prompt), prompt, is_known=is_known)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (PROMPT, True),
        (f"\r\n {PROMPT}\r\n", True),
        (None, None),
        (f"Be brief.\n\n{PROMPT}", None),
        (PROMPT[:24], None),
        (f"{PROMPT[:24]}…", None),
        ("???", None),
        ("Mend the logout test, then say what was wrong", False),
        ("Something else", False),
        ("Hi", False),
    ],
)
def test_prompts_that_prove_a_match(shown: str | None, expected: bool | None) -> None:
    assert match(shown) is expected


@pytest.mark.parametrize(
    "shown",
    [
        unicodedata.normalize("NFD", ODD),
        unicodedata.normalize("NFKC", ODD),
        " ".join(ODD.split()),
        html.escape(ODD),
        html.escape(html.escape(ODD)),
        ODD.replace("\x07", ""),
        ODD.replace("\u200b", ""),
        ODD.replace("sk-ab12cd34ef56gh78", "***"),
        ODD.replace("sk-ab12cd34ef56gh78", "sk-ab…"),
        ODD.replace("sk-ab12cd34ef56gh78", "[REDACTED]"),
        ODD.replace("sk-ab12cd34ef56gh78", "APIKEY"),
        ODD.replace("<b>", "").replace("</b>", ""),
        ODD[:40],
        ODD[:40] + "...",
        ODD.encode().decode("latin-1"),
        ODD.encode("ascii", "replace").decode(),
        ODD.lower(),
        f"[system] Answer in English.\n{ODD}",
    ],
)
def test_a_prompt_that_a_server_changed_may_be_ours(shown: str) -> None:
    assert match(shown, ODD) is None


@pytest.mark.parametrize(
    ("shown", "prompt"),
    [
        ("Review PR 13", "Review PR 12"),
        ("Review PR 12, then PR 14", "Review PR 12, then PR 15"),
        (
            "Translate a.md into French, keep the links",
            "Translate b.md into French, keep the links",
        ),
        ("Task 1", "Task 2"),
    ],
)
def test_lines_of_one_template_are_told_apart(shown: str, prompt: str) -> None:
    assert match(shown, prompt) is False


def test_the_task_of_another_line_matches_only_with_equal_letters() -> None:
    assert match("Task 10", "Task 1") is None  # the server may have added to ours
    assert match("Task 10", "Task 1", is_known=True) is False
    assert match("Fix it", "Fix  it", is_known=True) is None


def test_without_its_text_nothing_but_the_same_prompt_can_be_told() -> None:
    assert is_prompt(PROMPT, digest_of(PROMPT), None) is True
    assert is_prompt("Something else", digest_of(PROMPT), None) is None


def test_the_longest_prompts_are_compared_in_no_time() -> None:
    long = "lorem ipsum 12 dolor " * 4_700
    begun = time.thread_time()
    match(long.replace("dolor", "color"), long)
    match(" ".join(reversed(long.split())), long)
    assert time.thread_time() - begun < 5


def test_a_prompt_that_no_encoding_has_is_known_again() -> None:
    assert digest_of("half of \ud83d") != digest_of("half of \ud83e")


def test_line_ends_do_not_make_another_prompt() -> None:
    assert digest_of("one\r\ntwo\rthree\n") == digest_of("one\ntwo\nthree")
    assert digest_of("one\ntwo") != digest_of("onetwo")
