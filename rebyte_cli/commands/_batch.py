"""What `rebyte batch` does, once its command line is understood."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import timedelta
from itertools import repeat
from json import dumps
from shlex import join
from typing import Any, NamedTuple

from ..app import App
from ..batch.input import REPOSITORY, Input, InputSource, Plan
from ..batch.place import SEND_AGAIN_AFTER, BatchOptions, BatchPlace, CheckJob, OpenPlace
from ..batch.results import LineProblem, ResultsFile, counts, reason_of, shared_reasons, tally
from ..batch.session import Batch
from ..errors import BadUsage, Interrupted, RebyteError, RowOrError
from ..history import references
from ..output import progress
from ..output.records import RESULT
from ..system.deadline import NO_LIMIT
from ..system.durations import duration
from ..system.repository_file import RepositoryFile
from ..tasks import repository
from ..tasks.budget import Budget, check_prices
from ..tasks.create import follow_up
from ..tasks.usage import summary
from ..tasks.verdict import RunVerdict
from ._check import TRIES, CheckOptions, TaskChecks, repository_says
from ._places import PlaceName
from ._wait import question_watcher

ANSWERED = frozenset({"completed", "failed"})  # statuses of tasks that may have an answer
MANY = 500  # lines, from which on a process for the local service saves more than it takes
KEYED = ("line", "key", *RESULT.columns[1:])  # of a table whose lines have keys
# Seconds. The local service has a task at once or never, and its list is never stale; but it
# shares a machine with the agents.
LOCAL_SEARCH, LOCAL_SCAN = 2.0, 5.0


# Where the lines run


def _own_options(app: App, resend_after: float | None) -> dict[str, Any]:
    """What of `BatchOptions` the service of a profile decides."""
    is_local, pace = app.settings.is_local, app.pace
    if is_local:
        pace = pace._replace(look_for=LOCAL_SEARCH, shortest_scan=LOCAL_SCAN)
    if resend_after is None:
        resend_after = LOCAL_SEARCH if is_local else SEND_AGAIN_AFTER
    return {
        "send_again_after": resend_after,
        "pace": pace,
        "limits_runs": app.settings.is_own_service,
        "is_exact": is_local,
    }


def _place_of(
    app: App, own: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> BatchPlace:
    """The service of a profile as a place of a batch."""
    settings = app.settings
    return BatchPlace(
        settings.profile,
        settings.origin,
        app.client_for,
        app.history,
        is_local=settings.is_local,
        own=own,
        defaults=defaults or {},
        located=app.known.update,
    )


def places_of(
    apps: Mapping[str, App],
    on: Iterable[PlaceName],
    differing: Mapping[str, Mapping[str, Any]],
    resend_after: float | None,
    most: int,
) -> list[BatchPlace]:
    """The places of a batch: those of `--on`, with `most` lines where it says no number, or one.

    `differing` are the defaults of lines that are not the same at all of them.
    """
    running = {name: {"max_running": number or most} for name, number in on}
    return [
        _place_of(app, _own_options(app, resend_after) | running.get(name, {}), differing[name])
        for name, app in apps.items()
    ]


def split_defaults(
    every: Mapping[str, Mapping[str, Any]],
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """What is the same at all places, and by place what is not. Workspaces are the first one's."""
    first = next(iter(every.values()))
    names = {name for fields in every.values() for name in fields} - {"workspaceId"}
    same = {
        name
        for name in names
        if all(name in one and one[name] == first.get(name) for one in every.values())
    }
    common = {name: first[name] for name in first if name in same or name == "workspaceId"}
    own = {
        place: {name: fields[name] for name in fields if name in names - same}
        for place, fields in every.items()
    }
    return common, own


# One call of the command


