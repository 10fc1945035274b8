"""Tasks that were created from here, and their workspaces.

They are a convenience, and never stop a command; `intents` are a promise. All of it is kept per
origin, so that nothing made with one service is taken for another's.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from ..errors import BadUsage, Next
from .database import Database, Lenient
from .intents import Intents
from .labels import TaskLabels, replace
from .rows import (
    AMONG,
    COLUMNS,
    NewTask,
    among,
    body_digest_of,
    columns_of,
    digest_of,
    stored_text,
    task_of,
    text_of,
    texts_of,
)
from .usage_table import UsedTokens

SHORTEST_SHOWN = 8  # characters of an id in a table
MOST_SHOWN = 100_000  # ids of tasks that were shown; about 100 bytes each
MOST_ANSWERED = 1000
_PROGRESS = ("title", "status", "completedAt")  # what changes of a task
T = TypeVar("T")

_SELECT_TASK = f"SELECT {', '.join(COLUMNS.values())} FROM tasks WHERE origin = ? AND NOT deleted"  # noqa: S608 -- constants
# The ids of both tables within a span, each with what its tasks say about it. A forgotten workspace
# shows again once a task newer than the forgetting runs in it.
_SELECT_WORKSPACE = """
    SELECT found.*, last.id AS last_task, last.github_url
    FROM (SELECT known.id, named.alias, COUNT(task.seq) AS tasks, MAX(task.seq) AS last_seq,
                 MIN(task.created_at) AS created_at, MAX(task.created_at) AS last_used_at
          FROM (SELECT DISTINCT workspace_id AS id FROM tasks
                  WHERE origin = ?1 AND workspace_id >= ?2 AND workspace_id < ?3
                UNION SELECT id FROM workspaces WHERE origin = ?1 AND id >= ?2 AND id < ?3) AS known
          LEFT JOIN workspaces AS named ON named.origin = ?1 AND named.id = known.id
          LEFT JOIN tasks AS task ON task.origin = ?1 AND task.workspace_id = known.id
          GROUP BY known.id
          HAVING named.hidden_at IS NULL OR MAX(task.seq) > named.hidden_at) AS found
    LEFT JOIN tasks AS last ON last.seq = found.last_seq
    ORDER BY found.last_seq IS NULL, found.last_seq DESC, found.id
