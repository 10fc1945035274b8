"""Faults that a prompt asks for: calls that are refused, answered late, or never answered.

They let a script meet what a network can do to it, without a network.
"""

from __future__ import annotations

import hashlib
import threading

from ..system.http_server import HangUp
from .http import Refusal, invalid
from .steering import Words
from .store import Store
from .wsgi import HttpResponse

CODES = {
    401: "invalid_api_key",
    403: "insufficient_scopes",
    404: "not_found",
    409: "conflict",
    429: "rate_limited",
}
GATEWAY_PAGE = "<html><head><title>{0}</title></head><body><h1>{0} Bad gateway</h1></body></html>"


class HTMLRefusal(Exception):
    """A refusal that is an HTML page, as gateways answer."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTML {status}")
        self.response = HttpResponse(
            GATEWAY_PAGE.format(status), status, content_type="text/html; charset=utf-8"
        )


def refuse_if_asked(store: Store, prompt: str) -> None:
    """Refuse before anything is done, when `prompt` says so.

    Raises HangUp for `[[drop-before]]`, Refusal for `[[http=…]]`, HTMLRefusal for `[[html=…]]`.
    """
    words = Words(prompt)
    if "drop-before" in words:
        raise HangUp
    for name in ("http", "html"):
        try:
            wanted = words.refusal(name)
        except ValueError as error:
            invalid(f"prompt: {error}")
        if wanted is None or not _still(store, prompt, wanted[1]):
            continue
        status = wanted[0]
        if name == "html":
            raise HTMLRefusal(status)
        code = CODES.get(status, "internal_error" if status >= 500 else "validation_error")
        headers = {"Retry_After": "1"} if status in (429, 503) else {}
        raise Refusal(status, code, f"Refused with {status}, as the prompt asked", **headers)


def answer_late_or_never(stopping: threading.Event, prompt: str) -> None:
    """After the work: wait for `[[slow-create=…]]`, hang up for `[[drop]]`."""
    words = Words(prompt)
    if "slow-create" in words:
        stopping.wait(words.duration("slow-create", 0) / 1000)
    if "drop" in words:
        raise HangUp


def _still(store: Store, prompt: str, times: int | None) -> bool:
    """Whether this prompt has been refused fewer than `times` times."""
    if times is None:
        return True
    digest = hashlib.sha256(prompt.encode()).hexdigest()
    with store.write() as db:
        row = db.execute("SELECT times FROM refusals WHERE prompt = ?", (digest,)).fetchone()
        given = row[0] if row else 0
        db.execute("INSERT OR REPLACE INTO refusals VALUES (?, ?)", (digest, given + 1))
    return bool(given < times)
