"""POST, GET and DELETE of tasks, follow-ups, cancel and visibility (rebyte-api 2.1 to 2.7).

Shapes are those of the seed document; the list's and visibility's come from the vendor's skill
reference, the answer of cancel from a client's type. Where sources disagree the seed wins: the
default executor is `opencode` and the default model `lite`.
"""

from __future__ import annotations

import json
import sqlite3
from typing import NamedTuple

from werkzeug.wrappers import Request, Response

from . import agent, faults, wire
from .records import Task, load_task, load_tasks
from .store import new_id
from .timeline import completed_at, readable_answer, task_status
from .wire import Context, Document

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
    order = _order(wire.body_of(request))
    workspace = wire.optional_text(order.body, "workspaceId", most=200, least=1)
    faults.refuse_if_asked(context.store, order.prompt)
    with context.store.write() as db:
        now, task_id = context.store.now(), new_id()
        ready = now
        if workspace is None:
            workspace = new_id()
            db.execute("INSERT INTO workspaces VALUES (?, ?)", (workspace, now))
        else:
            ready = _ready(db, workspace)
        executor, model = order.executor or "opencode", order.model or "lite"
        db.execute(
            "INSERT INTO tasks (id, workspace, created, executor, model, title)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (task_id, workspace, now, executor, model, json.dumps(agent.make_title(order.prompt))),
        )
        _add_prompt(db, task_id, order, executor, model, now, ready)
    answer: Document = {
        "id": task_id,
        "workspaceId": workspace,
        "url": f"{context.links}/run/{task_id}",
        "status": "running",
        "createdAt": wire.stamp(now),
    }
    return _given(context, order, answer)


def follow_up(context: Context, request: Request, task_id: str) -> Response:
    """POST /tasks/{id}/prompts. Without executor or model those of the task are used."""
    order = _order(wire.body_of(request))
    with context.store.read() as db:
        load_task(db, task_id)
    faults.refuse_if_asked(context.store, order.prompt)
    with context.store.write() as db:
        task = load_task(db, task_id)
        executor, model = order.executor or task.executor, order.model or task.model
        now = context.store.now()
        prompt_id = _add_prompt(db, task_id, order, executor, model, now, now)
        db.execute("UPDATE tasks SET unsettled = 1 WHERE id = ?", (task_id,))
    return _given(context, order, {"promptId": prompt_id})


def list_page(context: Context, request: Request) -> Response:
    """GET /tasks. Rows have no status, no prompts and no workspace."""
    limit, offset = wire.page_of(request)
    with context.store.read() as db:
        total = db.execute("SELECT count(*) FROM tasks WHERE deleted IS NULL").fetchone()[0]
        rows = db.execute(
            "SELECT * FROM tasks WHERE deleted IS NULL"
            " ORDER BY created DESC, seq DESC LIMIT ? OFFSET ?",
            (limit, offset),
        )
        now, tasks = context.store.now(), load_tasks(db, rows)
    data = [_row(context, task, now) for task in tasks]
    return wire.reply({"data": data, "total": total, "limit": limit, "offset": offset})


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
                "submittedAt": wire.stamp(prompt.submitted),
                "completedAt": wire.maybe_stamp(span.end if now >= span.end else None),
            }
            for prompt, span in zip(task.prompts, task.times, strict=True)
        ],
    }
    result = readable_answer(task.prompts[-1], task.times[-1], now)
    if result is not None:
        document["finalResult"] = result
    return wire.reply(document)


def delete(context: Context, _request: Request, task_id: str) -> Response:
    """DELETE /tasks/{id}: soft, stops the run; afterwards the task is not found."""
    with context.store.write() as db:
        now = context.store.now()
        changed = db.execute(
            "UPDATE tasks SET deleted = ? WHERE id = ? AND deleted IS NULL", (now, task_id)
        )
        if changed.rowcount == 0:
            raise wire.missing("Task")
    return wire.empty()


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
        task = load_task(db, task_id)
    context.wake()
    status = task_status(task.times, now)
    return wire.reply({"id": task_id, "status": status, "canceledPrompts": len(going)})


