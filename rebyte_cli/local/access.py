"""Who may see what real agents did: one decision, by workspace.

Once a real agent has run in a workspace, it holds the user's code, and every other user of this
machine reaches the port. From then on everything in it is for the machine's own key alone: tasks
that were simulated there before, artifacts, signed URLs and deliveries too. For any other key it
does not exist.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import cached_property

from .http import Context, missing
from .wsgi import HttpRequest


def is_open(workspace: str) -> str:
    """The SQL condition for a workspace, named by a column, that any key may see."""
    return f"NOT EXISTS (SELECT 1 FROM runs WHERE runs.workspace = {workspace})"  # noqa: S608 - ours


def is_private(db: sqlite3.Connection, workspace: str) -> bool:
    """Whether a real agent has run in the workspace, or is about to."""
    found = db.execute("SELECT 1 FROM runs WHERE workspace = ? LIMIT 1", (workspace,)).fetchone()
    return found is not None


class Caller:
    """Who makes a request.

    Ask in the transaction that reads or writes: a run may begin at any time. `is_own` is called
    the first time that it matters, since it reads a file and most workspaces are open to all.
    """

    def __init__(self, is_own: Callable[[], bool]) -> None:
        self._is_own = is_own

    @cached_property
    def is_own(self) -> bool:
        """Whether the caller has the machine's own key."""
        return self._is_own()

    def sees(self, db: sqlite3.Connection, workspace: str) -> bool:
        """Whether the caller may see a workspace and change what is in it."""
        return not is_private(db, workspace) or self.is_own

    def check(self, db: sqlite3.Connection, workspace: str, what: str) -> None:
        """Raise Refusal, as if there were no such thing, unless the caller sees the workspace."""
        if not self.sees(db, workspace):
            raise missing(what)


def check_workspace(db: sqlite3.Connection, caller: Caller, workspace: str) -> None:
    """Raise Refusal if there is no such workspace, or not for the caller."""
    caller.check(db, workspace, "Workspace")
    if db.execute("SELECT 1 FROM workspaces WHERE id = ?", (workspace,)).fetchone() is None:
        raise missing("Workspace")


def caller_of(context: Context, request: HttpRequest) -> Caller:
    """The caller of a request to the API, or of a page."""
    return Caller(lambda: context.permission.is_own(request.environ.get("rebyte.key")))
