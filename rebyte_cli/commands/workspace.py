"""Manage workspaces, the VMs that tasks run in."""

from __future__ import annotations

from codecs import iterdecode
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from ..app import App
from ..errors import (
    BadUsage,
    KeyProblem,
    Next,
    NotFound,
    RebyteError,
    ResourceNotFound,
    did_you_mean,
)
from ..output.records import COMPUTER, DELETED, WORKSPACE, RecordList, Records, Text
from ..system.deadline import Deadline
from ._base import Group
from ._local import check_removed, local_refusals
from ._options import (
    Number,
    chosen_workspace,
    full_ids_option,
    refuse,
    timeout_option,
    workspace_argument,
)
from ._prompts import confirm, yes_option

if TYPE_CHECKING:
    from pathlib import Path

LOCAL_COLUMNS = ("id", "name", "repository", "size", "tasks", "lastUsedAt")


@click.group("workspace", cls=Group)
def command() -> None:
    """Manage the VMs that tasks run in, and give them names.

    The API returns the id of a workspace once, when it creates a task. The history keeps the id,
    so that `rebyte create -w` can run another task in the same VM: by id, alias, @last, or a task.
    Agent computers are workspaces that outlive their tasks.

    Examples:

      rebyte workspace create --name shop --wait
      rebyte create "Add tests" -w shop
      rebyte workspace name @last demo
    """


@command.command("list", kind=WORKSPACE)
@click.option(
    "-n",
    "--limit",
    type=Number(min=1),
    metavar="N",
    help="List at most N workspaces (default: 50 in a table, else all).",
)
@click.option("--all", "all_", is_flag=True, help="List all workspaces.")
@click.option("--named", is_flag=True, help="Only workspaces with a name.")
@click.option(
    "--search", metavar="TEXT", help="Only workspaces whose name, id or repository contains TEXT."
)
@full_ids_option
def list_(
    app: App, limit: int | None, all_: bool, named: bool, search: str | None, full_ids: bool
) -> RecordList:
    """List workspaces, named ones first, then the last used.

    Lists the workspaces in the history (a task created without -w has its own) and the account's
    agent computers; with -P local, what agents here cloned and the disk space at the end of their
    last run. If the API has no agent computers, or the key may not list them, only the
    history is listed.

    Examples:

      rebyte workspace list --named
      rebyte workspace list --search acme/shop --fields id,name,tasks
    """
    from ..tasks import workspaces

    refuse({"--all and --limit": all_ and limit is not None})
    try:
        found = workspaces.computers(app.client, app.note)
    except KeyProblem as problem:
        app.note(f"Only workspaces used on this machine: {problem.message}")
        found = []
    rows = list(workspaces.joined(app.history.workspaces(), found))
    if app.settings.is_local:
        from ..local import agents

        here = agents.sizes_of_workspaces(app.state_dir / "local")
        rows = [{**row, **here.get(row["id"], {})} for row in rows]
    rows = [row for row in rows if _matches(row, named=named, search=search)]
    most = limit or (50 if app.format == "table" and not all_ else len(rows))
    footer = f"{most} of {len(rows):,} workspaces; --all shows all"
    return RecordList(
        WORKSPACE,
        rows[:most],
        columns=LOCAL_COLUMNS if app.settings.is_local else None,
        shorten=None if full_ids else app.history.shortest_workspace_prefixes,
        footer=lambda count: footer if app.format == "table" and count < len(rows) else None,
    )


def _matches(row: Mapping[str, Any], *, named: bool, search: str | None) -> bool:
    """Whether a workspace is one of those that the options of `list` ask for."""
    if named and not row["name"]:
        return False
    wanted = (search or "").casefold()
    searched = ("name", "id", "githubUrl", "repository")
    return any(wanted in str(row.get(key) or "").casefold() for key in searched)


@command.command("show", kind=WORKSPACE)
@workspace_argument
@click.option("--show-secrets", is_flag=True, help="Include the sandbox API key, if there is one.")
def show(app: App, workspace: str, show_secrets: bool) -> Records:
    """Show a workspace and how it was used on this machine.

    For an agent computer, includes what the API knows about it.

    Example:

      rebyte workspace show shop -o json
    """
    from ..tasks import workspaces

    workspace_id = chosen_workspace(app, workspace)
    known = app.history.workspace(workspace_id)
    computer: Mapping[str, Any] = {}
    try:
        computer = app.client.get_computer(workspace_id)
    except KeyProblem:
        if known is None:
            raise
    except ResourceNotFound:
        if known is None:
            raise _missing(app, workspace_id) from None
    row = {**computer, **workspaces.merged(known, computer or None), "id": workspace_id}
    if not show_secrets:
        row.pop(workspaces.SECRET, None)
    return Records(WORKSPACE, [row])


