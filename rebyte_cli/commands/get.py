"""Show tasks: status, title, prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..app import App
from ..errors import RebyteError, RowOrError
from ..output.records import TASK, Records
from ..tasks.parallel import in_parallel
from ._base import define
from ._options import chosen_tasks, tasks_argument


@define("get", kind=TASK)
@tasks_argument
def command(app: App, tasks: Sequence[str]) -> Records:
    """Show the status and prompts of each TASK.

    TASK is an id, a prefix (four characters or more) of an id that rebyte showed on this machine,
    the task's URL, @last, @N for the N-th newest task created here, or - to read references from
    stdin. Deleted tasks count for @N, but not for @last. In JSON, several tasks are printed as one
    document after another.

    Examples:

      rebyte get @last
      rebyte get @1 @2 --fields id,status,title
      rebyte list --all -o id | rebyte get - -o jsonl
    """
    return Records(TASK, _read(app, chosen_tasks(app, tasks)))


def _read(app: App, ids: Sequence[str]) -> Iterator[RowOrError]:
    from ..tasks import questions

    for answer in in_parallel(app.client.get_task, ids):
        if isinstance(answer, RebyteError):
            yield answer
            continue
        asks = len(ids) <= questions.FEW and questions.tell(
            app.client, app.history, answer, app.note
        )
        app.history.remember_shown([answer])
        task = app.known.update(answer)
        yield {**task, "question": True} if asks else task
