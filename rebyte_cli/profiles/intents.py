"""Intents: what is written down before a create is sent, so that it can be proved afterwards.

    open ──┬── done      the task exists: `task_id`
           ├── refused   the API said no; nothing was made
           ├── unsent    the request never reached the API
           ├── unknown   no answer came back
           └── given up  nor will it be looked for; what was made may still be anybody's
    open, and nobody holds its key: the process died between sending and settling.

An intent is on the disk before the request leaves. It holds no prompt, only digests, and is
kept when the history is off. Unlike the rest of the history it is never skipped: when it
cannot be written, HistoryUnusable (or, for its folder, RebyteError) is raised and nothing may be
sent.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ..errors import RebyteError
from .claims import LINE
from .files import private_folder, take_lock

if TYPE_CHECKING:
    from .database import Database

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


class Intents:
    """The part of History that makes creates provable."""

    path: Path
    origin: str
    enabled: bool
    _database: Database
    _held: dict[str, _Hold]

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


def _intent(row: Any) -> Intent:
    values = {name: row[name] for name in Intent._fields}
    values["task"] = json.loads(values["task"]) if values["task"] else None
    return Intent(**values)
