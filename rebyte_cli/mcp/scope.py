"""What clients of the server may have tasks work on: repositories and workspaces.

A client acts on what it reads, which an attacker may have written. So its tasks clone what the user
named or what the network has, and never change the workspace, and with it the patch, of a task that
the user has made.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import BadUsage, Next

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9_.-]+")
_FROM_NETWORK = "Use owner/repo, an https URL, or `.` for the server's working folder"


class Scope:
    """The repositories and workspaces that tasks of this server may use.

    `roots` are folders below which every repository is allowed, `workspaces` are ids of workspaces
    that the server did not make.
    """

    def __init__(self, roots: Sequence[Path] = (), workspaces: Sequence[str] = ()) -> None:
        self._roots = [Path(os.path.realpath(root)) for root in roots]
        self._workspaces = set(workspaces)
        self._tasks: set[str] = set()
        self._attempts: set[str] = set()

    def check_repository(self, given: str) -> None:
        """Raise BadUsage for a repository that is neither from the network nor below a root."""
        if given == "." or _PLAIN.fullmatch(given) or given.lower().startswith("https://"):
            return
        from ..tasks.repository import folder_of

        folder = folder_of(given)
        if folder is not None:
            self._check_folder(given, folder)
        else:
            raise BadUsage(f"{given!r} cannot be used as a repository here", hint=_FROM_NETWORK)

    def _check_folder(self, given: str, folder: str) -> None:
        """`.git` may be a file that names any other repository, so that is below a root as well."""
        from ..tasks.repository import places

        if self._is_inside(folder) and all(map(self._is_inside, places(folder))):
            return
        raise BadUsage(
            f"{given!r} is not in a folder that this server may use",
            hint=f"{_FROM_NETWORK}; the user allows folders with " + Next("mcp", "--root", "DIR"),
        )

    def _is_inside(self, path: str) -> bool:
        return any(Path(os.path.realpath(path)).is_relative_to(root) for root in self._roots)

    def check_workspace(self, workspace_id: str) -> None:
        """Raise BadUsage for a workspace that this server did not make."""
        if workspace_id not in self._workspaces:
            raise _foreign(f"workspace {workspace_id}", "Leave out `workspace` to get a new one")

    def check_task(self, task_id: str, workspace_id: str | None) -> None:
        """Raise BadUsage for a task whose next run would change the workspace of another's task."""
        if task_id not in self._tasks and workspace_id not in self._workspaces:
            raise _foreign(f"task {task_id}", "Call `create` instead")

    def maker(self) -> Maker:
        """What a create tells who made its task."""
        return Maker(self._attempts)

    def add(self, created: Mapping[str, Any]) -> None:
        """Allow a task that this server has made, and its workspace."""
        self._tasks.add(str(created.get("id")))
        if workspace_id := created.get("workspaceId"):
            self._workspaces.add(str(workspace_id))


class Maker:
    """Told the attempts of a create (see `tasks.create.create`); the server's are in `sent`.

    The key does not tell: a client can use that of the user's task before the user does.
    """

    def __init__(self, sent: set[str]) -> None:
        self._sent = sent
        self.is_server = False

    def __call__(self, attempt: str, is_new: bool) -> None:
        """Note the attempt that makes the task, which this create begins if it `is_new`."""
        if is_new:
            self._sent.add(attempt)
        self.is_server = attempt in self._sent


def _foreign(what: str, instead: str) -> BadUsage:
    return BadUsage(
        f"{what} was not created by this server, and may hold changes of the user's",
        hint=f"{instead}; the user allows a workspace with " + Next("mcp", "--workspace", "WS"),
        code="not_allowed",
    )
