"""The pages that `url` and `shareUrl` of a task lead to, and the list of tasks at `/`.

The server renders everything, and every value is escaped. `static/pages.js` fetches the page
again while something runs and takes over what changed: elements with `data-changes` are replaced,
lists with `data-items` gain and lose items. All are found by their `id`.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from hmac import compare_digest
from html import escape
from importlib.resources import files
from typing import Any
from urllib.parse import quote, urlencode

from ..system.durations import duration
from . import http, visits
from .access import Caller, caller_of
from .agents import gate
from .artifact_store import PATCH_FILE
from .http import Context, Refusal, missing
from .schedule import Run, ScheduledEvent
from .simulation import SimulatedRun
from .task_store import TaskRecord, load_task
from .tasks import newest
from .wsgi import PLAIN, HttpRequest, HttpResponse

NOTICE = "This is the local Rebyte service, not the cloud."
SIMULATED = "A simulation: no agent ran."
LET_IN = (
    "Tasks of real agents are shown once this browser has opened a link with a key, which works"
    " once. <code>rebyte -P local open {task}</code> opens one, and"
    " <code>rebyte local status</code> prints one."
)
COOKIE_SECONDS = 365 * 86400
SPEECH = ("text", "assistant", "message", "response")  # events in which an agent says something
SPOKEN = ("content", "text", "thinking")  # the names under which they hold it
LONGEST_PATCH = 256 * 1024  # shown; the rest is in the file
TASKS_PER_PAGE = 50
# Nothing from elsewhere, no inline script or style, no frame around it, no form out of it.
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
STATIC = {
    "pages.css": "text/css; charset=utf-8",
    "pages.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml; charset=utf-8",
}


def recognize(context: Context, request: HttpRequest) -> None:
    """Treat a browser that has the page key as one that has the machine's own, for pages only."""
    given = request.cookies.get(_cookie(request), "")
    if given and compare_digest(given.encode(), context.permission.page_key().encode()):
        request.environ["rebyte.key"] = context.permission.own_key()


def refusal(context: Context, request: HttpRequest, refusal: Refusal) -> HttpResponse:
    """The page of what cannot be shown, with how to let this browser in if that may help."""
    title, body = refusal.message, f"<p>{_let_in(request)}</p>"
    if refusal.status != 403:
        if refusal.status != 404 or caller_of(context, request).is_own:
            body = ""
        else:
            title = f"{title}, or not for this browser"
    answer = _page(title, f"<h1>{_h(title)}</h1>{body}", running=False)
    answer.status = refusal.status
    return answer


def _let_in(request: HttpRequest) -> str:
    task = re.match("/(?:run|share)/([^/]+)", request.path)
    return LET_IN.format(task=_h(task[1]) if task else "TASK")


def enter(context: Context, request: HttpRequest) -> HttpResponse:
    """GET of any page with `?key=…`: keep a session in a cookie, and drop the key from the address.

    Raises Refusal for a key that was used, has expired or never was, or is another user's to use.
    """
    rest = [(name, value) for name, value in request.args.items() if name != "key"]
    answer = HttpResponse(status=303)
    answer.headers["Location"] = quote(request.path) + (f"?{urlencode(rest)}" if rest else "")
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["Referrer-Policy"] = "no-referrer"
    if visits.is_of_another_user(request.environ["rebyte.socket"]):
        raise Refusal(403, "insufficient_scopes", "This link is for another user of this machine")
    if not visits.redeem(context.store, request.args["key"]):
        if caller_of(context, request).is_own:  # this browser has opened the link before
            return answer
        raise Refusal(403, "insufficient_scopes", "This link was used before, or has expired")
    attributes = f"Max-Age={COOKIE_SECONDS}; HttpOnly; Path=/; SameSite=Strict"
    session = context.permission.page_key()
    answer.headers["Set-Cookie"] = f"{_cookie(request)}={session}; {attributes}"
    return answer


def home(context: Context, request: HttpRequest) -> HttpResponse:
    """GET /: the tasks with their status, newest first."""
    _, offset = http.page_of(request)
    tasks, total = newest(context, request, TASKS_PER_PAGE, offset)
    with context.store.read() as db:
        body = "".join(_list(db, tasks, total, offset, context.store.now()))
    if not caller_of(context, request).is_own:
        body += f"<p>{_let_in(request)}</p>"
    # An open page sees new tasks only if it keeps looking.
    return _page("Tasks", body, running=offset == 0)


