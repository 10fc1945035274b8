"""One call of `rebyte batch`: from the input and its journal to the results and the report."""

from __future__ import annotations

import gc
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import repeat
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from ..errors import BadUsage, Interrupted, RebyteError
from .input import journals_of
from .state import LineProblem, LineState, check_record, created_record, row_of

if TYPE_CHECKING:
    from ..api.client import RebyteClient
    from ..app import App
    from ..tasks.question_watch import QuestionWatcher
    from .input import Input, InputLine, InputSource
    from .journal import Journal
    from .plan import Plan
    from .runner import BatchOptions, Callbacks, Runner

RowOrError = Mapping[str, Any] | RebyteError
SPARE_CONNECTIONS = 12  # for the watch and the search, beside the one of each create
SPARE_FILES = 48  # open files beside those connections: the journal, the history, the input, …
# Open files per connection to the service in this process: two ends, its database and journal.
FILES_OF_LOCAL = 4
SPARE_MEMORY = 320 << 20  # bytes of address space beside the threads that create
ARENA = 64 << 20  # bytes that glibc reserves for the memory of a thread
ANSWERED = frozenset({"completed", "failed"})  # statuses of tasks that may have an answer
RETRY_AFTER_CAP = 300.0  # seconds


class Resolution(NamedTuple):
    """What the user says of a line (by its index): the id of its task, or None for no task."""

    line: int
    task: str | None


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
        report. `summary` is called with the counts when everything is over.
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
        from .journal import holder, replay

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
        questions: QuestionWatcher | None = None,
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
        # local service in this process has answered.
        if hasattr(gc, "set_threshold"):  # PyPy has none
            gc.set_threshold(2000, 20, 20)
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
            self._callbacks(client, journal)._replace(questions=questions),
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

    def _callbacks(self, client: RebyteClient, journal: Journal) -> Callbacks:
        from ..tasks.upload import send
        from .reservations import Reservations
        from .runner import Callbacks

        history = self._app.history
        return Callbacks(
            note=self._app.note,
            tasks_created=lambda tasks: history.add_tasks(tasks),
            tasks_ended=lambda tasks: history.update_tasks(tasks),
            known_ids=lambda ids: history.knows(ids),
            upload=lambda path: send(client, path),
            reservations=Reservations(history, f"batch {journal.name}"),
        )

    # Before the run

    @contextmanager
    def _input_lock(self) -> Iterator[None]:
        """Keep other runs from the lines of this file, whatever journal they have."""
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
            except RebyteError as problem:
                app.note(
                    f"{problem.message}; a second run with another journal cannot be prevented"
                )
            yield

    def _open_journal(self, run: Mapping[str, Any]) -> Journal:
        """Open the journal. BadUsage if one of another number of shards appeared meanwhile."""
        from .journal import Journal

        is_new = not self._path.exists()
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
        """How many creates can be under way with the open files and memory of this process."""
        if sys.platform == "win32":
            return jobs
        has_files = any(line.paths for line in self._batch.lines)
        is_local = self._app.settings.is_local
        files = FILES_OF_LOCAL if is_local else 1  # open files per connection
        spare = SPARE_CONNECTIONS * files + SPARE_FILES
        each = files + has_files  # an upload reads a file
        memory = _thread_memory() * (2 if is_local else 1)  # the service has a thread as well
        lacking = {
            "open files (ulimit -n)": (_file_limit(each * jobs + spare) - spare) // each,
            "memory (ulimit -v)": (_memory_limit() - SPARE_MEMORY) // memory,
        }
        lack = min(lacking, key=lambda what: lacking[what])
        if lacking[lack] >= jobs:
            return jobs
        found = max(1, int(lacking[lack]))
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
        if lost := sum(entry.is_lost for entry in entries):
            words.append(f"searching for {lost} with unknown outcome")
        if added := self._added_since():
            words.append(f"{added} were added since")
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
        """Print the counts and write the report, with answers if there is a client to read them."""
        from ..output.table import duration
        from .report import counts

        took = "" if seconds is None else f" ({duration(seconds)})"
        self._summary(counts(self._rows()) + took)
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


class ResultsFile:
    """The file of `--results`: a row per line as JSON Lines, written as the lines end.

    It is opened, and what an earlier run wrote replaced, once the journal is held: a second run
    of the same batch ends before it can harm the results of the first.
    """

    def __init__(self, path: str, fields: tuple[str, ...] | None) -> None:
        """BadUsage when the file cannot be written."""
        self._path = path
        self._fields = fields
        self._failed: OSError | None = None
        try:
            self._file: IO[str] = open(path, "w", encoding="utf-8", newline="\n")  # noqa: SIM115 -- closed by `take`
        except OSError as error:
            why = f"--results {path}: cannot be written: {error.strerror}"
            raise BadUsage(why) from None

    def take(self, rows: Iterable[RowOrError]) -> Iterator[RowOrError]:
        """Write the rows, and yield only the errors: their exit status counts, as ever."""
        try:
            for row in rows:
                record = row.record if isinstance(row, RebyteError) else row
                if record is not None:
                    self._write(record)
                if isinstance(row, LineProblem):
                    yield row.without_record()
                elif isinstance(row, RebyteError):
                    yield row
        finally:
            try:  # writes what is left in the buffer
                self._file.close()
            except OSError as error:
                self._failed = error
        if self._failed is not None:
            yield RebyteError(
                f"cannot write {self._path}: {self._failed.strerror}",
                hint="Run the same command again; it writes the results of every line.",
            )

    def _write(self, record: Mapping[str, Any]) -> None:
        from ..output.formats import encode, pick

        if self._failed is not None:
            return
        try:
            self._file.write(encode(pick(record, self._fields)) + "\n")
            self._file.flush()
        except OSError as error:  # the tasks run on, and the journal has them
            self._failed = error


