"""No text, whatever is in it, sends a terminal anything but text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rebyte_cli.output.console import clean, one_line
from tests.output.test_markup import plain
from tests.output.test_safety import RAW

from . import ANY_TEXT, tries


@tries(100)
@given(ANY_TEXT)
def test_nothing_dangerous_survives(text: str) -> None:
    assert not RAW.search(clean(text))
    assert not RAW.search(one_line(text))
    assert not set(one_line(text)) & set("\t\n")


@tries(100)
@given(ANY_TEXT)
def test_cleaning_twice_is_cleaning_once(text: str) -> None:
    assert clean(clean(text)) == clean(text)
    assert one_line(one_line(text)) == one_line(text)


@tries(100)
@given(ANY_TEXT)
def test_all_other_text_is_untouched(text: str) -> None:
    harmless = RAW.sub("", text)
    assert clean(harmless) == harmless


@tries(20)
@given(st.sets(st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp", "Cn"]), min_size=65))
def test_many_different_ones_are_as_safe_as_few(characters: set[str]) -> None:
    assert not RAW.search(clean("".join(characters)))


@tries(60)
@given(st.text(st.characters(exclude_categories=()), max_size=60), st.sampled_from("#>-`*[|<&"))
def test_nothing_raw_comes_out_of_any_markdown(text: str, mark: str) -> None:
    assert not RAW.search(plain(f"{mark} {text}{mark}"))
