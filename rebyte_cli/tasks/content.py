"""The content document of a task, and what replaces it where a service has none."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..api.body import JSON_CAP
from ..api.failures import is_unsupported
from ..api.views import ContentView, mappings, text
from ..errors import AnswerTooLarge, APIError, BrokenAnswer, NetworkError, Next, WaitTimeout
from ..system.deadline import NO_LIMIT, Deadline
from .stream import replay, snapshot

if TYPE_CHECKING:
    from ..api.client import RebyteClient


def content(
    client: RebyteClient,
    task_id: str,
    *,
    deadline: Deadline = NO_LIMIT,
    note: Callable[[str], None] = lambda _text: None,
) -> ContentView:
    """The content document (seen in clients), as complete as possible.

    Where the service has no such endpoint, or the document is too large for the memory, the task's
    own prompts replace it; where it shows neither events nor an answer for the latest prompt, those
    of the event stream do. `note` is told that a document is too large. Raises WaitTimeout when it
    cannot be read by the deadline.
    """
    while True:
        try:
            found, answer = read_content(client, task_id, deadline, note)
            return _completed(client, task_id, found, answer, deadline)
        except NetworkError as error:
            if not deadline.cut_short(error, usual=client.transport.limit()):
                raise
        # The attempts of one call may be used up before its time is.
        if deadline.has_passed:
            raise deadline.error(f"task {task_id} could not be read in", pending=[task_id])


def read_content(
    client: RebyteClient,
    task_id: str,
    deadline: Deadline,
    note: Callable[[str], None] = lambda _text: None,
) -> tuple[ContentView, str]:
    """The content with its events, or the task in its place together with its `finalResult`.

    BrokenAnswer for an answer without a list of prompts.
    """
    answer = ""
    found: dict[str, Any]
    try:
        found = dict(client.task_content(task_id, events=True, timeout=deadline.for_call()))
    except APIError as error:
        if not is_unsupported(error):
            raise
        if isinstance(error, AnswerTooLarge):
            note(
                f"The transcript of task {task_id} is larger than {JSON_CAP >> 20} MiB. Only the"
                " events of its latest prompt are shown, as far as they fit into that; "
                + Next("api", f"/tasks/{task_id}/events")
                + " prints them all"
            )
        # Either the endpoint is missing or the task is; reading the task tells which.
        task = client.get_task(task_id, timeout=deadline.for_call())
        found = {name: task.get(name) for name in ("id", "status", "prompts")}
        answer = text(task.get("finalResult"))
    if not isinstance(found.get("prompts"), list):
        why = f"task {task_id}: the answer holds no prompts"
        raise BrokenAnswer(why, response=found, subject="")
    return ContentView({**found, "prompts": mappings(found["prompts"])}), answer


def _completed(
    client: RebyteClient, task_id: str, found: ContentView, answer: str, deadline: Deadline
) -> ContentView:
    """The document with the events and the answer of its latest prompt, if it lacks both.

    Only an answer that is nowhere else is worth more connections than one.
    """
    latest = found.latest
    if latest is None or not latest.has_started or latest.events or latest.response:
        return found
    events: list[dict[str, Any]] = []
    limit = deadline.within(client.transport.limit())
    try:
        if answer or found.status != "completed":
            events = snapshot(client, task_id, deadline=limit)
        else:
            for name, data in replay(client, task_id, latest.completed_at, limit):
                if name == "done":
                    answer = text(data.get("finalResult"))
                    break
                events.append(data)
    except WaitTimeout:
        pass  # the task has ended: what came is shown, since a longer wait was not asked for
    except APIError as error:
        if not is_unsupported(error):
            raise
    prompt = {**latest.raw, "events": events, **({"response": answer} if answer else {})}
    earlier = [each.raw for each in found.prompts[:-1]]
    return ContentView({**found.raw, "prompts": [*earlier, prompt]})
