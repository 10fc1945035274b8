"""Answer the question that a run is waiting on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ..app import App
from ..errors import BadUsage
from ..output.records import ANSWERED, Records
from ._base import define
from ._options import task_argument

if TYPE_CHECKING:
    from ..api.views import QuestionItem
    from ..tasks.questions import Choice


@define("answer", kind=ANSWERED, statuses=(3, 4, 5, 6))
@task_argument
@click.option(
    "--option",
    "options",
    type=click.IntRange(1),
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

    Examples:

      rebyte answer @last
      rebyte answer @last --option 1
      rebyte answer @last --text "Neither, use the staging branch"
    """
    from ..history import references
    from ..tasks import questions

    task_id = references.task(app.history, task)
    question = questions.waiting_or_raise(app.client, task_id)
    if app.interactive and not (options or texts):
        choices = [_asked(item) for item in question.items]
    else:
        choices = questions.choices(question, options, texts)
    questions.answer(app.client, task_id, questions.body(question, choices))
    return Records(ANSWERED, [{"id": task_id, "answered": True}])


def _asked(item: QuestionItem) -> Choice:
    """Prompt for the answer to one question until it fits."""
    from ..output.console import clean
    from ..tasks import questions, transcript

    click.echo(clean("".join(transcript.item_lines(item))), err=True, nl=False)
    several = " (or several, separated by commas)" if item.multiple else ""
    wanted = f"Number{several}, or your own words" if item.options else "Answer"
    while True:
        said = str(click.prompt(wanted, err=True)).strip()
        words = said.replace(",", " ").split()
        if not item.options or not all(word.isascii() and word.isdigit() for word in words):
            return questions.Choice(text=said)
        try:
            numbers = tuple(int(word[:9]) - 1 for word in words)
            questions.check(item, numbers)
        except BadUsage as error:
            click.echo(error.message, err=True)
            continue
        return questions.Choice(numbers)
