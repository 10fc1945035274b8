"""Call any endpoint by its method and path, and pass on the answer unchanged."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

from ..api.retry import RetryPolicy
from ..api.urls import PAGE
from ..errors import APIError, BadUsage, BrokenAnswer

if TYPE_CHECKING:
    from ..api.body import ApiResponse
    from ..api.client import RebyteClient

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "DELETE", "PUT"})  # twice is as good as once
_WHOLE = ("webhooks", "artifacts", "files")  # lists that come in one piece, under their own name


class RawRequest(NamedTuple):
    """What to send: `path` below the base URL, with its query; `data` the body's bytes or None."""

    method: str
    path: str
    data: bytes | None = None


def check_path(path: str, query: Iterable[tuple[str, str]]) -> str:
    """The path with the query added, if it can only mean something below the base URL.

    BadUsage for a URL: the key goes to the origin it was stored for and nowhere else. BadUsage
    also for `..`, which the HTTP library would resolve away.
    """
    if "://" in path.split("?", 1)[0] or path.startswith("//"):
        raise BadUsage(
            "expected a PATH, not a URL: the key is only sent to the API of the profile",
            hint="rebyte api GET /tasks; for another service use another profile",
        )
    if re.match(r"[A-Za-z]:[/\\]", path):
        raise BadUsage(
            f"not a path of the API: {path!r}",
            hint="Git Bash turns an argument that begins with / into the path of a file. Leave out"
            " the first slash: rebyte api tasks",
        )
    bare, _, own = path.partition("?")
    if "\\" in path or "#" in path or any(mark <= " " or mark == "\x7f" for mark in path):
        raise BadUsage("the path contains a character that must be written as %XX")
    if {".", ".."} & set(bare.lower().replace("%2e", ".").replace("%2f", "/").split("/")):
        raise BadUsage("the path must not contain `.` or `..`")
    added = urlencode(list(query))
    whole = "&".join(part for part in (own, added) if part)
    return f"/{bare.lstrip('/')}" + (f"?{whole}" if whole else "")


def check_body(text: bytes) -> bytes:
    """The body, if it is JSON in UTF-8; BadUsage with the place otherwise."""
    try:
        json.loads(text.decode("utf-8-sig" if text.startswith(b"\xef\xbb\xbf") else "utf-8"))
    except UnicodeDecodeError as error:
        raise BadUsage(f"the body is not UTF-8: byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise BadUsage(
            f"the body is not JSON: line {error.lineno}, column {error.colno}: {error.msg}"
        ) from None
    except (RecursionError, ValueError):
        raise BadUsage("the body is not JSON that can be read") from None
    return text.removeprefix(b"\xef\xbb\xbf")


def call(client: RebyteClient, request: RawRequest, *, with_headers: bool) -> Iterator[bytes]:
    """The bytes of the answer, headers before them when asked; then the error of a refusal.

    An event stream comes out as it comes in. Raises what the status stands for after the body,
    so that both are seen.
    """
    answer, error = _ask(client, request, live=True)
    if with_headers:
        yield _head(answer)
    if answer.coming is not None:
        yield from answer.coming
    yield _ended(answer.raw)
    if error is not None:
        raise error


def pages(client: RebyteClient, request: RawRequest, *, with_headers: bool) -> Iterator[bytes]:
    """As `call`, for each page of a list after another, by `limit` and `offset`.

    Ends with a page that is short of its limit or reaches `total`; a list without pages is one.
    BrokenAnswer for an answer that is no list, and for a page that comes again: a service that
    ignores `offset` would send it forever.
    """
    limit, offset, path = _window(request.path)
    before: list[Any] = []
    while True:
        window = urlencode({"limit": limit, "offset": offset})
        page = request._replace(path=f"{path}{'&' if '?' in path else '?'}{window}")
        answer, error = _ask(client, page)
        if with_headers:
            yield _head(answer)
        yield _ended(answer.raw)
        if error is not None:
            raise error
        document = _page(answer.raw)
        if document is None:
            return
        rows, total = document.get("data"), document.get("total")
        if not isinstance(rows, list) or (rows and rows == before):
            what = "the same page came twice" if before else "the answer is no page with `data`"
            raise BrokenAnswer(f"GET {path}: {what}", hint="Try again without --paginate")
        before = rows
        # A service may give less than was asked for, and says so in `limit`.
        given = document.get("limit")
        size = given if type(given) is int and 0 < given < limit else limit
        offset += len(rows)
        if len(rows) < size or (type(total) is int and offset >= total):
            return


def _ask(
    client: RebyteClient, request: RawRequest, *, live: bool = False
) -> tuple[ApiResponse, APIError | None]:
    repeat = RetryPolicy.SAFE if request.method in _SAFE else RetryPolicy.IF_UNSENT
    # Where events are, one client says, they must be asked for.
    headers = {"Accept": "application/json, text/event-stream, */*;q=0.5"}
    if request.data is not None:
        headers["Content-Type"] = "application/json"
    answer, error = client.transport.raw(
        request.method,
        request.path,
        data=request.data,
        headers=headers,
        repeat=repeat,
        live=live,
    )
    if error is not None and error.hint and error.exit_status not in (3, 6):
        # The body is on stdout, and says more than a guess of ours.
        error = error.copy_with(hint=None)
    return answer, error


def _window(path: str) -> tuple[int, int, str]:
    """The limit and offset of a path's query (100 and 0 without), and the path without them."""
    from urllib.parse import parse_qsl

    bare, _, query = path.partition("?")
    rest = []
    numbers = {"limit": PAGE, "offset": 0}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in numbers:
            rest.append((name, value))
        elif value.isascii() and value.isdigit() and len(value) < 10:
            numbers[name] = int(value)
        else:
            raise BadUsage(f"{name} is not a number: {value}")
    left = urlencode(rest)
    return numbers["limit"] or PAGE, numbers["offset"], bare + (f"?{left}" if left else "")


def _page(raw: bytes) -> Mapping[str, Any] | None:
    """The page, empty when it is none; None for a list that has no pages."""
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    if isinstance(document, list):
        return None
    if not isinstance(document, Mapping):
        return {}
    whole = "data" not in document and any(isinstance(document.get(n), list) for n in _WHOLE)
    return None if whole else document


def _head(answer: ApiResponse) -> bytes:
    """Status and headers as HTTP writes them; a line of each, whatever they hold."""
    from http.client import responses

    lines = [f"HTTP/1.1 {answer.status} {responses.get(answer.status, '')}".rstrip()]
    lines += [f"{name}: {' '.join(str(value).split())}" for name, value in answer.headers.items()]
    return "\n".join([*lines, "", ""]).encode("utf-8", "backslashreplace")


def _ended(raw: bytes) -> bytes:
    return raw + b"\n" if raw and not raw.endswith(b"\n") else raw
