"""Tasks that were created from here, and their workspaces. A convenience: it never stops a command.

It is kept per origin, so that nothing made with one service is taken for another's. Of a prompt
only the first line is kept, and keys are cut out of that.
"""

from __future__ import annotations

import json
import re
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ..config.atomic import private_folder, take_lock
from ..errors import BadUsage, RebyteError
from .database import Database, HistoryUnusable

if TYPE_CHECKING:
    from .database import Database


# -- Claims: intents of the lines of a batch, so that no other create takes a line's task for i

LINE = "line "  # in the place of a body's digest, which no line equals: none is ever adopted


class Wanted(NamedTuple):
    """A line about to be sent: its number, the digest of its prompt, the time (ISO 8601)."""

    number: int
    digest: str
    sent: str


# -- Intents: what is written down before a create is sent, so that it can be proved afterwards

State = Literal["open", "done", "refused", "unknown", "unsent", "given up"]
_ANSWER = ("id", "workspaceId", "url", "status", "createdAt")


class IntentHeld(RebyteError):
    """Another live process, or another thread of this one, is at work on the same key."""

    code = "intent_held"

    def __init__(self, key: str) -> None:
        super().__init__(
            f"another `rebyte` is creating the task for {key!r} right now",
            hint="run the same command again when that one has ended: it returns the same task",
        )


class Intent(NamedTuple):
    """One attempt to create a task. `task` is the created document once `state` is done."""

    id: int
    key: str | None
    state: State
    digest: str
    body_digest: str
    started_at: str
    owner: str
    task_id: str | None
    task: dict[str, Any] | None

    @property
    def is_line(self) -> bool:
        """Whether it is the claim of a batch on a line, see claims.py."""
        return self.body_digest.startswith(LINE)


class _Hold(NamedTuple):
    release: Callable[[], None]
    thread: int
    scoped: bool


def _intent(row: Any) -> Intent:
    values = {name: row[name] for name in Intent._fields}
    values["task"] = json.loads(values["task"]) if values["task"] else None
    return Intent(**values)


# -- Workspaces as the history knows them: the VMs behind its tasks, and names for them.

