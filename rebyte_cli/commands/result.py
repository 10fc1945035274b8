"""Print the answer of a task."""

from __future__ import annotations

import click

from ..app import App
from ..deadline import Deadline
from ..errors import RebyteError, TaskEnded
from ..output.records import Text
from ._base import define
from ._options import on_question_option, task_argument, timeout_option


@define("result", text=True, statuses=(3, 4, 5, 10, 11, 12, 124))
@task_argument
@click.option("--wait", is_flag=True, help="Wait for the task to end first.")
@timeout_option
@on_question_option
def command(app: App, task: str, wait: bool, timeout: float | None) -> Text:
    """Print only the text of TASK's answer.

    On a terminal, the answer is rendered as Markdown. In a pipe, or with `--color never`, it is
    printed unchanged.

    A task that failed or was canceled has no answer: nothing is printed, the reason is on stderr,
    and the status is 10 or 11. Exits with 1 while the task runs, unless --wait is given.

    Examples:

      rebyte result @last > answer.md
      rebyte result @last --wait --timeout 10m
    """
    from ..history import references
    from ..tasks import result

    task_id = references.task(app.history, task)
    deadline = Deadline(timeout)
    try:
        if wait:
            _wait_for(app, task_id, deadline)
            deadline = deadline.with_grace()
        answer = result.answer(app.client, task_id, deadline=deadline)
    except TaskEnded as error:
        # stdout is for the answer alone, and what the task said before its end is none.
        hint = f"`rebyte logs {task_id}` shows what it did"
        raise error.without_record().copy_with(hint=hint) from None
    return Text(app.speech()(answer))


def _wait_for(app: App, task_id: str, deadline: Deadline) -> None:
    """Return when the task has completed. Raises how else it ended."""
    from ..tasks.wait import WaitTarget
    from ._wait import finished

    for outcome in finished(app, [WaitTarget(task_id)], deadline=deadline):
        if isinstance(outcome, RebyteError):
            raise outcome