def _cookie(request: HttpRequest) -> str:
    # Cookies belong to an address and not to a port: two services must not take each other's.
    return f"rebyte-{request.environ['SERVER_PORT']}"


def run(context: Context, request: HttpRequest, task_id: str) -> HttpResponse:
    """GET /run/{id}: the transcript of a task, its answers and its patch."""
    caller = caller_of(context, request)
    _wait_for_patch(context, caller, task_id)
    with context.store.read() as db:
        task = load_task(db, caller, task_id)
        body = _task(context, db, task)
    return _task_page(context, task, body, stream=f"/run/{task.id}/events")


def share(context: Context, request: HttpRequest, task_id: str) -> HttpResponse:
    """GET /share/{id}: as `run`, but only for a task that is public."""
    with context.store.read() as db:
        task = load_task(db, caller_of(context, request), task_id)
        body = _task(context, db, task)
    if task.visibility != "public":
        raise missing("Task")
    return _task_page(context, task, body, stream="")


def patch(context: Context, request: HttpRequest, task_id: str) -> HttpResponse:
    """GET /run/{id}/changes.patch: the whole patch as text."""
    caller = caller_of(context, request)
    _wait_for_patch(context, caller, task_id)
    with context.store.read() as db:
        found = _patch_object(db, load_task(db, caller, task_id))
    if found is None:
        raise missing("Patch")
    return _response((context.store.objects / found).read_bytes(), PLAIN)


def computer(context: Context, request: HttpRequest, computer: str) -> HttpResponse:
    """GET /agent/computer/{id}: what the `url` of an agent computer points at."""
    with context.store.read() as db:
        caller_of(context, request).check(db, computer, "Agent computer")
        row = db.execute("SELECT name FROM computers WHERE id = ?", (computer,)).fetchone()
    if row is None:
        raise missing("Agent computer")
    return _page(row["name"], f"<h1>{_h(row['name'])}</h1>", running=False)


def static(_context: Context, _request: HttpRequest, name: str) -> HttpResponse:
    """GET /static/{name}: the style and the script of the pages."""
    if name not in STATIC:
        raise missing("File")
    return _response(files(__package__).joinpath("static", name).read_bytes(), STATIC[name])


