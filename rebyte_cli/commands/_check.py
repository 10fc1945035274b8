"""`--check` and its options: what the commands that check a task share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from ..app import App
from ..errors import BadUsage, NotFound
from ..system.deadline import NO_LIMIT, Deadline
from ._local import HOST
from ._options import DURATION, Number, Option, imply_wait, refuse, take, together
from ._repository import CHECKS, RepositorySays

if TYPE_CHECKING:
    from ..system.repository_file import RepositoryFile
    from ..tasks.answer_schema import AnswerSchema
    from ..tasks.check import CheckCommand, CheckOutcome
    from ..tasks.check_tree import Base
    from ..tasks.mending import Mending
    from ..tasks.verdict import RunVerdict

F = TypeVar("F", bound=Any)
TRIES = 3  # as in tasks.mending, which need not be loaded for a help page
MOST_TRIES = 20
SHOWN_PATHS = 5


class CheckOptions(NamedTuple):
    """The values of `protection_options`, of those that `mending_options` adds, and `--no-jail`."""

    protect: Sequence[str]
    check_timeout: float | None
    base: str | None = None
    check: str | None = None
    tries: int | None = None
    schema: AnswerSchema | None = None
    check_allow: Sequence[str] = ()
    no_check: bool = False
    no_jail: bool = False

    @property
    def without_check(self) -> str:
        """The first of the options that mean nothing without a check; empty for none."""
        values = {
            "tries": self.tries if self.schema is None else None,
            "protect": tuple(self.protect),
            "check-timeout": self.check_timeout,
            "check-allow": tuple(self.check_allow),
            "base": self.base,
        }
        return next((f"--{name}" for name, value in values.items() if value not in (None, ())), "")

    @classmethod
    def of(cls, options: dict[str, Any]) -> CheckOptions:
        """As `take`. Raises BadUsage and NotFound for a schema."""
        options["schema"] = read_schema(options.get("schema"))
        return take(cls, options)

    def ask(self, prompt: str) -> str:
        """The prompt with the request for an answer that fits the schema, if there is one."""
        return prompt if self.schema is None else self.schema.ask(prompt)

    def require_check(self) -> None:
        """Raise BadUsage for options about a check if there is none."""
        if self.check is None and (name := self.without_check):
            also = " or --schema" if name == "--tries" else ""
            raise BadUsage(
                f"{name} requires --check{also}",
                hint="Or `check` in the .rebyte.toml of a repository that you trust",
            )

    def with_file(self, file: RepositoryFile | None) -> CheckOptions:
        """With what a repository asks for: its check if there is none, its paths anyway.

        The paths of the options come last, and so win.
        """
        if file is None or self.no_check:
            return self
        protect = (*file.protect, *self.protect) if self.check or file.check else self.protect
        return self._replace(check=self.check or file.check or None, protect=protect)

    def command(self) -> CheckCommand | None:
        """How to check; None without a check.

        Raises BadUsage for an empty command and a pattern that matches nothing.
        """
        if self.check is None:
            return None
        from ..tasks.check import SECONDS, CheckCommand
        from ..tasks.protection import Protection

        if not self.check.strip():
            raise BadUsage("the check command is empty")
        Protection(self.protect)
        if self.no_jail and self.check_allow:
            raise BadUsage(
                "--no-jail cannot be used with hosts for the check: it reaches all of them"
            )
        seconds = SECONDS if self.check_timeout is None else self.check_timeout
        hosts = tuple(self.check_allow)
        return CheckCommand(self.check, tuple(self.protect), seconds, not self.no_jail, hosts)

    def usable_command(self) -> CheckCommand | None:
        """As `command`. Raises CheckUnusable, too, if it cannot be run here."""
        how = self.command()
        if how is not None:
            from ..tasks.check import require_jail

            require_jail(how)
        return how


def read_schema(path: str | None) -> AnswerSchema | None:
    """The JSON Schema in a file, if there is one. Raises BadUsage and NotFound."""
    from ..tasks.answer_schema import AnswerSchema

    return None if path is None else AnswerSchema.read(path)


def _check_needs_check(ctx: click.Context) -> None:
    """The options about a check need one, and that needs a wait."""
    given = ctx.params
    refuse({"--check and --no-check": given.get("no_check") and given["check"] is not None})
    if "tries" not in given:
        return
    options = CheckOptions(**{name: given[name] for name in CheckOptions._fields})
    is_waited_for = given["wait"] or given.get("stream") or given.get("dry_run")
    if options.check is None:
        if options.no_check or not is_waited_for:
            options.require_check()
    elif not is_waited_for:
        imply_wait(ctx, "check")


protect_option = click.option(
    "--protect",
    cls=Option,
    check=_check_needs_check,
    metavar="PATH",
    multiple=True,
    help="Check with this path as it was before the task; repeatable, as in .gitignore.",
)
timeout_option = click.option(
    "--check-timeout",
    type=DURATION,
    metavar="DURATION",
    help="End the check after this long, and let it fail (10m).",
)


def allow_option(name: str) -> Callable[[F], F]:
    """The option with the hosts that a check may connect to."""
    return click.option(
        name,
        "check_allow",
        type=HOST,
        multiple=True,
        metavar="HOST",
        help="Let the check connect to HOST, as in pypi.org or *.example.com:8443; repeatable.",
    )


base_option = click.option(
    "--base",
    metavar="REV",
    help="The commit of the repository here that the task starts from.",
)


unjailed_check_option = click.option(
    "--no-jail", is_flag=True, help="Run what --check names without a sandbox, with your files."
)


# How to check, for a command that has `--check`.
protection_options = together(protect_option, timeout_option, allow_option("--check-allow"))
no_check_option = click.option(
    "--no-check", is_flag=True, help="Do not run the check of the repository's .rebyte.toml."
)
# `--check`, `--schema` and the options about them, for a command that can wait.
mending_options = together(
    click.option(
        "--check",
        metavar="CMD",
        help="Done means that CMD passes on the changes: else its output is sent to the task,"
        " which tries again (status 10 if it never passes).",
    ),
    click.option(
        "--schema",
        type=click.Path(dir_okay=False),
        metavar="FILE",
        help="Ask for an answer in JSON that fits the JSON Schema in FILE, and check it with"
        " --wait: `output` in JSON (status 10 if it never fits).",
    ),
    click.option(
        "--tries",
        type=Number(1, MOST_TRIES),
        metavar="N",
        help=f"Check at most N runs of the task ({TRIES}).",
    ),
    no_check_option,
    protection_options,
    base_option,
)


def repository_says(app: App, options: CheckOptions, also: Sequence[str] = ()) -> RepositorySays:
    """What looks up how a repository is to be checked, and `also` other settings of its file."""
    wanted = CHECKS if options.check is None else ("protect",)
    return RepositorySays(app, [*also, *wanted], no_jail=options.no_jail)


class TaskChecks:
    """Checks what tasks did, as the options and the repositories of the tasks ask for it."""

    def __init__(
        self,
        app: App,
        options: CheckOptions,
        says: RepositorySays | None = None,
        **asked: Any,
    ) -> None:
        """Without `says`, what the repositories ask for does not count.

        `asked` is what was noted for the only task, where the history does not have it yet.
        """
        self._app = app
        self._options = options
        self._says = says
        self._asked = asked

    def start_of(self, task: Mapping[str, Any]) -> Base:
        """The commit that a task started from. Raises what `tasks.check.base_of` raises."""
        from ..tasks import check
        from ..tasks.base_commit import ID

        app = self._app
        workspace = app.known.located(task).get("workspaceId")
        local_state = app.local_folder() if app.settings.is_local else None
        known, told = self._known_of(task), str(task.get("baseCommit"))
        if ID.fullmatch(told):  # by our service, of the changes as it gives them
            known["baseCommit"] = told
        return check.base_of(workspace, known, revision=self._options.base, local_state=local_state)

    def _known_of(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """What the history has of a task, or what was asked for; empty if neither is known."""
        row = self._app.history.task(str(task["id"])) or {}
        return {**self._asked, **{name: value for name, value in row.items() if value is not None}}

    def options_for(self, task: Mapping[str, Any]) -> CheckOptions:
        """The options with what the repository of a task asks for.

        That is nothing unless the user trusts it. Raises what `start_of` raises where that cannot
        be told.
        """
        if self._says is None:
            return self._options
        try:
            start = self.start_of(task)
        except (BadUsage, NotFound):
            if self._options.check is None and self._may_have_check(task):
                raise
            return self._options
        if start.is_own:
            return self._options.with_file(self._says.of_workspace(task))
        return self._options.with_file(self._says.at(str(start.repository), start.commit))

    def _may_have_check(self, task: Mapping[str, Any]) -> bool:
        """Whether the user may trust a check of the repository that a task started from."""
        from ..system import git

        assert self._says is not None
        known = self._known_of(task)
        if known.get("localRepository") or known.get("githubUrl"):
            return self._says.may_check(known)
        if known and not known.get("givenWorkspaceId"):
            return False
        # Our service names the workspace of an agent's task, and the commit if it has one.
        if task.get("workspaceId") or task.get("baseCommit"):
            return bool(task.get("baseCommit")) and self._says.may_check(None)
        try:
            return self._says.may_check({"localRepository": git.top_level(".")})
        except git.GitFailed:
            return False

    def check(
        self,
        task: Mapping[str, Any],
        how: CheckCommand,
        stopped: Callable[[], bool] = lambda: False,
    ) -> CheckOutcome:
        """Check a task that has ended, and say what was put back. Raises what `tasks.check` raises.

        The check ends soon after `stopped` says so.
        """
        from ..tasks import check

        app, task_id = self._app, str(task["id"])
        workspace = app.known.located(task).get("workspaceId")
        start = self.start_of(task)
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

    def examine(
        self,
        task: Mapping[str, Any],
        how: CheckCommand | None,
        schema: AnswerSchema | None,
        *,
        deadline: Deadline = NO_LIMIT,
        stopped: Callable[[], bool] = lambda: False,
    ) -> RunVerdict:
        """What a task that has completed comes to: its answer, if there is a schema, and its check.

        Raises what `check` and `tasks.result.answer` raise.
        """
        from ..tasks.mending import answer_outcome
        from ..tasks.verdict import RunVerdict

        answer = None
        if schema is not None:
            answer = answer_outcome(self._app.client, str(task["id"]), schema, deadline)
        outcome = None if how is None else self.check(task, how, stopped)
        return RunVerdict(outcome, answer)


def mending(
    app: App, options: CheckOptions, deadline: Deadline, *, asks_repository: bool
) -> Mending | None:
    """What becomes of the tasks that the options are about; None if they ask for nothing.

    With `asks_repository`, what the repository of a task asks for is found out when its run has
    ended. Raises what `CheckOptions.usable_command` raises.
    """
    from ..tasks.mending import Mending

    says = repository_says(app, options) if asks_repository and not options.no_check else None
    if options.check is None and options.schema is None and says is None:
        return None
    required, checks = options.usable_command(), TaskChecks(app, options, says)
    found: dict[str, CheckCommand | None] = {}

    def how(task: Mapping[str, Any]) -> CheckCommand | None:
        task_id = str(task["id"])
        if says is None:
            return required
        if task_id not in found:
            chosen = checks.options_for(task)
            found[task_id] = chosen.usable_command()
            if chosen.check is None and (unused := options.without_check):
                app.warn(f"Task {task_id} has no check: {unused} is not used")
        return found[task_id]

    return Mending(
        app.client,
        app.history,
        lambda task, limit: checks.examine(task, how(task), options.schema, deadline=limit),
        tries=options.tries,
        deadline=deadline,
        note=app.note,
        is_wanted=lambda task: options.schema is not None or how(task) is not None,
    )
