"""Show the help of a command."""

from __future__ import annotations

import click

from ..app import App
from ..errors import BadUsage, did_you_mean
from ..output.records import Text
from ._base import Group, define
from ._options import completer


@define("help", text=True, statuses=())
@click.argument("words", metavar="[COMMAND]…", nargs=-1, shell_complete=completer("commands"))
@click.pass_context
def command(ctx: click.Context, app: App, words: tuple[str, ...]) -> Text:
    """Show the help of COMMAND, like `rebyte COMMAND --help`.

    Examples:

      rebyte help create
      rebyte help workspace list
    """
    here = ctx.find_root().command.make_context("rebyte", [], obj=app, resilient_parsing=True)
    for word in words:
        found = None
        known: list[str] = []
        if isinstance(here.command, Group):
            known = here.command.list_commands(here)
            word = here.command.canonical(here, word)
            found = here.command.get_command(here, word) if word in known else None
        if found is None:
            raise BadUsage(
                f"no such command: {here.command_path} {word}", hint=did_you_mean(word, known)
            )
        here = found.make_context(word, [], parent=here, resilient_parsing=True)
    return Text(here.get_help())
