"""Print the changes that a task made, as a patch."""

from __future__ import annotations

from ..app import App
from ..output.records import Raw
from ._base import define
from ._options import task_argument


@define("diff", text=True)
@task_argument
def command(app: App, task: str) -> Raw | None:
    """Print the changes that TASK made, as a patch.

    The patch is coloured on a terminal and unchanged in a pipe, ready for `git apply`. It covers
    everything that changed in the workspace since its creation, including follow-ups. Local
    agents leave such a patch; exits with 4 if the workspace has no changes.patch.

    Examples:

      rebyte diff @last
      rebyte diff @last | git apply --stat
    """
    from ..history import references
    from ..tasks import patch

    task_id = references.task(app.history, task)
    workspace = app.located({"id": task_id}).get("workspaceId")
    found = patch.fetch(app.client, task_id, workspace)
    # FORCE_COLOR is for what people read, and what is not a terminal gets a patch to apply.
    if not app.console.out_tty and app.options.get("color") != "always":
        return Raw(found)
    # Each line was cleaned already; printed as a value, its colours would be escaped as well.
    for line in patch.coloured(found, color=app.console.out_color):
        app.console.write_out(line)
    return None
