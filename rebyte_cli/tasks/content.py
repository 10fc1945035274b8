"""The content document of a task, and what stands in for it where a service lacks it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..api.errors import is_unsupported
from ..api.models import task_status
from ..deadline import NO_LIMIT, Deadline
from ..errors import APIError, BrokenAnswer, NetworkError, WaitTimeout
from . import stream
from .stream import SNAPSHOT_PAUSE, snapshot

if TYPE_CHECKING:
    from ..api.client import RebyteClient


def content(client: RebyteClient, task_id: str, *, deadline: Deadline = NO_LIMIT) -> dict[str, Any]:
    """The content document (seen in clients), as whole as it can be had.

    Where the service has no such endpoint, the task's own prompts stand in for it; where it
    shows neither events nor an answer for the latest prompt, those of the stream do. Raises
    WaitTimeout when it cannot be read by the deadline.
    """
    while True:
        try:
            return _content(client, task_id, deadline)
        except NetworkError as error:
            if not deadline.cut_short(error, usual=client.transport.limit()):
                raise
        # The tries of one call may be over before its time is.
        if deadline.has_passed:
            raise deadline.error(f"task {task_id} could not be read in", pending=[task_id])


def _content(client: RebyteClient, task_id: str, deadline: Deadline) -> dict[str, Any]:
    found, answer = told(client, task_id, deadline)
    prompts = found["prompts"]
    if not prompts or prompts[-1].get("status") in stream.WAITING:
        return found
    latest = prompts[-1]
    if not latest.get("events") and not latest.get("response"):
        events, end = _from_stream(
            client, task_id, latest, answered=bool(answer), status=found, deadline=deadline
        )
        latest["events"], answer = events, answer or end
        if answer:
            latest["response"] = answer
    return found


def told(client: RebyteClient, task_id: str, deadline: Deadline) -> tuple[dict[str, Any], Any]:
    """The content as the service tells it, or the task in its place with its `finalResult`.

    `prompts` is a list of objects in it; BrokenAnswer where the service has none.
    """
    answer = None
    try:
        found = dict(client.task_content(task_id, events=True, timeout=deadline.for_call()))
    except APIError as error:
        if not is_unsupported(error):
            raise
        # Either the endpoint is not there or the task; reading the task tells which.
        task = client.get_task(task_id, timeout=deadline.for_call())
        found = {name: task.get(name) for name in ("id", "status", "prompts")}
        answer = task.get("finalResult")
    listed = found.get("prompts")
    if not isinstance(listed, list):
        raise BrokenAnswer(f"task {task_id}: the answer holds no prompts", response=found)
    found["prompts"] = [dict(one) for one in listed if isinstance(one, dict)]
    return found, answer


def _from_stream(
    client: RebyteClient,
    task_id: str,
    latest: Mapping[str, Any],
    *,
    answered: bool,
    status: Mapping[str, Any],
    deadline: Deadline,
) -> tuple[list[dict[str, Any]], Any]:
    """The events of the latest prompt, and its answer when that is worth a longer look."""
    events: list[dict[str, Any]] = []
    limit = deadline.within(client.transport.limit())
    try:
        if answered or task_status(status) != "completed":
            return snapshot(client, task_id, pause=limit.cap(SNAPSHOT_PAUSE)), None
        ended = latest.get("completedAt")
        for event in stream.follow(client, task_id, completed_at=ended, deadline=limit):
            if event.name == "done":
                return events, event.data.get("finalResult")
            events.append(event.data)
    except WaitTimeout:
        pass  # the task has ended: what came is shown, nobody asked to wait for more
    except APIError as error:
        if not is_unsupported(error):
            raise
    return events, None
