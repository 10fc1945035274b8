"""Land the changes of many tasks on one branch, one after the other."""

from __future__ import annotations

from typing import Any

import click

from ..app import App
from ..errors import BadUsage
from ..output.records import LAND, RecordList, Records
from ._base import define
from ._check import CheckOptions, no_check_option, protection_options
from ._options import Number, completer


@define("land", kind=LAND, statuses=(3, 4, 5, 6, 10, 12))
@click.argument("tasks", metavar="[TASK…]", nargs=-1, shell_complete=completer("tasks"))
@click.option(
    "--results",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Land the tasks in the results of a batch, in the order of its lines.",
)
@click.option("--branch", metavar="NAME", required=True, help="The branch to make.")
@click.option(
    "--onto",
    metavar="REV",
    default="HEAD",
    show_default=True,
    help="The commit that the branch begins on.",
)
@click.option(
    "--rerun",
    "reruns",
    metavar="N",
    type=Number(0, 10),
    default=1,
    show_default=True,
    help="Run a task that conflicts or fails the check again on the tip, up to N times.",
)
@click.option(
    "--check",
    metavar="CMD",
    help="Land only what passes this shell command on the tip; see `check`.",
)
@no_check_option
@protection_options
@click.option("--no-jail", is_flag=True, help="Run the check without a sandbox, with your files.")
@click.option(
    "--push",
    metavar="REMOTE",
    help="Push the branch to this remote before a rerun; a service elsewhere clones it there.",
)
@click.option(
    "--report", metavar="PATH", type=click.Path(), help="Write a report in Markdown, .md."
)
@click.option(
    "--status", "only_status", is_flag=True, help="Show what has landed, from the journal."
)
@click.option("--force", is_flag=True, help="Start over: replace the branch and its journal.")
def command(
    app: App,
    tasks: tuple[str, ...],
    results: str | None,
    only_status: bool,
    **options: Any,
) -> Any:
    """Land the changes of each TASK on a new branch, one after the other, as a commit each.

    The branch begins on --onto. The changes of each task are merged into its tip, as `git apply
    --3way` does, and committed as `rebyte apply --commit` does: you are author and committer, and
    trailers name the task. Tasks that still run are waited for. No working tree, index or HEAD is
    read or changed, and no hook or program runs that the repository's own configuration names:
    what signs, merges and pushes is what your own names (`git config --global`), or git's own
    program. Whether and with which key commits are signed is as for `git commit` here. Of the
    repository's settings, a push obeys the remote's address, `http.*.extraHeader`, `postBuffer` and
    `version`, and `credential.*.username` and `useHttpPath`: set a proxy in your own. Nothing is
    fetched into a partial clone: an error says what brings what it lacks.

    --check runs a shell command on each new tip before it is committed, as `rebyte check` does: in
    a sandbox. Protected paths are those of --onto for every task: what a task on the branch has
    changed there decides about none. Its row and the report name them; the commit has the change.

    Files that tools run or read by themselves are named, as `rebyte apply` does, also in the row
    ("risks") and the report: look at them before you merge the branch.

    If changes conflict or the check fails, the prompt of the task runs again, in a new workspace
    that begins at the tip, and the result is landed instead. After --rerun attempts the task is
    left out and named, and the status is 10; so is a task that failed or left no patch, or one that
    git cannot use. The order is that of the arguments. A failure of this machine, such as a full
    disk or a locked history, stops the landing (1) and decides nothing: run the same command again.

    An agent on this machine clones the branch from here. A service elsewhere has to clone it from
    the repository's remote: --push REMOTE pushes the branch there before a rerun. Without it,
    nothing runs again there. In a remote that is a folder on this machine, its hooks do not run.

    What was decided is in a journal in the state folder, on disk before anything follows from it.
    After an interrupt or a crash, the same command resumes: no prompt runs twice, and the branch is
    the same as without. It prints the row of each task again; tasks added at the end are landed
    too. To start over, delete the branch or use --force.

    Examples:

      rebyte land @3 @2 @1 --branch week-48 --check "make test" --protect tests
      rebyte land --results results.jsonl --branch all --onto origin/main
      rebyte land - --branch all --report all.md < ids.txt
      rebyte land --branch all --status
    """
    from ..batch.results import check_report
    from ..tasks.patch import top_level
    from ._land import LandOptions, TargetBranch, lines_to_land

    checks = CheckOptions.of(options)
    if checks.command() is None and (checks.no_check or checks.no_jail):
        checks.require_check()
        if checks.no_jail:
            raise BadUsage("--no-jail requires --check")
    chosen = LandOptions(checks=checks, **options)
    if chosen.report is not None:
        check_report(chosen.report, in_html=False)
    app.needs_history = True
    branch = TargetBranch(app, chosen, top_level())
    if app.format == "json":
        app.auto = "jsonl"
    rows = branch.status() if only_status else branch.land(lines_to_land(app, tasks, results))
    if app.format != "table":
        return Records(LAND, rows)
    shorten = app.history.shortest_prefixes
    return RecordList(LAND, rows, below=branch.summary, shorten=shorten)
