"""A thread that asks about a changing set of lines, round after round."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from random import random
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..errors import APIError
from ..tasks.wait import Poll, Target, too_busy
from .state import GONE
from .throttle import Stopped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..api.client import RebyteClient
    from .throttle import Throttle

FRESH = 3.0  # seconds
FEW = 10
T = TypeVar("T")
Report = Callable[..., None]


class Poller(Generic[T]):
    """Calls `ask` with what is to be asked about, and again until everything was dropped.

    `pause` gives the seconds to the next round, from the seconds since something was added and
    the number of things asked about.
    A fault of the network closes `gate` until a round succeeds; other errors, and a service that
    never answered at all, are given to `report` as "fatal".
    """

    def __init__(
        self,
        name: str,
        client: RebyteClient,
        gate: Throttle,
        report: Report,
        *,
        ask: Callable[[dict[int, T]], None],
        pause: Callable[[float, int], float],
    ) -> None:
        self._name = name
        self._client = client
        self._gate = gate
        self._report = report
        self._ask = ask
        self._pause = pause
        self._things: dict[int, T] = {}
        self._change = threading.Condition()
        self._added = 0.0
        self._stopped = False
        self._thread: threading.Thread | None = None

    def add(self, at: int, thing: T) -> None:
        """Ask about one more, from the next round on."""
        with self._change:
            self._things[at] = thing
            self._added = time.monotonic()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            if len(self._things) == 1:
                self._change.notify()

    def drop(self, at: int) -> None:
        """Ask about it no more."""
        with self._change:
            self._things.pop(at, None)

    def stop(self) -> None:
        """Begin no further round; one that is under way may go on, and is not listened to."""
        with self._change:
            self._stopped = True
            self._change.notify()

    def _run(self) -> None:
        while True:
            with self._change:
                while not self._things and not self._stopped:
                    self._change.wait()
                if self._stopped:
                    return
                things, added = dict(self._things), self._added
            began = time.monotonic()
            try:
                self._ask(things)
                self._gate.answered()
            except Stopped:
                return
            except APIError as error:
                known = self._client.transport.server_now() is not None
                if not (too_busy(error) and known):
                    self._report("fatal", None, error)
                    return
                self._gate.lost(error.message)
            except Exception as error:
                self._report("crash", None, error)
                return
            with self._change:
                # Counted from the beginning of the round, so that slow answers do not stretch it.
                due = began + self._pause(began - added, len(things)) * (0.8 + 0.2 * random())  # noqa: S311 -- spreads load
                left = due - time.monotonic()
                while left > 0 and not self._stopped:
                    self._change.wait(left)
                    left = due - time.monotonic()


def watching(client: RebyteClient, gate: Throttle, report: Report) -> Poller[str]:
    """Rounds that report each task's end: ("ended", line, task) or ("unreadable", line, error).

    Asked every second while tasks are young, later every ten, through the list where it tells.
    """
    poll = Poll(client)

    def ask(running: dict[int, str]) -> None:
        lines = {task_id: at for at, task_id in running.items()}
        for target, outcome in poll.round([Target(task_id) for task_id in lines]):
            at = lines[target.task_id]
            rounds.drop(at)
            task: Mapping[str, Any] | None = getattr(outcome, "task", None)
            if task is None and isinstance(outcome, APIError):
                if outcome.exit_status != 4:
                    report("unreadable", at, outcome)
                    continue
                task = {"id": target.task_id, "status": GONE}
            report("ended", at, outcome if task is None else task)

    def pause(since: float, count: int) -> float:
        # A few new ones may be quick ones, and cost a request or two.
        return 0.25 if since < FRESH and count <= FEW else min(10.0, max(1.0, since / 60))

    rounds: Poller[str] = Poller("watch", client, gate, report, ask=ask, pause=pause)
    return rounds
