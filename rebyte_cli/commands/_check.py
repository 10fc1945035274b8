"""`--check` and its options: what the commands that check a task share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from ..app import App
from ..errors import BadUsage
from ._options import Duration

if TYPE_CHECKING:
    from ..tasks.check import CheckCommand, CheckOutcome

F = TypeVar("F", bound=Any)
SHOWN_PATHS = 5


class CheckOptions(NamedTuple):
    """The values of `check_options`."""

    protect: Sequence[str]
    check_timeout: float | None
    base: str | None = None


def protection_options(function: F) -> F:
    """Add the options of `CheckOptions` to a command, but for `base`."""
    decorators = (
        click.option(
            "--protect",
            metavar="PATH",
            multiple=True,
            help="Check with this path as it was before the task; repeatable, as in .gitignore.",
        ),
        click.option(
            "--check-timeout",
            type=Duration(),
            metavar="DURATION",
            help="End the check after this long, and let it fail (10m).",
        ),
    )
    for decorate in reversed(decorators):
        function = decorate(function)
    return function


def check_options(function: F) -> F:
    """Add the options of `CheckOptions` to a command."""
    base = click.option(
        "--base",
        metavar="REV",
        help="The commit of the repository here that the task started from.",
    )
    return protection_options(base(function))


def check_command(command: str, options: CheckOptions, *, no_jail: bool = False) -> CheckCommand:
    """How to check. Raises BadUsage for an empty command and a pattern that matches nothing."""
    from ..tasks.check import SECONDS, CheckCommand
    from ..tasks.protection import Protection

    if not command.strip():
        raise BadUsage("the check command is empty")
    Protection(options.protect)
    seconds = SECONDS if options.check_timeout is None else options.check_timeout
    return CheckCommand(command, tuple(options.protect), seconds, not no_jail)


def checked(app: App, task: Mapping[str, Any], how: CheckCommand, base: str | None) -> CheckOutcome:
    """Check a task that has ended, and say what was put back. Raises what `tasks.check` raises."""
    from ..tasks import check

    task_id = str(task["id"])
    workspace = app.located(task).get("workspaceId")
    local_state = app.local_folder() if app.settings.is_local else None
    known = app.history.task(task_id)
    start = check.base_of(workspace, known, revision=base, local_state=local_state)
    patch = check.fetch_changes(app.client, task_id, workspace)
    with app.spinner(f"Checking task {task_id}: {how.command}"):
        outcome = check.run(
            start,
            patch,
            how,
            state_dir=app.state_dir,
            config_file=app.config_path,
            name=task_id,
        )
    if outcome.restored:
        more = len(outcome.restored) - SHOWN_PATHS
        also = f" and {more} more" if more > 0 else ""
        paths = ", ".join(outcome.restored[:SHOWN_PATHS]) + also
        app.note(f"Checked with protected paths as they were before the task: {paths}")
    return outcome
