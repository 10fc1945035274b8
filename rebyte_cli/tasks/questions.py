"""Questions that park a run: which one waits, and what an answer to it looks like.

All of it was seen in one client only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..api.errors import is_unsupported
from ..api.views import ContentView, EventView, Question, QuestionItem, TaskView
from ..deadline import NO_LIMIT, Deadline
from ..errors import APIError, BadUsage, RebyteError

if TYPE_CHECKING:
    from ..api.client import RebyteClient

FEW = 3  # tasks; with more, looking for questions would cost as much as waiting does
READ_TIMEOUT = 5.0  # seconds that reading the events of a task may take on the way
FIRST_PAUSE = 2.0  # seconds of waiting before the first read, doubled after each
LONGEST_PAUSE = 60.0


class Choice(NamedTuple):
    """An answer to one item: zero-based options, and text in the user's own words."""

    options: tuple[int, ...] = ()
    text: str | None = None


def last_open(events: Iterable[EventView]) -> Question | None:
    """The question that the events end with: nothing was written after it, so it still waits."""
    found: Question | None = None
    for event in events:
        found = event.question
    return found


def waiting(client: RebyteClient, task_id: str) -> Question | None:
    """The question that this task's run is parked on, or None.

    Read from the content with its events, and where the service has none there, from what the
    event stream replays.
    """
    if TaskView(client.get_task(task_id)).is_over:
        return None
    events = _from_content(client, task_id)
    if not events:
        from .stream import snapshot

        events = [EventView(data) for data in snapshot(client, task_id)]
    return last_open(events)


def waiting_or_raise(client: RebyteClient, task_id: str) -> Question:
    """As `waiting`. Raises RebyteError (`not_waiting`) when the run is not parked on a question."""
    question = waiting(client, task_id)
    if question is None:
        raise RebyteError(
            f"task {task_id} is not waiting on a question",
            hint=f"See the run with `rebyte logs {task_id}`",
            code="not_waiting",
        )
    return question


def choices(question: Question, options: Sequence[int], texts: Sequence[str]) -> list[Choice]:
    """Match option numbers (from 1) and texts with the items of a question.

    Raises BadUsage when neither is given, with the question as its hint, and when it is not clear
    which of them answers which item.
    """
    if not options and not texts:
        from . import transcript

        shown = "".join(line for item in question.items for line in transcript.item_lines(item))
        raise BadUsage("pass the answer with --option N or --text TEXT", hint=shown.rstrip())
    chosen = [number - 1 for number in options]
    if len(question.items) == 1:
        if len(texts) > 1:
            raise BadUsage("--text was given twice, but there is one question")
        return [Choice(tuple(chosen), texts[0] if texts else None)]
    if options and texts:
        raise BadUsage(
            f"the agent asked {len(question.items)} questions at once",
            hint="Pass one --option for each, or one --text for each, in order",
        )
    if texts:
        return [Choice(text=text) for text in texts]
    return [Choice((option,)) for option in chosen]


def _from_content(
    client: RebyteClient, task_id: str, *, timeout: float | None = None
) -> list[EventView]:
    """The events of the latest prompt in the content; none where the service shows none."""
    try:
        content = ContentView(client.task_content(task_id, events=True, timeout=timeout))
    except APIError as error:
        if is_unsupported(error):
            return []
        raise
    return content.latest.events if content.latest else []


def hint(task_id: str, question: Question) -> str:
    """A line that says what a run waits for, and how to answer."""
    first = " ".join(question.items[0].text.split())
    more = f" (and {len(question.items) - 1} more)" if len(question.items) > 1 else ""
    waiting = f"Task {task_id} is waiting for an answer: {first}{more}"
    return f"{waiting}\nAnswer with `rebyte answer {task_id}`"