def prepare(
    app: App,
    place: BatchPlace,
    asked: CheckOptions,
    options: BatchOptions,
    batch: Input,
    plan: Plan,
) -> None:
    """Give a place its checks. Raises BadUsage for lines that cannot be run there."""
    app.is_busy = len(plan.mine) >= MANY
    lines = batch.with_defaults(place.defaults)
    if options.budget is not None:
        _check_prices(app, options.budget, lines, plan)
    own = options._replace(**place.own)
    place.checks = _checks(app, asked, own, lines, plan)


def _check_prices(app: App, budget: Budget, batch: Input, plan: Plan) -> None:
    """Raise BadUsage for a budget in dollars if the model of a line has no price."""
    found: dict[str | None, str] = {}
    for index in plan.mine:
        line = batch.lines[index]
        found.setdefault(batch.body(line).get("model"), f"line {line.number}")
    check_prices(budget, {line: model for model, line in found.items()}, app.known.priced)


def columns_of(batch: Input, *, is_pool: bool) -> tuple[str, ...]:
    """The columns of the table: the key if lines have one, the place if there are several."""
    columns = KEYED if any(line.has_own_key for line in batch.lines) else RESULT.columns
    return (*columns[:-1], "place", *columns[-1:]) if is_pool else columns


def batch_of(
    app: App,
    source: InputSource,
    lines: Input,
    plan: Plan,
    places: Sequence[BatchPlace],
    asked: Mapping[str, Any],
    *,
    is_pool: bool,
) -> Batch:
    """The batch of these lines at these places, whose journal knows others by their profiles."""

    def place_named(name: str) -> BatchPlace:
        at = app if name == app.settings.profile else app.at(name)
        return _place_of(at, {**_own_options(at, None), "max_running": 0})

    return Batch(
        source,
        lines,
        plan,
        places,
        app.state_dir / "batches",
        is_pool=is_pool,
        place_named=place_named,
        asked=asked,
        note=app.note,
        warn=app.warn,
        priced=app.known.priced,
    )


def _checks(
    app: App, asked: CheckOptions, options: BatchOptions, batch: Input, plan: Plan
) -> BatchChecks | None:
    """The checks that are asked for. BadUsage for a line that cannot be checked."""
    has_schema = options.wait and any(batch.lines[index].schema for index in plan.mine)
    if not has_schema and (not options.wait or (asked.check is None and asked.no_check)):
        return None
    checks = BatchChecks(app, asked, batch=options)
    mine = [batch.lines[index] for index in plan.mine]
    bodies = [batch.body(line) for line in mine]
    checks.require_bases((line.number, batch.body(line)) for line in mine)
    if not checks.may_check(bodies):
        asked.require_check()
        return checks if has_schema else None
    return checks


def with_ids(app: App, words: Iterable[str]) -> Iterator[str]:
    """The values of --resolve with the ids of the tasks that they refer to."""
    for word in words:
        line, _, task = word.rpartition("=")
        known = not task or task == "none"
        yield word if known else f"{line}={references.task(app.history, task)}"


def attended(
    places: Sequence[tuple[App, BatchPlace]], run: Callable[[], Iterator[Any]]
) -> Iterator[Any]:
    """The rows of a run whose tasks may ask questions; on the terminal, at one place only."""
    with ExitStack() as stack:
        for app, place in places:
            if len(places) > 1 and app.on_question == "ask":
                app.options["on_question"] = "stop"
            place.questions = stack.enter_context(question_watcher(app, NO_LIMIT))
        yield from run()


def for_table(rows: Iterator[Any]) -> Iterator[Any]:
    """The rows with errors that leave out the id, which is in a column.

    Lines that were never created come last, and not at all when an interrupt ends the rows.
    """
    never = []
    for row in rows:
        if isinstance(row, LineProblem):
            yield row.with_row(_without_id(row.row))
        elif isinstance(row, RebyteError):
            yield row
        elif row["status"] == "pending":
            never.append(row)
        else:
            yield _without_id(row)
    yield from never


