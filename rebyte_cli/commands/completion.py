"""Print or install TAB completion for bash, zsh and fish."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..app import App
from ..errors import BadUsage
from ..output.records import INSTALLED, Text
from ._base import define, installed

SHELLS = ("bash", "zsh", "fish")


@define("completion", kind=INSTALLED, text=True, statuses=())
@click.argument("shell", type=click.Choice(SHELLS), required=False)
@click.option("--install", "do", flag_value="install", help="Install it where the shell finds it.")
@click.option("--uninstall", "do", flag_value="uninstall", help="Remove what --install wrote.")
def command(app: App, shell: str | None, do: str | None) -> Any:
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
    from ..completion.install import SCRIPTS

    shell = shell or _of_the_user(app)
    if do is None:
        return Text(SCRIPTS[shell])
    from ..completion import install

    done = getattr(install, do)(shell, app.environment)
    for path, changed in done:
        app.note(_said(do, path, changed))
    if do == "install":
        app.note(f"Open a new {shell} to use it, or run: exec {install.fresh(shell)}")
    return installed(app, [{"path": str(path), "changed": changed} for path, changed in done])


def _said(do: str, path: Path, changed: bool) -> str:
    """What became of a file: the script, or a start file that reads it."""
    if do == "install":
        return f"{'Changed' if changed else 'Already up to date:'} {path}"
    if not changed:
        return f"Not installed: {path}"
    return f"Removed the lines of rebyte from {path}" if path.exists() else f"Removed {path}"


def _of_the_user(app: App) -> str:
    from ..completion.parent_shell import parent_shell

    login = app.environment.get("SHELL", "").rpartition("/")[2]
    name = parent_shell(SHELLS) or login
    if name not in SHELLS:
        raise BadUsage(
            "cannot determine the shell from the parent process or $SHELL",
            hint=f"Use rebyte completion {'|'.join(SHELLS)}",
        )
    return name
