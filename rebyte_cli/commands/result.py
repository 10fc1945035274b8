"""Print the answers of tasks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial

import click

from ..app import App
from ..errors import Next, RebyteError, TaskEnded, WaitTimeout
from ..output.records import Raw, Text
from ..system.deadline import Deadline
from ._base import define
from ._options import on_question_option, tasks_argument, timeout_option
from ._stdin import stdin_lines

Answers = Iterator[str | RebyteError]


@define("result", text=True, statuses=(3, 4, 5, 10, 11, 12, 124))
@tasks_argument
@click.option("--wait", is_flag=True, help="Wait for the tasks to end first.")
@timeout_option
@on_question_option
def command(app: App, tasks: Sequence[str], wait: bool, timeout: float | None) -> Text | Raw:
    """Print only the text of each TASK's answer, in the order given.

    On a terminal, answers are rendered as Markdown (not with `--color never`). In a pipe or a
    file, each is printed unaltered, with a newline at its end if it has none.

    A task that failed or was canceled has no answer: nothing is printed, the reason is on stderr,
    and the status is 10 or 11. Exits with 1 while a task runs, or 12 with the question that it
    asks, unless --wait is given.

    Examples:

      rebyte result @last > answer.md
      rebyte result @last --wait --timeout 10m
      rebyte list -o tsv --fields id,title | fzf | cut -f 1 | rebyte result -
    """
    from ..history import references

    ids = references.tasks(app.history, tasks, stdin_lines())
    deadline = Deadline(timeout)
    read = _after_waiting if wait else _answers
    answers = map(_explained, read(app, ids, deadline))
    if app.console.out_tty:
        return Text(_rendered(app, answers))
    return Raw(map(_encoded, answers))


def _after_waiting(app: App, ids: Sequence[str], deadline: Deadline) -> Answers:
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
    yield from _answers(app, [each for each in ids if each in completed], deadline.with_grace())
    if late is not None:
        yield late


def _answers(app: App, ids: Sequence[str], deadline: Deadline) -> Answers:
    from ..tasks.parallel import in_parallel

    return in_parallel(partial(_answer, app, deadline), ids)


def _answer(app: App, deadline: Deadline, task_id: str) -> str:
    """As `result.answer`; raises NeedsAnswer for a task that asks a question."""
    from ..tasks import questions, result

    try:
        return result.answer(app.client, task_id, deadline=deadline)
    except RebyteError as error:
        if error.code != "still_running":
            raise
        question = None
        with suppress(RebyteError):  # the first one says enough
            question = questions.asked(app.client, app.history, task_id, deadline)
        if question is None:
            raise
        raise questions.needs_answer(task_id, question, {"id": task_id}) from None


def _explained(answer: str | RebyteError) -> str | RebyteError:
    """The error of a task that did not complete with what shows more; what it said is no answer."""
    if isinstance(answer, TaskEnded):
        return answer.copy_with(
            hint=Next("logs", f"{answer.task.get('id')}") + " shows what it did"
        )
    return answer


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
