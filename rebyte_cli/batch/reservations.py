"""The prompts that a batch reserves in the history before it sends them.

If the response to a create is lost, two commands on one machine that sent the same prompt at the
same time cannot tell their tasks apart. A batch therefore reserves each line before sending it,
together with the next lines, and releases it once the history has its task. In the meantime, a
`create` that searches for its task takes none that could belong to the line, and the other way
round.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING

from ..history.records import Reservation
from ..once.match import digest_of

if TYPE_CHECKING:
    from ..history.history import History


AHEAD = 100  # lines reserved at a time: a transaction for each would cost a tenth of a batch
FRESH = 60.0  # seconds; a reservation says when its line may have been sent


class Reservations:
    """The reservations of one batch. Lines are identified by their numbers."""

    def __init__(self, history: History, owner: str) -> None:
        """`owner` identifies the batch: the same in each of its runs, different from others'."""
        self._history = history
        self._owner = owner
        self._lock = threading.Lock()
        self._added: list[Reservation] = []
        self._upcoming: Iterator[tuple[int, str]] = iter(())
        self._ids: dict[int, int] = {}
        self._until: dict[int, float] = {}
        self._released: dict[int, str | None] = {}

    def load(self) -> set[int]:
        """Return the lines that an earlier run left reserved; they stay so until released."""
        self._ids = self._history.reservations_of(self._owner)
        return set(self._ids)

    def expect(self, lines: Iterator[tuple[int, str]]) -> None:
        """Set the lines to come, each with its prompt: each `write` reserves some of them too."""
        self._upcoming = lines

    def add(self, number: int, prompt: str, sent: str) -> None:
        """Reserve a line with the next `write`. `sent`: ISO 8601."""
        if self._until.get(number, 0.0) < time.monotonic():
            with self._lock:
                self._added.append(Reservation(number, digest_of(prompt), sent))

    def write(self) -> None:
        """Write the added lines to the history."""
        with self._lock:
            added, self._added = self._added, []
        if not added:
            return
        now, known = added[-1].sent, {line.number for line in added} | self._ids.keys()
        for number, prompt in islice(self._upcoming, AHEAD):
            if number not in known:
                added.append(Reservation(number, digest_of(prompt), now))
        until = time.monotonic() + FRESH
        written = self._history.reserve(self._owner, added)
        for number, reservation_id in written.items():
            self.release(number)  # an older one
            self._ids[number] = reservation_id
            self._until[number] = until

    def release(self, number: int, task: str | None = None) -> None:
        """Release a line with the next `flush`. `task`: the id of its task; None if not sent."""
        reservation_id = self._ids.pop(number, None)
        self._until.pop(number, None)
        if reservation_id is not None:
            self._released[reservation_id] = task

    def keep_only(self, numbers: Collection[int]) -> None:
        """Release all other lines with the next `flush`."""
        for number in list(self._ids):
            if number not in numbers:
                self.release(number)

    def flush(self) -> None:
        """Write the releases to the history. Call it once the history has the tasks."""
        released, self._released = self._released, {}
        if released:
            self._history.release(released)

    def of_others(self) -> Mapping[str, Iterable[str]]:
        """Return when other commands sent each prompt whose outcome is not known yet.

        Keys are digests of prompts, values times in ISO 8601.
        """
        return self._history.sent_by_others(self._owner)
