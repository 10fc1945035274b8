"""Many tasks from one file, each line once, whatever happens in between.

    main thread      moves every line: hands lines out, yields a row as each ends
    create-N         send one line at a time, with a synced record before and after
    journal          writes the records; those of one moment share a sync. Before it does, it writes
                     to the history what the workers have reserved
    watch, search    ask for the ends of running tasks; search for lost creates
The other threads report events to the main thread. What they must know at once of each other's
lines is in the ledger, which says who may call what. Runs share nothing but the journal.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from heapq import nsmallest
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

from ..api.status import canonical_status, is_terminal
from ..api.token_usage import TokenUsage
from ..api.views import text
from ..errors import BudgetReached, Interrupted, RebyteError
from ..history.rows import NewTask
from ..once.ledger import Ledger
from ..once.server_clock import ServerClock
from ..system.deadline import NO_LIMIT, Deadline
from ..system.signals import handled
from ..tasks.budget import Budget, Priced, Spending
from ..tasks.wait import WaitTarget
from .input import Input, InputLine
from .journal_format import Record
from .line_checks import CheckJob, CheckPool, LineChecks, MendJob
from .lost_lines import LostLine, LostLineSearch, search_lost
from .plan import Plan
from .poller import Poller, watch_tasks
from .results import LineProblem, row_of
from .state import (
    OVER,
    BatchEvent,
    EventKind,
    LineState,
    LineTable,
    checked_record,
    created_record,
    ended_record,
    error_of,
    skipped_error,
)
from .throttle import RESUME, Throttle
from .workers import Baseline, Job, Upload, WorkerPool

if TYPE_CHECKING:
    from ..api.client import RebyteClient
    from ..output.records import RowOrError
    from ..tasks.question_watch import QuestionWatcher
    from .journal import Journal


AT_WORK = ("running", "checking", "mending")
# Seconds that creates under way may still take after an interrupt.
GRACE = {signal.SIGINT: 30.0, signal.SIGTERM: 5.0}
# Seconds. The system may give both of two simultaneous signals to a worker thread, and then the
# main thread, the only one that handles them, is not woken.
LISTEN = 0.5
# Of one line in one run: a service that never answers it must not keep the batch running.
MOST_RESENDS = 3
JOIN = 2.0  # seconds that threads with a request under way get to end after the batch
SEND_AGAIN_AFTER = 900.0  # seconds; the same as for `create --once`


class BatchOptions(NamedTuple):
    """How a batch is to run. Times in seconds.

    `jobs` is how many creates may be under way at a time, and `max_running` how many lines may have
    a task that runs, counting creates under way and those whose outcome is not known (None: any).
    `search_for` is how long a lost create is searched for before its outcome is called unknown,
    and how long scans must agree that there is no task before it is sent again. `budget` is what
    the tasks of all runs of this journal may use together (None: any amount); with `limits_runs`,
    the service is told, which ends tasks that run when they have used it up. `is_exact`: the
    service is known to show prompts as they were sent, as that on this machine does. `title` is
    what its pages call the batch.
    """

    jobs: int = 8
    wait: bool = True
    timeout: float | None = None
    fail_fast: bool = False
    retry_failed: bool = False
    send_again_after: float = SEND_AGAIN_AFTER
    search_for: float | None = None
    max_running: int | None = None
    budget: Budget | None = None
    limits_runs: bool = False
    is_exact: bool = False
    title: str = "batch"


class Runner:
    """One run over the lines of `plan.mine`. `lines` is their state, by the journal.

    Lines are named by their index in the input. Only the main thread calls this.
    """

    def __init__(
        self,
        client: RebyteClient,
        batch: Input,
        plan: Plan,
        lines: LineTable,
        journal: Journal,
        throttle: Throttle,
        options: BatchOptions,
        ledger: Ledger,
        *,
        known: Iterable[str],
        upload: Upload,
        note: Callable[[str], None] = lambda _text: None,
        questions: QuestionWatcher | None = None,
        priced: Priced = lambda usage, _model: usage,
        checks: LineChecks | None = None,
    ) -> None:
        """`known` are the ids of every task that the journal names, replaced ones too.

        `upload`: a path to `{"id", "filename"}`. `note` is called with lines for the user,
        `questions` notices tasks that wait for an answer, and `priced` adds its cost to a usage.
        With `checks`, a task that has completed is done when it passes.
        """
        self.client = client
        self._batch = batch
        self._plan = plan
        self._lines = lines
        self._journal = journal
        self._throttle = throttle
        self._options = options
        self._ledger = ledger
        self._known = known
        self._note = note
        self._priced = priced
        self._spending = Spending(options.budget, priced) if options.budget else None
        journal.beside = ledger.write

        self._server_clock = self._compared_clock(client)
        self._events: SimpleQueue[BatchEvent] = SimpleQueue()
        self._workers = WorkerPool(
            client,
            batch,
            journal,
            ledger,
            throttle,
            self._report,
            count=options.jobs,
            upload=upload,
            baseline=Baseline(client, self._server_clock),
            clock=self._server_clock,
        )
        self._watcher = watch_tasks(
            client,
            throttle,
            self._report,
            questions if options.wait else None,
            more_to_come=lambda: bool(lines.count("queued", "lost")),
        )
        self._checks = None if checks is None else CheckPool(checks, self._report)
        self._base = checks.base if checks is not None else lambda _body: None
        finder = LostLineSearch(
            client,
            batch,
            ledger,
            mine=plan.mine,
            clock=self._server_clock,
            created=self._answered,
            is_exact=options.is_exact,
        )
        self._searcher = search_lost(client, throttle, self._report, finder, options.search_for)

        self._successor = {before: index for index, before in plan.after.items()}
        self._ready: deque[int] = deque()  # lines to create that no worker has yet
        self._closed = False  # no further line is handed out
        self._grace = NO_LIMIT  # set when the batch only waits for creates under way
        self._fault: RebyteError | None = None  # what ended the whole batch
        self._limited: set[int] = set()  # lines whose tasks wait for a usage limit
        self._budget_fault: RebyteError | None = None  # why the budget lets nothing be created
        self._signal: int | None = None
        self._interrupted = False
        self._leave_at_once = False

    def _compared_clock(self, client: RebyteClient) -> ServerClock:
        """The service's clock, compared with the times of the tasks that this batch has."""
        clock = ServerClock(client)
        for entry in self._lines.values():
            clock.observe(entry.started, entry.sent)
        return clock

    def _report(self, kind: EventKind, index: int | None, value: Any) -> None:
        """Called by any thread: something happened to a line, or to the batch."""
        self._events.put(BatchEvent(kind, index, value))

    # The run

    def run(self) -> Generator[RowOrError]:
        """Yield the row of every line: those that ended earlier first, then each as it ends.

        A line that did not end well is a LineProblem, which carries its row. What ended the
        whole batch comes last, as an error; an interrupt is raised.
        """
        deadline = Deadline(self._options.timeout)
        try:
            with self._signals_as_events():
                yield from self._start()
                while self._fill() or not self._is_over():
                    event = self._next_event(deadline)
                    if self._ledger.due.has_passed:
                        self._ledger.flush()
                    if event is not None:
                        yield from self._handle(event)
                    elif deadline.has_passed:
                        self._time_out(deadline)
                        deadline = NO_LIMIT
                self._note_full()
                self._refuse_overspent()
                yield from self._remaining_rows()
        finally:
            self._close()
        if self._signal is not None:
            raise Interrupted(128 + self._signal)
        if self._fault is not None:
            yield self._fault

    def _start(self) -> Iterator[RowOrError]:
        """Yield what is over, take up what an earlier run began, hand out what is new."""
        self._restore_ledger()
        self._count_spent()
        for index in self._plan.mine:
            entry = self._lines[index]
            if self._options.retry_failed and entry.is_doubtful:
                self._lines.apply(index, {"is": "unknown"})
            elif self._options.retry_failed and entry.has_failed:
                self._lines.move(index, "new")
            elif entry.is_over:
                yield self._row(index)
        for index in self._plan.mine:
            entry = self._lines[index]
            if entry.state == "mending" and self._checks is not None:
                self._mend(index, entry)
            elif entry.state in ("checking", "mending"):
                self._lines.move(index, "created")  # its end is read again
            if entry.state == "created":
                yield from self._watch(index, entry)
        self._expect_lines()
        for index in self._plan.mine:
            if self._lines[index].is_lost:
                self._search(index, self._lines[index])
        if not all(self._lines[index].is_over for index in self._plan.mine):
            self._watcher.start()
            self._searcher.start()
        for index in self._plan.mine:
            if index in self._plan.after:
                continue
            if self._lines[index].state == "new":
                self._hand_out(index)
            elif self._lines[index].is_over:
                yield from self._advance(index)

    def _next_event(self, deadline: Deadline) -> BatchEvent | None:
        """The next event; None when something else is due first."""
        wait = min(LISTEN, deadline.left(), self._grace.left(), self._ledger.due.left())
        try:
            return self._events.get(timeout=wait)
        except Empty:
            return None

    def _is_over(self) -> bool:
        if self._grace is not NO_LIMIT:
            return not self._lines.count("queued") or self._grace.has_passed
        return not self._lines.count("queued", "running", "lost", "checking", "mending")

    def _time_out(self, deadline: Deadline) -> None:
        unfinished = [str(self._batch.lines[index].number) for index in self._unfinished()]
        self._fault = deadline.error(
            f"{len(unfinished)} of {len(self._plan.mine)} lines not finished after",
            pending=unfinished,
            hint=RESUME,
        )
        self._stop(GRACE[signal.SIGINT])

    def _stop(self, grace: float) -> None:
        """Create nothing more, and wait for nothing but the creates under way."""
        self._throttle.stop()
        self._grace = self._grace.within(grace)
        self._close_queue()

    def _unfinished(self) -> list[int]:
        return [index for index in self._plan.mine if not self._lines[index].is_printed]

    def _remaining_rows(self) -> Iterator[RowOrError]:
        under_way = self._ledger.under_way
        for index in self._unfinished():
            if self._batch.lines[index].number in under_way:
                self._lines.move(index, "sending")
            yield self._row(index)

    def _close(self) -> None:
        """End every thread, then let the history know what there is to know."""
        self._throttle.stop()
        threads: list[WorkerPool | Poller[Any] | CheckPool]
        threads = [self._workers, self._watcher, self._searcher]
        threads += [self._checks] if self._checks is not None else []
        for each in threads:
            each.stop()
        limit = Deadline(0.0 if self._leave_at_once else JOIN)
        for each in threads:
            each.join(limit.left())
        self._ledger.release_settled()
        self._ledger.flush()
        with suppress(RebyteError):  # the first failure of the journal was reported already
            self._journal.close()

    # The next step of a line

    def _row(self, index: int) -> Mapping[str, Any] | LineProblem:
        self._lines[index].is_printed = True
        return row_of(self._batch.lines[index], self._lines[index], self._priced)

    def _hand_out(self, index: int) -> None:
        """Have a line created when there is room, unless the batch is stopping."""
        if not self._closed:
            self._ready.append(index)

    def _fill(self) -> bool:
        """Give the workers as many lines as may run; returns whether there were any."""
        before = len(self._ready)
        while (place := self._next_place()) is not None:
            index = self._ready[place]
            del self._ready[place]
            self._lines.move(index, "queued")
            self._lines[index].begun_here = True
            self._workers.put(Job(index, self._workspace_of(index)))
        return len(self._ready) < before

    def _next_place(self) -> int | None:
        """Which of the lines that are ready may run now; None if none may."""
        self._limited = {each for each in self._limited if self._lines[each].is_limited}
        for place, index in enumerate(self._ready):
            if self._has_room(index):
                return place
            if not self._limited:  # what holds for the first one holds for all
                return None
        return None

    def _has_room(self, index: int) -> bool:
        """Whether the task of this line may run. A create that may have made one counts as its
        task, and one that waits for the usage limit of another executor does not.
        """
        most = self._options.max_running
        counted = ("queued", "running", "lost", "unknown", "checking", "mending")
        count = self._lines.count(*counted)
        if most is None or count < most:
            return True
        executor = self._field_of(index, "executor")
        others = (self._field_of(each, "executor") != executor for each in self._limited)
        return count - sum(others) < most

    def _note_full(self) -> None:
        """Say why lines are left over that were never created."""
        if self._ready:
            unknown = self._lines.count("unknown")
            self._note(
                f"{len(self._ready)} lines were not created: {unknown} with an unknown"
                f" outcome may still run, and --max-running is {self._options.max_running}"
            )

    # The budget

    def _count_spent(self) -> None:
        """Count what earlier runs used. Raises BadUsage for what has no price."""
        if self._spending is not None:
            for index, entry in self._lines.items():
                for task_id, (usage, model) in entry.used.items():
                    self._spending.note(task_id, usage, model, self._field_of(index, "model"))
            self._stop_if_spent()
        if self._options.limits_runs:
            # All runs of this journal share one name, so that those whose batch was killed, and
            # that work on, count for those that are created after it.
            limits = self._options.budget.fields if self._options.budget else {}
            name = self._journal.name
            batch = {"id": name, "title": self._options.title, "lines": len(self._plan.mine)}
            self._workers.more = {**limits, "budgetOf": name, "batch": batch}

    def _spend(self, index: int, task: Mapping[str, Any]) -> None:
        """Count what a task has used so far; it may run on."""
        usage = TokenUsage.of(task.get("usage"))
        if self._spending is None:
            return
        if usage is not None:
            try:
                model = str(task.get("model") or "")
                self._spending.note(
                    str(task.get("id")), usage, model, self._field_of(index, "model")
                )
            except RebyteError as error:
                self._end_batch(error)
        elif is_terminal(task.get("status")) and not self._closed:
            self._budget_fault = RebyteError(
                f"task {task.get('id')} has ended and the service does not say what it used, so the"
                " budget cannot be kept",
                code="usage_unknown",
            )
            self._close_queue()
        # The service counts more than it says: requests of which no model said what they used.
        self._stop_if_spent(is_spent=task.get("endedBy") == "budget")

    def _stop_if_spent(self, *, is_spent: bool = False) -> None:
        if self._spending is None or self._closed:
            return
        if is_spent or self._spending.is_reached:
            budget = self._spending.budget
            self._budget_fault = BudgetReached(
                f"the budget of {budget} is used up: {self._spending}",
                hint="Run the same command with a larger --budget to continue",
            )
            self._close_queue()

    def _refuse_overspent(self) -> None:
        """Say that lines were left over for the budget, if any were."""
        left = sum(self._lines[index].state == "new" for index in self._unfinished())
        if left and self._fault is None and self._budget_fault is not None:
            lines = "1 line was" if left == 1 else f"{left} lines were"
            fault = self._budget_fault
            self._fault = fault.copy_with(message=f"{fault.message}; {lines} not created")

    def _field_of(self, index: int, name: str) -> str:
        return str(self._batch.body(self._batch.lines[index]).get(name) or "")

    def _workspace_of(self, index: int) -> str | None:
        """The workspace that a line asks for, as far as it is known; None for a new one, too.

        All lines of a chain share one, and what the service told one of them holds for all.
        """
        leader = self._plan.leader.get(index)
        while leader is not None:
            if self._lines[leader].workspace is not None:
                return self._lines[leader].workspace
            index, leader = leader, self._plan.leader.get(leader)
        return self._batch.lines[index].workspace

    def _search(self, index: int, entry: LineState) -> None:
        """Search for the task of a create that was not answered."""
        self._lines.move(index, "lost")
        self._ledger.doubt(self._batch.lines[index].number)
        workspace = self._workspace_of(index)
        lost = LostLine(
            index,
            entry.sent or "",
            self._options.send_again_after,
            workspace,
            tuple(entry.candidates),
        )
        self._searcher.add(index, lost)

    def _answered(self) -> list[dict[str, Any]]:
        """Tasks of this batch whose creates were answered; a list without them is stale."""
        entries = list(self._lines.items())
        return [
            {"id": entry.id, "createdAt": entry.started, "at": at}
            for at, entry in entries
            if entry.id
        ]

    def _watch(self, index: int, entry: LineState) -> Iterator[RowOrError]:
        """Wait for the end of a task, if this run or a later line needs it."""
        if self._grace is NO_LIMIT and (self._options.wait or index in self._successor):
            self._lines.move(index, "running")
            entry.since = time.monotonic()
            self._watcher.add(index, WaitTarget(str(entry.id), entry.prompt))
        else:
            yield self._row(index)

    def _over(self, index: int) -> Iterator[RowOrError]:
        """A line is over: yield its row, and start what waited for it."""
        yield self._row(index)
        if self._options.fail_fast and self._lines[index].has_failed and not self._closed:
            number = self._batch.lines[index].number
            self._note(f"Line {number} failed: no further creates")
            self._close_queue()
        yield from self._advance(index)

    def _advance(self, index: int) -> Iterator[RowOrError]:
        """Create the next line of the same workspace, skipping those whose leader failed."""
        place = index
        while (following := self._successor.get(place)) is not None:
            place = following
            entry = self._lines[place]
            if entry.is_over:
                continue
            if entry.state != "new" or place in self._ready:
                return
            leader = self._plan.leader.get(place)
            if leader is not None:
                led_by = self._lines[leader]
                if led_by.status != "completed" or self._workspace_of(place) is None:
                    entry.error = skipped_error(self._batch.lines[leader], led_by)
                    yield self._row(place)
                    continue
            self._hand_out(place)
            return

    def _close_queue(self) -> None:
        """Hand nothing out any more, and take back what no worker has begun."""
        self._closed = True
        self._ready.clear()
        self._throttle.stop_creates()
        for job in self._workers.take_back():
            self._back_to_new(job.line)

    def _back_to_new(self, index: int) -> None:
        """Take a line from the workers, if they have it."""
        if self._lines[index].state == "queued":
            self._lines.move(index, "new")
            self._ledger.not_created(self._batch.lines[index].number)

    # Events

    def _handle(self, event: BatchEvent) -> Iterator[RowOrError]:
        kind, index, value = event
        if kind == "crash":
            raise value
        if kind == "signal":
            self._interrupt(value)
        elif index is None:
            self._end_batch(value)
        else:
            yield from self._handlers[kind](self, index, self._lines[index], value)

    def _interrupt(self, number: int) -> None:
        """The first signal waits for creates under way; the second leaves at once."""
        if self._interrupted:
            self._leave_at_once = True
            raise Interrupted(128 + number)
        self._interrupted = True
        self._stop(GRACE[signal.Signals(number)])
        if under_way := len(self._ledger.under_way):
            creates = "1 create" if under_way == 1 else f"{under_way} creates"
            self._note(
                f"Stopping: waiting for {creates} under way; a second Ctrl-C exits at once, and "
                "the next run looks for them"
            )

    def _end_batch(self, error: RebyteError) -> None:
        """End the batch with this error, unless another one is ending it already."""
        if self._fault is None:
            self._fault = error
            self._stop(GRACE[signal.SIGINT])

    # Each returns the rows that the event brings.

    def _on_created(self, index: int, entry: LineState, value: Any) -> Iterable[RowOrError]:
        body, task, is_taken = value
        line = self._batch.lines[index]
        if is_taken:
            self._take_back(index, str(task["id"]))
        self._lines.apply(index, created_record(line.number, task))
        self._created(line, task, body)
        if is_terminal(task.get("status")):
            return self._on_ended(index, entry, (task, ""))
        return self._watch(index, entry)

    def _take_back(self, index: int, task_id: str) -> None:
        """Warn if another line has what a create was answered with.

        The service knows best whose it is: a line that took it after a search is lost again.
        """
        number = self._batch.lines[index].number
        for at, entry in self._lines.items():
            if entry.id != task_id or at == index:
                continue
            other = self._batch.lines[at].number
            self._note(
                f"Line {number}: the service answered with task {task_id}, which line {other} has"
                + (" from a search; that line is searched for again" if entry.is_found else "")
            )
            if entry.is_found:
                record: Record = {"line": other, "is": "unknown", "candidates": []}
                self._note_down(record)
                self._lines.apply(at, record)
                entry.is_printed = False
                self._search(at, entry)

    def _on_refused(self, index: int, entry: LineState, error: RebyteError) -> Iterable[RowOrError]:
        self._lines.apply(index, {"is": "refused", "error": error_of(error)})
        number = self._batch.lines[index].number
        (self._ledger.doubt if entry.is_doubtful else self._ledger.not_created)(number)
        return self._over(index)

    def _on_unsent(self, index: int, _entry: LineState, _value: None) -> Iterable[RowOrError]:
        self._lines.move(index, "new")
        self._ledger.not_created(self._batch.lines[index].number)
        self._hand_out(index)
        return ()

    def _on_lost(self, index: int, entry: LineState, record: Record) -> Iterable[RowOrError]:
        self._lines.apply(index, record)
        self._search(index, entry)
        return ()

    def _on_fatal(self, index: int, entry: LineState, error: RebyteError) -> Iterable[RowOrError]:
        number = self._batch.lines[index].number
        if number in self._ledger.under_way:
            self._lines.move(index, "sending")
            self._ledger.doubt(number)
        else:
            self._back_to_new(index)
        self._end_batch(error)
        return ()

    def _on_found(
        self, index: int, entry: LineState, task: Mapping[str, Any]
    ) -> Iterable[RowOrError]:
        line = self._batch.lines[index]
        self._note(f"Line {line.number}: the response was lost, but task {task['id']} exists")
        # A list shows no workspace, but the line may have asked for one.
        task = {**task, "workspaceId": task.get("workspaceId") or self._workspace_of(index)}
        record = created_record(line.number, task, found=True)
        self._note_down(record)
        # Before the line is settled: until then an equal one could take the same task.
        self._ledger.answered(task["id"])
        self._lines.apply(index, record)
        self._created(line, task, self._batch.body(line))
        return self._watch(index, entry)

    def _on_absent(self, index: int, entry: LineState, _value: None) -> Iterable[RowOrError]:
        if entry.resent == MOST_RESENDS:
            return self._on_unknown(index, entry, [])
        entry.resent += 1
        number = self._batch.lines[index].number
        self._note(f"Line {number}: no task was created; sending it again")
        self._note_down({"line": number, "is": "unsent"})
        return self._on_unsent(index, entry, None)

    def _on_unknown(
        self, index: int, entry: LineState, candidates: list[str]
    ) -> Iterable[RowOrError]:
        number = self._batch.lines[index].number
        record: Record = {"line": number, "is": "unknown", "candidates": candidates}
        if entry.sent:
            record["at"] = self._server_clock.restamp(entry.sent)
        self._note_down(record)
        self._lines.apply(index, record)
        return ()  # its row comes at the end: the task may still be found

    def _on_unsure(
        self, _index: int, entry: LineState, candidates: list[str]
    ) -> Iterable[RowOrError]:
        entry.candidates = candidates
        return ()

    def _on_ended(self, index: int, entry: LineState, value: Any) -> Iterable[RowOrError]:
        task, reason = value
        # It may have turned out to be the task of another line.
        is_ours = task.get("id", entry.id) == entry.id
        if not is_ours or entry.state not in ("created", "running"):
            return ()
        line = self._batch.lines[index]
        if self._checks is not None and canonical_status(task.get("status")) == "completed":
            record: Record = {"line": line.number, "is": "checking"}
            self._note_down(record)
            self._lines.apply(index, record)
            self._spend(index, task)
            task = {**task, "workspaceId": entry.workspace or task.get("workspaceId")}
            self._checks.put(CheckJob(index, task, self._batch.body(line), line.schema))
            return ()
        return self._ended(index, task, ended_record(line.number, task, _now(), reason))

    def _ended(self, index: int, task: Mapping[str, Any], record: Record) -> Iterable[RowOrError]:
        """Record that a line is over, as `record` says."""
        self._note_down(record)
        self._lines.apply(index, record)
        self._spend(index, task)
        self._ledger.ended(task)
        return self._over(index)

    def _on_used(
        self, index: int, entry: LineState, task: Mapping[str, Any]
    ) -> Iterable[RowOrError]:
        if task.get("id") == entry.id and entry.state in ("created", "running"):
            entry.resumes_at = text(task.get("resumesAt")) or None
            self._limited |= {index} if entry.is_limited else set()
            self._spend(index, task)
        return ()

    def _on_checked(self, index: int, entry: LineState, value: Any) -> Iterable[RowOrError]:
        task, verdict = value
        if entry.state != "checking" or self._checks is None:
            return ()
        number, most = self._batch.lines[index].number, self._checks.tries
        tries = entry.tries + 1
        if verdict.status != "failed" or tries >= most:
            record = checked_record(number, task, _now(), verdict, tries)
            return self._ended(index, task, record)
        record = {
            "line": number,
            "is": "mending",
            "tries": tries,
            "prompt": verdict.prompt(tries + 1, most),
            **verdict.fields(tries),
        }
        self._note_down(record)
        self._lines.apply(index, record)
        if self._budget_fault is not None:  # a run with a larger budget sends it
            return self._given_up(index, "unchecked", error_of(self._budget_fault), "mending")
        self._mend(index, entry)
        return ()

    def _mend(self, index: int, entry: LineState) -> None:
        """Send what a check said to the task of a line, at most once, whatever ends this run."""
        assert self._checks is not None
        if self._grace is NO_LIMIT:
            number = self._batch.lines[index].number
            key = f"check {self._journal.name} {number} {entry.id} {entry.tries}"
            self._checks.put(MendJob(index, str(entry.id), str(entry.told), key))

    def _on_mended(self, index: int, entry: LineState, prompt: str) -> Iterable[RowOrError]:
        if entry.state != "mending":
            return ()
        record: Record = {"line": self._batch.lines[index].number, "is": "mended", "prompt": prompt}
        self._note_down(record)
        self._lines.apply(index, record)
        return self._watch(index, entry)

    def _on_uncheckable(
        self, index: int, entry: LineState, error: RebyteError
    ) -> Iterable[RowOrError]:
        """The next run reads the end of the task again, and checks it then."""
        return self._given_up(index, "unchecked", error_of(error), "checking")

    def _on_unmended(
        self, index: int, entry: LineState, error: RebyteError
    ) -> Iterable[RowOrError]:
        """The journal has the line as it was, so that the next run sends the prompt, or looks."""
        return self._given_up(index, "unchecked", error_of(error), "mending")

    def _on_unreadable(
        self, index: int, entry: LineState, error: RebyteError
    ) -> Iterable[RowOrError]:
        return self._given_up(index, entry.status, error_of(error))

    def _on_unattended(
        self, index: int, entry: LineState, error: RebyteError
    ) -> Iterable[RowOrError]:
        return self._given_up(index, "waiting", {**error_of(error), "hint": error.hint})

    def _given_up(
        self, index: int, status: str | None, error: dict[str, Any], state: str = "running"
    ) -> Iterable[RowOrError]:
        """Wait no longer for a task, unless it has turned out to be that of another line."""
        entry = self._lines[index]
        if entry.state != state:
            return ()
        self._lines.move(index, "created")
        entry.status, entry.error = status, error
        return [self._row(index)]

    _handlers: Mapping[EventKind, Callable[[Runner, int, LineState, Any], Iterable[RowOrError]]] = {
        "created": _on_created,
        "refused": _on_refused,
        "unsent": _on_unsent,
        "lost": _on_lost,
        "fatal": _on_fatal,
        "found": _on_found,
        "absent": _on_absent,
        "unknown": _on_unknown,
        "unsure": _on_unsure,
        "ended": _on_ended,
        "used": _on_used,
        "unreadable": _on_unreadable,
        "unattended": _on_unattended,
        "checked": _on_checked,
        "uncheckable": _on_uncheckable,
        "mended": _on_mended,
        "unmended": _on_unmended,
    }

    def _note_down(self, record: Record) -> None:
        try:
            self._journal.append(record)
        except RebyteError as error:
            self._end_batch(error)

    # The ledger

    def _created(self, line: InputLine, task: Mapping[str, Any], body: Mapping[str, Any]) -> None:
        files = list(map(os.path.abspath, line.paths)) or None
        base = self._base(body)
        new = NewTask(task, body["prompt"], body, dict(line.labels), files, base=base)
        self._ledger.created(line.number, new)

    def _restore_ledger(self) -> None:
        """Tell the history what an earlier run could not tell it any more."""
        left = self._ledger.load(self._known)
        for index in self._plan.mine:
            line, entry = self._batch.lines[index], self._lines[index]
            # All before the first scan: one that does not know of a line could take its task.
            if entry.is_lost or entry.is_doubtful:
                self._ledger.doubt(line.number)
            elif line.number in left and entry.id is not None:
                task = {
                    "id": entry.id,
                    "workspaceId": entry.workspace,
                    "url": entry.url,
                    "status": entry.status,
                    "createdAt": entry.started,
                    "completedAt": entry.finished,
                }
                self._created(line, task, self._batch.body(line))
        self._ledger.release_settled()

    def _expect_lines(self) -> None:
        """Have the next lines reserved with each that is sent. Reads no state later on."""
        new = [index for index in self._plan.mine if self._lines[index].state == "new"]
        lines = self._batch.lines
        self._ledger.expect(
            (lines[index].number, self._batch.body(lines[index])["prompt"]) for index in new
        )

    # Progress and signals

    def progress(self, most: int) -> dict[str, Any]:
        """The progress of the batch, as `output.progress.BatchProgress` takes it. Thread-safe.

        `most` is the number of running tasks that are described, the oldest first.
        """
        now = time.monotonic()
        states = Counter((entry.state, entry.status) for entry in self._lines.values())
        over = {status: count for (state, status), count in states.items() if state in OVER}
        pending = self._lines.count("new", "queued")
        running = [
            (entry.since, index) for index, entry in self._lines.items() if entry.state in AT_WORK
        ]
        return {
            "total": states.total(),
            "ended": sum(over.values()),
            "created": states.total() - pending,
            "failed": sum(count for status, count in over.items() if status != "completed"),
            "running": len(running),
            "oldest": [
                (*self._described(index), now - since) for since, index in nsmallest(most, running)
            ],
            "paused": self._throttle.network_is_down,
            "sought": self._lines.count("lost"),
            "limited": sum(entry.is_limited for entry in self._lines.values()),
            "ended_here": sum(one.is_over and one.begun_here for one in self._lines.values()),
        }

    def _described(self, index: int) -> tuple[str, str]:
        line, entry = self._batch.lines[index], self._lines[index]
        name = line.key if line.has_own_key else f"line {line.number}"
        return f"{name}  {line.title}", entry.url or str(entry.id)

    @contextmanager
    def _signals_as_events(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM as events; the second one ends everything at once."""

        def caught(number: int, _frame: object) -> None:
            # An event as well: an exception may be raised where errors are tolerated.
            self._events.put(BatchEvent("signal", None, number))
            if self._signal is not None:
                self._leave_at_once = True
                raise Interrupted(128 + number)
            self._signal = number

        with handled(dict.fromkeys(GRACE, caught)):
            yield


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
