"""Wait for tasks to end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import click

from ..app import App
from ..errors import BadUsage, RebyteError, RowOrError, TaskEnded
from ..output.records import TASK, Records
from ..system.deadline import Deadline
from ._base import define
from ._notice import EndNotice
from ._options import (
    DURATION,
    chosen_tasks,
    label_filter_option,
    labeled_tasks_argument,
    notify_option,
    on_question_option,
    refuse,
    timeout_option,
)


@define("wait", kind=TASK, statuses=(3, 4, 5, 10, 11, 12, 13, 124))
@labeled_tasks_argument
@label_filter_option
@click.option("--any", "any_", is_flag=True, help="Stop when the first task has ended.")
@click.option("--first-success", is_flag=True, help="Stop when the first task has completed.")
@timeout_option
@on_question_option
@click.option(
    "--interval",
    type=DURATION,
    metavar="DURATION",
    help="Poll this often (default: every second at first, later every ten).",
)
@notify_option
@click.option(
    "--exec",
    "program",
    metavar="CMD",
    help="Run CMD for each task that is printed, with the task as JSON on its stdin.",
)
def command(
    app: App,
    tasks: Sequence[str],
    labels: Mapping[str, str],
    any_: bool,
    first_success: bool,
    timeout: float | None,
    interval: float | None,
    notify: bool,
    program: str | None,
) -> Records:
    """Wait for every TASK to end, and print each one as it ends.

    Exits with 0 if all completed, 10 if one failed, 11 if one was canceled, 12 if one asks a
    question, and 124 if the time limit passed. On a terminal, the question is asked here, and the
    wait continues with your answer. Many tasks are polled together, with one request per hundred.

    --exec runs CMD once for each task that has ended, before the task is printed; its output goes
    to stderr. If CMD fails, that is reported, and the status is 1. If CMD is still running at the
    time limit, it is stopped, and the status is 124. --notify works in terminals that know OSC 9,
    such as iTerm2, kitty, WezTerm and Windows Terminal; tmux passes it on after
    `set -g allow-passthrough on`. The bell rings everywhere.

    Examples:

      rebyte wait @last --timeout 10m
      rebyte list --all -o id --status running | rebyte wait -
      rebyte wait "$first" "$second" --first-success -o id
      rebyte wait --label run=nightly --timeout 1h30m --notify
      rebyte wait @1 @2 --exec 'jq -r .title | mail -s "rebyte: done" me'
    """
    from ..tasks.wait import WaitTarget
    from ._wait import finished

    refuse({"--any and --first-success": any_ and first_success})
    until: Literal["all", "any", "first-success"] = (
        "any" if any_ else "first-success" if first_success else "all"
    )
    targets = [WaitTarget(task_id) for task_id in chosen_tasks(app, tasks, labels)]
    deadline = Deadline(timeout)
    if program is not None and not program.strip():
        raise BadUsage("--exec is empty")
    ended = finished(app, targets, until=until, deadline=deadline, interval=interval)
    if program is not None:
        ended = _passed_to(app, program, ended, deadline)
    return Records(TASK, EndNotice(app, is_wanted=notify).of_outcomes(ended))


def _passed_to(
    app: App, program: str, outcomes: Iterator[RowOrError], deadline: Deadline
) -> Iterator[RowOrError]:
    """The outcomes; `program` has run once for each task that ended, before it is yielded."""
    from ..tasks.hook import HookCommand

    hook, console = HookCommand(program, stdout_to_stderr=True), app.console
    for outcome in outcomes:
        task = outcome.task if isinstance(outcome, TaskEnded) else outcome
        failure = None
        if not isinstance(task, RebyteError):
            with console.lock:  # the spinner must not draw over what the program prints
                if console.region is not None:
                    console.region.erase()
                failure = hook.run(task, deadline)
        yield outcome
        if failure is not None and not isinstance(task, RebyteError):
            yield failure.copy_with(message=f"{failure.message} for task {task.get('id')}")
