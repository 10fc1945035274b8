"""What a run wrote: content, events of a delegated sub-prompt, and answers to its questions.

Seen in clients only (rebyte-api 2.9 and 2.10); the prompts carry prompt words as their status.
"""

from __future__ import annotations

import json
from typing import Any

from werkzeug.wrappers import Request, Response

from . import wire
from .records import load_task
from .timeline import (
    Prompt,
    Span,
    Written,
    is_parked,
    readable_answer,
    sub_writings,
    task_status,
    writings,
)
from .wire import Context, Document


def records(prompt: Prompt, written: list[Written], now: int, owner: str) -> list[Document]:
    """The events of `written` that are visible at `now`, as the wire has them.

    `seq` counts what is visible, so an event that becomes visible late moves those after it;
    `eventKey` stays.
    """
    visible = [one for one in written if one.at <= now]
    result = []
    for seq, one in enumerate(visible):
        record: Document = {"seq": seq}
        if prompt.plan["keys"]:
            record["eventKey"] = f"{owner[:8]}-{one.order}"
        record["timestamp"] = wire.stamp(one.at)
        record["promptId"] = owner
        record["eventType"] = one.kind
        record["payload"] = one.payload
        result.append(record)
    return result


def content(context: Context, request: Request, task_id: str) -> Response:
    """GET /tasks/{id}/content, with `include=events` on request. Oldest prompt first."""
    include = request.args.get("include")
    if include not in (None, "events"):
        wire.invalid("include must be events")
    with context.store.read() as db:
        task = load_task(db, task_id)
    now, prompts = context.store.now(), []
    for prompt, span in zip(task.prompts, task.times, strict=True):
        document: Document = {
            "id": prompt.id,
            "status": span.status(now),
            "userPrompt": prompt.text,
            "submittedAt": wire.stamp(prompt.submitted),
            "completedAt": wire.maybe_stamp(span.end if now >= span.end else None),
            "response": readable_answer(prompt, span, now),
        }
        if include == "events":
            document["events"] = records(prompt, writings(prompt, span), now, prompt.id)
        prompts.append(document)
    status = task_status(task.times, now)
    return wire.reply({"id": task_id, "status": status, "prompts": prompts})


def sub_events(context: Context, _request: Request, task_id: str, prompt_id: str) -> Response:
    """GET /tasks/{id}/prompts/{promptId}/events: for delegated sub-prompts only, as JSON."""
    with context.store.read() as db:
        task = load_task(db, task_id)
    for prompt, span in zip(task.prompts, task.times, strict=True):
        if prompt.plan["delegate"] == prompt_id:
            written = sub_writings(prompt, span)
            events = records(prompt, written, context.store.now(), prompt_id)
            return wire.reply({"promptId": prompt_id, "events": events})
    raise wire.missing("Delegated prompt")


def answer(context: Context, request: Request, task_id: str) -> Response:
    """POST /tasks/{id}/answer: lets a parked run go on. 409 when nothing waits for this answer."""
    body = wire.body_of(request)
    message, action = wire.text(body, "messageId", most=200), body.get("actionId")
    if not isinstance(action, int) or isinstance(action, bool) or action < 0:
        wire.invalid("actionId must be a number")
    with context.store.write() as db:
        task, now = load_task(db, task_id), context.store.now()
        found = _waiting(task.prompts, task.times, now, message, action)
        given = _selection(body, None if found is None else found.plan["ask"])
        if found is None:
            raise wire.Refusal(409, "conflict", "No question is waiting for this answer")
        db.execute(
            "UPDATE prompts SET replied = ?, reply = ? WHERE id = ?",
            (now, json.dumps(given), found.id),
        )
    context.wake()
    return wire.reply({"ok": True})


def _waiting(
    prompts: list[Prompt], times: list[Span], now: int, message: str, action: int
) -> Prompt | None:
    for prompt, span in zip(prompts, times, strict=True):
        if is_parked(prompt, span, now) and (message, action) == (
            prompt.plan["message"],
            prompt.plan["action"],
        ):
            return prompt
    return None


def _selection(body: Document, questions: int | None) -> Document:
    """The `answer` of the body, checked against the number of questions (None: unknown)."""
    given = body.get("answer")
    if not isinstance(given, dict):
        wire.invalid("answer must be an object with selectedOptions or answers")
    if "answers" in given:
        answers = wire.objects(given, "answers")
        for one in answers:
            _check(one)
        if questions is not None and len(answers) != questions:
            wire.invalid(f"answers must have one entry for each of the {questions} questions")
    else:
        _check(given)
        if questions is not None and questions > 1:
            wire.invalid(f"answer must be answers[], one for each of the {questions} questions")
    return given


def _check(selection: Document) -> None:
    options: Any = selection.get("selectedOptions")
    if not isinstance(options, list) or not all(type(index) is int for index in options):
        wire.invalid("selectedOptions must be a list of zero-based numbers")
    if not all(0 <= index < 2 for index in options):
        wire.invalid("selectedOptions must name options that the question has: 0 and 1")
    wire.optional_text(selection, "customResponse", most=100_000)
