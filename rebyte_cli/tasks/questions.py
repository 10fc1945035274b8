"""Questions that park a run: which one waits, and what an answer to it looks like.

All of it was seen in one client only, so every shape is read with doubt.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..api.errors import is_unsupported
from ..api.models import is_terminal, task_status
from ..deadline import NO_LIMIT, Deadline
from ..errors import APIError, BadUsage, RebyteError

if TYPE_CHECKING:
    from ..api.client import RebyteClient

ASKS = "ask_user_question"
FEW = 3  # tasks; with more, looking for questions would cost as much as waiting does
LOOK = 5.0  # seconds that a look on the way may take
FIRST_LOOK = 2.0  # seconds of waiting before the first look, doubled after each
LONGEST_PAUSE = 60.0


class Item(NamedTuple):
    """One question: its text, the options as (label, description), whether several may be taken."""

    text: str
    options: tuple[tuple[str, str], ...]
    several: bool


class Question(NamedTuple):
    """What a run waits for: one item, or several asked together (`batched`)."""

    message_id: str
    action_id: int
    items: tuple[Item, ...]
    batched: bool


class Choice(NamedTuple):
    """An answer to one item: zero-based options, and text in the user's own words."""

    options: tuple[int, ...] = ()
    text: str | None = None


def read(payload: Any) -> Question | None:
    """The question in an event's payload, or None when it cannot be answered from here."""
    if not isinstance(payload, Mapping):
        return None
    message, action = payload.get("messageId"), payload.get("actionId")
    try:
        # The event carries the number as text, the answer wants it as a number.
        number = int(action) if isinstance(action, str | int) else -1
    except ValueError:
        return None
    if not isinstance(message, str) or number < 0:
        return None
    batch = payload.get("questions")
    batched = isinstance(batch, list) and bool(batch)
    listed: list[Any] = batch if isinstance(batch, list) and batch else [payload]
    items = [_item(one) for one in listed if isinstance(one, Mapping)]
    return Question(message, number, tuple(items), batched) if items else None


def _item(one: Mapping[str, Any]) -> Item:
    options = one.get("options")
    return Item(
        str(one.get("question") or ""),
        tuple(_option(option) for option in (options if isinstance(options, list) else [])),
        one.get("multiSelect") is True,
    )


def _option(option: Any) -> tuple[str, str]:
    if isinstance(option, Mapping):
        return str(option.get("label") or ""), str(option.get("description") or "")
    return str(option), ""


def last_open(events: Iterable[Any]) -> Question | None:
    """The question that the events end with: nothing was written after it, so it still waits."""
    found: Question | None = None
    for event in events:
        if not isinstance(event, Mapping):
            continue
        found = read(event.get("payload")) if event.get("eventType") == ASKS else None
    return found


def waiting(
    client: RebyteClient, task_id: str, *, task: Mapping[str, Any] | None = None
) -> Question | None:
    """The question that this task's run is parked on, or None.

    `task` is its document when the caller has just read it. Looked for in the content with its
    events, and where the service has none there, in what the event stream replays.
    """
    if is_terminal(task_status(task if task is not None else client.get_task(task_id))):
        return None
    events = _from_content(client, task_id)
    if events is None:
        from .stream import snapshot

        events = snapshot(client, task_id)
    return last_open(events)


def _from_content(
    client: RebyteClient, task_id: str, *, timeout: float | None = None
) -> list[Any] | None:
    """The events of the latest prompt in the content; None when it has none to show."""
    try:
        content = client.task_content(task_id, events=True, timeout=timeout)
    except APIError as error:
        if is_unsupported(error):
            return None
        raise
    prompts = content.get("prompts")
    latest = prompts[-1] if isinstance(prompts, list) and prompts else None
    events = latest.get("events") if isinstance(latest, Mapping) else None
    return events if isinstance(events, list) and events else None


def hint(task_id: str, question: Question) -> str:
    """A line that says what a run waits for, and how to answer."""
    first = " ".join(question.items[0].text.split())
    more = f" (and {len(question.items) - 1} more)" if len(question.items) > 1 else ""
    return f"Task {task_id} waits for an answer: {first}{more}\n`rebyte answer {task_id}` gives it"


def tell(client: RebyteClient, task: Mapping[str, Any], note: Callable[[str], None]) -> None:
    """Say on the way that a running task, just read, waits for an answer. Never an error."""
    task_id = task.get("id")
    if isinstance(task_id, str) and not is_terminal(task_status(task)):
        question = _asked(client, task_id)
        if question is not None:
            note(hint(task_id, question))


def _asked(client: RebyteClient, task_id: str, timeout: float = LOOK) -> Question | None:
    """The open question as far as one call of `timeout` seconds can tell."""
    try:
        return last_open(_from_content(client, task_id, timeout=timeout) or [])
    except RebyteError:
        return None


class Watcher:
    """Looks, while a few tasks are waited for, whether one of them waits for its user.

    Its `sleep` stands in for `time.sleep`: the look happens in the time that is slept anyway,
    at growing intervals, one call per task. Each question is told once. No look goes beyond the
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
        self._pause = FIRST_LOOK
        self._next = deadline.clock() + FIRST_LOOK
        self._told: set[str] = set()

    def sleep(self, seconds: float) -> None:
        """Sleep for `seconds`, a look included."""
        start = self._clock()
        if self._ids and start >= self._next:
            for task_id in self._ids:
                if self._deadline.has_passed:
                    break
                question = _asked(self._client, task_id, self._deadline.cap(LOOK))
                if question is not None and question.message_id not in self._told:
                    self._told.add(question.message_id)
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


def _selection(item: Item, choice: Choice) -> dict[str, Any]:
    options = list(dict.fromkeys(choice.options))
    check(item, options)
    if choice.text is not None and not choice.text.strip():
        raise BadUsage("the answer is empty")
    selection: dict[str, Any] = {"selectedOptions": options}
    if choice.text is not None:
        selection["customResponse"] = choice.text
    return selection


def check(item: Item, options: Sequence[int]) -> None:
    """BadUsage for an option that the question does not have, or several where one is asked for."""
    for option in options:
        if not 0 <= option < len(item.options):
            count = len(item.options)
            have = f"options 1 to {count}" if count else "no options, so it takes --text"
            raise BadUsage(f"there is no option {option + 1}: the question has {have}")
    if len(options) > 1 and not item.several:
        raise BadUsage("the question takes one option, and several were given")


def answer(client: RebyteClient, task_id: str, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Send the answer. RebyteError with a clear line when nothing waits for it any more (409)."""
    try:
        return client.answer(task_id, given)
    except APIError as error:
        if error.status_code != 409:
            raise
        raise RebyteError(
            f"nothing waits for this answer any more in task {task_id}: it was given"
            " already, or the run has gone on",
            hint=f"`rebyte logs {task_id}` shows what happened",
            code="not_waiting",
        ) from None