"""
_AFTER_ALL = "\U0010ffff"  # sorts after every text that ids begin with


class History:
    """The history of one origin, in one file that is made on the first write.

    With `enabled` false nothing about tasks is written; what was written earlier can be read.
    When the file cannot be used, `warn` is called once, reads find nothing and writes do nothing.
    Only `intents` raise then, and `check` afterwards.
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
        self.database = Database(path)
        self._lenient = Lenient(self.database, origin, warn)
        self.intents = Intents(self.database, self._lenient, keeps_all=enabled)
        self.labels = TaskLabels(self._lenient)
        self.used = UsedTokens(self._lenient, self.labels, enabled=enabled)

    def close(self) -> None:
        """Let go of the file."""
        self.database.close()

    def check(self) -> None:
        """Raise HistoryUnusable if the file could not be used: what was read may not be all."""
        if self._lenient.fault is not None:
            raise self._lenient.fault.copy_with()

    def together(self, act: Callable[[], T], *, synced: bool = False) -> T | None:
        """What `act` returns, whose writes are one step; None when nothing could be written.

        `synced` is as for a transaction of the database.
        """
        return self._lenient.change(lambda _connection: act(), synced=synced)

    # Tasks

    def add_tasks(self, made: Iterable[NewTask]) -> None:
        """Remember tasks, in one step.

        Adding one that is known updates it and leaves its place in the order as it was. Labels are
        written even if the history is off: the user asked for them.
        """
        made = list(made)
        names = [*COLUMNS.values(), "prompt_digest", "body_digest", "line"]
        updates = ", ".join(f"{name} = COALESCE(excluded.{name}, {name})" for name in names)
        tasks = [
            [self.origin, *columns_of(one), *_digests_of_sent(one), one.line]
            for one in made
            if self.enabled
        ]
        labels = [
            (self.origin, name, stored_text(value), stored_text(one.created["id"], plain=True))
            for one in made
            for name, value in one.labels.items()
        ]
        if not tasks and not labels:
            return

        def insert(connection: sqlite3.Connection) -> None:
            connection.executemany(
                f"INSERT INTO tasks (origin, {', '.join(names)})"  # noqa: S608 -- names are ours
                f" VALUES (?{', ?' * len(names)}) ON CONFLICT (origin, id)"
                f" DO UPDATE SET deleted = 0, {updates}",
                tasks,
            )
            replace(connection, [(label[0], label[1], label[3]) for label in labels], labels)

        self._lenient.change(insert)

    def update_tasks(self, tasks: Iterable[Mapping[str, Any]]) -> None:
        """Take over title, status and completedAt of tasks that are known; ignore others."""
        if not self.enabled:
            return
        tasks = list(tasks)
        self.used.note(tasks)
        given = [
            (stored_text(task.get("id"), plain=True), task)
            for task in tasks
            if any(task.get(name) is not None for name in _PROGRESS)
        ]
        if not given:
            return
        rows = self._lenient.rows(
            "SELECT id, title, status, completed_at FROM tasks"  # noqa: S608 -- constant
            f" WHERE origin = ? AND NOT deleted AND id {AMONG}",
            among(task_id for task_id, _ in given),
        )
        known = {row["id"]: [text_of(value) for value in tuple(row)[1:]] for row in rows}
        changed = []
        for task_id, task in given:
            old = known.get(task_id)
            if old is None:
                continue
            news = [
                None if task.get(name) is None else stored_text(task[name]) for name in _PROGRESS
            ]
            # A follow-up sets a task back to running: its completedAt is then gone.
            reopened = task.get("status") == "running" and "completedAt" in task
            values = [new or before for new, before in zip(news, old, strict=True)]
            values[2] = news[2] if reopened else values[2]
            if values != old:
                changed.append([*values, self.origin, task_id])
                known[task_id] = values
        if changed:
            self._write(
                "UPDATE tasks SET title = ?, status = ?, completed_at = ?"
                " WHERE origin = ? AND id = ?",
                changed,
            )

    def tasks(self, limit: int | None = None) -> list[dict[str, Any]]:
        """The tasks created from here, newest first; all of them without a limit."""
        count = -1 if limit is None else limit
        rows = self._lenient.rows(f"{_SELECT_TASK} ORDER BY seq DESC LIMIT ?", count)
        return [task_of(row) for row in rows]

    def nth(self, number: int) -> dict[str, Any] | None:
        """The N-th newest task, from 1; None when there are fewer.

        A deleted task keeps its number. Of it, `id` and `deleted` (true) are all that is left.
        """
        rows = self._lenient.rows(
            f"SELECT {', '.join(COLUMNS.values())}, deleted FROM tasks WHERE origin = ?"  # noqa: S608 -- ours
            " ORDER BY seq DESC LIMIT 1 OFFSET ?",
            number - 1,
        )
        return task_of(rows[0]) | {"deleted": bool(rows[0]["deleted"])} if rows else None

    def count(self) -> int:
        """How many tasks were created from here, deleted ones included; see `nth`."""
        rows = self._lenient.rows("SELECT COUNT(*) AS tasks FROM tasks WHERE origin = ?")
        return int(rows[0]["tasks"]) if rows else 0

    def counts_elsewhere(self, beginnings: Collection[str] = ()) -> dict[str, int]:
        """How many tasks were created for each other origin, the most first.

        With `beginnings`, only those whose ids begin so.
        """
        likes = " OR ".join(["substr(id, 1, length(?)) = ?"] * len(beginnings)) or "1"
        rows = self._lenient.rows(
            "SELECT origin, COUNT(*) AS tasks FROM tasks"  # noqa: S608 -- constants
            f" WHERE origin != ? AND NOT deleted AND ({likes}) GROUP BY origin ORDER BY tasks DESC",
            *(word for one in beginnings for word in (one, one)),
        )
        return {row["origin"]: row["tasks"] for row in rows}

    def task(self, task_id: str) -> dict[str, Any] | None:
        """What is known about one task, or None."""
        rows = self._lenient.rows(f"{_SELECT_TASK} AND id = ?", task_id)
        return task_of(rows[0]) if rows else None

    def is_deleted(self, task_id: str) -> bool:
        """Whether a task was deleted from here."""
        return bool(self._of_task("deleted", task_id))

    def prompt_digest(self, task_id: str) -> str | None:
        """What stands for the prompt that a task was created with; None if it is not known."""
        return text_of(self._of_task("prompt_digest", task_id))

    def tasks_of_lines(self, owner: str) -> dict[int, list[str]]:
        """The ids of the tasks that the lines of a batch were given, the newest last, by line."""
        named = self._lenient.rows(
            "SELECT id, line FROM tasks WHERE origin = ? AND line > ? AND line < ? ORDER BY seq",
            f"{owner} ",
            f"{owner}!",
        )
        kept = self._lenient.rows(  # with the history off
            "SELECT task_id AS id, body_digest AS line FROM intents"
            " WHERE origin = ? AND owner = ? AND state = 'done' ORDER BY id",
            owner,
        )
        found: dict[int, list[str]] = {}
        for row in (*named, *kept):
            number = (text_of(row["line"]) or "").rpartition(" ")[2]
            if number.isascii() and number.isdigit():
                found.setdefault(int(number), []).append(str(row["id"]))
        return found

    def was_sent(self, digest: str) -> bool:
        """Whether a task with this prompt was created from here, or may have been."""
        sql = (
            "SELECT 1 FROM tasks WHERE origin = ?1 AND prompt_digest = ?2 UNION"
            " SELECT 1 FROM intents WHERE origin = ?1 AND digest = ?2"
            " AND state NOT IN ('refused', 'unsent') LIMIT 1"
        )
        return bool(self._lenient.rows(sql, digest))

    def workspace_of(self, task_id: str) -> str | None:
        """The workspace that a task was given, or None when it is not known."""
        return text_of(self._of_task("workspace_id", task_id))

    def _of_task(
        self, column: Literal["deleted", "prompt_digest", "workspace_id"], task_id: str
    ) -> Any:
        """One column of a task; None if the task is not known."""
        sql = f"SELECT {column} FROM tasks WHERE origin = ? AND id = ?"  # noqa: S608 -- one of three
        rows = self._lenient.rows(sql, task_id)
        return rows[0][0] if rows else None

    def knows(self, ids: Iterable[str]) -> set[str]:
        """Those of the ids that were created from here, with the history on or off."""
        sql = (
            f"SELECT id FROM tasks WHERE origin = ?1 AND id {AMONG} UNION"  # noqa: S608 -- constant
            f" SELECT task_id FROM intents WHERE origin = ?1 AND task_id {AMONG}"
        )
        wanted = among(ids)
        return {row["id"] for row in self._lenient.rows(sql, wanted, wanted)}

    def asked_otherwise(self, ids: Iterable[str], digest: str) -> set[str]:
        """Those of the ids that were created from here with a prompt of another digest."""
        sql = f"SELECT id FROM tasks WHERE origin = ? AND prompt_digest != ? AND id {AMONG}"  # noqa: S608 -- constant
        return {row["id"] for row in self._lenient.rows(sql, digest, among(ids))}

    def forget_task(self, task_id: str) -> None:
        """Drop all that is known of a task but its place in the order; see `nth`."""
        if self.task(task_id) is not None:
            others = [*COLUMNS.values(), "prompt_digest", "body_digest"]
            others.remove("id")
            cleared = ", ".join(f"{name} = NULL" for name in others)
            self._write(
                f"UPDATE tasks SET deleted = 1, {cleared} WHERE origin = ? AND id = ?",  # noqa: S608 -- ours
                [[self.origin, task_id]],
            )
        self.labels.forget(task_id)
        if self._lenient.rows("SELECT 1 FROM applied WHERE origin = ? AND task_id = ?", task_id):
            sql = "DELETE FROM applied WHERE origin = ? AND task_id = ?"
            self._write(sql, [[self.origin, task_id]])
        if self.shown(task_id):
            self._write("DELETE FROM seen WHERE origin = ? AND id = ?", [[self.origin, task_id]])

    def add_applied(self, task_id: str, folder: str, runs: Iterable[str], head: str) -> None:
        """Remember that what these runs of a task changed was applied in `folder`.

        `head` is the commit that was checked out there, or an empty text before the first one.
        """
        if not self.enabled:
            return
        place = [self.origin, task_id, stored_text(folder, plain=True)]
        self._write(
            "INSERT OR REPLACE INTO applied (origin, task_id, folder, run, head)"
            " VALUES (?, ?, ?, ?, ?)",
            [[*place, stored_text(run, plain=True), head] for run in runs],
        )

    def applied(self, task_id: str, folder: str) -> dict[str, str]:
        """The runs of a task that were applied in `folder`, each with the commit; as `add_applied`.

        The commit may be one that is gone.
        """
        sql = "SELECT run, head FROM applied WHERE origin = ? AND task_id = ? AND folder = ?"
        rows = self._lenient.rows(sql, task_id, stored_text(folder, plain=True))
        return {str(row["run"]): str(row["head"]) for row in rows}

    def remember_shown(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Remember the ids of tasks that were shown, and how those that have ended did.

        A row is a task or a row of the list with `status`. Writes only what is new, and drops the
        oldest ids beyond MOST_SHOWN.
        """
        if not self.enabled:
            return
        from ..api.status import is_terminal

        tasks = {stored_text(row["id"], plain=True): row for row in rows if row.get("id")}
        known = self._by_id("SELECT id, status, completed_at FROM seen", tasks)
        changed, ended = [], []
        for task_id, row in tasks.items():
            status, completed = row.get("status"), row.get("completedAt")
            end: list[str | None] = [None, None]
            if completed and is_terminal(status):
                end = [stored_text(status, plain=True), stored_text(completed, plain=True)]
            old = known.get(task_id)
            if old is None or (end[0] and end != [old["status"], old["completed_at"]]):
                changed.append([self.origin, task_id, *end])
                ended += [row] if end[0] else []
        if changed:
            # Rows come newest first: what is dropped first is the oldest.
            self._lenient.change(partial(_write_shown, changed[::-1]))
        self.used.note(tasks.values())
        self.update_tasks(ended)

    def remember_answered(self, message_id: str) -> None:
        """Remember that a question was answered, by the id of its message.

        Only for the time in which the service may still show it as open: the oldest are dropped.
        """
        if self.enabled:
            row = [self.origin, stored_text(message_id, plain=True)]
            self._lenient.change(partial(_write_answered, row))

    def was_answered(self, message_id: str) -> bool:
        """Whether a question was answered from here."""
        sql = "SELECT 1 FROM answered WHERE origin = ? AND message_id = ?"
        return bool(self._lenient.rows(sql, stored_text(message_id, plain=True)))

    def shown(self, prefix: str) -> list[str]:
        """The ids that start like this among all that were created or shown here."""
        rows = self._lenient.rows(
            "SELECT id FROM tasks WHERE origin = ?1 AND id >= ?2 AND id < ?3 AND NOT deleted"
            " UNION SELECT id FROM seen WHERE origin = ?1 AND id >= ?2 AND id < ?3",
            prefix,
            prefix + _AFTER_ALL,
        )
        return [str(row["id"]) for row in rows]

    def shortest_prefixes(self, ids: Iterable[str]) -> dict[str, str]:
        """For each id the shortest text, of eight characters or more, that stands for it alone.

        That is the whole id where the history does not have it.
        """
        return {each: _shortest(each, self.shown(each[:SHORTEST_SHOWN])) for each in ids}

    def shortest_workspace_prefixes(self, ids: Iterable[str]) -> dict[str, str]:
        """As `shortest_prefixes`, for workspaces, whose prefixes must be none of a task either."""
        known: dict[str, list[str]] = {}
        for workspace in self.workspaces():
            known.setdefault(workspace["id"][:SHORTEST_SHOWN], []).append(workspace["id"])
        starts = {each: each[:SHORTEST_SHOWN] for each in ids}
        return {
            each: _shortest(each, known.get(start, []), self.shown(start))
            for each, start in starts.items()
        }

    def ends(self, ids: Iterable[str]) -> dict[tuple[str, str], str]:
        """The final statuses that were seen, by id and `completedAt`.

        A follow-up gives a task another end, so a status counts for that very end only.
        """
        from ..api.status import is_terminal

        wanted = list(ids)
        found: dict[tuple[str, str], str] = {}
        for table in ("tasks", "seen"):
            rows = self._by_id(f"SELECT id, status, completed_at FROM {table}", wanted)  # noqa: S608 -- ours
            for task_id, row in rows.items():
                status, completed = text_of(row["status"]), text_of(row["completed_at"])
                if status and completed and is_terminal(status):
                    found[task_id, completed] = status
        return found

    def _by_id(self, select: str, ids: Iterable[str]) -> dict[str, sqlite3.Row]:
        """Rows of this origin by their id."""
        rows = self._lenient.rows(f"{select} WHERE origin = ? AND id {AMONG}", among(ids))
        return {str(row["id"]): row for row in rows}

    def clear(self) -> None:
        """Drop everything of this origin: its tasks, workspaces and intents."""
        if not self.path.exists():
            return
        for table in ("tasks", "workspaces", "intents", "seen", "labels", "answered", "used"):
            self._write(f"DELETE FROM {table} WHERE origin = ?", [[self.origin]])  # noqa: S608 -- ours

    def words(self, field: Literal["skills", "model", "executor"]) -> list[str]:
        """Values that the last thousands of tasks used, the latest first, for completion."""
        rows = self._lenient.rows(
            f"SELECT {field} AS word FROM"  # noqa: S608 -- one of three words
            f" (SELECT {field} FROM tasks WHERE origin = ? ORDER BY seq DESC LIMIT 5000)"
            f" WHERE {field} IS NOT NULL LIMIT 1000"
        )
        found: dict[str, None] = {}
        for row in rows:
            word = text_of(row["word"])
            words = texts_of(word) if field == "skills" else [word] if word else []
            found.update(dict.fromkeys(words))
        return list(found)

    # Workspaces

    def workspaces(self, prefix: str = "") -> list[dict[str, Any]]:
        """All known ones whose id starts like this, the last used first.

        Keys: `id`, `name` (the alias, or None), `tasks` (how many were created from here),
        `lastTask`, `createdAt`, `lastUsedAt`, `githubUrl`; what is not known is None.
        """
        return [
            {
                "id": str(row["id"]),
                "name": text_of(row["alias"]),
                "tasks": row["tasks"],
                "lastTask": text_of(row["last_task"]),
                "createdAt": text_of(row["created_at"]),
                "lastUsedAt": text_of(row["last_used_at"]),
                "githubUrl": text_of(row["github_url"]),
            }
            for row in self._lenient.rows(_SELECT_WORKSPACE, prefix, prefix + _AFTER_ALL)
        ]

    def workspace(self, id_or_alias: str) -> dict[str, Any] | None:
        """One workspace by its alias or its id, or None."""
        sql = "SELECT id FROM workspaces WHERE origin = ? AND alias = ?"
        named = [str(row["id"]) for row in self._lenient.rows(sql, id_or_alias)]
        for workspace_id in (*named, id_or_alias):
            for workspace in self.workspaces(workspace_id):
                if workspace["id"] == workspace_id:
                    return workspace
        return None

    def name_workspace(self, workspace_id: str, alias: str) -> None:
        """Give a workspace a name, in place of the one it may have had.

        Raises BadUsage for a name that cannot be told from an id or another reference, or that
        another workspace has. Written even when the history is off: the user asked for it.
        """
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", alias):
            raise BadUsage(
                "a workspace's name has letters, digits, dots, _ and -, and at most 64 of them"
            )
        other = self.workspace(alias)
        if other is not None and other["id"] != workspace_id:
            raise BadUsage(
                f"the name {alias} is taken by workspace {other['id']}",
                hint=Next("workspace", "name", f"{other['id']}", "ANOTHER")
                + " renames that one first",
            )
        with self.database.transaction() as connection:
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
        with self.database.transaction() as connection:
            connection.execute(
                "INSERT INTO workspaces (origin, id, hidden_at)"
                " VALUES (?, ?, (SELECT COALESCE(MAX(seq), 0) FROM tasks))"
                " ON CONFLICT (origin, id) DO UPDATE"
                " SET alias = NULL, hidden_at = excluded.hidden_at",
                (self.origin, workspace_id),
            )

    def _write(self, sql: str, values: Iterable[list[Any]]) -> None:
        self._lenient.change(lambda connection: connection.executemany(sql, values))


def _digests_of_sent(new: NewTask) -> tuple[str | None, str | None]:
    """The digests of the prompt and of the body; of a task that was only found, none is known."""
    if not new.prompt:
        return None, None
    return digest_of(str(new.sent.get("prompt") or new.prompt)), body_digest_of(new.sent)


def _write_answered(row: list[str], connection: sqlite3.Connection) -> None:
    connection.execute("INSERT OR IGNORE INTO answered (origin, message_id) VALUES (?, ?)", row)
    connection.execute(
        "DELETE FROM answered WHERE seq <= (SELECT MAX(seq) FROM answered) - ?", (MOST_ANSWERED,)
    )


def _shortest(wanted: str, near: Sequence[str], of_tasks: Sequence[str] = ()) -> str:
    """The shortest prefix of an id that none of the other ids `near`, or `of_tasks`, starts with.

    The whole id stands for itself, even if others start like it. It is all there is of an id that
    is not among those `near`.
    """
    if wanted not in near:
        return wanted
    others = [other for other in (*near, *of_tasks) if other != wanted]
    length = SHORTEST_SHOWN
    while length < len(wanted) and any(other.startswith(wanted[:length]) for other in others):
        length += 1
    return wanted[:length]


def _write_shown(rows: Iterable[list[Any]], connection: sqlite3.Connection) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO seen (origin, id, status, completed_at) VALUES (?, ?, ?, ?)", rows
    )
    # A replaced row gets a new number, so that numbers with gaps count at least as many rows.
    connection.execute(
        "DELETE FROM seen WHERE seq <= (SELECT MAX(seq) FROM seen) - ?", (MOST_SHOWN,)
    )
