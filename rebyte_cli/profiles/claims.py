"""Claims: intents of the lines of a batch, so that no other create takes a line's task for its own.

They stand in the table of the intents, and say to whoever looks for a lost task that a batch may
have made what is seen. They prove nothing to the batch itself, whose journal does that, so they
are written without a sync and many at a time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import RebyteError

if TYPE_CHECKING:
    from .database import Database

LINE = "line "  # in the place of a body's digest, which no line equals: none is ever adopted


class Wanted(NamedTuple):
    """A line about to be sent: its number, the digest of its prompt, the time (ISO 8601)."""

    number: int
    digest: str
    sent: str


class Claims:
    """The part of History that speaks for the lines of batches. It never stops a batch."""

    origin: str
    enabled: bool
    _database: Database

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
