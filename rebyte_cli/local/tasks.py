"""POST, GET and DELETE of tasks, follow-ups, cancel and visibility (rebyte-api 2.1 to 2.7).

Shapes are those of the seed document; the list's and visibility's come from the vendor's skill
reference, the answer of cancel from a client's type. Where sources disagree the seed wins: the
default executor is `opencode` and the default model `lite`.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import sqlite3
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from werkzeug.wrappers import Request, Response

from . import agent, faults, http
from .database import new_id
from .http import Context, Document, Refusal
from .records import Task, load_task, load_tasks, written
from .schedule import (
    Prompt,
    Span,
    Written,
    completed_at,
    is_parked,
    readable_answer,
    sub_writings,
    task_status,
)

if TYPE_CHECKING:
    from .agents.launch import Launch
    from .agents.runs import Run

# -- What a run wrote: content, events of a delegated sub-prompt, and answers to its questions.


def records(
    prompt: Prompt, events: list[Written], now: int, owner: str, first: int = 0
) -> list[Document]:
    """The events of `written` that are visible at `now`, as the wire has them.

    `seq` counts what is visible, so an event that becomes visible late moves those after it;
    `eventKey` stays.
    """
    visible = [one for one in events if one.at <= now]
    result = []
    for seq, one in enumerate(visible, first):
        record: Document = {"seq": seq}
        if prompt.plan["keys"]:
            record["eventKey"] = f"{owner[:8]}-{one.order}"
        record["timestamp"] = http.stamp(one.at)
        record["promptId"] = owner
        record["eventType"] = one.kind
        record["payload"] = one.payload
        result.append(record)
    return result


def content(context: Context, request: Request, task_id: str) -> Response:
    """GET /tasks/{id}/content, with `include=events` on request. Oldest prompt first."""
    include = request.args.get("include")
    if include not in (None, "events"):
        http.invalid("include must be events")
    events: dict[str, list[Written]] = {}
    with context.store.read() as db:
        task = load_task(db, task_id)
        if include == "events":
            pairs = zip(task.prompts, task.times, strict=True)
            events = {prompt.id: written(db, prompt, span) for prompt, span in pairs}
    now, prompts = context.store.now(), []
    for prompt, span in zip(task.prompts, task.times, strict=True):
        document: Document = {
            "id": prompt.id,
            "status": span.status(now),
            "userPrompt": prompt.text,
            "submittedAt": http.stamp(prompt.submitted),
            "completedAt": http.maybe_stamp(span.end if now >= span.end else None),
            "response": readable_answer(prompt, span, now),
        }
        if include == "events":
            document["events"] = records(prompt, events[prompt.id], now, prompt.id)
        prompts.append(document)
    status = task_status(task.times, now)
    return http.reply({"id": task_id, "status": status, "prompts": prompts})


def sub_events(context: Context, _request: Request, task_id: str, prompt_id: str) -> Response:
    """GET /tasks/{id}/prompts/{promptId}/events: for delegated sub-prompts only, as JSON."""
    with context.store.read() as db:
        task = load_task(db, task_id)
    for prompt, span in zip(task.prompts, task.times, strict=True):
        if prompt.plan["delegate"] == prompt_id:
            written = sub_writings(prompt, span)
            events = records(prompt, written, context.store.now(), prompt_id)
            return http.reply({"promptId": prompt_id, "events": events})
    raise http.missing("Delegated prompt")


def answer(context: Context, request: Request, task_id: str) -> Response:
    """POST /tasks/{id}/answer: lets a parked run go on. 409 when nothing waits for this answer."""
    body = http.body_of(request)
    message, action = http.text(body, "messageId", most=200), body.get("actionId")
    if not isinstance(action, int) or isinstance(action, bool) or action < 0:
        http.invalid("actionId must be a number")
    with context.store.write() as db:
        task, now = load_task(db, task_id), context.store.now()
        found = _waiting(task.prompts, task.times, now, message, action)
        given = _selection(body, None if found is None else found.plan["ask"])
        if found is None:
            raise http.Refusal(409, "conflict", "No question is waiting for this answer")
        db.execute(
            "UPDATE prompts SET replied = ?, reply = ? WHERE id = ?",
            (now, json.dumps(given), found.id),
        )
    context.wake()
    return http.reply({"ok": True})


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
        http.invalid("answer must be an object with selectedOptions or answers")
    if "answers" in given:
        answers = http.objects(given, "answers")
        for one in answers:
            _check(one)
        if questions is not None and len(answers) != questions:
            http.invalid(f"answers must have one entry for each of the {questions} questions")
    else:
        _check(given)
        if questions is not None and questions > 1:
            http.invalid(f"answer must be answers[], one for each of the {questions} questions")
    return given


def _check(selection: Document) -> None:
    options: Any = selection.get("selectedOptions")
    if not isinstance(options, list) or not all(type(index) is int for index in options):
        http.invalid("selectedOptions must be a list of zero-based numbers")
    if not all(0 <= index < 2 for index in options):
        http.invalid("selectedOptions must name options that the question has: 0 and 1")
    http.optional_text(selection, "customResponse", most=100_000)


# -- GET /tasks/{id}/events: the event stream of the latest prompt (rebyte-api section 3).

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
                prompt, span = _find(load_task(db, task_id), prompt_id)
                first = 0 if prompt.run is None else len(sent)
                events = written(db, prompt, span, first)
        except Refusal:
            return
        now = context.store.now()
        visible = [one.order for one in events if one.at <= now]
        shown = zip(visible, records(prompt, events, now, prompt_id, first), strict=True)
        fresh = [(order, record) for order, record in shown if order not in sent]
        ended = now >= span.end
        for order, record in fresh:
            if prompt.plan["cut"] and not ended and len(sent) >= prompt.plan["cut"]:
                return
            sent.add(order)
            yield _frame("event", record)
        if ended or (prompt.plan["early"] and not sent):
            yield _done(prompt, span, now, len(sent))
            return
        if fresh:
            quiet_since = time.monotonic()
        elif time.monotonic() - quiet_since >= KEEP_ALIVE_SECONDS:
            quiet_since = time.monotonic()
            yield b": keep-alive\n\n"
        coming = min([one.at for one in events if one.at > now] + [span.end])
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
    return _frame("done", {"status": status, "lastSeq": count - 1, "finalResult": result})


def _frame(name: str, document: object) -> bytes:
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


LONGEST_PROMPT = 100_000
EXECUTORS = ("opencode", "claude", "gemini", "codex")
VISIBILITIES = ("private", "shared", "public")


class Order(NamedTuple):
    """A checked body of a create or a follow-up."""

    prompt: str
    executor: str | None
    model: str | None
    skills: list[str]
    files: list[Document]
    body: Document


def create(context: Context, request: Request) -> Response:
    """POST /tasks."""
    order = _order(context, http.body_of(request))
    workspace = http.optional_text(order.body, "workspaceId", most=200, least=1)
    launch = _launch(context, request, order)
    if launch is None:
        faults.refuse_if_asked(context.store, order.prompt)
    with context.store.write() as db:
        now, task_id = context.store.now(), new_id()
        ready = now
        if workspace is None:
            workspace = new_id()
            db.execute("INSERT INTO workspaces VALUES (?, ?)", (workspace, now))
        else:
            ready = _ready(db, workspace)
        executor = order.executor or "opencode"
        model = order.model or "lite" if launch is None else launch.model
        db.execute(
            "INSERT INTO tasks (id, workspace, created, executor, model, title)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (task_id, workspace, now, executor, model, json.dumps(agent.make_title(order.prompt))),
        )
        _add_prompt(db, (task_id, workspace), order, (executor, model), (now, ready), launch)
    answer: Document = {
        "id": task_id,
        "workspaceId": workspace,
        "url": f"{context.links}/run/{task_id}",
        "status": "running",
        "createdAt": http.stamp(now),
    }
    return _given(context, order, answer, launch)


def follow_up(context: Context, request: Request, task_id: str) -> Response:
    """POST /tasks/{id}/prompts. Without executor or model those of the task are used."""
    order = _order(context, http.body_of(request))
    with context.store.read() as db:
        task = load_task(db, task_id)
        earlier = _earlier(db, task)
    launch = _launch(context, request, order, earlier)
    if launch is None:
        faults.refuse_if_asked(context.store, order.prompt)
    with context.store.write() as db:
        task = load_task(db, task_id)
        executor, model = order.executor or task.executor, order.model or task.model
        if launch is not None:
            executor, model = launch.adapter.title, launch.model or task.model
        now = context.store.now()
        place = (task_id, task.workspace)
        prompt_id = _add_prompt(db, place, order, (executor, model), (now, now), launch)
        db.execute("UPDATE tasks SET unsettled = 1 WHERE id = ?", (task_id,))
    return _given(context, order, {"promptId": prompt_id}, launch)


def list_page(context: Context, request: Request) -> Response:
    """GET /tasks. Rows have no status, no prompts and no workspace."""
    limit, offset = http.page_of(request)
    with context.store.read() as db:
        total = db.execute("SELECT count(*) FROM tasks WHERE deleted IS NULL").fetchone()[0]
        rows = db.execute(
            "SELECT * FROM tasks WHERE deleted IS NULL"
            " ORDER BY created DESC, seq DESC LIMIT ? OFFSET ?",
            (limit, offset),
        )
        now, tasks = context.store.now(), load_tasks(db, rows)
    data = [_row(context, task, now) for task in tasks]
    return http.reply({"data": data, "total": total, "limit": limit, "offset": offset})


def get(context: Context, _request: Request, task_id: str) -> Response:
    """GET /tasks/{id}."""
    with context.store.read() as db:
        task = load_task(db, task_id)
    now = context.store.now()
    row = _row(context, task, now)
    document: Document = {
        "id": row["id"],
        "url": row["url"],
        "status": task_status(task.times, now),
        **row,
        "prompts": [
            {
                "id": prompt.id,
                "status": span.status(now),
                "submittedAt": http.stamp(prompt.submitted),
                "completedAt": http.maybe_stamp(span.end if now >= span.end else None),
            }
            for prompt, span in zip(task.prompts, task.times, strict=True)
        ],
    }
    result = readable_answer(task.prompts[-1], task.times[-1], now)
    if result is not None:
        document["finalResult"] = result
    return http.reply(document)


def delete(context: Context, _request: Request, task_id: str) -> Response:
    """DELETE /tasks/{id}: soft, stops the run; afterwards the task is not found."""
    with context.store.write() as db:
        now = context.store.now()
        changed = db.execute(
            "UPDATE tasks SET deleted = ? WHERE id = ? AND deleted IS NULL", (now, task_id)
        )
        if changed.rowcount == 0:
            raise http.missing("Task")
        real = _end_runs(db, "task", task_id, now)
    _stop_runs(context, real)
    return http.empty()


def cancel(context: Context, _request: Request, task_id: str) -> Response:
    """POST /tasks/{id}/cancel: stops all prompts that go on; harmless when none does."""
    with context.store.write() as db:
        task, now = load_task(db, task_id), context.store.now()
        going = [
            prompt.id
            for prompt, span in zip(task.prompts, task.times, strict=True)
            if now < span.end
        ]
        db.executemany(
            "UPDATE prompts SET canceled = ? WHERE id = ?", [(now, prompt) for prompt in going]
        )
        real = _end_runs(db, "task", task_id, now)
        task = load_task(db, task_id)
    _stop_runs(context, real)
    context.wake()
    status = task_status(task.times, now)
    return http.reply({"id": task_id, "status": status, "canceledPrompts": len(going)})


def set_visibility(context: Context, request: Request, task_id: str) -> Response:
    """PATCH /tasks/{id}/visibility. `shareUrl` only when it is public."""
    body = http.body_of(request)
    visibility = http.optional_choice(body, "visibility", VISIBILITIES)
    if visibility is None:
        http.invalid("visibility is required")
    with context.store.write() as db:
        load_task(db, task_id)
        db.execute("UPDATE tasks SET visibility = ? WHERE id = ?", (visibility, task_id))
    answer: Document = {"visibility": visibility}
    if visibility == "public":
        answer["shareUrl"] = f"{context.links}/share/{task_id}"
    return http.reply(answer)


def _row(context: Context, task: Task, now: int) -> Document:
    return {
        "id": task.id,
        "url": f"{context.links}/run/{task.id}",
        "title": task.shown_title(now),
        "executor": task.executor,
        "model": task.model or None,
        "createdAt": http.stamp(task.created),
        "completedAt": http.maybe_stamp(completed_at(task.times, now)),
    }


def _order(context: Context, body: Document) -> Order:
    prompt = http.text(body, "prompt", most=LONGEST_PROMPT)
    if not prompt.strip():
        http.invalid("prompt must not be empty")
    for name in ("githubUrl", "branchName", "actor"):
        http.optional_text(body, name, most=2000, least=1)
    return Order(
        prompt,
        _executor(context, body),
        http.optional_text(body, "model", most=200, least=1),
        http.strings(body, "skills"),
        http.objects(body, "files"),
        body,
    )


def _executor(context: Context, body: Document) -> str | None:
    """One of the four, or a program that config.toml names."""
    given = http.optional_text(body, "executor", most=1000)
    if given is None or given in EXECUTORS:
        return given
    from .agents.launch import executors

    return http.optional_choice(body, "executor", executors(context.config_file))


# -- runs of real agents: their modules are imported only where one runs


def _earlier(db: sqlite3.Connection, task: Task) -> tuple[str, Document] | None:
    """Agent and options of the task's last real run; None when all of it is simulated."""
    if all(prompt.run is None for prompt in task.prompts):
        return None
    from .agents.launch import earlier_options

    return earlier_options(db, task.id)


