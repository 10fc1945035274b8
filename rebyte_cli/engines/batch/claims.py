"""What a batch tells the history of creates under way, and asks it about those of others.

Two creates of one machine that ask for the same at the same moment cannot tell their tasks
apart once an answer is lost. So each line is claimed before it is sent, and let go when the
history knows its task; meanwhile a `create` that looks takes nothing that could be the line's,
and a line nothing that could be the create's.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ...profiles.claims import Wanted

if TYPE_CHECKING:
    from ...profiles.history import History


class Claims:
    """The claims of one batch. Lines are named by their numbers."""

    def __init__(self, history: History, owner: str) -> None:
        """`owner` is the same in every run of the batch, and that of no other."""
        self._history = history
        self._owner = owner
        self._lock = threading.Lock()
        self._wanted: list[Wanted] = []
        self._claims: dict[int, int] = {}
        self._over: dict[int, str | None] = {}

    def left(self) -> set[int]:
        """The lines that an earlier run left claimed; they stay so until they are let go."""
        self._claims = self._history.claims_of(self._owner)
        return set(self._claims)

    def want(self, number: int, digest: str, sent: str) -> None:
        """Claim a line with the next `write`. `sent`: ISO 8601."""
        with self._lock:
            self._wanted.append(Wanted(number, digest, sent))

    def write(self) -> None:
        """Write down every line that was wanted."""
        with self._lock:
            wanted, self._wanted = self._wanted, []
        if wanted:
            self._claims.update(self._history.claim(self._owner, wanted))

    def over(self, number: int, task: str | None = None) -> None:
        """Let a line go with the next `flush`: it was not sent after all, or `task` is its own."""
        claim = self._claims.pop(number, None)
        if claim is not None:
            self._over[claim] = task

    def flush(self) -> None:
        """Let go what is over. Call it when the history has the tasks."""
        over, self._over = self._over, {}
        if over:
            self._history.release(over)

    def of_others(self) -> Mapping[str, Iterable[str]]:
        """When others here sent what has no known end: by the digest of its prompt, ISO 8601."""
        return self._history.sent_by_others(self._owner)
