"""A batch from its journal to its report: what `batch` does once its input is read."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..app import App
from ..engines.batch.state import Entry, LineProblem, check_record, created_record, row_of
from ..errors import BadUsage, Interrupted, RebyteError
from ._batch import Given, Resolution, again, header

if TYPE_CHECKING:
    from ..api.client import RebyteClient
    from ..engines.batch.flow import Wishes
    from ..engines.batch.input import Input
    from ..engines.batch.journal import Journal
    from ..engines.batch.plan import Plan

Row = Mapping[str, Any] | RebyteError
# Connections for those that watch and search, beside the one of each create.
SPARE = 12
RETRY_AFTER_CAP = 300.0  # seconds


class Run:
    """One run of `batch`: the lines, and where each stands."""

    def __init__(
        self,
        app: App,
        given: Given,
        batch: Input,
        plan: Plan,
        *,
        asked: Mapping[str, Any],
        report: str | None,
        tell: Callable[[str], None],
    ) -> None:
        """`asked` is what the options ask for, for every line that does not say otherwise.

        `tell` is told the summary when all is over; `report` is where a page of it goes.
        """
        self._app = app
        self._given = given
        self._batch = batch
        self._plan = plan
        # The journal tells whether two runs asked for the same, not what they asked for.
        self._asked = {name: _digest(value) for name, value in asked.items()}
        self._asked_before: Mapping[str, str] | None = None
        self._report = report
        self._tell = tell
        self._path = given.journal_path
        self._entries = {at: Entry() for at in plan.mine}
        self._by_number = {batch.lines[at].number: at for at in plan.mine}
        self._known: set[str] = set()

    def standing(self) -> Iterator[Row]:
        """Every line as the journal has it; the API is not asked and nothing is written."""
        from ..engines.batch.journal_file import holder, replay

        try:
            replay(self._path, self._header(), self._apply)
        except FileNotFoundError:
            self._app.note(f"Nothing was run yet: there is no {self._path}")
        except OSError as error:
            raise BadUsage(f"cannot read {self._path}: {error.strerror}") from None
        else:
            if running := holder(self._path):
                self._app.note(f"It is being run: {running}")
                for entry in self._entries.values():
                    if entry.state == "sending":  # under way, and no more than that
                        entry.reset("new")
        yield from self._rows()
        self._finish(None)

    def rows(
        self, wishes: Wishes, *, rate: float | None, settled: Sequence[Resolution]
    ) -> Iterator[Row]:
        """Run what is left, and give the row of every line as it ends."""
        from ..engines.batch.claims import Claims
        from ..engines.batch.flow import Outside
        from ..engines.batch.journal import Journal
        from ..engines.batch.pacing import Gate
        from ..engines.batch.run import Batch
        from ..engines.uploads import send
        from ..output.batch_view import Standing, shown

        # A short command lets the collector come late; a batch lasts, and would keep what the
        # service that it may carry has answered.
        gc.set_threshold(2000, 20, 20)
        app, began = self._app, time.monotonic()
        gate = Gate(rate=rate, note=app.note)
        client = app.client_for(
            pool=wishes.jobs + SPARE, retry_after_cap=RETRY_AFTER_CAP, sleep=gate.sleep
        )
        run = {"jobs": wishes.jobs, "asked": self._asked}
        journal = Journal(self._path, self._header(), run=run, each=self._apply)
        try:
            self._resolve(client, journal, settled)
        except BaseException:
            journal.close()
            raise
        self._say_what_is_left()
        outside = Outside(
            note=app.note,
            made=lambda tasks: app.history.add_tasks(tasks),
            ended=lambda tasks: app.history.update_tasks(tasks),
            knows=lambda ids: app.history.knows(ids),
            upload=lambda path: send(client, path),
            claims=Claims(app.history, f"batch {journal.name}"),
        )
        batch = Batch(
            client,
            self._batch,
            self._plan,
            self._entries,
            journal,
            gate,
            wishes,
            outside,
            known=self._known,
        )
        try:
            with shown(app.screen, lambda: Standing(**batch.standing())):
                yield from batch.run()
        except Interrupted as error:
            error.hint = f"`{again(app)}` goes on where this stopped"
            raise
        finally:
            self._finish(time.monotonic() - began)

    # -- before --------------------------------------------------------------------------------

    def _header(self) -> dict[str, Any]:
        return header(self._app, self._given, self._batch.digest)

    def _apply(self, record: Mapping[str, Any]) -> None:
        check_record(record)
        if "is" not in record:
            self._asked_before = record["run"].get("asked")
        at = self._by_number.get(record.get("line", 0))
        if at is not None:
            self._entries[at].apply(record)
            if record.get("is") == "created":
                self._known.add(str(record.get("id")))

    def _resolve(
        self, client: RebyteClient, journal: Journal, settled: Sequence[Resolution]
    ) -> None:
        """Settle lines by hand. A task's id is looked up first, so that a slip costs nothing."""
        records = []
        for at, task_id in settled:
            number, entry = self._batch.lines[at].number, self._entries[at]
            if task_id == entry.id and entry.state in ("new", "running", "ended"):
                continue  # the same command again, after an interrupt
            if not (entry.is_lost or entry.is_doubtful):
                word = {"new": "not created yet"}.get(entry.state) or entry.status
                raise BadUsage(f"--resolve: line {number} is {word}: there is nothing to resolve")
            if task_id in self._known:
                raise BadUsage(f"--resolve: task {task_id} belongs to another line")
            if task_id is None:
                records.append({"line": number, "is": "unsent", "by": "hand"})
            else:
                task = {**self._app.with_workspace(client.get_task(task_id)), "id": task_id}
                records.append(created_record(number, task, by="hand"))
        if records:
            journal.commit(*records)
            for record in records:
                self._apply(record)

    def _say_what_is_left(self) -> None:
        entries = list(self._entries.values())
        if all(entry.state == "new" for entry in entries):
            return
        words = [f"{sum(entry.is_over for entry in entries)} of {len(entries)} lines are done"]
        if lost := sum(entry.is_lost for entry in entries):
            words.append(f"{lost} have no known outcome and are looked for")
        self._app.note(f"Going on from {self._path}: {', '.join(words)}")
        before, now = self._asked_before, self._asked
        if isinstance(before, Mapping) and not all(entry.is_over for entry in entries):
            other = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
            if other:
                self._app.note(
                    "This run does not ask for what the one before it asked for"
                    f" ({', '.join(other)}); lines that have a task keep it"
                )

    # -- after ---------------------------------------------------------------------------------

    def _rows(self) -> Iterator[Mapping[str, Any]]:
        for at, entry in self._entries.items():
            row = row_of(self._batch.lines[at], entry)
            yield row.record if isinstance(row, LineProblem) else row

    def _finish(self, seconds: float | None) -> None:
        from ..output import batch_report
        from ..output.batch_view import span

        took = "" if seconds is None else f" ({span(seconds)})"
        self._tell(batch_report.counts(self._rows()) + took)
        if self._report:
            batch_report.write(self._report, self._given.name, list(self._rows()))


def _digest(value: Any) -> str:
    import hashlib
    import json

    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
