"""Print the answer of a task."""

from __future__ import annotations

from collections.abc import Iterator

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

    Exits with 1 while the task runs (unless --wait is given), and with 10 or 11 if it failed or
    was canceled without an answer. With --wait, exits with 10 or 11 even if it has an answer to
    print.

    Examples:

      rebyte result @last > answer.md
      rebyte result @last --wait --timeout 10m
    """
    from ..history import references

    task_id = references.task(app.history, task)
    ended: TaskEnded | None = None
    deadline = Deadline(timeout)
    if wait:
        from ..tasks.wait import WaitTarget
        from ._wait import finished

        for outcome in finished(app, [WaitTarget(task_id)], deadline=deadline):
            if isinstance(outcome, TaskEnded):
                ended = outcome
            elif isinstance(outcome, RebyteError):
                raise outcome
        deadline = deadline.with_grace()
    return Text(_text(app, task_id, ended, deadline))


def _text(app: App, task_id: str, ended: TaskEnded | None, deadline: Deadline) -> Iterator[str]:
    """The answer, then the error of a task that was waited for and did not complete.

    The task's document is not printed: stdout is for the text alone.
    """
    from ..tasks import result

    try:
        yield app.speech()(result.answer(app.client, task_id, deadline=deadline))
    except TaskEnded as error:
        raise error.without_record() from None
    if ended is not None:
        raise ended.without_record()
