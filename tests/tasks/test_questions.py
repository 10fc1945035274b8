"""Questions: which one is open, and what an answer to it looks like."""

from __future__ import annotations

from typing import Any

import pytest

from rebyte_cli.api.views import EventView, Question, last_open
from rebyte_cli.errors import BadUsage
from rebyte_cli.tasks.questions import ItemAnswer, body

ASKED: dict[str, Any] = {
    "actionId": "21026",
    "messageId": "am_1",
    "question": "Which?",
    "options": [{"label": "a"}, {"label": "b", "description": "the other"}],
}
EVENT = {"eventType": "ask_user_question", "payload": ASKED}


def views(*events: dict[str, Any]) -> list[EventView]:
    return [EventView(event) for event in events]


def question(**more: Any) -> Question:
    found = EventView({**EVENT, "payload": {**ASKED, **more}}).question
    assert found is not None
    return found


def test_the_body_has_numbers_from_zero_and_a_number_for_the_action() -> None:
    assert body(question(), [ItemAnswer((1,))]) == {
        "messageId": "am_1",
        "actionId": 21026,
        "answer": {"selectedOptions": [1]},
    }
    assert body(question(), [ItemAnswer(text="Neither")])["answer"] == {
        "selectedOptions": [],
        "customResponse": "Neither",
    }


def test_questions_asked_together_are_answered_together() -> None:
    both = question(questions=[{"question": "One?", "options": ["x"]}, {"question": "Two?"}])
    assert [item.text for item in both.items] == ["One?", "Two?"]
    assert body(both, [ItemAnswer((0,)), ItemAnswer(text="y")])["answer"] == {
        "answers": [{"selectedOptions": [0]}, {"selectedOptions": [], "customResponse": "y"}]
    }
    with pytest.raises(BadUsage, match="2 questions together"):
        body(both, [ItemAnswer((0,))])


def test_a_question_in_a_list_is_answered_with_a_list() -> None:
    single = question(questions=[{"question": "One?", "options": ["x"]}])
    assert body(single, [ItemAnswer((0,))])["answer"] == {"answers": [{"selectedOptions": [0]}]}


def test_several_options_only_where_they_may_be_taken() -> None:
    with pytest.raises(BadUsage, match="accepts only one option"):
        body(question(), [ItemAnswer((0, 1))])
    several = body(question(multiSelect=True), [ItemAnswer((0, 1))])
    assert several["answer"] == {"selectedOptions": [0, 1]}
    with pytest.raises(BadUsage, match="no option 3"):
        body(question(), [ItemAnswer((2,))])


@pytest.mark.parametrize(
    "payload",
    [None, [], "x", {}, {**ASKED, "actionId": "x"}, {**ASKED, "actionId": None},
     {**ASKED, "actionId": -1}, {**ASKED, "messageId": 7}, {**ASKED, "actionId": "9" * 5000},
     {**ASKED, "questions": ["junk"]}],
)  # fmt: skip
def test_an_event_that_cannot_be_answered_is_no_question(payload: Any) -> None:
    assert EventView({**EVENT, "payload": payload}).question is None


def test_a_question_that_something_follows_is_answered() -> None:
    after = {"eventType": "tool_result", "payload": {}}
    assert last_open(views(after, EVENT)) == question()
    assert last_open(views(EVENT, after)) is None
    assert last_open([]) is None


def test_an_option_named_twice_is_one_and_no_words_are_no_answer() -> None:
    assert body(question(), [ItemAnswer((1, 1))])["answer"] == {"selectedOptions": [1]}
    with pytest.raises(BadUsage, match="empty"):
        body(question(), [ItemAnswer(text="  ")])
