"""Many tasks from one file, each line once, whatever happens in between.

    main thread      owns the state of every line: hands lines out, yields a row as each ends
    create-N         send one line at a time, with a synced record before and after
    journal          writes the records; those of one moment share a sync
    watch, search    ask for the ends of running tasks; search for lost creates
The other threads only report events to the main thread. Runs share nothing but the journal.
"""

from __future__ import annotations

import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import islice
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from ..api.status import is_terminal
from ..deadline import NO_LIMIT, Deadline
from ..errors import Interrupted, RebyteError
from ..once.clock import ServerClock
from .baseline import Baseline
from .callbacks import Callbacks
from .events import BatchEvent, EventKind
from .history_writer import HistoryWriter
from .input import Input
from .options import BatchOptions
from .plan import Plan
from .poller import watch_tasks
from .search import LostLine, LostLineSearch, search_lost
from .state import (
    LOST,
    OVER,
    LineProblem,
    LineState,
    Record,
    created_record,
    ended_record,
    error_of,
    row_of,
    skipped_error,
)
from .throttle import Throttle
from .workers import Job, WorkerPool

if TYPE_CHECKING:
    from ..api.client import RebyteClient
    from ..output.records import RowOrError
    from .journal import Journal

# Seconds that creates under way may still take after an interrupt.
GRACE = {signal.SIGINT: 30.0, signal.SIGTERM: 5.0}
# Seconds. The system may give both of two simultaneous signals to a worker thread, and then the
# main thread, the only one that handles them, is not woken.
LISTEN = 0.5
# Of one line in one run: a service that never answers it must not keep the batch running.
MOST_RESENDS = 3
JOIN = 2.0  # seconds that threads with a request under way get to end after the batch


