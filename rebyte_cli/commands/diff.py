"""Print the changes that a task made, as a patch."""

from __future__ import annotations

from ..app import App
from ..output.records import Raw
from ._base import define
from ._options import task_argument


@define("diff", text=True)
@task_argument
def command(app: App, task: str) -> Raw:
    """Print the changes that TASK made, as a patch.

    Coloured on a terminal; in a pipe the patch as it is, for `git apply` or a file. It holds
    everything that changed in the workspace since it was created, by follow-ups too. Ends with 4
    when the workspace has no changes.patch. Runs of local agents leave one.

    Examples:

      rebyte diff @last
      rebyte diff @last | git apply --stat
    """
    from ..history import references
    from ..tasks import patch

    task_id = references.task(app.history, task)
    workspace = app.located({"id": task_id}).get("workspaceId")
    found = patch.fetch(app.client, task_id, workspace)
    if not app.console.out_tty and not app.console.out_color:
        return Raw(found)
    # Cleaned line by line already: as Text its colours would be taken for hostile, too.
    lines = patch.coloured(found, color=app.console.out_color)
    return Raw(line.encode("utf-8", "backslashreplace") for line in lines)
