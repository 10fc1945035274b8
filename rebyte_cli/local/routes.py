"""The WSGI application: which endpoint answers, who may call it, and what errors look like."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from email.utils import formatdate
from functools import cache
from typing import Any

from ..system.http_server import Environ, HangUp
from . import (
    account,
    artifacts,
    computers,
    http,
    pages,
    repositories,
    service_log,
    task_content,
    tasks,
    webhooks,
)
from . import uploads as files
from .agents import facade
from .browser_guard import check_caller
from .faults import HTMLRefusal
from .http import Context, Refusal
from .store import StateError
from .wsgi import HttpRequest, HttpResponse

Endpoint = Callable[..., HttpResponse]

# Method, path below the origin, endpoint. Everything under /v1 but /v1/health needs a key.
ROUTES: tuple[tuple[str, str, Endpoint], ...] = (
    ("POST", "/v1/tasks", tasks.create),
    ("GET", "/v1/tasks", tasks.list_page),
    ("GET", "/v1/tasks/<task_id>", tasks.get),
    ("DELETE", "/v1/tasks/<task_id>", tasks.delete),
    ("POST", "/v1/tasks/<task_id>/prompts", tasks.follow_up),
    ("POST", "/v1/tasks/<task_id>/cancel", tasks.cancel),
    ("PATCH", "/v1/tasks/<task_id>/visibility", tasks.set_visibility),
    ("GET", "/v1/tasks/<task_id>/changes.patch", tasks.patch),
    ("GET", "/v1/tasks/<task_id>/network", tasks.network),
    ("GET", "/v1/tasks/<task_id>/events", task_content.events),
    ("GET", "/v1/tasks/<task_id>/content", task_content.content),
    ("GET", "/v1/tasks/<task_id>/prompts/<prompt_id>/events", task_content.sub_events),
    ("POST", "/v1/tasks/<task_id>/answer", tasks.answer),
    ("POST", "/v1/files", files.create),
    ("GET", "/v1/repositories/<key>", repositories.commits),
    ("POST", "/v1/repositories/<key>", repositories.add),
    ("GET", "/v1/workspaces/<workspace>/artifacts", artifacts.list_all),
    ("POST", "/v1/workspaces/<workspace>/artifacts", artifacts.upload),
    ("DELETE", "/v1/workspaces/<workspace>/artifacts", artifacts.delete),
    ("POST", "/v1/workspaces/<workspace>/artifacts/upload-url", artifacts.upload_urls),
    ("GET", "/v1/workspaces/<workspace>/artifacts/<path:filename>", artifacts.download),
    ("DELETE", "/v1/workspaces/<workspace>/artifacts/<path:filename>", artifacts.delete),
    ("POST", "/v1/agent-computers", computers.create),
    ("GET", "/v1/agent-computers", computers.list_page),
    ("GET", "/v1/agent-computers/<computer>", computers.get),
    ("PATCH", "/v1/agent-computers/<computer>", computers.update),
    ("DELETE", "/v1/agent-computers/<computer>", computers.delete),
    ("POST", "/v1/webhooks", webhooks.create),
    ("GET", "/v1/webhooks", webhooks.list_all),
    ("GET", "/v1/webhooks/public_key", webhooks.public_key),
    ("GET", "/v1/webhooks/<webhook>", webhooks.get),
    ("DELETE", "/v1/webhooks/<webhook>", webhooks.delete),
    ("GET", "/v1/billing/credits", account.credit_balance),
    ("GET", "/v1/health", account.health),
    ("GET", "/health", account.health),
    ("GET", "/proof", account.proof),
    ("GET", "/", pages.home),
    ("GET", "/run/<task_id>", pages.run),
    ("GET", "/run/<task_id>/events", task_content.events),
    ("GET", "/run/<task_id>/changes.patch", pages.patch),
    ("POST", "/run/<task_id>/prompts", pages.follow_up),
    ("POST", "/run/<task_id>/answer", pages.by_page(tasks.answer)),
    ("POST", "/run/<task_id>/cancel", pages.by_page(tasks.cancel)),
    ("POST", "/actions", pages.allow_actions),
    ("GET", "/share/<task_id>", pages.share),
    ("GET", "/agent/computer/<computer>", pages.computer),
    ("GET", "/static/<name>", pages.static),
)
OPEN_PATHS = frozenset({"/v1/health"})
REST = "<path:"  # the mark of a parameter that takes all that is left of a path, slashes included


def application(context: Context, environ: Environ, start: Callable[..., Any]) -> Iterable[bytes]:
    """Answer one request to the API, over WSGI. Raises only HangUp and ConnectionError."""
    answer = _respond(context, environ)
    # The service's own clock, which clients compare with `createdAt`.
    answer.headers["Date"] = formatdate(context.store.now() // 1000, usegmt=True)
    return answer(environ, start)


def _respond(context: Context, environ: Environ) -> HttpResponse:
    is_page = False
    try:
        request = HttpRequest(environ)
        check_caller(request, is_page=not _is_api(request.path))
        if _is_api(request.path):
            _check_key(request)
        else:
            pages.recognize(context, request)
        endpoint, arguments = match(request.path, request.method)
        is_page = not _is_api(request.path) and request.method != "POST"
        if is_page and request.method == "GET" and "key" in request.args:
            return pages.enter(context, request)
        if request.method != "POST" or arguments:  # a create asks nothing about other runs
            facade.recover(context.store, arguments.get("task_id"))
        answer: HttpResponse = endpoint(context, request, **arguments)
    except Refusal as refusal:
        if is_page:
            return pages.refusal(context, request, refusal)
        return http.refuse(refusal)
    except HTMLRefusal as page:
        return page.response
    except (HangUp, ConnectionError):
        raise
    except Exception as error:
        problem = "Internal server error"
        if isinstance(error, StateError):
            problem = f"The local service cannot work: {error.filename}: {error.strerror}"
        log = service_log.add_fault(context.store.folder, environ)
        hint = None if log is None else f"Its traceback is in {log}"
        return http.refuse(Refusal(500, "internal_error", problem, hint))
    return answer


def match(path: str, method: str) -> tuple[Endpoint, dict[str, str]]:
    """The endpoint of a call and the values of the parameters in its path.

    A path without parameters comes before one with some that it fits as well, as in OpenAPI, and
    then only its own methods count. Raises Refusal: 404, or 405 with `Allow`.
    """
    parts = tuple(path.removesuffix("/").split("/"))
    for template, endpoints in _table().items():
        arguments = _arguments(template, parts)
        if arguments is None:
            continue
        endpoint = endpoints.get("GET" if method == "HEAD" else method)
        if endpoint is not None:
            return endpoint, arguments
        methods = set(endpoints) | ({"HEAD"} if "GET" in endpoints else set())
        allowed = ", ".join(sorted(methods))
        message = f"{path} does not take {method}, only {allowed}"
        raise Refusal(405, "method_not_allowed", message, Allow=allowed)
    raise Refusal(404, "not_found", f"There is no {method} {path}")


@cache
def _table() -> dict[tuple[str, ...], dict[str, Endpoint]]:
    """The endpoint of each method by the parts of a path, those with fewer parameters first."""
    found: dict[tuple[str, ...], dict[str, Endpoint]] = {}
    for method, path, endpoint in sorted(ROUTES, key=lambda route: route[1].count("<")):
        found.setdefault(tuple(path.removesuffix("/").split("/")), {})[method] = endpoint
    return found


def _arguments(template: tuple[str, ...], parts: tuple[str, ...]) -> dict[str, str] | None:
    """What the parameters of a template are in a path; None when it does not fit."""
    if template[-1].startswith(REST):
        head = len(template) - 1
        parts = (*parts[:head], "/".join(parts[head:]))
    if len(parts) != len(template):
        return None
    arguments = {}
    for name, part in zip(template, parts, strict=True):
        if not name.startswith("<"):
            if name != part:
                return None
        elif part:
            arguments[name.removeprefix(REST).strip("<>")] = part
        else:
            return None
    return arguments


def _is_api(path: str) -> bool:
    return path == "/v1" or path.startswith("/v1/")


def _check_key(request: HttpRequest) -> None:
    if request.path.rstrip("/") in OPEN_PATHS:
        return
    key = request.environ.get("rebyte.key")
    if not key:
        raise Refusal(401, "missing_api_key", "API_KEY header is missing")
    if not key.startswith("rbk_") or key == "rbk_invalid":
        raise Refusal(401, "invalid_api_key", "API key is invalid or expired")
    if key == "rbk_readonly" and request.method not in ("GET", "HEAD"):
        raise Refusal(403, "insufficient_scopes", "The key may read only (tasks:read)")
