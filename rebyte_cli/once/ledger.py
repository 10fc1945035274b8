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
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..errors import RebyteError
from ..history.prompt_digest import digest_of, shape_of
from ..history.rows import Reservation
from ..system.deadline import NO_LIMIT, Deadline
from .search import Rival

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
    """Who may claim the result of one request: whatever else was sent from this machine.

    See `finder.Claims`. `own` is the intent of the request; with `alive`, equal attempts only count
    if a process is at work on them.
    """

    def __init__(self, history: History, clock: ServerClock, target: str | None) -> None:
        """`target` is the task that a follow-up is for, None for a create."""
        self._history = history
        self._clock = clock
        self._target = target
        self.own: Intent | None = None
        self.alive = False

    def claimed(self, ids: Collection[str], _digest: str) -> tuple[set[str], set[str]]:
        """What another process has registered as its own by now; nothing else is in doubt."""
        return self._history.knows(ids), set()

    def rivals(self, _equals: Any, _with_task: Any) -> Iterator[Rival]:
        """What was sent at about the same time; none if the history cannot be used."""
        own = self.own
        for other in [] if own is None else self._history.intents.rivals(own.owner, self._target):
            assert own is not None
            if self._clock.is_near(own.started_at, other.started_at):
                is_equal = (other.digest, other.body_digest) == (own.digest, own.body_digest)
                if not (self.alive and is_equal) or self._is_alive(other):
                    yield Rival(other.digest, other.shape)

    def known(self, _shape: Any) -> list[tuple[str, str]]:
        """The latest tasks from here, those with long prompts first."""
        return self._history.prompts()

    def _is_alive(self, intent: Intent) -> bool:
        """Whether a process, or a thread of this one, is at work on an intent."""
        from ..history.intents import IntentHeld

        try:
            with self._history.intents.hold(intent.key or intent.owner):
                return False
        except IntentHeld:
            return True


