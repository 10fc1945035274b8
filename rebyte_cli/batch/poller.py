"""A thread that asks about a changing set of lines, round after round."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from functools import partial
from random import random
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..errors import APIError, RebyteError, TaskEnded
from ..tasks.wait import Poll, WaitTarget
from .state import GONE, Emit
from .throttle import ThrottleStopped

if TYPE_CHECKING:
    from ..api.client import RebyteClient
    from ..tasks.question_watch import QuestionWatcher
    from .throttle import Throttle

YOUNG = 3.0  # seconds; tasks that were added so recently are often about to end
FEW = 10
SLICE = 0.5  # seconds that are spent on questions at a time
MORE_ROOM = "Use a smaller --jobs, or raise the limits of this process (see ulimit -a)."
T = TypeVar("T")


@dataclass(eq=False)
class Poller(Generic[T]):
    """Calls `ask` with everything that was added, again and again until it was dropped.

    `pause` gives the seconds to the next round, from the seconds since something was added and
    the number of things asked about; what is added during a pause may cut it short. `between`
    spends so many seconds between two rounds, or fewer; None to sleep. A network fault is reported
    to the throttle, which then counts the network as lost until a round succeeds. Other errors, a
    service that never answered at all, and the end of the throttle's patience are reported as
    "fatal".
    """

    name: str
    client: RebyteClient
    throttle: Throttle
    emit: Emit
    _: KW_ONLY
    ask: Callable[[dict[int, T]], None]
    pause: Callable[[float, int], float]
    between: Callable[[float], None] | None = None

    def __post_init__(self) -> None:
        self._clock = self.throttle.clock
        self._things: dict[int, T] = {}
        self._change = threading.Condition()
        self._added = 0.0
        self._due = 0.0  # when the next round is
        self._stopped = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread now, unless it has been; later the system may have none left."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name=self.name, daemon=True)
            try:
                thread.start()
            except RuntimeError:
                self.emit("fatal", None, no_thread())
            else:
                self._thread = thread

    def add(self, index: int, thing: T) -> None:
        """Ask about one more line, from the next round on."""
        with self._change:
            self._things[index] = thing
            self._added = self._clock()
            if self._thread is not None:
                self._shorten_pause()
        self.start()

    def _shorten_pause(self) -> None:
        """Let what was added not wait out a pause that is longer than its first one."""
        due = self._added + self.pause(0.0, len(self._things))
        if len(self._things) == 1 or due < self._due:  # else it would cost a switch of threads
            self._due = min(self._due, due)
            self._change.notify()

    def things(self) -> dict[int, T]:
        """What is asked about now, by line."""
        with self._change:
            return dict(self._things)

    def drop(self, index: int) -> None:
        """Stop asking about a line."""
        with self._change:
            self._things.pop(index, None)

    def stop(self) -> None:
        """Begin no further round. `join` waits for the one under way."""
        with self._change:
            self._stopped = True
            self._change.notify()

    def join(self, seconds: float) -> None:
        """Wait until the thread has ended, but no longer than so many seconds."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        while True:
            with self._change:
                while not self._things and not self._stopped:
                    self._change.wait()
                if self._stopped:
                    return
                things, added = dict(self._things), self._added
            began = self._clock()
            if not self._attempt(partial(self._ask_all, things)):
                return
            # Counted from the start of the round, so that slow answers do not stretch it.
            spread = 0.8 + 0.2 * random()  # noqa: S311 -- spreads load, guards nothing
            due = began + self.pause(began - added, len(things)) * spread
            with self._change:
                self._due = due
                if self._added != added:
                    self._shorten_pause()
            while self._things and (left := self._due - self._clock()) > 0 and not self._stopped:
                if not self._attempt(partial(self.between or self._sleep, left)):
                    return

    def _ask_all(self, things: dict[int, T]) -> None:
        self.ask(things)
        self.throttle.network_answered()

    def _lost(self, error: APIError) -> None:
        if not (self.client.transport.has_answered or self.throttle.has_others):
            raise error
        self.throttle.network_lost(error)

    def _sleep(self, seconds: float) -> None:
        with self._change:
            left = min(seconds, self._due - self._clock())  # something may have been added
            if not self._stopped and left > 0:
                self._change.wait(left)

    def _attempt(self, action: Callable[[], None]) -> bool:
        """Do it, and report what goes wrong. False if the thread has to end."""
        try:
            action()
        except ThrottleStopped:
            return False
        except APIError as error:
            try:
                self._lost(error)
            except APIError as last:
                self.emit("fatal", None, last)
                return False
        except RebyteError as error:  # of what connects to the service
            self.emit("fatal", None, error)
            return False
        except Exception as error:  # a bug of ours must not look like a batch that hangs
            self.emit("crash", None, error)
            return False
        return True


