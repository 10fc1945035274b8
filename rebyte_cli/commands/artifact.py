"""Manage the files that tasks leave in a workspace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from ..app import App
from ..errors import BadUsage, Next
from ..output.records import ARTIFACT, DELETED, Raw, RecordList, Records, Value
from ..tasks.parallel import deleted
from ._base import Group
from ._options import chosen_workspace, workspace_argument
from ._prompts import confirm, yes_option


@click.group("artifact", cls=Group)
def command() -> None:
    """Manage the output files of a workspace: documents, images, audio and video.

    WS is what `create -w` takes: an id, an alias, @last, or a task.

    Examples:

      rebyte artifact list @last
      rebyte artifact get @last --all -d results
    """


@command.command("list", kind=ARTIFACT)
@workspace_argument
def list_(app: App, workspace: str) -> RecordList:
    """List the artifacts of WS.

    Example:

      rebyte artifact list @last -o id
    """
    return RecordList(
        ARTIFACT, map(_named, app.client.list_artifacts(chosen_workspace(app, workspace)))
    )


@command.command("get", kind=ARTIFACT)
@workspace_argument
@click.argument("names", metavar="[NAME]…", nargs=-1)
@click.option("--all", "all_", is_flag=True, help="Download every artifact of WS.")
@click.option(
    "-d",
    "--dir",
    "folder",
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="The folder to write files to (default: the current one).",
)
@click.option(
    "-O",
    "--to",
    "file",
    metavar="FILE",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="Write one NAME to FILE; `-` is stdout.",
)
@click.option("--force", is_flag=True, help="Replace existing files.")
@click.option(
    "--hidden", is_flag=True, help="Also write hidden files and files that tools run automatically."
)
def get(
    app: App,
    workspace: str,
    names: Sequence[str],
    all_: bool,
    folder: str | None,
    file: str | None,
    force: bool,
    hidden: bool,
) -> Value:
    """Download each NAME, or everything with --all.

    Prints the path of each file. A file appears only when it is complete, and never replaces an
    existing one without --force. With --all, existing files of the same size are skipped, so
    running an interrupted command again resumes it.

    The agent chose the names, so they are checked: no file is written outside the folder, through
    a link, or into a `.git` folder, and none whose name is too long or begins with `-`. Names that
    begin with a dot, and names that tools run automatically (`conftest.py`), need --hidden.

    Examples:

      rebyte artifact get @last report.pdf
      rebyte artifact get @last report.pdf -O - | less
      rebyte artifact get shop --all -d results
    """
    if all_ == bool(names):
        raise _name_or_all(workspace)
    if file is not None and (all_ or len(names) != 1 or folder):
        raise BadUsage("-O FILE requires exactly one NAME and cannot be used with --dir")
    workspace_id = chosen_workspace(app, workspace)
    if file is not None:
        return _to_file(app, workspace_id, names[0], file, force)
    where = Path(folder or ".")
    from ..tasks import download

    listed = [{"name": name} for name in names]
    if all_:
        listed = list(map(_named, app.client.list_artifacts(workspace_id)))
    rows = download.fetch_all(
        app.client,
        workspace_id,
        listed,
        where,
        force=force,
        resume=all_,
        hidden=hidden,
        progress_bar=app.progress_bar,
        note=app.note,
    )
    return Records(ARTIFACT, rows)


def _to_file(app: App, workspace_id: str, name: str, file: str, force: bool) -> Value:
    from ..tasks import download

    with app.progress_bar(f"Downloading {name}", None) as advance:
        if file != "-":
            target = Path(file)
            found = download.fetch(
                app.client, workspace_id, name, target, force=force, progress=advance
            )
            return Records(ARTIFACT, [found])
        # By way of a file, so that stdout gets all of it or nothing.
        return Raw(download.pieces(app.client, workspace_id, name))


@command.command("put", kind=ARTIFACT, statuses=(3, 4, 5, 6))
@workspace_argument
@click.argument("paths", metavar="PATH…", nargs=-1, required=True, type=click.Path())
def put(app: App, workspace: str, paths: Sequence[str]) -> Records:
    """Upload each PATH to WS. All paths are checked before the first is sent.

    Example:

      rebyte artifact put @last logo.png brief.pdf
    """
    from ..tasks import upload

    workspace_id = chosen_workspace(app, workspace)
    files = upload.check(paths)
    return Records(ARTIFACT, upload.put(app.client, workspace_id, files, app.progress_bar))


@command.command("delete", kind=DELETED)
@workspace_argument
@click.argument("names", metavar="[NAME]…", nargs=-1)
@click.option("--all", "all_", is_flag=True, help="Delete every artifact of WS; asks first.")
@yes_option
def delete(app: App, workspace: str, names: Sequence[str], all_: bool, yes: bool) -> Records:
    """Delete each NAME, or everything with --all. Named artifacts are deleted without confirmation.

    Examples:

      rebyte artifact delete @last draft.pdf
      rebyte artifact delete shop --all --yes
    """
    if all_ == bool(names):
        raise _name_or_all(workspace)
    workspace_id = chosen_workspace(app, workspace)
    if not all_:
        delete_one = partial(app.client.delete_artifact, workspace_id)
        return Records(DELETED, deleted(delete_one, list(dict.fromkeys(names))))
    confirm(app, f"Delete every artifact of workspace {workspace_id}?", yes=yes)
    app.client.delete_artifacts(workspace_id)
    return Records(DELETED, [{"id": workspace_id, "deleted": True}])


def _name_or_all(workspace: str) -> BadUsage:
    return BadUsage(
        "pass the NAME of an artifact, or --all", hint="See " + Next("artifact", "list", workspace)
    )


def _named(artifact: Mapping[str, Any]) -> dict[str, Any]:
    """The artifact with `name`; some answers call it `filename` (inferred)."""
    name = artifact.get("name") or artifact.get("filename")
    return {"name": name, **{key: artifact[key] for key in artifact if key != "name"}}
