"""A batch: its lines, its journal, and what earlier runs left."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import BadUsage, RebyteError
from ..once.server_clock import parse_time
from ..system.durations import duration
from ..system.files import LocksUnusable, check_locks, locked, persistently, take_lock
from ..system.permissions import private_folder
from ..tasks.budget import Priced
from .input import InputLine
from .journal_format import home_of
from .results import LineProblem, row_of
from .state import LineState, LineTable, check_record, created_record, place_record

if TYPE_CHECKING:
    from ..api.token_usage import TokenUsage
    from ..history.rows import Intent
    from .input import Input, InputSource, Plan
    from .journal import Journal
    from .journal_format import Record
    from .place import BatchOptions, BatchPlace, OpenPlace
    from .runner import Runner

RETRY_AFTER_CAP = 300.0  # seconds
MOST_NUMBERS = 5  # of lines in a message
MAY_DIFFER = {"on"}  # lines keep the place that they have
NEW_IN_JOURNALS = {"check", "schema"}  # what earlier versions did not record
_LOCK = re.compile(r"[0-9a-f]{40}\.(\d+)-of-(\d+)")


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
    seen: set[int | str | None] = set()
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
        if not seen.isdisjoint(named := {*one} - {None}):
            raise BadUsage(f"--resolve {word}: the line or the task is named twice")
        seen |= named
        found.append(one)
    return found


def no_place(name: str) -> BatchPlace:
    """Stands for a way to find a place by its name where there is none."""
    raise BadUsage(f"no such place: {name}")


@dataclass(eq=False)
class Batch:
    """The lines of one batch, and where each stands. Needs nothing of the command line.

        with batch.held(BatchOptions()) as run:
            for row in run.run(): ...

    Its lines run at `places`, with `is_pool` at several, so that the journal says at which.
    `place_named` gives another one, which an earlier run used, by its name. `folder` is where runs
    on this machine lock the file. `asked` is what holds for every line that does not say otherwise.
    `note` is called with lines for the user, `warn` with those that must be seen, and `priced` adds
    its cost to a usage.
    """

    source: InputSource
    lines: Input
    plan: Plan
    places: Sequence[BatchPlace]
    folder: Path
    is_pool: bool = False
    place_named: Callable[[str], BatchPlace] = no_place
    asked: Mapping[str, Any] = field(default_factory=dict)
    note: Callable[[str], None] = lambda _text: None
    warn: Callable[[str], None] = lambda _text: None
    priced: Priced = lambda usage, _model: usage

    def __post_init__(self) -> None:
        # The journal records whether two runs asked for the same, not what they asked for.
        self._asked = {name: _digest(value) for name, value in self.asked.items()}
        self._asked_since: Mapping[str, str] | None = None  # by the run that is replayed
        self._asked_before: Mapping[str, str] | None = None  # by the last that sent a line
        self._input_before: Mapping[str, Any] | None = None
        self._path = self.source.journal_path
        self._by_number = {self.lines.lines[index].number: index for index in self.plan.mine}
        self._known: dict[str, set[str]] = {}  # ids of tasks that the journal names, by place
        self._sent: dict[int, str | None] = {}  # when lines were sent last, by index
        self._named = {place.name: place for place in self.places}
        first, home = self.places[0], home_of(self._path)
        # Where lines are whose records name no place, and the origins of all places of the journal.
        self._origins: dict[str, str] = {}
        self._recorded: set[str] = set()
        self._table = LineTable(self.plan.mine, first.name)
        if home is not None and (self.is_pool or home.has_places):
            self.is_pool = True
            self._table.home = home.profile
            self._origins[home.profile] = home.origin

    def rows(self) -> Iterator[Mapping[str, Any]]:
        """The row of every line as it is now."""
        for index, entry in self._table.items():
            row = row_of(self.lines.lines[index], entry, self.priced, is_pool=self.is_pool)
            yield row.row if isinstance(row, LineProblem) else row

    def used(self) -> Iterator[TokenUsage]:
        """What each task of the batch used by what is recorded, replaced ones included."""
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
            marks = self.lines.fingerprint.begins_with
            replay(self._path, self._header(), self._apply, marks, self._loose())
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
    ) -> Iterator[Runner]:
        """Hold the input and the journal, take up what earlier runs left, and give the run.

        `rate`: creates per second, at each place. Raises InputHeld or JournalHeld while another run
        may create the same lines, and BadUsage if a place of this journal cannot be used.
        """
        from .place import RunParts
        from .runner import Runner

        with self._input_locks():
            if options.fresh:
                self._set_journal_aside()
            mark = self.lines.fingerprint.mark
            journal = self._open_journal(
                {"jobs": options.jobs, "asked": self._asked, "input": mark}
            )
            try:
                self._record_places(journal)
                self._restore(journal)
                places = self._opened(journal, options, rate)
                self._resolve(places, journal, resolutions)
                self._say_what_is_left(options)
                parts = RunParts(
                    self.lines,
                    self.plan,
                    self._table,
                    journal,
                    options,
                    self._known,
                    self.is_pool,
                    self.note,
                    self.priced,
                )
                yield Runner(places, parts)
            finally:
                with suppress(RebyteError):  # the run has reported it
                    journal.close()

    # The places

    def _opened(
        self, journal: Journal, options: BatchOptions, rate: float | None
    ) -> list[OpenPlace]:
        """What this run needs of each place: the given ones, and those that have lines to end."""
        from ..once.ledger import Ledger
        from .place import OpenPlace
        from .throttle import Throttle
        from .workers import SPARE_CONNECTIONS

        used = {
            entry.place
            for entry in self._table.values()
            if entry.place and (not entry.is_over or entry.is_doubtful)
        }
        chosen = [*self.places, *map(self._place, sorted(used - self._named.keys()))]
        jobs = [min(options.jobs, place.own.get("max_running") or options.jobs) for place in chosen]
        found = self._affordable(sum(jobs))
        opened = []
        for place, most in zip(chosen, jobs, strict=True):
            own = options._replace(**place.own)
            own = own._replace(jobs=max(1, most * found // sum(jobs)))
            note = partial(_named_note, self.note, place.name) if self.is_pool else self.note
            throttle = Throttle(rate=rate, has_others=len(chosen) > 1, note=note)
            client = place.connect(
                pool=own.jobs + SPARE_CONNECTIONS,
                retry_after_cap=RETRY_AFTER_CAP,
                sleep=throttle.sleep,
            )
            lines = self.lines.with_defaults(place.defaults)
            ledger = Ledger(place.history, _owner(journal), journal.sync)
            opened.append(OpenPlace(place, client, lines, throttle, own, ledger))
        return opened

    def _place(self, name: str) -> BatchPlace:
        """A place of this journal that this run was not given. It takes no new lines.

        Raises BadUsage if there is none of this name, or if it is another service by now.
        """
        if name not in self._named:
            numbers = [
                str(self.lines.lines[index].number)
                for index, entry in self._table.items()
                if entry.place == name and not entry.is_over
            ]
            more = ", …" if len(numbers) > MOST_NUMBERS else ""
            lines = f"lines of the journal ({', '.join(numbers[:MOST_NUMBERS])}{more})"
            hint = (
                f"Create the profile {name} again, for {self._origins.get(name, 'its service')}."
                " To give the lines up, settle each with --resolve LINE=none."
            )
            try:
                place = self.place_named(name)
            except RebyteError as error:
                raise BadUsage(
                    f"{lines} are at the place {name}: {error.message}", hint=hint
                ) from None
            if place.origin != self._origins.get(name, place.origin):
                raise BadUsage(
                    f"{lines} are at the place {name}, which was {self._origins[name]} then and is"
                    f" {place.origin} now",
                    hint=hint,
                )
            self._named[name] = place
        return self._named[name]

    def _record_places(self, journal: Journal) -> None:
        """Have the journal name each place before a line is sent there."""
        if not self.is_pool:
            return
        for place in self.places:
            before = self._origins.setdefault(place.name, place.origin)
            if before != place.origin:
                raise BadUsage(
                    f"the place {place.name} was {before} in an earlier run and is {place.origin}",
                    hint="Give the profile of the other service another name.",
                )
        new = [place for place in self.places if place.name not in self._recorded]
        journal.commit(*(place_record(place.name, place.origin) for place in new))

    def _loose(self) -> tuple[str, ...]:
        """What of the header of a journal may differ: with places, lines say where they are."""
        return ("profile", "origin") if self.is_pool else ()

    # Before the run

    @contextmanager
    def _input_locks(self) -> Iterator[None]:
        """Keep other runs from the lines of this file, whatever journal they have."""
        from .journal import JournalHeld, holder

        file, shard = self.source.file, self.source.shard
        with ExitStack() as stack:
            try:
                for origin in sorted({place.origin for place in self.places}):
                    stack.enter_context(input_lock(self.folder, file, shard, origin))
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
            loose=self._loose(),
        )
        try:
            # Checked again: another machine has its own locks, so a run may have started there.
            self.source.refuse_other_shards()
        except BaseException:
            journal.close()
            if is_new:
                self._path.unlink(missing_ok=True)
            raise
        return journal

    def _refuse_emptied(self) -> None:
        """Raise BadUsage for a journal without a run if lines of the file were sent before."""
        from ..history.rows import digest_of

        for index in self.plan.mine:
            digest = digest_of(str(self.lines.body(self.lines.lines[index])["prompt"]))
            if any(place.history.was_sent(digest) for place in self.places):
                raise BadUsage(
                    f"the journal {self._path} is empty or damaged, but line"
                    f" {self.lines.lines[index].number} was sent before",
                    hint="Restore it from a backup. To start over, with a new task for every line,"
                    " delete it.",
                )

    def _restore(self, journal: Journal) -> None:
        """Take over what the history knows of this journal's lines and the journal does not.

        The journal knows first what is sent, and what was answered. One that does not was cut
        short, or is an older copy; then what was sent is searched for, and nothing is sent again.
        """
        owner = _owner(journal)
        records: list[Record] = []
        open_lines: dict[int, tuple[Intent, dict[str, str]]] = {}
        for place in self._with_history():
            history, known = place.history, self._known.get(place.name, set())
            said = {"place": place.name} if self.is_pool else {}
            for number, ids in history.tasks_of_lines(owner).items():
                if number in self._by_number and ids[-1] not in known:
                    task = history.task(ids[-1]) or {"id": ids[-1]}
                    records.append(created_record(number, task, by="history", **said))
            for number, intent in history.intents.reservations_of(owner).items():
                index = self._by_number.get(number)
                if index is None or self._table[index].state != "new":
                    continue
                if intent.started_at != self._sent.get(index):  # not what it says was not sent
                    before = open_lines.get(number)
                    # Of two places, the one that was certainly sent it, or the later one.
                    if before is None or _weight(intent) >= _weight(before[0]):
                        open_lines[number] = (intent, said)
        records.sort(key=lambda record: str(record.get("createdAt")))
        for record in records:
            open_lines.pop(record["line"], None)
        if not records and not open_lines:
            return
        records += [
            {"line": number, "is": "sending", "at": intent.started_at, **said}
            for number, (intent, said) in open_lines.items()
        ]
        self.note(
            f"{self._path} is an older copy, or was cut short: the history knows more of"
            f" {len(records)} lines"
        )
        journal.commit(*records)
        for record in records:
            self._apply(record)

    def _with_history(self) -> Iterator[BatchPlace]:
        """The places of this journal that are still there."""
        for name in dict.fromkeys([*self._named, *self._origins]):
            with suppress(RebyteError):
                yield self._named.get(name) or self.place_named(name)

    def _header(self) -> dict[str, Any]:
        """What the journal must belong to: this input, this part of it, this account."""
        number, of = self.source.shard
        return {
            "input": self.lines.fingerprint.whole,
            "shard": f"{number}/{of}",
            "profile": self.places[0].name,
            "origin": self.places[0].origin,
        }

    def _apply(self, record: Mapping[str, Any]) -> None:
        """Take over a record of an earlier run. ValueError for one that no run has written."""
        check_record(record)
        if "is" not in record:
            asked = record["run"].get("asked")
            self._asked_since = asked if isinstance(asked, Mapping) else None
            self._input_before = record["run"].get("input")
        if record.get("is") == "place":
            self._origins[record["place"]] = record["origin"]
            self._recorded.add(record["place"])
        index = self._by_number.get(record.get("line", 0))
        if index is not None:
            self._table.replay(index, record)
            if record.get("is") == "sending":
                self._asked_before = self._asked_since
                self._sent[index] = record.get("at")
            if record.get("is") == "created":
                place = self._table[index].place or self._table.home
                self._known.setdefault(place, set()).add(str(record.get("id")))

    def _affordable(self, jobs: int) -> int:
        """How many of so many jobs can run here; says so if that is fewer."""
        from .workers import affordable_jobs

        has_files = any(line.paths for line in self.lines.lines)
        is_local = any(place.is_local for place in self.places)
        found, lack = affordable_jobs(jobs, has_files=has_files, is_local=is_local)
        if found < jobs:
            self.note(f"Running {found} jobs instead of {jobs}, for lack of {lack}")
        return found

    def _resolve(
        self, places: Sequence[OpenPlace], journal: Journal, resolutions: Sequence[Resolution]
    ) -> None:
        """Settle lines by hand. A task's id is looked up first, so that a slip costs nothing."""
        records = []
        by_name = {place.name: place for place in places}
        for index, task_id in resolutions:
            number, entry = self.lines.lines[index].number, self._table[index]
            if task_id == entry.id and entry.state in ("new", "created", "ended"):
                continue  # the same command again, after an interrupt
            if not (entry.is_lost or entry.is_doubtful):
                status = {"new": "not created yet"}.get(entry.state) or entry.status
                raise BadUsage(f"--resolve: line {number} is {status}, so nothing needs resolving")
            place = by_name[entry.place or self._table.home]
            if task_id in self._known.get(place.name, ()):
                raise BadUsage(f"--resolve: task {task_id} belongs to another line")
            if task_id is None:
                records.append({"line": number, "is": "unsent", "by": "hand"})
            else:
                task = {**place.place.located(place.client.get_task(task_id)), "id": task_id}
                said = {"place": place.name} if self.is_pool else {}
                records.append(created_record(number, task, by="hand", **said))
        if records:
            journal.commit(*records)
            for record in records:
                self._apply(record)

    def _set_journal_aside(self) -> None:
        """Give the journal of a batch that has ended another name. BadUsage if it has not ended."""
        from .journal import JournalHeld, holder

        if not self._path.exists():
            return
        earlier = replace(self, note=lambda _text: None)
        earlier.status()
        if running := holder(self._path):
            raise JournalHeld(self._path, running)
        left = sum(not entry.is_over for entry in earlier._table.values())
        if left:
            raise BadUsage(
                f"--fresh: {left} of {len(earlier._table)} lines of the last run have not ended",
                hint="Run the command without --fresh first: it resumes them",
            )
        names = (self._path.with_name(f"{self._path.name}.{at}") for at in count(1))
        aside = next(name for name in names if not name.exists())
        self._path.rename(aside)
        self.note(f"Kept the journal of the last run as {aside}")

    def _say_what_is_left(self, options: BatchOptions) -> None:
        """Say where the batch stands. BadUsage if it would be told otherwise than what was sent."""
        entries = list(self._table.values())
        if all(entry.state == "new" for entry in entries):
            return
        has_sent = any(entry.id or entry.is_lost for entry in entries)
        is_repeated = options.retry_failed and all(entry.is_over for entry in entries)
        if has_sent and not is_repeated:
            self._refuse_other_options()
        if all(entry.is_over for entry in entries) and not options.retry_failed:
            self.warn(
                f"nothing to run: {self._how_long_over(entries)}; --fresh runs every line again"
            )
            return
        words = [f"{sum(entry.is_over for entry in entries)} of {len(entries)} lines are done"]
        if running := sum(entry.state in ("created", "checking", "mending") for entry in entries):
            words.append(f"{running} running")
        if lost := sum(entry.is_lost for entry in entries):
            words.append(f"searching for {lost} with unknown outcome")
        if added := self._added_since():
            words.append(f"{added} added since")
        self.note(f"Resuming from {self._path}: {', '.join(words)}")

    def _refuse_other_options(self) -> None:
        """Raise BadUsage for what an earlier run sent lines with, and this one would not."""
        before, now = self._asked_before, self._asked
        if before is None:
            return
        names = {*before, *now} - MAY_DIFFER - (NEW_IN_JOURNALS - before.keys())
        if other := sorted(name for name in names if before.get(name) != now.get(name)):
            raise BadUsage(
                f"lines were sent with another {', '.join(other)} by an earlier run of this batch",
                hint="Use the options of that run. To run every line with these, pass --fresh, or"
                " a new --journal.",
            )

    @staticmethod
    def _how_long_over(entries: Sequence[LineState]) -> str:
        """That all lines had ended, and how long ago where that is known."""
        ends = [parse_time(entry.finished) for entry in entries]
        known = [end for end in ends if end is not None]
        every = "the line" if len(entries) == 1 else f"all {len(entries)} lines"
        if not known:
            return f"{every} had ended before"
        ago = duration(max(0.0, (datetime.now(UTC) - max(known)).total_seconds()))
        return f"{every} had ended before, the last {ago} ago"

    def _added_since(self) -> int:
        """How many of our lines were appended to the file since the last run."""
        before = (self._input_before or {}).get("lines")
        return 0 if before is None else sum(number > before for number in self._by_number)


