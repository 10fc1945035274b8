"""Run the lines of a file as tasks, and resume after an interrupt."""

from __future__ import annotations

import gc
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ..app import App
from ..errors import BadUsage, Interrupted, RebyteError, RowOrError
from ..output.records import RESULT, RecordList, Records, Text
from ..system.deadline import NO_LIMIT
from ._base import define
from ._check import BatchChecks, CheckOptions, mending_options, unjailed_check_option
from ._local import AgentOptions, network_options, no_setup_option, on_limit_option
from ._options import (
    BUDGET,
    DURATION,
    Number,
    ParsedText,
    TaskOptions,
    chosen_fields,
    completer,
    dry_run_option,
    full_ids_option,
    label_option,
    on_question_option,
    take,
    task_options,
    timeout_option,
)
from ._places import (
    PlaceName,
    apps_of,
    counted_places,
    own_options,
    place_of,
    places_of,
    shortened,
    split_defaults,
)
from ._stdin import stdin
from ._wait import question_watcher

if TYPE_CHECKING:
    from ..batch.input import Input, InputSource, Plan
    from ..batch.place import BatchOptions, BatchPlace, OpenPlace
    from ..batch.session import Batch
    from ..tasks.budget import Budget

ANSWERED = frozenset({"completed", "failed"})  # statuses of tasks that may have an answer
MANY = 500  # lines, from which on a process for the local service saves more than it takes
KEYED = ("line", "key", *RESULT.columns[1:])  # of a table whose lines have keys
NOTHING_RUNS = "cannot be used with --status or --dry-run"
NOT_WATCHED = "requires --wait: it counts the tasks that this command watches"


def _rate(text: str) -> float:
    """Creates per second: a number above 0."""
    try:
        rate = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None
    if rate <= 0:
        raise ValueError(f"{rate} is not greater than 0")
    if not math.isfinite(rate):
        raise ValueError(f"{text!r} is not a number of requests per second")
    return rate


def _shard(text: str) -> tuple[int, int]:
    """`I/N`: the I-th of N parts, from 1."""
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip(), re.ASCII)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError(f"{text!r} is not I/N with I from 1 to N (1/4 to 4/4)")
    return int(found[1]), int(found[2])


