"""POST, GET and DELETE of tasks, follow-ups, cancel and visibility.

Shapes are those of the seed document; the list's and visibility's come from the vendor's skill
reference, the answer of cancel from a client's type. Where sources disagree the seed wins: the
default executor is `opencode` and the default model `lite`.
"""

from __future__ import annotations

import json
import re
import sqlite3
from typing import TYPE_CHECKING, Any, NamedTuple

from . import artifacts, faults, http, simulated_changes, simulation
from .agents import facade
from .artifact_store import PATCH_FILE, RESULTS
from .http import Caller, Context, JsonObject, caller_of, check_workspace, is_open, is_private
from .run_interface import RunUsage
from .store import new_id
from .task_store import TaskRecord, add_prompt, load_task, load_tasks
from .wsgi import HttpRequest, HttpResponse

if TYPE_CHECKING:
    from .agents.supervision.admission import AdmittedRun

LONGEST_PROMPT = 100_000
# Written out, since languages differ about what \s matches.
_NOT_BLANK = re.compile(r"[^\s\x1c-\x1f\x85\ufeff]")
EXECUTORS = ("opencode", "claude", "gemini", "codex")
VISIBILITIES = ("private", "shared", "public")
OPTION_COUNT = 2  # of a question


class PromptBody(NamedTuple):
    """A checked body of a create or a follow-up."""

    prompt: str
    executor: str | None
    model: str | None
    skills: list[str]
    files: list[JsonObject]
    body: JsonObject


def create(context: Context, request: HttpRequest) -> HttpResponse:
    """POST /tasks."""
    order = _order(context, http.body_of(request))
    workspace = http.optional_text(order.body, "workspaceId", most=200, least=1)
    batch = _batch(order.body)
    admitted = facade.admit(context, request, order.executor, order.body)
    base = None
    if admitted is None:
        faults.refuse_if_asked(context.store, order.prompt)
        may_read = caller_of(context, request).is_own
        base = simulated_changes.base_of(order.body, may_read=may_read)
    with context.store.write() as db:
        now, task_id = context.store.now(), new_id()
        ready = now
        if workspace is None:
            workspace = new_id()
            db.execute("INSERT INTO workspaces VALUES (?, ?)", (workspace, now))
        else:
            ready = _ready(db, caller_of(context, request), workspace)
        executor = order.executor or "opencode"
        model = order.model or "lite" if admitted is None else admitted.model
        title = json.dumps(simulation.make_title(order.prompt))
        db.execute(
            "INSERT INTO tasks (id, workspace, created, executor, model, title, batch)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (task_id, workspace, now, executor, model, title, batch and batch[0]),
        )
        if batch:
            db.execute("INSERT OR REPLACE INTO batches VALUES (?, ?, ?)", batch)
        place, worker = (task_id, workspace), (executor, model)
        _add_prompt(context, db, place, order, worker, (now, ready), admitted, base)
    answer: JsonObject = {
        "id": task_id,
        "workspaceId": workspace,
        "url": f"{context.links}/run/{task_id}",
        "status": "running",
        "createdAt": http.stamp(now),
    }
    return _given(context, order, answer, admitted)


def follow_up(
    context: Context, request: HttpRequest, task_id: str, body: JsonObject | None = None
) -> HttpResponse:
    """POST /tasks/{id}/prompts. Without executor or model those of the task are used.

    `body` is the one of the request if that was read.
    """
    order = _order(context, http.body_of(request) if body is None else body)
    caller = caller_of(context, request)
    with context.store.read() as db:
        task = load_task(db, caller, task_id)
        earlier = facade.earlier(db, task)
    admitted = facade.admit(context, request, order.executor, order.body, earlier)
    if admitted is None:
        faults.refuse_if_asked(context.store, order.prompt)
    with context.store.write() as db:
        task = load_task(db, caller, task_id)
        executor, model = order.executor or task.executor, order.model or task.model
        if admitted is not None:
            executor, model = admitted.adapter.title, admitted.model or task.model
        now = context.store.now()
        place = (task_id, task.workspace)
        before = task.usage(now)
        prompt_id = _add_prompt(
            context, db, place, order, (executor, model), (now, now), admitted,
            used=before.input_tokens + before.output_tokens if before else 0,
        )  # fmt: skip
        db.execute("UPDATE tasks SET unsettled = 1 WHERE id = ?", (task_id,))
    return _given(context, order, {"promptId": prompt_id}, admitted)


