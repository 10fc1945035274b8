"""Questions that park a run: which one waits, and what an answer to it looks like.

All of it was seen in one client only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..api.failures import is_unsupported
from ..api.views import ContentView, EventView, Question, QuestionItem, TaskView, last_open
from ..errors import APIError, BadUsage, NeedsAnswer, Next, RebyteError, Term
from ..system.deadline import NO_LIMIT, Deadline
from . import transcript

if TYPE_CHECKING:
    from ..api.client import RebyteClient
    from ..history.history import History

FEW = 3  # tasks that `get` and `list` look at unasked
_OPTION = Term("--option", "number in `options`")
_TEXT = Term("--text", "text in `texts`")
READ_TIMEOUT = 5.0  # seconds that reading the events of a task may take on the way


class ItemAnswer(NamedTuple):
    """An answer to one item: zero-based options, and text in the user's own words."""

    options: tuple[int, ...] = ()
    text: str | None = None


def open_question(content: ContentView) -> Question | None:
    """The question that parks the run that a content document shows, or None."""
    return content.asking.question if content.asking is not None else None


def is_over(content: ContentView, question: Question) -> bool:
    """Whether a content document shows that a question is no longer open.

    One that it does not show at all may have been asked since: a stream is ahead of it.
    """
    if content.is_over:
        return True
    for prompt in content.prompts:
        asked = [event.question for event in prompt.events]
        if any(each is not None and each.message_id == question.message_id for each in asked):
            return prompt.is_over or last_open(prompt.events) != question
    return False


def waiting_or_raise(client: RebyteClient, task_id: str) -> Question:
    """The question that this task's run is parked on.

    Read from the content with its events, and where the service has none there, from what the
    event stream replays. Raises RebyteError (`not_waiting`) when the run is not parked on any.
    """
    question = None
    if not TaskView(client.get_task(task_id)).is_over:
        content = read(client, task_id)
        if any(prompt.events for prompt in content.prompts):
            question = open_question(content)
        else:
            from .stream import snapshot

            question = last_open(EventView(data) for data in snapshot(client, task_id))
    if question is None:
        raise RebyteError(
            f"task {task_id} is not waiting on a question",
            hint="See the run with " + Next("logs", task_id),
            code="not_waiting",
        )
    return question


def choices(question: Question, options: Sequence[int], texts: Sequence[str]) -> list[ItemAnswer]:
    """Match option numbers (from 1) and texts with the items of a question.

    Raises BadUsage when neither is given, with the question as its hint, and when it is not clear
    which of them answers which item.
    """
    if not options and not texts:
        shown = "".join(line for item in question.items for line in transcript.item_lines(item))
        how = Term("--option N", "`options`") + " or " + Term("--text TEXT", "`texts`")
        raise BadUsage("pass the answer with " + how, hint=shown.rstrip())
    chosen = [number - 1 for number in options]
    if len(question.items) == 1:
        if len(texts) > 1:
            raise BadUsage(_TEXT + " was given twice, but there is one question")
        return [ItemAnswer(tuple(chosen), texts[0] if texts else None)]
    if options and texts:
        raise BadUsage(
            f"the agent asked {len(question.items)} questions at once",
            hint="Pass one " + _OPTION + " for each, or one " + _TEXT + " for each, in order",
        )
    if texts:
        return [ItemAnswer(text=text) for text in texts]
    return [ItemAnswer((option,)) for option in chosen]


def read(
    client: RebyteClient, task_id: str, *, events: bool = True, timeout: float | None = None
) -> ContentView:
    """The content, usually with its events; an empty document where the service has none."""
    try:
        return ContentView(client.task_content(task_id, events=events, timeout=timeout))
    except APIError as error:
        if is_unsupported(error):
            return ContentView({})
        raise