def _without_id(row: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**row, "error": row["error"] and {**row["error"], "message": reason_of(row)}}


def planned_bodies(batch: Input, plan: Plan) -> Iterator[str]:
    """What each line would send, as one JSON object per line."""
    for index in plan.mine:
        line = batch.lines[index]
        body = batch.body(line)
        if line.workspace:
            body["workspaceId"] = line.workspace
        if line.paths:
            body["files"] = [*body.get("files", ()), *({"path": path} for path in line.paths)]
        document = {"key": line.key, "line": line.number, "body": body}
        yield dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n"


class BatchView(NamedTuple):
    """Shows one call of the command.

    `results` is the file that takes the rows instead of stdout, and `report` that of a report.
    `summary` is called with each line of the counts when everything is over.
    """

    app: App
    batch: Batch
    results: str | None
    report: str | None
    summary: Callable[[str], None]

    def status(self) -> Iterator[RowOrError]:
        """Every line as the journal has it."""
        yield from self.batch.status()
        self._finish(None, ())

    def run(self, options: BatchOptions, **more: Any) -> Iterator[RowOrError]:
        """Run what is left, and yield the row of every line as it ends. `more`: see `held`."""
        # A short command lets the collector come late; a batch lasts, and would keep what the
        # local service in this process has answered. What was imported stays, so it need not be
        # looked at again and again.
        gc.freeze()
        gc.set_threshold(5000, 20, 20)
        places: list[OpenPlace] = []
        began = time.monotonic()
        with self.batch.held(options, **more) as runner:
            file = self.results and ResultsFile(self.results, self.app.fields)
            rows = runner.run()
            try:
                with progress.batch_board(self.app.console, runner.progress):
                    yield from file.take(rows) if file else rows
                places += runner.places
            except Interrupted as error:
                words = [word for word in self.app.argv if word != "--fresh"]
                hint = f"Resume with `{join(['rebyte', *words])}`"
                raise Interrupted(error.exit_status, hint=hint) from None
            finally:
                rows.close()
                self._finish(time.monotonic() - began, places)

    def _finish(self, seconds: float | None, places: Sequence[OpenPlace]) -> None:
        """Print the counts, with reasons that lines share, and write the report.

        The report has the answers that can be read at `places`.
        """
        took = "" if seconds is None else f" ({duration(seconds)})"
        ends = tally(self.batch.rows())
        self.summary(counts(ends) + took)
        if used := summary(self.batch.used()):
            self.summary(used)
        if self.batch.is_pool:
            from ..batch.report import by_place

            for line in by_place(self.batch.rows()):
                self.summary(line)
        for line in shared_reasons(ends):
            self.summary(line)
        if seconds is not None and any(status == "failed" for status, _ in ends):
            self.summary("--retry-failed creates a new task for each line that failed")
        if self.report:
            self._write_report(self.report, places)

    def _write_report(self, path: str, places: Sequence[OpenPlace]) -> None:
        from ..batch.report import LineTexts, excerpt, read_answers, write

        rows = list(self.batch.rows())
        read = {}
        for place in places:
            ended = (
                row["id"]
                if row["status"] in ANSWERED and row.get("place", place.name) == place.name
                else None
                for row in rows
            )
            read[place.name] = read_answers(place.client, ended, self.app.note)
        answers: Iterable[str | None] = repeat(None)
        if read:
            answers = (
                next(filter(None, of_places), None)
                for of_places in zip(*read.values(), strict=True)
            )
        texts = (
            LineTexts(excerpt(prompt, len(rows)), answer and excerpt(answer, len(rows)))
            for prompt, answer in zip(self.batch.prompts(), answers, strict=False)
        )
        with progress.spinner(self.app.console, "Writing the report"):
            write(path, self.batch.source.name, rows, texts, used=summary(self.batch.used()))


# What decides whether tasks are done


