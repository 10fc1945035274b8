"""Apply the changes that a task made to the repository here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..app import App
from ..errors import BadUsage
from ..output.records import CHANGE, RecordList
from ._base import define
from ._options import task_argument
from ._prompts import confirm, yes_option

if TYPE_CHECKING:
    from ..tasks.patch import FileChange


@define("apply", kind=CHANGE)
@task_argument
@click.option("--force", is_flag=True, help="Apply even if there are uncommitted changes.")
@yes_option
def command(app: App, task: str, force: bool, yes: bool) -> RecordList:
    """Apply the changes that TASK made to the repository here.

    Works as `git apply --3way`: the changes end up in the work tree and the index, merged where
    the files have changed. Files left with conflicts are named, and the status is 1. A tree with
    uncommitted changes is refused (2) unless --force is given. Prints each changed file.

    If the patch touches files that tools run by themselves (workflows, hooks, Makefile, .envrc,
    instructions for agents, lock files, anything executable) or that lead elsewhere (symbolic
    links, submodules), a terminal shows them and asks first; --yes skips this.

    Hooks of the repository do not run. If it has the changes already, this does nothing (0).

    Examples:

      rebyte apply @last
      rebyte diff @last && rebyte apply @last --yes && git commit -m "Fix it"
    """
    from ..history import references
    from ..tasks import patch

    task_id = references.task(app.history, task)
    root = patch.top_level()
    workspace = app.located({"id": task_id}).get("workspaceId")
    found = patch.fetch(app.client, task_id, workspace)
    changes = patch.changes(found, root)
    if not changes:
        app.note("The task changed nothing")
        return RecordList(CHANGE, [])
    if patch.in_place(found, root):
        app.note(f"Nothing to apply: {root} has these changes already")
        return RecordList(CHANGE, [])
    dirty = [] if force else patch.uncommitted(root)
    if dirty:
        more = f" and {len(dirty) - 3} more" if len(dirty) > 3 else ""
        raise BadUsage(
            f"there are uncommitted changes: {', '.join(dirty[:3])}{more}",
            hint="Commit or stash them, or use --force to apply anyway",
        )
    risks = patch.risks(changes)
    if risks and not yes:
        app.note("Files that tools run or read by themselves:\n  " + "\n  ".join(risks))
        if app.interactive:
            confirm(app, "Apply these changes?", yes=False)
    changed = set(patch.apply(found, root))
    rows = [change for change in changes if {change.path, change.old_path} & changed]
    if not rows:
        app.note(f"Nothing to apply: {root} has these changes already")
        return RecordList(CHANGE, [])
    app.note(f"Applied the changes to {len(rows)} file{'' if len(rows) == 1 else 's'} in {root}")
    return RecordList(CHANGE, map(_row, rows))


def _row(change: FileChange) -> dict[str, object]:
    return {
        "path": change.path,
        "oldPath": change.old_path,
        "status": change.status,
        "additions": change.additions,
        "deletions": change.deletions,
        "executable": change.executable,
    }
