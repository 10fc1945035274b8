"""Run the lines of a file as tasks, and go on after an interrupt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from ..app import App
from ..errors import BadUsage
from ..output.records import RESULT, Listing, Records, Text
from ._base import define
from ._batch import Given, Rate, Shard, check_report, read, refuse_other_shards, resolutions
from ._options import Seconds, chosen_fields, dry_run_option, task_options, timeout_option

if TYPE_CHECKING:
    from ..batch.input import Input, Plan


@define("batch", kind=RESULT, statuses=(3, 4, 5, 6, 10, 11, 124))
@click.argument("file", metavar="FILE", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--text", is_flag=True, help="FILE has one prompt per line.")
@click.option("--csv", is_flag=True, help="FILE is CSV with a header (as its name .csv says).")
@click.option(
    "--template",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Make each prompt out of this text and the line's fields: {{field}}.",
)
@task_options
@click.option(
    "-f",
    "--file",
    "files",
    metavar="PATH",
    multiple=True,
    type=click.Path(),
    help="A file for every line that names none; uploaded once. Repeat for several.",
)
@click.option(
    "--workspace-per-line",
    "fresh",
    is_flag=True,
    help="A machine for each line: refuse those that name a workspace.",
)
@click.option(
    "--jobs",
    metavar="N",
    type=click.IntRange(1, 256),
    default=8,
    show_default=True,
    help="Creates under way at one time.",
)
@click.option(
    "--rate",
    metavar="N",
    type=Rate(),
    help="Creates per second, at most.",
)
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait for the tasks.")
@timeout_option
@click.option("--fail-fast", is_flag=True, help="Create nothing more once a line has failed.")
@click.option("--retry-failed", is_flag=True, help="Give lines that failed another task.")
@click.option(
    "--shard", type=Shard(), default="1/1", metavar="I/N", help="Only the I-th of N parts."
)
@click.option(
    "--journal",
    metavar="PATH",
    type=click.Path(dir_okay=False),
    help="Where to note what was done; beside FILE by default.",
)
@click.option("--status", "only_status", is_flag=True, help="Show where it stands; ask nobody.")
@click.option(
    "--resolve",
    metavar="LINE=ID|none",
    multiple=True,
    help="Say which task a line with unknown outcome has, or that it has none.",
)
@click.option(
    "--resend-after",
    type=Seconds(),
    default=None,
    metavar="SECONDS",
    help="Send a line again when its answer was lost and no task is found so long after (15m).",
)
@click.option("--report", metavar="PATH", type=click.Path(), help="Write a report: .html or .md.")
@dry_run_option("Print each line's request body and send nothing.", "planned")
def command(
    app: App,
    file: str,
    text: bool,
    csv: bool,
    template: str | None,
    files: tuple[str, ...],
    fresh: bool,
    jobs: int,
    rate: float | None,
    wait: bool,
    timeout: float | None,
    fail_fast: bool,
    retry_failed: bool,
    shard: tuple[int, int],
    journal: str | None,
    only_status: bool,
    resolve: tuple[str, ...],
    resend_after: float | None,
    report: str | None,
    dry_run: bool,
    **choices: Any,
) -> Any:
    """Run each line of FILE as a task, and print each as it ends.

    FILE is JSONL: the fields of a task (prompt, executor, model, skills, githubUrl, branchName,
    workspaceId, files) and `key`, the line's name in the results. `-` is stdin. The options of
    `create` are defaults for lines that do not say otherwise; null takes a default away. All of
    FILE is checked before the first task is created, and every bad line is named (status 2).

    What was done is noted in FILE.journal (FILE.I-of-N.journal for a shard), on the disk before
    anything is sent. After an interrupt, a crash or a power cut, the same command goes on where
    it stopped: finished lines are not repeated, running tasks are taken up, and a create whose
    answer was lost is looked for. It is sent again only when no task is found and the attempt is
    15 minutes old (--resend-after). What cannot be known until the end is `unknown` (status 6),
    is looked for again by the next run, and can be settled with --resolve. A journal of another
    content, profile or address is refused: to run a file anew, name another --journal.

    Each run prints every line: those that ended earlier first. A status is completed, failed,
    canceled, refused (by the API, when it was to be created), gone (the task is not there any
    more), skipped (what it follows did not complete), running, pending (not created) or unknown.

    Lines with one workspaceId run one after another. `"workspaceId": "@KEY"` runs a line in the
    workspace of the line with that key, once that one has completed. Lines that belong together
    stay in one shard; rebyte-shards(7) shows shards on many machines.

    A 429 or a Retry-After slows the whole batch down. A lost network pauses it until it is back
    or --timeout ends it. Ctrl-C creates nothing more and waits for the creates under way; a
    second one leaves at once. Neither loses or doubles anything.

    Examples:

      rebyte batch tasks.jsonl --jobs 16 > results.jsonl
      rebyte batch prompts.txt --text -g owner/repo --report batch.html
      rebyte batch people.csv --template letter.txt --dry-run | head
      rebyte batch tasks.jsonl --status
      rebyte batch tasks.jsonl --shard "$((SLURM_ARRAY_TASK_ID + 1))/8"
    """
    given = Given(file, text, csv, template, fresh, shard, journal)
    if report is not None:
        check_report(given, report)
    if resolve and (only_status or dry_run):
        raise BadUsage("--resolve needs a run, without --status and --dry-run")
    if not dry_run:
        refuse_other_shards(given)
    defaults = chosen_fields(app, **choices)
    batch = read(app, given, defaults, files)
    from ..batch.input import make_plan

    plan = make_plan(batch.lines, given.name, shard)
    if dry_run:
        return Text(_bodies(batch, plan))
    if app.format == "json" and app.settings.output.value == "auto":
        app.set_option("output", "jsonl")
    from ._batch import Run

    as_table, summary = app.format == "table", list[str]()
    tell = summary.append if as_table else app.note
    asked = {**defaults, "files": files, "workspace-per-line": fresh}
    run = Run(app, given, batch, plan, asked=asked, report=report, tell=tell)
    if only_status:
        rows = run.standing()
    else:
        from ..batch.runner import SEND_AGAIN_AFTER, Options

        if resend_after is None:
            # The local service has a task at once or never.
            resend_after = 2.0 if app.settings.is_local else SEND_AGAIN_AFTER
        rows = run.rows(
            Options(jobs, wait, timeout, fail_fast, retry_failed, resend_after),
            rate=rate,
            settled=resolutions(resolve, batch.lines, plan.mine),
        )
    if not as_table:
        return Records(RESULT, rows)
    return Listing(RESULT, _created_first(rows), below=summary)


def _created_first(rows: Iterator[Any]) -> Iterator[Any]:
    """Lines that were never created come last, and not at all when an interrupt ends the rows."""
    never = []
    for row in rows:
        if isinstance(row, Mapping) and row["status"] == "pending":
            never.append(row)
        else:
            yield row
    yield from never


def _bodies(batch: Input, plan: Plan) -> Iterator[str]:
    """What each line would send, as one JSON object a line."""
    from json import dumps

    for at in plan.mine:
        line = batch.lines[at]
        body = batch.body(line)
        if line.workspace:
            body["workspaceId"] = line.workspace
        if line.paths:
            body["files"] = [*body.get("files", ()), *({"path": path} for path in line.paths)]
        document = {"key": line.key, "line": line.number, "body": body}
        yield dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n"
