"""Serve rebyte's tools to an agent over MCP."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import click

from ..app import App
from ..errors import BadUsage, RebyteError
from ..mcp import clients
from ..output.records import INSTALLED, Text
from ._base import define, installed


@define("mcp", kind=INSTALLED, text=True, statuses=(3,))
@click.option(
    "--install",
    "client",
    type=click.Choice(list(clients.CLIENTS)),
    help="Write the entry for this server into the configuration of an agent.",
)
@click.option("--dry-run", is_flag=True, help="With --install: print the entry instead.")
def command(app: App, client: str | None, dry_run: bool) -> Any:
    """Serve tools to an agent over the Model Context Protocol, on stdin and stdout.

    The agent starts this command itself, from an entry in its configuration. --install writes that
    entry: into .mcp.json of this folder for claude, and into a file in the home folder for the
    others. Both require the MCP SDK, the extra `mcp` of this package; an error says how to add it.

    The tools are create (with once), wait, get, result, follow_up, list, answer, cancel, logs and
    diff. They use the profile given with -P, and return the errors and statuses of the commands
    with these names. create, follow_up and wait report progress every second, and wait reports when
    the task asks a question. If a client cancels a long call, the task keeps running, and wait can
    be called again.

    Examples:

      rebyte mcp --install codex
      rebyte mcp --install claude -P local
      rebyte mcp --install gemini --dry-run
    """
    if client is not None:
        return _install(app, client, dry_run)
    if dry_run:
        raise BadUsage("--dry-run requires --install")
    _check_sdk()
    from ..mcp.server import serve

    app.options["no_input"] = True  # stdin belongs to the protocol
    serve(app)
    return None


def _check_sdk() -> None:
    if find_spec("mcp") is None:
        from ..installation import Installation

        raise RebyteError(
            "rebyte mcp requires the MCP SDK, which is not installed",
            hint=Installation.find().add("mcp"),
            code="missing_extra",
        )


def _install(app: App, client: str, dry_run: bool) -> Any:
    settings = app.settings
    # The agent starts the server in an environment of its own.
    words = clients.command_line(settings.profile if settings.named else None)
    if dry_run:
        return Text(clients.snippet(client, words))
    _check_sdk()
    path = clients.path_of(client, app.environment)
    changed = clients.install(client, path, words)
    app.note(f"Added the server to {path}" if changed else f"Already in {path}")
    return installed(app, [{"path": str(path), "changed": changed}])
