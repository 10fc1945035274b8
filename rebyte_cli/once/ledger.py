"""What was sent from here and has no known result: who may claim a task that a list shows.

The ledger is the table of intents in the history. A single request writes its intent before it is
sent, and settles it once the history knows the result (`Intents.open`). A batch reserves a line
after its journal says that it is sent and before it is, together with the tasks that were answered
until then, and releases it once the history has its task. In the meantime, a `create` that
searches for its task takes none that could belong to the line, and the other way round: of two
commands that sent the same prompt at the same time, neither can tell which task is its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
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


# What may become of a line. `new`: nothing is known of it here; `reserved`: it is about to be sent;
# `sent`: the journal and the history know that; `doubted`: what became of it is not known.
NEXT = {
    "new": {"reserved", "sent", "doubted", "settled"},
    "reserved": {"new", "reserved", "sent", "doubted", "settled"},
    "sent": {"reserved", "doubted", "settled"},
    "doubted": {"doubted", "settled"},
    "settled": {"reserved", "doubted", "settled"},
}


class LedgerEntry:
    """A line. `intent` is the id of its reservation, once that was written."""

    __slots__ = ("intent", "state")

    def __init__(self) -> None:
        self.state = "new"
        self.intent: int | None = None


class LedgerNews:
    """What the history is to learn: ends of tasks, and what became of reservations, by id."""

    def __init__(self) -> None:
        self.ended: list[Mapping[str, Any]] = []
        self.released: dict[int, str | None] = {}
        self.doubted: list[int] = []


class Ledger:
    """The lines of one batch, by number, that may have a task which no record names yet.

    It also lets the history know of their tasks, never before the journal does: of those that were
    answered before another line is sent, of their ends in groups.

    A worker calls `reserve`, `sending`, `unsent`, `claim` and `answered`, and the writer of the
    journal `write`. What settles a line is for the thread that made the ledger, which is asserted.
    Callers get a copy.
    """

    def __init__(self, history: History, owner: str, journaled: Callable[[], None]) -> None:
        """`owner` identifies the batch: the same in each of its runs, different from others'.

        `journaled` returns when the journal has all that happened so far, or raises RebyteError.
        """
        self.history = history
        self._owner = owner
        self._journaled = journaled
        self.due = NO_LIMIT  # when to call `flush` at the latest
        self._thread = threading.get_ident()
        self._lock = threading.Lock()  # for all that follows
        self._entries: dict[int, LedgerEntry] = {}
        self._in: dict[str, dict[int, None]] = {state: {} for state in NEXT}  # the same, by state
        self._tasks: set[str] = set()
        self._wanted: dict[int, Reservation] = {}
        self._answered: dict[int, NewTask] = {}
        self._news = LedgerNews()

    # Any thread

    def reserve(self, number: int, prompt: str, sent: str) -> None:
        """Reserve a line before the journal says that it is sent. `sent`: ISO 8601."""
        reservation = Reservation(number, digest_of(prompt), sent, beginning_of(prompt))
        with self._lock:
            self._release(self._move(number, "reserved"))  # an older one
            self._wanted[number] = reservation

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

    def answered(self, number: int, new: NewTask) -> None:
        """A line has this task, as the journal is about to say, or says already."""
        with self._lock:
            self._answered[number] = new._replace(line=f"{self._owner} {number}")

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

    def write(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Let the history know what these records say was answered, or is about to be sent.

        The writer of the journal calls it when they are on the disk, before any line is sent.
        """
        with self._lock:
            numbers = [record.get("line", 0) for record in records]
            answered = [self._answered.pop(one) for one in numbers if one in self._answered]
            wanted = [self._wanted.pop(one) for one in numbers if one in self._wanted]
        if not answered and not wanted:
            return

        def note() -> dict[int, int]:
            self.history.add_tasks(answered)
            return self.history.intents.reserve(self._owner, wanted)

        written = self.history.together(note) or {}
        with self._lock:
            for number, intent in written.items():
                self._entries[number].intent = intent

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

    def created(self, number: int, task_id: str) -> None:
        """A line has a task, which was `answered`, and the journal knows it."""
        self._settle(number, task_id)

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
            answered, self._answered = [*self._answered.values()], {}
        with suppress(RebyteError):
            self._journaled()
            if answered:
                self.history.add_tasks(answered)
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
        if len(self._news.released) + len(self._news.ended) >= LARGEST_GROUP:
            self.flush()

    # With the lock

    def _move(self, number: int, state: str) -> LedgerEntry:
        """Change the state of a line."""
        entry = self._entries.setdefault(number, LedgerEntry())
        assert state in NEXT[entry.state], f"{entry.state} -> {state}"
        self._in[entry.state].pop(number, None)
        self._in[state][number] = None
        entry.state = state
        return entry

    def _release(self, entry: LedgerEntry, task: str | None = None) -> None:
        if entry.intent is not None:
            self._news.released[entry.intent] = task
        entry.intent = None