def set_visibility(context: Context, request: Request, task_id: str) -> Response:
    """PATCH /tasks/{id}/visibility. `shareUrl` only when it is public."""
    body = wire.body_of(request)
    visibility = wire.optional_choice(body, "visibility", VISIBILITIES)
    if visibility is None:
        wire.invalid("visibility is required")
    with context.store.write() as db:
        load_task(db, task_id)
        db.execute("UPDATE tasks SET visibility = ? WHERE id = ?", (visibility, task_id))
    answer: Document = {"visibility": visibility}
    if visibility == "public":
        answer["shareUrl"] = f"{context.links}/share/{task_id}"
    return wire.reply(answer)


def _row(context: Context, task: Task, now: int) -> Document:
    return {
        "id": task.id,
        "url": f"{context.links}/run/{task.id}",
        "title": task.shown_title(now),
        "executor": task.executor,
        "model": task.model,
        "createdAt": wire.stamp(task.created),
        "completedAt": wire.maybe_stamp(completed_at(task.times, now)),
    }


def _order(body: Document) -> Order:
    prompt = wire.text(body, "prompt", most=LONGEST_PROMPT)
    if not prompt.strip():
        wire.invalid("prompt must not be empty")
    for name in ("githubUrl", "branchName", "actor"):
        wire.optional_text(body, name, most=2000, least=1)
    return Order(
        prompt,
        wire.optional_choice(body, "executor", EXECUTORS),
        wire.optional_text(body, "model", most=200, least=1),
        wire.strings(body, "skills"),
        wire.objects(body, "files"),
        body,
    )


def _add_prompt(
    db: sqlite3.Connection, task: str, order: Order, executor: str, model: str, now: int, ready: int
) -> str:
    try:
        plan = agent.make_plan(order.prompt, new_id())
    except ValueError as error:
        wire.invalid(f"prompt: {error}")
    plan["delay"] = max(plan["delay"], ready - now)
    received = agent.Received(
        order.prompt,
        executor,
        model,
        order.skills,
        order.body.get("githubUrl"),
        order.body.get("branchName"),
        [_file(db, index, given) for index, given in enumerate(order.files)],
    )
    prompt_id = new_id()
    db.execute(
        "INSERT INTO prompts (id, task, text, executor, model, submitted, plan, answer)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            prompt_id,
            task,
            order.prompt,
            executor,
            model,
            now,
            json.dumps(plan),
            agent.make_answer(received, plan["outcome"]),
        ),
    )
    return prompt_id


def _file(db: sqlite3.Connection, index: int, given: Document) -> agent.File:
    where = f"files[{index}]"
    for name in ("id", "filename"):
        if not isinstance(given.get(name), str):
            wire.invalid(f"{where}.{name} must be a string")
    row = db.execute("SELECT * FROM files WHERE id = ?", (given["id"],)).fetchone()
    if row is None:
        wire.invalid(f"{where}.id is not the id of a file from POST /files")
    if row["filename"] != given["filename"]:
        wire.invalid(f"{where}.filename must be the one that POST /files returned")
    if row["uploaded"] is None:
        wire.invalid(f"{where} has not been uploaded: PUT its bytes to uploadUrl first")
    return agent.File(row["filename"], row["size"], row["sha256"])


def _ready(db: sqlite3.Connection, workspace: str) -> int:
    """From when on the workspace can run something. 404 when nobody knows it."""
    if db.execute("SELECT 1 FROM workspaces WHERE id = ?", (workspace,)).fetchone() is None:
        raise wire.missing("Workspace")
    row = db.execute("SELECT ready, problem FROM computers WHERE id = ?", (workspace,)).fetchone()
    if row is None:
        return 0
    if row["problem"] is not None:
        wire.invalid("The agent computer failed to start and cannot run tasks")
    return int(row["ready"])


def _given(context: Context, order: Order, answer: Document) -> Response:
    context.wake()
    faults.answer_late_or_never(context.stopping, order.prompt)
    return wire.reply(answer, 201)
