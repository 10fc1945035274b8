"""One call of `rebyte batch`: from the input and its journal to the results and the report."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import repeat
from typing import TYPE_CHECKING, Any

from ..errors import BadUsage, Interrupted, RebyteError
from .preflight import refuse_other_shards
from .process_limits import SPARE_CONNECTIONS, affordable_jobs
from .resolutions import Resolution
from .results_file import ResultsFile
from .state import (
    LineProblem,
    LineState,
    check_record,
    counts,
    created_record,
    row_of,
    shared_reasons,
    tally,
)

if TYPE_CHECKING:
    from ..api.client import RebyteClient
    from ..app import App
    from ..output.records import RowOrError
    from ..tasks.question_watch import QuestionWatcher
    from .callbacks import Callbacks
    from .input import Input, InputSource
    from .journal import Journal
    from .options import BatchOptions
    from .plan import Plan
    from .runner import Runner

ANSWERED = frozenset({"completed", "failed"})  # statuses of tasks that may have an answer
RETRY_AFTER_CAP = 300.0  # seconds


class Session:
    """The lines of one batch, and where each stands."""

    def __init__(
        self,
        app: App,
        source: InputSource,
        batch: Input,
        plan: Plan,
        *,
        asked: Mapping[str, Any],
        results: str | None,
        report: str | None,
        summary: Callable[[str], None],
    ) -> None:
        """`asked` is what the options ask for, for every line that does not say otherwise.

        `results` is the file that takes the rows instead of stdout, and `report` the one for a
        report. `summary` is called with each line of the counts when everything is over.
        """
        self._app = app
        self._source = source
        self._batch = batch
        self._plan = plan
        # The journal records whether two runs asked for the same, not what they asked for.
        self._asked = {name: _digest(value) for name, value in asked.items()}
        self._asked_before: Mapping[str, str] | None = None
        self._input_before: Mapping[str, Any] | None = None
        self._results = results
        self._report = report
        self._summary = summary
        self._path = source.journal_path
        self._entries = {index: LineState() for index in plan.mine}
        self._by_number = {batch.lines[index].number: index for index in plan.mine}
        self._known: set[str] = set()

    def status(self) -> Iterator[RowOrError]:
        """Every line as the journal has it. Sends nothing and writes nothing but a report."""
        from .journal import holder
        from .journal_format import replay

        try:
            replay(self._path, self._header(), self._apply, self._batch.fingerprint.begins_with)
        except FileNotFoundError:
            self._app.note(f"Nothing has run yet: there is no {self._path}")
        except OSError as error:
            raise BadUsage(f"cannot read {self._path}: {error.strerror}") from None
        else:
            if running := holder(self._path):
                self._app.note(f"Running now: {running}")
                for entry in self._entries.values():
                    if entry.state == "sending":  # under way, and no more than that
                        entry.reset("new")
        yield from self._rows()
        self._finish(None, None)

    def run(
        self,
        options: BatchOptions,
        *,
        rate: float | None,
        resolutions: Sequence[Resolution],
        questions: QuestionWatcher | None,
    ) -> Iterator[RowOrError]:
        """Run what is left, and yield the row of every line as it ends.

        `questions` notices tasks that wait for an answer. Raises InputHeld or JournalHeld while
        another run may create the same lines.
        """
        with self._input_lock():
            yield from self._run(options, rate, resolutions, questions)

    def _run(
        self,
        options: BatchOptions,
        rate: float | None,
        resolutions: Sequence[Resolution],
        questions: QuestionWatcher | None,
    ) -> Iterator[RowOrError]:
        from .runner import Runner
        from .throttle import Throttle

        # A short command lets the collector come late; a batch lasts, and would keep what the
        # local service in this process has answered. What was imported stays, so it need not be
        # looked at again and again.
        if hasattr(gc, "freeze"):  # PyPy has none of these
            gc.freeze()
            gc.set_threshold(5000, 20, 20)
        app, began = self._app, time.monotonic()
        options = options._replace(jobs=self._affordable(options.jobs))
        throttle = Throttle(rate=rate, note=app.note)
        client = app.client_for(
            pool=options.jobs + SPARE_CONNECTIONS,
            retry_after_cap=RETRY_AFTER_CAP,
            sleep=throttle.sleep,
        )
        run = {
            "jobs": options.jobs,
            "asked": self._asked,
            "input": self._batch.fingerprint.mark,
        }
        journal = self._open_journal(run)
        results: ResultsFile | None = None
        try:
            self._resolve(client, journal, resolutions)
            if self._results is not None:
                results = ResultsFile(self._results, app.fields)
        except BaseException:
            journal.close()
            raise
        self._say_what_is_left()
        runner = Runner(
            client,
            self._batch,
            self._plan,
            self._entries,
            journal,
            throttle,
            options,
            self._callbacks(client, journal, questions),
            known=self._known,
        )
        rows = runner.run()
        is_whole = False
        try:
            with self._progress(runner):
                yield from rows if results is None else results.take(rows)
            is_whole = True
        except Interrupted as error:
            hint = f"Resume with `{_command_line(app)}`"
            raise Interrupted(error.exit_status, hint=hint) from None
        finally:
            rows.close()
            self._finish(time.monotonic() - began, client if is_whole else None)

    def _callbacks(
        self, client: RebyteClient, journal: Journal, questions: QuestionWatcher | None
    ) -> Callbacks:
        from ..tasks.upload import send
        from .callbacks import Callbacks
        from .reservations import Reservations

        history = self._app.history
        return Callbacks(
            note=self._app.note,
            tasks_created=history.add_tasks,
            tasks_ended=history.update_tasks,
            known_ids=history.knows,
            tasks_with_prompt=history.tasks_with_prompt,
            upload=lambda path: send(client, path),
            reservations=Reservations(history, f"batch {journal.name}"),
            questions=questions,
        )

    # Before the run

    @contextmanager
    def _input_lock(self) -> Iterator[None]:
        """Keep other runs from the lines of this file, whatever journal they have."""
        from ..config.atomic import LocksUnusable
        from .input_lock import InputHeld, input_lock
        from .journal import JournalHeld, holder

        app, source = self._app, self._source
        folder = app.state_dir / "batches"
        with ExitStack() as stack:
            try:
                lock = input_lock(folder, source.file, source.shard, app.settings.origin)
                stack.enter_context(lock)
            except InputHeld as error:
                # The journal knows more about the run that has it.
                if error.is_same_shard and (running := holder(self._path)):
                    raise JournalHeld(self._path, running) from None
                raise
            except LocksUnusable:
                raise
            except RebyteError as problem:
                app.note(
                    f"{problem.message}; a second run with another journal cannot be prevented"
                )
            yield

    def _open_journal(self, run: Mapping[str, Any]) -> Journal:
        """Open the journal. BadUsage if one of another number of shards appeared meanwhile."""
        from .journal import Journal
        from .journal_format import is_blank

        is_new = not self._path.exists()
        if self._path.is_file() and is_blank(self._path):
            self._refuse_emptied()
        journal = Journal(
            self._path,
            self._header(),
            run=run,
            each=self._apply,
            begins_with=self._batch.fingerprint.begins_with,
        )
        try:
            # Checked again: another machine has its own locks, so a run may have started there.
            refuse_other_shards(self._source)
        except BaseException:
            journal.close()
            if is_new:
                self._path.unlink(missing_ok=True)
            raise
        return journal

    def _refuse_emptied(self) -> None:
        """Raise BadUsage for a journal without a run if lines of the file were sent before."""
        from ..once.match import digest_of

        history = self._app.history
        for index in self._plan.mine:
            digest = digest_of(str(self._batch.body(self._batch.lines[index])["prompt"]))
            if history.was_sent(digest):
                raise BadUsage(
                    f"the journal {self._path} is empty or damaged, but line"
                    f" {self._batch.lines[index].number} was sent before",
                    hint="Restore it from a backup. To start over, with a new task for every line,"
                    " delete it.",
                )

    def _header(self) -> dict[str, Any]:
        """What the journal must belong to: this input, this part of it, this account."""
        number, of = self._source.shard
        settings = self._app.settings
        return {
            "input": self._batch.fingerprint.whole,
            "shard": f"{number}/{of}",
            "profile": settings.profile,
            "origin": settings.origin,
        }

    def _apply(self, record: Mapping[str, Any]) -> None:
        """Take over a record of an earlier run. ValueError for one that no run has written."""
        check_record(record)
        if "is" not in record:
            self._asked_before = record["run"].get("asked")
            self._input_before = record["run"].get("input")
        index = self._by_number.get(record.get("line", 0))
        if index is not None:
            self._entries[index].apply(record)
            if record.get("is") == "created":
                self._known.add(str(record.get("id")))

    def _affordable(self, jobs: int) -> int:
        """How many of so many jobs can run here; says so if that is fewer."""
        has_files = any(line.paths for line in self._batch.lines)
        is_local = self._app.settings.is_local
        found, lack = affordable_jobs(jobs, has_files=has_files, is_local=is_local)
        if found < jobs:
            self._app.note(f"Running {found} jobs instead of {jobs}, for lack of {lack}")
        return found

    def _resolve(
        self, client: RebyteClient, journal: Journal, resolutions: Sequence[Resolution]
    ) -> None:
        """Settle lines by hand. A task's id is looked up first, so that a slip costs nothing."""
        records = []
        for index, task_id in resolutions:
            number, entry = self._batch.lines[index].number, self._entries[index]
            if task_id == entry.id and entry.state in ("new", "running", "ended"):
                continue  # the same command again, after an interrupt
            if not (entry.is_lost or entry.is_doubtful):
                status = {"new": "not created yet"}.get(entry.state) or entry.status
                raise BadUsage(f"--resolve: line {number} is {status}, so nothing needs resolving")
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
        if running := sum(entry.state == "running" for entry in entries):
            words.append(f"{running} running")
        if lost := sum(entry.is_lost for entry in entries):
            words.append(f"searching for {lost} with unknown outcome")
        if added := self._added_since():
            words.append(f"{added} added since")
        self._app.note(f"Resuming from {self._path}: {', '.join(words)}")
        before, now = self._asked_before, self._asked
        if isinstance(before, Mapping) and not all(entry.is_over for entry in entries):
            other = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
            if other:
                self._app.note(
                    f"The options differ from those of the last run ({', '.join(other)});"
                    " lines that have a task keep it"
                )

    def _added_since(self) -> int:
        """How many of our lines were appended to the file since the last run."""
        before = (self._input_before or {}).get("lines")
        return 0 if before is None else sum(number > before for number in self._by_number)

    def _progress(self, runner: Runner) -> Any:
        from ..output.progress import BatchProgress, batch_board

        return batch_board(self._app.console, lambda most: BatchProgress(**runner.progress(most)))

    # After the run

    def _rows(self) -> Iterator[Mapping[str, Any]]:
        for index, entry in self._entries.items():
            row = row_of(self._batch.lines[index], entry)
            yield row.row if isinstance(row, LineProblem) else row

    def _finish(self, seconds: float | None, client: RebyteClient | None) -> None:
        """Print the counts, with reasons that lines share, and write the report.

        The report has answers if there is a client to read them.
        """
        from ..output.table import duration

        took = "" if seconds is None else f" ({duration(seconds)})"
        ends = tally(self._rows())
        self._summary(counts(ends) + took)
        for line in shared_reasons(ends):
            self._summary(line)
        if self._report:
            self._write_report(self._report, client)

    def _write_report(self, path: str, client: RebyteClient | None) -> None:
        from ..output.progress import spinner
        from .answers import LineTexts, excerpt, read_answers
        from .report import write

        rows, lines = list(self._rows()), [self._batch.lines[index] for index in self._entries]
        prompts = (str(self._batch.body(line)["prompt"]) for line in lines)
        answers: Iterable[str | None] = repeat(None)
        if client is not None:
            ended = (row["id"] if row["status"] in ANSWERED else None for row in rows)
            answers = read_answers(client, ended, self._app.note)
        texts = (
            LineTexts(excerpt(prompt, len(rows)), answer and excerpt(answer, len(rows)))
            for prompt, answer in zip(prompts, answers, strict=False)
        )
        with spinner(self._app.console, "Writing the report"):
            write(path, self._source.name, rows, texts)


def _command_line(app: App) -> str:
    """The command line that was typed, to be typed again."""
    from shlex import join

    return join(["rebyte", *app.argv])


def _digest(value: Any) -> str:
    import hashlib
    import json

    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
