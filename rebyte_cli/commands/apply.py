"""Apply the changes that a task made to the repository here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
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
@click.argument("paths", metavar="[-- PATH…]", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Apply also what was applied here before.")
@click.option("--force", is_flag=True, help="Apply even if there are uncommitted changes.")
@yes_option
def command(
    app: App, task: str, paths: tuple[str, ...], everything: bool, force: bool, yes: bool
) -> RecordList:
    """Apply the changes that TASK made to the repository here.

    After a follow-up, applies only what is new since the last `apply` of the task in this
    repository; --all applies everything. PATH limits it to files and folders, and does not count
    as the last `apply`. Where the
    service does not tell runs apart, everything is applied each time.

    Works as `git apply --3way`: the changes end up in the work tree and the index, merged where
    the files have changed. Files left with conflicts are named, and the status is 1. A tree with
    uncommitted changes is refused (2) unless --force is given. Prints each changed file.

    If the patch touches files that tools run by themselves (workflows, hooks, Makefile, .envrc,
    instructions for agents, lock files, anything executable) or that lead elsewhere (symbolic
    links, submodules), a terminal shows them and asks first; --yes skips this.

    Hooks of the repository do not run. If it has the changes already, this does nothing (0).

    Examples:

      rebyte apply @last
      rebyte apply @last -- src docs/index.md
      rebyte diff @last && rebyte apply @last --yes && git commit -m "Fix it"
    """
    from ..history import references
    from ..tasks import patch

    with patch.telling():
        task_id = references.task(app.history, task)
        root = patch.top_level()
        workspace = app.located({"id": task_id}).get("workspaceId")
        source = patch.source(app.client, task_id, workspace)
        before = {} if everything else app.history.applied(task_id, str(root))
        still_here = _still_here(before, root)
        runs = [run for run in source.runs if run not in still_here]
        found = patch.fetch(app.client, source, runs)
        if paths:
            found = patch.only(found, paths, root)
        head = patch.head(root)

        def remember() -> None:
            if not paths:
                app.history.add_applied(task_id, str(root), runs, head)

        if not found.strip():
            remember()
            since = " since it was applied here" if 0 < len(runs) < len(source.runs) else ""
            app.note(f"The task changed nothing{since}")
            return RecordList(CHANGE, [])
        found = patch.missing(found, root)
        if not found:
            remember()
            return _nothing(app, f"{root} has these changes already")
        if source.runs and not runs:
            return _nothing(app, "all of it was applied here before; --all applies it again")
        changes = patch.changes(found, root)
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
    changed = set(patch.apply(found, root, remember))
    rows = [change for change in changes if {change.path, change.old_path} & changed]
    if not rows:
        return _nothing(app, f"{root} has these changes already")
    app.note(f"Applied the changes to {len(rows)} file{'' if len(rows) == 1 else 's'} in {root}")
    return RecordList(CHANGE, map(_row, rows))


def _still_here(applied: Mapping[str, str], root: Path) -> set[str]:
    """The runs whose changes were applied here and can still be in the tree."""
    from ..tasks import patch

    heads = {head for head in applied.values() if patch.can_be_here(head, root)}
    return {run for run, head in applied.items() if head in heads}


def _nothing(app: App, why: str) -> RecordList:
    app.note(f"Nothing to apply: {why}")
    return RecordList(CHANGE, [])


def _row(change: FileChange) -> dict[str, object]:
    return {
        "path": change.path,
        "oldPath": change.old_path,
        "status": change.status,
        "additions": change.additions,
        "deletions": change.deletions,
        "executable": change.executable,
    }