def _page(title: str, body: str, *, running: bool, stream: str = "") -> HttpResponse:
    """A whole page. `running` has the script keep it up to date, by `stream` where there is one."""
    return _response(
        f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{_h(title)} - rebyte local</title>
<link rel="stylesheet" href="/static/pages.css"><link rel="icon" href="/static/icon.svg">
<script src="/static/pages.js" defer></script></head>
<body><header><nav aria-label="Service"><a href="/">All tasks</a></nav></header>
<main data-running="{str(running).lower()}" data-stream="{_h(stream)}">
{body}
</main><footer>{NOTICE}</footer></body></html>
""".encode("utf-8", "replace"),
        "text/html; charset=utf-8",
    )


def _response(body: bytes, kind: str) -> HttpResponse:
    answer = HttpResponse(body, content_type=kind)
    answer.headers["Content-Security-Policy"] = POLICY
    answer.headers["Cache-Control"] = "no-cache"
    answer.headers["Referrer-Policy"] = "no-referrer"
    answer.headers["X-Content-Type-Options"] = "nosniff"
    return answer


# The list of tasks


def _list(
    db: sqlite3.Connection, tasks: list[TaskRecord], total: int, offset: int, now: int
) -> Iterator[str]:
    yield "<h1>Tasks</h1>"
    shown = f"{offset + 1} to {offset + len(tasks)} of {total}" if tasks else "No tasks"
    yield f'<p class="about" id="count" data-changes>{shown}</p><section>'
    yield (
        '<table><thead><tr><th scope="col">Task</th><th scope="col">Status</th>'
        '<th scope="col" class="wide">Executor</th><th scope="col" class="wide">Created</th>'
        '<th scope="col">Took</th></tr></thead><tbody id="tasks" data-items>'
    )
    for task in tasks:
        title = task.shown_title(now) or "New task"
        yield (
            f'<tr id="{task.id}"><td class="title"><a href="/run/{task.id}">'
            f'<span id="title-{task.id}" data-changes>{_h(title)}</span></a></td>'
            f"<td>{_status(f'status-{task.id}', _status_of(db, task, now))}</td>"
            f'<td class="wide">{_h(task.executor)}</td>'
            f'<td class="time wide">{_time(task.created)}</td>'
            f'<td class="time" id="took-{task.id}" data-changes>{_took(task, now)}</td></tr>\n'
        )
    yield "</tbody></table></section>"
    newer, older = max(0, offset - TASKS_PER_PAGE), offset + TASKS_PER_PAGE
    links = [
        f'<a href="/?offset={newer}">Newer</a>' if offset else "",
        f'<a href="/?offset={older}">Older</a>' if older < total else "",
    ]
    if any(links):
        yield f'<nav aria-label="Pages"><p>{" ".join(links)}</p></nav>'


# One task


def _task_page(context: Context, task: TaskRecord, body: str, *, stream: str) -> HttpResponse:
    now = context.store.now()
    running = task.status(now) == "running"
    return _page(task.shown_title(now) or "New task", body, running=running, stream=stream)


def _task(context: Context, db: sqlite3.Connection, task: TaskRecord) -> str:
    now = context.store.now()
    simulated = all(isinstance(run, SimulatedRun) for run in task.runs)
    prompts = (_prompt(db, number, run, now) for number, run in enumerate(task.runs, 1))
    return (
        f'<h1 id="title" data-changes>{_h(task.shown_title(now) or "New task")}</h1>'
        f'<p class="about">{_status("status", _status_of(db, task, now))}, {_h(task.executor)},'
        f" created {_time(task.created)},"
        f' took <span id="took" data-changes>{_took(task, now)}</span>.'
        f" {SIMULATED if simulated else ''}</p>"
        f'<div id="prompts" data-items>{"".join(prompts)}</div>'
        + _changes(context, task, _patch_object(db, task))
    )


def _prompt(db: sqlite3.Connection, number: int, run: Run, now: int) -> str:
    """What was asked, what the agent did, and what it answered."""
    prompt, answer, events = run.prompt, run.answer(now), run.events(db)
    name = prompt.id
    begun = [one for one in events if one.at <= now]
    said = [_first(one.payload, *SPOKEN) for one in begun if one.kind in SPEECH]
    # The answer has its own place; a program's is all that it printed, in pieces.
    elsewhere = said if "\n".join(map(_text, said)) == answer else [answer]
    items = "".join(
        f'<li id="e-{name}-{one.order}">{html}</li>\n'
        for one in begun
        if (html := _event(one, elsewhere))
    )
    box = f"<h3>Answer</h3><pre class='text'>{_h(answer)}</pre>" if answer else ""
    waiting = run.question(now) is not None
    resumes_at = run.resumes_at(db, now)
    status = "waiting" if waiting else "limited" if resumes_at else run.status(now)
    hint = f"<p>Answer: <code>rebyte answer {prompt.task}</code></p>" if waiting else ""
    if resumes_at:
        hint = f"<p>Waits for its usage limit until {_time(resumes_at)}.</p>"
    return (
        f'<section id="p-{name}" aria-label="Prompt {number}">'
        f"<h2>Prompt {number} {_status(f's-{name}', status)}</h2>"
        f'<pre class="prompt">{_h(prompt.text)}</pre>'
        f'<ol class="transcript" id="t-{name}" aria-label="Transcript" data-items>{items}</ol>'
        f'<div id="a-{name}" aria-live="polite" data-changes>{hint}{box}</div></section>\n'
    )


def _event(event: ScheduledEvent, elsewhere: list[Any]) -> str:
    """One event as HTML; empty for texts that are shown elsewhere, and what has no text.

    The names of a payload's fields vary by executor.
    """
    payload = event.payload
    if event.kind in ("init", "result"):
        return ""
    if event.kind == "thinking" or event.kind in SPEECH:
        kind = "thinking" if event.kind == "thinking" else "text"
        text = _first(payload, *SPOKEN)
        return "" if text in elsewhere else f'<pre class="{kind}">{_h(text)}</pre>'
    if event.kind == "tool_use":
        name, given = _first(payload, "name", "tool_name"), _first(payload, "input", "params")
        return _folded(f"<b>{_h(name)}</b> <code>{_h(_gist(given))}</code>", given)
    if event.kind == "tool_result":
        output = _first(payload, "output", "content")
        lines = len(_text(output).splitlines())
        return _folded(f"Output, {lines} {'line' if lines == 1 else 'lines'}", output)
    if event.kind == "ask_user_question":
        questions = payload.get("questions") or [payload]
        return "".join(f"<p><b>{_h(each.get('question', ''))}</b></p>" for each in questions)
    return _folded(_h(event.kind), payload)


def _folded(summary: str, value: object) -> str:
    text = _text(value)
    if not text:
        return f"<p>{summary}</p>"
    return f'<details><summary>{summary}</summary><pre tabindex="0">{_h(text)}</pre></details>'


def _gist(given: object) -> str:
    """What a tool was asked, in one line: its only or most telling argument."""
    if isinstance(given, dict):
        names = ("command", "cmd", "file_path", "filePath", "path", "pattern", "query", "url")
        given = next((given[name] for name in names if name in given), given)
    line = " ".join(_text(given).split())
    return line if len(line) <= 100 else line[:99] + "…"


def _first(payload: dict[str, Any], *names: str) -> Any:
    return next((payload[name] for name in names if name in payload), "")


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)


# The patch


def _wait_for_patch(context: Context, caller: Caller, task_id: str) -> None:
    """Wait for the patch of a task that was just canceled: its page is not fetched again."""
    with context.store.read() as db:
        workspace = load_task(db, caller, task_id).workspace
    gate.wait_for_results(context, caller, workspace)


def _patch_object(db: sqlite3.Connection, task: TaskRecord) -> str | None:
    """The stored object that holds the patch of the task's workspace."""
    row = db.execute(
        "SELECT object FROM artifacts WHERE workspace = ? AND filename = ?",
        (task.workspace, PATCH_FILE),
    ).fetchone()
    return None if row is None else str(row["object"])


def _changes(context: Context, task: TaskRecord, patch: str | None) -> str:
    """The patch of the workspace, coloured; an empty section while there is none."""
    body = ""
    if patch is not None:
        with (context.store.objects / patch).open("rb") as file:
            start = file.read(LONGEST_PATCH + 1)
        lines = start[:LONGEST_PATCH].decode("utf-8", "replace").splitlines()
        whole = f'<a href="/run/{task.id}/{PATCH_FILE}">{PATCH_FILE}</a>'
        more = f"<p>Only the beginning is shown; the rest is in {whole}.</p>"
        body = (
            "<h2>Changes in the workspace</h2>"
            f"<p>{whole}, or <code>rebyte diff {task.id}</code></p>"
            f'<pre class="box patch" tabindex="0">{"".join(map(_patch_line, lines))}</pre>'
            + (more if len(start) > LONGEST_PATCH else "")
        )
    return f'<section id="changes" data-changes>{body}</section>'


def _patch_line(line: str) -> str:
    if line.startswith(("diff ", "index ", "--- ", "+++ ")):
        name = "b"
    else:
        name = {"@": "i", "+": "ins", "-": "del"}.get(line[:1], "")
    return (f"<{name}>{_h(line)}</{name}>" if name else _h(line)) + "\n"


# Small pieces


def _status_of(db: sqlite3.Connection, task: TaskRecord, now: int) -> str:
    """The task's status; `waiting` for one that asks a question, `limited` for one that waits for
    a usage limit."""
    if any(run.question(now) for run in task.runs):
        return "waiting"
    if "resumesAt" in task.queue(db, now):
        return "limited"
    return task.status(now)


def _status(name: str, status: str) -> str:
    return f'<span class="status {status}" id="{name}" data-changes>{status}</span>'


def _time(moment: int) -> str:
    iso = http.stamp(moment)
    return f'<time datetime="{iso}">{iso[:10]} {iso[11:19]} UTC</time>'


def _took(task: TaskRecord, now: int) -> str:
    """From the task's creation to its end, or until now, as `1m 05s`."""
    end = task.completed(now)
    seconds = ((now if end is None else end) - task.created) / 1000
    if seconds < 10:
        return f"{seconds:.1f}s"
    return duration(seconds)


def _h(value: object) -> str:
    return escape(str(value), quote=True)