def summary(task_id: str, question: Question) -> str:
    """A line that says what a task waits for."""
    first = " ".join(question.items[0].text.split())
    more = f" (and {len(question.items) - 1} more)" if len(question.items) > 1 else ""
    return f"task {task_id} is waiting for an answer: {first}{more}"


def hint(task_id: str, question: Question) -> str:
    """What a run waits for, and how to answer it, as a note."""
    said = summary(task_id, question)
    return f"{said[0].upper()}{said[1:]}\nAnswer with " + Next("answer", task_id)


def needs_answer(task_id: str, question: Question, task: Mapping[str, Any]) -> NeedsAnswer:
    """The error of a wait that ends because no one attends to a question."""
    options = [line for item in question.items for line in transcript.item_lines(item)]
    if len(question.items) == 1:
        options = [line.lstrip() for line in options[1:]]  # the question is in the message
    has_options = bool(question.items[0].options)
    numbers = ["--option", "N"] * len(question.items) if has_options else ["--text", "TEXT"]
    return NeedsAnswer(
        summary(task_id, question),
        task={**task, "question": True},
        hint="".join(options)
        + "Answer with "
        + Next("answer", task_id, *numbers)
        + ", then "
        + Next("wait", task_id),
    )


def tell(
    client: RebyteClient, history: History, task: Mapping[str, Any], note: Callable[[str], None]
) -> bool:
    """Note that a running task, which was just read, waits for an answer; whether it does.

    Never an error.
    """
    view = TaskView(task)
    if not view.id or view.is_over:
        return False
    try:
        question = asked(client, history, view.id)
    except RebyteError:
        return False
    if question is not None:
        note(hint(view.id, question))
    return question is not None


def asked(
    client: RebyteClient, history: History, task_id: str, deadline: Deadline = NO_LIMIT
) -> Question | None:
    """The open question, read with one call of READ_TIMEOUT seconds at most."""
    question = open_question(read(client, task_id, timeout=deadline.cap(READ_TIMEOUT)))
    return None if question and history.was_answered(question.message_id) else question


def body(question: Question, choices: Sequence[ItemAnswer]) -> dict[str, Any]:
    """The body of POST …/answer. BadUsage when the choices do not fit the question."""
    if len(choices) != len(question.items):
        raise BadUsage(
            f"the run asks {len(question.items)} questions together, and"
            f" {len(choices)} answer{'s were' if len(choices) != 1 else ' was'} given",
            hint="One " + _OPTION + " or " + _TEXT + " for each of them, in order",
        )
    selections = [
        _selection(item, choice) for item, choice in zip(question.items, choices, strict=True)
    ]
    return {
        "messageId": question.message_id,
        "actionId": question.action_id,
        "answer": {"answers": selections} if question.batched else selections[0],
    }


def _selection(item: QuestionItem, choice: ItemAnswer) -> dict[str, Any]:
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
            have = f"options 1 to {count}" if count else "no options, so it takes " + _TEXT
            raise BadUsage(f"there is no option {option + 1}: the question has " + have)
    if len(options) > 1 and not item.multiple:
        raise BadUsage("the question accepts only one option")


def answer(
    client: RebyteClient,
    history: History,
    task_id: str,
    question: Question,
    choices: Sequence[ItemAnswer],
    *,
    timeout: float | None = None,
) -> None:
    """Send the answer to a question. The history remembers that it was answered.

    `timeout` shortens the time limit of the call (seconds).

    Raises BadUsage when the choices do not fit the question, and RebyteError (`not_waiting`) when
    nothing waits for the answer any more (409).
    """
    given = body(question, choices)
    try:
        client.answer(task_id, given, timeout=timeout)
    except APIError as error:
        if error.status_code != 409:
            raise
        history.remember_answered(question.message_id)
        raise RebyteError(
            f"task {task_id} no longer waits for this answer: it was given already, or the run"
            " has continued",
            hint=Next("logs", task_id) + " shows what happened",
            code="not_waiting",
        ) from None
    history.remember_answered(question.message_id)
