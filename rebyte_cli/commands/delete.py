"""Delete tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from ..app import App
from ..errors import RebyteError, ResourceNotFound
from ..output.records import DELETED, Records
from ._base import define
from ._options import chosen_tasks, label_filter_option, labeled_tasks_argument


@define("delete", kind=DELETED)
@labeled_tasks_argument
@label_filter_option
@click.option("--ignore-missing", is_flag=True, help="Don't fail if a task doesn't exist.")
def command(
    app: App, tasks: Sequence[str], labels: Mapping[str, str], ignore_missing: bool
) -> Records:
    """Delete each TASK, without confirmation.

    Exits with 4 if a task doesn't exist, unless --ignore-missing is given.

    Examples:

      rebyte delete @last
      rebyte list --all -o id --status failed | rebyte delete -
      rebyte delete --label run=nightly
    """
    ids = chosen_tasks(app, tasks, labels, ignore_missing=ignore_missing)
    return Records(DELETED, _delete(app, ids, ignore_missing))


def _delete(
    app: App, ids: Sequence[str], ignore_missing: bool
) -> Iterator[Mapping[str, Any] | RebyteError]:
    from ..tasks.parallel import in_parallel

    for task_id, answer in zip(ids, in_parallel(app.client.delete_task, ids), strict=True):
        missing = isinstance(answer, ResourceNotFound)
        if isinstance(answer, RebyteError) and not missing:
            yield answer
            continue
        app.history.forget_task(task_id)
        if missing and not ignore_missing:
            assert isinstance(answer, RebyteError)
            yield answer
        else:
            yield {"id": task_id, "deleted": not missing}
