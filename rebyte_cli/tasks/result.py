"""The answer of a task: its text, from the first place that has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..api.errors import is_unsupported
from ..api.models import is_terminal, task_status
from ..deadline import NO_LIMIT, Deadline
from ..errors import APIError, NetworkError, RebyteError, TaskCanceled, TaskFailed, WaitTimeout

if TYPE_CHECKING:
    from ..api.client import RebyteClient


def answer(client: RebyteClient, task_id: str, *, deadline: Deadline = NO_LIMIT) -> str:
    """The text of the latest prompt's answer, and nothing else.

    Looked for in the task's `finalResult`, then in the `response` of its content, then in the
    final record of its event stream: clients have seen each of them filled while another was
    empty. Raises RebyteError (status 1) while the task runs or when it completed without any
    text, TaskFailed or TaskCanceled (10, 11) when that is why there is none, and WaitTimeout when
    the deadline passes before it is known.
    """
    try:
        return _answer(client, task_id, deadline)
    except WaitTimeout:
        pass
    except NetworkError as error:
        if not deadline.cut_short(error, usual=client.transport.limit()):
            raise
    late = f"the answer of task {task_id} could not be read in"
    raise deadline.error(late, pending=[task_id])


def _answer(client: RebyteClient, task_id: str, deadline: Deadline) -> str:
    task = client.get_task(task_id, timeout=deadline.for_call())
    status = task_status(task)
    if not is_terminal(status):
        raise RebyteError(
            f"task {task_id} is {status or 'in an unknown state'}, so it has no answer yet",
            hint=f"`rebyte result {task_id} --wait` waits for it",
            code="still_running",
        )
    text = _text(task.get("finalResult")) or _from_content(client, task_id, deadline)
    text = text or _from_events(client, task_id, task.get("completedAt"), deadline)
    if text:
        return text
    if status == "failed":
        raise TaskFailed(task)
    if status == "canceled":
        raise TaskCanceled(task)
    raise RebyteError(f"task {task_id} completed without an answer", code="no_answer")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _from_content(client: RebyteClient, task_id: str, deadline: Deadline) -> str:
    try:
        content: Mapping[str, Any] = client.task_content(task_id, timeout=deadline.for_call())
    except APIError as error:
        if is_unsupported(error):
            return ""
        raise
    prompts = content.get("prompts")
    if not isinstance(prompts, list) or not prompts or not isinstance(prompts[-1], dict):
        return ""
    return _text(prompts[-1].get("response"))


def _from_events(client: RebyteClient, task_id: str, completed_at: Any, deadline: Deadline) -> str:
    """From the end of the stream, or from what was said after the last tool."""
    from .stream import SPEECH, follow, text_of

    said: list[str] = []
    limit = deadline.within(client.transport.limit())
    try:
        for event in follow(client, task_id, completed_at=completed_at, deadline=limit):
            kind = event.data.get("eventType")
            if event.name == "done":
                return _text(event.data.get("finalResult")) or "\n".join(said)
            if kind == "tool_use":
                said.clear()
            elif kind in SPEECH and not event.told and (text := text_of(event.data)):
                said = [text] if kind == "result" else [*said, text]
    except WaitTimeout:
        if limit is deadline:
            raise
        # Nobody asked to wait: the task has ended, and what its stream or prompts say is not so.
        why = f"task {task_id} has ended, but its events came to no end in {limit.seconds:g} s"
        raise RebyteError(why, code="no_answer") from None
    return ""
