"""Run a command on the changes of a task, to see whether it passes."""

from __future__ import annotations

from typing import Any

import click

from ..app import App
from ..output.records import CHECKED, Records
from ._base import define
from ._check import CheckOptions, check_command, check_options, checked
from ._options import task_argument


@define("check", kind=CHECKED, statuses=(3, 4, 5, 10))
@task_argument
@click.argument("command", metavar="CMD")
@check_options
@click.option(
    "--no-jail", is_flag=True, help="Run the command unconfined, with your files and network."
)
def command(app: App, task: str, command: str, no_jail: bool, **options: Any) -> Records:
    """Run the shell command CMD on the changes of TASK, and exit with 0 if it passes, else with 10.

    The changes are applied to a fresh clone of the commit that TASK started from, outside of your
    working tree. CMD runs there in a sandbox without network, keys, logins and the files of your
    home, and every process that it leaves is ended. It is the whole `changes.patch` of the
    workspace that is checked, follow-ups included.

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
    from ..history import references

    how = check_command(command, CheckOptions(**options), no_jail=no_jail)
    task_id = references.task(app.history, task)
    found = app.client.get_task(task_id)
    with app.spinner(f"Checking task {task_id}"):
        outcome = checked(app, found, how, options["base"])
    return Records(CHECKED, [outcome.of_task({"id": task_id, **outcome.document()})])
