"""Wait for tasks to end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import click

from ..app import App
from ..deadline import Deadline
from ..errors import BadUsage
from ..output.records import TASK, Records
from ._base import define
from ._options import (
    Duration,
    chosen_tasks,
    label_filter_option,
    labeled_tasks_argument,
    on_question_option,
    timeout_option,
)


@define("wait", kind=TASK, statuses=(3, 4, 5, 10, 11, 12, 124))
@labeled_tasks_argument
@label_filter_option
@click.option("--any", "any_", is_flag=True, help="Stop when the first task has ended.")
@click.option("--first-success", is_flag=True, help="Stop when the first task has completed.")
@timeout_option
@on_question_option
@click.option(
    "--interval",
    type=Duration(),
    metavar="DURATION",
    help="Poll this often (default: every second at first, later every ten).",
)
def command(
    app: App,
    tasks: Sequence[str],
    labels: Mapping[str, str],
    any_: bool,
    first_success: bool,
    timeout: float | None,
    interval: float | None,
) -> Records:
    """Wait for every TASK to end, and print each one as it ends.

    Exits with 0 if all completed, 10 if one failed, 11 if one was canceled, 12 if one asks a
    question, and 124 if the time limit passed. On a terminal, the question is asked here, and the
    wait continues with your answer. Many tasks are polled together, with one request per hundred.

    Examples:

      rebyte wait @last --timeout 10m
      rebyte list -o id --status running | rebyte wait -
      rebyte wait "$first" "$second" --first-success -o id
      rebyte wait --label run=nightly --timeout 1h30m
    """
    from ..tasks.wait import Target
    from ._wait import finished

    if any_ and first_success:
        raise BadUsage("--any and --first-success cannot be used together")
    until: Literal["all", "any", "first-success"] = (
        "any" if any_ else "first-success" if first_success else "all"
    )
    targets = [Target(task_id) for task_id in chosen_tasks(app, tasks, labels)]
    deadline = Deadline(timeout)
    return Records(TASK, finished(app, targets, until=until, deadline=deadline, interval=interval))
