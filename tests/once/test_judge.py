"""The rule, as a table: rows of the list in, a verdict out."""

from __future__ import annotations

from typing import Any

import pytest

from rebyte_cli.once.judge import Seen, Verdict, any_of, judge, share

OURS, ELSE = "digest of ours", "digest of something else"


def row(name: str) -> dict[str, Any]:
    return {"id": name, "createdAt": f"2026-02-09T10:00:0{len(name)}Z"}


def seen(words: str, name: str = "t") -> Seen:
    """A row in words, such as `above ours`, `below late else` or `unknown gemini ours`."""
    place, *rest = words.split()
    assert place in ("above", "below", "unknown")
    assert set(rest) <= {"ours", "else", "silent", "known", "maybe", "late", "gemini"}
    owner = "another" if "known" in rest else "perhaps another" if "maybe" in rest else "none"
    shown = OURS if "ours" in rest else ELSE if "else" in rest else None
    return Seen(
        row(name),
        place,  # type: ignore[arg-type]
        owner,  # type: ignore[arg-type]
        is_timely="late" not in rest,
        is_as_asked="gemini" not in rest,
        shown=shown,
    )


def verdict(*rows: str, whole: bool = True, counted: bool = True, exact: bool = False) -> Verdict:
    return judge(
        OURS,
        [seen(words, "abcdef"[: at + 1]) for at, words in enumerate(rows)],
        is_complete=whole,
        is_counted=counted,
        is_exact=exact,
    )


def outcome(judged: Verdict) -> str:
    (one,) = share([judged], (), is_contested=False)
    if one.task is not None:
        return "found"
    return "none" if one.shows_none else "doubt"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        # Nothing is above the newest task of before.
        ([], "none"),
        (["below else"], "none"),
        (["below late else"], "none"),
        (["below late ours"], "none"),  # an old twin: the order and the count say so
        (["below late silent"], "none"),
        (["below known ours"], "none"),
        # What stands above and shows the prompt is ours, if no other request has it.
        (["above ours"], "found"),
        (["above ours", "below late ours"], "found"),
        (["above ours", "above known else"], "found"),
        (["above ours", "above known ours"], "found"),
        (["above ours", "above else"], "found"),
        (["above ours", "above silent"], "found"),
        (["above ours", "above late ours"], "found"),
        (["above ours", "above ours"], "doubt"),
        # No time excludes it, and nothing that it names; it is only not taken.
        (["above late ours"], "doubt"),  # the clock of one machine is ahead
        (["above gemini ours"], "doubt"),
        (["above maybe ours"], "doubt"),
        (["above maybe late ours"], "doubt"),
        (["above late ours", "above late ours"], "doubt"),
        # What is above and another's, certainly, is in no one's way.
        (["above known ours"], "none"),
        (["above known else"], "none"),
        (["above known silent"], "none"),
        (["above known late ours", "above known else"], "none"),
        # What is above and not known to be another's leaves it open, whatever it shows.
        (["above else"], "doubt"),
        (["above late else"], "doubt"),  # rewritten, by a machine whose clock is ahead
        (["above silent"], "doubt"),
        (["above late silent"], "doubt"),
        (["above maybe else"], "doubt"),
        (["above gemini else"], "doubt"),
        (["above known ours", "above else"], "doubt"),
        # Below, only what may have been made since, by another clock, is looked at.
        (["below ours"], "doubt"),
        (["below silent"], "doubt"),
        (["below gemini ours"], "doubt"),
        (["below maybe ours"], "none"),  # the history knew it
        (["below ours", "above ours"], "found"),
    ],
)
def test_one_scan_with_a_baseline(rows: list[str], expected: str) -> None:
    assert outcome(verdict(*rows)) == expected


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], "doubt"),  # without a baseline nothing is proved
        (["unknown ours"], "found"),
        (["unknown ours", "unknown late ours"], "found"),
        (["unknown ours", "unknown ours"], "doubt"),
        (["unknown late ours"], "doubt"),
        (["unknown gemini ours"], "doubt"),
        (["unknown maybe ours"], "doubt"),
        (["unknown known ours"], "doubt"),
        (["unknown else"], "doubt"),
        (["unknown silent"], "doubt"),
    ],
)
def test_one_scan_without_a_baseline(rows: list[str], expected: str) -> None:
    assert outcome(verdict(*rows, counted=False)) == expected


