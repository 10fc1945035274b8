"""The WSGI application: which endpoint answers, who may call it, and what errors look like."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http.client import responses
from threading import Lock
from typing import Any

from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound
from werkzeug.http import http_date
from werkzeug.routing import Map, Rule
from werkzeug.wrappers import Request, Response

from . import (
    account,
    artifacts,
    computers,
    event_stream,
    files,
    http,
    pages,
    questions,
    tasks,
    transcript,
    webhooks,
)
from .agents import gate
from .database import StateError
from .faults import Page
from .http import Context, Refusal
from .http_server import Environ, HangUp
from .origin import check_caller

Endpoint = Callable[..., Response]

# Method, path below the origin, endpoint. Everything under /v1 but /v1/health needs a key.
ROUTES: tuple[tuple[str, str, Endpoint], ...] = (
    ("POST", "/v1/tasks", tasks.create),
    ("GET", "/v1/tasks", tasks.list_page),
    ("GET", "/v1/tasks/<task_id>", tasks.get),
    ("DELETE", "/v1/tasks/<task_id>", tasks.delete),
    ("POST", "/v1/tasks/<task_id>/prompts", tasks.follow_up),
    ("POST", "/v1/tasks/<task_id>/cancel", tasks.cancel),
    ("PATCH", "/v1/tasks/<task_id>/visibility", tasks.set_visibility),
    ("GET", "/v1/tasks/<task_id>/events", event_stream.events),
    ("GET", "/v1/tasks/<task_id>/content", transcript.content),
    ("GET", "/v1/tasks/<task_id>/prompts/<prompt_id>/events", transcript.sub_events),
    ("POST", "/v1/tasks/<task_id>/answer", questions.answer),
    ("POST", "/v1/files", files.create),
    ("GET", "/v1/workspaces/<workspace>/artifacts", artifacts.list_all),
    ("POST", "/v1/workspaces/<workspace>/artifacts", artifacts.upload),
    ("DELETE", "/v1/workspaces/<workspace>/artifacts", artifacts.delete_all),
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
    ("GET", "/", pages.home),
    ("GET", "/run/<task_id>", pages.run),
    ("GET", "/run/<task_id>/events", event_stream.events),
    ("GET", "/run/<task_id>/changes.patch", pages.patch),
    ("GET", "/share/<task_id>", pages.share),
    ("GET", "/agent/computer/<computer>", pages.computer),
    ("GET", "/static/<name>", pages.static),
)
NOUNS = frozenset(path.removeprefix("/v1").split("/", 2)[1] for _, path, _ in ROUTES)
# werkzeug compiles a route by way of a syntax tree, and Python 3.11 raises SystemError now and
# then when two threads make one at the same time.
COMPILING = Lock()
OPEN_PATHS = frozenset({"/v1/health"})


class Api:
    """The API's WSGI application for one `Context`."""

    def __init__(self, context: Context, log: Callable[[str], None]) -> None:
        self._context = context
        self._log = log
        self._maps: dict[str, Map] = {}

    def __call__(self, environ: Environ, start: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request. Raises only HangUp and ConnectionError."""
        answer = self._answer(environ)
        # The service's own clock, which clients compare with `createdAt`.
        answer.headers["Date"] = http_date(self._context.store.now() // 1000)
        return answer(environ, start)

    def _answer(self, environ: Environ) -> Response:
        try:
            request = Request(environ)
            check_caller(request, is_page=not _is_api(request.path))
            if _is_api(request.path):
                _check_key(request)
            else:
                pages.recognize(self._context, request)
            rules = self._rules(_noun(request.path)).bind("")
            endpoint, arguments = rules.match(request.path, request.method)
            gate.hide_from_others(self._context, request, arguments)
            answer: Response = endpoint(self._context, request, **arguments)
        except Refusal as refusal:
            return http.refuse(refusal) if _is_api(request.path) else pages.refusal(refusal)
        except Page as page:
            return page.response
        except (HangUp, ConnectionError):
            raise
        except HTTPException as error:
            return http.refuse(_as_refusal(environ, error))
        except StateError as error:
            problem = f"The local service cannot work: {error.filename}: {error.strerror}"
            return http.refuse(Refusal(500, "internal_error", problem))
        except Exception as error:
            self._log(f"internal error: {error!r}")
            return http.refuse(Refusal(500, "internal_error", "Internal server error"))
        return answer

    def _rules(self, noun: str) -> Map:
        """The routes of one noun. Compiling all of them would add 10 ms to every command."""
        with COMPILING:
            if noun not in self._maps:
                self._maps[noun] = Map(
                    [
                        Rule(path, methods=[method], endpoint=endpoint)
                        for method, path, endpoint in ROUTES
                        if _noun(path) == noun
                    ],
                    strict_slashes=False,
                    merge_slashes=False,
                )
            return self._maps[noun]


def _noun(path: str) -> str:
    """The first part of a path behind `/v1`; parts that no route has count as one."""
    parts = path.removeprefix("/v1").split("/", 2)
    noun = parts[1] if len(parts) > 1 else ""
    return noun if noun in NOUNS else ""


def _is_api(path: str) -> bool:
    return path == "/v1" or path.startswith("/v1/")


def _check_key(request: Request) -> None:
    if request.path.rstrip("/") in OPEN_PATHS:
        return
    key = request.environ.get("rebyte.key")
    if not key:
        raise Refusal(401, "missing_api_key", "API_KEY header is missing")
    if not key.startswith("rbk_") or key == "rbk_invalid":
        raise Refusal(401, "invalid_api_key", "API key is invalid or expired")
    if key == "rbk_readonly" and request.method not in ("GET", "HEAD"):
        raise Refusal(403, "insufficient_scopes", "The key may read only (tasks:read)")


def _as_refusal(environ: Environ, error: HTTPException) -> Refusal:
    method = environ["REQUEST_METHOD"]
    path = environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace")
    if isinstance(error, MethodNotAllowed):
        allowed = ", ".join(sorted(error.valid_methods or ()))
        message = f"{path} does not take {method}, only {allowed}"
        return Refusal(405, "method_not_allowed", message, Allow=allowed)
    if isinstance(error, NotFound):
        return Refusal(404, "not_found", f"There is no {method} {path}")
    status = error.code or 500
    code = "validation_error" if status < 500 else "internal_error"
    return Refusal(status, code, error.description or responses.get(status, "Refused"))
