"""Answer the question that a run is waiting on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from ..app import App
from ..errors import RebyteError
from ..output.records import ANSWERED, Records
from ._base import define
from ._options import Number, chosen_task, task_argument


@define("answer", kind=ANSWERED, statuses=(3, 4, 5, 6))
@task_argument
@click.option(
    "--option",
    "options",
    type=Number(1),
    multiple=True,
    metavar="N",
    help="The number of an option, from 1; can be repeated.",
)
@click.option(
    "--text",
    "texts",
    multiple=True,
    metavar="TEXT",
    help="An answer in your own words; can be repeated.",
)
def command(app: App, task: str, options: Sequence[int], texts: Sequence[str]) -> Any:
    """Answer the question that TASK is waiting on.

    On a terminal, shows the question with its numbered options and prompts for the answer. If the
    agent asked several questions at once, pass one --option (or one --text) for each, in order.
    Commands that wait ask questions themselves; see `--on-question`.

    Examples:

      rebyte answer @last
      rebyte answer @last --option 1
      rebyte answer @last --text "Neither, use the staging branch"
    """
    from ..tasks import questions

    task_id = chosen_task(app, task)
    question = questions.waiting_or_raise(app.client, task_id)
    if app.interactive and not (options or texts):
        from ._questions import TerminalDialog

        try:
            choices = TerminalDialog(app, named=False).answer(task_id, question)
        except EOFError:
            raise RebyteError(f"task {task_id} still waits for an answer") from None
    else:
        choices = questions.choices(question, options, texts)
    questions.answer(app.client, app.history, task_id, question, choices)
    return Records(ANSWERED, [{"id": task_id, "answered": True}])
