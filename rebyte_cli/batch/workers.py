"""The workers of a batch: each notes a line in the journal, sends its create, notes the result."""

from __future__ import annotations

import math
import resource
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

from ..api.failures import OUT_OF_MEMORY
from ..api.ssh import NO_SERVICE
from ..errors import (
    APIError,
    BudgetRefused,
    KeyRejected,
    NetworkError,
    RebyteError,
    Redirected,
    Unsent,
)
from ..once.scan import current_baseline, is_lost
from ..once.server_clock import Baseline, ServerClock
from ..system.deadline import Deadline
from .input import Input, InputLine
from .journal_format import Record
from .poller import MORE_ROOM, no_thread
from .state import Emit, created_record, refused_record
from .throttle import Throttle, ThrottleStopped

if TYPE_CHECKING:
    from ..api.client import RebyteClient
    from ..history.rows import NewTask
    from ..once.ledger import Ledger
    from .journal import Journal


FAULTS_IN_A_ROW = 4  # of the service, before creates are slowed down
Upload = Callable[[str], dict[str, Any]]  # a path to {"id", "filename"}
SPARE_CONNECTIONS = 12  # for the watch and the search, beside the one of each create
SPARE_FILES = 48  # open files beside those connections: the journal, the history, the input, …
# Open files per connection to the service in this process: two ends, its database and journal.
FILES_OF_LOCAL = 4
SPARE_MEMORY = 320 << 20  # bytes of address space beside the threads that create
ARENA = 64 << 20  # bytes that glibc reserves for the memory of a thread
STACK = 8 << 20  # ... and for its stack, unless there is a limit


class Job(NamedTuple):
    """A line to create, by its index, and the workspace it uses (None for a new one)."""

    line: int
    workspace: str | None


@dataclass(eq=False)
class WorkerPool:
    """Up to `count` threads that create what `put` hands them, and report what became of it.

    The workers tell the ledger what they send, and what was certainly not sent; what else becomes
    of a line, the reader of the events does. The ledger has a task before its line is reported.
    """

    client: RebyteClient
    batch: Input
    journal: Journal
    ledger: Ledger
    throttle: Throttle
    emit: Emit
    _: KW_ONLY
    count: int
    upload: Upload
    baseline: RunBaseline
    new_task: Callable[[InputLine, Mapping[str, Any], Mapping[str, Any]], NewTask]

    def __post_init__(self) -> None:
        self._upload_once = CallOnce(self.upload)
        self._turn = threading.Lock()
        self._faults = 0  # creates in a row that failed inside the service
        self._threads: list[threading.Thread] = []
        self.more: Mapping[str, Any] = {}  # fields of every create
        self.answered: list[str] = []  # ids of tasks that creates of this run were answered with
        self.jobs: SimpleQueue[Job | None] = SimpleQueue()

    # For the main thread

    def put(self, job: Job) -> None:
        """Have a line created as soon as a worker is free."""
        if not self._threads:
            # What every worker needs: later there may be no memory or no open file to import it.
            from ..api import connection  # noqa: F401
        self.jobs.put(job)
        if len(self._threads) < self.count:
            name = f"create-{len(self._threads) + 1}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            try:
                thread.start()
            except (RuntimeError, MemoryError):  # no memory, or too many threads for this user
                self.count = len(self._threads)
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
                self.throttle.admit(job)
                self._create(job)
            except ThrottleStopped:
                self.emit("unsent", job.line, None)
            except RebyteError as error:  # of the journal, the key or the address
                self._fatal(job, error)
            except MemoryError:
                self._fatal(job, RebyteError("out of memory", hint=MORE_ROOM))
            except Exception as error:  # a bug of ours must not look like a batch that hangs
                self.emit("crash", job.line, error)
            finally:
                self.throttle.done(job)

    def _next_job(self) -> Job | None:
        # In one step, or a slow worker would let later lines queue before its own.
        with self._turn:
            job = self.jobs.get()
            if job is not None:
                self.throttle.queue(job)
        return job

    def _create(self, job: Job) -> None:
        line = self.batch.lines[job.line]
        body = self.batch.body(line)
        body.update(self.more)
        if job.workspace is not None:
            body["workspaceId"] = job.workspace
        try:
            self.baseline.ask()
            if line.paths:
                body["files"] = [*body.get("files", ()), *map(self._upload_once, line.paths)]
        except (KeyRejected, Redirected):
            raise
        except NetworkError as error:
            self._unreachable(job, error)
        except RebyteError as error:
            if error.code in NO_SERVICE:
                raise
            self._refused(job, line.number, error)
        else:
            self._send(job, line, body)

    def _send(self, job: Job, line: InputLine, body: dict[str, Any]) -> None:
        """Send the create of a line, with a record on the disk before and another one after."""
        record = self.baseline.sending_record(line.number)
        self.ledger.reserve(line.number, body["prompt"], record["at"])
        self.journal.commit(record)
        self.ledger.sending(line.number)
        try:
            task = self.client.create_from(body)
        except (ThrottleStopped, KeyRejected, Redirected, BudgetRefused):
            self._note_unsent(line)
            raise
        except Unsent as error:
            self._note_unsent(line)
            self._unreachable(job, error)
        except RebyteError as error:
            if is_lost(error):
                self._lost(job, error, record)
            elif isinstance(error, APIError) and error.status_code == 429:
                self._note_unsent(line)
                self.throttle.network_answered()
                why = "The service turns creates away (429)"
                self.throttle.slow_down(why, error.retry_after)
                self.emit("unsent", job.line, None)
            else:
                self._refused(job, line.number, error)
        else:
            is_taken = self.ledger.claim(task["id"])
            self.answered.append(task["id"])
            self.throttle.accepted()
            self._faults = 0
            try:
                self.ledger.answered(line.number, self.new_task(line, task, body))
                self.journal.append(created_record(line.number, task))
            finally:  # a task that no journal names is at least printed
                self.emit("created", job.line, (task, is_taken))

    def _note_unsent(self, line: InputLine) -> None:
        self.ledger.unsent(line.number)
        self.journal.append({"line": line.number, "is": "unsent"})

    # Outcomes of a create

    def _lost(self, job: Job, error: APIError, record: Record) -> None:
        """The create went out, and it is not known whether it made a task."""
        status, retry_after = error.status_code, error.retry_after
        if status == 503 or retry_after is not None:
            self.throttle.slow_down(f"The service is not available ({status})", retry_after)
        elif status is not None:  # another answer of a gateway
            self._count_fault()
        else:
            self.throttle.probe_lost(job)
        self.emit("lost", job.line, record)

    def _refused(self, job: Job, number: int, error: RebyteError) -> None:
        """The line cannot be created as it is, or the service failed to."""
        if isinstance(error, NetworkError):
            self.throttle.network_answered()
            self._count_fault()
        elif isinstance(error, APIError):
            self.throttle.accepted()
        try:
            self.journal.append(refused_record(number, error))
        finally:
            self.emit("refused", job.line, error)

    def _count_fault(self) -> None:
        """Slow down when every worker has met a fault of the service since the last success."""
        self._faults += 1
        if self._faults >= max(self.count, FAULTS_IN_A_ROW):
            self.throttle.slow_down("The service fails at every create")

    def _unreachable(self, job: Job, error: APIError) -> None:
        """Nothing was sent. A service that never answered has a wrong address."""
        may_answer = self.client.transport.has_answered or self.throttle.has_others
        if not may_answer or error.code == OUT_OF_MEMORY:
            self._fatal(job, error)
        else:
            self.throttle.network_lost(error, job)
            self.emit("unsent", job.line, None)

    def _fatal(self, job: Job, error: RebyteError) -> None:
        # At once: by the time the event is read, others would be on their way.
        self.throttle.stop_creates()
        self.emit("fatal", job.line, error)