def tell(client: RebyteClient, task: Mapping[str, Any], note: Callable[[str], None]) -> bool:
    """Note that a running task, which was just read, waits for an answer; whether it does.

    Never an error.
    """
    view = TaskView(task)
    question = asked(client, view.id) if view.id and not view.is_over else None
    if question is not None:
        note(hint(view.id, question))
    return question is not None


def asked(client: RebyteClient, task_id: str, timeout: float = READ_TIMEOUT) -> Question | None:
    """The open question as far as one call of `timeout` seconds can tell."""
    try:
        return last_open(_from_content(client, task_id, timeout=timeout))
    except RebyteError:
        return None


class Watcher:
    """Checks, during the wait for a few tasks, whether one of them waits for its user.

    Its `sleep` replaces `time.sleep`: the check happens in the time that is slept anyway, at
    growing intervals, with one call per task. Each question is noted once. No call goes beyond the
    `deadline` of the wait.
    """

    def __init__(
        self,
        client: RebyteClient,
        task_ids: Sequence[str],
        note: Callable[[str], None],
        *,
        deadline: Deadline = NO_LIMIT,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._deadline = deadline
        self._ids = list(dict.fromkeys(task_ids)) if len(set(task_ids)) <= FEW else []
        self._note = note
        self._clock = deadline.clock
        self._sleep = sleep
        self._pause = FIRST_PAUSE
        self._next = deadline.clock() + FIRST_PAUSE
        self._noted: set[str] = set()

    def sleep(self, seconds: float) -> None:
        """Sleep for `seconds`, a check included."""
        start = self._clock()
        if self._ids and start >= self._next:
            for task_id in self._ids:
                if self._deadline.has_passed:
                    break
                question = asked(self._client, task_id, self._deadline.cap(READ_TIMEOUT))
                if question is not None and question.message_id not in self._noted:
                    self._noted.add(question.message_id)
                    self._note(hint(task_id, question))
            self._pause = min(self._pause * 2, LONGEST_PAUSE)
            self._next = self._clock() + self._pause
        self._sleep(max(0.0, seconds - (self._clock() - start)))


def body(question: Question, choices: Sequence[Choice]) -> dict[str, Any]:
    """The body of POST …/answer. BadUsage when the choices do not fit the question."""
    if len(choices) != len(question.items):
        raise BadUsage(
            f"the run asks {len(question.items)} questions together, and"
            f" {len(choices)} answer{'s were' if len(choices) != 1 else ' was'} given",
            hint="one --option or --text for each of them, in order",
        )
    selections = [
        _selection(item, choice) for item, choice in zip(question.items, choices, strict=True)
    ]
    return {
        "messageId": question.message_id,
        "actionId": question.action_id,
        "answer": {"answers": selections} if question.batched else selections[0],
    }


def _selection(item: QuestionItem, choice: Choice) -> dict[str, Any]:
    options = list(dict.fromkeys(choice.options))
    check(item, options)
    if choice.text is not None and not choice.text.strip():
        raise BadUsage("the answer is empty")
    selection: dict[str, Any] = {"selectedOptions": options}
    if choice.text is not None:
        selection["customResponse"] = choice.text
    return selection


def check(item: QuestionItem, options: Sequence[int]) -> None:
    """BadUsage for an option that the question does not have, or several where one is asked for."""
    for option in options:
        if not 0 <= option < len(item.options):
            count = len(item.options)
            have = f"options 1 to {count}" if count else "no options, so it takes --text"
            raise BadUsage(f"there is no option {option + 1}: the question has {have}")
    if len(options) > 1 and not item.multiple:
        raise BadUsage("the question accepts only one option")


def answer(client: RebyteClient, task_id: str, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Send the answer. RebyteError with a clear line when nothing waits for it any more (409)."""
    try:
        return client.answer(task_id, given)
    except APIError as error:
        if error.status_code != 409:
            raise
        raise RebyteError(
            f"task {task_id} no longer waits for this answer: it was given already, or the run"
            " has continued",
            hint=f"`rebyte logs {task_id}` shows what happened",
            code="not_waiting",
        ) from None
