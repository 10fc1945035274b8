"""The places where lines of a batch run: each a service, with its own client and pace.

Most batches have one. What a service asks for, a lost network, a usage limit and the number of
running tasks concern one place; the others take the lines meanwhile.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..errors import RebyteError
from ..once.search import PACE, Pace
from ..once.server_clock import ServerClock
from .input import Input, InputLine, Plan
from .lost_lines import LostLineSearch, search_lost
from .poller import Poller, probe_network, watch_tasks
from .state import BatchEvent, Emit, EventKind, LineTable
from .workers import RunBaseline, WorkerPool

if TYPE_CHECKING:
    from ..api.client import RebyteClient
    from ..history.history import History
    from ..history.rows import NewTask
    from ..once.ledger import Ledger
    from ..tasks.answer_schema import AnswerSchema
    from ..tasks.budget import Budget, Priced
    from ..tasks.question_watch import QuestionWatcher
    from ..tasks.verdict import RunVerdict
    from .journal import Journal
    from .throttle import Throttle

AT_WORK = ("running", "limited", "checking", "mending")  # states of lines with a task
BUSY = ("queued", "lost", *AT_WORK)  # ... and of all that a run waits for
# ... and of lines whose tasks may run. A create that may have made one counts as its task.
COUNTED = (*BUSY, "unknown")
MOST_THREADS = 4  # that check
AROUND = -1  # what the probe of the network asks about
SEND_AGAIN_AFTER = 900.0  # seconds; the same as for `create --once`


class BatchOptions(NamedTuple):
    """How a batch is to run. Times in seconds.

    `jobs` is how many creates may be under way at a time, and `max_running` how many lines may have
    a task that runs, counting creates under way and those whose outcome is not known (None: any).
    `pace` is how lost creates are searched for. `budget` is what the tasks of all runs of this
    journal may use together (None: any amount); with `limits_runs`, the service is told, which ends
    tasks that run when they have used it up. `is_exact`: the service is known to show prompts as
    they were sent, as that on this machine does. `fresh`: every line runs again. `title` is what
    its pages call the batch.
    """

    jobs: int = 8
    wait: bool = True
    timeout: float | None = None
    fail_fast: bool = False
    retry_failed: bool = False
    fresh: bool = False
    send_again_after: float = SEND_AGAIN_AFTER
    pace: Pace = PACE
    max_running: int | None = None
    budget: Budget | None = None
    limits_runs: bool = False
    is_exact: bool = False
    title: str = "batch"


@dataclass(eq=False)
class BatchPlace:
    """A service where lines may run. `name` is that of its profile, and `origin` is its history's.

    `connect` makes a client with these options of `api.transport.Transport`. `own` are the
    `BatchOptions` that differ here, and `defaults` fields that lines have here unless they set
    them. `located` adds its workspace to a task where that is known. With `is_local`, the service
    is in this process. `checks` decide whether tasks that completed are done, and `questions`
    notices those that wait for an answer.
    """

    name: str
    origin: str
    connect: Callable[..., RebyteClient]
    history: History
    is_local: bool = False
    own: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    located: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict
    checks: LineChecks | None = None
    questions: QuestionWatcher | None = None

    @property
    def takes_new(self) -> bool:
        """Whether lines that no place has yet may run here."""
        return self.own.get("max_running") != 0


class RunParts(NamedTuple):
    """What all parts of a run share.

    `lines` is where each line of the input `batch` stands by the journal, and `known` are the ids
    of every task that the journal names, by place, replaced ones too. With `is_pool`, lines may be
    at several places. `note` is called with lines for the user, and `priced` adds its cost to a
    usage.
    """

    batch: Input
    plan: Plan
    lines: LineTable
    journal: Journal
    options: BatchOptions
    known: Mapping[str, Iterable[str]] = MappingProxyType({})
    is_pool: bool = False
    note: Callable[[str], None] = lambda _text: None
    priced: Priced = lambda usage, _model: usage


@dataclass(eq=False)
class OpenPlace:
    """A place during a run: its client, its pace, its threads. Only the main thread calls it.

    `batch` are the lines as they are sent here. `fault` is the error that ended it for this run,
    and `limited` are the lines whose tasks wait for a usage limit.
    """

    place: BatchPlace
    client: RebyteClient
    batch: Input
    throttle: Throttle
    options: BatchOptions
    ledger: Ledger
    limited: set[int] = field(default_factory=set)
    fault: RebyteError | None = None

    def __post_init__(self) -> None:
        self.name = self.place.name

    def begin(self, parts: RunParts, events: SimpleQueue[BatchEvent]) -> None:
        """Make what works for this run; no thread starts before it has something to do."""
        from ..tasks.upload import send

        self._lines, self._is_pool = parts.lines, parts.is_pool

        def emit(kind: EventKind, index: int | None, value: Any) -> None:
            events.put(BatchEvent(kind, index, value, self.name))

        client, options, throttle = self.client, self.options, self.throttle
        self.clock = ServerClock(client, options.pace.skew)
        self.workers = WorkerPool(
            client,
            self.batch,
            parts.journal,
            self.ledger,
            throttle,
            emit,
            count=options.jobs,
            upload=partial(send, client),
            baseline=RunBaseline(client, self.clock, self.name if parts.is_pool else None),
            new_task=self.new_task,
        )
        self.watcher = watch_tasks(
            client,
            throttle,
            emit,
            self.place.questions if options.wait else None,
            more_to_come=lambda: bool(parts.lines.count_at(self.name, "queued", "lost")),
        )
        finder = LostLineSearch(
            client,
            self.batch,
            self.ledger,
            mine=parts.plan.mine,
            clock=self.clock,
            answered=self.workers.answered,
            is_exact=options.is_exact,
        )
        self.searcher = search_lost(client, throttle, emit, finder, options.pace)
        self._probe = probe_network(client, throttle, emit)
        checks = self.place.checks
        self.checks = None if checks is None else CheckPool(checks, emit)

    def new_task(
        self, line: InputLine, task: Mapping[str, Any], body: Mapping[str, Any]
    ) -> NewTask:
        """What the history keeps of the task of a line. Thread-safe."""
        from ..history.rows import NewTask

        files = list(map(os.path.abspath, line.paths)) or None
        base = None if self.place.checks is None else self.place.checks.base(body)
        return NewTask(task, body["prompt"], body, dict(line.labels), files, base=base)

    # Room for lines

    @property
    def is_busy(self) -> bool:
        """Whether lines are at work here, as far as this run can tell."""
        return self.fault is None and self._lines.count_at(self.name, *BUSY) > 0

    @property
    def is_open(self) -> bool:
        """Whether a new line may be handed to it now, if there is room for it."""
        if not self.may_open:
            return False
        return not self._is_pool or self.throttle.is_open

    @property
    def may_open(self) -> bool:
        """Whether it takes new lines, now or when its service answers again."""
        return self.fault is None and self.place.takes_new

    def has_room(self, executor: Callable[[int], str], index: int) -> bool:
        """Whether the task of this line may run here now. `executor` names that of a line.

        A task that waits for the usage limit of another executor does not count. One that waits
        for the limit of the same would soon have this one for company, so other places go first.
        """
        most = self.options.max_running
        count = self._lines.count_at(self.name, *COUNTED)
        self.limited = {each for each in self.limited if self._lines[each].state == "limited"}
        if not self.limited:
            return most is None or count < most
        others = sum(executor(each) != executor(index) for each in self.limited)
        if self._is_pool and others < len(self.limited):
            return False
        return most is None or count - others < most

    def look_after(self) -> None:
        """See to it that a network that is back is noticed, when other places have the lines."""
        is_down = self._is_pool and self.fault is None and self.throttle.network_is_down
        if is_down and AROUND not in self._probe.things():
            self._probe.add(AROUND, None)

    def described(self) -> str:
        """How many lines run here, for the progress of a batch. Thread-safe."""
        running = self._lines.count_at(self.name, *AT_WORK)
        why = ""
        if self.fault is not None:
            why = " (given up)"
        elif self.throttle.network_is_down:
            why = " (no network)"
        return f"{self.name} {running}{why}"

    def named(self, error: RebyteError) -> RebyteError:
        """An error of this place, which says so."""
        return error.copy_with(message=f"{self.name}: {error.message}")

    # The end

    @property
    def threads(self) -> Iterable[WorkerPool | Poller[Any] | CheckPool]:
        """Everything that has threads."""
        yield from (self.workers, self.watcher, self.searcher, self._probe)
        if self.checks is not None:
            yield self.checks


# The checks of what tasks did


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
        self.tries = checks.tries  # how many runs of a task are examined at most

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
