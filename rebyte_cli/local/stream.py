"""GET /tasks/{id}/events: the event stream of the latest prompt (rebyte-api section 3).

The documented traps are kept: every connection replays from the first event, `seq` can move,
and the end can be told before the answer is readable. With `[[early-done]]` in the prompt a
connection made before the first event is told `done` at once.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import time
from collections.abc import Iterator

from werkzeug.wrappers import Request, Response

from .records import Task, load_task
from .timeline import Prompt, Span, readable_answer, writings
from .transcript import records
from .wire import Context, Refusal

KEEP_ALIVE_SECONDS = 10.0
# Another process may cancel or answer at any moment, and an injected clock may jump.
LOOK_SECONDS = 0.1


def events(context: Context, request: Request, task_id: str) -> Response:
    """Stream as server-sent events until the prompt ends, the task goes or the client leaves."""
    with context.store.read() as db:
        prompt_id = load_task(db, task_id).prompts[-1].id
    chunks = _stream(context, request, task_id, prompt_id)
    answer = Response(chunks, mimetype="text/event-stream")
    answer.headers["Cache-Control"] = "no-cache"
    return answer


def _stream(context: Context, request: Request, task_id: str, prompt_id: str) -> Iterator[bytes]:
    connection: socket.socket = request.environ["rebyte.socket"]
    # By place: `eventKey` may be switched off, and `seq` may move.
    sent: set[int] = set()
    quiet_since = time.monotonic()
    # Headers leave at once, so that a client knows it is connected before the first event.
    yield b": local service\n\n"
    while not context.stopping.is_set():
        try:
            with context.store.read() as db:
                task = load_task(db, task_id)
        except Refusal:
            return
        prompt, span = _find(task, prompt_id)
        now = context.store.now()
        written = writings(prompt, span)
        visible = [one.order for one in written if one.at <= now]
        shown = zip(visible, records(prompt, written, now, prompt_id), strict=True)
        fresh = [(order, record) for order, record in shown if order not in sent]
        ended = now >= span.end
        for order, record in fresh:
            if prompt.plan["cut"] and not ended and len(sent) >= prompt.plan["cut"]:
                return
            sent.add(order)
            yield _record("event", record)
        if ended or (prompt.plan["early"] and not sent):
            yield _done(prompt, span, now, len(sent))
            return
        if fresh:
            quiet_since = time.monotonic()
        elif time.monotonic() - quiet_since >= KEEP_ALIVE_SECONDS:
            quiet_since = time.monotonic()
            yield b": keep-alive\n\n"
        coming = min([one.at for one in written if one.at > now] + [span.end])
        if _left(connection, min(max(coming - now, 1) / 1000, LOOK_SECONDS)):
            return


def _find(task: Task, prompt_id: str) -> tuple[Prompt, Span]:
    return next(
        (prompt, span)
        for prompt, span in zip(task.prompts, task.times, strict=True)
        if prompt.id == prompt_id
    )


def _done(prompt: Prompt, span: Span, now: int, count: int) -> bytes:
    # A `done` that is told too early claims success: seen in clients, and the reason why only a
    # `done` after an event may be believed.
    status = span.outcome if now >= span.end else "succeeded"
    result = readable_answer(prompt, span, now) or ""
    return _record("done", {"status": status, "lastSeq": count - 1, "finalResult": result})


def _record(name: str, document: object) -> bytes:
    return f"event: {name}\ndata: {json.dumps(document)}\n\n".encode()


def _left(connection: socket.socket, seconds: float) -> bool:
    """Wait, and tell whether the client closed the connection meanwhile."""
    with contextlib.suppress(OSError, ValueError), selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        if not selector.select(seconds):
            return False
        if connection.recv(1, socket.MSG_PEEK):
            time.sleep(seconds)  # a pipelined request: it has to wait its turn
            return False
    return True