# The ids of both tables, each with what its tasks say about it. A forgotten workspace shows
# again once a task newer than the forgetting runs in it.
_SELECT_WORKSPACE = """
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


class History:
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
        self._held: dict[str, _Hold] = {}

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

    # -- workspaces ----------------------------------------------------------------------------

    if TYPE_CHECKING:

        def _read(self, sql: str, *values: Any) -> list[sqlite3.Row]: ...

    def workspaces(self) -> list[dict[str, Any]]:
        """All known ones, the last used first.

        Keys: `id`, `name` (the alias, or None), `tasks` (how many were created from here),
        `lastTask`, `createdAt`, `lastUsedAt`, `githubUrl`; what is not known is None.
        """
        sql = _SELECT_WORKSPACE.replace(":origin", "?")
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

    # -- intents -------------------------------------------------------------------------------

    def intent(self, key: str) -> Intent | None:
        """The intent of a key, whatever its state, or None."""
        rows = self._database.rows(
            "SELECT * FROM intents WHERE origin = ? AND key = ?", (self.origin, key)
        )
        return _intent(rows[0]) if rows else None

    def unsettled(self, digest: str) -> list[Intent]:
        """The attempts with this digest whose end is not known, oldest first."""
        rows = self._database.rows(
            "SELECT * FROM intents WHERE origin = ? AND digest = ?"
            " AND state IN ('open', 'unknown', 'given up') ORDER BY id",
            (self.origin, digest),
        )
        return [_intent(row) for row in rows]

    @contextmanager
    def hold(self, key: str) -> Iterator[None]:
        """Keep everybody else from the key while the block runs; IntentHeld when one has it.

        What is read, decided and opened inside is safe from other processes. The hold ends
        with the process, however it ends: a reused process id cannot be mistaken for it.
        """
        self._take(key, scoped=True)
        try:
            yield
        finally:
            self._release(key)

    def open_intent(
        self, key: str | None, *, digest: str, body_digest: str, started_at: str, owner: str
    ) -> Intent:
        """Write down, synced, that a task is about to be created. Call it before the request.

        `digest` is of the prompt, `body_digest` of the whole body, `started_at` ISO 8601.
        `key` is that of `--once`, or None for a create that is not to be repeated by name.
        The key stays held until the intent is settled. When the key's task exists already,
        its intent (state done) is returned and nothing is written; any other earlier attempt is
        replaced. Raises IntentHeld.
        """
        if key is not None and not self._holds(key):
            self._take(key, scoped=False)
        try:
            with self._database.transaction(synced=True) as connection:
                if key is not None:
                    earlier = self.intent(key)
                    if earlier is not None and earlier.state == "done":
                        self._release(key, unless_scoped=True)
                        return earlier
                    connection.execute(
                        "DELETE FROM intents WHERE origin = ? AND key = ?", (self.origin, key)
                    )
                else:
                    # What was never settled and has no name is of use to nobody after a month.
                    connection.execute(
                        "DELETE FROM intents WHERE origin = ? AND key IS NULL"
                        " AND julianday(started_at) < julianday(?) - 30",
                        (self.origin, started_at),
                    )
                made = connection.execute(
                    "INSERT INTO intents"
                    " (origin, key, state, digest, body_digest, started_at, owner)"
                    " VALUES (?, ?, 'open', ?, ?, ?, ?)",
                    (self.origin, key, digest, body_digest, started_at, owner),
                ).lastrowid
        except BaseException:
            if key is not None:
                self._release(key, unless_scoped=True)
            raise
        assert made is not None
        return Intent(made, key, "open", digest, body_digest, started_at, owner, None, None)

    def settle_intent(
        self,
        intent_id: int,
        *,
        state: Literal["done", "refused", "unknown", "unsent", "given up"],
        task_id: str | None = None,
        task: Mapping[str, Any] | None = None,
    ) -> None:
        """Write down, synced, how it ended, and let go of the key.

        An intent without a key is of no use once its end is known, and is dropped then; with the
        history off it stays where it came to a task, as what tells that the task is taken.
        """
        kept = {
            name: value
            for name, value in (task or {}).items()
            # Titles are made from prompts, and answers quote them.
            if name in _ANSWER or (self.enabled and name not in ("prompts", "finalResult"))
        }
        with self._database.transaction(synced=True) as connection:
            row = connection.execute(
                "SELECT key FROM intents WHERE id = ?", (intent_id,)
            ).fetchone()
            tells = state in ("unknown", "given up") or (state == "done" and not self.enabled)
            if row is not None and row["key"] is None and not tells:
                connection.execute("DELETE FROM intents WHERE id = ?", (intent_id,))
            else:
                connection.execute(
                    "UPDATE intents SET state = ?, task_id = ?, task = ? WHERE id = ?",
                    (state, task_id, json.dumps(kept) if kept else None, intent_id),
                )
        if row is not None and row["key"] is not None:
            self._release(row["key"], unless_scoped=True)

    def forget_intent(self, key: str) -> bool:
        """Drop a key, so that the next create with it makes a task. False when there is none.

        Raises IntentHeld while somebody is at work on it.
        """
        if self.intent(key) is None:
            return False
        with self.hold(key), self._database.transaction(synced=True) as connection:
            done = connection.execute(
                "DELETE FROM intents WHERE origin = ? AND key = ?", (self.origin, key)
            )
        return bool(done.rowcount)

    # -- who is at work on a key ---------------------------------------------------------------

    def _holds(self, key: str) -> bool:
        held = self._held.get(key)
        return held is not None and held.thread == threading.get_ident()

    def _take(self, key: str, *, scoped: bool) -> None:
        import hashlib  # not at the top: TAB reads the history too

        folder = self.path.parent / "once"
        private_folder(folder)
        # A key may be any text; the name of its lock is of one length and safe everywhere.
        name = hashlib.sha256(f"{self.origin}\0{key}".encode()).hexdigest()[:40]
        release = take_lock(folder / name, remove=True)
        if release is None:
            raise IntentHeld(key)
        self._held[key] = _Hold(release, threading.get_ident(), scoped)

    def _release(self, key: str, *, unless_scoped: bool = False) -> None:
        held = self._held.get(key)
        if held is not None and not (unless_scoped and held.scoped):
            del self._held[key]
            held.release()

    def _release_all(self) -> None:
        for key in list(self._held):
            self._release(key)

    # -- reservations of batch lines -----------------------------------------------------------

    if TYPE_CHECKING:

        def _read(self, sql: str, *values: Any) -> list[sqlite3.Row]: ...

        def _complain(self, problem: RebyteError) -> None: ...

    def claim(self, owner: str, lines: Iterable[Wanted]) -> dict[int, int]:
        """Write down that these lines are sent; the claim of each line, by its number.

        `owner` names the batch. Empty when the history cannot be written, which `warn` is told.
        """
        sql = (
            "INSERT INTO intents (origin, state, digest, body_digest, started_at, owner)"
            " VALUES (?, 'open', ?, ?, ?, ?)"
        )

        def insert(connection: sqlite3.Connection) -> dict[int, int]:
            made = {}
            for line in lines:
                row = (self.origin, line.digest, f"{LINE}{line.number}", line.sent, owner)
                made[line.number] = int(connection.execute(sql, row).lastrowid or 0)
            return made

        return self._in_one(insert) or {}

    def release(self, claims: Mapping[int, str | None]) -> None:
        """Drop claims whose end is known, each with the task it came to, or None.

        Call it when the history has the tasks. With the history off the claim goes on to name
        its task: that it is taken must be known all the same.
        """
        kept = {} if self.enabled else {claim: task for claim, task in claims.items() if task}

        def drop(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "UPDATE intents SET state = 'done', task_id = ? WHERE id = ?",
                [(task, claim) for claim, task in kept.items()],
            )
            connection.executemany(
                "DELETE FROM intents WHERE id = ?", [(id_,) for id_ in claims if id_ not in kept]
            )

        self._in_one(drop)

    def claims_of(self, owner: str) -> dict[int, int]:
        """The claims that earlier runs of a batch left, by the number of the line."""
        rows = self._read(
            "SELECT id, body_digest FROM intents"
            " WHERE origin = ? AND owner = ? AND state = 'open' ORDER BY id",
            self.origin,
            owner,
        )
        return {int(row["body_digest"].removeprefix(LINE)): row["id"] for row in rows}

    def sent_by_others(self, owner: str) -> dict[str, list[str]]:
        """When others began what has no known end, as ISO 8601, by the digest of the prompt."""
        found: dict[str, list[str]] = {}
        for row in self._read(
            "SELECT digest, started_at FROM intents"
            " WHERE origin = ? AND owner != ? AND state IN ('open', 'unknown', 'given up')",
            self.origin,
            owner,
        ):
            found.setdefault(row["digest"], []).append(row["started_at"])
        return found

    def _in_one(self, act: Callable[[sqlite3.Connection], dict[int, int] | None]) -> Any:
        try:
            with self._database.transaction() as connection:
                return act(connection)
        except RebyteError as problem:
            self._complain(problem)
            return None


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
