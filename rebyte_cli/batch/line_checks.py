"""The threads that check what the tasks of a batch did, and tell a task what a check said."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..errors import RebyteError
from .state import Emit

if TYPE_CHECKING:
    from ..tasks.answer_schema import AnswerSchema
    from ..tasks.verdict import RunVerdict

MOST_THREADS = 4


class CheckJob(NamedTuple):
    """A line whose task has ended, the document of that task, and what was sent for it.

    `schema` is what its answer must fit, if anything.
    """

    line: int
    task: Mapping[str, Any]
    body: Mapping[str, Any]
    schema: AnswerSchema | None


class MendJob(NamedTuple):
    """A prompt for the task of a line, and the key under which it is sent at most once."""

    line: int
    task_id: str
    prompt: str
    key: str


class LineChecks(Protocol):
    """How the tasks of a batch are examined. Called by several threads."""

    @property
    def tries(self) -> int:
        """How many runs of a task are examined at most."""

    def examine(self, job: CheckJob, stopped: Callable[[], bool]) -> RunVerdict:
        """Find out what the task of a line comes to. Ends soon after `stopped` says so."""

    def mend(self, task_id: str, prompt: str, key: str) -> str:
        """Send the prompt to the task, at most once for this key; the id of that prompt.

        Raises RebyteError, with status 6 if it cannot be known whether it was sent.
        """

    def base(self, body: Mapping[str, Any]) -> str | None:
        """The commit that a task with this body starts from; None if it is not known here."""


class CheckPool:
    """Carries out jobs, a few at a time, and reports each: "checked", "mended" or "unmended"."""

    def __init__(self, checks: LineChecks, emit: Emit) -> None:
        self._checks = checks
        self._emit = emit
        self._jobs: SimpleQueue[CheckJob | MendJob | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._stopped = threading.Event()

    @property
    def tries(self) -> int:
        """How many runs of a task are examined at most."""
        return self._checks.tries

    def put(self, job: CheckJob | MendJob) -> None:
        """Carry out a job when there is a thread for it."""
        if len(self._threads) < min(MOST_THREADS, os.cpu_count() or 1):
            name = f"check-{len(self._threads) + 1}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            try:
                thread.start()
            except RuntimeError:
                if not self._threads:
                    error = RebyteError("cannot start a thread", code="out_of_memory")
                    self._emit("fatal", None, error)
            else:
                self._threads.append(thread)
        self._jobs.put(job)

    def stop(self) -> None:
        """Begin nothing more, and end the checks under way."""
        self._stopped.set()
        for _ in self._threads:
            self._jobs.put(None)

    def join(self, seconds: float) -> None:
        """Wait until the threads have ended, but no longer than so many seconds each."""
        for thread in self._threads:
            thread.join(seconds)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None and not self._stopped.is_set():
            try:
                self._carry_out(job)
            except RebyteError as error:
                is_check = isinstance(job, CheckJob)
                self._emit("uncheckable" if is_check else "unmended", job.line, error)
            except Exception as error:  # a bug of ours must not look like a batch that hangs
                self._emit("crash", None, error)
                return

    def _carry_out(self, job: CheckJob | MendJob) -> None:
        if isinstance(job, MendJob):
            self._emit("mended", job.line, self._checks.mend(job.task_id, job.prompt, job.key))
            return
        verdict = self._checks.examine(job, self._stopped.is_set)
        if not self._stopped.is_set():
            self._emit("checked", job.line, (job.task, verdict))