class RunBaseline:
    """What the service says before the first create of a run: its time, and where its list stands.

    Without its time, creates would be journaled in local time, which a wrong clock makes useless.
    Thread-safe.
    """

    def __init__(self, client: RebyteClient, clock: ServerClock, place: str | None = None) -> None:
        """`place` is the name of this service in the journal, if several have lines."""
        self._client = client
        self._clock = clock
        self._place = {} if place is None else {"place": place}
        self._lock = threading.Lock()
        self._is_known = False
        self._before: Baseline | None = None

    def ask(self) -> None:
        """Ask the service, unless it has been asked. Raises Unsent if it cannot be reached."""
        with self._lock:
            if self._is_known:
                return
            try:
                self._before = current_baseline(self._client)
            except APIError as error:  # any answer tells the time; what is wrong, the create says
                if isinstance(error, Unsent):
                    raise
            self._is_known = True

    def sending_record(self, number: int) -> Record:
        """The record of a line that is about to be sent."""
        at = self._clock.timestamp(self._before)
        return {"line": number, "is": "sending", "at": at, **self._place}


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


# How many workers there can be


def affordable_jobs(jobs: int, *, has_files: bool, is_local: bool) -> tuple[int, str]:
    """Return how many of so many jobs can run, and what there is too little of for more.

    `has_files`: lines name files to upload. `is_local`: the service is in this process.
    """
    files = FILES_OF_LOCAL if is_local else 1  # open files per connection
    spare = SPARE_CONNECTIONS * files + SPARE_FILES
    each = files + has_files  # an upload reads a file
    stack, _ = _limits("RLIMIT_STACK")
    memory = ARENA + (STACK if stack == math.inf else stack)  # that a thread takes at most
    memory *= 2 if is_local else 1  # the service has a thread as well
    lacking = {
        "open files (ulimit -n)": (_file_limit(each * jobs + spare) - spare) // each,
        "memory (ulimit -v)": (_limits("RLIMIT_AS")[0] - SPARE_MEMORY) // memory,
    }
    lack = min(lacking, key=lambda what: lacking[what])
    return jobs if lacking[lack] >= jobs else max(1, int(lacking[lack])), lack


def _file_limit(wanted: int) -> float:
    """How many files this process may have open, after raising the soft limit if needed."""
    soft, hard = _limits("RLIMIT_NOFILE")
    if soft < wanted:
        raised = min(wanted, hard)
        with suppress(OSError, ValueError):
            before = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (int(raised), before[1]))
            return raised
    return soft


def _limits(name: str) -> tuple[float, float]:
    """The soft and the hard limit of a resource; infinite where the system knows none."""
    if not hasattr(resource, name):  # of memory, on OpenBSD
        return math.inf, math.inf
    soft, hard = resource.getrlimit(getattr(resource, name))
    unlimited = resource.RLIM_INFINITY
    return math.inf if soft == unlimited else soft, math.inf if hard == unlimited else hard
