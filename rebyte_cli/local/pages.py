"""The pages that `url` and `shareUrl` of a task lead to, and the list of tasks at `/`.

The server renders everything. `static/pages.js` fetches the page again and takes over what
changed: elements with `data-changes` are replaced, lists with `data-items` gain and lose items. All
are found by their `id`. The same script sends forms, so that no policy has to allow any.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from hmac import compare_digest
from importlib.resources import files
from urllib.parse import quote, urlencode

from ..system.web_page import asset, h, head
from . import computers, http, task_list, task_page, tasks, visits
from .agents import facade
from .artifact_store import PATCH_FILE, find
from .http import Caller, Context, Refusal, caller_of, missing
from .task_store import TaskRecord, load_task
from .wsgi import PLAIN, HttpRequest, HttpResponse

NOTICE = "This is the local Rebyte service, not the cloud."
LET_IN = (
    "Tasks of real agents are shown once this browser has opened a link with a key, which works"
    " once. <code>rebyte -P local open {task}</code> opens one, and"
    " <code>rebyte local status</code> prints one."
)
COOKIE_SECONDS = 365 * 86400
# Nothing from elsewhere, no inline script or style, no frame around it, no form out of it.
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SHARED = ("web_page.css", "web_page.js")  # with the report of a batch
STATIC = {
    "web_page.css": "text/css; charset=utf-8",
    "web_page.js": "text/javascript; charset=utf-8",
    "pages.css": "text/css; charset=utf-8",
    "pages.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml; charset=utf-8",
}

HEAD = """
<link rel="stylesheet" href="/static/web_page.css"><link rel="stylesheet" href="/static/pages.css">
<link rel="icon" href="/static/icon.svg">
<script src="/static/web_page.js" defer></script><script src="/static/pages.js" defer></script>"""


def recognize(context: Context, request: HttpRequest) -> None:
    """Treat a browser that has the page key as one that has the machine's own, for pages only.

    It sends its cookie to whatever listens at this address, servers of other users among them.
    """
    given = request.cookies.get(_cookie(request), "")
    is_known = given and compare_digest(given.encode(), context.permission.page_key().encode())
    if is_known and not visits.is_of_another_user(request.environ["rebyte.socket"]):
        request.environ["rebyte.key"] = context.permission.own_key()


def refusal(context: Context, request: HttpRequest, refusal: Refusal) -> HttpResponse:
    """The page of what cannot be shown, with how to let this browser in if that may help."""
    title, body = refusal.message, f"<p>{_let_in(request)}</p>"
    if refusal.status != 403:
        if refusal.status != 404 or caller_of(context, request).is_own:
            body = ""
        else:
            title = f"{title}, or not for this browser"
    answer = _page(title, f"<h1>{h(title)}</h1>{body}", running=False)
    answer.status = refusal.status
    return answer


def _let_in(request: HttpRequest) -> str:
    task = re.match("/(?:run|share)/([^/]+)", request.path)
    return LET_IN.format(task=h(task[1]) if task else "TASK")


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
    once = visits.issue(context.store, visits.OPENED_SECONDS)
    answer.headers["Location"] += f"#enter={once}"  # which stays in the browser, see `pages.js`
    attributes = f"Max-Age={COOKIE_SECONDS}; HttpOnly; Path=/; SameSite=Strict"
    session = context.permission.page_key()
    answer.headers["Set-Cookie"] = f"{_cookie(request)}={session}; {attributes}"
    return answer


def allow_actions(context: Context, request: HttpRequest) -> HttpResponse:
    """POST /actions with a one-time key: the key that a page sends with what it does.

    The cookie alone starts nothing, since a browser sends it to every port of this address. Only
    the pages of this port can read what they have stored.
    """
    key = request.stream.read(min(request.content_length or 0, 200)).decode("ascii", "replace")
    if not caller_of(context, request).is_own or not visits.redeem(context.store, key):
        raise Refusal(403, "insufficient_scopes", "This link was used before, or has expired")
    return _response(context.permission.action_key().encode(), PLAIN)


def by_page(endpoint: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """An endpoint that raises Refusal unless a page of this port that may act sends the request.

    A page of another origin cannot send such a header: its browser asks first, and is refused.
    """

    def call(context: Context, request: HttpRequest, task_id: str) -> HttpResponse:
        given = (request.header("Rebyte-Actions") or "").encode()
        may = compare_digest(given, context.permission.action_key().encode())
        if not may or not caller_of(context, request).is_own:
            problem = "This browser may only look: open a new link, such as `rebyte open` makes"
            raise Refusal(403, "insufficient_scopes", problem)
        return endpoint(context, request, task_id)

    return call


@by_page
def follow_up(context: Context, request: HttpRequest, task_id: str) -> HttpResponse:
    """POST /run/{id}/prompts: a page sends a follow-up, which may choose nothing but its text."""
    prompt = http.text(http.body_of(request), "prompt", most=tasks.LONGEST_PROMPT)
    return tasks.follow_up(context, request, task_id, {"prompt": prompt})


def home(context: Context, request: HttpRequest) -> HttpResponse:
    """GET /: the tasks with their status, newest first."""
    title, body = task_list.render(context, request)
    if not caller_of(context, request).is_own:
        body += f"<p>{_let_in(request)}</p>"
    # An open page sees new tasks only if it keeps looking.
    return _page(title, body, running="offset" not in request.args)


def _cookie(request: HttpRequest) -> str:
    # Cookies belong to an address and not to a port: two services must not take each other's.
    return f"rebyte-{request.environ['SERVER_PORT']}"


def run(context: Context, request: HttpRequest, task_id: str) -> HttpResponse:
    """GET /run/{id}: the transcript of a task, its answers and its patch."""
    caller = caller_of(context, request)
    _wait_for_patch(context, caller, task_id)
    with context.store.read() as db:
        task = load_task(db, caller, task_id)
        body = task_page.render(context, db, task, may_act=caller.is_own)
    return _task_page(context, task, body, stream=f"/run/{task.id}/events")


def share(context: Context, request: HttpRequest, task_id: str) -> HttpResponse:
    """GET /share/{id}: as `run`, but only for a task that is public."""
    with context.store.read() as db:
        task = load_task(db, caller_of(context, request), task_id)
        body = task_page.render(context, db, task, may_act=False)
    if task.visibility != "public":
        raise missing("Task")
    return _task_page(context, task, body, stream="")


def patch(context: Context, request: HttpRequest, task_id: str) -> HttpResponse:
    """GET /run/{id}/changes.patch: the whole patch as text."""
    caller = caller_of(context, request)
    _wait_for_patch(context, caller, task_id)
    with context.store.read() as db:
        found = find(db, load_task(db, caller, task_id).workspace, PATCH_FILE)
    if found is None:
        raise missing("Patch")
    return _response((context.store.objects / found["object"]).read_bytes(), PLAIN)


def computer(context: Context, request: HttpRequest, computer: str) -> HttpResponse:
    """GET /agent/computer/{id}: what the `url` of an agent computer points at."""
    with context.store.read() as db:
        name = computers.load(db, caller_of(context, request), computer)["name"]
    return _page(name, f"<h1>{h(name)}</h1>", running=False)


def static(_context: Context, _request: HttpRequest, name: str) -> HttpResponse:
    """GET /static/{name}: the style and the script of the pages."""
    if name not in STATIC:
        raise missing("File")
    if name in SHARED:
        return _response(asset(name).encode(), STATIC[name])
    return _response(files(__package__).joinpath("static", name).read_bytes(), STATIC[name])


def _page(title: str, body: str, *, running: bool, stream: str = "") -> HttpResponse:
    """A whole page. `running` has the script keep it up to date, by `stream` where there is one."""
    state = f'data-running="{str(running).lower()}" data-stream="{h(stream)}"'
    return _response(
        f"""{head(f"{title} - rebyte local", HEAD)}
<body><header><nav aria-label="Service"><a href="/">All tasks</a></nav></header>
<main {state}>
<p id="lost" role="status" hidden>The service does not answer. This is what it said last.</p>
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


def _task_page(context: Context, task: TaskRecord, body: str, *, stream: str) -> HttpResponse:
    now = context.store.now()
    running = task.status(now) == "running"
    return _page(task.shown_title(now) or "New task", body, running=running, stream=stream)


def _wait_for_patch(context: Context, caller: Caller, task_id: str) -> None:
    """Wait for the patch of a task that was just canceled: its page is not fetched again."""
    with context.store.read() as db:
        workspace = load_task(db, caller, task_id).workspace
    facade.wait_for_results(context, caller, workspace)
