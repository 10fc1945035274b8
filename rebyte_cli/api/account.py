"""The account: credits and health; and calls of partners. All seen in clients only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .base import Calls
from .origin import check_id
from .retry import Repeat


class Account(Calls):
    """The calls around the account."""

    def credits(self) -> dict[str, Any]:
        """The organization's balance: numbers `balance`, `totalAvailable`, `lifetimeUsed`, …"""
        return self._object("GET", "/billing/credits")

    def health(self) -> dict[str, Any]:
        """`{status}` of the service, asked at the host's root and without the key."""
        answer = self.transport.without_key(f"{self.transport.origin}/health")
        return answer.data if isinstance(answer.data, dict) else {}

    def sandbox_api_key(self) -> dict[str, Any]:
        """`apiKey` and `baseUrl` for direct access to VMs. The key is a secret."""
        return self._object("GET", "/sandbox/api-key")

    def create_account(self, name: str, *, bill_to_parent: bool | None = None) -> dict[str, Any]:
        """A child account, for partner keys: `id` and `api_key`, which is shown only once."""
        body: dict[str, Any] = {"name": name}
        if bill_to_parent is not None:
            body["billToParent"] = bill_to_parent
        return self._created("/accounts", body, "id")

    def set_account_billing(self, account_id: str, *, bill_to_parent: bool) -> dict[str, Any]:
        """Who pays for a child account, for partner keys."""
        path = f"/accounts/{check_id(account_id, 'account id')}/billing"
        return self._object("PATCH", path, body={"billToParent": bill_to_parent})

    def top_up(
        self,
        account_id: str,
        amount: float,
        external_payment_id: str,
        *,
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Add credits to a child account, for partner keys."""
        body: dict[str, Any] = {
            "accountId": account_id,
            "amount": amount,
            "externalPaymentId": external_payment_id,
        }
        if description is not None:
            body["description"] = description
        if metadata is not None:
            body["metadata"] = dict(metadata)
        return self._object("POST", "/billing/topups", body=body, repeat=Repeat.IF_UNSENT)

    def register_mcp_server(
        self,
        url: str,
        *,
        shared_secret: str | None = None,
        custom_headers: Iterable[Mapping[str, str]] | None = None,
    ) -> dict[str, Any]:
        """Make an MCP server known to the account; idempotent per URL, so it may go out twice."""
        body: dict[str, Any] = {"url": url}
        if shared_secret is not None:
            body["sharedSecret"] = shared_secret
        if custom_headers is not None:
            body["customHeaders"] = [dict(header) for header in custom_headers]
        return self._object("POST", "/mcp/servers", body=body)