class Ledger:
    """The lines of one batch, by number, that may have a task which no record names yet.

    It also lets the history know of their tasks, in groups, and never before the journal does.

    A worker calls `reserve`, `sending`, `unsent` and `claim`, and the writer of the journal
    `write`. What changes the state of a line is for the thread that made the ledger, which is
    asserted. Callers get a copy.
    """

    def __init__(self, history: History, owner: str, journaled: Callable[[], None]) -> None:
        """`owner` identifies the batch: the same in each of its runs, different from others'.

        `journaled` returns when the journal has all that happened so far, or raises RebyteError.
        """
        self.history = history
        self._owner = owner
        self._journaled = journaled
        self.due = NO_LIMIT  # when to call `flush` at the latest
        self._created: list[NewTask] = []
        self._ended: list[Mapping[str, Any]] = []
        self._thread = threading.get_ident()
        self._lock = threading.Lock()  # for all that follows but `_upcoming`, which `write` reads
        self._upcoming: Iterator[tuple[int, str]] = iter(())
        self._reserved: set[int] = set()  # in this run, or over
        self._added: list[Reservation] = []
        self._ids: dict[int, int] = {}  # of reservations
        self._until: dict[int, float] = {}
        self._released: dict[int, str | None] = {}
        self._doubted: list[int] = []
        self._under_way: set[int] = set()
        self._in_doubt: set[int] = set()
        self._tasks: set[str] = set()

    # Any thread

    def reserve(self, number: int, prompt: str, sent: str) -> None:
        """Reserve a line with the next `write`, before it is sent. `sent`: ISO 8601."""
        with self._lock:
            if self._until.get(number, 0.0) < time.monotonic():
                self._added.append(_reservation(number, prompt, sent))

    def sending(self, number: int) -> None:
        """A line is about to be sent."""
        with self._lock:
            self._under_way.add(number)

    def unsent(self, number: int) -> None:
        """A line was certainly not sent after all."""
        with self._lock:
            self._under_way.discard(number)

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
            return self._under_way.copy()

    @property
    def unsettled(self) -> set[int]:
        """The lines that may have a task whose id is not known."""
        with self._lock:
            return self._under_way | self._in_doubt

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
        with self._lock:
            added, self._added = self._added, []
            self._reserved.update(line.number for line in added)
        if not added:
            return
        upcoming = dict(islice(self._upcoming, AHEAD))
        with self._lock:
            new = [one for one in upcoming if one not in self._reserved and one not in self._ids]
        now = added[-1].sent
        added += [_reservation(number, upcoming[number], now) for number in new]
        until = time.monotonic() + FRESH
        written = self.history.intents.reserve(self._owner, added)
        with self._lock:
            for number, reservation_id in written.items():
                self._release(number)  # an older one
                self._ids[number] = reservation_id
                self._until[number] = until

    # The thread of the batch

    def load(self, tasks: Iterable[str]) -> set[int]:
        """Return the lines that an earlier run left reserved; they stay so until released.

        `tasks` are the ids of every task that the journal names.
        """
        left = self.history.intents.reservations_of(self._owner)
        with self._lock:
            self._ids = {number: intent.id for number, intent in left.items()}
            self._tasks.update(tasks)
        return set(left)

    def expect(self, lines: Iterator[tuple[int, str]]) -> None:
        """Set the lines to come, each with its prompt: each `write` reserves some of them too."""
        self._upcoming = lines

    def doubt(self, number: int) -> None:
        """A line was sent, and what became of it is not known."""
        with self._lock:
            self._under_way.discard(number)
            self._in_doubt.add(number)
            if number in self._ids:
                self._doubted.append(self._ids[number])
        self._schedule()

    def not_created(self, number: int) -> None:
        """A line has no task, and no create of it is under way."""
        with self._lock:
            self._settle(number)
        self._schedule()

    def created(self, number: int, new: NewTask) -> None:
        """A line has a task, and the journal knows it."""
        with self._lock:
            self._settle(number, str(new.created["id"]))
        self._created.append(new._replace(line=f"{self._owner} {number}"))
        self._schedule()

    def ended(self, task: Mapping[str, Any]) -> None:
        """A task ended."""
        self._ended.append({name: task[name] for name in _KEPT_OF_AN_END if name in task})
        self._schedule()

    def release_settled(self) -> None:
        """Release every line but the unsettled ones with the next `flush`."""
        with self._lock:
            for number in self._ids.keys() - self._under_way - self._in_doubt:
                self._release(number)

    def flush(self) -> None:
        """Let the history know, and then release. A journal that fails is reported elsewhere."""
        self.due = NO_LIMIT
        created, ended = self._created, self._ended
        self._created, self._ended = [], []
        with suppress(RebyteError):
            self._journaled()
            if created:
                self.history.add_tasks(created)
            if ended:
                self.history.update_tasks(ended)
            with self._lock:
                released, self._released = self._released, {}
                doubted, self._doubted = self._doubted, []
            if released or doubted:
                self.history.intents.release(released, doubted)

    def _schedule(self) -> None:
        assert self._thread == threading.get_ident(), "another thread settles a line"
        if self.due is NO_LIMIT:
            self.due = Deadline(DELAY)
        if len(self._created) + len(self._ended) >= LARGEST_GROUP:
            self.flush()

    def _settle(self, number: int, task: str | None = None) -> None:
        """The outcome of a line is known. The caller holds the lock."""
        self._under_way.discard(number)
        self._in_doubt.discard(number)
        self._reserved.add(number)  # so that it is none of those to come
        self._release(number, task)

    def _release(self, number: int, task: str | None = None) -> None:
        reservation_id = self._ids.pop(number, None)
        self._until.pop(number, None)
        if reservation_id is not None:
            self._released[reservation_id] = task


def _reservation(number: int, prompt: str, sent: str) -> Reservation:
    return Reservation(number, digest_of(prompt), sent, shape_of(prompt).text)
