"""What a batch tells the history of creates under way, and asks it about those of others.

Two creates of one machine that ask for the same at the same moment cannot tell their tasks
apart once an answer is lost. So each line is claimed before it is sent, with those that come
next, and let go when the history knows its task; meanwhile a `create` that looks takes nothing
that could be the line's, and a line nothing that could be the create's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING

from ..history.records import Reservation
from ..tasks.prompt_match import digest_of

if TYPE_CHECKING:
    from ..history.history import History


AHEAD = 100  # lines claimed at a time: a transaction for each would cost a tenth of a batch
FRESH = 60.0  # seconds; a claim tells when its line may have been sent


class Reservations:
    """The claims of one batch. Lines are named by their numbers."""

    def __init__(self, history: History, owner: str) -> None:
        """`owner` is the same in every run of the batch, and that of no other."""
        self._history = history
        self._owner = owner
        self._lock = threading.Lock()
        self._wanted: list[Reservation] = []
        self._next: Iterator[tuple[int, str]] = iter(())
        self._claims: dict[int, int] = {}
        self._until: dict[int, float] = {}
        self._over: dict[int, str | None] = {}

    def left(self) -> set[int]:
        """The lines that an earlier run left claimed; they stay so until they are let go."""
        self._claims = self._history.reservations_of(self._owner)
        return set(self._claims)

    def expect(self, lines: Iterator[tuple[int, str]]) -> None:
        """Lines to come, each with its prompt: some are claimed with each that is wanted."""
        self._next = lines

    def want(self, number: int, prompt: str, sent: str) -> None:
        """Have a line claimed once the next `write` is done. `sent`: ISO 8601."""
        if self._until.get(number, 0.0) < time.monotonic():
            with self._lock:
                self._wanted.append(Reservation(number, digest_of(prompt), sent))

    def write(self) -> None:
        """Claim every line that was wanted."""
        with self._lock:
            wanted, self._wanted = self._wanted, []
        if not wanted:
            return
        now, known = wanted[-1].sent, {line.number for line in wanted} | self._claims.keys()
        for number, prompt in islice(self._next, AHEAD):
            if number not in known:
                wanted.append(Reservation(number, digest_of(prompt), now))
        until = time.monotonic() + FRESH
        made = self._history.reserve(self._owner, wanted)
        for number, claim in made.items():
            self.over(number)  # an older one
            self._claims[number] = claim
            self._until[number] = until

    def over(self, number: int, task: str | None = None) -> None:
        """Let a line go with the next `flush`: it was not sent after all, or `task` is its own."""
        claim = self._claims.pop(number, None)
        self._until.pop(number, None)
        if claim is not None:
            self._over[claim] = task

    def keep_only(self, numbers: Collection[int]) -> None:
        """Let all other lines go with the next `flush`."""
        for number in list(self._claims):
            if number not in numbers:
                self.over(number)

    def flush(self) -> None:
        """Let go what is over. Call it when the history has the tasks."""
        over, self._over = self._over, {}
        if over:
            self._history.release(over)

    def of_others(self) -> Mapping[str, Iterable[str]]:
        """When others here sent what has no known end: by the digest of its prompt, ISO 8601."""
        return self._history.sent_by_others(self._owner)