@define("batch", kind=RESULT, statuses=(3, 4, 5, 6, 10, 11, 12, 13, 124))
@click.argument("file", metavar="FILE", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--text", is_flag=True, help="Read FILE as one prompt per line.")
@click.option(
    "--csv", is_flag=True, help="Read FILE as CSV with a header (the default for names in .csv)."
)
@click.option(
    "--template",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Make each prompt from this text and the fields of the line: {{field}}.",
)
@task_options()
@network_options
@no_setup_option
@click.option(
    "-f",
    "--file",
    "files",
    metavar="PATH",
    multiple=True,
    type=click.Path(),
    help="Upload a file for every line without files; repeatable.",
)
@label_option
@click.option(
    "--workspace-per-line",
    is_flag=True,
    help="Give each line its own workspace; lines with a workspaceId are refused.",
)
@click.option(
    "--jobs",
    metavar="N",
    type=Number(1, 256),
    default=8,
    show_default=True,
    help="Send at most N create requests at a time; tasks created before keep running.",
)
@click.option(
    "--max-running",
    metavar="N",
    type=Number(min=1),
    help="Let at most N tasks of this batch run at a time (default: no limit).",
)
@click.option(
    "--on",
    metavar="PLACE:N,...",
    type=ParsedText("places", counted_places),
    shell_complete=completer("places"),
    help="Run lines at these places, at most N at a time in each: local:2,box:8 (profiles).",
)
@click.option(
    "--budget",
    metavar="AMOUNT",
    type=BUDGET,
    help="Create no further line once all tasks have used AMOUNT (5usd, 300ktok, 2Mtok).",
)
@click.option(
    "--rate",
    metavar="N",
    type=ParsedText("rate", _rate),
    help="Send at most N create requests per second.",
)
@click.option(
    "--wait/--no-wait", default=True, show_default=True, help="Wait for the tasks to end."
)
@timeout_option
@on_question_option
@on_limit_option
@click.option("--fail-fast", is_flag=True, help="Stop creating tasks once a line fails.")
@click.option("--retry-failed", is_flag=True, help="Create a new task for each line that failed.")
@click.option(
    "--shard",
    type=ParsedText("shard", _shard),
    default="1/1",
    metavar="I/N",
    help="Run only the I-th of N parts.",
)
@click.option(
    "--journal",
    metavar="PATH",
    type=click.Path(dir_okay=False),
    help="Keep the journal here instead of beside FILE.",
)
@click.option(
    "--status",
    "only_status",
    is_flag=True,
    help="Show progress from the journal without contacting the service.",
)
@click.option(
    "--resolve",
    metavar="LINE=ID|none",
    multiple=True,
    help="Set the task of a line with unknown outcome, or `none`.",
)
@click.option(
    "--resend-after",
    type=DURATION,
    default=None,
    metavar="DURATION",
    help="After a create that got no response, wait this long for its task to appear before"
    " sending the create again, three times at most (15m; 2s with -P local).",
)
@click.option(
    "--results",
    metavar="PATH",
    type=click.Path(),
    help="Write the results to PATH as JSON Lines instead of stdout.",
)
@click.option(
    "--report",
    metavar="PATH",
    type=click.Path(),
    help="Write a report with prompts and answers: .html or .md.",
)
@mending_options
@unjailed_check_option
@full_ids_option
@dry_run_option("Print the request body of each line and send nothing.", "planned")
def command(
    app: App,
    files: tuple[str, ...],
    labels: Mapping[str, str],
    on: tuple[PlaceName, ...] | None,
    rate: float | None,
    only_status: bool,
    resolve: tuple[str, ...],
    resend_after: float | None,
    results: str | None,
    report: str | None,
    full_ids: bool,
    dry_run: bool,
    **choices: Any,
) -> Any:
    """Run each line of FILE as a task, and print each result as it arrives.

    FILE is JSON Lines: the fields of a task (prompt, executor, model, skills, githubUrl,
    branchName, workspaceId, files, outputSchema) and `key`, the name of the line in the results.
    `-` is stdin.
    The options of `create` are defaults for lines that do not set them; null removes a default.
    All of FILE is checked before the first task is created, and every bad line is reported
    (status 2).

    FILE.journal (FILE.I-of-N.journal for a shard) records the state of each line, on disk before
    anything is sent. After an interrupt, a crash or a power cut, run the same command again to
    resume: finished lines are not repeated and running tasks are followed to their end. If a
    create got no response, rebyte looks for the task that it may have made, and sends the create
    again only if 15 minutes (--resend-after) have not shown one. A line whose outcome stays unknown
    has the status `unknown` (exit status 6); the next run looks again, or use --resolve to set its
    task. Lines appended to FILE are created by the next run. rebyte refuses a journal that belongs
    to a different profile or URL, or whose lines were changed. To start over, pass a new --journal.

    Each run prints the result of every line, beginning with those that ended in an earlier run. The
    status of a line is completed, failed, canceled, refused (by the API, on create), gone (the task
    no longer exists), skipped (the line it follows did not complete), running, limited (by a usage
    limit of its model, until "resumesAt"), waiting (for an answer to a question), unchecked
    (--check could not be carried out), pending (not created yet) or unknown. The `error` of a
    failed line says why; stderr ends with the counts and the most frequent reasons that several
    lines share.
    --results writes the results to a file, which is replaced only after the run has locked the
    journal, so starting a batch twice is safe.

    --jobs counts create requests, which last until a task has its VM; --max-running counts tasks
    from that request to their end. It includes tasks that an earlier run of this journal left
    running, lines whose outcome is not known yet, and tasks that wait for an answer while the batch
    waits for it. While tasks wait for a usage limit, more of other executors may run. Each shard
    counts its own.

    --on runs the lines at several places: the first that is free gets the next line, and no more
    than N run there at a time (without :N, as many as --max-running or else --jobs says). --jobs
    and --rate hold for each place. Its settings, such as the executor, hold for its lines. Rows say
    the `place` of each line, and the summary how many lines each place ended. A place that is gone,
    turns creates away or waits for a usage limit keeps the lines that it has, and the others take
    the rest. When resumed with another list, lines that were sent keep their place. Questions are
    not asked on the terminal: answer them with `rebyte -P PLACE answer`. See rebyte-places(7).

    --budget limits what the tasks of this journal use together, those of earlier runs included.
    Once it is used up, no further line is created; tasks that run are waited for. If lines are left
    over, they stay pending and the status is 13: run the same command with a larger budget to
    continue. Since the use of a task shows only while it runs, at most --jobs tasks run at a time
    unless --max-running says otherwise. A budget in dollars requires a model with a price in
    config.toml on each line. Each shard counts its own.

    Lines with the same workspaceId run one after another. `"workspaceId": "@KEY"` runs a line in
    the workspace of the line with that key, after that line has completed. Lines that belong
    together stay in one shard. See rebyte-shards(7) for running shards on several machines.

    With --schema, answers are JSON that fits, and rows have the value as `output`; a line can have
    its own as `outputSchema`. A line whose answer never fits has failed.

    With --check, a line is completed when that command passes on its changes, and failed if it
    never does: what it prints is sent to the task, once for each try, whatever interrupts the
    batch. See rebyte-check(7).

    If a task asks a question, a terminal asks you while the other lines go on. Without a terminal,
    the batch ends with status 12 once only such tasks are left; answer them with `rebyte answer`,
    then run the same command again.

    A 429, a 503 or a Retry-After slows down the whole batch. A network outage pauses it until the
    network is back; one of five minutes ends it, and the same command resumes it. Ctrl-C stops
    creating tasks and waits for the requests in progress; a second Ctrl-C exits immediately.
    Nothing of this loses or duplicates a task.

    Examples:

      rebyte batch tasks.jsonl --jobs 16 > results.jsonl
      rebyte batch tasks.jsonl --max-running 4 --budget 2Mtok
      rebyte batch tasks.jsonl --on local:2,box:8,default:20
      rebyte batch prompts.txt --text -g owner/repo --report batch.html
      rebyte batch people.csv --template letter.txt --dry-run | head
      rebyte batch files.jsonl --schema claims.json | jq .output
      rebyte batch tasks.jsonl --status
      rebyte batch tasks.jsonl --shard "$((SLURM_ARRAY_TASK_ID + 1))/8"
    """
    from ..batch.input import InputSource, make_plan, read_source
    from ..batch.place import BatchOptions
    from ..batch.results import check_outputs
    from ..batch.session import parse_resolutions

    source, options = take(InputSource, choices), take(BatchOptions, choices)
    check_outputs(source, results=results, report=report)
    if only_status or dry_run:
        _refuse({"--resolve": resolve, "--results": results}, NOTHING_RUNS)
    if not options.wait:
        counted = {"--max-running": options.max_running, "--budget": options.budget, "--on": on}
        _refuse(counted, NOT_WATCHED)
    if not dry_run:
        source.refuse_other_shards()
    checks, agent = CheckOptions.of(choices), take(AgentOptions, choices)
    wanted = TaskOptions(**choices)
    apps = apps_of(app, on) if on else {app.settings.profile: app}
    defaults, differing = split_defaults(
        {name: chosen_fields(each, wanted) | agent.fields(each) for name, each in apps.items()}
    )
    piped, schema = stdin() if source.file == "-" else None, checks.schema
    batch = read_source(source, piped, defaults=defaults, files=files, labels=labels, schema=schema)
    plan = make_plan(batch.lines, source.name, source.shard)
    if dry_run:
        return Text(_bodies(batch, plan))
    if app.format == "json":
        app.auto = "jsonl"

    as_table, counts = app.format == "table" and results is None, list[str]()
    asked = {**defaults, "files": files, "workspace-per-line": source.workspace_per_line}
    asked |= {"on": [name for name, _ in on]} if on else {}
    most = options.max_running or options.jobs
    places = places_of(apps, on or (), differing, resend_after, most)
    view = BatchView(
        app,
        _batch_of(app, source, batch, plan, places, asked, is_pool=bool(on)),
        source.name,
        results=results,
        report=report,
        summary=counts.append if as_table else app.note,
    )
    if only_status:
        rows = view.status()
    else:
        most_running = options.max_running if options.budget is None else most
        options = options._replace(max_running=most_running, title=source.name)
        words = resolve if on else _with_ids(app, resolve)
        resolutions = parse_resolutions(words, batch.lines, plan.mine)
        run = partial(view.run, options, rate=rate, resolutions=resolutions)
        at_places = [*zip(apps.values(), places, strict=True)]
        for each, place in at_places:
            _prepare(each, place, checks, options, batch, plan)
        rows = _attended(at_places, run)
    if not as_table:
        return Records(RESULT, rows)
    shorten = None if full_ids else partial(shortened, apps.values())
    columns = _columns(batch, is_pool=view.batch.is_pool)
    return RecordList(RESULT, _for_table(rows), below=counts, columns=columns, shorten=shorten)


def _refuse(options: Mapping[str, Any], why: str) -> None:
    """Raise BadUsage for the first of these options that was given."""
    for name, value in options.items():
        if value:
            raise BadUsage(f"{name} {why}")


def _prepare(
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
    from ..tasks.budget import check_prices

    found: dict[str | None, str] = {}
    for index in plan.mine:
        line = batch.lines[index]
        found.setdefault(batch.body(line).get("model"), f"line {line.number}")
    check_prices(budget, {line: model for model, line in found.items()}, app.known.priced)


def _columns(batch: Input, *, is_pool: bool) -> tuple[str, ...]:
    """The columns of the table: the key if lines have one, the place if there are several."""
    columns = KEYED if any(line.has_own_key for line in batch.lines) else RESULT.columns
    return (*columns[:-1], "place", *columns[-1:]) if is_pool else columns


def _batch_of(
    app: App,
    source: InputSource,
    lines: Input,
    plan: Plan,
    places: Sequence[BatchPlace],
    asked: Mapping[str, Any],
    *,
    is_pool: bool,
) -> Batch:
    from ..batch.session import Batch

    def place_named(name: str) -> BatchPlace:
        at = app if name == app.settings.profile else app.at(name)
        return place_of(at, {**own_options(at, None), "max_running": 0})

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
    checks.require_bases((line.number, batch.body(line)) for line in mine)
    if not checks.may_check(map(batch.body, mine)):
        asked.require_check()
        return checks if has_schema else None
    return checks


def _with_ids(app: App, words: Iterable[str]) -> Iterator[str]:
    """The values of --resolve with the ids of the tasks that they refer to."""
    from ..history import references

    for word in words:
        line, _, task = word.rpartition("=")
        known = not task or task == "none"
        yield word if known else f"{line}={references.task(app.history, task)}"


def _attended(
    places: Sequence[tuple[App, BatchPlace]], run: Callable[[], Iterator[Any]]
) -> Iterator[Any]:
    """The rows of a run whose tasks may ask questions; on the terminal, at one place only."""
    with ExitStack() as stack:
        for app, place in places:
            if len(places) > 1 and app.on_question == "ask":
                app.options["on_question"] = "stop"
            place.questions = stack.enter_context(question_watcher(app, NO_LIMIT))
        yield from run()


def _for_table(rows: Iterator[Any]) -> Iterator[Any]:
    """The rows with errors that leave out the id, which is in a column.

    Lines that were never created come last, and not at all when an interrupt ends the rows.
    """
    from ..batch.results import LineProblem

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
    from ..batch.results import reason_of

    return {**row, "error": row["error"] and {**row["error"], "message": reason_of(row)}}


def _bodies(batch: Input, plan: Plan) -> Iterator[str]:
    """What each line would send, as one JSON object per line."""
    from json import dumps

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
    """Shows one call of the command on the input `name`.

    `results` is the file that takes the rows instead of stdout, and `report` that of a report.
    `summary` is called with each line of the counts when everything is over.
    """

    app: App
    batch: Batch
    name: str
    results: str | None
    report: str | None
    summary: Callable[[str], None]

    def status(self) -> Iterator[RowOrError]:
        """Every line as the journal has it."""
        yield from self.batch.status()
        self._finish(None, ())

    def run(self, options: BatchOptions, **more: Any) -> Iterator[RowOrError]:
        """Run what is left, and yield the row of every line as it ends. `more`: see `held`."""
        from shlex import join

        from ..batch.results import ResultsFile
        from ..output.progress import batch_board

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
                with batch_board(self.app.console, runner.progress):
                    yield from file.take(rows) if file else rows
                places += runner.places
            except Interrupted as error:
                hint = f"Resume with `{join(['rebyte', *self.app.argv])}`"
                raise Interrupted(error.exit_status, hint=hint) from None
            finally:
                rows.close()
                self._finish(time.monotonic() - began, places)

    def _finish(self, seconds: float | None, places: Sequence[OpenPlace]) -> None:
        """Print the counts, with reasons that lines share, and write the report.

        The report has the answers that can be read at `places`.
        """
        from ..batch.results import counts, shared_reasons, tally
        from ..system.durations import duration
        from ..tasks.usage import summary

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
        if self.report:
            self._write_report(self.report, places)

    def _write_report(self, path: str, places: Sequence[OpenPlace]) -> None:
        from ..batch.report import LineTexts, excerpt, read_answers, write
        from ..output.progress import spinner
        from ..tasks.usage import summary

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
        with spinner(self.app.console, "Writing the report"):
            write(path, self.name, rows, texts, used=summary(self.batch.used()))