class InputHeld(RebyteError):
    """Another run is creating lines of this file. `is_same_shard`: the very same lines."""

    code = "input_held"

    def __init__(self, file: str, number: int, of: int, *, is_same_shard: bool) -> None:
        shard = "" if of == 1 else f" (shard {number}/{of})"
        super().__init__(
            f"another run is creating tasks from {file}{shard}",
            hint="Wait for it to end. Two runs at once would create lines twice.",
        )
        self.is_same_shard = is_same_shard


@contextmanager
def input_lock(folder: Path, file: str, shard: tuple[int, int], origin: str) -> Iterator[None]:
    """Hold the lock of one shard of an input file while the block runs.

    A journal keeps two runs apart only if both use it. Runs of other shards, with another
    --journal, through a link, or after the journal was deleted would create the same lines at the
    same time; so every run holds a lock that is named after the file itself. Shards of one division
    of the file run side by side, anything else is refused.

    `folder` is where the locks are kept; `origin` is the service, since the same file may run on
    two. Raises InputHeld, and RebyteError if the folder cannot be used. Only a regular file has a
    lock: what a pipe holds comes once.
    """
    if not os.path.isfile(file):
        yield
        return
    found = os.stat(file)
    # Links have the device and the number of the file that they lead to.
    words = f"{origin}\0{found.st_dev}\0{found.st_ino}"
    name = hashlib.sha256(words.encode()).hexdigest()[:40]
    private_folder(folder)
    check_locks(folder)

    def take() -> Callable[[], None] | None:
        with locked(folder / "lock"):
            _refuse_others(folder, name, file, shard)
            return take_lock(folder / f"{name}.{shard[0]}-of-{shard[1]}", remove=True)

    release = persistently(take)
    if release is None:
        raise InputHeld(file, *shard, is_same_shard=True)
    try:
        yield
    finally:
        release()


def _refuse_others(folder: Path, name: str, file: str, shard: tuple[int, int]) -> None:
    for other in os.listdir(folder):
        match = _LOCK.fullmatch(other)
        if match is None or not other.startswith(name) or int(match[2]) == shard[1]:
            continue
        release = take_lock(folder / other, remove=True)
        if release is None:
            raise InputHeld(file, int(match[1]), int(match[2]), is_same_shard=False)
        release()  # of a run that was killed


def _owner(journal: Journal) -> str:
    """What the history knows a batch by, in each of its runs."""
    return f"batch {journal.name}"


def _named_note(note: Callable[[str], None], place: str, text: str) -> None:
    note(f"{place}: {text}")


def _weight(intent: Intent) -> tuple[bool, int]:
    """Of two reservations of a line, one that was certainly sent tells more, then a later one."""
    return intent.state != "open", intent.id


def _digest(value: Any) -> str:
    import json

    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
