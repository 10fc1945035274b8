"""Workspaces: the VMs behind tasks, and their aliases."""

from __future__ import annotations

from typing import Any

import click

from ..app import App
from ..errors import NotFound
from ..output.kinds import WORKSPACE, Listing, Records
from ._base import completer, define_group, define_in

workspace_argument = click.argument(
    "workspace", metavar="WS", shell_complete=completer("workspaces")
)


@define_group("workspace")
def command() -> None:
    """The VMs that tasks ran in, and names for them.

    The API tells a workspace's id once, when a task is created. The history keeps it, so that
    `rebyte create -w` can run the next task in the same VM: by id, alias, @last, or a task.

    Examples:

      rebyte workspace name @last shop
      rebyte create "Now add tests" -w shop
      rebyte workspace list
    """


@define_in(command, "list", kind=WORKSPACE, statuses=())
def list_(app: App) -> Listing:
    """List the workspaces known from here, the last used first.

    Example:

      rebyte workspace list --fields id,name,tasks
    """
    return Listing(WORKSPACE, app.history.workspaces())


@define_in(command, "show", kind=WORKSPACE)
@workspace_argument
def show(app: App, workspace: str) -> Records:
    """Show one workspace and the tasks that ran in it.

    Example:

      rebyte workspace show shop -o json
    """
    from ..profiles import references

    workspace_id = references.workspace(app.history, workspace)
    return Records(WORKSPACE, [_known(app, workspace_id)])


@define_in(command, "name", kind=WORKSPACE)
@workspace_argument
@click.argument("alias")
def name(app: App, workspace: str, alias: str) -> Records:
    """Give WS the name ALIAS, which then stands for it in -w.

    Examples:

      rebyte workspace name @last shop
      rebyte workspace name 660e8400-e29b-41d4-a716-446655440001 shop
    """
    from ..profiles import references

    workspace_id = references.workspace(app.history, workspace)
    app.history.name_workspace(workspace_id, alias)
    return Records(WORKSPACE, [_known(app, workspace_id)])


@define_in(command, "forget", statuses=(4,))
@workspace_argument
def forget(app: App, workspace: str) -> None:
    """Drop WS and its name from the history; the VM itself stays.

    Example:

      rebyte workspace forget shop
    """
    from ..profiles import references

    workspace_id = references.workspace(app.history, workspace)
    _known(app, workspace_id)
    app.history.forget_workspace(workspace_id)
    app.note(f"Forgot workspace {workspace_id}")


def _known(app: App, workspace_id: str) -> dict[str, Any]:
    known: dict[str, Any] | None = app.history.workspace(workspace_id)
    if known is None:
        raise NotFound(
            f"no workspace {workspace_id} in the history",
            hint="`rebyte workspace list` shows the known ones",
        )
    return known
