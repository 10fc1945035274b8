"""Views: what is missing or of the wrong type reads as absent, and nothing raises."""

from __future__ import annotations

from typing import Any

import pytest

from rebyte_cli.api.status import canonical_status, is_terminal
from rebyte_cli.api.views import ContentView, EventView, PageView, PromptView, TaskView, events_of

ODD: list[Any] = [None, True, 7, 1.5, "x", [], [None, 7, "x", []], {}, {"id": []}]


def test_words_for_a_status() -> None:
    words = ["succeeded", "cancelled", "completed", "parked", None, 7]
    assert [canonical_status(word) for word in words] == [
        "completed", "canceled", "completed", "parked", "", "",
    ]  # fmt: skip
    assert [word for word in [*words, "failed", "running", "pending"] if is_terminal(word)] == [
        "succeeded", "cancelled", "completed", "failed",
    ]  # fmt: skip


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_a_document_of_odd_values_reads_as_empty(odd: Any) -> None:
    names = ("id", "status", "prompts", "events", "payload", "seq", "eventKey", "data", "total")
    document = dict.fromkeys((*names, "finalResult", "promptId", "eventType"), odd)
    for view in (TaskView(document), ContentView(document)):
        assert view.id in ("", "x")
        assert view.latest is None or view.latest.id == ""
        assert view.outcome() is view.outcome("p1") is None
        assert view.final_result in ("", "x")
    assert ContentView(document).response() == ""
    assert all(isinstance(event, EventView) for event in events_of(document))
    event, prompt, page = EventView(document), PromptView(document), PageView(document)
    assert (event.speech, event.question, event.sub_prompt_id) == ("", None, "")
    assert event.seq in (None, 7)
    assert (prompt.outcome, prompt.response, prompt.text) == (None, "", "")
    assert page.rows == []
    assert page.total in (None, 7)


def test_a_prompt_ends_by_its_own_status() -> None:
    prompts = [{"id": "p1", "status": "failed"}, {"id": "p2", "status": "pending"}, None, "x"]
    task = TaskView({"status": "running", "prompts": prompts})
    assert [task.outcome(), task.outcome("p1"), task.outcome("p2"), task.outcome("p3")] == [
        None, "failed", None, None,
    ]  # fmt: skip
    assert task.latest is not None
    assert (task.latest.id, task.latest.has_started) == ("p2", False)


@pytest.mark.parametrize(
    ("payload", "speech"),
    [
        ({"result": "R", "content": "C", "text": "T"}, "R"),
        ({"content": "", "text": "T"}, "T"),
        ({"content": {"a": 1}}, '{"a": 1}'),
        ("bare", "bare"),
        ({"content": "  "}, ""),
        (None, ""),
    ],
)
def test_speech_is_read_under_every_name(payload: Any, speech: str) -> None:
    assert EventView({"eventType": "result", "payload": payload}).speech == speech
    assert EventView({"eventType": "tool_use", "payload": payload}).speech == ""
