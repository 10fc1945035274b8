"""Many tasks out of one file, each line once, whatever happens in between.

    main thread      owns the state of every line; hands lines out, prints what ended
    create-N         send one line at a time, with a synced record before and after
    journal          writes the records, one sync for those of a moment
    watch, search    ask for the ends of running tasks; look for lost answers
The others only report to the first; nothing but the journal is shared between runs.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

from ..api.models import is_terminal
from ..deadline import NO_LIMIT, Deadline
from ..errors import Interrupted, RebyteError
from .claims import Reservations
from .input import Input, Plan
from .poller import watching
from .search import Finder, Lost, searching
from .state import (
    LOST,
    Entry,
    Record,
    created_record,
    ended_record,
    error_of,
    row_of,
    skipped_error,
)
from .throttle import Throttle
from .workers import Job, Upload, WorkerPool

if TYPE_CHECKING:
    from ..api.client import RebyteClient
    from .claims import Reservations
    from .journal import Journal


# -- What the history is told of a batch: a little later than the journal, never earlier.

PAUSE = 0.25  # seconds
MOST = 100
Task = Mapping[str, Any]
Made = Callable[[list[tuple[Task, str, Task]]], None]  # tasks, their prompts, their bodies
Ended = Callable[[list[Task]], None]


class HistoryWriter:
    """Gathers tasks and hands them on in parcels, each when the journal has all of it."""

    def __init__(self, journal: Journal, claims: Reservations, made: Made, ended: Ended) -> None:
        self._journal = journal
        self._claims = claims
        self._tell_made = made
        self._tell_ended = ended
        self._made: list[tuple[Task, str, Task]] = []
        self._ended: list[Task] = []
        self.due = NO_LIMIT  # when to call `flush` at the latest

    def made(self, number: int, task: Task, body: Task) -> None:
        """A task was created for a line, and noted in the journal."""
        self._claims.over(number, str(task["id"]))
        self._made.append((task, body["prompt"], body))
        self._later()

    def not_made(self, number: int) -> None:
        """A line has no task, and nothing of it is under way."""
        self._claims.over(number)
        self._later()

    def ended(self, task: Task) -> None:
        """A task ended. Only what the history keeps is held: answers can be long."""
        names = ("id", "title", "status", "completedAt")
        self._ended.append({name: task[name] for name in names if name in task})
        self._later()

    def flush(self) -> None:
        """Hand on what was gathered. A journal that fails is for others to report."""
        self.due = NO_LIMIT
        made, ended = self._made, self._ended
        self._made, self._ended = [], []
        with suppress(RebyteError):
            self._journal.settle()
            if made:
                self._tell_made(made)
            if ended:
                self._tell_ended(ended)
            self._claims.flush()

    def _later(self) -> None:
        if self.due is NO_LIMIT:
            self.due = Deadline(PAUSE)
        if len(self._made) + len(self._ended) >= MOST:
            self.flush()


# -- What a batch does next: which line is created when, who is waited for, who is skipped.

SEND_AGAIN_AFTER = 900.0  # seconds; as `create --once`
Row = Mapping[str, Any] | RebyteError
Event = tuple[str, int | None, Any]


class Options(NamedTuple):
    """How a batch is to run. Times in seconds."""

    jobs: int = 8
    wait: bool = True
    timeout: float | None = None
    fail_fast: bool = False
    retry_failed: bool = False
    send_again_after: float = SEND_AGAIN_AFTER


class Callbacks(NamedTuple):
    """What a batch tells others, and asks them.

    `note`: a line for people. `made`: new tasks, each with its prompt and body. `ended`: tasks
    that ended. `knows`: those of the ids that are tasks made from here. `upload`: a path to
    `{"id", "filename"}`. `claims`: what others here must know of creates under way.
    """

    note: Callable[[str], None]
    made: Made
    ended: Ended
    knows: Callable[[Iterable[str]], set[str]]
    upload: Upload
    claims: Reservations


GRACE = {signal.SIGINT: 30.0, signal.SIGTERM: 5.0}  # for creates under way, at an interrupt
# Seconds. Of two signals that come at once the system may give both to a worker, and then the
# main thread, which alone acts on them, sleeps on.
LISTEN = 0.5


class Runner:
    """One run over the lines of `plan.mine`. `entries` is where each stands, by its journal.

    Only the main thread calls this.
    """

    def __init__(
        self,
        client: RebyteClient,
        batch: Input,
        plan: Plan,
        entries: Mapping[int, Entry],
        journal: Journal,
        gate: Throttle,
        wishes: Options,
        outside: Callbacks,
        *,
        known: Iterable[str] = (),
    ) -> None:
        """`known` are the ids of every task that the journal names, replaced ones too."""
        self.lines = batch.lines
        self._batch = batch
        self.plan = plan
        self.entries = entries
        self.gate = gate
        self.wishes = wishes
        self.printed: set[int] = set()
        self.running: dict[int, float] = {}  # watched lines, and since when
        self._journal = journal
        self._outside = outside
        self._events: SimpleQueue[Event] = SimpleQueue()
        journal.beside = outside.claims.write
        self._creators = WorkerPool(
            client,
            batch,
            journal,
            outside.claims,
            gate,
            self._report,
            count=wishes.jobs,
            upload=outside.upload,
        )
        self._creators.known.update(known)
        self._memory = HistoryWriter(journal, outside.claims, outside.made, outside.ended)
        self._sought: set[int] = set()
        finder = Finder(
            client,
            batch,
            mine=plan.mine,
            flying=self._creators.flying,
            sought=self._sought,
            ours=self._creators.known,
            knows=outside.knows,
            rivals=outside.claims.of_others,
        )
        self._watch = watching(client, gate, self._report)
        self._search = searching(client, gate, self._report, finder)
        self._next = {before: at for at, before in plan.after.items()}
        self._handed: set[int] = set()
        self._closed = False  # nothing more is handed out
        self._leave_by = NO_LIMIT  # leave then, or when the creates under way have ended
        self._fault: RebyteError | None = None
        self._signal: int | None = None
        self._told_to_stop = False

    def _report(self, kind: str, at: int | None, value: Any) -> None:
        """Called by any thread: something happened to a line, or to all."""
        self._events.put((kind, at, value))

    # -- what comes next -----------------------------------------------------------------------

    def _begin(self) -> Iterator[Row]:
        self._take_up_claims()
        retry = self.wishes.retry_failed
        for at in self.plan.mine:
            entry = self.entries[at]
            if retry and entry.is_doubtful:
                self._seek(at, entry, 0.0)
                entry.apply({"is": "unknown"})
            elif retry and entry.has_failed:
                entry.reset("new")
            elif entry.is_over:
                yield self._row(at)
        for at in self.plan.mine:
            entry = self.entries[at]
            if entry.state == "running":
                yield from self._follow(at, entry)
            elif entry.state in LOST and at not in self._sought:
                self._seek(at, entry, self.wishes.send_again_after)
        for at in self.plan.mine:
            if at in self.plan.after:
                continue
            if self.entries[at].state == "new":
                self._hand_out(at)
            elif self.entries[at].is_over:
                yield from self._advance(at)

    def _take_up_claims(self) -> None:
        """Tell the history what an earlier run could not tell it any more."""
        left = self._outside.claims.left()
        for at in self.plan.mine if left else ():
            line, entry = self.lines[at], self.entries[at]
            if line.number in left and entry.id is not None:
                task = {
                    "id": entry.id,
                    "workspaceId": entry.workspace,
                    "url": entry.url,
                    "status": entry.status,
                    "createdAt": entry.started,
                    "completedAt": entry.finished,
                }
                self._memory.made(line.number, task, self._batch.body(line))
        self._outside.claims.keep_only(self._claimed())
        self._outside.claims.expect(
            (self.lines[at].number, self._batch.body(self.lines[at])["prompt"])
            for at in self.plan.mine
            if self.entries[at].state == "new"
        )

    def _claimed(self) -> set[int]:
        """The numbers of the lines that may have a task which nobody knows."""
        return {
            self.lines[at].number
            for at in self.plan.mine
            if at in self._creators.flying
            or self.entries[at].is_lost
            or self.entries[at].is_doubtful
        }

    def _hand_out(self, at: int) -> None:
        if self._closed:
            return
        self._handed.add(at)
        self._creators.put(Job(at, self._asked_for(at)))

    def _asked_for(self, at: int) -> str | None:
        """The workspace that a line asks for, as far as it is known; None for a new one, too.

        All lines of a chain share one, and what one of them was told holds for the others.
        """
        leader = self.plan.leader.get(at)
        while leader is not None:
            if self.entries[leader].workspace is not None:
                return self.entries[leader].workspace
            at, leader = leader, self.plan.leader.get(leader)
        return self.lines[at].workspace

    def _seek(self, at: int, entry: Entry, patience: float) -> None:
        self._sought.add(at)
        self._search.add(at, Lost(at, entry.sent or "", patience, self._asked_for(at)))

    def _follow(self, at: int, entry: Entry) -> Iterator[Row]:
        """Wait for a task that runs, if anybody wants to know its end."""
        if self._leave_by is NO_LIMIT and (self.wishes.wait or at in self._next):
            self.running[at] = time.monotonic()
            self._watch.add(at, str(entry.id))
        else:
            yield self._row(at)

    def _over(self, at: int) -> Iterator[Row]:
        yield self._row(at)
        if self.wishes.fail_fast and self.entries[at].has_failed and not self._closed:
            self._outside.note(f"Line {self.lines[at].number} failed: no further creates")
            self._close_down()
        yield from self._advance(at)

    def _advance(self, at: int) -> Iterator[Row]:
        """Go on behind a line that is over: create the next of its workspace, or skip it."""
        place = at
        while (following := self._next.get(place)) is not None:
            place = following
            entry = self.entries[place]
            if entry.is_over:
                continue
            if entry.state != "new" or place in self._handed:
                return
            leader = self.plan.leader.get(place)
            if leader is not None:
                first = self.entries[leader]
                if first.status != "completed" or self._asked_for(place) is None:
                    entry.error = skipped_error(self.lines[leader], first)
                    yield self._row(place)
                    continue
            self._hand_out(place)
            return

    def _close_down(self) -> None:
        """Hand nothing out any more, and take back what no worker has begun."""
        self._closed = True
        self.gate.shut()
        self._handed.difference_update(job.at for job in self._creators.take_back())

    def _row(self, at: int) -> Row:
        self.printed.add(at)
        return row_of(self.lines[at], self.entries[at])

    def run(self) -> Iterator[Row]:
        """The row of every line: those that ended earlier first, then each as it ends.

        A line that did not end well is a LineProblem, which carries its row. What ended the
        whole batch comes last as an error; an interrupt is raised.
        """
        restore = self._catch_signals()
        deadline = Deadline(self.wishes.timeout)
        try:
            yield from self._begin()
            while not self._is_over():
                event = self._next_event(deadline)
                if self._memory.due.has_passed:
                    self._memory.flush()
                if event is not None:
                    yield from self._handle(*event)
                elif deadline.has_passed:
                    names = [str(self.lines[at].number) for at in self._unfinished()]
                    self._fault = deadline.error(
                        f"{len(names)} of {len(self.plan.mine)} lines not finished after",
                        pending=names,
                        hint="the tasks run on; the same command goes on waiting",
                    )
                    deadline = NO_LIMIT
                    self._stop(GRACE[signal.SIGINT])
            yield from self._rest()
        finally:
            restore()
            self._close()
        if self._signal is not None:
            raise Interrupted(128 + self._signal)
        if self._fault is not None:
            yield self._fault

    # -- events --------------------------------------------------------------------------------

    def _next_event(self, deadline: Deadline) -> Event | None:
        """What happens next; None when something is due before."""
        wait = min(LISTEN, deadline.left(), self._leave_by.left(), self._memory.due.left())
        try:
            return self._events.get(timeout=wait)
        except Empty:
            return None

    def _handle(self, kind: str, at: int | None, value: Any) -> Iterator[Row]:
        if kind == "crash":
            raise value
        if at is not None and kind == "lost":
            self._sought.add(at)  # before it leaves the others: whoever searches looks at both
        if at is not None and kind in ("created", "refused", "unsent", "lost", "fatal"):
            self._handed.discard(at)
            self._creators.flying.discard(at)
        if at is not None and kind == "fatal":  # nothing was sent, or it was refused
            self._memory.not_made(self.lines[at].number)
        if at is None or kind == "fatal":
            self._end_by(kind, value)
            return
        yield from getattr(self, f"_on_{kind}")(at, self.entries[at], value)

    def _end_by(self, kind: str, value: Any) -> None:
        if kind == "signal":
            if self._told_to_stop:
                raise Interrupted(128 + value)
            self._told_to_stop = True
            self._stop(GRACE[value])
            if under_way := len(self._creators.flying):
                creates = "1 create" if under_way == 1 else f"{under_way} creates"
                self._outside.note(
                    f"Stopping: waiting for {creates} under way; "
                    "once more leaves at once, and the next run looks for them"
                )
        elif self._fault is None:
            self._fault = value
            self._stop(GRACE[signal.SIGINT])

    def _on_created(self, at: int, entry: Entry, value: Any) -> Iterator[Row]:
        body, task = value
        entry.apply(created_record(self.lines[at].number, task))
        self._memory.made(self.lines[at].number, task, body)
        if is_terminal(task.get("status")):
            yield from self._on_ended(at, entry, task)
        else:
            yield from self._follow(at, entry)

    def _on_refused(self, at: int, entry: Entry, error: RebyteError) -> Iterator[Row]:
        entry.apply({"is": "refused", "error": error_of(error)})
        if not entry.is_doubtful:
            self._memory.not_made(self.lines[at].number)
        yield from self._over(at)

    def _on_unsent(self, at: int, entry: Entry, _value: None) -> Iterator[Row]:
        entry.reset("new")
        self._memory.not_made(self.lines[at].number)
        self._hand_out(at)
        yield from ()

    def _on_lost(self, at: int, entry: Entry, sent: str) -> Iterator[Row]:
        entry.apply({"is": "sending", "at": sent})
        self._seek(at, entry, self.wishes.send_again_after)
        yield from ()

    def _on_found(self, at: int, entry: Entry, task: Mapping[str, Any]) -> Iterator[Row]:
        number = self.lines[at].number
        self._outside.note(f"Line {number}: its answer was lost, but task {task['id']} was found")
        # Lists show no workspace, but a line may have asked for one.
        task = {**task, "workspaceId": task.get("workspaceId") or self._asked_for(at)}
        record = created_record(number, task, found=True)
        self._note_down(record)
        self._creators.known.add(task["id"])
        self._sought.discard(at)  # only now: until then a twin could take the same task
        entry.apply(record)
        self._memory.made(number, task, self._batch.body(self.lines[at]))
        yield from self._follow(at, entry)

    def _on_absent(self, at: int, entry: Entry, _value: None) -> Iterator[Row]:
        self._sought.discard(at)
        number = self.lines[at].number
        self._outside.note(f"Line {number}: its create made no task; sending it again")
        self._note_down({"line": number, "is": "unsent"})
        yield from self._on_unsent(at, entry, None)

    def _on_unknown(self, at: int, entry: Entry, candidates: list[str]) -> Iterator[Row]:
        self._sought.discard(at)
        record = {"line": self.lines[at].number, "is": "unknown", "candidates": candidates}
        self._note_down(record)
        entry.apply(record)
        yield from ()  # its row comes at the end: it may still be found

    def _on_unsure(self, _at: int, entry: Entry, candidates: list[str]) -> Iterator[Row]:
        entry.candidates = candidates
        yield from ()

    def _on_ended(self, at: int, entry: Entry, task: Mapping[str, Any]) -> Iterator[Row]:
        self.running.pop(at, None)
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        record = ended_record(self.lines[at].number, task, now)
        self._note_down(record)
        entry.apply(record)
        self._memory.ended(task)
        yield from self._over(at)

    def _on_unreadable(self, at: int, entry: Entry, error: RebyteError) -> Iterator[Row]:
        self.running.pop(at, None)
        entry.error = error_of(error)
        yield self._row(at)

    def _note_down(self, record: Record) -> None:
        try:
            self._journal.append(record)
        except RebyteError as error:
            self._end_by("fatal", error)

    # -- the end -------------------------------------------------------------------------------

    def _stop(self, grace: float) -> None:
        """Create nothing more, wait for nothing but the creates under way."""
        self.gate.stop()
        self._leave_by = self._leave_by.within(grace)
        self._close_down()

    def _is_over(self) -> bool:
        if self._leave_by is not NO_LIMIT:
            return not self._handed or self._leave_by.has_passed
        return not (self._handed or self.running or self._sought)

    def _unfinished(self) -> list[int]:
        return [at for at in self.plan.mine if at not in self.printed]

    def _rest(self) -> Iterator[Row]:
        for at in self._unfinished():
            if at in self._creators.flying:
                self.entries[at].state = "sending"
            yield self._row(at)

    def _close(self) -> None:
        self.gate.stop()
        self._creators.end()
        self._watch.stop()
        self._search.stop()
        self._outside.claims.keep_only(self._claimed())
        self._memory.flush()
        with suppress(RebyteError):  # the first failure of the journal was told already
            self._journal.close()

    def standing(self) -> dict[str, Any]:
        """Where the batch stands, as `output.batch_view.Standing` takes it; any thread may ask."""
        now = time.monotonic()
        entries = [self.entries[at] for at in self.plan.mine]
        running = sorted((since, at) for at, since in list(self.running.items()))
        return {
            "total": len(entries),
            "ended": sum(entry.is_over for entry in entries),
            "created": sum(entry.state != "new" for entry in entries),
            "failed": sum(entry.has_failed for entry in entries),
            "running": [(self._name(at), now - since) for since, at in running],
            "paused": self.gate.is_down,
            "sought": len(self._sought),
        }

    def _name(self, at: int) -> str:
        line, entry = self.lines[at], self.entries[at]
        name = f"line {line.number}" if line.key == str(line.number) else line.key
        return f"{name}  {entry.url or entry.id}"

    def _catch_signals(self) -> Callable[[], None]:
        """Take SIGINT and SIGTERM as events; the second one ends everything at once."""

        def caught(number: int, _frame: object) -> None:
            # Told as an event too: what is raised may come where errors are put up with.
            self._events.put(("signal", None, number))
            if self._signal is not None:
                raise Interrupted(128 + number)
            self._signal = number

        before = {number: signal.signal(number, caught) for number in GRACE}

        def restore() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        return restore
