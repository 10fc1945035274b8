"""Delete tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from ..app import App
from ..errors import RebyteError, ResourceNotFound, RowOrError
from ..output.records import DELETED, Records
from ..tasks.parallel import in_parallel
from ._base import define
from ._options import chosen_tasks, label_filter_option, labeled_tasks_argument
from ._prompts import confirm, yes_option

SHORT_ID = 8  # characters of an id that usually stand for it alone


@define("delete", kind=DELETED)
@labeled_tasks_argument
@label_filter_option
@click.option("--ignore-missing", is_flag=True, help="Don't fail if a task doesn't exist.")
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, and delete nothing.")
@yes_option
def command(
    app: App,
    tasks: Sequence[str],
    labels: Mapping[str, str],
    ignore_missing: bool,
    dry_run: bool,
    yes: bool,
) -> Records:
    """Delete each TASK.

    On a terminal, asks before it deletes @last or @N, and shows the title: the number may not be
    that of the task you mean. --yes skips the question; with --no-input, --yes is required. Without
    a terminal, and for tasks given by id, it never asks.

    Exits with 4 if a task doesn't exist, unless --ignore-missing is given.

    Examples:

      rebyte delete @last --yes
      rebyte list --all -o id --status failed | rebyte delete -
      rebyte delete --label run=nightly --dry-run
    """
    ids = chosen_tasks(app, tasks, labels, ignore_missing=ignore_missing)
    if dry_run:
        for task_id in ids:
            app.note(f"Would delete {_described(task_id, app.history.task(task_id))}")
        return Records(DELETED, [{"id": task_id, "deleted": False} for task_id in ids])
    if app.on_terminal and not yes:
        _confirm(app, tasks, ignore_missing)
    return Records(DELETED, _delete(app, ids, ignore_missing))


def _confirm(app: App, tasks: Sequence[str], ignore_missing: bool) -> None:
    """Ask about those that were given as @last or @N, by id and title."""
    from ..history import references

    relative = [each for each in tasks if each.startswith("@")]
    ids = references.tasks(app.history, relative, (), ignore_missing=ignore_missing)
    if ids:
        shown = ", ".join(_described(task_id, app.history.task(task_id)) for task_id in ids)
        confirm(app, f"Delete {shown}?", yes=False)


def _described(task_id: str, task: Mapping[str, Any] | None) -> str:
    title = task and (task["title"] or task["prompt"])
    return f"{task_id[:SHORT_ID]} ({title})" if title else task_id


def _delete(app: App, ids: Sequence[str], ignore_missing: bool) -> Iterator[RowOrError]:
    for task_id, answer in zip(ids, in_parallel(app.client.delete_task, ids), strict=True):
        is_missing = isinstance(answer, ResourceNotFound)
        if is_missing or not isinstance(answer, RebyteError):
            app.history.forget_task(task_id)
        if isinstance(answer, RebyteError) and not (is_missing and ignore_missing):
            yield answer
        else:
            yield {"id": task_id, "deleted": not is_missing}
