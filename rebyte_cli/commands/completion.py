"""Completion for bash, zsh and fish: print it, install it."""

from __future__ import annotations

from typing import Any

import click

from ..app import App
from ..errors import BadUsage
from ..output.records import INSTALLED, Text
from ._base import define, installed

SHELLS = ("bash", "zsh", "fish")


@define("completion", kind=INSTALLED, text=True, statuses=())
@click.argument("shell", type=click.Choice(SHELLS), required=False)
@click.option("--install", "do", flag_value="install", help="Put it where the shell looks.")
@click.option("--uninstall", "do", flag_value="uninstall", help="Take it away again.")
def command(app: App, shell: str | None, do: str | None) -> Any:
    """Print the completion script of a shell, by default that of $SHELL; or install it.

    TAB completes commands, options and their values, tasks (with their titles in zsh and fish),
    workspaces, profiles, skills and models used before. It reads this machine alone and never
    asks the service.

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
        app.note(f"{'Changed' if changed else 'Nothing to change in'} {path}")
    if do == "install":
        app.note(f"A new {shell} completes rebyte; so does: exec {install.fresh(shell)}")
    return installed(app, [{"path": str(path), "changed": changed} for path, changed in done])


def _of_the_user(app: App) -> str:
    name = app.environment.get("SHELL", "").rpartition("/")[2]
    if name not in SHELLS:
        raise BadUsage("which shell?", hint=f"rebyte completion {'|'.join(SHELLS)}")
    return name
