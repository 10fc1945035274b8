"""Serve rebyte's tools to an agent over MCP."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..app import App
from ..errors import RebyteError
from ..history import references
from ..mcp import clients
from ..output.records import INSTALLED, Text
from ._base import define, installed
from ._options import Choice, refuse

if TYPE_CHECKING:
    from ..config.settings import Settings


@define("mcp", kind=INSTALLED, text=True, statuses=(3,))
@click.option(
    "--install",
    "client",
    type=Choice(list(clients.CLIENTS)),
    help="Write the entry for this server into the configuration of an agent.",
)
@click.option(
    "--root",
    "roots",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, resolve_path=True),
    multiple=True,
    help="Let tasks clone the repositories in DIR; repeat it for several.",
)
@click.option(
    "--workspace",
    "workspaces",
    metavar="WS",
    multiple=True,
    help="Let tasks run in WS, which this server did not create; repeat it for several.",
)
@click.option("--dry-run", is_flag=True, help="With --install: print the entry instead.")
def command(
    app: App,
    client: str | None,
    roots: tuple[str, ...],
    workspaces: tuple[str, ...],
    dry_run: bool,
) -> Any:
    """Serve tools to an agent over the Model Context Protocol, on stdin and stdout.

    The agent starts this command itself, from an entry in its configuration. --install writes that
    entry: into .mcp.json of this folder for claude, and into a file in the home folder for the
    others. Both require the MCP SDK, the extra `mcp` of this package; an error says how to add it.

    The tools are create (with once), wait, get, result, follow_up, list, answer, cancel, logs and
    diff. They use the profile given with -P, and return the errors and statuses of the commands
    with these names. create, follow_up and wait report progress every second, and wait reports when
    the task asks a question. If a client cancels a long call, the task keeps running, and wait can
    be called again.

    A client may be led astray by what it reads, so its tasks can do less than yours. `repository`
    is owner/repo, an https URL, or `.`, the folder that the server was started in; --root allows
    the repositories in a folder. create, follow_up, answer and, with a schema, wait only work in
    workspaces that this server created since it started, or that --workspace names, so that the
    changes of your own tasks stay as they are. An agent on this machine always runs in a sandbox.

    Examples:

      rebyte mcp --install codex
      rebyte mcp --install claude -P local
      rebyte mcp --install gemini --root .. --dry-run
    """
    settings = app.settings  # an unknown profile ends it here, and not each of its tools
    if client is not None:
        allowed = [word for root in roots for word in ("--root", root)]
        allowed += [word for workspace in workspaces for word in ("--workspace", workspace)]
        return _install(app, client, settings, allowed, dry_run)
    refuse({"--dry-run": dry_run}, "requires --install")
    _check_sdk()
    from ..mcp.scope import Scope
    from ..mcp.server import serve

    app.options["no_input"] = True  # stdin belongs to the protocol
    known = [references.workspace(app.history, each) for each in workspaces]
    serve(app, Scope([Path(root) for root in roots], known))
    return None


def _check_sdk() -> None:
    if find_spec("mcp") is None:
        from ..installation import Installation

        raise RebyteError(
            "rebyte mcp requires the MCP SDK, which is not installed",
            hint=Installation.find().add("mcp"),
            code="missing_extra",
        )


def _install(app: App, client: str, settings: Settings, allowed: list[str], dry_run: bool) -> Any:
    # The agent does not pass its environment on to the server.
    words = [*clients.command_line(settings.profile if settings.named else None), *allowed]
    if dry_run:
        return Text(clients.snippet(client, words))
    _check_sdk()
    path = clients.path_of(client, app.environment)
    changed = clients.install(client, path, words)
    app.note(f"Added the server to {path}" if changed else f"Already in {path}")
    return installed(app, [(path, changed)])
