"""Tasks that were created from here, and their workspaces. A convenience: it never stops a command.

It is kept per origin, so that nothing made with one service is taken for another's. Of a prompt
only the first line is kept, and keys are cut out of that.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from ..errors import RebyteError
from .claims import Claims
from .database import Database, HistoryUnusable
from .intents import Intents
from .workspaces import Workspaces

PROMPT_LENGTH = 200
_COLUMNS = {
    "id": "id",
    "workspaceId": "workspace_id",
    "url": "url",
    "title": "title",
    "status": "status",
    "createdAt": "created_at",
    "completedAt": "completed_at",
    "prompt": "prompt",
    "executor": "executor",
    "model": "model",
    "skills": "skills",
    "githubUrl": "github_url",
}
_SELECT = f"SELECT {', '.join(_COLUMNS.values())} FROM tasks WHERE origin = ?"  # noqa: S608 -- constants


class History(Intents, Claims, Workspaces):
    """The history of one origin, in one file that is made on the first write.

    With `enabled` false nothing about tasks is written; what was written earlier can be read.
    When the file cannot be used, `warn` is told once, questions are answered as by an empty
    history, and nothing is remembered. Only intents (see intents.py) are errors then.
    """

    def __init__(
        self,
        path: Path,
        *,
        origin: str,
        enabled: bool = True,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self.path = path
        self.origin = origin
        self.enabled = enabled
        self._warn = warn
        self._database = Database(path)
        self._held = {}

    def close(self) -> None:
        """Let go of the file and of every key held for an intent."""
        self._release_all()
        self._database.close()

    def add_task(
        self, created: Mapping[str, Any], *, prompt: str, body: Mapping[str, Any] | None = None
    ) -> None:
        """Remember a task: `created` is the API's answer, `body` what was sent for it.

        Adding one that is known updates it and leaves its place in the order as it was.
        """
        self.add_tasks([(created, prompt, body or {})])

    def add_tasks(self, made: Iterable[tuple[Mapping[str, Any], str, Mapping[str, Any]]]) -> None:
        """As add_task, for many in one step: what was created, its prompt, what was sent."""
        if not self.enabled:
            return
        names = list(_COLUMNS.values())
        updates = ", ".join(f"{name} = COALESCE(excluded.{name}, {name})" for name in names)
        self._write(
            f"INSERT INTO tasks (origin, {', '.join(names)})"  # noqa: S608 -- names are ours
            f" VALUES (?{', ?' * len(names)}) ON CONFLICT (origin, id) DO UPDATE SET {updates}",
            [[self.origin, *_kept(*one)] for one in made],
        )

    def update_task(self, task: Mapping[str, Any]) -> None:
        """Take over title, status and completedAt of a task that is known; others are ignored."""
        self.update_tasks([task])

    def update_tasks(self, tasks: Iterable[Mapping[str, Any]]) -> None:
        """As update_task, for many in one step."""
        if not self.enabled:
            return
        changed = []
        for task in tasks:
            news = [
                _storable(task[name]) if task.get(name) is not None else None
                for name in ("title", "status", "completedAt")
            ]
            known = self.task(_storable(task.get("id"))) if any(news) else None
            if known is None:
                continue
            old = [known["title"], known["status"], known["completedAt"]]
            # A follow-up sets a task back to running: its completedAt is then gone.
            reopened = task.get("status") == "running" and "completedAt" in task
            values = [new or before for new, before in zip(news, old, strict=True)]
            values[2] = news[2] if reopened else values[2]
            if values != old:
                changed.append([*values, self.origin, known["id"]])
        if changed:
            self._write(
                "UPDATE tasks SET title = ?, status = ?, completed_at = ?"
                " WHERE origin = ? AND id = ?",
                changed,
            )

    def tasks(self, limit: int | None = None) -> list[dict[str, Any]]:
        """The tasks created from here, newest first; all of them without a limit."""
        count = -1 if limit is None else limit
        rows = self._read(f"{_SELECT} ORDER BY seq DESC LIMIT ?", self.origin, count)
        return [_task(row) for row in rows]

    def nth(self, number: int) -> dict[str, Any] | None:
        """The N-th newest task, from 1; None when there are fewer."""
        rows = self._read(f"{_SELECT} ORDER BY seq DESC LIMIT 1 OFFSET ?", self.origin, number - 1)
        return _task(rows[0]) if rows else None

    def task(self, task_id: str) -> dict[str, Any] | None:
        """What is known about one task, or None."""
        rows = self._read(f"{_SELECT} AND id = ?", self.origin, task_id)
        return _task(rows[0]) if rows else None

    def workspace_of(self, task_id: str) -> str | None:
        """The workspace that a task was given, or None when it is not known."""
        sql = "SELECT workspace_id FROM tasks WHERE origin = ? AND id = ?"
        rows = self._read(sql, self.origin, task_id)
        return rows[0]["workspace_id"] if rows else None

    def matching(self, prefix: str) -> list[dict[str, Any]]:
        """The tasks whose id starts like this, newest first."""
        rows = self._read(
            f"{_SELECT} AND id >= ? AND id < ? ORDER BY seq DESC",
            self.origin,
            prefix,
            prefix + "\U0010ffff",
        )
        return [_task(row) for row in rows]

    def knows(self, ids: Iterable[str]) -> set[str]:
        """Those of the ids that were created from here, with the history on or off."""
        wanted = list(ids)
        known: set[str] = set()
        # SQLite before 3.32 takes at most 999 values in one statement.
        for start in range(0, len(wanted), 450):
            part = [self.origin, *wanted[start : start + 450]]
            marks = ", ".join("?" * (len(part) - 1))
            sql = (
                f"SELECT id FROM tasks WHERE origin = ? AND id IN ({marks}) UNION"  # noqa: S608 -- marks
                f" SELECT task_id FROM intents WHERE origin = ? AND task_id IN ({marks})"
            )
            known |= {row["id"] for row in self._read(sql, *part, *part)}
        return known

    def forget_task(self, task_id: str) -> None:
        """Drop a task from the history; one that is not there is fine."""
        if self.task(task_id) is not None:
            self._write("DELETE FROM tasks WHERE origin = ? AND id = ?", [[self.origin, task_id]])

    def clear(self) -> None:
        """Forget everything of this origin: its tasks, workspaces and intents."""
        if not self.path.exists():
            return
        for table in ("tasks", "workspaces", "intents"):
            self._write(f"DELETE FROM {table} WHERE origin = ?", [[self.origin]])  # noqa: S608 -- ours

    def words(self, field: Literal["skills", "model", "executor"]) -> list[str]:
        """Values used before, the latest first: what completion offers."""
        rows = self._read(
            f"SELECT {field} AS word FROM tasks WHERE origin = ? AND {field} IS NOT NULL"  # noqa: S608
            " ORDER BY seq DESC LIMIT 1000",
            self.origin,
        )
        found: dict[str, None] = {}
        for row in rows:
            words = json.loads(row["word"]) if field == "skills" else [row["word"]]
            found.update(dict.fromkeys(words))
        return list(found)

    def _read(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        try:
            return self._database.rows(sql, values)
        except HistoryUnusable as problem:
            self._complain(problem)
            return []

    def _write(self, sql: str, values: Iterable[list[Any]]) -> None:
        try:
            with self._database.transaction() as connection:
                connection.executemany(sql, values)
        except RebyteError as problem:
            self._complain(problem)

    def _complain(self, problem: RebyteError) -> None:
        warn, self._warn = self._warn, None
        if warn is not None:
            warn(f"{problem.message}; going on without it")


def _kept(created: Mapping[str, Any], prompt: str, sent: Mapping[str, Any]) -> list[Any]:
    """What is kept of a new task, in the order of _COLUMNS."""
    first_line = next((line for line in prompt.splitlines() if line.strip()), "")
    values = {
        "prompt": re.sub(r"rbk_[\w-]+", "rbk_…", first_line.strip())[:PROMPT_LENGTH],
        "executor": sent.get("executor"),
        "model": sent.get("model"),
        "skills": json.dumps(sent["skills"]) if sent.get("skills") else None,
        # A clone URL may carry somebody's token.
        "githubUrl": re.sub(r"//[^/@]*@", "//", sent.get("githubUrl") or "") or None,
        "workspaceId": sent.get("workspaceId"),
    }
    for name in ("id", "workspaceId", "url", "title", "status", "createdAt", "completedAt"):
        if created.get(name) is not None:
            values[name] = created[name]
    return [None if values.get(name) is None else _storable(values[name]) for name in _COLUMNS]


def _storable(value: Any) -> str:
    """As text that SQLite takes: JSON can spell half of a surrogate pair, UTF-8 cannot."""
    return str(value).encode(errors="backslashreplace").decode()


def _task(row: sqlite3.Row) -> dict[str, Any]:
    task: dict[str, Any] = {name: row[column] for name, column in _COLUMNS.items()}
    task["skills"] = json.loads(task["skills"]) if task["skills"] else []
    return task