def no_thread() -> RebyteError:
    """The error for a thread that the system refuses to start."""
    return RebyteError("cannot start a thread", hint=MORE_ROOM)


def probe_network(client: RebyteClient, throttle: Throttle, emit: Emit) -> Poller[None]:
    """A poller that asks for nothing but an answer, for as long as something was added."""

    def ask(_things: dict[int, None]) -> None:
        client.list_tasks(limit=1)
        for index in poller.things():
            poller.drop(index)

    def pause(since: float, _count: int) -> float:
        return min(30.0, max(1.0, since / 4))

    poller: Poller[None] = Poller("probe", client, throttle, emit, ask=ask, pause=pause)
    return poller


def watch_tasks(
    client: RebyteClient,
    throttle: Throttle,
    emit: Emit,
    questions: QuestionWatcher | None = None,
    more_to_come: Callable[[], bool] = lambda: False,
) -> Poller[WaitTarget]:
    """A poller of tasks, or prompts of them, that reports each end: ("ended", line, …) or
    ("unreadable", line, …).

    It asks every second while tasks are young and every ten later, through the list where that
    tells enough. Between two rounds, `questions` looks for tasks that wait for an answer. Once all
    do, none is attended to and no `more_to_come`, each is reported: ("unattended", line, error).
    Reports ("used", line, task) as well, when a task is first looked at and whenever what it has
    used changes, or whether it waits for a usage limit.
    """
    seen: dict[str, Any] = {}
    asked: dict[str, int] = {}

    def used(task: Mapping[str, Any]) -> None:
        task_id, news = str(task.get("id")), (task.get("usage"), task.get("resumesAt"))
        if task_id in asked and news != seen.get(task_id):
            seen[task_id] = news
            emit("used", asked[task_id], task)

    poll = Poll(client, used=used)

    def ask(running: dict[int, WaitTarget]) -> None:
        lines = {target: index for index, target in running.items()}
        asked.update((target.task_id, index) for index, target in running.items())
        for target, outcome in poll.round(list(lines)):
            index = lines[target]
            poller.drop(index)
            if isinstance(outcome, TaskEnded):
                emit("ended", index, (outcome.task, outcome.reason))
            elif not isinstance(outcome, RebyteError):
                emit("ended", index, (outcome, ""))
            elif outcome.exit_status == 4:
                emit("ended", index, ({"id": target.task_id, "status": GONE}, ""))
            else:
                emit("unreadable", index, outcome)

    def pause(since: float, count: int) -> float:
        # A few new tasks may be short ones, and asking about them costs a request or two.
        return 0.25 if since < YOUNG and count <= FEW else min(10.0, max(1.0, since / 60))

    def attend(seconds: float) -> None:
        assert questions is not None
        lines = {target.task_id: index for index, target in poller.things().items()}
        # In slices: a batch that ends does not wait for the user.
        unattended = questions.pause(min(seconds, SLICE), lines, more_to_come=more_to_come())
        for task_id, error in unattended.items():
            poller.drop(lines[task_id])
            emit("unattended", lines[task_id], error)

    between = None if questions is None else attend
    poller: Poller[WaitTarget] = Poller(
        "watch", client, throttle, emit, ask=ask, pause=pause, between=between
    )
    return poller
