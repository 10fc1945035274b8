"""What a task wrote: its transcript, and the events of a delegated sub-prompt.

Both were seen in clients only.
"""

from __future__ import annotations

from collections.abc import Sequence

from . import http
from .access import caller_of
from .http import Context, JsonObject
from .run_interface import Run, ScheduledEvent
from .task_store import load_task
from .wsgi import HttpRequest, HttpResponse


def content(context: Context, request: HttpRequest, task_id: str) -> HttpResponse:
    """GET /tasks/{id}/content, with `include=events` on request. Oldest prompt first."""
    include = request.args.get("include")
    if include not in (None, "events"):
        http.invalid("include must be events")
    now, prompts = context.store.now(), []
    with context.store.read() as db:
        task = load_task(db, caller_of(context, request), task_id)
        for run in task.runs:
            document: JsonObject = {
                "id": run.prompt.id,
                "status": run.status(now),
                "userPrompt": run.prompt.text,
                "submittedAt": http.stamp(run.prompt.submitted),
                "completedAt": http.maybe_stamp(run.ended_at(now)),
                "response": run.answer(now),
            }
            if include == "events":
                document["events"] = event_documents(run, run.events(db), now, run.prompt.id)
            prompts.append(document)
    return http.reply({"id": task_id, "status": task.status(now), "prompts": prompts})


def sub_events(
    context: Context, request: HttpRequest, task_id: str, prompt_id: str
) -> HttpResponse:
    """GET /tasks/{id}/prompts/{promptId}/events: for delegated sub-prompts only, as JSON."""
    with context.store.read() as db:
        for run in load_task(db, caller_of(context, request), task_id).runs:
            events = run.sub_events(db, prompt_id)
            if events is not None:
                documents = event_documents(run, events, context.store.now(), prompt_id)
                return http.reply({"promptId": prompt_id, "events": documents})
    raise http.missing("Delegated prompt")


def event_documents(
    run: Run, events: Sequence[ScheduledEvent], now: int, prompt_id: str, first: int = 0
) -> list[JsonObject]:
    """The events that are visible at `now`, as the wire has them, counted from `first`.

    `seq` counts what is visible, so an event that becomes visible late moves those after it;
    `eventKey` stays.
    """
    documents = []
    for seq, event in enumerate([one for one in events if one.at <= run.horizon(now)], first):
        document: JsonObject = {"seq": seq}
        if run.has_event_keys:
            document["eventKey"] = f"{prompt_id[:8]}-{event.order}"
        document["timestamp"] = http.stamp(event.at)
        document["promptId"] = prompt_id
        document["eventType"] = event.kind
        document["payload"] = event.payload
        documents.append(document)
    return documents