def list_page(context: Context, request: HttpRequest) -> HttpResponse:
    """GET /tasks. Rows have no status, no prompts and no workspace.

    `queue`, `resumesAt` and `usage`, here and in `get`, are this service's own extensions.
    """
    limit, offset = http.page_of(request)
    facade.sweep_hourly(context)
    tasks, total = newest(context, request, limit, offset)
    now = context.store.now()
    data = [_row(context, task, now) | task.queue(context.store, now) for task in tasks]
    return http.reply({"data": data, "total": total, "limit": limit, "offset": offset})


def newest(
    context: Context,
    request: HttpRequest,
    limit: int,
    offset: int,
    *,
    words: str = "",
    batch: str = "",
) -> tuple[list[TaskRecord], int]:
    """Tasks that this request may see, newest first, and how many there are in all.

    With `words`, those that have them in a prompt or whose id they begin; with `batch`, its own.
    """
    shown, values = "deleted IS NULL", list[str]()
    if not caller_of(context, request).is_own:
        shown += f" AND {is_open('tasks.workspace')}"
    if batch:
        shown += " AND batch = ?"
        values.append(batch)
    if words:
        shown += (
            " AND (instr(tasks.id, ?) = 1 OR EXISTS (SELECT 1 FROM prompts"
            " WHERE task = tasks.id AND instr(lower(text), lower(?))))"
        )
        values += [words, words]
    with context.store.read() as db:
        total = db.execute(f"SELECT count(*) FROM tasks WHERE {shown}", values).fetchone()[0]  # noqa: S608 -- ours
        rows = db.execute(
            f"SELECT * FROM tasks WHERE {shown}"  # noqa: S608 - put together from literals
            " ORDER BY created DESC, seq DESC LIMIT ? OFFSET ?",
            (*values, limit, offset),
        )
        return load_tasks(db, rows), total


def get(context: Context, request: HttpRequest, task_id: str) -> HttpResponse:
    """GET /tasks/{id}.

    `baseCommit`, `hasChanges`, and `workspaceId` of an agent's task are this service's extensions.
    """
    with context.store.read() as db:
        task = load_task(db, caller_of(context, request), task_id)
        now = context.store.now()
        row = _row(context, task, now) | task.queue(context.store, now)
        ended_by = task.runs[-1].ended_by(db) if task.status(now) == "failed" else None
    document: JsonObject = {
        "id": row["id"],
        "url": row["url"],
        "status": task.status(now),
        **row,
        "prompts": [
            {
                "id": run.prompt.id,
                "status": run.status(now),
                "submittedAt": http.stamp(run.prompt.submitted),
                "completedAt": http.maybe_stamp(run.ended_at(now)),
                **({"hasChanges": True} if run.has_changes(now) else {}),
            }
            for run in task.runs
        ],
    }
    if not task.is_simulated:
        document["workspaceId"] = task.workspace
    if ended_by:
        document["endedBy"] = ended_by
        if not task.runs[-1].has_begun(now):
            document["begun"] = False
    result = task.runs[-1].answer(now)
    if result is not None:
        document["finalResult"] = result
    if any(run.has_changes(now) for run in task.runs):
        base = facade.base_commit(context, task)
        document |= {"baseCommit": base} if base else {}
    return http.reply(document)


def patch(context: Context, request: HttpRequest, task_id: str) -> HttpResponse:
    """GET /tasks/{id}/changes.patch: what its runs changed, those that `runs` names or all.

    This service's own extension; `runs` has ids of prompts with `hasChanges`, between commas.
    """
    caller = caller_of(context, request)
    with context.store.read() as db:
        task = load_task(db, caller, task_id)
    facade.wait_for_results(context, caller, task.workspace)
    named = request.args.get("runs", "")
    found = facade.patch_of_runs(context, task, named.split(",") if named else [])
    if found is None and not named:  # of simulated runs, what all in the workspace have written
        with context.store.write() as db:
            found = artifacts.patch_of(context.store, db, task.workspace)
    if found is None:
        raise http.missing("Patch")
    return HttpResponse(found, content_type=RESULTS[PATCH_FILE])


