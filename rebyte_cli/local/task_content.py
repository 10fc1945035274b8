"""What a task wrote: its transcript, its event stream, and the events of a delegated sub-prompt.

All were seen in clients only.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import time
from collections.abc import Iterator, Sequence

from . import http
from .agents import facade
from .http import Caller, Context, JsonObject, Refusal, caller_of
from .run_interface import Run, ScheduledEvent
from .task_store import load_task
from .wsgi import HttpRequest, HttpResponse

KEEP_ALIVE_SECONDS = 10.0
# Another process may cancel or answer at any moment, and an injected clock may jump.
POLL_SECONDS = 0.1
LARGE = 4 * 1024 * 1024  # characters


def events(context: Context, request: HttpRequest, task_id: str) -> HttpResponse:
    """Stream server-sent events until the prompt ends, the task is deleted or the client leaves."""
    caller = caller_of(context, request)
    with context.store.read() as db:
        prompt_id = load_task(db, caller, task_id).runs[-1].prompt.id
    chunks = _stream(context, request, caller, task_id, prompt_id)
    answer = HttpResponse(chunks, content_type="text/event-stream; charset=utf-8")
    answer.headers["Cache-Control"] = "no-cache"
    return answer


def _stream(
    context: Context, request: HttpRequest, caller: Caller, task_id: str, prompt_id: str
) -> Iterator[bytes]:
    connection: socket.socket = request.environ["rebyte.socket"]
    # By place: `eventKey` may be switched off, and `seq` may move. Places below `first` are sent.
    sent: set[int] = set()
    first = 0
    quiet_since = time.monotonic()
    # Headers leave at once, so that a client knows it is connected before the first event.
    yield b": local service\n\n"
    while not context.stopping.is_set():
        try:
            facade.recover(context.store, task_id)
            with context.store.read() as db:
                task = load_task(db, caller, task_id)
                run = next(run for run in task.runs if run.prompt.id == prompt_id)
                pending = run.events(db, first)
        except Refusal:
            return
        now = context.store.now()
        horizon = run.horizon(now)
        ended = run.end <= horizon
        visible = [event.order for event in pending if event.at <= horizon]
        documents = event_documents(run, pending, now, prompt_id, first)
        for order, document in zip(visible, documents, strict=True):
            if order in sent:
                continue
            if run.cut_after and not ended and len(sent) >= run.cut_after:
                return
            sent.add(order)
            quiet_since = time.monotonic()
            yield _frame("event", document)
        while first in sent:
            first += 1
        if ended or (run.is_done_early and not sent):
            yield _done(run, now, len(sent))
            return
        if time.monotonic() - quiet_since >= KEEP_ALIVE_SECONDS:
            quiet_since = time.monotonic()
            yield b": keep-alive\n\n"
        coming = min([event.at for event in pending if event.at > horizon] + [run.end])
        if _left(connection, min(max(coming - now, 1) / 1000, POLL_SECONDS)):
            return


def _done(run: Run, now: int, count: int) -> bytes:
    # A `done` that is sent too early claims success: seen in clients, and the reason why only a
    # `done` after an event may be believed.
    status = "succeeded" if run.ended_at(now) is None else run.outcome
    result = run.answer(now) or ""
    return _frame("done", {"status": status, "lastSeq": count - 1, "finalResult": result})


def _frame(name: str, document: object) -> bytes:
    text = json.dumps(document)
    if len(text) > LARGE:  # a client reads no event of 16 MiB; escapes can take thrice as much
        text = json.dumps(document, ensure_ascii=False)
    return f"event: {name}\ndata: {text}\n\n".encode("utf-8", "replace")


def _left(connection: socket.socket, seconds: float) -> bool:
    """Wait up to `seconds`, and return whether the client has closed the connection."""
    with contextlib.suppress(OSError, ValueError), selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        if not selector.select(seconds):
            return False
        if connection.recv(1, socket.MSG_PEEK):
            time.sleep(seconds)  # a pipelined request: it has to wait its turn
            return False
    return True


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
