"""Print the agent skill that teaches an agent this command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..app import App
from ..errors import RebyteError
from ..output.kinds import INSTALLED, Records, Text
from ._base import define

FILE = "SKILL.md"


@define("skill", kind=INSTALLED, text=True, statuses=())
@click.option(
    "--install",
    "folder",
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="Copy it to DIR/rebyte/SKILL.md, where DIR holds an agent's skills.",
)
def command(app: App, folder: str | None) -> Any:
    """Print the skill: a page for coding agents on how to run tasks with this command.

    Examples:

      rebyte skill
      rebyte skill --install ~/.claude/skills
    """
    from importlib.resources import files

    text = files("rebyte_cli").joinpath(FILE).read_text(encoding="utf-8")
    if folder is None:
        return Text(text)
    target = Path(folder) / "rebyte" / FILE
    try:
        changed = not target.exists() or target.read_bytes() != text.encode()
        if changed:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(text.encode())
    except OSError as error:
        raise RebyteError(f"cannot write {target}: {error.strerror}") from None
    app.note(f"The skill is in {target}")
    return Records(INSTALLED, [{"path": str(target), "changed": changed}])