def network(context: Context, request: HttpRequest, task_id: str) -> HttpResponse:
    """GET /tasks/{id}/network: the requests of its agents, which this service alone records."""
    with context.store.read() as db:
        task = load_task(db, caller_of(context, request), task_id)
    return http.reply({"requests": facade.requests_of_runs(context, task)})


def delete(context: Context, request: HttpRequest, task_id: str) -> HttpResponse:
    """DELETE /tasks/{id}: soft, stops the run; afterwards the task is not found."""
    with context.store.write() as db:
        load_task(db, caller_of(context, request), task_id)
        now = context.store.now()
        db.execute("UPDATE tasks SET deleted = ? WHERE id = ?", (now, task_id))
        real = facade.end_runs(db, "task", task_id, now)
    facade.stop_runs(context, real)
    return http.empty()


def cancel(context: Context, request: HttpRequest, task_id: str) -> HttpResponse:
    """POST /tasks/{id}/cancel: stops every prompt that has not ended; harmless when all have."""
    caller = caller_of(context, request)
    with context.store.write() as db:
        task, now = load_task(db, caller, task_id), context.store.now()
        active = [run for run in task.runs if run.ended_at(now) is None]
        real = facade.end_runs(db, "task", task_id, now)
        for run in active:
            run.cancel(db, now)
        task = load_task(db, caller, task_id)
    facade.stop_runs(context, real)
    context.wake()
    return http.reply({"id": task_id, "status": task.status(now), "canceledPrompts": len(active)})


def set_visibility(context: Context, request: HttpRequest, task_id: str) -> HttpResponse:
    """PATCH /tasks/{id}/visibility. `shareUrl` only when it is public."""
    body = http.body_of(request)
    visibility = http.optional_choice(body, "visibility", VISIBILITIES)
    if visibility is None:
        http.invalid("visibility is required")
    with context.store.write() as db:
        load_task(db, caller_of(context, request), task_id)
        db.execute("UPDATE tasks SET visibility = ? WHERE id = ?", (visibility, task_id))
    answer: JsonObject = {"visibility": visibility}
    if visibility == "public":
        answer["shareUrl"] = f"{context.links}/share/{task_id}"
    return http.reply(answer)


def _row(context: Context, task: TaskRecord, now: int) -> JsonObject:
    used = task.usage(now)
    return {
        "id": task.id,
        "url": f"{context.links}/run/{task.id}",
        "title": task.shown_title(now),
        "executor": task.executor,
        "model": task.model or None,
        "createdAt": http.stamp(task.created),
        "completedAt": http.maybe_stamp(task.completed(now)),
        **({} if used is None else {"usage": _usage(used)}),
    }


def _usage(used: RunUsage) -> JsonObject:
    return {
        "requests": used.requests,
        "inputTokens": used.input_tokens,
        "cachedInputTokens": used.cached_input_tokens,
        "outputTokens": used.output_tokens,
        "costUsd": used.cost_usd,
        **({"uncountedRequests": used.uncounted} if used.uncounted else {}),
    }


def _order(context: Context, body: JsonObject) -> PromptBody:
    prompt = http.text(body, "prompt", most=LONGEST_PROMPT)
    if not _NOT_BLANK.search(prompt):
        http.invalid("prompt must not be empty")
    for name, least in (("githubUrl", 1), ("branchName", 1), ("actor", 0)):
        http.optional_text(body, name, most=2000, least=least)
    return PromptBody(
        prompt,
        facade.executor(context, body, EXECUTORS),
        http.optional_text(body, "model", most=200, least=1),
        http.strings(body, "skills"),
        http.objects(body, "files"),
        body,
    )


def _batch(body: JsonObject) -> tuple[str, str, int] | None:
    """Id, title and number of lines of the batch that a task belongs to, for the pages.

    `batch` is this service's own extension.
    """
    given = body.get("batch")
    if not isinstance(given, dict):
        return None
    name, title = http.text(given, "id", most=200), http.text(given, "title", most=2000)
    return name, title, http.integer(given.get("lines"), "batch.lines")


