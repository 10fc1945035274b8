"""Print or install TAB completion for bash, zsh and fish."""

from __future__ import annotations

from typing import Any

import click

from ..app import App
from ..errors import BadUsage
from ..output.records import INSTALLED, Text
from ._base import define, installed
from ._options import Choice, refuse

SHELLS = ("bash", "zsh", "fish")


@define("completion", kind=INSTALLED, text=True, statuses=())
@click.argument("shell", type=Choice(SHELLS), required=False)
@click.option("--install", is_flag=True, help="Install it where the shell finds it.")
@click.option("--uninstall", is_flag=True, help="Remove what --install wrote.")
def command(app: App, shell: str | None, install: bool, uninstall: bool) -> Any:
    """Print the completion script for a shell (default: the one you are in), or install it.

    TAB completes commands, options and their values, tasks (with titles in zsh and fish),
    workspaces, profiles, and skills and models used before. Completion only reads files on this
    machine and never contacts the service.

    Examples:

      rebyte completion --install
      source <(rebyte completion bash)
      rebyte completion zsh > ~/.zfunc/_rebyte
      rebyte completion fish --uninstall
    """
    from ..completion import install as scripts

    refuse({"--install and --uninstall": install and uninstall})
    shell = shell or _of_the_user(app)
    if not (install or uninstall):
        return Text(scripts.script_of(shell))
    act = scripts.install if install else scripts.uninstall
    done = act(shell, app.environment)
    for path, changed in done:
        if install:
            app.note(f"{'Changed' if changed else 'Already up to date:'} {path}")
        elif not changed:
            app.note(f"Not installed: {path}")
        else:  # a start file that read the script, or the script
            lines = "the lines of rebyte from " if path.exists() else ""
            app.note(f"Removed {lines}{path}")
    if install:
        app.note(f"Open a new {shell} to use it, or run: exec {scripts.fresh(shell)}")
    return installed(app, done)


def _of_the_user(app: App) -> str:
    from ..completion.install import parent_shell

    login = app.environment.get("SHELL", "").rpartition("/")[2]
    name = parent_shell(SHELLS) or login
    if name not in SHELLS:
        raise BadUsage(
            "cannot determine the shell from the parent process or $SHELL",
            hint=f"Use rebyte completion {'|'.join(SHELLS)}",
        )
    return name
