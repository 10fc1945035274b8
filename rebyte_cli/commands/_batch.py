"""What `batch` reads before it starts: the input, the journal, where each line stands."""

from __future__ import annotations

import gc
import math
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ..app import App
from ..batch.state import Entry, LineProblem, check_record, created_record, row_of
from ..errors import BadUsage, Interrupted, NotFound, RebyteError

if TYPE_CHECKING:
    from ..api.client import RebyteClient
    from ..batch.input import Input, Plan
    from ..batch.journal import Journal
    from ..batch.runner import Options


if TYPE_CHECKING:
    _Pairs = click.ParamType[tuple[int, int]]
else:  # older releases of Click have no generic types
    _Pairs = click.ParamType

_SHARD = re.compile(r"(\d{1,9})/(\d{1,9})", re.ASCII)


class Rate(click.FloatRange):
    """Creates per second: a number above 0."""

    name = "rate"

    def __init__(self) -> None:
        super().__init__(0, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        rate = super().convert(value, param, ctx)
        if not math.isfinite(rate):
            self.fail(f"{value!r} is not a number of creates per second", param, ctx)
        return rate


class Shard(_Pairs):
    """`I/N`: the I-th of N parts, from 1."""

    name = "shard"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        found = _SHARD.fullmatch(str(value).strip())
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            self.fail(f"{value!r} is not I/N with I from 1 to N (1/4 to 4/4)", param, ctx)
        return int(found[1]), int(found[2])


class Given(NamedTuple):
    """Which file, and how it is to be read."""

    file: str
    text: bool
    csv: bool
    template: str | None
    fresh: bool
    shard: tuple[int, int]
    journal: str | None

    @property
    def name(self) -> str:
        """What errors call the input."""
        return "standard input" if self.file == "-" else self.file

    @property
    def form(self) -> Any:
        """jsonl, text or csv."""
        if self.text and self.csv:
            raise BadUsage("--text and --csv exclude each other")
        if self.text:
            return "text"
        return "csv" if self.csv or self.file.lower().endswith(".csv") else "jsonl"

    @property
    def journal_path(self) -> Path:
        """Where the journal is. BadUsage for stdin without `--journal`."""
        if self.journal is not None:
            return Path(self.journal)
        if self.file == "-":
            raise BadUsage(
                "a batch from standard input needs --journal PATH",
                hint="that is where a second run finds what the first one did",
            )
        number, of = self.shard
        part = "" if of == 1 else f".{number}-of-{of}"
        return Path(f"{self.file}{part}.journal")


def read(app: App, given: Given, defaults: Mapping[str, Any], files: Iterable[str]) -> Any:
    """The checked input: `batch.input.Input`. BadUsage names every bad line."""
    from ..batch.input import Checker, Fields, Template, lines_of, read_input
    from ..tasks.upload import check

    template = None
    if given.template is not None:
        template = Template(_text_of(given.template), given.template)
    body = dict(defaults)
    workspace = body.pop("workspaceId", None)
    if given.fresh and workspace:
        raise BadUsage("--workspace and --workspace-per-line exclude each other")
    checker = Checker(
        Fields(body, workspace, tuple(check(files))),
        fresh=given.fresh,
        find_files=lambda path: check([path]),
    )

    def lines(file: Any) -> Any:
        return read_input(
            lines_of(file), given.name, form=given.form, template=template, checker=checker
        )

    if given.file == "-":
        if app.stdin is None:
            raise BadUsage("standard input is closed")
        return lines(app.stdin.buffer)
    try:
        with open(given.file, "rb") as file:
            return lines(file)
    except FileNotFoundError:
        raise NotFound(f"no such file: {given.file}") from None
    except OSError as error:
        raise BadUsage(f"cannot read {given.file}: {error.strerror}") from None


def _text_of(path: str) -> str:
    try:
        return Path(path).read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except FileNotFoundError:
        raise NotFound(f"no such file: {path}") from None
    except OSError as error:
        raise BadUsage(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise BadUsage(f"{path} is not UTF-8 (byte {error.start + 1})") from None


def header(app: App, given: Given, digest: str) -> dict[str, Any]:
    """What the journal must be of: this input, this part of it, this account."""
    number, of = given.shard
    settings = app.settings
    return {
        "input": digest,
        "shard": f"{number}/{of}",
        "profile": settings.profile,
        "origin": settings.origin,
    }


def refuse_other_shards(given: Given) -> None:
    """BadUsage when the file was begun with another number of parts: lines would run twice.

    And for stdin without a journal, before any of it is read.
    """
    if given.journal_path is None or given.journal is not None:
        return
    folder, name = os.path.split(given.file)
    own = r"" if given.shard[1] == 1 else rf"\.\d+-of-{given.shard[1]}"
    any_part = re.compile(re.escape(name) + r"(\.\d+-of-\d+)?\.journal")
    own_part = re.compile(re.escape(name) + own + r"\.journal")
    try:
        names = os.listdir(folder or ".")
    except OSError:  # not there, which others say better, or not to be listed
        return
    for other in names:
        if any_part.fullmatch(other) and not own_part.fullmatch(other):
            raise BadUsage(
                f"{given.file} was begun with another --shard: "
                f"there is {os.path.join(folder, other)}",
                hint="its lines would get a second task; --journal PATH names another journal",
            )


def check_report(given: Given, report: str) -> None:
    """BadUsage when a report cannot be written there, or would take the place of what is read."""
    from ..batch.report import check

    check(report)
    for other in filter(os.path.exists, filter(None, (given.file, given.template, given.journal))):
        if os.path.exists(report) and os.path.samefile(other, report):
            raise BadUsage(f"--report {report}: would overwrite {other}")


class Resolution(NamedTuple):
    """A line, and its task's id or None when it has none."""

    at: int
    task: str | None


def resolutions(words: Iterable[str], lines: Any, mine: Iterable[int]) -> list[Resolution]:
    """`7=ID` and `7=none`, with a line's number or its key before the sign."""
    found: list[Resolution] = []
    ours = set(mine)
    by_name = {line.key: at for at, line in enumerate(lines)}
    by_name.update({str(line.number): at for at, line in enumerate(lines)})
    for word in words:
        name, sign, task = word.rpartition("=")
        if not sign or not task:
            raise BadUsage(f"--resolve {word}: must be LINE=ID or LINE=none")
        at = by_name.get(name)
        if at is None or at not in ours:
            raise BadUsage(f"--resolve {word}: there is no line {name}")
        one = Resolution(at, None if task == "none" else task)
        if any(at == other.at or (one.task and one.task == other.task) for other in found):
            raise BadUsage(f"--resolve {word}: the line or the task was named twice")
        found.append(one)
    return found


def again(app: App) -> str:
    """The command line that was typed, to be typed again."""
    from shlex import join

    return join(["rebyte", *app.argv])


# -- A batch from its journal to its report: what `batch` does once its input is read.

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
        from ..batch.journal import holder, replay

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
        self, wishes: Options, *, rate: float | None, settled: Sequence[Resolution]
    ) -> Iterator[Row]:
        """Run what is left, and give the row of every line as it ends."""
        from ..batch.claims import Reservations
        from ..batch.journal import Journal
        from ..batch.runner import Callbacks, Runner
        from ..batch.throttle import Throttle
        from ..output.progress import Standing, batch_board
        from ..tasks.upload import send

        # A short command lets the collector come late; a batch lasts, and would keep what the
        # service that it may carry has answered.
        gc.set_threshold(2000, 20, 20)
        app, began = self._app, time.monotonic()
        gate = Throttle(rate=rate, note=app.note)
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
        outside = Callbacks(
            note=app.note,
            made=lambda tasks: app.history.add_tasks(tasks),
            ended=lambda tasks: app.history.update_tasks(tasks),
            knows=lambda ids: app.history.knows(ids),
            upload=lambda path: send(client, path),
            claims=Reservations(app.history, f"batch {journal.name}"),
        )
        batch = Runner(
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
            with batch_board(app.console, lambda: Standing(**batch.standing())):
                yield from batch.run()
        except Interrupted as error:
            hint = f"Resume with `{again(app)}`"
            raise Interrupted(error.exit_status, hint=hint) from None
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
        from ..batch.report import counts, write
        from ..output.table import duration

        took = "" if seconds is None else f" ({duration(seconds)})"
        self._tell(counts(self._rows()) + took)
        if self._report:
            write(self._report, self._given.name, list(self._rows()))


def _digest(value: Any) -> str:
    import hashlib
    import json

    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
