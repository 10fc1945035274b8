"""What an endpoint is given and what it gives back, over WSGI.

werkzeug has such classes as well; importing it takes a sixth of the CPU time of a short command
(17 of 107 ms). Here it only parses forms and chunked bodies, which a command rarely sends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from http import HTTPStatus
from typing import IO, Any
from urllib.parse import parse_qsl

PLAIN = "text/plain; charset=utf-8"


class HttpRequest:
    """A request as the server hands it over; nothing is read before it is asked for."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self.environ = environ
        self.method: str = environ["REQUEST_METHOD"].upper()

    @cached_property
    def path(self) -> str:
        """The path, decoded, with one slash at its start. What is not UTF-8 in it is replaced."""
        raw: bytes = self.environ["PATH_INFO"].encode("latin-1")  # how WSGI wraps bytes
        return "/" + raw.decode("utf-8", "replace").lstrip("/")

    @cached_property
    def args(self) -> Mapping[str, str]:
        """The query; of a name that is given twice, the first value."""
        pairs = parse_qsl(self.environ["QUERY_STRING"], keep_blank_values=True)
        return dict(reversed(pairs))

    @cached_property
    def cookies(self) -> Mapping[str, str]:
        """The cookies by name, as they came."""
        pairs = (part.partition("=") for part in (self.header("Cookie") or "").split(";"))
        return {name.strip(): value.strip() for name, _, value in pairs}

    def header(self, name: str) -> str | None:
        """A header by its name in any case; None if the request has none."""
        key = name.upper().replace("-", "_")
        value = self.environ.get(
            key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
        )
        return None if value is None else str(value)

    @property
    def mimetype(self) -> str:
        """The type of the body in lower case, without parameters; empty if there is none."""
        return (self.header("Content-Type") or "").partition(";")[0].strip().lower()

    @property
    def content_length(self) -> int | None:
        """The length of the body in bytes; None if it is not told."""
        value = self.header("Content-Length")
        return int(value) if value and value.isdigit() and not self.is_chunked else None

    @property
    def is_chunked(self) -> bool:
        """Whether the body comes in chunks."""
        return "chunked" in (self.header("Transfer-Encoding") or "").lower()

    @property
    def stream(self) -> IO[bytes]:
        """The body, which ends where the request does."""
        body: IO[bytes] = self.environ["wsgi.input"]
        return body


class HttpResponse:
    """An answer. `body` is text, bytes or an iterable of bytes, which is closed at the end."""

    def __init__(
        self,
        body: str | bytes | Iterable[bytes] = b"",
        status: int = 200,
        *,
        content_type: str | None = PLAIN,
    ) -> None:
        self.body = body.encode("utf-8", "replace") if isinstance(body, str) else body
        self.status = status
        self.headers: dict[str, str] = {}
        if content_type is not None:
            self.headers["Content-Type"] = content_type
        if isinstance(self.body, bytes) and status != 204:
            self.headers["Content-Length"] = str(len(self.body))

    def __call__(
        self, environ: Mapping[str, Any], start: Callable[[str, list[tuple[str, str]]], Any]
    ) -> Iterable[bytes]:
        """Answer as a WSGI application does."""
        start(f"{self.status} {HTTPStatus(self.status).phrase}", list(self.headers.items()))
        if isinstance(self.body, bytes):
            return [self.body]
        if environ["REQUEST_METHOD"] != "HEAD":
            return self.body
        close = getattr(self.body, "close", None)
        if close is not None:
            close()
        return []
