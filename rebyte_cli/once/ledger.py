"""What was sent from here and has no known result: who may claim a task that a list shows.

The ledger is the table of intents in the history. A single request writes its intent before it is
sent, and settles it once the history knows the result (`Intents.open`). A batch reserves a
line before sending it, together with the next lines, and releases it once the history has its
task. In the meantime, a `create` that searches for its task takes none that could belong to the
line, and the other way round: of two commands that sent the same prompt at the same time, neither
can tell which task is its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..errors import RebyteError
from ..history.rows import Reservation, beginning_of, digest_of
from ..system.deadline import NO_LIMIT, Deadline

if TYPE_CHECKING:
    from ..history.history import History
    from ..history.rows import Intent, NewTask
    from .server_clock import ServerClock

DELAY = 0.25  # seconds that what the history is to learn waits for more
LARGEST_GROUP = 100
# Answers can be long.
_KEPT_OF_AN_END = (
    *("id", "title", "status", "completedAt"),
    *("usage", "createdAt", "executor", "model"),
)
AHEAD = 100  # lines reserved at a time: a transaction for each would cost a tenth of a batch
FRESH = 60.0  # seconds; a reservation says when its line may have been sent


class SentFromHere:
    """What else was sent from this machine, and may have made what shows the same prompt.

    `own` is the intent of the request that is searched for; with `alive`, equal attempts only count
    if a process is at work on them.
    """

    def __init__(self, history: History, clock: ServerClock, target: str | None) -> None:
        """`target` is the task that a follow-up is for, None for a create."""
        self._history, self._clock, self._target = history, clock, target
        self.own: Intent | None = None
        self.alive = False

    def contest(self, _lost: object = None) -> bool:
        """Whether anything was sent at about the same time, with an unknown result."""
        own = self.own
        return own is not None and any(
            other.may_read_like(own.digest, own.begins)
            and self._clock.is_near(own.started_at, other.started_at)
            and not (self.alive and self._is_dead_twin(own, other))
            for other in self._history.intents.rivals(own.owner, self._target)
        )

    def _is_dead_twin(self, own: Intent, other: Intent) -> bool:
        """Whether it is an attempt at the very same, which no process is at work on."""
        from ..history.intents import IntentHeld

        if other.body_digest != own.body_digest:
            return False
        try:
            with self._history.intents.hold(other.key or other.owner):
                return True
        except IntentHeld:
            return False


# What may become of a line. `new`: nothing is known of it here; `wanted`: the next `write` reserves
# it; `sent`: it is about to be sent, or was; `doubted`: what became of it is not known.
NEXT = {
    "new": {"wanted", "reserved", "sent", "doubted", "settled"},
    "wanted": {"reserved", "settled"},
    "reserved": {"new", "wanted", "sent", "doubted", "settled"},
    "sent": {"reserved", "doubted", "settled"},
    "doubted": {"doubted", "settled"},
    "settled": {"wanted", "doubted", "settled"},
}


class LedgerEntry:
    """A line. `intent` is the id of its reservation, which is as good as new `until` (monotonic).

    `reservation` is what the next `write` has to write.
    """

    __slots__ = ("intent", "reservation", "state", "until")

    def __init__(self) -> None:
        self.state = "new"
        self.intent: int | None = None
        self.until = 0.0
        self.reservation: Reservation | None = None


class LedgerNews:
    """What the history is to learn: tasks, their ends, and what became of reservations, by id."""

    def __init__(self) -> None:
        self.created: list[NewTask] = []
        self.ended: list[Mapping[str, Any]] = []
        self.released: dict[int, str | None] = {}
        self.doubted: list[int] = []


class Ledger:
    """The lines of one batch, by number, that may have a task which no record names yet.

    It also lets the history know of their tasks, in groups, and never before the journal does.

    A worker calls `reserve`, `sending`, `unsent` and `claim`, and the writer of the journal
    `write`. What settles a line is for the thread that made the ledger, which is asserted. Callers
    get a copy.
    """

    def __init__(
        self,
        history: History,
        owner: str,
        journaled: Callable[[], None],
        *,
        fresh: float = FRESH,
    ) -> None:
        """`owner` identifies the batch: the same in each of its runs, different from others'.

        `journaled` returns when the journal has all that happened so far, or raises RebyteError. A
        reservation older than `fresh` seconds is made again when its line is sent.
        """
        self.history = history
        self._owner = owner
        self._journaled = journaled
        self._fresh = fresh
        self.due = NO_LIMIT  # when to call `flush` at the latest
        self._thread = threading.get_ident()
        self._upcoming: Iterator[tuple[int, str]] = iter(())  # of `write` alone
        self._lock = threading.Lock()  # for all that follows
        self._entries: dict[int, LedgerEntry] = {}
        self._in: dict[str, dict[int, None]] = {state: {} for state in NEXT}  # the same, by state
        self._tasks: set[str] = set()
        self._news = LedgerNews()

    # Any thread

    def reserve(self, number: int, prompt: str, sent: str) -> None:
        """Reserve a line with the next `write`, before it is sent. `sent`: ISO 8601."""
        with self._lock:
            if self._entry(number).until < time.monotonic():
                self._move(number, "wanted").reservation = _reservation(number, prompt, sent)

    def sending(self, number: int) -> None:
        """A line is about to be sent."""
        with self._lock:
            self._move(number, "sent")

    def unsent(self, number: int) -> None:
        """A line was certainly not sent after all."""
        with self._lock:
            self._move(number, "reserved")

    def claim(self, task_id: str) -> bool:
        """A line has this task. Whether another line has it already."""
        with self._lock:
            is_taken = task_id in self._tasks
            self._tasks.add(task_id)
        return is_taken

    @property
    def under_way(self) -> set[int]:
        """The lines that were sent, or are about to be, and have no outcome yet."""
        with self._lock:
            return {*self._in["sent"]}

    @property
    def unsettled(self) -> set[int]:
        """The lines that may have a task whose id is not known."""
        with self._lock:
            return {*self._in["sent"], *self._in["doubted"]}

    def named(self, ids: Iterable[str]) -> set[str]:
        """Those of the ids that are tasks of this batch."""
        with self._lock:
            return self._tasks.intersection(ids)

    def of_others(self) -> list[Intent]:
        """What other commands sent and whose outcome is not known yet."""
        return self.history.intents.rivals(self._owner)

    # The writer of the journal

    def write(self) -> None:
        """Write what was reserved to the history, and the next lines with it."""
        if not self._in["wanted"]:
            return
        upcoming = dict(islice(self._upcoming, AHEAD))
        with self._lock:
            entries = [self._move(number, "reserved") for number in [*self._in["wanted"]]]
            added = [one.reservation for one in entries if one.reservation is not None]
            for entry in entries:
                entry.reservation = None
            new = [one for one in upcoming if self._entry(one).state == "new"]
            for number in new:
                self._move(number, "reserved")
        now = added[-1].sent
        added += [_reservation(number, upcoming[number], now) for number in new]
        until = time.monotonic() + self._fresh
        written = self.history.intents.reserve(self._owner, added)
        with self._lock:
            for number, intent in written.items():
                entry = self._entries[number]
                self._release(entry)  # an older one
                entry.intent, entry.until = intent, until
                if entry.state == "settled":  # meanwhile: a line to come that was called off
                    self._release(entry)

    # The thread of the batch

    def load(self, tasks: Iterable[str]) -> set[int]:
        """Return the lines that an earlier run left reserved; they stay so until released.

        `tasks` are the ids of every task that the journal names.
        """
        left = self.history.intents.reservations_of(self._owner)
        with self._lock:
            for number, intent in left.items():
                self._move(number, "reserved").intent = intent.id
            self._tasks.update(tasks)
        return set(left)

    def expect(self, lines: Iterator[tuple[int, str]]) -> None:
        """Set the lines to come, each with its prompt: each `write` reserves some of them too."""
        self._upcoming = lines

    def doubt(self, number: int) -> None:
        """A line was sent, and what became of it is not known."""
        with self._lock:
            entry = self._move(number, "doubted")
            if entry.intent is not None:
                self._news.doubted.append(entry.intent)
        self._schedule()

    def not_created(self, number: int) -> None:
        """A line has no task, and no create of it is under way."""
        self._settle(number)

    def created(self, number: int, new: NewTask) -> None:
        """A line has a task, and the journal knows it."""
        self._news.created.append(new._replace(line=f"{self._owner} {number}"))
        self._settle(number, str(new.created["id"]))

    def ended(self, task: Mapping[str, Any]) -> None:
        """A task ended."""
        self._news.ended.append({name: task[name] for name in _KEPT_OF_AN_END if name in task})
        self._schedule()

    def release_settled(self) -> None:
        """Release every line but the unsettled ones with the next `flush`."""
        with self._lock:
            for number in [*self._in["reserved"]]:
                self._release(self._move(number, "new"))

    def flush(self) -> None:
        """Let the history know, and then release. A journal that fails is reported elsewhere."""
        self.due = NO_LIMIT
        with self._lock:
            news, self._news = self._news, LedgerNews()
        with suppress(RebyteError):
            self._journaled()
            if news.created:
                self.history.add_tasks(news.created)
            if news.ended:
                self.history.update_tasks(news.ended)
            if news.released or news.doubted:
                self.history.intents.release(news.released, news.doubted)

    def _settle(self, number: int, task: str | None = None) -> None:
        """The outcome of a line is known."""
        with self._lock:
            self._release(self._move(number, "settled"), task)
        self._schedule()

    def _schedule(self) -> None:
        assert self._thread == threading.get_ident(), "another thread settles a line"
        if self.due is NO_LIMIT:
            self.due = Deadline(DELAY)
        if len(self._news.created) + len(self._news.ended) >= LARGEST_GROUP:
            self.flush()

    # With the lock

    def _entry(self, number: int) -> LedgerEntry:
        if number not in self._entries:
            self._entries[number] = LedgerEntry()
        return self._entries[number]

    def _move(self, number: int, state: str) -> LedgerEntry:
        """Change the state of a line."""
        entry = self._entry(number)
        assert state in NEXT[entry.state], f"{entry.state} -> {state}"
        self._in[entry.state].pop(number, None)
        self._in[state][number] = None
        entry.state = state
        return entry

    def _release(self, entry: LedgerEntry, task: str | None = None) -> None:
        if entry.intent is not None:
            self._news.released[entry.intent] = task
        entry.intent, entry.until = None, 0.0


def _reservation(number: int, prompt: str, sent: str) -> Reservation:
    return Reservation(number, digest_of(prompt), sent, beginning_of(prompt))
