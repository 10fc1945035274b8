"""What `-v` and `--debug` print for each request. The transport has redacted the secrets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from .console import Console, clean, one_line


class LoggedCall(Protocol):
    """One attempt of a request: times in seconds, `status` None without a response, `retry` 0 for
    the first attempt."""

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def status(self) -> int | None: ...
    @property
    def seconds(self) -> float: ...
    @property
    def retry(self) -> int: ...
    @property
    def error(self) -> str | None: ...
    @property
    def request_headers(self) -> Mapping[str, str]: ...
    @property
    def request_body(self) -> str | None: ...
    @property
    def response_headers(self) -> Mapping[str, str]: ...
    @property
    def response_body(self) -> str | None: ...
    @property
    def curl(self) -> str | None: ...


def call_logger(console: Console, *, debug: bool) -> Callable[[LoggedCall], None]:
    """A function that prints a call on stderr: a line, with `debug` also headers and bodies."""

    def log(call: LoggedCall) -> None:
        if not console.quiet:
            console.write_err(_line(call) + (_details(call) if debug else ""))

    return log


def _line(call: LoggedCall) -> str:
    """Method, path, status, time and retry: `GET /tasks?limit=50 200 132ms retry 1`."""
    outcome = str(call.status) if call.status is not None else "-"
    words = [call.method, call.path, outcome, f"{call.seconds * 1000:.0f}ms"]
    if call.retry:
        words.append(f"retry {call.retry}")
    if call.error:
        words.append(call.error)
    return one_line(" ".join(words)) + "\n"


def _details(call: LoggedCall) -> str:
    text = _said("> ", call.request_headers, call.request_body)
    text += _said("< ", call.response_headers, call.response_body)
    return text + (f"$ {clean(call.curl)}\n" if call.curl else "")


def _said(mark: str, headers: Mapping[str, str], body: str | None) -> str:
    lines = [one_line(f"{name}: {value}") for name, value in headers.items()]
    if body:
        lines += ["", *clean(body).rstrip("\n").split("\n")]
    return "".join((mark + line).rstrip() + "\n" for line in lines)
