"""Workspaces as the history knows them: the VMs behind its tasks, and names for them."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadUsage

if TYPE_CHECKING:
    from .database import Database

# The ids of both tables, each with what its tasks say about it. A forgotten workspace shows
# again once a task newer than the forgetting runs in it.
_SELECT = """
    SELECT known.id, named.alias, COUNT(task.seq) AS tasks, MAX(task.seq) AS last_seq,
           MIN(task.created_at) AS created_at, MAX(task.created_at) AS last_used_at
    FROM (SELECT DISTINCT workspace_id AS id FROM tasks
            WHERE origin = :origin AND workspace_id IS NOT NULL
          UNION SELECT id FROM workspaces WHERE origin = :origin) AS known
    LEFT JOIN workspaces AS named ON named.origin = :origin AND named.id = known.id
    LEFT JOIN tasks AS task ON task.origin = :origin AND task.workspace_id = known.id
    GROUP BY known.id
    HAVING named.hidden_at IS NULL OR MAX(task.seq) > named.hidden_at
    ORDER BY MAX(task.seq) IS NULL, MAX(task.seq) DESC, known.id
"""


class Workspaces:
    """The part of History that is about workspaces."""

    path: Path
    origin: str
    _database: Database

    if TYPE_CHECKING:

        def _read(self, sql: str, *values: Any) -> list[sqlite3.Row]: ...

    def workspaces(self) -> list[dict[str, Any]]:
        """All known ones, the last used first.

        Keys: `id`, `name` (the alias, or None), `tasks` (how many were created from here),
        `lastTask`, `createdAt`, `lastUsedAt`, `githubUrl`; what is not known is None.
        """
        sql = _SELECT.replace(":origin", "?")
        found = []
        for row in self._read(sql, *[self.origin] * sql.count("?")):
            last = self._read("SELECT id, github_url FROM tasks WHERE seq = ?", row["last_seq"])
            found.append(
                {
                    "id": row["id"],
                    "name": row["alias"],
                    "tasks": row["tasks"],
                    "lastTask": last[0]["id"] if last else None,
                    "createdAt": row["created_at"],
                    "lastUsedAt": row["last_used_at"],
                    "githubUrl": last[0]["github_url"] if last else None,
                }
            )
        return found

    def workspace(self, id_or_alias: str) -> dict[str, Any] | None:
        """One workspace by its alias or its id, or None."""
        known = self.workspaces()
        for key in ("name", "id"):
            for workspace in known:
                if workspace[key] == id_or_alias:
                    return workspace
        return None

    def name_workspace(self, workspace_id: str, alias: str) -> None:
        """Give a workspace a name, in place of the one it may have had.

        Raises BadUsage for a name that cannot be told from an id or another reference, or that
        another workspace has. What was asked for by name is written although history is off.
        """
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", alias):
            raise BadUsage(
                "a workspace's name has letters, digits, dots, _ and -, and at most 64 of them"
            )
        other = self.workspace(alias)
        if other is not None and other["id"] != workspace_id:
            raise BadUsage(
                f"{alias} is workspace {other['id']}",
                hint=f"`rebyte workspace name {other['id']} ANOTHER` renames that one first",
            )
        with self._database.transaction() as connection:
            # A forgotten workspace may still own the name.
            connection.execute(
                "UPDATE workspaces SET alias = NULL WHERE origin = ? AND alias = ?",
                (self.origin, alias),
            )
            connection.execute(
                "INSERT INTO workspaces (origin, id, alias) VALUES (?, ?, ?)"
                " ON CONFLICT (origin, id) DO UPDATE SET alias = excluded.alias, hidden_at = NULL",
                (self.origin, workspace_id, alias),
            )

    def forget_workspace(self, workspace_id: str) -> None:
        """Drop a workspace and its name from the history; its tasks stay."""
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO workspaces (origin, id, hidden_at)"
                " VALUES (?, ?, (SELECT COALESCE(MAX(seq), 0) FROM tasks))"
                " ON CONFLICT (origin, id) DO UPDATE"
                " SET alias = NULL, hidden_at = excluded.hidden_at",
                (self.origin, workspace_id),
            )
