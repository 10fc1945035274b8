"""Notes and errors: what a person, or a program, reads on stderr."""

from __future__ import annotations

import pytest

from rebyte_cli.errors import BadUsage, OutcomeUnknown, ReaderGone, ResourceNotFound
from rebyte_cli.output.messages import note, show_error
from tests.screens import console, text_of


def test_a_note_is_a_line_and_quiet_means_none() -> None:
    it = console()
    note(it, "Created task \x1b[31mt1")
    assert (text_of(it.out), text_of(it.err)) == ("", "Created task \\x1b[31mt1\n")
    it = console(quiet=True)
    note(it, "Created")
    assert text_of(it.err) == ""


def test_an_error_and_its_hint() -> None:
    usage = BadUsage("no such option: --jsn\nat all", hint="Did you mean --json?\nor --jsonl?")
    it = console(quiet=True)
    show_error(it, usage)
    assert text_of(it.err) == (
        "Error: no such option: --jsn\n"
        "       at all\n"
        "Hint: Did you mean --json?\n"
        "      or --jsonl?\n"
    )
    it = console(tty=True, color=True)
    show_error(it, BadUsage("no", hint="yes"))
    assert text_of(it.err) == "\x1b[1;31mError:\x1b[0m no\n\x1b[1mHint:\x1b[0m yes\n"


def test_an_error_as_json_is_one_line() -> None:
    it = console()
    show_error(it, BadUsage("two\nlines \u202e é", hint="h"), as_json=True)
    assert text_of(it.err) == (
        '{"error":{"code":"usage","message":"two\\nlines \\u202e é","status":null,'
        '"hint":"h","exit":2}}\n'
    )


def test_the_candidates_of_a_lost_answer_are_named() -> None:
    found = [{"id": "t1", "url": "https://x/t1", "createdAt": "2026-02-09"}, {"id": "t2"}]
    it = console()
    show_error(it, OutcomeUnknown("the answer was lost", candidates=found, hint="look"))
    assert text_of(it.err) == (
        "Error: the answer was lost\n       t1  2026-02-09  https://x/t1\n       t2\nHint: look\n"
    )


def test_a_reader_that_went_away_is_no_error_to_print() -> None:
    it = console()
    show_error(it, ReaderGone())
    assert text_of(it.err) == ""


@pytest.mark.parametrize("named", [False, True])
def test_an_error_names_its_subject_once(named: bool) -> None:
    it = console()
    show_error(it, ResourceNotFound("Task not found", subject="t1", names_subject=named))
    said = "Task not found" if named else "t1: task not found"
    assert text_of(it.err) == f"Error: {said}\n"