class Runner:
    """One run over the lines of `plan.mine`. `entries` is their state, by the journal.

    Lines are named by their index in the input. Only the main thread calls this.
    """

    def __init__(
        self,
        client: RebyteClient,
        batch: Input,
        plan: Plan,
        entries: Mapping[int, LineState],
        journal: Journal,
        throttle: Throttle,
        options: BatchOptions,
        callbacks: Callbacks,
        *,
        known: Iterable[str],
    ) -> None:
        """`known` are the ids of every task that the journal names, replaced ones too."""
        self._batch = batch
        self._plan = plan
        self._entries = entries
        self._journal = journal
        self._throttle = throttle
        self._options = options
        self._callbacks = callbacks
        self._reservations = callbacks.reservations
        journal.beside = callbacks.reservations.write

        self._server_clock = self._compared_clock(client)
        self._events: SimpleQueue[BatchEvent] = SimpleQueue()
        self._workers = WorkerPool(
            client,
            batch,
            journal,
            callbacks.reservations,
            throttle,
            self._report,
            count=options.jobs,
            upload=callbacks.upload,
            baseline=Baseline(client, self._server_clock),
            clock=self._server_clock,
        )
        self._workers.known.update(known)
        self._lost: set[int] = set()  # lines whose creates are being searched for
        self._unknown: set[int] = set()  # lines whose search has ended without a task
        self._resent: Counter[int] = Counter()  # creates of a line that made no task
        questions = callbacks.questions if options.wait else None
        self._watcher = watch_tasks(
            client, throttle, self._report, questions, self._has_more_to_come
        )
        finder = self._finder(client)
        self._searcher = search_lost(client, throttle, self._report, finder, options.search_for)
        self._history = HistoryWriter(
            journal, callbacks.reservations, callbacks.tasks_created, callbacks.tasks_ended
        )

        self._successor = {before: index for index, before in plan.after.items()}
        self._ready: deque[int] = deque()  # lines to create that no worker has yet
        self._handed_out: set[int] = set()  # lines that the workers have
        self._running: dict[int, float] = {}  # watched lines, and since when
        self._printed: set[int] = set()
        self._closed = False  # no further line is handed out
        self._grace = NO_LIMIT  # set when the batch only waits for creates under way
        self._fault: RebyteError | None = None  # what ended the whole batch
        self._signal: int | None = None
        self._interrupted = False
        self._leave_at_once = False

    def _finder(self, client: RebyteClient) -> LostLineSearch:
        """What finds the tasks of lines whose creates got no answer."""
        return LostLineSearch(
            client,
            self._batch,
            mine=self._plan.mine,
            in_flight=self._workers.in_flight,
            lost=self._lost,
            named=self._workers.known,
            known_ids=self._callbacks.known_ids,
            sent_by_others=self._callbacks.reservations.of_others,
            clock=self._server_clock,
            created=self._answered,
            twins=self._callbacks.tasks_with_prompt,
        )

    def _compared_clock(self, client: RebyteClient) -> ServerClock:
        """The service's clock, compared with the times of the tasks that this batch has."""
        clock = ServerClock(client)
        for entry in self._entries.values():
            clock.observe(entry.started, entry.sent)
        return clock

    def _report(self, kind: EventKind, index: int | None, value: Any) -> None:
        """Called by any thread: something happened to a line, or to the batch."""
        self._events.put(BatchEvent(kind, index, value))

    def _has_more_to_come(self) -> bool:
        """Whether tasks may begin that are not watched yet. Thread-safe."""
        return bool(self._handed_out or self._lost)

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
                    if self._history.due.has_passed:
                        self._history.flush()
                    if event is not None:
                        yield from self._handle(event)
                    elif deadline.has_passed:
                        self._time_out(deadline)
                        deadline = NO_LIMIT
                self._note_full()
                yield from self._remaining_rows()
        finally:
            self._close()
        if self._signal is not None:
            raise Interrupted(128 + self._signal)
        if self._fault is not None:
            yield self._fault

    def _start(self) -> Iterator[RowOrError]:
        """Yield what is over, take up what an earlier run began, hand out what is new."""
        self._restore_reservations()
        for index in self._plan.mine:
            entry = self._entries[index]
            if self._options.retry_failed and entry.is_doubtful:
                entry.apply({"is": "unknown"})
            elif self._options.retry_failed and entry.has_failed:
                entry.reset("new")
            elif entry.is_over:
                yield self._row(index)
        for index in self._plan.mine:
            entry = self._entries[index]
            if entry.state == "running":
                yield from self._watch(index, entry)
        lost = [index for index in self._plan.mine if self._entries[index].state in LOST]
        # All at once: a scan that does not know of one could take its task for another's.
        self._lost.update(lost)
        for index in lost:
            self._search(index, self._entries[index])
        if not all(self._entries[index].is_over for index in self._plan.mine):
            self._watcher.start()
            self._searcher.start()
        for index in self._plan.mine:
            if index in self._plan.after:
                continue
            if self._entries[index].state == "new":
                self._hand_out(index)
            elif self._entries[index].is_over:
                yield from self._advance(index)

    def _next_event(self, deadline: Deadline) -> BatchEvent | None:
        """The next event; None when something else is due first."""
        wait = min(LISTEN, deadline.left(), self._grace.left(), self._history.due.left())
        try:
            return self._events.get(timeout=wait)
        except Empty:
            return None

    def _is_over(self) -> bool:
        if self._grace is not NO_LIMIT:
            return not self._handed_out or self._grace.has_passed
        return not (self._handed_out or self._running or self._lost)

    def _time_out(self, deadline: Deadline) -> None:
        unfinished = [str(self._batch.lines[index].number) for index in self._unfinished()]
        self._fault = deadline.error(
            f"{len(unfinished)} of {len(self._plan.mine)} lines not finished after",
            pending=unfinished,
            hint="The tasks keep running; run the same command again to resume.",
        )
        self._stop(GRACE[signal.SIGINT])

    def _stop(self, grace: float) -> None:
        """Create nothing more, and wait for nothing but the creates under way."""
        self._throttle.stop()
        self._grace = self._grace.within(grace)
        self._close_queue()

    def _unfinished(self) -> list[int]:
        return [index for index in self._plan.mine if index not in self._printed]

    def _remaining_rows(self) -> Iterator[RowOrError]:
        for index in self._unfinished():
            if index in self._workers.in_flight:
                self._entries[index].state = "sending"
            yield self._row(index)

    def _close(self) -> None:
        """End every thread, then let the history know what there is to know."""
        self._throttle.stop()
        threads = (self._workers, self._watcher, self._searcher)
        for each in threads:
            each.stop()
        limit = Deadline(0.0 if self._leave_at_once else JOIN)
        for each in threads:
            each.join(limit.left())
        self._reservations.keep_only(self._lines_in_doubt())
        self._history.flush()
        with suppress(RebyteError):  # the first failure of the journal was reported already
            self._journal.close()

    # The next step of a line

    def _row(self, index: int) -> Mapping[str, Any] | LineProblem:
        self._printed.add(index)
        return row_of(self._batch.lines[index], self._entries[index])

    def _hand_out(self, index: int) -> None:
        """Have a line created when there is room, unless the batch is stopping."""
        if not self._closed:
            self._ready.append(index)

    def _fill(self) -> bool:
        """Give the workers as many lines as may run; returns whether there were any."""
        before = len(self._ready)
        while self._ready and self._has_room():
            index = self._ready.popleft()
            self._handed_out.add(index)
            self._entries[index].begun_here = True
            self._workers.put(Job(index, self._workspace_of(index)))
        return len(self._ready) < before

    def _has_room(self) -> bool:
        """Whether one more task may run. A create that may have made one counts as its task."""
        most = self._options.max_running
        taken = (self._handed_out, self._running, self._lost, self._unknown)
        return most is None or sum(map(len, taken)) < most

    def _note_full(self) -> None:
        """Say why lines are left over that were never created."""
        if self._ready:
            self._callbacks.note(
                f"{len(self._ready)} lines were not created: {len(self._unknown)} with an unknown"
                f" outcome may still run, and --max-running is {self._options.max_running}"
            )

    def _workspace_of(self, index: int) -> str | None:
        """The workspace that a line asks for, as far as it is known; None for a new one, too.

        All lines of a chain share one, and what the service told one of them holds for all.
        """
        leader = self._plan.leader.get(index)
        while leader is not None:
            if self._entries[leader].workspace is not None:
                return self._entries[leader].workspace
            index, leader = leader, self._plan.leader.get(leader)
        return self._batch.lines[index].workspace

    def _search(self, index: int, entry: LineState) -> None:
        """Search for the task of a create that was not answered."""
        self._lost.add(index)
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
        entries = list(self._entries.values())
        return [{"id": entry.id, "createdAt": entry.started} for entry in entries if entry.id]

    def _watch(self, index: int, entry: LineState) -> Iterator[RowOrError]:
        """Wait for the end of a task, if this run or a later line needs it."""
        if self._grace is NO_LIMIT and (self._options.wait or index in self._successor):
            self._running[index] = time.monotonic()
            self._watcher.add(index, str(entry.id))
        else:
            yield self._row(index)

    def _over(self, index: int) -> Iterator[RowOrError]:
        """A line is over: yield its row, and start what waited for it."""
        yield self._row(index)
        if self._options.fail_fast and self._entries[index].has_failed and not self._closed:
            number = self._batch.lines[index].number
            self._callbacks.note(f"Line {number} failed: no further creates")
            self._close_queue()
        yield from self._advance(index)

    def _advance(self, index: int) -> Iterator[RowOrError]:
        """Create the next line of the same workspace, skipping those whose leader failed."""
        place = index
        while (following := self._successor.get(place)) is not None:
            place = following
            entry = self._entries[place]
            if entry.is_over:
                continue
            if entry.state != "new" or place in self._handed_out or place in self._ready:
                return
            leader = self._plan.leader.get(place)
            if leader is not None:
                led_by = self._entries[leader]
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
        self._handed_out.difference_update(job.line for job in self._workers.take_back())

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
            if kind == "lost":
                # Before it leaves `in_flight`: the search looks at both.
                self._lost.add(index)
            may_be_sent = index in self._workers.in_flight
            if kind in ("created", "refused", "unsent", "lost", "fatal"):
                self._handed_out.discard(index)
                self._workers.in_flight.discard(index)
            if kind == "fatal":
                if may_be_sent:
                    self._entries[index].state = "sending"
                else:
                    self._history.not_created(self._batch.lines[index].number)
                self._end_batch(value)
            else:
                yield from self._handlers[kind](self, index, self._entries[index], value)

    def _interrupt(self, number: int) -> None:
        """The first signal waits for creates under way; the second leaves at once."""
        if self._interrupted:
            self._leave_at_once = True
            raise Interrupted(128 + number)
        self._interrupted = True
        self._stop(GRACE[signal.Signals(number)])
        if under_way := len(self._workers.in_flight):
            creates = "1 create" if under_way == 1 else f"{under_way} creates"
            self._callbacks.note(
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
        body, task = value
        line = self._batch.lines[index]
        entry.apply(created_record(line.number, task))
        self._history.created(line, task, body)
        if is_terminal(task.get("status")):
            return self._on_ended(index, entry, (task, ""))
        return self._watch(index, entry)

    def _on_refused(self, index: int, entry: LineState, error: RebyteError) -> Iterable[RowOrError]:
        entry.apply({"is": "refused", "error": error_of(error)})
        if not entry.is_doubtful:
            self._history.not_created(self._batch.lines[index].number)
        return self._over(index)

    def _on_unsent(self, index: int, entry: LineState, _value: None) -> Iterable[RowOrError]:
        entry.reset("new")
        self._history.not_created(self._batch.lines[index].number)
        self._hand_out(index)
        return ()

    def _on_lost(self, index: int, entry: LineState, record: Record) -> Iterable[RowOrError]:
        entry.apply(record)
        self._search(index, entry)
        return ()

    def _on_found(
        self, index: int, entry: LineState, task: Mapping[str, Any]
    ) -> Iterable[RowOrError]:
        line = self._batch.lines[index]
        self._callbacks.note(
            f"Line {line.number}: the response was lost, but task {task['id']} exists"
        )
        # A list shows no workspace, but the line may have asked for one.
        task = {**task, "workspaceId": task.get("workspaceId") or self._workspace_of(index)}
        record = created_record(line.number, task, found=True)
        self._note_down(record)
        self._workers.known.add(task["id"])
        self._lost.discard(index)  # only now: until then an equal line could take the same task
        entry.apply(record)
        self._history.created(line, task, self._batch.body(line))
        return self._watch(index, entry)

    def _on_absent(self, index: int, entry: LineState, _value: None) -> Iterable[RowOrError]:
        if self._resent[index] == MOST_RESENDS:
            return self._on_unknown(index, entry, [])
        self._resent[index] += 1
        self._lost.discard(index)
        number = self._batch.lines[index].number
        self._callbacks.note(f"Line {number}: no task was created; sending it again")
        self._note_down({"line": number, "is": "unsent"})
        return self._on_unsent(index, entry, None)

    def _on_unknown(
        self, index: int, entry: LineState, candidates: list[str]
    ) -> Iterable[RowOrError]:
        self._lost.discard(index)
        self._unknown.add(index)
        number = self._batch.lines[index].number
        record: Record = {"line": number, "is": "unknown", "candidates": candidates}
        if entry.sent:
            record["at"] = self._server_clock.restamp(entry.sent)
        self._note_down(record)
        entry.apply(record)
        return ()  # its row comes at the end: the task may still be found

    def _on_unsure(
        self, _index: int, entry: LineState, candidates: list[str]
    ) -> Iterable[RowOrError]:
        entry.candidates = candidates
        return ()

    def _on_ended(self, index: int, entry: LineState, value: Any) -> Iterable[RowOrError]:
        task, reason = value
        self._running.pop(index, None)
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        record = ended_record(self._batch.lines[index].number, task, now, reason)
        self._note_down(record)
        entry.apply(record)
        self._history.ended(task)
        return self._over(index)

    def _on_unreadable(
        self, index: int, entry: LineState, error: RebyteError
    ) -> Iterable[RowOrError]:
        self._running.pop(index, None)
        entry.error = error_of(error)
        return [self._row(index)]

    def _on_unattended(
        self, index: int, entry: LineState, error: RebyteError
    ) -> Iterable[RowOrError]:
        self._running.pop(index, None)
        entry.status, entry.error = "waiting", {**error_of(error), "hint": error.hint}
        return [self._row(index)]

    _handlers: Mapping[EventKind, Callable[[Runner, int, LineState, Any], Iterable[RowOrError]]] = {
        "created": _on_created,
        "refused": _on_refused,
        "unsent": _on_unsent,
        "lost": _on_lost,
        "found": _on_found,
        "absent": _on_absent,
        "unknown": _on_unknown,
        "unsure": _on_unsure,
        "ended": _on_ended,
        "unreadable": _on_unreadable,
        "unattended": _on_unattended,
    }

    def _note_down(self, record: Record) -> None:
        try:
            self._journal.append(record)
        except RebyteError as error:
            self._end_batch(error)

    # Reservations

    def _restore_reservations(self) -> None:
        """Tell the history what an earlier run could not tell it any more."""
        left = self._reservations.load()
        for index in self._plan.mine if left else ():
            line, entry = self._batch.lines[index], self._entries[index]
            if line.number in left and entry.id is not None:
                task = {
                    "id": entry.id,
                    "workspaceId": entry.workspace,
                    "url": entry.url,
                    "status": entry.status,
                    "createdAt": entry.started,
                    "completedAt": entry.finished,
                }
                self._history.created(line, task, self._batch.body(line))
        self._reservations.keep_only(self._lines_in_doubt())
        self._reservations.expect(
            (self._batch.lines[index].number, self._batch.body(self._batch.lines[index])["prompt"])
            for index in self._plan.mine
            if self._entries[index].state == "new"
        )

    def _lines_in_doubt(self) -> set[int]:
        """The numbers of the lines that may have a task whose id is not known."""
        return {
            self._batch.lines[index].number
            for index in self._plan.mine
            if index in self._workers.in_flight
            or self._entries[index].is_lost
            or self._entries[index].is_doubtful
        }

    # Progress and signals

    def progress(self, most: int) -> dict[str, Any]:
        """The progress of the batch, as `output.progress.BatchProgress` takes it. Thread-safe.

        `most` is the number of running tasks that are described, the oldest first.
        """
        now = time.monotonic()
        states = Counter((entry.state, entry.status) for entry in self._entries.values())
        over = {status: count for (state, status), count in states.items() if state in OVER}
        running = self._running.copy()  # in the order in which they began
        return {
            "total": states.total(),
            "ended": sum(over.values()),
            "created": sum(count for (state, _), count in states.items() if state != "new"),
            "failed": sum(count for status, count in over.items() if status != "completed"),
            "running": len(running),
            "oldest": [
                (*self._described(index), now - since)
                for index, since in islice(running.items(), most)
            ],
            "paused": self._throttle.network_is_down,
            "sought": len(self._lost),
            "ended_here": sum(one.is_over and one.begun_here for one in self._entries.values()),
        }

    def _described(self, index: int) -> tuple[str, str]:
        line, entry = self._batch.lines[index], self._entries[index]
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

        before = {number: signal.signal(number, caught) for number in GRACE}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