def _launch(
    context: Context, request: Request, order: Order, earlier: tuple[str, Document] | None = None
) -> Launch | None:
    """The run of a real agent that this prompt starts; None when it is simulated."""
    agent_name, options = earlier or (None, None)
    executor = order.executor or agent_name
    if executor is None or not context.permission.granted(request.environ.get("rebyte.key")):
        return None
    from .agents.launch import Launcher

    return Launcher(context.store, context.config_file).prepare(executor, order.body, options)


def _end_runs(db: sqlite3.Connection, column: str, value: str, now: int) -> list[Run]:
    """Record as canceled the runs of a task or a workspace that have not ended; those runs."""
    known = db.execute(
        f"SELECT 1 FROM runs WHERE {column} = ? AND ended IS NULL",  # noqa: S608 - our own names
        (value,),
    ).fetchone()
    if known is None:
        return []
    from .agents import runs

    return runs.cancel(db, column, value, now)


def _stop_runs(context: Context, real: list[Run]) -> None:
    """Kill the agents of runs whose end is recorded."""
    if not real:
        return
    from .agents import runs

    for run in real:
        runs.stop(context.store.folder, run)


def _add_prompt(
    db: sqlite3.Connection,
    place: tuple[str, str],
    order: Order,
    worker: tuple[str, str],
    times: tuple[int, int],
    launch: Launch | None,
) -> str:
    """Record a prompt of `place` (task, workspace) for `worker` (executor, model); its id.

    `times` are now, and when the workspace is ready. `launch` is queued in the same transaction.
    """
    now, ready = times
    task, workspace = place
    files = [_file(db, index, given) for index, given in enumerate(order.files)]
    if launch is None:
        plan, answer = _simulation(order, worker, files)
        plan["delay"] = max(plan["delay"], ready - now)
    else:
        plan, answer = agent.make_plan("", ""), ""
        plan["real"] = True
    prompt_id = new_id()
    db.execute(
        "INSERT INTO prompts (id, task, text, executor, model, submitted, plan, answer, kept)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (prompt_id, task, order.prompt, *worker, now, json.dumps(plan), answer, launch is not None),
    )
    if launch is not None:
        uploads = [(str(given["filename"]), str(given["id"])) for given in order.files]
        launch.record(db, (task, workspace, prompt_id), now, uploads)
    return prompt_id


