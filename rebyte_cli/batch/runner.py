"""Many tasks from one file, each line once, whatever happens in between.

    main thread      moves every line: hands lines out, yields a row as each ends
    create-N         send one line at a time, with a synced record before and after
    journal          writes the records; those of one moment share a sync. Before it does, it writes
                     to the history what the workers have reserved
    watch, search    ask for the ends of running tasks; search for lost creates
A batch at several places has workers, watch and search for each. All of them report events to the
main thread. What they must know at once of each other's lines is in the ledger of their place,
which says who may call what. Runs share nothing but the journal.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from heapq import nsmallest
from queue import Empty, SimpleQueue
from typing import Any

from ..api.failures import OUT_OF_MEMORY
from ..api.ssh import NO_SERVICE
from ..api.status import canonical_status, is_terminal
from ..api.views import text
from ..errors import (
    APIError,
    BadUsage,
    BudgetReached,
    Interrupted,
    KeyProblem,
    RebyteError,
    RowOrError,
)
from ..once.server_clock import local_now, text_of_time
from ..output.progress import BatchProgress
from ..system.deadline import NO_LIMIT, Deadline
from ..system.signals import handled
from ..tasks.wait import WaitTarget
from .assignment import Assignment
from .input import InputLine
from .journal_format import Record
from .lost_lines import LostLine
from .place import AT_WORK, CheckJob, MendJob, OpenPlace, RunParts
from .results import LineProblem, row_of
from .spending import BatchSpending
from .state import (
    NEXT,
    OVER,
    BatchEvent,
    LineState,
    checked_record,
    checking_record,
    created_record,
    ended_record,
    error_of,
    skipped_error,
)
from .throttle import RESUME
from .workers import Job

# Seconds that creates under way may still take after an interrupt.
GRACE = {signal.SIGINT: 30.0, signal.SIGTERM: 5.0}
# Seconds. The system may give both of two simultaneous signals to a worker thread, and then the
# main thread, the only one that handles them, is not woken.
LISTEN = 0.5
# Of one line in one run: a service that never answers it must not keep the batch running.
MOST_RESENDS = 3
# What a line is after these events. The journal has it as it was, so that the next run reads its
# task again: it checks what has ended, and sends a prompt that was not sent, or looks for it.
GIVEN_UP = {
    "unattended": "waiting",
    "unreadable": "unreadable",
    "uncheckable": "unchecked",
    "unmended": "unchecked",
}
JOIN = 2.0  # seconds that threads with a request under way get to end after the batch


class Runner:
    """One run over the lines of `plan.mine`.

    Lines are named by their index in the input. Only the main thread calls this.
    """

    def __init__(self, places: Sequence[OpenPlace], parts: RunParts) -> None:
        """`places` are those that have lines or may get some, in the order in which they do."""
        self.places = places
        self._by_name = {place.name: place for place in places}
        self._batch, self._plan, self._lines = parts.batch, parts.plan, parts.lines
        self._journal, self._options, self._known = parts.journal, parts.options, parts.known
        self._is_pool, self._note, self._priced = parts.is_pool, parts.note, parts.priced
        self._journal.after_write = self._write_ledgers

        self._printed: set[int] = set()  # lines whose row was yielded
        self._events: SimpleQueue[BatchEvent] = SimpleQueue()
        for place in places:
            place.begin(parts, self._events)
            place.throttle.others_work = partial(self._others_work, place)

        self._assignment = Assignment(places, parts)
        self._place_of = self._assignment.place_of
        self._spending = BatchSpending(parts, self._assignment)
        self._grace = NO_LIMIT  # set when the batch only waits for creates under way
        self._fault: RebyteError | None = None  # what ended the whole batch
        self._budget_fault: RebyteError | None = None  # why the budget lets nothing be created
        # What an earlier run left: with a budget, lines whose tasks may have used more than the
        # journal says, and lines whose tasks are to be told what a check said.
        self._unread: set[int] = set()
        self._to_mend: list[int] = []
        self._signal: int | None = None
        self._interrupted = False
        self._leave_at_once = False

    def _write_ledgers(self, records: Sequence[Record]) -> None:
        for place in self.places:
            place.ledger.write(records)

    def _others_work(self, place: OpenPlace) -> bool:
        """Whether lines are at work elsewhere. Thread-safe."""
        return any(one.is_busy for one in self.places if one is not place)

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
                    for place in self.places:
                        if place.ledger.due.has_passed:
                            place.ledger.flush()
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
        if not all(entry.is_over for entry in self._lines.values()):
            faults = ((place, place.fault) for place in self.places)
            yield from (place.named(fault) for place, fault in faults if fault is not None)
        if self._fault is not None:
            yield self._fault

    def _start(self) -> Iterator[RowOrError]:
        """Yield what is over, take up what an earlier run began, hand out what is new."""
        self._restore_ledger()
        self._stop_spending(self._spending.count_earlier())
        self._have_services_count()
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
            if entry.state == "mending" and self._place_of(index).checks is not None:
                self._to_mend.append(index)
            elif entry.state in ("checking", "mending"):
                self._lines.move(index, "created")  # its end is read again
            if entry.state == "created":
                yield from self._watch(index, entry)
                if self._options.budget is not None:
                    self._unread.add(index)
        for index in self._plan.mine:
            if self._lines[index].is_lost:
                self._search(index, self._lines[index])
        if not all(self._lines[index].is_over for index in self._plan.mine):
            for place in self.places:
                place.watcher.start()
                place.searcher.start()
        for index in self._plan.mine:
            if index in self._plan.after:
                continue
            if self._lines[index].state == "new":
                self._assignment.add(index)
            elif self._lines[index].is_over:
                yield from self._advance(index)

    def _next_event(self, deadline: Deadline) -> BatchEvent | None:
        """The next event; None when something else is due first."""
        due = min(place.ledger.due.left() for place in self.places)
        wait = min(LISTEN, deadline.left(), self._grace.left(), due)
        try:
            return self._events.get(timeout=wait)
        except Empty:
            return None

    def _is_over(self) -> bool:
        if self._grace is not NO_LIMIT:
            return not self._lines.count("queued") or self._grace.has_passed
        is_busy = any(place.is_busy for place in self.places)
        return not is_busy and not self._assignment.may_continue

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
        for place in self.places:
            place.throttle.stop()
        self._grace = self._grace.within(grace)
        self._close_queue()

    def _unfinished(self) -> list[int]:
        return [index for index in self._plan.mine if index not in self._printed]

    def _remaining_rows(self) -> Iterator[RowOrError]:
        under_way = {number for place in self.places for number in place.ledger.under_way}
        for index in self._unfinished():
            if self._batch.lines[index].number in under_way:
                self._lines.move(index, "sending")
            yield self._row(index)

    def _close(self) -> None:
        """End every thread, then let the history know what there is to know."""
        for place in self.places:
            place.throttle.stop()
        threads = [each for place in self.places for each in place.threads]
        for each in threads:
            each.stop()
        limit = Deadline(0.0 if self._leave_at_once else JOIN)
        for each in threads:
            each.join(limit.left())
        for place in self.places:
            place.ledger.release_settled()
            place.ledger.flush()
        with suppress(RebyteError):  # the first failure of the journal was reported already
            self._journal.close()

    # The next step of a line

    def _row(self, index: int) -> Mapping[str, Any] | LineProblem:
        self._printed.add(index)
        line, entry = self._batch.lines[index], self._lines[index]
        return row_of(line, entry, self._priced, is_pool=self._is_pool)

    def _fill(self) -> bool:
        """Give the workers as many lines as may run; returns whether there were any."""
        for place in self.places:
            place.look_after()
        if not self._has_caught_up():
            return False
        are_any = False
        while (found := self._assignment.take()) is not None:
            index, place = found
            self._lines.move(index, "queued", place=place.name, begun_here=True)
            place.workers.put(Job(index, self._assignment.workspace_of(index)))
            are_any = True
        return are_any

    def _note_full(self) -> None:
        """Say why lines are left over that were never created."""
        if elsewhere := self._assignment.elsewhere():
            self._fault = self._fault or BadUsage(
                f"lines are left over that continue work at {', '.join(elsewhere)}",
                hint="Name it with --on to run them",
            )
        elif self._assignment.ready and not any(place.fault for place in self.places):
            unknown = self._lines.count("unknown")
            room = f"--max-running is {self._options.max_running}"
            self._note(
                f"{len(self._assignment.ready)} lines were not created: {unknown} with an unknown"
                f" outcome may still run, and {'no place has room' if self._is_pool else room}"
            )

    # The budget

    def _have_services_count(self) -> None:
        """Have the services that can do so keep the budget, too.

        All runs of this journal share one name, so that those whose batch was killed, and that work
        on, count for those that are created after it.
        """
        limits = self._options.budget.fields if self._options.budget else {}
        name = self._journal.name
        batch = {"id": name, "title": self._options.title, "lines": len(self._plan.mine)}
        for place in self.places:
            if place.options.limits_runs:
                place.workers.more = {**limits, "budgetOf": name, "batch": batch}

    def _has_caught_up(self) -> bool:
        """Whether it is known what the tasks that an earlier run left have used since.

        Nothing that would use more is sent before that: first what checks had to say to those
        tasks, then new lines.
        """
        self._unread = {
            index
            for index in self._unread
            if self._lines[index].state in ("created", "running", "mending")
            and self._place_of(index).fault is None
        }
        if self._to_mend and not self._unread:
            for index in self._to_mend:
                self._mend(index, self._lines[index])
            # A prompt may have been sent already, so that the task is at work.
            self._unread.update(self._to_mend if self._options.budget is not None else ())
            self._to_mend = []
        return not self._unread

    def _spend(self, index: int, task: Mapping[str, Any]) -> None:
        try:
            self._stop_spending(self._spending.count(index, task))
        except RebyteError as error:
            self._end_batch(error)

    def _stop_spending(self, fault: RebyteError | None) -> None:
        """Create nothing more if the budget does not allow it."""
        if fault is not None and not self._assignment.is_closed:
            self._budget_fault = fault
            self._close_queue()

    def _refuse_overspent(self) -> None:
        """Say that lines were left over for the budget, if any were."""
        left = sum(self._lines[index].state == "new" for index in self._unfinished())
        if left and self._fault is None and self._budget_fault is not None:
            lines = "1 line was" if left == 1 else f"{left} lines were"
            fault = self._budget_fault
            self._fault = fault.copy_with(message=f"{fault.message}; {lines} not created")

    def _search(self, index: int, entry: LineState) -> None:
        """Search for the task of a create that was not answered."""
        self._lines.move(index, "lost")
        place = self._place_of(index)
        place.ledger.doubt(self._batch.lines[index].number)
        lost = LostLine(
            index,
            entry.sent or "",
            place.options.send_again_after,
            self._assignment.workspace_of(index),
            tuple(entry.candidates),
        )
        place.searcher.add(index, lost)

    def _watch(self, index: int, entry: LineState) -> Iterator[RowOrError]:
        """Wait for the end of a task, if this run or a later line needs it."""
        place = self._place_of(index)
        is_wanted = self._options.wait or self._assignment.follower(index) is not None
        if self._grace is NO_LIMIT and place.fault is None and is_wanted:
            self._lines.move(index, "running", since=time.monotonic())
            place.watcher.add(index, WaitTarget(str(entry.id), entry.prompt))
        else:
            yield self._row(index)

    def _over(self, index: int) -> Iterator[RowOrError]:
        """A line is over: yield its row, and start what waited for it."""
        yield self._row(index)
        has_failed = self._options.fail_fast and self._lines[index].has_failed
        if has_failed and not self._assignment.is_closed:
            number = self._batch.lines[index].number
            self._note(f"Line {number} failed: no further creates")
            self._close_queue()
        yield from self._advance(index)

    def _advance(self, index: int) -> Iterator[RowOrError]:
        """Create the next line of the same workspace, skipping those whose leader failed."""
        place = index
        while (following := self._assignment.follower(place)) is not None:
            place = following
            entry = self._lines[place]
            if entry.is_over:
                continue
            if entry.state not in ("new", "skipped") or place in self._assignment.ready:
                return
            leader = self._plan.leader.get(place)
            if leader is not None:
                led_by = self._lines[leader]
                if led_by.status != "completed" or self._assignment.workspace_of(place) is None:
                    error = skipped_error(self._batch.lines[leader], led_by)
                    self._lines.move(place, "skipped", error=error)
                    yield self._row(place)
                    continue
            if entry.state == "skipped":  # its leader was over, and is another time
                self._lines.move(place, "new")
            self._assignment.add(place)
            return

    def _close_queue(self) -> None:
        """Hand nothing out any more, and take back what no worker has begun."""
        self._assignment.close()
        for place in self.places:
            place.throttle.stop_creates()
            for job in place.workers.take_back():
                self._back_to_new(job.line)

    def _back_to_new(self, index: int) -> None:
        """Take a line from the workers, if they have it."""
        if self._lines[index].state == "queued":
            self._make_new(index)

    def _make_new(self, index: int, **facts: Any) -> None:
        """A line has no task, and any place may have it."""
        place = self._place_of(index)
        self._lines.move(index, "new", **facts)
        self._assignment.unbind(index)
        place.ledger.not_created(self._batch.lines[index].number)

    # Events

    def _handle(self, event: BatchEvent) -> Iterator[RowOrError]:
        kind, index, value, place = event
        if kind == "crash":
            raise value
        if kind == "signal":
            self._interrupt(value)
        elif index is None:
            self._end_place(self._by_name[str(place)], value)
        elif kind in GIVEN_UP:
            yield from self._given_up(index, GIVEN_UP[kind], value)
        else:
            yield from getattr(self, f"_on_{kind}")(index, self._lines[index], value) or ()

    def _interrupt(self, number: int) -> None:
        """The first signal waits for creates under way; the second leaves at once."""
        if self._interrupted:
            self._leave_at_once = True
            raise Interrupted(128 + number)
        self._interrupted = True
        self._stop(GRACE[signal.Signals(number)])
        if under_way := sum(len(place.ledger.under_way) for place in self.places):
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

    def _end_place(self, place: OpenPlace, error: RebyteError) -> None:
        """Go on without a place, with its lines as they are; end the batch if it is the only one.

        So does anything that is not the fault of its service.
        """
        others = (one for one in self.places if one is not place)
        has_others = any(one.may_open or one.is_busy for one in others)
        if not (has_others and _is_of_place(error)):
            self._end_batch(place.named(error) if self._is_pool else error)
        elif place.fault is None:
            place.fault = error
            place.throttle.stop()
            for job in place.workers.take_back():
                self._back_to_new(job.line)
                self._assignment.add(job.line)
            self._note(f"{place.named(error).message}; the other places go on")

    # One for each other `EventKind` of a line: each returns the rows that the event brings, if any.

    def _on_created(self, index: int, entry: LineState, value: Any) -> Iterable[RowOrError]:
        task, is_taken = value
        line = self._batch.lines[index]
        if is_taken:
            self._take_from_others(index, str(task["id"]))
        self._lines.apply(index, created_record(line.number, task))
        self._place_of(index).ledger.created(line.number, str(task["id"]))
        if is_terminal(task.get("status")):
            return self._on_ended(index, entry, (task, ""))
        return self._watch(index, entry)

    def _take_from_others(self, index: int, task_id: str) -> None:
        """Warn if another line has what a create was answered with.

        The service knows best whose it is: a line that took it after a search is lost again.
        """
        number = self._batch.lines[index].number
        for at, entry in self._lines.items():
            if entry.id != task_id or at == index or entry.place != self._lines[index].place:
                continue
            other = self._batch.lines[at].number
            self._note(
                f"Line {number}: the service answered with task {task_id}, which line {other} has"
                + (" from a search; that line is searched for again" if entry.is_found else "")
            )
            if entry.is_found:
                self._record(at, {"line": other, "is": "unknown", "candidates": []})
                self._printed.discard(at)
                self._search(at, entry)

    def _on_refused(self, index: int, entry: LineState, error: RebyteError) -> Iterable[RowOrError]:
        self._lines.apply(index, {"is": "refused", "error": error_of(error)})
        number, ledger = self._batch.lines[index].number, self._place_of(index).ledger
        (ledger.doubt if entry.is_doubtful else ledger.not_created)(number)
        return self._over(index)

    def _on_unsent(self, index: int, _entry: LineState, _value: None) -> None:
        self._make_new(index)
        self._assignment.add(index)

    def _on_lost(self, index: int, entry: LineState, record: Record) -> None:
        self._lines.apply(index, record)
        self._search(index, entry)

    def _on_fatal(self, index: int, _entry: LineState, error: RebyteError) -> None:
        number, place = self._batch.lines[index].number, self._place_of(index)
        if number in place.ledger.under_way:
            self._lines.move(index, "sending")
            place.ledger.doubt(number)
        else:
            self._back_to_new(index)
            self._assignment.add(index)
        self._end_place(place, error)

    def _on_found(
        self, index: int, entry: LineState, task: Mapping[str, Any]
    ) -> Iterable[RowOrError]:
        line = self._batch.lines[index]
        self._note(f"Line {line.number}: the response was lost, but task {task['id']} exists")
        # A list shows no workspace, but the line may have asked for one.
        task = {
            **task,
            "workspaceId": task.get("workspaceId") or self._assignment.workspace_of(index),
        }
        place = self._place_of(index)
        # Before the line has its task: until then an equal one could take the same task.
        place.ledger.claim(task["id"])
        self._record(index, created_record(line.number, task, found=True))
        self._created(place, line, task, place.batch.body(line))
        return self._watch(index, entry)

    def _on_absent(self, index: int, entry: LineState, _value: None) -> None:
        if entry.resent == MOST_RESENDS:
            self._on_unknown(index, entry, [])
            return
        number = self._batch.lines[index].number
        self._note(f"Line {number}: no task was created; sending it again")
        self._note_down({"line": number, "is": "unsent"})
        self._make_new(index, resent=entry.resent + 1)
        self._assignment.add(index)

    def _on_unknown(self, index: int, entry: LineState, candidates: list[str]) -> None:
        """Its row comes at the end: the task may still be found."""
        number = self._batch.lines[index].number
        record: Record = {"line": number, "is": "unknown", "candidates": candidates}
        if entry.sent:
            record["at"] = self._place_of(index).clock.restamp(entry.sent)
        self._record(index, record)

    def _on_unsure(self, index: int, entry: LineState, candidates: list[str]) -> None:
        self._lines.move(index, entry.state, candidates=candidates)

    def _on_ended(self, index: int, entry: LineState, value: Any) -> Iterable[RowOrError]:
        task, reason = value
        # It may have turned out to be the task of another line.
        is_ours = task.get("id", entry.id) == entry.id
        if not is_ours or entry.state not in ("created", "running", "limited"):
            return ()
        line, place = self._batch.lines[index], self._place_of(index)
        if task.get("begun") is False and task.get("endedBy") == "budget" and entry.prompt is None:
            return self._not_begun(index, task, reason)
        if place.checks is not None and canonical_status(task.get("status")) == "completed":
            self._record(index, checking_record(line.number, task))
            self._spend(index, task)
            task = {**task, "workspaceId": entry.workspace or task.get("workspaceId")}
            place.checks.put(CheckJob(index, task, place.batch.body(line), line.schema))
            return ()
        return self._ended(
            index, task, ended_record(line.number, task, text_of_time(local_now()), reason)
        )

    def _not_begun(self, index: int, task: Mapping[str, Any], reason: str) -> Iterable[RowOrError]:
        """The budget was used up before a task did anything: its line gets another one later."""
        self._place_of(index).ledger.ended(task)
        self._spend(index, task)
        self._stop_spending(BudgetReached(reason))
        self._note_down({"line": self._batch.lines[index].number, "is": "unsent"})
        self._make_new(index)
        return ()  # its row comes at the end

    def _ended(self, index: int, task: Mapping[str, Any], record: Record) -> Iterable[RowOrError]:
        """Record that a line is over, as `record` says."""
        self._record(index, record)
        self._spend(index, task)
        self._place_of(index).ledger.ended(task)
        return self._over(index)

    def _on_used(self, index: int, entry: LineState, task: Mapping[str, Any]) -> None:
        is_ours = task.get("id") == entry.id and entry.state in ("running", "limited")
        if is_ours and not is_terminal(task.get("status")):  # else its end comes next
            self._unread.discard(index)
            resumes_at = text(task.get("resumesAt"))
            if resumes_at:
                self._place_of(index).limited.add(index)
            state = "limited" if resumes_at else "running"
            self._lines.move(index, state, resumes_at=resumes_at)
            self._spend(index, task)

    def _on_checked(self, index: int, entry: LineState, value: Any) -> Iterable[RowOrError]:
        task, verdict = value
        checks = self._place_of(index).checks
        if entry.state != "checking" or checks is None:
            return ()
        number, most = self._batch.lines[index].number, checks.tries
        tries = entry.tries + 1
        if verdict.status != "failed" or tries >= most:
            record = checked_record(number, task, text_of_time(local_now()), verdict, tries)
            return self._ended(index, task, record)
        record = {
            "line": number,
            "is": "mending",
            "tries": tries,
            "prompt": verdict.prompt(tries + 1, most),
            **verdict.fields(tries),
        }
        self._record(index, record)
        self._mend(index, entry)
        return ()

    def _mend(self, index: int, entry: LineState) -> None:
        """Send what a check said to the task of a line, at most once, whatever ends this run."""
        checks = self._place_of(index).checks
        assert checks is not None
        if self._budget_fault is not None:  # a run with a larger budget sends it
            self._events.put(BatchEvent("unmended", index, self._budget_fault))
        elif self._grace is NO_LIMIT:
            number = self._batch.lines[index].number
            key = f"check {self._journal.name} {number} {entry.id} {entry.tries}"
            checks.put(MendJob(index, str(entry.id), str(entry.told), key))

    def _on_mended(self, index: int, entry: LineState, prompt: str) -> Iterable[RowOrError]:
        if entry.state != "mending":
            return ()
        number = self._batch.lines[index].number
        self._record(index, {"line": number, "is": "mended", "prompt": prompt})
        return self._watch(index, entry)

    def _given_up(self, index: int, state: str, error: RebyteError) -> Iterable[RowOrError]:
        """Wait no longer for a task, unless it has turned out to be that of another line."""
        if state not in NEXT[self._lines[index].state]:
            return ()
        hint = {"hint": error.hint} if state == "waiting" else {}
        self._lines.move(index, state, error=error_of(error) | hint)
        return [self._row(index)]

    def _record(self, index: int, record: Record) -> None:
        """Move a line as a record says, which the journal gets."""
        self._note_down(record)
        self._lines.apply(index, record)

    def _note_down(self, record: Record) -> None:
        try:
            self._journal.append(record)
        except RebyteError as error:
            self._end_batch(error)

    # The ledger

    def _created(
        self, place: OpenPlace, line: InputLine, task: Mapping[str, Any], body: Mapping[str, Any]
    ) -> None:
        """Let the history know of a task that no create of this run was answered with."""
        place.ledger.answered(line.number, place.new_task(line, task, body))
        place.ledger.created(line.number, str(task["id"]))

    def _restore_ledger(self) -> None:
        """Tell the history what an earlier run could not tell it any more."""
        left = {
            place.name: place.ledger.load(self._known.get(place.name, ())) for place in self.places
        }
        for index in self._plan.mine:
            line, entry = self._batch.lines[index], self._lines[index]
            place = self._by_name.get(entry.place or "")
            if place is None:
                continue
            # All before the first scan: one that does not know of a line could take its task.
            if entry.is_lost or entry.is_doubtful:
                place.ledger.doubt(line.number)
            elif line.number in left[place.name] and entry.id is not None:
                task = {
                    "id": entry.id,
                    "workspaceId": entry.workspace,
                    "url": entry.url,
                    "status": entry.status,
                    "createdAt": entry.started,
                    "completedAt": entry.finished,
                }
                self._created(place, line, task, place.batch.body(line))
        for place in self.places:
            place.ledger.release_settled()

    # Progress and signals

    def progress(self, most: int) -> BatchProgress:
        """The progress of the batch. Thread-safe.

        `most` is the number of running tasks that are described, the oldest first.
        """
        now = time.monotonic()
        states = Counter((entry.state, entry.status) for entry in self._lines.values())
        over = {status: count for (state, status), count in states.items() if state in OVER}
        pending = self._lines.count("new", "skipped", "queued")
        running = [
            (entry.since, index) for index, entry in self._lines.items() if entry.state in AT_WORK
        ]
        return BatchProgress(
            total=states.total(),
            ended=sum(over.values()),
            created=states.total() - pending,
            failed=sum(count for status, count in over.items() if status != "completed"),
            running=len(running),
            oldest=[
                (*self._described(index), now - since) for since, index in nsmallest(most, running)
            ],
            paused=all(place.throttle.network_is_down for place in self.places),
            places=[place.described() for place in self.places] if self._is_pool else [],
            sought=self._lines.count("lost"),
            limited=self._lines.count("limited"),
            ended_here=sum(one.is_over and one.begun_here for one in self._lines.values()),
        )

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


def _is_of_place(error: RebyteError) -> bool:
    """Whether an error that ends creates concerns one service, and not this machine."""
    if isinstance(error, APIError):
        return error.code != OUT_OF_MEMORY
    return isinstance(error, KeyProblem) or error.code in NO_SERVICE
