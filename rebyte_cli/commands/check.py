"""Run a command on the changes of a task, to see whether it passes."""

from __future__ import annotations

from typing import Any

import click

from ..app import App
from ..errors import BadUsage
from ..output.records import CHECKED, Records
from ._base import define
from ._check import (
    CheckOptions,
    TaskChecks,
    allow_option,
    base_option,
    protect_option,
    repository_says,
    timeout_option,
)
from ._options import chosen_task, task_argument


@define("check", kind=CHECKED, statuses=(3, 4, 5, 10))
@task_argument
@click.argument("command", metavar="[CMD]", required=False)
@protect_option
@timeout_option
@allow_option("--allow")
@base_option
@click.option(
    "--no-jail",
    is_flag=True,
    help="Run the command without a sandbox, with your files and network.",
)
def command(app: App, task: str, command: str | None, **options: Any) -> Records:
    """Run the shell command CMD on the changes of TASK, and exit with 0 if it passes, else with 10.

    Without CMD, it is the `check` of the repository's `.rebyte.toml`, at the commit that TASK
    started from, if you trust it; see `local trust`. The `protect` of that file counts anyway.

    The changes are applied to a fresh clone of the commit that TASK started from, outside of your
    working tree. CMD runs there in a sandbox without keys, logins and the files of your home, with
    no network but the hosts of --allow, and every process that it leaves is ended. It is the whole
    `changes.patch` of the workspace that is checked, follow-ups included.

    An agent may have changed what CMD is: so `.rebyte.toml`, files that CMD names, and what its
    programs read by themselves (`Makefile`, `conftest.py`, `package.json`, …) are put back to what
    they were, even if they were deleted, replaced or added. What those read in turn is not known:
    name it with --protect, such as a folder of tests. `--protect '!PATH'` takes a path out again.

    For an agent on this machine, the commit is known, and for `create -g .` it was noted: the one
    of the remote's branch as of your last fetch. --base names another.

    Examples:

      rebyte check @last "make test" --protect tests
      rebyte check @last "pytest -q tests" --protect tests && rebyte apply @last
    """
    chosen = CheckOptions(**options, check=command)
    task_id = chosen_task(app, task)
    found = app.client.get_task(task_id)
    # What a command of the user's protects counts without a sandbox, too.
    is_own = chosen.no_jail and command is None
    checks = TaskChecks(app, chosen, repository_says(app, chosen._replace(no_jail=is_own)))
    how = checks.options_for(found).command()
    if how is None:
        raise BadUsage(
            f"nothing says how to check task {task_id}",
            hint="Name a command, or trust the .rebyte.toml of its repository if that has `check`",
        )
    with app.spinner(f"Checking task {task_id}"):
        outcome = checks.check(found, how)
    return Records(CHECKED, [outcome.of_task({"id": task_id, **outcome.document()})])
