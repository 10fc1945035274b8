"""The workers of a batch: each takes a line, notes it in the journal, sends it, notes the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import (
    APIError,
    KeyRejected,
    NetworkError,
    OutcomeUnknown,
    RebyteError,
    Redirected,
    Unsent,
)
from ..tasks.search import is_lost
from .input import Input
from .poller import Report
from .state import created_record, refused_record
from .throttle import Stopped, Throttle

if TYPE_CHECKING:
    from ..api.client import RebyteClient
    from .claims import Reservations
    from .journal import Journal

ENOUGH = 4  # faults of the service in a row before creates are slowed down
Upload = Callable[[str], dict[str, Any]]  # a path to {"id", "filename"}


class Job(NamedTuple):
    """A line to create, and the workspace it uses (None for a new one)."""

    at: int
    workspace: str | None


class WorkerPool:
    """`count` threads that create what comes through `jobs`; None ends one of them.

    Reports ("created", line, (body, task)), ("refused", line, error), ("unsent", line, None),
    ("lost", line, when it was sent), and "fatal" with an error that ends the batch. `flying` are
    the lines whose creates are under way: a line is put in here and taken out by who reads the
    reports. Ids of tasks are in `known` before the line is reported.
    """

    def __init__(
        self,
        client: RebyteClient,
        batch: Input,
        journal: Journal,
        claims: Reservations,
        gate: Throttle,
        report: Report,
        *,
        count: int,
        upload: Upload,
    ) -> None:
        self._client = client
        self._batch = batch
        self._journal = journal
        self._claims = claims
        self._gate = gate
        self._report = report
        self._count = count
        self._upload = Once(upload)
        self._time = (float("-inf"), datetime.now(UTC))
        self._turn = threading.Lock()
        self._faults = 0  # creates in a row that failed inside the service
        self._threads: list[threading.Thread] = []
        self.jobs: SimpleQueue[Job | None] = SimpleQueue()
        self.flying: set[int] = set()
        self.known: set[str] = set()

    def put(self, job: Job) -> None:
        """Have a line created as soon as a worker is free."""
        self.jobs.put(job)
        if len(self._threads) < self._count:
            name = f"create-{len(self._threads) + 1}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def take_back(self) -> list[Job]:
        """The jobs that no worker has begun, so that none will."""
        from queue import Empty

        left: list[Job] = []
        while True:
            try:
                job = self.jobs.get_nowait()
            except Empty:
                return left
            if job is not None:
                left.append(job)

    def end(self) -> None:
        """Let the workers go, each when its create has ended."""
        for _ in self._threads:
            self.jobs.put(None)

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                self._one(job)
            except Stopped:
                self._report("unsent", job.at, None)
            except RebyteError as error:  # of the journal, the key or the address
                self._fatal(job, error)
            except Exception as error:  # a mistake of ours must not look like a hanging batch
                self._report("crash", job.at, error)

    def _next(self) -> Job | None:
        # In one step, or a worker that is slow would let the lines behind its own go first.
        with self._turn:
            job = self.jobs.get()
            if job is not None:
                self._gate.queue(job)
        return job

    def _one(self, job: Job) -> None:
        self._gate.admit(job)
        line = self._batch.lines[job.at]
        body = self._batch.body(line)
        if job.workspace is not None:
            body["workspaceId"] = job.workspace
        try:
            if line.paths:
                files = [*body.get("files", ()), *map(self._upload, line.paths)]
                body["files"] = files
        except (KeyRejected, Redirected):
            raise
        except NetworkError as error:
            self._unreachable(job, error)
            return
        except RebyteError as error:
            self._refused(job, line.number, error)
            return
        sent = self._now()
        self.flying.add(job.at)
        self._claims.want(line.number, body["prompt"], sent)
        self._journal.commit({"line": line.number, "is": "sending", "at": sent})
        try:
            task = self._client.create_from(body)
        except Stopped:
            self._journal.append({"line": line.number, "is": "unsent"})
            raise
        except (KeyRejected, Redirected):
            self._journal.append({"line": line.number, "is": "unsent"})
            raise
        except Unsent as error:
            self._journal.append({"line": line.number, "is": "unsent"})
            self._unreachable(job, error)
        except (OutcomeUnknown, NetworkError) as error:
            if not is_lost(error):
                self._refused(job, line.number, error)
                self._faults += 1
                if self._faults >= max(self._count, ENOUGH):
                    self._gate.slow_down("The service fails at every create")
                return
            if self._gate.is_down:
                self._gate.lost(error.message)
            self._report("lost", job.at, sent)
        except RebyteError as error:
            if isinstance(error, APIError) and error.status_code == 429:
                self._journal.append({"line": line.number, "is": "unsent"})
                self._gate.answered()
                self._gate.slow_down("The service turns creates away (429)")
                self._report("unsent", job.at, None)
                return
            self._refused(job, line.number, error)
        else:
            self.known.add(task["id"])
            self._gate.passed()
            self._faults = 0
            try:
                self._journal.append(created_record(line.number, task))
            finally:  # a task that no journal names is at least printed
                self._report("created", job.at, (body, task))

    def _fatal(self, job: Job, error: RebyteError) -> None:
        self._gate.shut()  # at once: by the time the report is read, others would be on their way
        self._report("fatal", job.at, error)

    def _refused(self, job: Job, number: int, error: RebyteError) -> None:
        if isinstance(error, APIError):
            self._gate.answered()
        elif self._gate.is_down:  # a file that is gone says nothing about the network
            self._gate.lost(error.message)
        try:
            self._journal.append(refused_record(number, error))
        finally:
            self._report("refused", job.at, error)

    def _unreachable(self, job: Job, error: APIError) -> None:
        """Nothing was sent. A service that never answered is a wrong address, not a fault."""
        if self._client.transport.server_now() is None:
            self._fatal(job, error)
        else:
            self._gate.lost(error.message)
            self._report("unsent", job.at, None)

    def _now(self) -> str:
        """The server's time, or ours until it told its own; asked anew once a second."""
        here = time.monotonic()
        mark, then = self._time
        if here - mark >= 1:
            server = self._client.transport.server_now()
            mark, then = here, server or datetime.now(UTC)
            if server is not None:
                self._time = mark, then
        return (then + timedelta(seconds=here - mark)).isoformat(timespec="milliseconds")


class Once:
    """`call(word)` at most once for each word; others that ask meanwhile wait for the answer."""

    def __init__(self, call: Upload) -> None:
        self._call = call
        self._guard = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._answers: dict[str, dict[str, Any]] = {}

    def __call__(self, word: str) -> dict[str, Any]:
        with self._guard:
            lock = self._locks.setdefault(word, threading.Lock())
        with lock:
            if word not in self._answers:
                self._answers[word] = self._call(word)
            return self._answers[word]
