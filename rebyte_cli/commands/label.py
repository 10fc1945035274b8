"""Label tasks on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import click

from ..app import App
from ..errors import RebyteError, RowOrError
from ..output.records import LABEL, LABELED, RecordList, Records, Value
from ..tasks.parallel import in_parallel
from ._base import define
from ._options import NoTasks, Option, Output, chosen_tasks, labeled_tasks_argument, refuse


@define("label", kind=LABELED)
@labeled_tasks_argument
@click.option(
    "--list",
    "list_",
    cls=Option,
    output=Output(LABEL),
    schema={"--list": "label-list", "--list -o jsonl": LABEL},
    is_flag=True,
    help="List every label, and how many tasks have it.",
)
def command(app: App, tasks: Sequence[str], list_: bool) -> Value:
    """Label each TASK: NAME=VALUE sets a label, and NAME- removes one.

    Labels are kept on this machine. The option --label of list, wait, cancel and delete selects the
    tasks that have one. Without a label, prints those that each TASK has.

    Examples:

      rebyte label @last team=search
      rebyte list -o id --search login | rebyte label - run=7 draft-
      rebyte list --label team=search --fields id,title,labels
      rebyte label --list
    """
    from ..history.labels import changes

    refuse({"--list": list_ and tasks}, "cannot be used together with TASK")
    if list_:
        return RecordList(LABEL, (each._asdict() for each in app.history.labels.counts()))
    words, labels, removed = changes(tasks)
    if not words:
        raise NoTasks("missing argument: TASK… (or --list)", ctx=click.get_current_context())
    ids = chosen_tasks(app, words)
    return Records(LABELED, _labeled(app, ids, labels, removed))


def _labeled(
    app: App, ids: Sequence[str], labels: Mapping[str, str], removed: Sequence[str]
) -> Iterator[RowOrError]:
    for task_id, task in zip(ids, in_parallel(app.client.get_task, ids), strict=True):
        if isinstance(task, RebyteError):
            yield task
            continue
        app.history.labels.change([task_id], labels, removed)
        found = app.history.labels.of([task_id]).get(task_id, {})
        yield {"id": task_id, "title": task.get("title"), "labels": found}
