"""Answer the question that a run is waiting on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ..app import App
from ..errors import BadUsage, RebyteError
from ..output.records import ANSWERED, Records
from ._base import define
from ._options import task_argument

if TYPE_CHECKING:
    from ..api.views import Question, QuestionItem
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
    question = questions.waiting(app.client, task_id)
    if question is None:
        raise RebyteError(
            f"task {task_id} is not waiting on a question",
            hint=f"See the run with `rebyte logs {task_id}`",
            code="not_waiting",
        )
    if options or texts:
        choices = _given(question, options, texts)
    elif app.interactive:
        choices = [_asked(item) for item in question.items]
    else:
        raise _nothing_given(question)
    questions.answer(app.client, task_id, questions.body(question, choices))
    return Records(ANSWERED, [{"id": task_id, "answered": True}])


def _given(question: Question, options: Sequence[int], texts: Sequence[str]) -> list[Choice]:
    """Match the options of the command line with the questions."""
    from ..tasks.questions import Choice

    chosen = [number - 1 for number in options]
    if len(question.items) == 1:
        if len(texts) > 1:
            raise BadUsage("--text was given twice, but there is one question")
        return [Choice(tuple(chosen), texts[0] if texts else None)]
    if options and texts:
        raise BadUsage(
            f"the agent asked {len(question.items)} questions at once",
            hint="Pass one --option for each, or one --text for each, in order",
        )
    if texts:
        return [Choice(text=text) for text in texts]
    return [Choice((option,)) for option in chosen]


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


def _nothing_given(question: Question) -> BadUsage:
    from ..tasks import transcript

    shown = "".join(line for item in question.items for line in transcript.item_lines(item))
    return BadUsage("pass the answer with --option N or --text TEXT", hint=shown.rstrip())
