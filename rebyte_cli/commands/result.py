"""Print the answers of tasks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import click

from ..app import App
from ..errors import Next, RebyteError, SchemaMismatch, TaskEnded, WaitTimeout
from ..output.records import PAGER, Raw, Text
from ..system.deadline import Deadline
from ..tasks.parallel import in_parallel
from ._base import define
from ._check import read_schema
from ._options import chosen_tasks, on_question_option, tasks_argument, timeout_option

if TYPE_CHECKING:
    from ..tasks.answer_schema import AnswerSchema

Answers = Iterator[str | RebyteError]


@define("result", text=True, statuses=(3, 4, 5, 10, 11, 12, 124))
@tasks_argument
@click.option("--wait", is_flag=True, help="Wait for the tasks to end first.")
@timeout_option
@on_question_option
@click.option(
    "--json-schema",
    "schema_file",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Print the JSON in each answer, which must fit the JSON Schema in FILE (else status 10).",
)
def command(
    app: App,
    tasks: Sequence[str],
    wait: bool,
    timeout: float | None,
    schema_file: str | None,
) -> Text | Raw:
    """Print only the text of each TASK's answer, in the order given.

    On a terminal, answers are rendered as Markdown (not with `--color never`). In a pipe or a
    file, each is printed unaltered, with a newline at its end if it has none.

    With --json-schema, prints the JSON value that the answer is, or that its last fenced code block
    holds, on one line. If it does not fit, prints why on stderr instead. The task is not asked
    again; see rebyte-check(7).

    A task that failed or was canceled has no answer: nothing is printed, the reason is on stderr,
    and the status is 10 or 11. Exits with 1 while a task runs, or 12 with the question that it
    asks, unless --wait is given.

    Examples:

      rebyte result @last > answer.md
      rebyte result @last --wait --timeout 10m
      rebyte result @last --json-schema review.json | jq .findings
      rebyte list -o tsv --fields id,title | fzf | cut -f 1 | rebyte result -
    """
    ids = chosen_tasks(app, tasks)
    deadline = Deadline(timeout)
    schema = read_schema(schema_file)
    read = partial(_after_waiting if wait else _answers, schema=schema)
    answers = map(_explained, read(app, ids, deadline))
    if schema is not None:
        return Raw(map(_encoded, answers))
    if app.console.out_tty:
        return Text(_rendered(app, answers), pager=PAGER)
    return Raw(map(_encoded, answers))


def _after_waiting(
    app: App, ids: Sequence[str], deadline: Deadline, schema: AnswerSchema | None
) -> Answers:
    """The errors of tasks as they end, then the answers of those that completed in time."""
    from ..tasks.wait import WaitTarget
    from ._wait import finished

    completed = set()
    late: WaitTimeout | None = None
    try:
        for outcome in finished(app, [WaitTarget(each) for each in ids], deadline=deadline):
            if isinstance(outcome, RebyteError):
                yield outcome
            else:
                completed.add(outcome.get("id"))
    except WaitTimeout as error:
        late = error
    done = [each for each in ids if each in completed]
    yield from _answers(app, done, deadline.with_grace(), schema)
    if late is not None:
        yield late


def _answers(
    app: App, ids: Sequence[str], deadline: Deadline, schema: AnswerSchema | None
) -> Answers:
    return in_parallel(partial(_answer, app, deadline, schema), ids)


def _answer(app: App, deadline: Deadline, schema: AnswerSchema | None, task_id: str) -> str:
    """As `result.answer`, or the JSON in it; raises NeedsAnswer for a task that asks a question."""
    from ..tasks import questions, result

    try:
        answer = result.answer(app.client, task_id, deadline=deadline)
        return answer if schema is None else _fitting(schema, answer, task_id, deadline)
    except RebyteError as error:
        if error.code != "still_running":
            raise
        question = None
        with suppress(RebyteError):  # the first one says enough
            question = questions.asked(app.client, app.history, task_id, deadline)
        if question is None:
            raise
        raise questions.needs_answer(task_id, question, {"id": task_id}) from None


def _fitting(schema: AnswerSchema, answer: str, task_id: str, deadline: Deadline) -> str:
    """The value in an answer as JSON. Raises SchemaMismatch, or WaitTimeout."""
    from ..output.formats import encode
    from ..tasks.answer_schema import Misfit

    try:
        return encode(schema.value(answer, task_id=task_id, deadline=deadline))
    except Misfit as misfit:
        raise SchemaMismatch({"id": task_id}, str(misfit)) from None


def _explained(answer: str | RebyteError) -> str | RebyteError:
    """The error of a task that did not complete with what shows more; what it said is no answer."""
    if not isinstance(answer, TaskEnded):
        return answer
    task_id = str(answer.task.get("id"))
    if isinstance(answer, SchemaMismatch):
        return answer.copy_with(hint=Next("result", task_id) + " shows the whole answer")
    return answer.copy_with(hint=Next("logs", task_id) + " shows what it did")


def _rendered(app: App, answers: Answers) -> Answers:
    """The answers for a terminal, with an empty line between two."""
    speech, between = app.speech(), ""
    for answer in answers:
        if isinstance(answer, RebyteError):
            yield answer
            continue
        yield between
        rendered = speech(answer)
        yield rendered
        between = "\n" if rendered.endswith("\n") else "\n\n"


def _encoded(answer: str | RebyteError) -> bytes | RebyteError:
    """An answer as it came, whatever the locale; halves of characters, which UTF-8 lacks, are
    escaped."""
    if isinstance(answer, RebyteError):
        return answer
    text = answer if answer.endswith("\n") else f"{answer}\n"
    return text.encode("utf-8", "backslashreplace")
