"""The content document of a task, and what stands in for it where a service lacks it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..api.errors import is_unsupported
from ..api.models import task_status
from ..api.retry import SECONDS
from ..errors import APIError, BrokenAnswer, NetworkError, WaitTimeout
from . import stream
from .stream import SNAPSHOT_PAUSE, snapshot

if TYPE_CHECKING:
    from ..api.client import RebyteClient


def content(client: RebyteClient, task_id: str, *, timeout: float | None = None) -> dict[str, Any]:
    """The content document (seen in clients), as whole as it can be had.

    Where the service has no such endpoint, the task's own prompts stand in for it; where it
    shows neither events nor an answer for the latest prompt, those of the stream do. Raises
    WaitTimeout when it cannot be read in `timeout` seconds.
    """
    end = None if timeout is None else time.monotonic() + timeout
    left = timeout
    while True:
        try:
            return _content(client, task_id, left)
        except NetworkError as error:
            if timeout is None or not client.transport.cut_short(error, timeout):
                raise
        # The tries of one call may be over before its time is.
        left = (end or 0) - time.monotonic()
        if left <= 0:
            late = f"task {task_id} could not be read in {timeout:g} s"
            raise WaitTimeout(late, pending=[task_id])


def _content(client: RebyteClient, task_id: str, timeout: float | None) -> dict[str, Any]:
    found, answer = told(client, task_id, timeout)
    prompts = found["prompts"]
    if not prompts or prompts[-1].get("status") in stream.WAITING:
        return found
    latest = prompts[-1]
    if not latest.get("events") and not latest.get("response"):
        events, end = _from_stream(
            client, task_id, latest, answered=bool(answer), status=found, timeout=timeout
        )
        latest["events"], answer = events, answer or end
        if answer:
            latest["response"] = answer
    return found


def told(client: RebyteClient, task_id: str, timeout: float | None) -> tuple[dict[str, Any], Any]:
    """The content as the service tells it, or the task in its place with its `finalResult`.

    `prompts` is a list of objects in it; BrokenAnswer where the service has none.
    """
    answer = None
    try:
        found = dict(client.task_content(task_id, events=True, timeout=timeout))
    except APIError as error:
        if not is_unsupported(error):
            raise
        # Either the endpoint is not there or the task; reading the task tells which.
        task = client.get_task(task_id, timeout=timeout)
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
    timeout: float | None,
) -> tuple[list[dict[str, Any]], Any]:
    """The events of the latest prompt, and its answer when that is worth a longer look."""
    events: list[dict[str, Any]] = []
    limit = client.transport.limit(SECONDS)
    limit = limit if timeout is None else min(limit, timeout)
    try:
        if answered or task_status(status) != "completed":
            return snapshot(client, task_id, pause=min(SNAPSHOT_PAUSE, limit)), None
        ended = latest.get("completedAt")
        for event in stream.follow(client, task_id, completed_at=ended, timeout=limit):
            if event.name == "done":
                return events, event.data.get("finalResult")
            events.append(event.data)
    except WaitTimeout:
        pass  # the task has ended: what came is shown, nobody asked to wait for more
    except APIError as error:
        if not is_unsupported(error):
            raise
    return events, None
