"""The workers of a batch: each notes a line in the journal, sends its create, notes the result."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

from ..api.errors import OUT_OF_MEMORY
from ..deadline import Deadline
from ..errors import (
    APIError,
    KeyRejected,
    NetworkError,
    RebyteError,
    Redirected,
    Unsent,
)
from ..once.clock import ServerClock
from ..once.search import is_lost
from .events import Report
from .input import Input, InputLine
from .poller import MORE_ROOM, no_thread
from .state import Record, created_record, refused_record
from .throttle import Throttle, ThrottleStopped

if TYPE_CHECKING:
    from ..api.client import RebyteClient
    from .baseline import Baseline
    from .journal import Journal
    from .reservations import Reservations

FAULTS_IN_A_ROW = 4  # of the service, before creates are slowed down
Upload = Callable[[str], dict[str, Any]]  # a path to {"id", "filename"}


class Job(NamedTuple):
    """A line to create, by its index, and the workspace it uses (None for a new one)."""

    line: int
    workspace: str | None


class WorkerPool:
    """Up to `count` threads that create what `put` hands them, and report what became of it.

    `in_flight` holds the lines whose creates were sent or are about to be. The workers add a
    line, and take it out if it was certainly not sent; otherwise the reader of the reports does.
    The id of a new task is in `known` before its line is reported.
    """

    def __init__(
        self,
        client: RebyteClient,
        batch: Input,
        journal: Journal,
        reservations: Reservations,
        throttle: Throttle,
        report: Report,
        *,
        count: int,
        upload: Upload,
        baseline: Baseline,
        clock: ServerClock,
    ) -> None:
        self._client = client
        self._batch = batch
        self._journal = journal
        self._reservations = reservations
        self._throttle = throttle
        self._report = report
        self._count = count
        self._upload = CallOnce(upload)
        self._baseline = baseline
        self._server_clock = clock
        self._turn = threading.Lock()
        self._faults = 0  # creates in a row that failed inside the service
        self._threads: list[threading.Thread] = []
        self.jobs: SimpleQueue[Job | None] = SimpleQueue()
        self.in_flight: set[int] = set()
        self.known: set[str] = set()

    # For the main thread

    def put(self, job: Job) -> None:
        """Have a line created as soon as a worker is free."""
        if not self._threads:
            # What every worker needs: later there may be no memory or no open file to import it.
            from ..api import connection  # noqa: F401
        self.jobs.put(job)
        if len(self._threads) < self._count:
            name = f"create-{len(self._threads) + 1}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            try:
                thread.start()
            except (RuntimeError, MemoryError):  # no memory, or too many threads for this user
                self._count = len(self._threads)
                if not self._threads:
                    self._fatal(job, no_thread())
            else:
                self._threads.append(thread)

    def take_back(self) -> list[Job]:
        """The jobs that no worker has begun, so that none will."""
        left: list[Job] = []
        while True:
            try:
                job = self.jobs.get_nowait()
            except Empty:
                return left
            if job is not None:
                left.append(job)

    def stop(self) -> None:
        """Let each worker end when its create has ended. `join` waits for them."""
        for _ in self._threads:
            self.jobs.put(None)

    def join(self, seconds: float) -> None:
        """Wait until the workers have ended, but no longer than so many seconds."""
        limit = Deadline(seconds)
        for thread in self._threads:
            thread.join(limit.left())

    # A worker

    def _work(self) -> None:
        while (job := self._next_job()) is not None:
            try:
                self._throttle.admit(job)
                self._create(job)
            except ThrottleStopped:
                self._report("unsent", job.line, None)
            except RebyteError as error:  # of the journal, the key or the address
                self._fatal(job, error)
            except MemoryError:
                self._fatal(job, RebyteError("out of memory", hint=MORE_ROOM))
            except Exception as error:  # a bug of ours must not look like a batch that hangs
                self._report("crash", job.line, error)
            finally:
                self._throttle.done(job)

    def _next_job(self) -> Job | None:
        # In one step, or a slow worker would let later lines queue before its own.
        with self._turn:
            job = self.jobs.get()
            if job is not None:
                self._throttle.queue(job)
        return job

    def _create(self, job: Job) -> None:
        line = self._batch.lines[job.line]
        body = self._batch.body(line)
        if job.workspace is not None:
            body["workspaceId"] = job.workspace
        try:
            self._baseline.ask()
            if line.paths:
                body["files"] = [*body.get("files", ()), *map(self._upload, line.paths)]
        except (KeyRejected, Redirected):
            raise
        except NetworkError as error:
            self._unreachable(job, error)
        except RebyteError as error:
            self._refused(job, line.number, error)
        else:
            self._send(job, line, body)

    def _send(self, job: Job, line: InputLine, body: dict[str, Any]) -> None:
        """Send the create of a line, with a record on the disk before and another one after."""
        record = self._baseline.sending_record(line.number)
        self._reservations.add(line.number, body["prompt"], record["at"])
        self._journal.commit(record)
        self.in_flight.add(job.line)
        try:
            task = self._client.create_from(body)
        except (ThrottleStopped, KeyRejected, Redirected):
            self._note_unsent(job, line)
            raise
        except Unsent as error:
            self._note_unsent(job, line)
            self._unreachable(job, error)
        except RebyteError as error:
            if is_lost(error):
                self._lost(job, error, record)
            elif isinstance(error, APIError) and error.status_code == 429:
                self._note_unsent(job, line)
                self._throttle.network_answered()
                why = "The service turns creates away (429)"
                self._throttle.slow_down(why, error.retry_after)
                self._report("unsent", job.line, None)
            else:
                self._refused(job, line.number, error)
        else:
            self.known.add(task["id"])
            self._server_clock.observe(task.get("createdAt"), record["at"])
            self._throttle.accepted()
            self._faults = 0
            try:
                self._journal.append(created_record(line.number, task))
            finally:  # a task that no journal names is at least printed
                self._report("created", job.line, (body, task))

    def _note_unsent(self, job: Job, line: InputLine) -> None:
        self.in_flight.discard(job.line)
        self._journal.append({"line": line.number, "is": "unsent"})

    # Outcomes of a create

    def _lost(self, job: Job, error: RebyteError, record: Record) -> None:
        """The create went out, and it is not known whether it made a task."""
        status = error.status_code if isinstance(error, APIError) else None
        retry_after = error.retry_after if isinstance(error, APIError) else None
        if status == 503 or retry_after is not None:
            self._throttle.slow_down(f"The service is not available ({status})", retry_after)
        elif status is not None:  # another answer of a gateway
            self._count_fault()
        elif self._throttle.network_is_down:
            self._throttle.network_lost(error.message, job)
        self._report("lost", job.line, record)

    def _refused(self, job: Job, number: int, error: RebyteError) -> None:
        """The line cannot be created as it is, or the service failed to."""
        if isinstance(error, NetworkError):
            self._throttle.network_answered()
            self._count_fault()
        elif isinstance(error, APIError):
            self._throttle.accepted()
        try:
            self._journal.append(refused_record(number, error))
        finally:
            self._report("refused", job.line, error)

    def _count_fault(self) -> None:
        """Slow down when every worker has met a fault of the service since the last success."""
        self._faults += 1
        if self._faults >= max(self._count, FAULTS_IN_A_ROW):
            self._throttle.slow_down("The service fails at every create")

    def _unreachable(self, job: Job, error: APIError) -> None:
        """Nothing was sent. A service that never answered has a wrong address."""
        if self._client.transport.server_now() is None or error.code == OUT_OF_MEMORY:
            self._fatal(job, error)
        else:
            self._throttle.network_lost(error.message, job)
            self._report("unsent", job.line, None)

    def _fatal(self, job: Job, error: RebyteError) -> None:
        # At once: by the time the report is read, others would be on their way.
        self._throttle.stop_creates()
        self._report("fatal", job.line, error)


class CallOnce:
    """`call(path)` at most once for each path; concurrent callers wait for the same answer."""

    def __init__(self, call: Upload) -> None:
        self._call = call
        self._guard = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._answers: dict[str, dict[str, Any]] = {}

    def __call__(self, path: str) -> dict[str, Any]:
        with self._guard:
            lock = self._locks.setdefault(path, threading.Lock())
        with lock:
            if path not in self._answers:
                self._answers[path] = self._call(path)
            return self._answers[path]
