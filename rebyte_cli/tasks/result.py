"""The answer of a task: its text, from the first place that has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..api.views import EventView, TaskView, text
from ..errors import NetworkError, Next, RebyteError, TaskCanceled, WaitTimeout
from ..system.deadline import NO_LIMIT, Deadline
from .failure import FailureReasons, failure_of
from .questions import read
from .stream import replay

if TYPE_CHECKING:
    from ..api.client import RebyteClient


def answer(client: RebyteClient, task_id: str, *, deadline: Deadline = NO_LIMIT) -> str:
    """The text of the latest prompt's answer, and nothing else.

    Read from the task's `finalResult`, then from the `response` of its content, then from the
    last record of its event stream: clients have seen each of them filled while another was
    empty. Raises RebyteError (status 1) while the task runs or when it completed without any
    text, TaskFailed with the reason or TaskCanceled (10, 11) whatever text it left, and
    WaitTimeout when the deadline passes before the answer is known.
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
    document = client.get_task(task_id, timeout=deadline.for_call())
    task = TaskView(document)
    if not task.is_over:
        raise RebyteError(
            f"task {task_id} is {task.status or 'in an unknown state'}, so it has no answer yet",
            hint=Next("result", task_id, "--wait") + " waits for it",
            code="still_running",
        )
    if task.status == "failed":
        raise failure_of(document)(document, FailureReasons(client).of(document, None, deadline))
    if task.status == "canceled":
        raise TaskCanceled(document)
    found = (
        task.final_result
        or read(client, task_id, events=False, timeout=deadline.for_call()).response()
        or _from_events(client, task_id, task.completed_at, deadline)
    )
    if found:
        return found
    raise RebyteError(f"task {task_id} completed without an answer", code="no_answer")


def _from_events(client: RebyteClient, task_id: str, completed_at: Any, deadline: Deadline) -> str:
    """From the end of the stream, or from what was said after the last tool call."""
    said: list[str] = []
    limit = deadline.within(client.transport.limit())
    try:
        for name, data in replay(client, task_id, completed_at, limit):
            event = EventView(data)
            if name == "done":
                return text(data.get("finalResult")) or "\n".join(said)
            if event.kind == "tool_use":
                said.clear()
            elif event.speech:
                said = [event.speech] if event.kind == "result" else [*said, event.speech]
    except WaitTimeout:
        if limit is deadline:
            raise
        # Waiting was not asked for: the task has ended, though its stream or prompts deny it.
        why = f"task {task_id} has ended, but its events came to no end in {limit.seconds:g} s"
        raise RebyteError(why, code="no_answer") from None
    return ""
