"""A request before anything has happened to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .retry import RetryPolicy

if TYPE_CHECKING:
    from .connection import AttemptState


class Request:
    """What is to be sent, and under which rules.

    `path` names the call in messages and logs (never with a signature), `url` is where it goes.
    `body` is bytes, None, or a function that opens a fresh reader for each attempt. `seconds` is
    the time limit of the whole call. With `idle`, that limit covers the way to the headers only,
    and `idle` bounds each read or write of a body; with `per_attempt` it starts again for each
    attempt.
    """

    __slots__ = (
        "body",
        "headers",
        "idle",
        "method",
        "path",
        "per_attempt",
        "repeat",
        "seconds",
        "url",
    )

    def __init__(
        self,
        method: str,
        path: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | Callable[[AttemptState], Any] | None = None,
        repeat: RetryPolicy,
        seconds: float,
        idle: float | None = None,
        per_attempt: bool = False,
    ) -> None:
        self.method = method
        self.path = path
        self.url = url
        self.headers = headers
        self.body = body
        self.repeat = repeat
        self.seconds = seconds
        self.idle = idle
        self.per_attempt = per_attempt
