"""What every endpoint needs: refusals, JSON answers, timestamps, checks of bodies and of callers.

The error envelope and its codes are those of the vendor's docs. Codes that no source names
(`conflict`, `method_not_allowed`, `payload_too_large`, `misdirected_request`, `foreign_origin`) are
this service's own.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from .agents.agent_permission import AgentPermission
from .store import Store
from .wsgi import HttpRequest, HttpResponse

JsonObject = dict[str, Any]

LARGEST_JSON = 8 * 1024 * 1024
LARGEST_OFFSET = 1 << 62


class Context(NamedTuple):
    """What an endpoint may touch.

    `links` is the origin that links to tasks point at. `is_embedded` says that the service is
    inside the process of a command, so that its own address ends with it.
    """

    store: Store
    base: str
    storage: str
    links: str
    secret: bytes
    instance: str
    stopping: threading.Event
    wake: Callable[[], None]
    announce: Callable[[str], None]
    permission: AgentPermission
    config_file: Path | None
    is_embedded: bool


class Refusal(Exception):
    """An answer in the error envelope.

    `hint` says what to do about it, and `fix` the same without options of the command line, for
    its users who have none; both are this service's own addition to the envelope.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        hint: str | None = None,
        fix: str | None = None,
        **headers: str,
    ) -> None:
        super().__init__(message)
        self.fix = fix
        self.hint = hint
        self.status = status
        self.code = code
        self.message = message
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def invalid(message: str) -> NoReturn:
    """Refuse with 400 `validation_error`."""
    raise Refusal(400, "validation_error", message)


def missing(what: str) -> Refusal:
    """404 `not_found` for a thing called `what`."""
    return Refusal(404, "not_found", f"{what} not found")


def reply(document: object, status: int = 200) -> HttpResponse:
    """A JSON answer. ASCII only, so that lone surrogates in titles survive."""
    return HttpResponse(json.dumps(document), status, content_type="application/json")


def refuse(refusal: Refusal) -> HttpResponse:
    """The error envelope of `refusal`."""
    error = {"code": refusal.code, "message": refusal.message}
    if refusal.hint is not None:
        error["hint"] = refusal.hint
    if refusal.fix is not None:
        error["fix"] = refusal.fix
    answer = reply({"error": error}, status=refusal.status)
    answer.headers.update(refusal.headers)
    return answer


def empty() -> HttpResponse:
    """204 without a body."""
    return HttpResponse(status=204, content_type=None)


