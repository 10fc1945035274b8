"""Login files inside a jail, for the agents that no gateway can give their login: copies.

bubblewrap makes each from a file in memory, so that nothing of a login is ever in a workspace, and
what the agent writes there is gone with the jail. A token that a service renews only once stays
outside, since the user would never see the new one: see `Adapter.login_for_jail`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ...gateway.jail_port import moved
from .. import agent_files
from ..adapters.adapter import Adapter
from ..adapters.model_access import AgentAccess
from .jail import JailLayout


class LoginCopies:
    """The copies for one jail; the end of the block closes them here.

    `arguments` are for bubblewrap, which inherits the descriptors `passed`; `contents` is what can
    be read from them.
    """

    def __init__(
        self, adapter: Adapter, access: AgentAccess, user_home: Path, layout: JailLayout
    ) -> None:
        """Copy the login files of `access` that the user's HOME has.

        Without a jail the agent can reach them anyway: it finds links. Raises OSError.
        """
        self.arguments: list[str] = []
        self.passed: tuple[int, ...] = ()
        self.contents: dict[int, bytes] = {}
        home = layout.home
        for name in access.logins:
            try:
                text = (user_home / name).read_text(encoding="utf-8")
            except FileNotFoundError:
                continue
            if not layout.jailed:
                agent_files.write(home.outside, name, b"")
                (home.outside / name).unlink()
                (home.outside / name).symlink_to(user_home / name)
                continue
            try:
                shown = adapter.login_for_jail(text, access)
            except (ValueError, LookupError, TypeError, AttributeError):
                continue  # it is no login file
            agent_files.write(home.outside, name, b"")  # a real place to show it in, and no link
            descriptor = in_memory(shown.encode())
            self.passed += (descriptor,)
            self.contents[descriptor] = shown.encode()
            self.arguments += ["--bind-data", str(descriptor), f"{home.inside}/{name}"]

    def __enter__(self) -> LoginCopies:
        return self

    def __exit__(self, *_error: object) -> None:
        for descriptor in self.passed:
            os.close(descriptor)
        self.passed = ()


def in_memory(content: bytes, number: int | None = None) -> int:
    """A descriptor from which `content` can be read, by a process that inherits it.

    It has this `number` if one is given.
    """
    if sys.platform != "linux":
        raise OSError("there is no jail to show it in")
    made = moved(os.memfd_create("login"), number)
    os.write(made, content)
    os.lseek(made, 0, os.SEEK_SET)
    return made
