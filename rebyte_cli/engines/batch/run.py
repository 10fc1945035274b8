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
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from queue import Empty
from typing import Any

from ...api.models import is_terminal, task_status
from ...errors import Interrupted, RebyteError, WaitTimeout
from .flow import Event, Flow, Row
from .state import Entry, Record, created_record, ended_record, error_of

GRACE = {signal.SIGINT: 30.0, signal.SIGTERM: 5.0}  # for creates under way, at an interrupt
# Seconds. Of two signals that come at once the system may give both to a worker, and then the
# main thread, which alone acts on them, sleeps on.
LISTEN = 0.5


class Batch(Flow):
    """One run over the lines of `plan.mine`. `entries` is where each stands, by its journal."""

    def run(self) -> Iterator[Row]:
        """The row of every line: those that ended earlier first, then each as it ends.

        A line that did not end well is a LineProblem, which carries its row. What ended the
        whole batch comes last as an error; an interrupt is raised.
        """
        restore = self._catch_signals()
        limit = self.wishes.timeout
        deadline = None if limit is None else time.monotonic() + limit
        try:
            yield from self._begin()
            while not self._is_over():
                event = self._next_event(deadline)
                if self._memory.due is not None and time.monotonic() >= self._memory.due:
                    self._memory.flush()
                if event is not None:
                    yield from self._handle(*event)
                elif deadline is not None and time.monotonic() >= deadline:
                    deadline = None
                    names = [str(self.lines[at].number) for at in self._unfinished()]
                    self._fault = WaitTimeout(
                        f"{len(names)} of {len(self.plan.mine)} lines not finished after "
                        f"{limit:g} s",
                        pending=names,
                        hint="the tasks run on; the same command goes on waiting",
                    )
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

    def _next_event(self, deadline: float | None) -> Event | None:
        """What happens next; None when something is due before."""
        now = time.monotonic()
        limits = (deadline, self._leave_by, self._memory.due)
        wait = min([LISTEN, *(limit - now for limit in limits if limit is not None)])
        try:
            return self._events.get(timeout=max(wait, 0))
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
        if is_terminal(task_status(task)):
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
        by = time.monotonic() + grace
        self._leave_by = by if self._leave_by is None else min(by, self._leave_by)
        self._close_down()

    def _is_over(self) -> bool:
        if self._leave_by is not None:
            return not self._handed or time.monotonic() >= self._leave_by
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