@command.command("path", text=True, statuses=(4,))
@workspace_argument
@click.option("--running", is_flag=True, help="Even while an agent works there.")
def path(app: App, workspace: str, running: bool) -> Text:
    """Print the folder that the agents of a local workspace work in.

    Workspaces have one in which an agent on this machine has begun to work. Agents write its files,
    settings of git included: those that name programs are removed when a run ends. While an agent
    works there, git in the folder would obey it, so --running is required; `rebyte workspace git`
    is safe at any time.

    Examples:

      cd "$(rebyte -P local workspace path @last)"
      rebyte -P local workspace path @last --running
    """
    from ..local import agents
    from ..system.git import GitFailed

    workspace_id, folder = _folder(app, workspace)
    try:
        if not running and not agents.disarmed(
            app.state_dir / "local", workspace_id, app.note, complete=True
        ):
            raise RebyteError(
                f"an agent is working in workspace {workspace_id}: git there would obey its files",
                hint="Wait for it, or look with "
                + Next("workspace", "git", workspace_id, "--", "status")
                + "; --running prints the folder anyway",
            )
    except (OSError, GitFailed) as error:
        raise RebyteError(f"settings of git in {folder} cannot be made safe: {error}") from None
    return Text(f"{folder}\n")


@command.command("git", text=True, statuses=(4,))
@workspace_argument
@click.argument("words", metavar="-- WORD…", nargs=-1, required=True)
def git(app: App, workspace: str, words: tuple[str, ...]) -> Text:
    """Run git in a local workspace, inside a sandbox without network.

    Whatever the agent left there, hooks and settings of git included, has no effect outside the
    workspace. What it changed, or you did in the folder, counts as a part of the last run.
    Arguments after `--` are git's.

    Examples:

      rebyte -P local workspace git @last -- log --oneline
      rebyte -P local workspace git @last -- diff HEAD~1 --stat
    """
    from ..local import agents
    from ..system.git import GitFailed

    workspace_id, _ = _folder(app, workspace)

    def text() -> Iterator[str]:
        printed = agents.git_inside(app.state_dir / "local", workspace_id, words, app.note)
        try:
            yield from iterdecode(printed, "utf-8", "replace")
        except GitFailed as error:
            raise RebyteError(str(error)) from None

    return Text(text())


@command.command("run", statuses=(4,))
@workspace_argument
@click.argument("words", metavar="-- WORD…", nargs=-1, required=True)
def run(app: App, workspace: str, words: tuple[str, ...]) -> None:
    """Run a command in the sandbox of a local workspace.

    On a terminal it is interactive; the terminal that it has there is not yours, and is left as it
    was; it does not reach your clipboard, as in `rebyte attach`. Elsewhere, it has standard input
    and output. Its exit status is that of rebyte.

    It is refused while an agent is at work there, and an agent waits for its end. What it changes
    counts as a part of the last run. It reaches the hosts that a follow-up would.

    Examples:

      rebyte -P local workspace run @last -- make test
      rebyte -P local workspace run @last -- bash
    """
    from ..local import agents

    agents.leave_stand_in()
    workspace_id, folder = _folder(app, workspace)
    at_work = "Wait for it; " + Next("list", "--status", "running") + " shows the tasks"
    with local_refusals(run_at_work=at_work, no_jail=f"Run it in {folder}"):
        status = agents.run_by_hand(
            app.state_dir / "local", workspace_id, words, app.note, settings=app.config_path
        )
    raise click.exceptions.Exit(status)


def _folder(app: App, workspace: str) -> tuple[str, Path]:
    """The id of a local workspace, and where its agents work. NotFound for any other."""
    from ..local import agents

    workspace_id = chosen_workspace(app, workspace)
    state_dir = app.state_dir / "local"
    folder = agents.folder_of(state_dir, workspace_id) if app.settings.is_local else None
    if folder is None and app.settings.is_local:  # a task that the history does not have?
        with suppress(ResourceNotFound):
            workspace_id = app.client.get_task(workspace_id).get("workspaceId") or workspace_id
            folder = agents.folder_of(state_dir, workspace_id)
    if folder is None:
        hint = "Workspaces of this profile are where its service is; -P local has those here"
        if app.settings.is_local:
            hint, words = agents.why_no_folder(state_dir, workspace_id)
            hint = hint + Next(*words) if words else hint
        raise NotFound(f"workspace {workspace_id} has no folder on this machine", hint=hint)
    return workspace_id, folder