class BatchChecks:
    """How the tasks of a batch are examined: a `batch.place.LineChecks`."""

    def __init__(self, app: App, options: CheckOptions, *, batch: BatchOptions) -> None:
        """The times of `batch` are for prompts instead of creates.

        Raises what `CheckOptions.usable_command` raises.
        """
        self._app = app
        self._options = options
        self._says = None if options.no_check else repository_says(app, options)
        self._files: dict[str, RepositoryFile | None] = {}
        self._client = app.client
        self._batch = batch
        self.tries = options.tries or TRIES
        self._how = options.usable_command()
        self._bases: dict[tuple[Any, ...], str | None] = {}

    def base(self, body: Mapping[str, Any]) -> str | None:
        """The commit that a task with this body starts from; None if it is not known here."""
        key = tuple(body.get(name) for name in REPOSITORY)
        if key not in self._bases:
            self._bases[key] = repository.base_commit(self._given(body), body)
        return self._bases[key]

    def _given(self, body: Mapping[str, Any]) -> str | None:
        """`.` if the repository of a task is the one here."""
        if not body.get("githubUrl"):
            return None
        try:
            here, _ = repository.repository(".", body.get("branchName"), note=lambda _text: None)
        except BadUsage:
            return None
        return "." if here == body["githubUrl"] else None

    def may_check(self, bodies: Sequence[Mapping[str, Any]]) -> bool:
        """Whether any of these lines may have a check, its own or that of its repository.

        Raises CheckUnusable where no check can be made.
        """
        if self._how is not None:
            return True
        known = [self._options.with_file(self._file_of(body)).usable_command() for body in bodies]
        return any(known) or any(map(self._is_known_later, bodies))

    def _is_known_later(self, body: Mapping[str, Any]) -> bool:
        """Whether the repository of a line is cloned to this machine, where it can be read then."""
        has_repository = body.get("githubUrl") or body.get("localRepository")
        is_local = self._app.settings.is_local and "executor" in body
        return bool(has_repository) and is_local and self.base(body) is None

    def _file_of(self, body: Mapping[str, Any]) -> RepositoryFile | None:
        """What the repository of a line asks for, if that is known before its task runs."""
        commit = self.base(body)
        if self._says is None or commit is None:
            return None
        if commit not in self._files:
            self._files[commit] = self._says.of_body(body, commit)
        return self._files[commit]

    def require_bases(self, bodies: Iterable[tuple[int, Mapping[str, Any]]]) -> None:
        """Raise BadUsage for the first line, by its number, of which it is not known."""
        is_local, says = self._app.settings.is_local, self._says
        for number, body in bodies:
            has_workspace = is_local and "executor" in body
            if self._options.base or has_workspace or self.base(body):
                continue
            if self._how is not None or (says is not None and says.may_check(body)):
                what = "--check" if self._how is not None else "its repository's check"
                raise BadUsage(
                    f"line {number}: {what}: the commit that its task starts from is unknown",
                    hint="Use -g . for the repository here, or name the commit with --base",
                )

    def examine(self, job: CheckJob, stopped: Callable[[], bool]) -> RunVerdict:
        """Examine a task; see `LineChecks`."""
        body = job.body
        asked = {name: body.get(name) for name in ("localRepository", "githubUrl")}
        asked |= {"baseCommit": self.base(body), "givenWorkspaceId": body.get("workspaceId")}
        checks = TaskChecks(self._app, self._options, self._says, **asked)
        how = checks.options_for(job.task).usable_command()
        return checks.examine(job.task, how, job.schema, stopped=stopped)

    def mend(self, task_id: str, prompt: str, key: str) -> str:
        """Send the prompt; see `LineChecks`."""
        answer = follow_up(
            self._client,
            self._app.history,
            task_id,
            {"prompt": prompt},
            key=key,
            send_again_after=timedelta(seconds=self._batch.send_again_after),
            note=self._app.note,
            pace=self._batch.pace,
        )
        return str(answer["promptId"])
