"""What `-v` and `--debug` show of a call, with everything secret taken out.

A signature, a proxy password or the key itself must not get into a terminal, a CI log or a
bug report, so nothing here hands out text that has not passed through `Redactor`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from requests import Response

    from .request import Request

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
# Compiled by the first text that needs them: most runs log nothing.
# The query of any absolute URL is taken for a signature. Quotes end it; backslashes do not, for
# JSON may write & as \u0026 and / as \/.
_QUERY = r"(https?:(?:\\?/){2}[^\s\"'<>?]*\?)[^\s\"'<>]*"
_USER = r"(https?:(?:\\?/){2})[^\s\"'<>/@]*@"
_FIELD = r'("(?:sandboxApiKey|apiKey|api_key|secret|sharedSecret)"\s*:\s*)"(?:[^"\\]|\\.)*"?'


class Redactor:
    """Takes the key, signatures, passwords and secret fields out of text."""

    def __init__(self, *secrets: str) -> None:
        # The longest first: a query holds its values.
        self._secrets = sorted(filter(None, secrets), key=len, reverse=True)

    def knowing(self, url: str) -> Redactor:
        """One that also knows the query of this URL: a store repeats it in its errors."""
        from urllib.parse import parse_qsl, quote

        query = url.partition("?")[2]
        values = [value for _, value in parse_qsl(query) if len(value) > 5]
        return Redactor(*self._secrets, query, *values, *(quote(v, safe="") for v in values))

    def key(self, text: str) -> str:
        """The text without the key; for what cannot hold another secret."""
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return text

    def text(self, text: str) -> str:
        """The text with every secret replaced by `[hidden]`."""
        text = self.key(text)
        text = re.sub(_QUERY, r"\1" + HIDDEN, text)
        text = re.sub(_USER, r"\1" + HIDDEN + "@", text)
        return re.sub(_FIELD, r'\1"' + HIDDEN + '"', text)

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """The headers, those that authenticate somebody blanked."""
        return {
            name: HIDDEN if name.lower() in _SECRET_HEADERS else self.text(str(value))
            for name, value in headers.items()
        }

    def body(self, body: Any) -> str | None:
        """A body as text; a body that is not text is named by its size only."""
        if body is None or body == b"":
            return None
        if not isinstance(body, (bytes, bytearray)):
            return "(a file)"
        try:
            return self.text(bytes(body).decode())
        except UnicodeDecodeError:
            return f"({len(body)} bytes)"


class CallLog(NamedTuple):
    """One try of one call. `-v` shows the first six fields, `--debug` all of it.

    `status` is None when no answer came, and `error` says why. `retry` is 0 for the first try.
    `request_headers` to `curl` are empty unless the transport was told to keep details.
    """

    method: str
    path: str
    status: int | None
    seconds: float
    retry: int
    error: str | None
    request_headers: Mapping[str, str] = {}
    request_body: str | None = None
    response_headers: Mapping[str, str] = {}
    response_body: str | None = None
    curl: str | None = None


def curl_line(
    method: str, url: str, headers: Mapping[str, str], body: str | None, *, file: bool = False
) -> str:
    """The call as a command to paste: the key comes from the environment, secrets stay out.

    `file` says that the body is a file, which is then called FILE.
    """
    from shlex import quote

    words = ["curl"] if method == "GET" else ["curl", "-X", method]
    words.append(quote(url))
    for name, value in headers.items():
        if name.lower() == "api_key":
            words += ["-H", '"API_KEY: $REBYTE_API_KEY"']
        elif name.lower() not in ("user-agent", "accept-encoding", "content-length"):
            words += ["-H", quote(f"{name}: {value}")]
    if file:
        words += ["-T", "FILE"]
    elif body is not None:
        words += ["--data-raw", quote(body)]
    return " ".join(words)


class Try:
    """What is known of one try, for the log."""

    def __init__(self, call: Request, retry_number: int, started: float) -> None:
        self.call = call
        self.retry = retry_number
        self.started = started
        self.status: int | None = None
        self.error: str | None = None
        self.headers: Mapping[str, str] = {}
        self.body: bytes | None = None

    def answered(self, response: Response) -> None:
        """Note the head of an answer."""
        self.status = response.status_code
        self.headers = response.headers

    def record(self, redact: Redactor, now: float) -> CallLog:
        """The log of it; `now` is the clock it was started by."""
        call = self.call
        if "API_KEY" not in call.headers:
            redact = redact.knowing(call.url)
        body = redact.body(call.body)
        headers = redact.headers(call.headers)
        url = _address(call, redact)
        query = url.partition("?")[2]
        return CallLog(
            call.method,
            f"{call.path}?{query}" if query else call.path,
            self.status,
            now - self.started,
            self.retry,
            self.error,
            headers,
            body,
            redact.headers(self.headers),
            redact.body(self.body),
            curl_line(call.method, url, headers, body, file=callable(call.body)),
        )


def _address(call: Request, redact: Redactor) -> str:
    # The query of a call of our own says what was asked; that of any other URL is a signature.
    return redact.key(call.url) if "API_KEY" in call.headers else redact.text(call.url)