@pytest.mark.parametrize("rows", [[], ["above known ours"], ["below late else"]])
def test_a_list_that_is_cut_or_has_more_rows_below_than_before_proves_nothing(
    rows: list[str],
) -> None:
    assert outcome(verdict(*rows)) == "none"
    assert outcome(verdict(*rows, counted=False)) == "doubt"  # ours may be among them
    assert outcome(verdict(*rows, whole=False)) == "doubt"


def test_a_task_is_taken_from_a_whole_list_alone() -> None:
    assert outcome(verdict("above ours", whole=False)) == "doubt"
    assert outcome(verdict("above ours", counted=False)) == "found"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (["above else"], "none"),
        (["above maybe else"], "none"),
        (["above silent"], "doubt"),
        (["above late ours"], "doubt"),
        (["above ours", "above else"], "found"),
    ],
)
def test_a_service_that_is_known_to_show_prompts_as_they_were_sent(
    rows: list[str], expected: str
) -> None:
    assert outcome(verdict(*rows, exact=True)) == expected


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        (["above else", "above late ours"], ["ab", "a"]),  # what shows the prompt is named first
        (["above silent", "above ours"], ["ab", "a"]),
        (["unknown late else", "unknown late silent", "unknown late ours"], ["abc"]),
        (["below late ours", "below else", "above known ours"], []),
        (["below ours"], ["a"]),
    ],
)
def test_candidates_are_named(rows: list[str], named: list[str]) -> None:
    assert [one["id"] for one in verdict(*rows).candidates] == named


@pytest.mark.parametrize(
    ("judged", "is_final"),
    [
        (verdict("above ours"), True),
        (verdict("above ours", "above ours"), True),
        (verdict("above ours", "above else"), False),
        (verdict("above else"), False),
        (verdict("above ours", whole=False), False),
        (verdict(), False),
    ],
)
def test_a_verdict_that_no_other_scan_would_change(judged: Verdict, is_final: bool) -> None:
    assert judged.is_final is is_final


# Several requests with the same prompt


def shared(rows: list[str], requests: int, taken: str = "", contested: bool = False) -> list[Any]:
    found = share([verdict(*rows)] * requests, taken.split(), is_contested=contested)
    return [one.task["id"] if one.task else "none" if one.shows_none else "doubt" for one in found]


@pytest.mark.parametrize(
    ("rows", "requests", "taken", "expected"),
    [
        (["above ours", "above ours"], 2, "", ["a", "ab"]),  # the first has the oldest
        (["above ours"], 2, "", ["a", "none"]),
        (["above ours", "above else"], 2, "", ["a", "doubt"]),
        (["above ours"] * 3, 2, "", ["doubt", "doubt"]),
        (["above ours"] * 3, 3, "", ["a", "ab", "abc"]),
        (["above ours", "above ours"], 1, "a", ["doubt"]),
        (["above ours", "above ours"], 2, "a", ["ab", "none"]),
        (["above ours"], 1, "a", ["none"]),  # another request has it by now
    ],
)
def test_requests_that_share_a_prompt(
    rows: list[str], requests: int, taken: str, expected: list[str]
) -> None:
    assert shared(rows, requests, taken) == expected


def test_what_another_may_have_made_is_not_taken() -> None:
    assert shared(["above ours"], 1, contested=True) == ["doubt"]
    assert shared(["above ours", "above ours"], 2, contested=True) == ["doubt", "doubt"]
    (one,) = share([verdict("above ours", "above else")], (), is_contested=True)
    assert ([*one.same], [each["id"] for each in one.unsure]) == ([], ["a", "ab"])


def test_ids_as_words() -> None:
    assert any_of(["a"]) == "a"
    assert any_of(["a", "b"]) == "a or b"
    assert any_of([*"abcdefg"]) == "a or b or c or d or e or one of 2 more"