def stamp(moment: int) -> str:
    """ISO 8601, UTC, milliseconds, `Z` (seed document)."""
    seconds, milliseconds = divmod(moment, 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{milliseconds:03d}Z"


def maybe_stamp(moment: int | None) -> str | None:
    """`stamp`, or null."""
    return None if moment is None else stamp(moment)


def body_of(request: HttpRequest) -> JsonObject:
    """The JSON object in the body. Anything else is refused with a reason."""
    if request.mimetype != "application/json":
        invalid("The body must be JSON, sent with Content-Type: application/json")
    length = request.content_length
    if (length or 0) > LARGEST_JSON:
        raise Refusal(413, "payload_too_large", "The body is larger than 8 MiB")
    try:
        # `read` allocates what it is asked for at once, for each request in progress.
        raw = request.stream.read(LARGEST_JSON + 1 if length is None else length)
    except ConnectionError:
        raise
    except OSError as error:
        invalid(f"The body cannot be read: {error}")
    if len(raw) > LARGEST_JSON:
        raise Refusal(413, "payload_too_large", "The body is larger than 8 MiB")
    try:
        document = json.loads(raw, parse_constant=_no_constant)
        # A lone surrogate can be written in JSON but not stored as text.
        json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        invalid(f"The body is not valid JSON: {reason}")
    if not isinstance(document, dict):
        invalid("The body must be a JSON object")
    return document


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def optional_text(body: JsonObject, name: str, *, most: int, least: int = 0) -> str | None:
    """A string of `least` to `most` characters, or None when the key is missing.

    `null` is refused, as the OpenAPI document allows strings only.
    """
    if name not in body:
        return None
    value = body[name]
    if not isinstance(value, str):
        invalid(f"{name} must be a string")
    if len(value) < least:
        invalid(f"{name} must not be empty")
    if len(value) > most:
        invalid(f"{name} must be at most {most} characters, and has {len(value)}")
    return value


def text(body: JsonObject, name: str, *, most: int) -> str:
    """A required, non-empty string."""
    value = optional_text(body, name, most=most, least=1)
    if value is None:
        invalid(f"{name} is required")
    return value


def optional_choice(body: JsonObject, name: str, choices: tuple[str, ...]) -> str | None:
    """One of `choices`, or None when the key is missing."""
    value = optional_text(body, name, most=1000)
    if value is not None and value not in choices:
        invalid(f"{name} must be one of {', '.join(choices)}")
    return value


def integer(value: object, name: str) -> int:
    """A whole number of 0 or more. `1.0` is one too, as JSON Schema has it."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        invalid(f"{name} must be a whole number of 0 or more")
    return value


def strings(body: JsonObject, name: str) -> list[str]:
    """A list of non-empty strings; empty when the key is missing."""
    value = body.get(name, [])
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        invalid(f"{name} must be a list of non-empty strings")
    return value


def budgets(body: JsonObject) -> list[JsonObject]:
    """The limits of `budgetTokens` and `budgetUsd`: `tokens`, or dollars as `cost`."""
    found: list[JsonObject] = []
    for name, key in (("budgetTokens", "tokens"), ("budgetUsd", "cost")):
        amount = body.get(name)
        if amount is None:
            continue
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not amount >= 0:
            invalid(f"{name} must be a number, 0 or more")
        found.append({key: amount})
    return found


def objects(body: JsonObject, name: str) -> list[JsonObject]:
    """A list of JSON objects; empty when the key is missing."""
    value = body.get(name, [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        invalid(f"{name} must be a list of objects")
    return value


def page_of(request: HttpRequest) -> tuple[int, int]:
    """`limit` (1 to 100, default 50) and `offset` (default 0) of the query."""
    limit, offset = _count(request, "limit", 50), _count(request, "offset", 0)
    if not 1 <= limit <= 100:
        invalid("limit must be from 1 to 100")
    return limit, offset


def _count(request: HttpRequest, name: str, default: int) -> int:
    value = request.args.get(name)
    if value is None:
        return default
    if not (value.isascii() and value.isdigit()):
        invalid(f"{name} must be a whole number of 0 or more")
    return min(int(value), LARGEST_OFFSET) if len(value) < 20 else LARGEST_OFFSET


def is_open(workspace: str) -> str:
    """The SQL condition for a workspace, named by a column, that any key may see."""
    return f"NOT EXISTS (SELECT 1 FROM runs WHERE runs.workspace = {workspace})"  # noqa: S608 - ours


def is_private(db: sqlite3.Connection, workspace: str) -> bool:
    """Whether a real agent has run in the workspace, or is about to."""
    found = db.execute("SELECT 1 FROM runs WHERE workspace = ? LIMIT 1", (workspace,)).fetchone()
    return found is not None


class Caller:
    """Who makes a request, and may see what real agents did: one decision, by workspace.

    Once a real agent has run in a workspace, it holds the user's code, and every other user of this
    machine reaches the port. From then on everything in it is for the machine's own key alone:
    tasks that were simulated there before, artifacts, signed URLs and deliveries too. For any other
    key it does not exist.

    Ask in the transaction that reads or writes: a run may begin at any time. `is_own` is called
    the first time that it matters, since it reads a file and most workspaces are open to all.
    """

    def __init__(self, is_own: Callable[[], bool]) -> None:
        self._is_own = is_own

    @cached_property
    def is_own(self) -> bool:
        """Whether the caller has the machine's own key."""
        return self._is_own()

    def sees(self, db: sqlite3.Connection, workspace: str) -> bool:
        """Whether the caller may see a workspace and change what is in it."""
        return not is_private(db, workspace) or self.is_own

    def check(self, db: sqlite3.Connection, workspace: str, what: str) -> None:
        """Raise Refusal, as if there were no such thing, unless the caller sees the workspace."""
        if not self.sees(db, workspace):
            raise missing(what)


def check_workspace(db: sqlite3.Connection, caller: Caller, workspace: str) -> None:
    """Raise Refusal if there is no such workspace, or not for the caller."""
    caller.check(db, workspace, "Workspace")
    if db.execute("SELECT 1 FROM workspaces WHERE id = ?", (workspace,)).fetchone() is None:
        raise missing("Workspace")


def caller_of(context: Context, request: HttpRequest) -> Caller:
    """The caller of a request to the API, or of a page."""
    return Caller(lambda: context.permission.is_own(request.environ.get("rebyte.key")))
