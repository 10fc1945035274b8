"""What the gateway itself answers, when it does not pass a request on."""

from __future__ import annotations

import json
from http import HTTPStatus

import h11

# Of Anthropic (type) and Gemini (status); OpenAI's is free.
_WORDS = {
    401: ("authentication_error", "UNAUTHENTICATED"),
    402: ("billing_error", "RESOURCE_EXHAUSTED"),
    403: ("permission_error", "PERMISSION_DENIED"),
    413: ("request_too_large", "INVALID_ARGUMENT"),
    502: ("api_error", "UNAVAILABLE"),
    503: ("overloaded_error", "UNAVAILABLE"),
    504: ("timeout_error", "DEADLINE_EXCEEDED"),
}


class GatewayRefusal(Exception):
    """A request that does not pass, or that the outside did not answer.

    `status` is the HTTP status of the answer (502 and 504 for faults of the outside), `reason` a
    sentence without secrets, and `option` the option of the command that would let it pass.
    """

    def __init__(self, status: int, reason: str, option: str | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.option = option

    @property
    def is_fault(self) -> bool:
        """Whether the outside is to blame, rather than the request."""
        return self.status in (502, 504)

    def body(self) -> bytes:
        """The reason in JSON, where agents look for it in the errors of each of their models."""
        kind, word = _WORDS.get(self.status, ("invalid_request_error", "FAILED_PRECONDITION"))
        error = {"type": kind, "code": self.status, "status": word, "message": self.reason}
        return json.dumps({"type": "error", "error": error}).encode() + b"\n"

    def head(self, length: int) -> h11.Response:
        """The status and the headers of the answer."""
        headers = [
            (b"Content-Type", b"application/json"),
            (b"Content-Length", b"%d" % length),
            (b"Connection", b"close"),
            (b"X-Rebyte-Gateway", b"refused"),
        ]
        if self.status == 426:
            headers.append((b"Upgrade", b"HTTP/1.1"))
        if self.status == 503:
            headers.append((b"Retry-After", b"10"))
        phrase = HTTPStatus(self.status).phrase.encode()
        return h11.Response(status_code=self.status, headers=headers, reason=phrase)
