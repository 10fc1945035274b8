"""What an answer says, read once: whatever varies in the shape of tasks and events ends here.

A view wraps the mapping that came, which stays reachable as `raw` because `-o json` prints it key
for key. Its properties never raise: what is missing, or of the wrong type, reads as absent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

from .status import canonical_status, is_terminal

Raw = Mapping[str, Any]

# Kinds of events that carry what the agent says (seen in clients).
SPEECH = frozenset({"text", "assistant", "message", "response", "result"})
ASKS = "ask_user_question"
# A prompt that has not ended (seed document; the last two seen in clients).
UNFINISHED = frozenset({"pending", "running", "queued", "processing"})
# A prompt whose turn has not come, so nothing has been written for it yet.
NOT_STARTED = frozenset({"pending", "queued"})


def text(value: Any) -> str:
    """The value if it is text, and the empty string otherwise."""
    return value if isinstance(value, str) else ""


def as_text(value: Any) -> str:
    """Text as it is, the empty string for None, and anything else as JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def integer(value: Any) -> int | None:
    """The value if it is an integer (a boolean is not), None otherwise."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def mappings(value: Any) -> list[Raw]:
    """The objects of a list; none when it is no list."""
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def first(fields: Raw, *names: str) -> Any:
    """The first of these fields that holds something; names vary by executor (seen in clients)."""
    found = (fields.get(name) for name in names)
    return next((each for each in found if each is not None and each != ""), None)


class QuestionItem(NamedTuple):
    """One question: its text, its options as (label, description), and whether several fit."""

    text: str
    options: tuple[tuple[str, str], ...]
    multiple: bool


class Question(NamedTuple):
    """What a run waits for: one item, or several that were asked together (`batched`)."""

    message_id: str
    action_id: int
    items: tuple[QuestionItem, ...]
    batched: bool


class EventView:
    """One event of a run. All of it was seen in clients only."""

    __slots__ = ("payload", "raw")

    def __init__(self, raw: Raw) -> None:
        self.raw = raw
        payload = raw.get("payload")
        if isinstance(payload, str):
            payload = {"content": payload}
        self.payload: Raw = payload if isinstance(payload, Mapping) else {}

    @property
    def kind(self) -> str:
        """`text`, `tool_use`, `result`, …; the empty string where none is given."""
        return text(self.raw.get("eventType"))

    @property
    def key(self) -> str:
        """The identity of the event across connections; only the newest services send one."""
        return text(self.raw.get("eventKey"))

    @property
    def seq(self) -> int | None:
        """Its number within the prompt, which may still change."""
        return integer(self.raw.get("seq"))

    @property
    def prompt_id(self) -> str:
        """The prompt that it belongs to; the empty string where the event does not say."""
        return text(self.raw.get("promptId"))

    @property
    def speech(self) -> str:
        """What the agent says with it; the empty string for every other kind of event."""
        if self.kind not in SPEECH:
            return ""
        names = ("result", "content", "text") if self.kind == "result" else ("content", "text")
        found = as_text(first(self.payload, *names))
        return found if found.strip() else ""

    @property
    def tool(self) -> str:
        """The name of the tool that a `tool_use` calls."""
        return as_text(first(self.payload, "name", "tool_name"))

    @property
    def tool_id(self) -> str:
        """What a `tool_use` and its `tool_result` share."""
        return as_text(first(self.payload, "id", "tool_id"))

    @property
    def input(self) -> Any:
        """What a tool was given: an object, mostly."""
        return first(self.payload, "input", "params")

    @property
    def output(self) -> Any:
        """What a tool returned: text, often JSON as text, or any value."""
        return first(self.payload, "output", "content")

    @property
    def is_error(self) -> bool:
        """Whether a tool failed."""
        return self.payload.get("is_error") is True or self.payload.get("isError") is True

    @property
    def sub_prompt_id(self) -> str:
        """The prompt of a delegated run that a tool started; the empty string for none."""
        return text(self.payload.get("subPromptId"))

    @property
    def question(self) -> Question | None:
        """The question that parks the run, or None when there is none that can be answered."""
        if self.kind != ASKS:
            return None
        message, action = text(self.payload.get("messageId")), self.payload.get("actionId")
        try:
            # The event carries the number as text, the answer wants it as a number.
            number = int(action) if isinstance(action, str | int) else -1
        except ValueError:
            return None
        if not message or number < 0:
            return None
        batch = self.payload.get("questions")
        batched = isinstance(batch, list) and bool(batch)
        items = [_question_item(each) for each in (mappings(batch) if batched else [self.payload])]
        return Question(message, number, tuple(items), batched) if items else None


def _question_item(fields: Raw) -> QuestionItem:
    options = fields.get("options")
    return QuestionItem(
        str(fields.get("question") or ""),
        tuple(_option(each) for each in (options if isinstance(options, list) else [])),
        fields.get("multiSelect") is True,
    )


def _option(option: Any) -> tuple[str, str]:
    if isinstance(option, Mapping):
        return str(option.get("label") or ""), str(option.get("description") or "")
    return str(option), ""


class PromptView:
    """One prompt of a task; its text, answer and events are there in a content document only."""

    __slots__ = ("raw",)

    def __init__(self, raw: Raw) -> None:
        self.raw = raw

    @property
    def id(self) -> str:
        """Its id; the empty string where there is none."""
        return text(self.raw.get("id"))

    @property
    def status(self) -> str:
        """Its status in the words of the service (`succeeded`, not `completed`)."""
        return text(self.raw.get("status"))

    @property
    def outcome(self) -> str | None:
        """How it ended, in task words; None while it is pending, running or unknown."""
        word = canonical_status(self.status)
        return word if is_terminal(word) else None

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.outcome is not None

    @property
    def has_started(self) -> bool:
        """False while its turn has not come, so that nothing was written for it."""
        return self.status not in NOT_STARTED

    @property
    def text(self) -> str:
        """What the user asked."""
        return text(self.raw.get("userPrompt"))

    @property
    def response(self) -> str:
        """The answer; may be empty although there is one (seen in clients)."""
        return as_text(self.raw.get("response"))

    @property
    def submitted_at(self) -> Any:
        """When it was sent, as the service wrote it."""
        return self.raw.get("submittedAt")

    @property
    def completed_at(self) -> Any:
        """When it ended, as the service wrote it."""
        return self.raw.get("completedAt")

    @property
    def events(self) -> list[EventView]:
        """What was written for it, oldest first."""
        return events_of(self.raw)


def events_of(document: Raw) -> list[EventView]:
    """The events that a document lists under `events`."""
    return [EventView(each) for each in mappings(document.get("events"))]


class TaskView:
    """A task with its prompts, oldest first."""

    def __init__(self, raw: Raw) -> None:
        self.raw = raw

    @property
    def id(self) -> str:
        """Its id; the empty string where there is none."""
        return text(self.raw.get("id"))

    @property
    def status(self) -> str:
        """Its status in task words; an unknown word stays as it is."""
        return canonical_status(self.raw.get("status"))

    @property
    def is_over(self) -> bool:
        """Whether it has ended. A follow-up makes an ended task run again."""
        return is_terminal(self.status)

    @property
    def final_result(self) -> str:
        """The answer of the latest prompt, where the service puts it into the task."""
        return text(self.raw.get("finalResult"))

    @property
    def completed_at(self) -> Any:
        """When it ended, as the service wrote it."""
        return self.raw.get("completedAt")

    @cached_property
    def prompts(self) -> list[PromptView]:
        """Its prompts, oldest first; an empty list where the document has none."""
        return [PromptView(each) for each in mappings(self.raw.get("prompts"))]

    @property
    def latest(self) -> PromptView | None:
        """The prompt that was submitted last."""
        return self.prompts[-1] if self.prompts else None

    def prompt(self, prompt_id: str) -> PromptView | None:
        """The prompt with this id, or None while the document does not show it."""
        found = [prompt for prompt in self.prompts if prompt.id == prompt_id]
        return found[-1] if found else None

    def outcome(self, prompt_id: str | None = None) -> str | None:
        """How the task ended, or one prompt of it, in task words; None while it has not.

        For a prompt its own status counts: the task may be running because of a newer prompt, or
        still read `completed` from the one before.
        """
        if prompt_id is None:
            return self.status if self.is_over else None
        prompt = self.prompt(prompt_id)
        return prompt.outcome if prompt else None


class ContentView(TaskView):
    """A content document: a task whose prompts hold what was asked, done and answered."""

    @property
    def has_prompts(self) -> bool:
        """Whether the document has a list of prompts at all."""
        return isinstance(self.raw.get("prompts"), list)

    def response(self, prompt_id: str | None = None) -> str:
        """The answer to one prompt, or to the latest; the empty string where there is none."""
        prompt = self.latest if prompt_id is None else self.prompt(prompt_id)
        return prompt.response if prompt else ""


class PageView:
    """A page of a list: its `rows`, and `total`, the service's count of all (None: not given).

    `limit` and `offset` are what the service understood. `is_sound`: nothing in the page had to
    be left out.
    """

    __slots__ = ("is_sound", "limit", "offset", "rows", "total")

    def __init__(self, raw: Raw) -> None:
        data = raw.get("data")
        self.rows = [row for row in mappings(data) if text(row.get("id"))]
        self.is_sound = isinstance(data, list) and len(data) == len(self.rows)
        self.total = integer(raw.get("total"))
        self.limit = integer(raw.get("limit"))
        self.offset = integer(raw.get("offset"))
