"""Read tasks, prompts, events and pages from JSON whose shape varies.

A view wraps a mapping from the API and keeps it as `raw`, because `-o json` prints it key for key.
Its properties never raise: a value that is missing or has the wrong type reads as absent.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple

from .status import canonical_status, is_terminal
from .urls import is_id

RawDocument = Mapping[str, Any]

# Event kinds with text of the agent (seen in clients).
SPEECH = frozenset({"text", "assistant", "message", "response", "result"})
ASKS = "ask_user_question"
ID_KEYS = ("id", "promptId", "workspaceId", "taskId")
# Statuses of a prompt that has not ended (seed document; the last two seen in clients).
UNFINISHED = frozenset({"pending", "running", "queued", "processing"})
# Statuses of a prompt in the queue, which has no events yet.
NOT_STARTED = frozenset({"pending", "queued"})


def text(value: Any) -> str:
    """The value if it is text, otherwise an empty string."""
    return value if isinstance(value, str) else ""


def as_text(value: Any) -> str:
    """Text unchanged, None as an empty string, anything else as JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def integer(value: Any) -> int | None:
    """The value if it is an integer and not a boolean, otherwise None."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def mappings(value: Any) -> list[RawDocument]:
    """The objects in a list; empty if the value is not a list."""
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def first(fields: RawDocument, *names: str) -> Any:
    """The first of these fields that is not empty; names vary by executor (seen in clients)."""
    found = (fields.get(name) for name in names)
    return next((each for each in found if each is not None and each != ""), None)


def no_ids(document: Any) -> list[Any]:
    """What decoded JSON, or an object in one of its lists, has as an id although it cannot be one.

    Every response passes here, and a list may have thousands of rows.
    """
    return [
        value
        for fields in _objects(document)
        for key in ID_KEYS
        if (value := fields.get(key)) is not None and value != "" and not is_id(value)
    ]


def _objects(document: Any) -> Iterator[dict[str, Any]]:
    for fields in document if isinstance(document, list) else [document]:
        if isinstance(fields, dict):
            yield fields
            for value in fields.values():
                if isinstance(value, list):
                    yield from (each for each in value if isinstance(each, dict))


class QuestionItem(NamedTuple):
    """A question: its text, its options as (label, description), whether several may be chosen."""

    text: str
    options: tuple[tuple[str, str], ...]
    multiple: bool


class Question(NamedTuple):
    """A question that a run is waiting for: one item, or several asked together (`batched`)."""

    message_id: str
    action_id: int
    items: tuple[QuestionItem, ...]
    batched: bool


class EventView:
    """An event of a run (all of it seen in clients)."""

    __slots__ = ("payload", "raw")

    def __init__(self, raw: RawDocument) -> None:
        self.raw = raw
        payload = raw.get("payload")
        if isinstance(payload, str):
            payload = {"content": payload}
        self.payload: RawDocument = payload if isinstance(payload, Mapping) else {}

    @property
    def kind(self) -> str:
        """`text`, `tool_use`, `result`, …; an empty string if missing."""
        return text(self.raw.get("eventType"))

    @property
    def key(self) -> str:
        """The identity of the event across connections; only newer services send it."""
        return text(self.raw.get("eventKey"))

    @property
    def seq(self) -> int | None:
        """Its number within the prompt; not stable."""
        return integer(self.raw.get("seq"))

    @property
    def prompt_id(self) -> str:
        """The id of its prompt, or an empty string."""
        return text(self.raw.get("promptId"))

    @property
    def speech(self) -> str:
        """What the agent says; an empty string for events of other kinds."""
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
        """The id that a `tool_use` and its `tool_result` share."""
        return as_text(first(self.payload, "id", "tool_id"))

    @property
    def input(self) -> Any:
        """The input of a tool, usually an object."""
        return first(self.payload, "input", "params")

    @property
    def output(self) -> Any:
        """The output of a tool: text, often JSON as text, or any value."""
        return first(self.payload, "output", "content")

    @property
    def is_error(self) -> bool:
        """Whether a tool failed."""
        return self.payload.get("is_error") is True or self.payload.get("isError") is True

    @property
    def sub_prompt_id(self) -> str:
        """The prompt id of the delegated run that a tool started, or an empty string."""
        return text(self.payload.get("subPromptId"))

    @property
    def question(self) -> Question | None:
        """The question that the run is waiting for; None if it has none that can be answered."""
        if self.kind != ASKS:
            return None
        message, action = text(self.payload.get("messageId")), self.payload.get("actionId")
        try:
            # The event has it as text, the request that responses needs a number.
            number = int(action) if isinstance(action, str | int) else -1
        except ValueError:
            return None
        if not message or number < 0:
            return None
        batch = self.payload.get("questions")
        batched = isinstance(batch, list) and bool(batch)
        items = [_question_item(each) for each in (mappings(batch) if batched else [self.payload])]
        return Question(message, number, tuple(items), batched) if items else None


def _question_item(fields: RawDocument) -> QuestionItem:
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


class _RunView:
    """What tasks and prompts have in common."""

    def __init__(self, raw: RawDocument) -> None:
        self.raw = raw

    @property
    def id(self) -> str:
        """The id, or an empty string."""
        return text(self.raw.get("id"))

    @property
    def completed_at(self) -> Any:
        """When it ended, as the service wrote it."""
        return self.raw.get("completedAt")


class PromptView(_RunView):
    """A prompt of a task. Only content documents hold its text, answer and events."""

    @property
    def status(self) -> str:
        """Its status as the service spells it (`succeeded`, not `completed`)."""
        return text(self.raw.get("status"))

    @property
    def outcome(self) -> str | None:
        """How it ended, as a task status; None while it is pending, running or unknown."""
        word = canonical_status(self.status)
        return word if is_terminal(word) else None

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.outcome is not None

    @property
    def has_started(self) -> bool:
        """Whether it has left the queue; before that, it has no events."""
        return self.status not in NOT_STARTED

    @property
    def text(self) -> str:
        """The text of the prompt."""
        return text(self.raw.get("userPrompt"))

    @property
    def response(self) -> str:
        """The response; may be empty even if there is one (seen in clients)."""
        return as_text(self.raw.get("response"))

    @property
    def submitted_at(self) -> Any:
        """When it was sent, as the service wrote it."""
        return self.raw.get("submittedAt")

    @property
    def events(self) -> list[EventView]:
        """Its events, oldest first."""
        return events_of(self.raw)


def events_of(document: RawDocument) -> list[EventView]:
    """The events that a document lists under `events`."""
    return [EventView(each) for each in mappings(document.get("events"))]


class TaskView(_RunView):
    """A task with its prompts, oldest first."""

    @property
    def status(self) -> str:
        """Its status as a task status; an unknown word is kept."""
        return canonical_status(self.raw.get("status"))

    @property
    def is_over(self) -> bool:
        """Whether it has ended. A follow-up makes an ended task run again."""
        return is_terminal(self.status)

    @property
    def final_result(self) -> str:
        """The response of the latest prompt, if the service includes it in the task."""
        return text(self.raw.get("finalResult"))

    @property
    def held_up(self) -> str:
        """Why its agent does not work, if the service on this machine says so."""
        if resumes_at := text(self.raw.get("resumesAt")):
            return f"Limited: the usage limit is reached, resumes at {resumes_at}"
        place, preparing = self.raw.get("queue"), text(self.raw.get("preparing"))
        if isinstance(place, Mapping):
            return f"Queued: {text(place.get('message'))}"
        return f"Preparing: {preparing}" if preparing else ""

    @cached_property
    def prompts(self) -> list[PromptView]:
        """Its prompts, oldest first."""
        return [PromptView(each) for each in mappings(self.raw.get("prompts"))]

    @property
    def latest(self) -> PromptView | None:
        """The latest prompt, if there is any."""
        return self.prompts[-1] if self.prompts else None

    def prompt(self, prompt_id: str) -> PromptView | None:
        """The prompt with this id; None if the document does not show it (yet)."""
        found = [prompt for prompt in self.prompts if prompt.id == prompt_id]
        return found[-1] if found else None

    def outcome(self, prompt_id: str | None = None) -> str | None:
        """How the task, or one of its prompts, ended, as a task status; None if it has not.

        A prompt has its own status: the task may be running because of a newer prompt, or still
        be `completed` because of an earlier one.
        """
        if prompt_id is None:
            return self.status if self.is_over else None
        prompt = self.prompt(prompt_id)
        return prompt.outcome if prompt else None


class ContentView(TaskView):
    """A content document: a task whose prompts include text, events and answers."""

    @property
    def prompt_count(self) -> int:
        """The length of its list of prompts, with what is no prompt in it; 0 without a list."""
        prompts = self.raw.get("prompts")
        return len(prompts) if isinstance(prompts, list) else 0

    @property
    def asking(self) -> EventView | None:
        """The event with the question that parks the run, or None."""
        started = [prompt for prompt in self.prompts if prompt.has_started]
        # A prompt is stuck once a later one has begun (seen in a client), so the last one counts.
        if not started or started[-1].is_over or (self.is_over and not started[-1].status):
            return None
        events = started[-1].events
        return events[-1] if last_open(events) is not None else None

    def response(self, prompt_id: str | None = None) -> str:
        """The response to a prompt (default: the latest); an empty string if there is none."""
        prompt = self.latest if prompt_id is None else self.prompt(prompt_id)
        return prompt.response if prompt else ""


def last_open(events: Iterable[EventView]) -> Question | None:
    """The question that the events end with: nothing was written after it, so it still waits."""
    found: Question | None = None
    for event in events:
        found = event.question
    return found


class PageView:
    """A page of a list: its `rows`, and `total`, the number of rows in all (None: not given).

    `limit` and `offset` are those that the service used. `is_sound`: every row was usable.
    """

    __slots__ = ("is_sound", "limit", "offset", "rows", "total")

    def __init__(self, raw: RawDocument) -> None:
        data = raw.get("data")
        self.rows = [row for row in mappings(data) if text(row.get("id"))]
        self.is_sound = isinstance(data, list) and len(data) == len(self.rows)
        self.total = integer(raw.get("total"))
        self.limit = integer(raw.get("limit"))
        self.offset = integer(raw.get("offset"))
