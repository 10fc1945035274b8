"""POST /tasks/{id}/answer: the answer to a question that a run waits on (seen in a client)."""

from __future__ import annotations

from typing import Any

from . import http
from .access import caller_of
from .http import Context, JsonObject
from .task_store import load_task
from .wsgi import HttpRequest, HttpResponse

OPTION_COUNT = 2


def answer(context: Context, request: HttpRequest, task_id: str) -> HttpResponse:
    """POST /tasks/{id}/answer: lets the run continue. 409 when no question has this id."""
    body = http.body_of(request)
    message = http.optional_text(body, "messageId", most=200)
    if message is None:
        http.invalid("messageId is required")
    action = http.integer(body.get("actionId"), "actionId")
    with context.store.write() as db:
        task, now = load_task(db, caller_of(context, request), task_id), context.store.now()
        waiting = [(run, question) for run in task.runs if (question := run.question(now))]
        run, question = next(
            (one for one in waiting if (one[1].message, one[1].action) == (message, action)),
            (None, None),
        )
        reply = _selection(body, None if question is None else question.parts)
        if run is None:
            raise http.Refusal(409, "conflict", "No question is waiting for this answer")
        run.reply(db, now, reply)
    context.wake()
    return http.reply({"ok": True})


def _selection(body: JsonObject, questions: int | None) -> JsonObject:
    """The `answer` of the body, checked against the number of questions (None: unknown)."""
    given, is_asked = body.get("answer"), questions is not None
    if not isinstance(given, dict):
        http.invalid("answer must be an object with selectedOptions or answers")
    if "answers" in given:
        answers = http.objects(given, "answers")
        if questions is not None and len(answers) != questions:
            http.invalid(f"answers must have one entry for each of the {questions} questions")
        return {**given, "answers": [_checked(one, is_asked=is_asked) for one in answers]}
    if questions is not None and questions > 1:
        http.invalid(f"answer must be answers[], one for each of the {questions} questions")
    return _checked(given, is_asked=is_asked)


def _checked(selection: JsonObject, *, is_asked: bool) -> JsonObject:
    """One selection with its options as integers; which there are, only a question tells."""
    options: Any = selection.get("selectedOptions")
    if not isinstance(options, list):
        http.invalid("selectedOptions must be a list of zero-based numbers")
    chosen = [http.integer(index, "selectedOptions[]") for index in options]
    if is_asked and not all(index < OPTION_COUNT for index in chosen):
        http.invalid("selectedOptions must name options that the question has: 0 and 1")
    http.optional_text(selection, "customResponse", most=100_000)
    return {**selection, "selectedOptions": chosen}
