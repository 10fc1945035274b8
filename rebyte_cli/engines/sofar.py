"""What a run has written so far: one look at its event stream, without staying for the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import NetworkError

if TYPE_CHECKING:
    from ..api.client import RebyteClient

PAUSE = 1.5  # seconds without an event after which the replay is taken to be over


def so_far(client: RebyteClient, task_id: str, *, pause: float = PAUSE) -> list[dict[str, Any]]:
    """The events of the latest prompt that are there now.

    A stream starts with everything that was written and then goes on live (seen in clients), so
    the first pause ends the look.
    """
    found: list[dict[str, Any]] = []
    try:
        for event in client.stream_events(task_id, idle=pause):
            if event.name == "done":
                break
            found.append(event.data)
    except NetworkError as error:
        if error.code != "timeout" and not found:
            raise
    return found
