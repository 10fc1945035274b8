"""The pages that `url` and `shareUrl` of a task lead to. Every value is escaped."""

from __future__ import annotations

from html import escape

from werkzeug.wrappers import Request, Response

from .http import Context, missing, stamp
from .records import Task, load_task

NOTICE = "This is the local Rebyte service: a simulation, not the cloud."
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>
<body><h1>{title}</h1>
<p>{notice}</p>
<p>Status: <strong>{status}</strong>, created {created}.</p>
{prompts}
</body></html>
"""
PROMPT = "<h2>{status}</h2><pre>{prompt}</pre><pre>{answer}</pre>"


def run(context: Context, _request: Request, task_id: str) -> Response:
    """GET /run/{id}: what `url` points at."""
    with context.store.read() as db:
        task = load_task(db, task_id)
    return _page(task, context.store.now())


def share(context: Context, _request: Request, task_id: str) -> Response:
    """GET /share/{id}: as `run`, but only for a task that is public."""
    with context.store.read() as db:
        task = load_task(db, task_id)
    if task.visibility != "public":
        raise missing("Task")
    return _page(task, context.store.now())


def computer(context: Context, _request: Request, computer: str) -> Response:
    """GET /agent/computer/{id}: what the `url` of an agent computer points at."""
    with context.store.read() as db:
        row = db.execute("SELECT name FROM computers WHERE id = ?", (computer,)).fetchone()
    if row is None:
        raise missing("Agent computer")
    name = escape(row["name"])
    return _html(f"<!doctype html><title>{name}</title><h1>{name}</h1><p>{NOTICE}</p>")


def _page(task: Task, now: int) -> Response:
    prompts = "\n".join(
        PROMPT.format(
            status=run.status(now),
            prompt=escape(run.prompt.text),
            answer=escape(run.answer(now) or ""),
        )
        for run in task.runs
    )
    title = (task.shown_title(now) or "New task").encode("utf-8", "replace").decode()
    text = PAGE.format(
        title=escape(title),
        notice=NOTICE,
        status=task.status(now),
        created=stamp(task.created),
        prompts=prompts,
    )
    return _html(text)


def _html(text: str) -> Response:
    answer = Response(text, mimetype="text/html")
    answer.headers["Content-Security-Policy"] = "default-src 'none'"
    return answer