@command.command("create", kind=COMPUTER, statuses=(3, 4, 5, 6, 124))
@click.option("--name", metavar="NAME", help="A name, which -w accepts too.")
@click.option("--icon", metavar="TEXT", help="An icon for the web app.")
@click.option("--wait", is_flag=True, help="Wait until it is ready.")
@timeout_option
def create(
    app: App, name: str | None, icon: str | None, wait: bool, timeout: float | None
) -> Records:
    """Create a workspace that outlives its tasks (an agent computer).

    With --wait, returns when it is ready to run tasks, or says why it cannot start.

    Example:

      rebyte workspace create --name shop --wait
    """
    from ..tasks import workspaces

    for what, text, most in (("name", name, 200), ("icon", icon, 50)):
        if text is not None and not 0 < len(text) <= most:
            raise BadUsage(f"the {what} must have 1 to {most} characters")
    made: Mapping[str, Any] = app.client.create_computer(name, icon)
    workspace_id = str(made["id"])
    app.note(f"Created workspace {workspace_id}")
    if name is not None:
        _remember(app, workspace_id, name)
    if wait:
        with app.spinner("Starting the workspace"):
            made = workspaces.ready(app.client, made, deadline=Deadline(timeout))
    return Records(COMPUTER, [made])


def _remember(app: App, workspace_id: str, name: str) -> None:
    """Make the name an alias for -w, unless it is taken or unsuitable."""
    try:
        app.history.name_workspace(workspace_id, name)
    except BadUsage as error:
        app.note(f"Use the id with -w, since the name cannot be an alias: {error.message}")


@command.command("name", kind=WORKSPACE)
@workspace_argument
@click.argument("alias")
def name_(app: App, workspace: str, alias: str) -> Records:
    """Give WS an alias, for use with -w.

    Examples:

      rebyte workspace name @last shop
      rebyte workspace name 660e8400-e29b-41d4-a716-446655440001 shop
    """
    workspace_id = chosen_workspace(app, workspace)
    app.history.name_workspace(workspace_id, alias)
    return Records(WORKSPACE, [_known(app, workspace_id)])


@command.command("forget", statuses=(4,))
@workspace_argument
def forget(app: App, workspace: str) -> None:
    """Remove WS and its alias from the history. The VM itself stays.

    Example:

      rebyte workspace forget shop
    """
    workspace_id = chosen_workspace(app, workspace)
    _known(app, workspace_id)
    app.history.forget_workspace(workspace_id)
    app.note(f"Forgot workspace {workspace_id}")


@command.command("delete", kind=DELETED)
@workspace_argument
@yes_option
def delete(app: App, workspace: str, yes: bool) -> Records:
    """Delete the agent computer WS and everything in it. Asks first.

    Example:

      rebyte workspace delete shop --yes
    """
    workspace_id = chosen_workspace(app, workspace)
    known = app.history.workspace(workspace_id)
    if known is None and not yes:  # whether it is there, before anything is asked
        try:
            app.client.get_computer(workspace_id)
        except ResourceNotFound:
            raise _missing(app, workspace_id) from None
    shown = workspace if workspace == workspace_id else f"{workspace} ({workspace_id})"
    confirm(app, f"Delete workspace {shown} with everything in it?", yes=yes)
    try:
        app.client.delete_computer(workspace_id)
    except ResourceNotFound as error:
        if known is not None:  # a task's VM, or an agent computer that is gone already
            hint = "Remove it from the history with " + Next("workspace", "forget", workspace_id)
            raise error.copy_with(hint=hint) from None
        raise
    if known is not None:
        app.history.forget_workspace(workspace_id)
    if app.settings.is_local:
        check_removed(app, workspace_id)
    return Records(DELETED, [{"id": workspace_id, "deleted": True}])


def _known(app: App, workspace_id: str) -> dict[str, Any]:
    known: dict[str, Any] | None = app.history.workspace(workspace_id)
    if known is None:
        raise _missing(app, workspace_id)
    return known


def _missing(app: App, reference: str) -> NotFound:
    """The error for an unknown workspace, with the nearest alias."""
    names = [known["name"] for known in app.history.workspaces() if known["name"]]
    near = did_you_mean(reference, names)
    return NotFound(
        f"no such workspace: {reference}", hint=near or "See " + Next("workspace", "list")
    )
