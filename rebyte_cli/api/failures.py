"""Turn failures and statuses into our own errors, with one short line each.

No text of requests or urllib3 gets out: theirs contains URLs with signatures, proxy passwords
and, in one case, headers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ..errors import (
    KEYS_PAGE,
    AgentUnusable,
    APIError,
    BadUsage,
    BrokenAnswer,
    BudgetRefused,
    KeyRejected,
    Next,
    OutcomeUnknown,
    Redirected,
    ResourceNotFound,
    ServerFault,
    Term,
)

LONGEST_MESSAGE = 300
OUT_OF_MEMORY = "out_of_memory"
_LOGIN = "run " + Next("auth", "login") + f" or set REBYTE_API_KEY; create a key at {KEYS_PAGE}"
RETIRED = re.compile(
    r"\bAPI\b.*\b(retired|sunset|discontinued|shut down|no longer (available|supported))\b", re.I
)
# What lists the things that a path of the API names behind its first word.
_LISTS = {
    "tasks": Next("list"),
    "workspaces": Next("workspace", "list"),
    "agent-computers": Next("workspace", "list"),
    "webhooks": Next("webhook", "list"),
}
_LOST = "the request may have succeeded; check before you send it again"


class AttemptFailed(Exception):
    """An attempt failed: `why` ends the sentence "METHOD PATH: …".

    `futile` says that another attempt cannot succeed; `code` is the machine word of the error.
    """

    def __init__(
        self, why: str, *, code: str | None = None, hint: str | None = None, futile: bool = False
    ) -> None:
        super().__init__(why)
        self.why = why
        self.code = code
        self.hint = hint
        self.futile = futile


def explain(error: BaseException, *, host: str, proxy: str | None, sent: bool) -> AttemptFailed:
    """What an exception of requests, urllib3 or the system means, for a person.

    `host` is the server's name; `proxy` the host of the proxy in between, or None.
    """
    import socket
    import ssl

    chain = list(_chain(error))
    names = {type(each).__name__ for each in chain}

    def having(kind: type[BaseException]) -> Any:
        return next((each for each in chain if isinstance(each, kind)), None)

    if names & {"InvalidProxyURL", "InvalidSchema", "ProxySchemeUnknown"}:
        raise BadUsage("the proxy named by HTTPS_PROXY or ALL_PROXY cannot be used") from None
    if not sent and (names & {"InvalidHeader", "InvalidURL"} or having(UnicodeError)):
        raise BadUsage("a header or the path holds a character that cannot be sent") from None
    if having(MemoryError):
        return AttemptFailed("this process is out of memory", code=OUT_OF_MEMORY, futile=True)
    there = f"proxy {proxy}" if proxy else host
    if certificate := having(ssl.SSLCertVerificationError):
        return AttemptFailed(
            f"the certificate of {host} is not trusted ({certificate.verify_message})",
            code="certificate",
            hint="If your network inspects TLS, set its CA with ca_bundle or SSL_CERT_FILE",
            futile=True,
        )
    if tunnel := next((t for each in chain if (t := _tunnel_status(each))), None):
        hint = "Give the proxy's user name and password in HTTPS_PROXY" if tunnel == 407 else None
        return AttemptFailed(
            f"{there} refused to connect ({tunnel})", hint=hint, futile=tunnel == 407
        )
    if having(socket.gaierror) or "NameResolutionError" in names:
        return AttemptFailed(f"no such host: {there}", hint="Check the base URL and your network")
    if having(TimeoutError) or names & {"ReadTimeoutError", "ConnectTimeoutError"}:
        return AttemptFailed(
            "timed out" if sent else f"timed out connecting to {there}", code="timeout"
        )
    if having(ConnectionRefusedError):
        return AttemptFailed(f"{there} refused the connection")
    if "IncompleteRead" in names:
        return AttemptFailed("the answer was cut off", code="broken_answer")
    if having(ssl.SSLError):
        return AttemptFailed(f"TLS with {there} failed")
    if having(ConnectionError) or "RemoteDisconnected" in names:
        return AttemptFailed(f"{there} closed the connection")
    not_http = {"BadStatusLine", "LineTooLong", "HTTPException", "UnknownProtocol"}
    if names & {*not_http, "InvalidHeader"}:
        return AttemptFailed("the answer is not HTTP", code="broken_answer")
    system = having(OSError)
    why = getattr(system, "strerror", None)
    return AttemptFailed(
        f"{there} cannot be reached" + (f" ({why})" if isinstance(why, str) else "")
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    # urllib3 and requests keep the real reason in `reason`, in `args` or in the context.
    seen: set[int] = set()
    todo: list[Any] = [error]
    while todo:
        each = todo.pop(0)
        if isinstance(each, BaseException) and id(each) not in seen:
            seen.add(id(each))
            yield each
            reason = getattr(each, "reason", None)
            todo += [reason, each.__cause__, each.__context__, *each.args]


def _tunnel_status(error: BaseException) -> int | None:
    found = re.match(
        r"Tunnel connection failed: (\d{3})\b", str(error.args[0]) if error.args else ""
    )
    return int(found[1]) if found else None


def refusal(
    method: str,
    path: str,
    status: int,
    body: Any,
    *,
    html: bool = False,
    unknown: bool = False,
    retried: bool = False,
    retry_after: float | None = None,
    if_rejected: str | None = None,
) -> APIError:
    """The error for a status outside 2xx.

    `body` is the decoded body (None when it was not JSON), `html` whether it looked like a
    page, `unknown` whether a create went out and this status does not say what became of it.
    `retried` and `retry_after` are as in APIError. `if_rejected` is as in Transport.
    Shape of the body: `error.code` and `error.message` (vendor docs), or `message` or
    `realMessage` at the top (seen in clients). `error.hint`, and `error.fix` without
    what only the command line can do, are the local service's own.
    """
    code, message, hint = _told(body)
    said = message or f"{method} {path} was answered {status}" + (
        " with a web page" if html else ""
    )
    rest: dict[str, Any] = {"status_code": status, "response": body, "retry_after": retry_after}
    if 300 <= status < 400 and not unknown:
        return Redirected(
            f"{method} {path} was answered with a redirect ({status}), which is not followed",
            hint="Check the base URL; a redirect would carry the key elsewhere",
            **named_by(path),
            **rest,
        )
    if unknown:
        whose = f"{method} {path}: {said}" if message else said
        return OutcomeUnknown(whose, hint=_LOST, **named_by(path), **rest)
    if path == "/tasks" and _is_gone(method, status, said=None if html else message):
        words = f"{status}: {message}" if message else status
        return ResourceNotFound(
            f"this API has no /tasks ({words}): the base URL is wrong or the API was retired",
            hint="See " + Next("profile", "show") + "; the base URL ends with /v1",
            code=code,
            **rest,
        )
    if status in (401, 403):
        remedy = (if_rejected or _LOGIN) if status == 401 else _scope_hint(method)
        return KeyRejected(said, hint=remedy, code=code, **rest)
    if status == 402 and code == BudgetRefused.code:
        return BudgetRefused(said, hint=hint, **rest)
    if code == AgentUnusable.code:
        return AgentUnusable(said, hint=hint, code=code, **rest)
    absent = status in (404, 410)
    kind = ResourceNotFound if absent else ServerFault if status >= 500 else APIError
    hint = hint or (_list_hint(path) if absent else None)
    rest |= {"subject": (subject := _subject(path)), "retried": retried}
    names_subject = subject is not None and _names(said, subject)
    return kind(said, hint=hint, code=code, names_subject=names_subject, **rest)


def _is_gone(method: str, status: int, *, said: str | None) -> bool:
    """Whether a refusal of /tasks itself means that there are no tasks here; `said` is its text.

    A create may be answered 404 because of the workspace that it names: the text then says so. A
    vendor's guide calls an earlier API retired, so /tasks may be closed one day.
    """
    if status in (404, 410) and (method == "GET" or said is None):
        return True
    return 400 <= status < 500 and (status == 410 or RETIRED.search(said or "") is not None)


def broken(method: str, path: str, why: str, **rest: Any) -> BrokenAnswer:
    """The error for a response that cannot be used, as its message says after METHOD PATH."""
    return BrokenAnswer(f"{method} {path}: {why}", **named_by(path), **rest)


def named_by(path: str) -> dict[str, Any]:
    """What an APIError whose message has this path is about."""
    return {"subject": _subject(path), "names_subject": True}


def _names(said: str, subject: str) -> bool:
    """Whether a service names what the call was about, and not just such a word or letters."""
    if said.startswith(f"{subject}: "):
        return True
    # A subject of letters only could be any word: it is named if it ends a path, or is set off.
    before = r"[/:'\"`]\s?" if subject.isalpha() else r"(?<![\w-])"
    return re.search(rf"{before}{re.escape(subject)}(?![\w-])", said) is not None


def _list_hint(path: str) -> str | None:
    """The commands that list what a call with this path can be about."""
    noun, *rest = path.strip("/").split("/")
    if not rest or rest == ["public_key"]:
        return None
    command = _LISTS.get(noun)
    if command and rest[1:2] == ["artifacts"] and len(rest) == 3:  # it or its workspace is missing
        return "See " + Next("artifact", "list", rest[0]) + " or " + command
    return "See " + command if command else None


def _subject(path: str) -> str | None:
    """The id, or the name of the artifact, that a call with this path is about."""
    from urllib.parse import unquote

    noun, *rest = path.strip("/").split("/")
    if noun not in _LISTS or not rest:
        return None
    return unquote(rest[2]) if rest[1:2] == ["artifacts"] and len(rest) == 3 else rest[0]


def lost(method: str, path: str, why: str, **rest: Any) -> OutcomeUnknown:
    """The error for a create or follow-up that went out and was not answered."""
    rest |= named_by(path)
    return OutcomeUnknown(f"{method} {path} was sent, but {why}", hint=_LOST, **rest)


def one_line(text: Any) -> str:
    """Text of the server as one line of at most 300 characters; empty for anything else."""
    line = " ".join(text[: LONGEST_MESSAGE * 4].split()) if isinstance(text, str) else ""
    return line if len(line) <= LONGEST_MESSAGE else line[: LONGEST_MESSAGE - 1] + "…"


def _told(body: Any) -> tuple[str | None, str | None, str | None]:
    """The code in a response, its message and its hint."""
    fields = body if isinstance(body, dict) else {}
    inner = fields.get("error")
    own = inner if isinstance(inner, dict) else {"message": inner}
    code = own.get("code")
    if not isinstance(code, str) or not code or len(code) > 64:
        code = None
    places = (own.get("message"), fields.get("message"), fields.get("realMessage"))
    hint, fix = one_line(own.get("hint")), one_line(own.get("fix"))
    message = next(filter(None, map(one_line, places)), code)
    return code, message, Term(hint, fix) if hint else None


def _scope_hint(method: str) -> str:
    # tasks:read is the one scope that any source names (seen in a client).
    if method == "GET":
        return f"The key lacks the scope `tasks:read`; create a key that has it at {KEYS_PAGE}"
    return f"The key has no scope that allows changes; create a key that has one at {KEYS_PAGE}"


# What a service answers for an endpoint that it does not have.
NO_SUCH_CALL = frozenset({404, 405, 410, 501})


def is_unsupported(error: APIError) -> bool:
    """Whether an endpoint that was seen in clients only is missing here, or means something else.

    A 404 may also mean that the task does not exist; reading the task itself tells which.
    """
    return isinstance(error, ResourceNotFound | BrokenAnswer) or error.status_code in NO_SUCH_CALL