def _simulation(
    order: Order, worker: tuple[str, str], files: list[agent.File]
) -> tuple[agent.Plan, str]:
    """How the simulated run of a prompt will go, and what it will answer."""
    try:
        plan = agent.make_plan(order.prompt, new_id())
    except ValueError as error:
        http.invalid(f"prompt: {error}")
    received = agent.Received(
        order.prompt,
        *worker,
        order.skills,
        order.body.get("githubUrl"),
        order.body.get("branchName"),
        files,
    )
    return plan, agent.make_answer(received, plan["outcome"])


def _file(db: sqlite3.Connection, index: int, given: Document) -> agent.File:
    where = f"files[{index}]"
    for name in ("id", "filename"):
        if not isinstance(given.get(name), str):
            http.invalid(f"{where}.{name} must be a string")
    row = db.execute("SELECT * FROM files WHERE id = ?", (given["id"],)).fetchone()
    if row is None:
        http.invalid(f"{where}.id is not the id of a file from POST /files")
    if row["filename"] != given["filename"]:
        http.invalid(f"{where}.filename must be the one that POST /files returned")
    if row["uploaded"] is None:
        http.invalid(f"{where} has not been uploaded: PUT its bytes to uploadUrl first")
    return agent.File(row["filename"], row["size"], row["sha256"])


def _ready(db: sqlite3.Connection, workspace: str) -> int:
    """From when on the workspace can run something. 404 when nobody knows it."""
    if db.execute("SELECT 1 FROM workspaces WHERE id = ?", (workspace,)).fetchone() is None:
        raise http.missing("Workspace")
    row = db.execute("SELECT ready, problem FROM computers WHERE id = ?", (workspace,)).fetchone()
    if row is None:
        return 0
    if row["problem"] is not None:
        http.invalid("The agent computer failed to start and cannot run tasks")
    return int(row["ready"])


def _given(context: Context, order: Order, answer: Document, launch: Launch | None) -> Response:
    if launch is not None:
        launch.start()
    context.wake()
    if launch is None:
        faults.answer_late_or_never(context.stopping, order.prompt)
    return http.reply(answer, 201)
