"""Watching the list of tasks: which run, since when, their last step, and who needs an answer.

The API tells each of these in a different place (a page of the list, the task, its content), and
nothing announces a change. So what began or ended is read at once, side by side. Apart from that,
one request is made at a time, whichever is needed most, and at most `RATE` of them a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ..api.status import is_terminal
from ..api.urls import PAGE
from ..api.views import PageView, Question, text
from ..errors import APIError, KeyRejected, Next, RebyteError, ResourceNotFound, too_busy
from ..system.deadline import NO_LIMIT, Deadline, Patience
from . import questions, transcript
from .list import MOST_READ, Row, Test, passing, with_status
from .parallel import SIDE_BY_SIDE, in_parallel

if TYPE_CHECKING:
    from ..api.client import RebyteClient
    from ..history.history import History

RATE = 2.0  # requests per second at most
REFRESH = 2.0  # seconds between two reads of the list; as many more as it has further pages
LOOK_PAUSE = 3.0  # seconds before the events of the same run are read again
COST = 20  # a run is left alone for so many times as long as reading it took
READ_TIMEOUT = 10.0  # seconds for one request


class WatchedTask:
    """A task of the list, and what is known about its run.

    `status` is None while the end of the run has not been read. `step` is the last thing that the
    run did, `question` the one that it waits on, `began` when its latest prompt was submitted (as
    the service wrote it), `is_new` whether nothing was read since the run began or ended, `error`
    why the last read failed, or "".
    """

    def __init__(self, row: Row) -> None:
        self.row = row
        self.status: str | None = None
        self.step = ""
        self.question: Question | None = None
        self.began: Any = row.get("createdAt")
        self.next_look = 0.0
        self.is_new = True
        self.error = ""

    @property
    def id(self) -> str:
        """The task's id."""
        return str(self.row.get("id"))

    @property
    def has_ended(self) -> bool:
        """Whether its run is over."""
        return bool(self.row.get("completedAt")) or is_terminal(self.status or "")

    @property
    def is_unread(self) -> bool:
        """Whether there is more to know than the list says."""
        return not self.has_ended or self.status is None

    @property
    def record(self) -> dict[str, Any]:
        """The row with `status`, and with `question` where the run waits for an answer."""
        asks = {"question": True} if self.question is not None else {}
        return {**self.row, "status": self.status, **asks}


