"""Print, install and list the skills of coding agents."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from ..app import App
from ..config.permissions import private_folder
from ..errors import BadUsage, RebyteError
from ..output.records import INSTALLED, SKILL, RecordList, Text
from ._base import define_group, define_in, installed

FILE = "SKILL.md"
MARK = b"---\nname: rebyte\n"  # how every version of it begins


@define_group("skill", kind=INSTALLED, text=True, invoke_without_command=True)
@click.option(
    "--install",
    "folder",
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="Copy it to DIR/rebyte/SKILL.md, where DIR holds an agent's skills.",
)
@click.option(
    "--uninstall",
    "left",
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="Remove what --install DIR wrote.",
)
@click.pass_context
def command(ctx: click.Context, folder: str | None, left: str | None) -> Any:
    """Print the skill that teaches coding agents to run tasks with rebyte.

    `rebyte skill list` lists the skills that `-s` can attach to agents on this machine.

    Examples:

      rebyte skill
      rebyte skill --install ~/.claude/skills
    """
    if ctx.invoked_subcommand is not None:
        return None
    app = ctx.find_object(App)
    assert app is not None
    from importlib.resources import files

    if "" in (folder, left):
        raise BadUsage("DIR is empty")
    if left is not None:
        if folder is not None:
            raise BadUsage("--install and --uninstall cannot be used together")
        return installed(app, [_uninstall(app, Path(left) / "rebyte" / FILE)])
    text = files("rebyte_cli").joinpath(FILE).read_text(encoding="utf-8")
    if folder is None:
        return Text(text)
    target = Path(folder) / "rebyte" / FILE
    try:
        if target.is_symlink():  # it would be written where the link leads
            raise BadUsage(f"{target} is a link", hint="Remove it, then try again")
        there = target.read_bytes() if target.exists() else b""
        if there and not there.startswith(MARK):
            raise BadUsage(
                f"{target} was not written by rebyte", hint="Move it away, then try again"
            )
        changed = there != text.encode()
        if changed:
            private_folder(target.parent)
            target.write_bytes(text.encode())
    except OSError as error:
        raise RebyteError(f"cannot write {target}: {error.strerror}") from None
    app.note(f"Installed the skill in {target}")
    return installed(app, [{"path": str(target), "changed": changed}])


def _uninstall(app: App, target: Path) -> dict[str, Any]:
    """Remove the skill, whatever its version, and its folder if that is then empty."""
    try:
        ours = target.is_file() and target.read_bytes().startswith(MARK)
        if ours:
            target.unlink()
    except OSError as error:
        raise RebyteError(f"cannot remove {target}: {error.strerror}") from None
    if ours:
        with suppress(OSError):
            target.parent.rmdir()
    app.note(f"{'Removed' if ours else 'Not installed:'} {target}")
    return {"path": str(target), "changed": ours}


@define_in(command, "list", kind=SKILL, statuses=())
def list_(app: App) -> RecordList:
    """List the skills that `-s` can attach to agents on this machine.

    A skill is a folder with a SKILL.md, in `skills` of the config folder, ~/.agents/skills,
    ~/.claude/skills, or .agents/skills and .claude/skills of the repository here. `-s` also takes
    github:OWNER/REPO[/PATH], which is cloned once.

    Example:

      rebyte skill list
    """
    from ..local.agents import report

    return RecordList(SKILL, report.known_skills(app.config_path.parent, _repository()))


def _repository() -> Path:
    """The root of the current repository, or the current folder outside of one."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / ".git").exists()), here)
