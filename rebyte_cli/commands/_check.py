"""`--check` and its options: what the commands that check a task share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from ..app import App
from ..errors import BadUsage, Interrupted, Next, RebyteError, TaskEnded
from ..system.deadline import Deadline
from ._options import Duration, Number, Option

if TYPE_CHECKING:
    from ..output.records import RowOrError
    from ..tasks.check import CheckCommand, CheckOutcome
    from ..tasks.check_tree import Base
    from ..tasks.wait import LateTargets, WaitTarget

F = TypeVar("F", bound=Any)
TRIES = 3
MOST_TRIES = 20
SHOWN_PATHS = 5


class CheckOptions(NamedTuple):
    """The values of `check_options`; `check` and `tries` are those of `mending_options`."""

    protect: Sequence[str]
    check_timeout: float | None
    base: str | None = None
    check: str | None = None
    tries: int | None = None


def protection_options(function: F) -> F:
    """Add the options about how to check to a command, but for `base`."""
    decorators = (
        click.option(
            "--protect",
            cls=Option,
            check=_check_needs_check,
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
    """Add the options about how to check to a command."""
    base = click.option(
        "--base",
        metavar="REV",
        help="The commit of the repository here that the task starts from.",
    )
    return protection_options(base(function))


def mending_options(function: F) -> F:
    """Add `--check`, `--tries` and those of `check_options` to a command that can wait."""
    decorators = (
        click.option(
            "--check",
            metavar="CMD",
            help="Done means that CMD passes on the changes: else its output is sent to the task,"
            " which tries again (status 10 if it never passes).",
        ),
        click.option(
            "--tries",
            type=Number(1, MOST_TRIES),
            metavar="N",
            help=f"Check at most N runs of the task ({TRIES}).",
        ),
        check_options,
    )
    for decorate in reversed(decorators):
        function = decorate(function)
    return function


def _check_needs_check(ctx: click.Context) -> None:
    """The options about a check need one, and that needs a wait."""
    given = ctx.params
    if "tries" not in given:
        return
    if given["check"] is None:
        for name in ("tries", "protect", "check_timeout", "base"):
            if given[name] not in (None, ()):
                raise BadUsage(f"--{name.replace('_', '-')} requires --check")
    elif not (given["wait"] or given.get("stream") or given.get("dry_run")):
        wanted = "--wait or --stream" if "stream" in given else "--wait"
        raise BadUsage(f"--check requires {wanted}")


def check_command(command: str, options: CheckOptions, *, no_jail: bool = False) -> CheckCommand:
    """How to check. Raises BadUsage for an empty command and a pattern that matches nothing."""
    from ..tasks.check import SECONDS, CheckCommand
    from ..tasks.protection import Protection

    if not command.strip():
        raise BadUsage("the check command is empty")
    Protection(options.protect)
    seconds = SECONDS if options.check_timeout is None else options.check_timeout
    return CheckCommand(command, tuple(options.protect), seconds, not no_jail)


def start_of(
    app: App,
    task: Mapping[str, Any],
    base: str | None,
    asked: Mapping[str, Any] = MappingProxyType({}),
) -> Base:
    """The commit that a task started from. Raises what `tasks.check.base_of` raises.

    `asked` is what was noted for it, where the history does not have it yet.
    """
    from ..tasks import check

    workspace = app.located(task).get("workspaceId")
    local_state = app.local_folder() if app.settings.is_local else None
    row = app.history.task(str(task["id"])) or {}
    known = {**asked, **{name: value for name, value in row.items() if value is not None}}
    return check.base_of(workspace, known, revision=base, local_state=local_state)


def checked(
    app: App,
    task: Mapping[str, Any],
    how: CheckCommand,
    base: str | None,
    asked: Mapping[str, Any] = MappingProxyType({}),
    stopped: Callable[[], bool] = lambda: False,
) -> CheckOutcome:
    """Check a task that has ended, and say what was put back. Raises what `tasks.check` raises.

    `asked` is as in `start_of`; the check ends soon after `stopped` says so.
    """
    from ..tasks import check

    task_id = str(task["id"])
    workspace = app.located(task).get("workspaceId")
    start = start_of(app, task, base, asked)
    outcome = check.run(
        start,
        check.fetch_changes(app.client, task_id, workspace),
        how,
        state_dir=app.state_dir,
        config_file=app.config_path,
        name=task_id,
        stopped=stopped,
    )
    if outcome.restored:
        more = len(outcome.restored) - SHOWN_PATHS
        also = f" and {more} more" if more > 0 else ""
        paths = ", ".join(outcome.restored[:SHOWN_PATHS]) + also
        app.note(f"Checked with protected paths as they were before the task: {paths}")
    return outcome


class Checks:
    """The checks of tasks that are waited for: each is done when it passes, or has no try left."""

    def __init__(
        self, app: App, options: CheckOptions, deadline: Deadline, *, no_jail: bool
    ) -> None:
        """Raises CheckUnusable where no check can be made, and BadUsage as `check_command`."""
        from ..tasks.check import require_jail

        self._app = app
        self._base = options.base
        self._most = options.tries or TRIES
        self._deadline = deadline
        self._how = check_command(str(options.check), options, no_jail=no_jail)
        self._tries: dict[str, int] = {}
        require_jail(self._how)

    def require_base(self, task_id: str) -> None:
        """Raise, before anything is sent, if it is not known what a task started from."""
        start_of(self._app, {"id": task_id}, self._base)

    def step(self, outcome: RowOrError) -> RowOrError | WaitTarget:
        """What comes after the end of a run: how the task ended, or the next prompt to wait for.

        A task that completed is checked; if that fails, what the command printed is sent to it.
        """
        if isinstance(outcome, RebyteError):
            return outcome
        task_id = str(outcome["id"])
        number = self._tries[task_id] = self._tries.get(task_id, 0) + 1
        self._app.note(f"Checking task {task_id} (try {number} of {self._most})")
        try:
            result = checked(self._app, outcome, self._how, self._base)
        except (KeyboardInterrupt, Interrupted) as stop:
            stop = Interrupted.of(stop)
            hint = "The task has completed. Check it with " + Next("check", task_id, "…")
            raise Interrupted(stop.exit_status, hint=stop.hint or hint) from None
        except RebyteError as error:
            return error.about(task_id)
        ended = result.of_task({**outcome, "check": result.document(number)})
        if result.status != "failed" or number >= self._most or self._deadline.has_passed:
            return ended
        return self._mend(task_id, result, number, ended)

    def _mend(
        self, task_id: str, result: CheckOutcome, number: int, ended: RowOrError
    ) -> RowOrError | WaitTarget:
        """Send the output of a check that failed to its task."""
        from ..tasks.create import follow_up

        body = {"prompt": result.prompt(number + 1, self._most)}
        self._app.note(
            f"The check failed with status {result.exit}; its output is sent to the task"
        )
        try:
            answer = follow_up(
                self._app.client,
                self._app.history,
                task_id,
                body,
                note=self._app.note,
                deadline=self._deadline,
            )
        except RebyteError as error:
            if isinstance(ended, TaskEnded):  # the result of the check is not lost with it
                self._app.note(ended.message)
            return error.about(task_id)
        from ..tasks.wait import WaitTarget

        return WaitTarget(task_id, str(answer["promptId"]))

    def ends(
        self,
        wait: Callable[..., Iterator[RowOrError]],
        targets: Sequence[WaitTarget],
        late: LateTargets | None = None,
    ) -> Iterator[RowOrError]:
        """How each of the tasks ended that `wait` (with `late` as argument) waits for.

        Those whose prompts are sent meanwhile join that wait.
        """
        from ..tasks.wait import WaitTarget

        again = _Again([target.task_id for target in targets], late)
        for outcome in wait(late=again):
            step = self.step(outcome)
            if isinstance(step, WaitTarget):
                again.add(step)
            else:
                yield step


class _Again:
    """Prompts that were sent during a wait, besides the targets that join it anyway."""

    def __init__(self, ids: list[str], late: LateTargets | None) -> None:
        self._ids = ids
        self._late = late
        self._new: list[WaitTarget] = []

    @property
    def ids(self) -> Sequence[str]:
        """The ids of all tasks."""
        return self._ids if self._late is None else self._late.ids

    @property
    def under_way(self) -> int:
        """How many may still come, as far as that is known."""
        return len(self._new) + (self._late.under_way if self._late is not None else 0)

    def add(self, target: WaitTarget) -> None:
        """Let a prompt join the wait."""
        self._new.append(target)

    def join(self, *, block: bool) -> Sequence[WaitTarget]:
        """Those that were added since the last call, and those that join anyway."""
        new, self._new = self._new, []
        if self._late is None:
            return new
        return [*new, *self._late.join(block=block and not new)]


class BatchChecks:
    """How the tasks of a batch are checked: a `batch.line_checks.LineChecks`."""

    def __init__(
        self,
        app: App,
        options: CheckOptions,
        *,
        no_jail: bool,
        send_again_after: float,
        search_for: float | None,
    ) -> None:
        """The times are those of `batch.runner.BatchOptions`, for prompts instead of creates.

        Raises CheckUnusable where no check can be made, and BadUsage as `check_command`.
        """
        from ..tasks.check import require_jail

        self._app = app
        self._options = options
        self._client = app.client
        self._send_again_after = send_again_after
        self._search_for = search_for
        self.tries = options.tries or TRIES
        self._how = check_command(str(options.check), options, no_jail=no_jail)
        self._bases: dict[tuple[Any, Any, Any], str | None] = {}
        require_jail(self._how)

    def base(self, body: Mapping[str, Any]) -> str | None:
        """The commit that a task with this body starts from; None if it is not known here."""
        names = ("githubUrl", "branchName", "localRepository")
        key = (body.get(names[0]), body.get(names[1]), body.get(names[2]))
        if key not in self._bases:
            from ..tasks.repository import base_commit

            self._bases[key] = base_commit(self._given(body), body)
        return self._bases[key]

    def _given(self, body: Mapping[str, Any]) -> str | None:
        """`.` if the repository of a task is the one here."""
        from ..tasks import repository

        if not body.get("githubUrl"):
            return None
        try:
            here, _ = repository.repository(".", body.get("branchName"), note=lambda _text: None)
        except BadUsage:
            return None
        return "." if here == body["githubUrl"] else None

    def require_bases(self, bodies: Iterable[tuple[int, Mapping[str, Any]]]) -> None:
        """Raise BadUsage for the first line, by its number, of which it is not known."""
        is_local = self._app.settings.is_local
        for number, body in bodies:
            has_workspace = is_local and "executor" in body
            if not (self._options.base or has_workspace or self.base(body)):
                raise BadUsage(
                    f"line {number}: --check: the commit that its task starts from is unknown",
                    hint="Use -g . for the repository here, or name the commit with --base",
                )

    def check(
        self, task: Mapping[str, Any], body: Mapping[str, Any], stopped: Callable[[], bool]
    ) -> CheckOutcome:
        """Check a task; see `LineChecks`."""
        noted = {"baseCommit": self.base(body), "localRepository": body.get("localRepository")}
        return checked(self._app, task, self._how, self._options.base, noted, stopped)

    def mend(self, task_id: str, prompt: str, key: str) -> str:
        """Send the prompt; see `LineChecks`."""
        from datetime import timedelta

        from ..tasks.create import follow_up

        answer = follow_up(
            self._client,
            self._app.history,
            task_id,
            {"prompt": prompt},
            key=key,
            send_again_after=timedelta(seconds=self._send_again_after),
            note=self._app.note,
            look_for=self._search_for,
        )
        return str(answer["promptId"])