class TaskWatch:
    """The newest tasks, kept up to date by `step`.

    `tasks` is the newest state, in the order of the list; it is replaced as a whole, so that
    another thread may read it.
    """

    def __init__(
        self,
        client: RebyteClient,
        history: History,
        *,
        most: int,
        tests: Callable[[], Sequence[Test]],
        note: Callable[[str], None],
        deadline: Deadline = NO_LIMIT,
    ) -> None:
        """`most`: how many of the newest tasks to watch. `tests`: made for each read of the list;
        only rows that pass them all are watched (see `list.row_tests`).
        """
        self._client = client
        self._history = history
        self._most = most
        self._tests = tests
        self._note = note
        self._clock = deadline.clock
        self._patience = Patience(
            deadline, longest=10.0, resume="Resume with " + Next("list", "--watch")
        )
        self._fault: APIError | None = None  # of the last request
        self._rows: list[Row] = []  # of the pages read so far
        self._refresh = REFRESH + -(-most // PAGE) - 1
        self._next_refresh = 0.0
        self._list_error = ""
        self.tasks: list[WatchedTask] = []

    @property
    def errors(self) -> dict[str, str]:
        """What could not be read at the last attempt (`the tasks`, `task ID`), and why."""
        errors = {"the tasks": self._list_error} if self._list_error else {}
        return errors | {f"task {task.id}": task.error for task in self.tasks if task.error}

    def begin(self) -> None:
        """Read the list and every status in it, as `rebyte list` does. Raises its errors."""
        while not self._read_page():
            pass
        self._next_refresh = self._clock() + self._refresh
        rows = [task.row for task in self.tasks]
        read = with_status(self._client, self._history, rows, most=MOST_READ, note=self._note)
        for task, row in zip(self.tasks, read, strict=True):
            if isinstance(row, Mapping):
                task.status = row.get("status")
            task.is_new = not task.has_ended

    def step(self) -> float:
        """Make what requests are needed most, if any; returns the seconds until the next.

        That is one request: the list when it is due, an end that is not known, a run's events; or
        the first ones of several runs. One that fails is made again later; see `errors`. Raises
        KeyRejected, and the last error once there was no answer for minutes.
        """
        now = self._clock()
        self._fault = None
        unread = [task for task in self.tasks if task.is_unread and task.next_look <= now]
        if self._rows or now >= self._next_refresh:
            if not self._rows:
                self._next_refresh = now + self._refresh
            self._list_error = self._attempt(self._read_page)
        elif new := self._new()[:SIDE_BY_SIDE]:
            by_id = {task.id: task for task in new}
            for answer in in_parallel(lambda task_id: self._read(by_id[task_id]), list(by_id)):
                if isinstance(answer, RebyteError):
                    raise answer
        elif unread:
            self._read(min(unread, key=lambda task: (not task.has_ended, task.next_look)))
        else:
            return 1 / RATE
        if self._fault is not None:
            if too_busy(self._fault):
                self._patience.failed(self._fault)
            return self._patience.pause()
        self._patience.answered()
        return 0.0 if self._new() else 1 / RATE

    def changes(self, sleep: Callable[[float], None] = time.sleep) -> Iterator[WatchedTask]:
        """Every task, then each one that is new or has another status or question, without end.

        Notes what cannot be read, once until it can be, and when the list can be read again.
        """
        shown: dict[str, object] = {}
        errors: dict[str, str] = {}
        while True:
            for task in self.tasks:
                now = task.record
                names = ("completedAt", "status", "question", "resumesAt")
                state = [now.get(name) for name in names]
                state.append(bool(now.get("queue")))
                if shown.get(task.id) != state and not (task.has_ended and not task.status):
                    shown[task.id] = state
                    yield task
            sleep(self.step())
            known, errors = errors, self.errors
            for what in errors.keys() - known.keys():
                self._note(f"Cannot read {what}: {errors[what]}")
            if "the tasks" in known and "the tasks" not in errors:
                self._note("Reading the tasks again")

    def _new(self) -> list[WatchedTask]:
        return [task for task in self.tasks if task.is_new and task.is_unread]

    def _read(self, task: WatchedTask) -> None:
        """Read how a run ended, or what it does."""
        task.is_new = False
        read = self._read_end if task.has_ended else self._look_at
        task.error = self._attempt(partial(read, task))

    def _attempt(self, request: Callable[[], object]) -> str:
        """The message of the error that the request ended with, or "". Raises KeyRejected."""
        try:
            request()
        except KeyRejected:
            raise
        except APIError as error:
            self._fault = error
            return error.sentence
        return ""

    def _read_page(self) -> bool:
        """Read the next page of the list; True if it was the last, so that `tasks` is new."""
        before = len(self._rows)
        limit = min(PAGE, self._most - before)
        page = PageView(self._client.list_tasks(limit, before, timeout=READ_TIMEOUT))
        self._rows += page.rows
        if len(page.rows) == limit and len(self._rows) < self._most:
            return False
        rows, self._rows = self._rows, []
        self._update(rows)
        return True

    def _update(self, rows: Sequence[Row]) -> None:
        known = {task.id: task for task in self.tasks}
        found: dict[str, WatchedTask] = {}
        for row in passing(rows, self._tests()):
            old, task = known.get(str(row["id"])), WatchedTask(row)
            if old is not None and old.row.get("completedAt") == row.get("completedAt"):
                old.row = row
                task = old
            elif row.get("status"):  # not sent today (vendor docs)
                task.status = str(row["status"])
            elif not row.get("completedAt"):
                task.status = "running"
            found[task.id] = task
        self._history.remember_shown(task.row for task in found.values() if task.id not in known)
        self.tasks = list(found.values())

    def _read_end(self, task: WatchedTask) -> None:
        """Read how a run ended."""
        task.next_look = self._clock() + LOOK_PAUSE  # also if it fails, as in `_look_at`
        try:
            read = self._client.get_task(task.id, timeout=READ_TIMEOUT)
        except ResourceNotFound:  # deleted; the next page leaves it out
            task.status = "deleted"
            return
        task.status = text(read.get("status")) or "unknown"
        self._history.remember_shown([{**task.row, **read}])

    def _look_at(self, task: WatchedTask) -> None:
        """Read what a run does, and whether it waits for an answer."""
        began = self._clock()
        task.next_look = began + LOOK_PAUSE  # also if it fails, so that others have their turn
        try:
            content = questions.read(self._client, task.id, timeout=READ_TIMEOUT)
        except ResourceNotFound:
            return
        question = questions.open_question(content)
        if question is not None and self._history.was_answered(question.message_id):
            question = None
        task.question = question
        now = self._clock()
        task.next_look = now + max(LOOK_PAUSE, COST * (now - began))
        if started := [prompt for prompt in content.prompts if prompt.has_started]:
            task.began = started[-1].submitted_at or task.began
            task.step = transcript.last_step(started[-1].events)
