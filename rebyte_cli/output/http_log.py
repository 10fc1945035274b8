"""What `-v` and `--debug` print for each request. The transport has redacted the secrets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .console import Console, clean, one_line


def call_logger(console: Console, *, debug: bool) -> Callable[[Any], None]:
    """A function that prints an `api.log.CallLog`: a line, with `debug` also headers and bodies."""

    def log(call: Any) -> None:
        if not console.quiet:
            console.write_err(_line(call) + (_details(call) if debug else ""))

    return log


def _line(call: Any) -> str:
    """Method, path, status, time and retry: `GET /tasks?limit=50 200 132ms retry 1`."""
    outcome = str(call.status) if call.status is not None else "-"
    words = [call.method, call.path, outcome, f"{call.seconds * 1000:.0f}ms"]
    if call.retry:
        words.append(f"retry {call.retry}")
    if call.error:
        words.append(call.error)
    return one_line(" ".join(words)) + "\n"


def _details(call: Any) -> str:
    text = _said("> ", call.request_headers, call.request_body)
    text += _said("< ", call.response_headers, call.response_body)
    return text + (f"$ {clean(call.curl)}\n" if call.curl else "")


def _said(mark: str, headers: Mapping[str, str], body: str | None) -> str:
    lines = [one_line(f"{name}: {value}") for name, value in headers.items()]
    if body:
        lines += ["", *clean(body).rstrip("\n").split("\n")]
    return "".join((mark + line).rstrip() + "\n" for line in lines)
