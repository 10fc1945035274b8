"""Print a task's answer, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import click

from ..app import App
from ..deadline import Deadline
from ..errors import RebyteError, TaskEnded
from ..output.records import Text
from ._base import define
from ._options import task_argument, timeout_option


@define("result", text=True, statuses=(3, 4, 5, 10, 11, 124))
@task_argument
@click.option("--wait", is_flag=True, help="Wait for the end first.")
@timeout_option
def command(app: App, task: str, wait: bool, timeout: float | None) -> Text:
    """Print the text of TASK's answer, for a pipe or a file.

    Ends with 1 while the task runs (unless --wait), 10 when it failed without an answer, 11
    when it was canceled. With --wait, a failed task is 10 also when it has an answer to print.

    Examples:

      rebyte result @last > answer.md
      rebyte result @last --wait --timeout 10m
    """
    from ..history import references

    task_id = references.task(app.history, task)
    ended: TaskEnded | None = None
    deadline = Deadline(timeout)
    if wait:
        from ..tasks.wait import Target
        from ._wait import finished

        for outcome in finished(app, [Target(task_id)], deadline=deadline):
            if isinstance(outcome, TaskEnded):
                ended = outcome
            elif isinstance(outcome, RebyteError):
                raise outcome
        deadline = deadline.with_grace()
    return Text(_text(app, task_id, ended, deadline))


def _text(app: App, task_id: str, ended: TaskEnded | None, deadline: Deadline) -> Iterator[str]:
    """The answer, then the error of a task that was waited for and did not complete.

    The task's document stays out of stdout: whoever reads it wants the text alone.
    """
    from ..tasks import result

    try:
        yield result.answer(app.client, task_id, deadline=deadline)
    except TaskEnded as error:
        raise type(error)(error.task, shown=True) from None
    if ended is not None:
        raise type(ended)(ended.task, shown=True)