def _add_prompt(
    context: Context,
    db: sqlite3.Connection,
    place: tuple[str, str],
    order: PromptBody,
    worker: tuple[str, str],
    times: tuple[int, int],
    admitted: AdmittedRun | None,
    base: list[str] | None = None,
    used: int = 0,
) -> str:
    """Record a prompt of `place` (task, workspace) for `worker` (executor, model); its id.

    `times` are now, and when the workspace is ready. `admitted` is queued in the same transaction.
    `base` is what a simulated run changes; the task has used `used` tokens before.
    """
    now, ready = times
    task, workspace = place
    files = [_file(db, index, given) for index, given in enumerate(order.files)]
    if admitted is None:
        plan, answer = _simulation(order, worker, files)
        plan["delay"] = max(plan["delay"], ready - now)
        plan["base"] = base
        if "budgetOf" not in order.body:  # the command looks after that of several tasks
            for limit in http.budgets(order.body):
                answer = simulation.limit(plan, answer, used, limit.get("tokens"))
    else:
        plan, answer = None, ""
    prompt_id = add_prompt(db, task, order.prompt, worker, now, plan, answer)
    if admitted is not None:
        uploads = [(str(given["filename"]), str(given["id"])) for given in order.files]
        is_first = not is_private(db, workspace)
        admitted.record(db, (task, workspace, prompt_id), now, uploads)
        if is_first:
            artifacts.clear_results(context.store, db, workspace)
    return prompt_id


def _simulation(
    order: PromptBody, worker: tuple[str, str], files: list[simulation.InputFile]
) -> tuple[simulation.SimulationPlan, str]:
    """How the simulated run of a prompt will go, and what it will answer."""
    try:
        plan = simulation.make_plan(order.prompt, new_id())
    except ValueError as error:
        http.invalid(f"prompt: {error}")
    on_limit = http.optional_text(order.body, "onLimit", most=100, least=1) or "wait"
    repository = order.body.get("githubUrl"), order.body.get("branchName")
    answer = simulation.make_answer(
        order.prompt, plan["outcome"], worker, order.skills, repository, files
    )
    return plan, simulation.at_limit(plan, answer, on_limit)


def _file(db: sqlite3.Connection, index: int, given: JsonObject) -> simulation.InputFile:
    where = f"files[{index}]"
    for name in ("id", "filename"):
        if not isinstance(given.get(name), str):
            http.invalid(f"{where}.{name} must be a string")
    row = db.execute("SELECT * FROM files WHERE id = ?", (given["id"],)).fetchone()
    if row is None:
        raise http.missing(f"{where}: the file")
    if row["filename"] != given["filename"]:
        http.invalid(f"{where}.filename must be the one that POST /files returned")
    if row["uploaded"] is None:
        http.invalid(f"{where} has not been uploaded: PUT its bytes to uploadUrl first")
    return simulation.InputFile(row["filename"], row["size"], row["sha256"])


def _ready(db: sqlite3.Connection, caller: Caller, workspace: str) -> int:
    """The moment from which the workspace can run something. 404 when the caller sees none."""
    check_workspace(db, caller, workspace)
    row = db.execute("SELECT ready, problem FROM computers WHERE id = ?", (workspace,)).fetchone()
    if row is None:
        return 0
    if row["problem"] is not None:
        http.invalid("The agent computer failed to start and cannot run tasks")
    return int(row["ready"])


def _given(
    context: Context, order: PromptBody, answer: JsonObject, admitted: AdmittedRun | None
) -> HttpResponse:
    if admitted is not None:
        admitted.start(context.announce)
    context.wake()
    if admitted is None:
        faults.answer_late_or_never(context.stopping, order.prompt)
    return http.reply(answer, 201)


def answer(context: Context, request: HttpRequest, task_id: str) -> HttpResponse:
    """POST /tasks/{id}/answer (seen in a client): lets the run continue that waits for an answer.

    409 when no question has this id.
    """
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