# Checks before anything runs


def refuse_other_shards(source: InputSource) -> None:
    """BadUsage when the file was begun with another number of shards: lines would run twice.

    Also for standard input without a journal, before any of it is read.
    """
    if source.journal_path is None or source.journal is not None:
        return
    file, of = source.beside, source.shard[1]
    own = r"" if of == 1 else rf"\.\d+-of-{of}"
    own_part = re.compile(re.escape(os.path.basename(file)) + own + r"\.journal")
    for other in journals_of(file):
        if not own_part.fullmatch(other):
            raise BadUsage(
                f"{source.file} was started with another --shard: "
                f"{os.path.join(os.path.dirname(file), other)} exists",
                hint="Its lines would get a second task. To start over, pass a new --journal.",
            )


def check_outputs(source: InputSource, *, results: str | None, report: str | None) -> None:
    """BadUsage when results or a report cannot be written, or would replace what is read."""
    from .report import check

    if report is not None:
        check(report)
    if results is not None and (os.path.isdir(results) or not results):
        raise BadUsage(f"--results {results}: not a file")
    inputs = [path for path in (source.file, source.template, source.journal) if path]
    if source.journal is not None or source.file != "-":
        inputs.append(str(source.journal_path))
    for option, path in (("--report", report), ("--results", results)):
        for other in filter(os.path.exists, inputs if path else ()):
            if path and os.path.exists(path) and os.path.samefile(other, path):
                raise BadUsage(f"{option} {path}: would overwrite {other}")
    if report and results and os.path.realpath(report) == os.path.realpath(results):
        raise BadUsage("--report and --results name the same file")


def parse_resolutions(
    words: Iterable[str], lines: Sequence[InputLine], mine: Iterable[int]
) -> list[Resolution]:
    """`7=ID` and `7=none`, with a line's number or its key before the sign. Raises BadUsage."""
    found: list[Resolution] = []
    ours = set(mine)
    seen: set[int | str] = set()
    by_name = {line.key: index for index, line in enumerate(lines)}
    by_name.update({str(line.number): index for index, line in enumerate(lines)})
    for word in words:
        name, sign, task = word.rpartition("=")
        if not sign or not task:
            raise BadUsage(f"--resolve {word}: must be LINE=ID or LINE=none")
        index = by_name.get(name)
        if index is None or index not in ours:
            raise BadUsage(f"--resolve {word}: there is no line {name}")
        one = Resolution(index, None if task == "none" else task)
        if index in seen or one.task in seen:
            raise BadUsage(f"--resolve {word}: the line or the task is named twice")
        seen.add(index)
        if one.task is not None:
            seen.add(one.task)
        found.append(one)
    return found


def _file_limit(wanted: int) -> float:
    """How many files this process may have open, after raising the soft limit if needed."""
    if sys.platform == "win32":
        return math.inf
    import resource

    soft, hard = map(_unlimited, resource.getrlimit(resource.RLIMIT_NOFILE))
    if soft < wanted:
        raised = min(wanted, hard)
        with suppress(OSError, ValueError):
            before = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (int(raised), before[1]))
            return raised
    return soft


def _memory_limit() -> float:
    """How many bytes of address space this process may have."""
    if sys.platform == "win32":
        return math.inf
    import resource

    if not hasattr(resource, "RLIMIT_AS"):  # OpenBSD
        return math.inf
    return _unlimited(resource.getrlimit(resource.RLIMIT_AS)[0])


def _thread_memory() -> float:
    """Bytes of address space that a thread takes at most."""
    if sys.platform == "win32":
        return ARENA
    import resource

    stack = resource.getrlimit(resource.RLIMIT_STACK)[0]
    return ARENA + (8 << 20 if stack == resource.RLIM_INFINITY else stack)


def _unlimited(limit: int) -> float:
    """A limit of the system as a number that compares."""
    if sys.platform == "win32":
        return limit
    import resource

    return math.inf if limit == resource.RLIM_INFINITY else limit


def _command_line(app: App) -> str:
    """The command line that was typed, to be typed again."""
    from shlex import join

    return join(["rebyte", *app.argv])


def _digest(value: Any) -> str:
    import hashlib
    import json

    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
