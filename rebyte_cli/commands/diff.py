"""Print the changes that a task made, as a patch."""

from __future__ import annotations

import click

from ..app import App
from ..errors import NotFound
from ..output.markup import Rendered
from ..output.records import PAGER, Raw, Text
from ._base import define
from ._options import chosen_task, task_argument


@define("diff", text=True)
@task_argument
@click.option("--run", "alone", is_flag=True, help="Only the changes of the last run.")
def command(app: App, task: str, alone: bool) -> Raw | Text:
    """Print the changes that TASK made, as a patch.

    The patch is coloured on a terminal and unchanged in a pipe, ready for `git apply`. It covers
    all runs of the task, follow-ups included, and with --run the last one that has ended.

    Exits with 4 if there is no patch. Agents on this machine leave one. Elsewhere, a task has one
    if its agent saves an artifact changes.patch. That covers the whole workspace, whatever task
    changed it, so --run is an error.

    Examples:

      rebyte diff @last
      rebyte diff @last --run
      rebyte diff @last | git apply --stat
    """
    from ..tasks import patch

    task_id = chosen_task(app, task)
    source = patch.source(app.client, task_id, app.known.workspace_of(task_id))
    found = patch.fetch(app.client, source, source.runs[-1:] if alone else ())
    if alone and not source.runs:
        raise NotFound(f"the changes of single runs of task {task_id} were not kept")
    # FORCE_COLOR is for what people read, and what is not a terminal gets a patch to apply.
    if not app.console.out_tty and app.options.get("color") != "always":
        return Raw(found)
    return Text(map(Rendered, patch.coloured(found, color=app.console.out_color)), pager=PAGER)
