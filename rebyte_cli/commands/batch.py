"""Run the lines of a file as tasks, and resume after an interrupt."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import click

from ..app import App
from ..output.records import RESULT, RecordList, Records, Text
from ._base import define
from ._check import CheckOptions, mending_options, unjailed_check_option
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
    refuse,
    take,
    task_options,
    timeout_option,
)
from ._places import PlaceName, apps_of, counted_places, shortened
from ._stdin import stdin

NOTHING_RUNS = "cannot be used with --status or --dry-run"
LONGEST_NAME = 2000  # characters that the local service takes as the title of a batch
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
    "--fresh",
    is_flag=True,
    help="Run every line again, once all have ended; keep the journal as FILE.journal.N.",
)
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
    again only if it certainly made none after 15 minutes (--resend-after). Where others create
    tasks in the account, or two lost lines have the same prompt and different workspaces, that
    cannot be told. A line whose outcome stays unknown has the status `unknown` (exit status 6); the
    next run looks again, or use --resolve to set its task. Lines appended to FILE are created by
    the next run. rebyte refuses a journal that belongs to a different profile or URL, or whose
    lines were changed, and other options than those that lines were sent with. To run every line
    again, pass --fresh.

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
    network is back; one of five minutes ends it, and the same command resumes it. Ctrl-C or SIGTERM
    stops creating tasks and waits for the requests in progress; a second one exits immediately. A
    batch that a script has started with `&` ignores Ctrl-C. Nothing of this loses or duplicates a
    task.

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
    from . import _batch

    source, options = take(InputSource, choices), take(BatchOptions, choices)
    check_outputs(source, results=results, report=report)
    if only_status or dry_run:
        refuse({"--resolve": resolve, "--results": results, "--fresh": options.fresh}, NOTHING_RUNS)
    if not options.wait:
        counted = {"--max-running": options.max_running, "--budget": options.budget, "--on": on}
        refuse(counted, NOT_WATCHED)
    if not dry_run:
        source.refuse_other_shards()
    checks, agent = CheckOptions.of(choices), take(AgentOptions, choices)
    wanted = TaskOptions(**choices)
    apps = apps_of(app, on) if on else {app.settings.profile: app}
    defaults, differing = _batch.split_defaults(
        {name: chosen_fields(each, wanted) | agent.fields(each) for name, each in apps.items()}
    )
    piped, schema = stdin() if source.file == "-" else None, checks.schema
    batch = read_source(source, piped, defaults=defaults, files=files, labels=labels, schema=schema)
    plan = make_plan(batch.lines, source.name, source.shard)
    if dry_run:
        return Text(_batch.planned_bodies(batch, plan))
    if app.format == "json":
        app.auto = "jsonl"

    as_table, counts = app.format == "table" and results is None, list[str]()
    asked = {**defaults, "files": files, "workspace-per-line": source.workspace_per_line}
    asked |= {"on": [name for name, _ in on]} if on else {}
    asked |= {"check": checks.check, "schema": checks.schema and checks.schema.text}
    most = options.max_running or options.jobs
    places = _batch.places_of(apps, on or (), differing, resend_after, most)
    view = _batch.BatchView(
        app,
        _batch.batch_of(app, source, batch, plan, places, asked, is_pool=bool(on)),
        results=results,
        report=report,
        summary=counts.append if as_table else app.note,
    )
    if only_status:
        rows = view.status()
    else:
        most_running = options.max_running if options.budget is None else most
        options = options._replace(max_running=most_running, title=source.name[-LONGEST_NAME:])
        words = resolve if on else _batch.with_ids(app, resolve)
        resolutions = parse_resolutions(words, batch.lines, plan.mine)
        run = partial(view.run, options, rate=rate, resolutions=resolutions)
        at_places = [*zip(apps.values(), places, strict=True)]
        for each, place in at_places:
            _batch.prepare(each, place, checks, options, batch, plan)
        rows = _batch.attended(at_places, run)
    if not as_table:
        return Records(RESULT, rows)
    shorten = None if full_ids else partial(shortened, apps.values())
    columns = _batch.columns_of(batch, is_pool=view.batch.is_pool)
    rows = _batch.for_table(rows)
    return RecordList(RESULT, rows, below=counts, columns=columns, shorten=shorten)
