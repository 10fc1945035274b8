"""Print, install and list the skills of coding agents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..app import App
from ..config.fields import LOCAL
from ..config.paths import home_dir
from ..errors import BadUsage
from ..output.records import INSTALLED, SKILL, RecordList, Text
from ..system import marked_files
from ._base import Group, installed
from ._options import install_options, refuse

FILE = "SKILL.md"
MARK = b"---\nname: rebyte\n"  # how every version of it begins


@click.group("skill", cls=Group, kind=INSTALLED, text=True, invoke_without_command=True)
@install_options(
    "Copy it to DIR/rebyte/SKILL.md (default: the folders where agents look).",
    "Remove what --install wrote there.",
)
@click.pass_context
def command(ctx: click.Context, folder: str | None, left: str | None) -> Any:
    """Print the skill that teaches coding agents to run tasks with rebyte.

    --install without DIR copies it to ~/.agents/skills, where Codex, Gemini CLI and OpenCode look,
    and to ~/.claude/skills if Claude Code is used here. `rebyte skill list` lists the skills
    that `-s` can name.

    Examples:

      rebyte skill
      rebyte skill --install
      rebyte skill --install .claude/skills
    """
    if ctx.invoked_subcommand is not None:
        return None
    app = ctx.find_object(App)
    assert app is not None
    refuse({"--install and --uninstall": left is not None and folder is not None})
    if left is not None:
        places = [Path(left)] if left else _places_of_agents(app, all_of_them=True)
        done = marked_files.uninstall([place / "rebyte" / FILE for place in places], MARK)
        for path, removed in done:
            app.note(f"{'Removed' if removed else 'Not installed:'} {path}")
        return installed(app, done)
    from importlib.resources import files

    text = files("rebyte_cli").joinpath(FILE).read_text(encoding="utf-8")
    if folder is None:
        return Text(text)
    places = [Path(folder)] if folder else _places_of_agents(app)
    targets = [place / "rebyte" / FILE for place in places]
    for target in filter(Path.is_symlink, targets):  # the user made it, and may keep the file there
        raise BadUsage(f"{target} is a link", hint="Remove it, then try again")
    done = marked_files.install(dict.fromkeys(targets, text.encode()), MARK)
    for path, _ in done:
        app.note(f"Installed the skill in {path}")
    return installed(app, done)


def _places_of_agents(app: App, *, all_of_them: bool = False) -> list[Path]:
    """The folders where agents look for a user's skills; Claude Code's own if it is used here."""
    home = home_dir(app.environment)
    claude = Path(app.environment.get("CLAUDE_CONFIG_DIR") or home / ".claude")
    is_used = all_of_them or claude.is_dir()
    return [home / ".agents" / "skills", *([claude / "skills"] if is_used else ())]


@command.command("list", kind=SKILL, statuses=())
def list_(app: App) -> RecordList:
    """List the skills that `-s` can name.

    Each is shown with the profile whose tasks can use it.

    Agents on this machine (`-P local`) get the folders with a SKILL.md in `skills` of the config
    folder, ~/.agents/skills, ~/.claude/skills, and .agents/skills and .claude/skills of the
    repository here. For them, `-s` also takes github:OWNER/REPO[/PATH], which is cloned once.

    The API has no list of an account's skills. For other profiles, the list has the skills that the
    profile attaches by default and those that your tasks have used before.

    Examples:

      rebyte skill list
      rebyte skill list -P local
    """
    from ..local.agents import known_skills

    found: list[dict[str, Any]] = []
    settings = app.settings
    if not settings.is_local:
        used = dict.fromkeys([*(settings.skills.value or ()), *app.history.words("skills")])
        unknown = {"description": None, "folder": None}
        found = [{"name": name, "profile": settings.profile, **unknown} for name in used]
    here = known_skills(app.config_path.parent, _repository())
    return RecordList(SKILL, [*found, *({**each, "profile": LOCAL} for each in here)])


def _repository() -> Path:
    """The root of the current repository, or the current folder outside of one."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / ".git").exists()), here)
