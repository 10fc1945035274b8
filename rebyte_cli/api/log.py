"""What `-v` and `--debug` show of a call, with everything secret taken out.

A signature, a proxy password or the key itself must not get into a terminal, a CI log or a
bug report, so nothing here hands out text that has not passed through `Redactor`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .body import Request

HIDDEN = "[hidden]"
_SECRET_HEADERS = frozenset(
    {
        "api_key",
        "api-key",
        "x-api-key",
        "authorization",
        "proxy-authorization",
        "cookie",
        "set-cookie",
        "x-webhook-secret",
    }
)
# Headers whose value is a URL, perhaps a relative one: its query may be a signature.
_URL_HEADERS = frozenset({"location", "content-location", "refresh", "link"})
LONGEST_BODY = 1024 * 1024  # bytes of a body that `--debug` shows
MOST_SECRETS = 64  # of one signed URL; a query holds a dozen
SHORTEST_SIGNATURE = 20  # characters, in a path
_UUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
# A word ends at white space, angle brackets and quotes, but not at a quote that JSON escapes. The
# patterns are compiled by the first text that needs them, since most runs log nothing.
_WORD = r'(?:[^\s"<>\\]|\\.)+'
_FIELD = r'("(?:sandboxApiKey|apiKey|api_key|secret|sharedSecret)"\s*:\s*)"(?:[^"\\]|\\.)*"?'


class Redactor:
    """Takes the key, signatures, passwords and secret fields out of text, in linear time."""

    def __init__(self, *secrets: str) -> None:
        # The longest first: a query holds its values.
        self._secrets = sorted(filter(None, secrets), key=len, reverse=True)

    def knowing(self, url: str) -> Redactor:
        """One that also knows the signature in this URL: a store repeats it in its errors."""
        from urllib.parse import parse_qsl, quote

        path, _, query = url.partition("?")
        values = [value for _, value in parse_qsl(query) if len(value) > 5][:MOST_SECRETS]
        values += [part for part in path.split("/") if _may_be_signature(part)][:MOST_SECRETS]
        return Redactor(*self._secrets, query, *values, *(quote(v, safe="") for v in values))

    def key(self, text: str) -> str:
        """The text without the key and without what looks like one of another service."""
        from ..system.redaction import redact_keys  # compiles a pattern, which most runs do without

        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return redact_keys(text)

    def text(self, text: str) -> str:
        """The text with every secret replaced by `[hidden]`."""
        text = re.sub(_WORD, _without_signature, self.key(text))
        return re.sub(_FIELD, r'\1"' + HIDDEN + '"', text)

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """The headers, with the values of those that authenticate the sender replaced."""
        return {name: self._header(name.lower(), str(value)) for name, value in headers.items()}

    def _header(self, name: str, value: str) -> str:
        if name in _SECRET_HEADERS:
            return HIDDEN
        if name in _URL_HEADERS and "?" in value:
            value = value.partition("?")[0] + "?" + HIDDEN
        return self.text(value)

    def body(self, body: Any) -> str | None:
        """A body as text; a body that is not text is named by its size only."""
        if body is None or body == b"":
            return None
        if not isinstance(body, (bytes, bytearray)):
            return "(a file)"
        shown = bytes(body[:LONGEST_BODY])
        rest = len(body) - len(shown)
        try:
            text = self.text(shown.decode(errors="ignore" if rest else "strict"))
        except UnicodeDecodeError:
            return f"({len(body)} bytes)"
        return f"{text}\n({rest} more bytes)" if rest else text


def _without_signature(word: re.Match[str]) -> str:
    """A word without the signature and the user name of the URL in it, if there is one.

    The query of any absolute URL is taken for a signature, and so is a long part of its path. JSON
    may write `/` as `\\/`.
    """
    found = word[0]
    slashes, at = "//", found.find("//")
    escaped = found.find(r"\/\/")
    if escaped >= 0 and (at < 0 or escaped < at):
        slashes, at = r"\/\/", escaped
    if at < 0:
        return found
    start = at + len(slashes)
    bare, query, _ = found[start:].partition("?")
    host, *path = re.split(r"(\\?/|\\)", bare)
    if "@" in host:
        host = HIDDEN + host[host.rindex("@") :]
    bare = host + "".join(HIDDEN if _may_be_signature(part) else part for part in path)
    return found[:start] + bare + (query + HIDDEN if query else "")


def _may_be_signature(part: str) -> bool:
    """Whether a part of a path is long and random, as some stores sign there; a UUID is an id."""
    value = part.rpartition("=")[2]
    if len(value) < SHORTEST_SIGNATURE or re.fullmatch(_UUID, value):
        return False
    return any(map(str.isdigit, value)) and any(map(str.isalpha, value))


class CallLog:
    """One attempt of one call. `-v` shows the first six fields, `--debug` all of them.

    `status` is None when no response came, and `error` says why. `retry` is 0 for the first
    attempt. Secrets are taken out of what is asked for, when it is asked for.
    """

    def __init__(self, request: Request, retry: int, started: float, redact: Redactor) -> None:
        """`started` is the time by the caller's clock. What comes of it is filled in."""
        self._request = request
        self._redact = redact
        self.method = request.method
        self.retry = retry
        self.started = started
        self.status: int | None = None
        self.seconds = 0.0
        self.failure: str | None = None  # as it is; `error` shows it
        self.body: bytes | None = None  # of the response, as it came
        self.headers: Mapping[str, str] = {}  # of the response, as well

    @cached_property
    def _hide(self) -> Redactor:
        return self._redact if self._has_key else self._redact.knowing(self._request.url)

    @property
    def _has_key(self) -> bool:
        return "API_KEY" in self._request.headers

    def _address(self, text: str) -> str:
        # The query of a call of our own says what was asked; that of any other URL is a signature.
        return self._hide.key(text) if self._has_key else self._hide.text(text)

    @property
    def path(self) -> str:
        """The path and its query, without secrets."""
        path, query = self._address(self._request.path), self._url.partition("?")[2]
        return f"{path}?{query}" if query else path

    @property
    def _url(self) -> str:
        return self._address(self._request.url)

    @property
    def error(self) -> str | None:
        """Why no response came, without secrets; None if one did."""
        return self.failure and self._hide.text(self.failure)

    @property
    def request_headers(self) -> Mapping[str, str]:
        """What was sent, without secrets."""
        return self._hide.headers(self._request.headers)

    @property
    def request_body(self) -> str | None:
        """What was sent, without secrets; None for nothing."""
        return self._hide.body(self._request.body)

    @property
    def response_headers(self) -> Mapping[str, str]:
        """What came, without secrets; empty when nothing did."""
        return self._hide.headers(self.headers)

    @property
    def response_body(self) -> str | None:
        """What came, without secrets; None for nothing, or a body that was not kept."""
        return self._hide.body(self.body)

    @property
    def curl(self) -> str:
        """The call as a command to paste: the key comes from the environment, secrets stay out.

        A body that is a file, or as large as one, is called FILE.
        """
        from shlex import quote

        words = ["curl"] if self.method == "GET" else ["curl", "-X", self.method]
        words.append(quote(self._url))
        for name, value in self.request_headers.items():
            if name.lower() == "api_key":
                words += ["-H", '"API_KEY: $REBYTE_API_KEY"']
            elif name.lower() not in ("user-agent", "accept-encoding", "content-length"):
                words += ["-H", quote(f"{name}: {value}")]
        body = self._request.body
        if callable(body) or len(body or b"") > LONGEST_BODY:
            words += ["-T", "FILE"]
        elif (text := self.request_body) is not None:
            words += ["--data-raw", quote(text)]
        return " ".join(words)
