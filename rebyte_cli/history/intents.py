"""What is about to be sent, or was sent and has no known result: a promise, not a convenience.

Unlike the rest of the history, an intent fails when it cannot be written down.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from ..errors import AGAIN, RebyteError
from ..system.files import check_locks, take_lock
from ..system.permissions import private_folder
from .database import Database, Lenient
from .rows import LINE, Intent, Reservation, intent_of, line_of, stored_answer

LATEST_INTENTS = 1000  # kept whatever their age
# Intents whose task may exist although nothing here names it.
_UNSETTLED = "state IN ('open', 'unknown', 'given up')"


class IntentHeld(RebyteError):
    """Another live process, or another thread of this one, is working on the same key."""

    code = "intent_held"

    def __init__(self, key: str) -> None:
        super().__init__(
            f"another `rebyte` is creating the task for {key!r} right now",
            hint="Wait for it, then " + AGAIN + ": it returns the same task",
        )


class Intents:
    """The intents of one origin, and the keys of `--once` that this process holds.

    Any other command that creates something sees them. Methods raise HistoryUnusable when the file
    cannot be used, except those for the lines of a batch, which has a journal for that, and
    `rivals`.
    """

    def __init__(self, database: Database, lenient: Lenient, *, keeps_all: bool) -> None:
        """`lenient` is the same database; with `keeps_all`, intents keep whole answers."""
        self._database = database
        self._lenient = lenient
        self._origin = lenient.origin
        self._keeps_all = keeps_all
        self._held: dict[str, int] = {}  # the threads that hold a key

    def of(self, key: str) -> Intent | None:
        """The intent of a key, whatever its state, or None."""
        found = self._intents("key = ?", key)
        return found[0] if found else None

    def unsettled(self, digest: str) -> list[Intent]:
        """The attempts with this digest whose end is not known, oldest first."""
        return self._intents(f"{_UNSETTLED} AND digest = ? ORDER BY id", digest)

    def _intents(self, where: str, *values: Any) -> list[Intent]:
        sql = f"SELECT * FROM intents WHERE origin = ? AND {where}"  # noqa: S608 -- ours
        return [intent_of(row) for row in self._database.rows(sql, (self._origin, *values))]

    @contextmanager
    def hold(self, key: str) -> Iterator[None]:
        """Keep other processes and threads off the key while the block runs.

        What is read, decided and opened inside is safe from them. The hold ends with the
        process, however it ends: a reused process id cannot be mistaken for it. Raises IntentHeld
        when the key is held already.
        """
        import hashlib  # not at the top: TAB reads the history too

        folder = self._database.path.parent / "once"
        private_folder(folder)
        check_locks(folder)
        # A key may be any text; the name of its lock is of one length and safe everywhere.
        name = hashlib.sha256(f"{self._origin}\0{key}".encode()).hexdigest()[:40]
        release = take_lock(folder / name, remove=True)
        if release is None:
            raise IntentHeld(key)
        self._held[key] = threading.get_ident()
        try:
            yield
        finally:
            del self._held[key]
            release()

    def open(
        self,
        key: str | None,
        *,
        digest: str,
        body_digest: str,
        started_at: str,
        owner: str,
        replaces: Intent | None = None,
        begins: str | None = None,
        target: str | None = None,
    ) -> Intent:
        """Write down, synced, that a task is about to be created. Call it before the request.

        `digest` is of the prompt, `body_digest` of the whole body, `started_at` ISO 8601; `begins`
        is how the prompt does, and `target` the id of the task that a follow-up is for.
        `key` is that of `--once`, which this thread holds, or None for a create that is not to be
        repeated by name. When the key's task exists already, its intent (state done) is returned
        and nothing is written. An earlier attempt is replaced if it is known to have created
        nothing: by its state, or because it is `replaces`. Raises IntentHeld for any other.
        """
        if key is not None and self._held.get(key) != threading.get_ident():
            raise RuntimeError("a key is opened that this thread does not hold")
        with self._database.transaction(synced=True) as connection:
            if key is not None:
                earlier = self.of(key)
                if earlier is not None and earlier.state == "done":
                    return earlier
                # The lock should have kept everyone else off; this is what stands behind it.
                may_be_under_way = earlier is not None and earlier.state in ("open", "unknown")
                if may_be_under_way and earlier != replaces:
                    raise IntentHeld(key)
                connection.execute(
                    "DELETE FROM intents WHERE origin = ? AND key = ?",
                    (self._origin, key),
                )
            else:
                # An intent without a key is useless after a month. The clock may have been wrong
                # when it was written, so the latest ones stay whatever their time.
                connection.execute(
                    "DELETE FROM intents WHERE origin = ? AND key IS NULL"
                    " AND julianday(substr(started_at, 1, 23))"
                    " < julianday(substr(?, 1, 23)) - 30"
                    " AND id <= (SELECT MAX(id) FROM intents) - ?",
                    (self._origin, started_at, LATEST_INTENTS),
                )
            made = connection.execute(
                "INSERT INTO intents"
                " (origin, key, state, digest, body_digest, started_at, owner, shape, target)"
                " VALUES (?, ?, 'open', ?, ?, ?, ?, ?, ?)",
                (
                    *(self._origin, key, digest, body_digest, started_at, owner),
                    *(begins if self._keeps_all else None, target),
                ),
            ).lastrowid
        assert made is not None
        return Intent(made, key, "open", digest, body_digest, started_at, owner, begins=begins)

    def settle(
        self,
        intent_id: int,
        *,
        state: Literal["done", "refused", "unknown", "unsent", "given up"],
        task_id: str | None = None,
        task: Mapping[str, Any] | None = None,
        started_at: str | None = None,
        candidates: Iterable[str] = (),
    ) -> None:
        """Write down, synced, how it ended.

        `started_at` replaces the time of the start, where more is known about it now. `candidates`
        are the ids that a search found possible, or took.
        An intent without a key is of no use once its end is known, and is dropped then; with the
        history off it stays where it came to a task, as what tells that the task is taken. Of its
        prompt there is only the digest then.
        """
        kept = stored_answer(task or {}, whole=self._keeps_all)
        candidates = [*candidates]
        # Only what may be searched for is compared with other prompts (see `reopen`).
        shape = "shape" if candidates or state in ("unknown", "given up") else "NULL"
        with self._database.transaction(synced=True) as connection:
            row = connection.execute(
                "SELECT key FROM intents WHERE id = ?", (intent_id,)
            ).fetchone()
            tells = state in ("unknown", "given up") or (state == "done" and not self._keeps_all)
            if row is not None and row["key"] is None and not tells:
                connection.execute("DELETE FROM intents WHERE id = ?", (intent_id,))
            else:
                kept = kept if row is None or row["key"] is not None else None
                connection.execute(
                    "UPDATE intents SET state = ?, task_id = ?, task = ?, candidates = ?,"  # noqa: S608 -- ours
                    f" shape = {shape}, started_at = COALESCE(?, started_at) WHERE id = ?",
                    (state, task_id, kept, json.dumps(candidates), started_at, intent_id),
                )

    def reopen(self, task_id: str) -> list[str]:
        """Set keys back to unknown that took a task after a search; returns them."""

        def act(connection: sqlite3.Connection) -> list[str]:
            rows = connection.execute(
                "SELECT id, key FROM intents WHERE origin = ? AND task_id = ? AND state = 'done'"
                " AND key IS NOT NULL AND candidates = ?",
                (self._origin, task_id, json.dumps([task_id])),
            ).fetchall()
            connection.executemany(
                "UPDATE intents SET state = 'unknown', task_id = NULL, task = NULL,"
                " candidates = '[]' WHERE id = ?",
                [(row["id"],) for row in rows],
            )
            return [str(row["key"]) for row in rows]

        return self._lenient.change(act) or []

    def forget(self, key: str) -> bool:
        """Drop a key, so that the next create with it makes a task. False when there is none.

        A request whose result is not known still may have made a task, which is no other's. Raises
        IntentHeld while another process or thread is working on it.
        """
        if self.of(key) is None:
            return False
        with self.hold(key), self._database.transaction(synced=True) as connection:
            kept = connection.execute(
                "UPDATE intents SET key = NULL, state = 'given up'"  # noqa: S608 -- constant
                f" WHERE origin = ? AND key = ? AND {_UNSETTLED}",
                (self._origin, key),
            )
            dropped = connection.execute(
                "DELETE FROM intents WHERE origin = ? AND key = ?", (self._origin, key)
            )
        return bool(kept.rowcount or dropped.rowcount)

    # Reservations of batch lines

    def reserve(self, owner: str, lines: Iterable[Reservation]) -> dict[int, int]:
        """Write down that these lines are about to be sent; the reservations' ids, by line number.

        `owner` names the batch. Empty when the history cannot be written.
        """
        sql = (
            "INSERT INTO intents (origin, state, digest, body_digest, started_at, owner, shape)"
            " VALUES (?, 'open', ?, ?, ?, ?, ?)"
        )

        def insert(connection: sqlite3.Connection) -> dict[int, int]:
            made = {}
            for line in lines:
                name = f"{LINE}{line.number}"
                begins = line.begins if self._keeps_all else None
                row = (self._origin, line.digest, name, line.sent, owner, begins)
                made[line.number] = int(connection.execute(sql, row).lastrowid or 0)
            return made

        return self._lenient.change(insert) or {}

    def release(
        self, reservations: Mapping[int, str | None], doubted: Collection[int] = ()
    ) -> None:
        """Drop reservations, by their ids, each with the task that its line became, or None.

        The lines of those that are `doubted` were certainly sent. Call it once the history has the
        tasks. With the history off, a reservation stays to name its task: others must know that it
        is taken.
        """
        kept = {} if self._keeps_all else {id_: task for id_, task in reservations.items() if task}

        def drop(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "UPDATE intents SET state = 'done', task_id = ?, shape = NULL WHERE id = ?",
                [(task, id_) for id_, task in kept.items()],
            )
            connection.executemany(
                "DELETE FROM intents WHERE id = ?",
                [(id_,) for id_ in reservations if id_ not in kept],
            )
            connection.executemany(
                "UPDATE intents SET state = 'unknown' WHERE id = ?", [(id_,) for id_ in doubted]
            )

        self._lenient.change(drop)

    def reservations_of(self, owner: str) -> dict[int, Intent]:
        """The reservations that earlier runs of a batch left, by line number.

        The state is `unknown` if the line was certainly sent.
        """
        rows = self._lenient.rows(
            f"SELECT * FROM intents WHERE origin = ? AND {_UNSETTLED} AND owner = ? ORDER BY id",  # noqa: S608 -- constant
            owner,
        )
        numbered = ((line_of(row), intent_of(row)) for row in rows)
        return {number: intent for number, intent in numbered if number is not None}

    def rivals(self, owner: str, target: str | None = None) -> list[Intent]:
        """What others than `owner` sent, or are about to, and whose result is not known.

        Creates and lines of batches, or with `target` follow-ups of that task.
        """
        rows = self._lenient.rows(
            "SELECT * FROM intents"  # noqa: S608 -- constant
            f" WHERE origin = ? AND {_UNSETTLED} AND owner != ? AND target IS ?",
            owner,
            target,
        )
        return [intent_of(row) for row in rows]
