"""Agent computers: VMs that outlive their tasks. Their id is good as a workspace id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .base import PAGE, Calls
from .origin import check_id


class Computers(Calls):
    """The calls under `/agent-computers`."""

    def create_computer(self, name: str | None = None, icon: str | None = None) -> dict[str, Any]:
        """A new VM, `status` `provisioning` at first (vendor docs); poll until it is `ready`."""
        body = {k: v for k, v in (("name", name), ("icon", icon)) if v is not None}
        return self._created("/agent-computers", body, "id")

    def list_computers(self, limit: int = 50, offset: int = 0) -> dict[str, Any]:
        """One page, newest first: `data`, and perhaps `total`, `limit`, `offset` (vendor docs)."""
        return self._object("GET", "/agent-computers", query={"limit": limit, "offset": offset})

    def iter_computers(self, page: int = PAGE) -> Iterator[dict[str, Any]]:
        """Every agent computer, newest first, page by page as they are wanted."""
        return self._pages("/agent-computers", page)

    def get_computer(self, computer_id: str, *, timeout: float | None = None) -> dict[str, Any]:
        """One agent computer (vendor docs). `sandboxApiKey`, if there, is a secret.

        `timeout` shortens the deadline of this call (seconds).
        """
        return self._object("GET", _path(computer_id), timeout=self._at_most(timeout))

    def update_computer(
        self,
        computer_id: str,
        *,
        agent_instructions: str | None = None,
        views: Mapping[str, bool] | None = None,
    ) -> dict[str, Any]:
        """Set the instructions, or switch views on and off by id (seen in a client)."""
        body: dict[str, Any] = {}
        if agent_instructions is not None:
            # Read as agentInstructions, written with an underscore (seen in a client).
            body["agent_instructions"] = agent_instructions
        if views is not None:
            body["views"] = dict(views)
        return self._object("PATCH", _path(computer_id), body=body)

    def delete_computer(self, computer_id: str) -> None:
        """Remove the VM (seen in a client)."""
        self._delete(_path(computer_id))


def _path(computer_id: str) -> str:
    return f"/agent-computers/{check_id(computer_id, 'agent computer id')}"
