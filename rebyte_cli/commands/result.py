"""Print a task's answer, and nothing else."""

from __future__ import annotations

import click

from ..app import App
from ..engines.waiting import Target
from ..errors import RebyteError
from ..output.kinds import Text
from ._base import define
from ._options import task_argument, timeout_option


@define("result", text=True, statuses=(3, 4, 5, 10, 11, 124))
@task_argument
@click.option("--wait", is_flag=True, help="Wait for the end first.")
@timeout_option
def command(app: App, task: str, wait: bool, timeout: float | None) -> Text:
    """Print the text of TASK's answer, for a pipe or a file.

    Ends with 1 while the task runs (unless --wait), 10 when it failed without an answer, 11
    when it was canceled.

    Examples:

      rebyte result @last > answer.md
      rebyte result @last --wait --timeout 10m
    """
    from ..engines import answers
    from ..profiles import references

    task_id = references.task(app.history, task)
    if wait:
        from ._finish import finished

        for outcome in finished(app, [Target(task_id)], timeout=timeout):
            if isinstance(outcome, RebyteError) and outcome.record is None:
                raise outcome
    return Text(answers.answer(app.client, task_id))
