"""A batch: its lines, its journal, and what earlier runs left."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import BadUsage, RebyteError
from ..tasks.budget import Priced
from .input import InputLine
from .input_lock import refuse_other_shards
from .results import LineProblem, row_of
from .state import LineTable, check_record, created_record

if TYPE_CHECKING:
    from ..api.client import RebyteClient
    from ..api.token_usage import TokenUsage
    from ..history.history import History
    from ..tasks.question_watch import QuestionWatcher
    from .input import Input, InputSource
    from .journal import Journal
    from .line_checks import LineChecks
    from .plan import Plan
    from .runner import BatchOptions, Runner

RETRY_AFTER_CAP = 300.0  # seconds


class Resolution(NamedTuple):
    """What the user says of a line (by its index): the id of its task, or None for no task."""

    line: int
    task: str | None


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


@dataclass(eq=False)
class Batch:
    """The lines of one batch, and where each stands. Needs nothing of the command line.

        with batch.held(BatchOptions()) as run:
            for row in run.run(): ...

    `connect` makes a client with these options of `api.transport.Transport`. `folder` is where runs
    on this machine lock the file. The journal belongs to `profile` and `origin`; with `is_local`,
    the service is in this process. `asked` is what holds for every line that does not say
    otherwise. `note` is called with lines for the user, `located` adds its workspace to a task
    where that is known, and `priced` its cost to a usage.
    """

    source: InputSource
    lines: Input
    plan: Plan
    connect: Callable[..., RebyteClient]
    history: History
    folder: Path
    profile: str
    origin: str
    is_local: bool = False
    asked: Mapping[str, Any] = field(default_factory=dict)
    note: Callable[[str], None] = lambda _text: None
    located: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict
    priced: Priced = lambda usage, _model: usage

    def __post_init__(self) -> None:
        # The journal records whether two runs asked for the same, not what they asked for.
        self._asked = {name: _digest(value) for name, value in self.asked.items()}
        self._asked_before: Mapping[str, str] | None = None
        self._input_before: Mapping[str, Any] | None = None
        self._path = self.source.journal_path
        self._table = LineTable(self.plan.mine)
        self._by_number = {self.lines.lines[index].number: index for index in self.plan.mine}
        self._known: set[str] = set()

    def rows(self) -> Iterator[Mapping[str, Any]]:
        """The row of every line as it is now."""
        for index, entry in self._table.items():
            row = row_of(self.lines.lines[index], entry, self.priced)
            yield row.row if isinstance(row, LineProblem) else row

    def used(self) -> Iterator[TokenUsage]:
        """What each task of the batch used that has ended, those that were replaced included."""
        for entry in self._table.values():
            yield from (self.priced(*each) for each in entry.used.values())

    def prompts(self) -> Iterator[str]:
        """The prompt of every line of `rows`."""
        return (str(self.lines.body(self.lines.lines[index])["prompt"]) for index in self._table)

    def status(self) -> Iterator[Mapping[str, Any]]:
        """Every line as the journal has it. Sends nothing and writes nothing."""
        from .journal import holder
        from .journal_format import replay

        try:
            replay(self._path, self._header(), self._apply, self.lines.fingerprint.begins_with)
        except FileNotFoundError:
            self.note(f"Nothing has run yet: there is no {self._path}")
        except OSError as error:
            raise BadUsage(f"cannot read {self._path}: {error.strerror}") from None
        else:
            if running := holder(self._path):
                self.note(f"Running now: {running}")
                for index, entry in self._table.items():
                    if entry.state == "sending":  # under way, and no more than that
                        self._table.replay(index, {"is": "unsent"})
        return self.rows()

    @contextmanager
    def held(
        self,
        options: BatchOptions,
        *,
        rate: float | None = None,
        resolutions: Sequence[Resolution] = (),
        questions: QuestionWatcher | None = None,
        checks: LineChecks | None = None,
    ) -> Iterator[Runner]:
        """Hold the input and the journal, take up what earlier runs left, and give the run.

        `rate`: creates per second. `questions` notices tasks that wait for an answer, and `checks`
        decide whether those that completed are done. Raises
        InputHeld or JournalHeld while another run may create the same lines.
        """
        from ..once.ledger import Ledger
        from ..tasks import upload
        from .runner import Runner
        from .throttle import Throttle
        from .workers import SPARE_CONNECTIONS

        with self._input_lock():
            options = options._replace(jobs=self._affordable(options.jobs))
            throttle = Throttle(rate=rate, note=self.note)
            client = self.connect(
                pool=options.jobs + SPARE_CONNECTIONS,
                retry_after_cap=RETRY_AFTER_CAP,
                sleep=throttle.sleep,
            )
            mark = self.lines.fingerprint.mark
            journal = self._open_journal(
                {"jobs": options.jobs, "asked": self._asked, "input": mark}
            )
            try:
                self._restore(journal)
                self._resolve(client, journal, resolutions)
                self._say_what_is_left()
                yield Runner(
                    client,
                    self.lines,
                    self.plan,
                    self._table,
                    journal,
                    throttle,
                    options,
                    Ledger(self.history, _owner(journal), journal.sync),
                    known=self._known,
                    upload=partial(upload.send, client),
                    note=self.note,
                    questions=questions,
                    priced=self.priced,
                    checks=checks,
                )
            finally:
                with suppress(RebyteError):  # the run has reported it
                    journal.close()

    # Before the run

    @contextmanager
    def _input_lock(self) -> Iterator[None]:
        """Keep other runs from the lines of this file, whatever journal they have."""
        from ..system.files import LocksUnusable
        from .input_lock import InputHeld, input_lock
        from .journal import JournalHeld, holder

        file, shard = self.source.file, self.source.shard
        with ExitStack() as stack:
            try:
                lock = input_lock(self.folder, file, shard, self.origin)
                stack.enter_context(lock)
            except InputHeld as error:
                # The journal knows more about the run that has it.
                if error.is_same_shard and (running := holder(self._path)):
                    raise JournalHeld(self._path, running) from None
                raise
            except LocksUnusable:
                raise
            except RebyteError as problem:
                self.note(
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
            begins_with=self.lines.fingerprint.begins_with,
        )
        try:
            # Checked again: another machine has its own locks, so a run may have started there.
            refuse_other_shards(self.source)
        except BaseException:
            journal.close()
            if is_new:
                self._path.unlink(missing_ok=True)
            raise
        return journal

    def _refuse_emptied(self) -> None:
        """Raise BadUsage for a journal without a run if lines of the file were sent before."""
        from ..history.prompts import digest_of

        history = self.history
        for index in self.plan.mine:
            digest = digest_of(str(self.lines.body(self.lines.lines[index])["prompt"]))
            if history.was_sent(digest):
                raise BadUsage(
                    f"the journal {self._path} is empty or damaged, but line"
                    f" {self.lines.lines[index].number} was sent before",
                    hint="Restore it from a backup. To start over, with a new task for every line,"
                    " delete it.",
                )

    def _restore(self, journal: Journal) -> None:
        """Take over what the history knows of this journal's lines and the journal does not.

        The journal knows a task first. One that does not was cut short, or is an older copy; then
        what may have been sent since is searched for, and nothing is created again.
        """
        history, owner, records = self.history, _owner(journal), []
        for number, ids in history.tasks_of_lines(owner).items():
            if number in self._by_number and ids[-1] not in self._known:
                task = history.task(ids[-1]) or {"id": ids[-1]}
                records.append(created_record(number, task, by="history"))
        created = {record["line"] for record in records}
        open_lines = {
            number: intent
            for number, intent in history.intents.reservations_of(owner).items()
            if number in self._by_number and number not in created
            if self._table[self._by_number[number]].state == "new"
        }
        if not records and all(intent.state == "open" for intent in open_lines.values()):
            return
        records += [
            {"line": number, "is": "sending", "at": intent.started_at}
            for number, intent in open_lines.items()
        ]
        self.note(
            f"{self._path} is an older copy, or was cut short: the history knows more of"
            f" {len(records)} lines"
        )
        journal.commit(*records)
        for record in records:
            self._apply(record)

    def _header(self) -> dict[str, Any]:
        """What the journal must belong to: this input, this part of it, this account."""
        number, of = self.source.shard
        return {
            "input": self.lines.fingerprint.whole,
            "shard": f"{number}/{of}",
            "profile": self.profile,
            "origin": self.origin,
        }

    def _apply(self, record: Mapping[str, Any]) -> None:
        """Take over a record of an earlier run. ValueError for one that no run has written."""
        check_record(record)
        if "is" not in record:
            self._asked_before = record["run"].get("asked")
            self._input_before = record["run"].get("input")
        index = self._by_number.get(record.get("line", 0))
        if index is not None:
            self._table.replay(index, record)
            if record.get("is") == "created":
                self._known.add(str(record.get("id")))

    def _affordable(self, jobs: int) -> int:
        """How many of so many jobs can run here; says so if that is fewer."""
        from .workers import affordable_jobs

        has_files = any(line.paths for line in self.lines.lines)
        found, lack = affordable_jobs(jobs, has_files=has_files, is_local=self.is_local)
        if found < jobs:
            self.note(f"Running {found} jobs instead of {jobs}, for lack of {lack}")
        return found

    def _resolve(
        self, client: RebyteClient, journal: Journal, resolutions: Sequence[Resolution]
    ) -> None:
        """Settle lines by hand. A task's id is looked up first, so that a slip costs nothing."""
        records = []
        for index, task_id in resolutions:
            number, entry = self.lines.lines[index].number, self._table[index]
            if task_id == entry.id and entry.state in ("new", "created", "ended"):
                continue  # the same command again, after an interrupt
            if not (entry.is_lost or entry.is_doubtful):
                status = {"new": "not created yet"}.get(entry.state) or entry.status
                raise BadUsage(f"--resolve: line {number} is {status}, so nothing needs resolving")
            if task_id in self._known:
                raise BadUsage(f"--resolve: task {task_id} belongs to another line")
            if task_id is None:
                records.append({"line": number, "is": "unsent", "by": "hand"})
            else:
                task = {**self.located(client.get_task(task_id)), "id": task_id}
                records.append(created_record(number, task, by="hand"))
        if records:
            journal.commit(*records)
            for record in records:
                self._apply(record)

    def _say_what_is_left(self) -> None:
        entries = list(self._table.values())
        if all(entry.state == "new" for entry in entries):
            return
        words = [f"{sum(entry.is_over for entry in entries)} of {len(entries)} lines are done"]
        if running := sum(entry.state in ("created", "checking", "mending") for entry in entries):
            words.append(f"{running} running")
        if lost := sum(entry.is_lost for entry in entries):
            words.append(f"searching for {lost} with unknown outcome")
        if added := self._added_since():
            words.append(f"{added} added since")
        self.note(f"Resuming from {self._path}: {', '.join(words)}")
        before, now = self._asked_before, self._asked
        if isinstance(before, Mapping) and not all(entry.is_over for entry in entries):
            other = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
            if other:
                self.note(
                    f"The options differ from those of the last run ({', '.join(other)});"
                    " lines that have a task keep it"
                )

    def _added_since(self) -> int:
        """How many of our lines were appended to the file since the last run."""
        before = (self._input_before or {}).get("lines")
        return 0 if before is None else sum(number > before for number in self._by_number)


def _owner(journal: Journal) -> str:
    """What the history knows a batch by, in each of its runs."""
    return f"batch {journal.name}"


def _digest(value: Any) -> str:
    import hashlib
    import json

    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
