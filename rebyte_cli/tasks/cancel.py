"""Canceling a task, and reading what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..api.views import TaskView
from ..errors import APIError

if TYPE_CHECKING:
    from ..api.client import RebyteClient

# How a service may refuse to cancel a task that has ended; it is read to see whether it has.
REFUSED = (400, 409, 422)


def cancel(client: RebyteClient, task_id: str) -> Mapping[str, Any]:
    """Cancel a task and return it as it is then. One that has ended is left unchanged.

    The response to a cancel is not documented, so the task itself is read. Raises APIError.
    """
    refusal = None
    try:
        client.cancel_task(task_id)
    except APIError as error:
        if error.status_code not in REFUSED:
            raise
        refusal = error
    task: Mapping[str, Any] = client.get_task(task_id)
    if refusal is not None and not TaskView(task).is_over:
        raise refusal
    return task


def ended_before(task: Mapping[str, Any]) -> str | None:
    """How a task that `cancel` returned had ended before; None if it was canceled, or runs."""
    status = TaskView(task).status
    return status if status in ("completed", "failed") else None
