"""Outbound webhooks of the organization."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from ..errors import BrokenAnswer
from .base import Calls
from .origin import check_id
from .retry import Repeat


class Webhooks(Calls):
    """The calls under `/webhooks`."""

    def create_webhook(
        self,
        url: str,
        events: Iterable[str],
        *,
        description: str | None = None,
        secret: str | None = None,
    ) -> dict[str, Any]:
        """Register a URL (https) for events such as `task.completed`; three at most per
        organization (vendor docs). Whether a known URL makes a second one is disputed: list first.
        """
        body: dict[str, Any] = {"url": url, "events": list(events)}
        if description is not None:
            body["description"] = description
        if secret is not None:
            body["secret"] = secret
        return self._created("/webhooks", body, "id")

    def list_webhooks(self) -> list[dict[str, Any]]:
        """Every webhook; the list sits under `webhooks` (seen in a client)."""
        return self._rows("/webhooks", "webhooks", "data")

    def get_webhook(self, webhook_id: str) -> dict[str, Any]:
        """One webhook (path documented). The secret is never returned."""
        return self._object("GET", f"/webhooks/{check_id(webhook_id, 'webhook id')}")

    def delete_webhook(self, webhook_id: str) -> None:
        """Remove a webhook (path documented)."""
        self._delete(f"/webhooks/{check_id(webhook_id, 'webhook id')}")

    def webhook_public_key(self) -> str:
        """The PEM key that deliveries are signed with (path documented, shape unknown).

        Taken from plain text, from a JSON string, or from the first value of a JSON object
        that looks like a key.
        """
        path = "/webhooks/public_key"
        headers = {"Accept": "application/json, text/plain"}
        answer = self.transport.raw("GET", path, headers=headers, repeat=Repeat.SAFE, check=True)
        text = answer.raw.decode(errors="replace")
        try:
            document: Any = json.loads(text)
        except (ValueError, RecursionError):
            document = text
        for found in _strings(document):
            if found.lstrip().startswith("-----BEGIN "):
                return found.strip() + "\n"
        raise BrokenAnswer(f"GET {path}: the answer holds no PEM key")


def _strings(document: Any, depth: int = 0) -> Iterator[str]:
    if isinstance(document, str):
        yield document
    elif isinstance(document, dict) and depth < 3:
        for value in document.values():
            yield from _strings(value, depth + 1)
