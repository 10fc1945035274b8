"""Create several tasks for one prompt, of which the first success counts.

Each is created at most once, like any other task: an attempt whose answer was lost is searched for
and never sent again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import TIMEOUT_MAX, Thread
from typing import Any

from ..errors import Interrupted, Next, OutcomeUnknown, RebyteError, lines
from ..system.deadline import Deadline
from .wait import WaitTarget

GRACE = 2.0  # seconds that creates in progress have to end after an interrupt
Created = Mapping[str, Any]


class ParallelCreates:
    """Creates that are under way at the same time; their tasks join a wait as they answer.

    Everything but the creates themselves happens in the thread that calls the methods. It is a
    `wait.LateTargets`.
    """

    def __init__(
        self,
        create: Callable[[int], Created],
        count: int,
        *,
        created: Callable[[int, Created], None],
        refused: Callable[[int, RebyteError], None],
    ) -> None:
        """`create` is called with 0 to `count` - 1 once `start` is.

        `created` is called with each task as soon as it is known to exist. `refused` is called with
        each error that created none, as soon as there is a task, since without any the errors are
        the result.
        """
        self.ids: list[str] = []  # of all tasks so far
        self.errors: dict[int, RebyteError] = {}  # by number, of the creates that failed
        self._create = create
        self._count = count
        self._created = created
        self._refused = refused
        self._answers: SimpleQueue[tuple[int, Created | Exception]] = SimpleQueue()
        self._begun = self._ended = 0
        self._joined: set[str] = set()  # ids that `join` has returned
        self._told: set[int] = set()  # errors that `refused` was called with
        self._faults: dict[int, Exception] = {}

    @property
    def under_way(self) -> int:
        """How many creates have not answered yet."""
        return self._begun - self._ended

    def start(self) -> None:
        """Begin all creates."""
        for at in range(self._count):
            self._begun = at + 1  # before it is: an interrupt may come in between
            # Not an executor: it can run what it has refused for lack of a thread.
            thread = Thread(target=self._work, args=(at,), name=f"attempt-{at + 1}", daemon=True)
            try:
                thread.start()
            except (RuntimeError, MemoryError):
                error = RebyteError("cannot start another thread", code="out_of_memory")
                self._answers.put((at, error))

    def join(self, *, block: bool) -> list[WaitTarget]:
        """The tasks that became known since the last call; with `block`, one if any comes."""
        known = len(self._joined)
        while self.under_way:
            try:
                self._take(TIMEOUT_MAX if block and len(self.ids) == known else 0)
            except Empty:
                break
        joining = [task_id for task_id in self.ids if task_id not in self._joined]
        self._joined.update(joining)
        return [WaitTarget(task_id) for task_id in joining]

    def interrupted(
        self, stop: KeyboardInterrupt | Interrupted, *, grace: float = GRACE
    ) -> Interrupted:
        """An interrupt, with a hint that says what it leaves behind.

        The creates under way have `grace` seconds to answer.
        """
        limit = Deadline(grace)
        with suppress(KeyboardInterrupt, Interrupted, Empty):
            while self.under_way:
                self._take(limit.left())
        stop = Interrupted.of(stop)
        return Interrupted(stop.exit_status, hint=lines(stop.hint, *self._left_behind()))

    def raise_fault(self) -> None:
        """Raise the exception of a create that was no RebyteError, if there was one."""
        if self._faults:
            raise self._faults[min(self._faults)]

    def _work(self, at: int) -> None:
        try:
            self._answers.put((at, self._create(at)))
        except Exception as error:  # one that is not ours is raised in the main thread
            self._answers.put((at, error))

    def _take(self, seconds: float) -> None:
        """Take one answer. Raises Empty if none comes in so many seconds."""
        at, answer = self._answers.get(timeout=seconds)
        self._ended += 1
        if isinstance(answer, RebyteError):
            self.errors[at] = answer
        elif isinstance(answer, Exception):
            self._faults[at] = answer
        else:
            self.ids.append(str(answer["id"]))
            self._created(at, answer)
        for number, error in self.errors.items() if self.ids else ():
            if number not in self._told and not isinstance(error, OutcomeUnknown):
                self._told.add(number)
                self._refused(number, error)

    def _left_behind(self) -> list[str]:
        """What is left of the tasks that joined no wait, and of the creates without an answer."""
        parts = []
        ids = [task_id for task_id in self.ids if task_id not in self._joined]
        if ids:
            what = "Task" if len(ids) == 1 else "Tasks"
            keeps = "keeps" if len(ids) == 1 else "keep"
            listed = " ".join(ids)
            parts.append(f"{what} {listed} {keeps} running; stop with " + Next("cancel", listed))
        unknown = [error for error in self.errors.values() if isinstance(error, OutcomeUnknown)]
        count = self.under_way + len(unknown)
        if count:
            creates = "1 create" if count == 1 else f"{count} creates"
            parts.append(f"The outcome of {creates} is unknown; see " + Next("list"))
        return parts
