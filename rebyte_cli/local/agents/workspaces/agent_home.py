"""What an agent finds in its private HOME, and what of the code its jail hides from it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ....system import git
from ....system.git import GitFailed
from .. import agent_files
from ..adapters.adapter import Adapter, User
from ..adapters.built_in import SESSIONS
from ..adapters.model_access import AgentAccess
from ..exposed import Mount
from ..sources import skills
from .workspace_folder import Workspace


class LinkInTheWay(Exception):
    """A link is where settings are to be hidden; the text says so."""


class AgentHome:
    """The HOME of a workspace for the next run of an agent, which may be on its own screen."""

    def __init__(self, workspace: Workspace, adapter: Adapter, *, on_screen: bool) -> None:
        self._workspace = workspace
        self._adapter = adapter
        self._on_screen = on_screen

    def furnish(
        self,
        code: Mount,
        user: User,
        access: AgentAccess,
        chosen: Iterable[skills.Source],
        room: int,
    ) -> list[str]:
        """Make it a new one but for the agents' sessions. Raises OSError.

        An earlier run, even of another agent, may have left what this one would obey. `chosen` are
        the skills that it gets besides those of the repository, and `room` the bytes of the disk
        that cleaning may fill. What the user is to know of lost sessions and unread files.
        """
        home, adapter = self._workspace.home, self._adapter
        agent_files.keep_only(home, SESSIONS)
        told = [*filter(None, [adapter.clean_sessions(home, code.inside, room)])]
        skills.install(home, [*self._workspace.skills(adapter.finds_skills), *chosen])
        for pattern in adapter.memory(user.home):
            for path in user.home.glob(pattern):
                name = path.relative_to(user.home).as_posix()
                try:
                    content = path.read_bytes() if path.is_file() else None
                except OSError as error:
                    told.append(f"Not used, since it cannot be read: ~/{name} ({error.strerror})")
                    continue
                if content is not None:
                    agent_files.write(home, name, content)
        files = adapter.screen_files if self._on_screen else adapter.files
        written = {**files(user, code, access), **access.files, ".gitconfig": _git_config()}
        for name, text in written.items():
            agent_files.write(home, name, text.encode())
        return told

    def hidden_folders(self) -> list[str]:
        """The folders of the code to hide, made where they are missing: git keeps no empty one.

        Raises LinkInTheWay.
        """
        for name in self._adapter.hidden:
            with suppress(FileExistsError):
                self._no_link(name).mkdir(mode=0o700)
        return [name for name in self._adapter.hidden if (self._workspace.code / name).is_dir()]

    def hidden_files(self, folder: Path) -> dict[str, Path]:
        """The files to hide, with the one in `folder` to show instead: settings that do no harm.

        Raises LinkInTheWay.
        """
        shown = dict.fromkeys(self._adapter.hidden_files, "{}\n")
        shown |= self._adapter.hidden_on_screen if self._on_screen else {}
        found = {}
        for number, (name, text) in enumerate(shown.items()):
            if Path(name).is_absolute() or self._no_link(name).is_file():
                found[name] = folder / f"shown-{number}.json"
                found[name].write_text(text, encoding="ascii")
        return found

    def _no_link(self, name: str) -> Path:
        """A place in the code that is to be hidden. Raises LinkInTheWay."""
        place = self._workspace.code / name
        if place.is_symlink():
            title = self._adapter.title
            raise LinkInTheWay(f"{name} is a link: {title} would obey settings through it")
        return place


def _git_config() -> str:
    """So that the agent can commit, in the user's name, and git takes /code for its own."""
    found = {"name": "agent", "email": "agent@localhost"}
    with suppress(GitFailed):
        listed = git.run(["config", "--global", "-z", "--get-regexp", r"^user\.(name|email)$"])
        for key, value in git.settings_in(listed):
            found[key.removeprefix("user.")] = value.strip()
    text = "[safe]\n\tdirectory = *\n[init]\n\tdefaultBranch = main\n[user]\n"
    for key, value in found.items():
        # git's quotes have none of JSON's escapes but these of a quote and a backslash.
        plain = "".join(filter(str.isprintable, value))
        text += f"\t{key} = {json.dumps(plain, ensure_ascii=False)}\n"
    return text
