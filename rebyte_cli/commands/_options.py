"""Arguments and options that several commands share, and the checks that options carry themselves.

An `Option` may check the values it was given together with others (`check`) and may change what its
command prints (`output`), so a command needs to know nothing about its options.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click
from click.core import ParameterSource

from ..app import App
from ..config import EXECUTORS, FORMATS
from ..errors import BadUsage, Next, NotFound, did_you_mean
from ..output.records import EVENT, TASK, RecordKind
from ..system.durations import parse_duration
from ._stdin import stdin_lines

if TYPE_CHECKING:
    from ..tasks.budget import Budget

F = TypeVar("F", bound=Any)


class Output(NamedTuple):
    """What a command prints.

    `kind`: its records, or None. `whole`: the one document that `json` and `id` print where the
    other formats print many records. `text`: whether `auto` means text, in a pipe too. `json_only`:
    whether it is JSON that is no record, such as a request body.
    """

    kind: RecordKind | None = None
    whole: RecordKind | None = None
    text: bool = False
    json_only: bool = False


class Option(click.Option):
    """An option that checks its value against others, or changes what its command prints.

    `check`: raises BadUsage where the parsed values do not go together. `output`: what the command
    prints when the option is given; None changes nothing. `schema`: the same for `rebyte schema`:
    the words to type, and a kind or the name of a definition. `hidden_name`: another long name that
    is taken, and shown nowhere.
    """

    def __init__(
        self,
        *args: Any,
        check: Callable[[click.Context], None] | None = None,
        output: Output | None = None,
        schema: Mapping[str, RecordKind | str] | None = None,
        hidden_name: str | None = None,
        **attrs: Any,
    ) -> None:
        super().__init__(*args, **attrs)
        self.check = check
        self.output = output
        self.schema = dict(schema or {})
        self.hidden_name = hidden_name

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        super().add_to_parser(parser, ctx)
        if self.hidden_name:  # Click's parser keeps one object per option, under each of its names
            parser._long_opt[self.hidden_name] = parser._long_opt[self.opts[-1]]


class NoTasks(click.UsageError):
    """No TASK was given to a command that works on some."""


class NotAChoice(click.BadParameter):
    """A value that is not one of the choices; `near` is the hint that names the nearest."""

    def __init__(self, value: str, choices: Sequence[str], **where: Any) -> None:
        super().__init__(f"{value!r} is not one of {', '.join(choices)}", **where)
        self.near = did_you_mean(value, choices)


class Choice(click.Choice[str]):
    """One of several words."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the word."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            raise NotAChoice(str(value), self.choices, ctx=ctx, param=param) from None


class Number(click.IntRange):
    """A whole number within a range."""

    def _describe_range(self) -> str:  # for the help: Click says `1<=x<=20`, and `x>=1`
        return f"{self.min} to {self.max}" if self.max is not None else ""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number."""
        try:
            number = int(value)
        except ValueError:
            self.fail(f"{value!r} is not a number", param, ctx)
        low, high = self.min or 0, self.max
        if number < low or (high is not None and number > high):
            wanted = f"less than {low}" if high is None else f"not between {low} and {high}"
            self.fail(f"{number} is {wanted}", param, ctx)
        return number


# Checks of options against others


def refuse(given: Mapping[str, object], why: str = "cannot be used together") -> None:
    """Raise BadUsage for the first that was given of these options, or combinations of them."""
    for names, is_given in given.items():
        if is_given:
            raise BadUsage(f"{names} {why}")


def imply_wait(ctx: click.Context, name: str, waits: Sequence[str] = ("wait", "stream")) -> None:
    """Have a command wait that can, because of an option about a wait.

    Raises BadUsage where that was ruled out with --no-wait, or where a command waits otherwise.
    """
    known = [each for each in waits if each in ctx.params]
    if not known or any(ctx.params[each] for each in known):
        return
    if "wait" not in known or ctx.get_parameter_source("wait") is ParameterSource.COMMANDLINE:
        raise BadUsage(f"--{name} requires {' or '.join(f'--{each}' for each in known)}")
    ctx.params["wait"] = True


def _check_timeout(ctx: click.Context) -> None:
    if ctx.params.get("timeout") is not None:
        imply_wait(ctx, "timeout")


def _check_label_filter(ctx: click.Context) -> None:
    """`--label` or TASK: one of the two is needed, where a command has both."""
    if "tasks" not in ctx.params:
        return
    tasks, labels = ctx.params["tasks"], ctx.params["labels"]
    refuse({"--label": tasks and labels}, "cannot be used together with TASK")
    if not tasks and not labels:
        raise NoTasks("missing argument: TASK… (or --label)", ctx=ctx)


def _check_notify(ctx: click.Context) -> None:
    if ctx.params.get("notify"):
        imply_wait(ctx, "notify")


def _check_on_question(ctx: click.Context) -> None:
    """`--on-question`, whose value the App keeps, is refused where the command does not wait."""
    app = ctx.find_object(App)
    if app is None or "on_question" not in app.options:
        return
    imply_wait(ctx, "on-question", ("wait", "stream", "follow"))
    if app.on_question == "ask" and not app.interactive:
        raise BadUsage("--on-question ask requires a terminal (stdin and stderr)")


# Completion


def completer(
    kind: str, words: Iterable[str] = ()
) -> Callable[[click.Context, click.Parameter, str], list[Any]]:
    """What TAB offers for a value: one of `KINDS` in completion/values.py, and always `words`.

    It only marks the parameter: TAB is answered from generated tables, before Click is imported.
    """

    def complete(_ctx: click.Context, _param: click.Parameter, _incomplete: str) -> list[Any]:
        return list(words)

    complete.__name__ = kind
    return complete


# Options of every command


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    app = ctx.find_object(App)
    if app is not None and value not in (None, False):
        app.set_option(param.name or "", value)


def _shared(*names: str, help: str, **attrs: Any) -> click.Option:  # noqa: A002 - as Click calls it
    return click.Option(names, help=help, expose_value=False, callback=_keep, **attrs)


def shared_options() -> list[click.Option]:
    """New instances of the options that every command takes; the App keeps their values."""
    return [
        _shared(
            "-P",
            "--profile",
            metavar="NAME",
            shell_complete=completer("profiles"),
            help="Use this profile (REBYTE_PROFILE); `local` is the service on this machine.",
        ),
        _shared(
            "-o",
            "--output",
            type=Choice(FORMATS),
            help="Output format (REBYTE_OUTPUT): a table on a terminal, JSON in a pipe (batch: JSON"
            " Lines).",
        ),
        _shared(
            "--fields",
            metavar="A,B,…",
            shell_complete=completer("fields"),
            help="Pick and order columns, or keys in JSON.",
        ),
        _shared(
            "-q", "--quiet", is_flag=True, help="Print nothing on stderr but warnings and errors."
        ),
        _shared("-v", "--verbose", is_flag=True, help="Print a line on stderr for each request."),
        _shared(
            "--debug",
            is_flag=True,
            help="Print headers, bodies and a curl command too; never the key.",
        ),
        _shared("--no-input", is_flag=True, help="Never prompt."),
        _shared("--color", type=Choice(["auto", "always", "never"]), help="When to use colour."),
    ]


SHARED = frozenset(option.name for option in shared_options())


def together(*decorators: Callable[[Any], Any]) -> Callable[[F], F]:
    """Several options as one decorator, in the order in which help shows them."""

    def decorate(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def take(kind: type[F], options: dict[str, Any]) -> F:
    """Take the values of a group of options, a NamedTuple, out of those that Click passes.

    A command need not have all of the group: the others have their defaults.
    """
    taken: F = kind(**{name: options.pop(name) for name in kind._fields if name in options})
    return taken


# Types of values


# Click 8.4 and later give it a type argument.
class ParsedText(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """What `read` makes of the text of a value; it raises ValueError with what is wrong."""

    def __init__(self, name: str, read: Callable[[str], Any]) -> None:
        self.name = name
        self.read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return what was read."""
        try:
            return self.read(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _budget(text: str) -> Budget:
    from ..system.budgets import EXAMPLES, parse_budget
    from ..tasks.budget import Budget

    found = parse_budget(text)
    if found is None:
        raise ValueError(f"{text!r} is not a budget ({EXAMPLES})")
    return Budget(found.get("tokens"), found.get("cost"))


def _duration(text: str) -> float:
    """Seconds, from 0 up to (not including) a billion."""
    seconds = parse_duration(text)
    if seconds is None:
        raise ValueError(f"{text!r} is not a duration (90, 90s, 15m, 1h30m)")
    return seconds


BUDGET = ParsedText("budget", _budget)  # `5usd`, `300ktok` or `2Mtok`
# Seconds (`90`, `0.5`), or numbers with units, the largest first (`1h30m`).
DURATION = ParsedText("duration", _duration)


def split_commas(_ctx: click.Context, _param: click.Parameter, value: tuple[str, ...]) -> list[str]:
    """Turn `-s a,b -s c` into `[a, b, c]`. Raises BadUsage for an empty slug."""
    slugs = [part.strip() for text in value for part in text.split(",")]
    if any(not slug for slug in slugs):
        raise BadUsage("--skill: empty value", hint="Use -s deep-research, or -s pdf,deep-research")
    return list(dict.fromkeys(slugs))


def parse_labels(
    _ctx: click.Context, _param: click.Parameter, value: tuple[str, ...]
) -> dict[str, str]:
    """Turn `--label a=b --label c=d` into a dictionary. BadUsage for a malformed one."""
    if not value:
        return {}
    from ..history.labels import parse

    return parse(value)


class _FilesOption(click.Option):
    """`-f PATH`, which also takes the paths that follow its value.

    A shell turns `-f data/*.csv` into `-f data/a.csv data/b.csv`. Words right after the value
    that exist as files become further values, up to the first word that does not.
    """

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        super().add_to_parser(parser, ctx)
        # Click has no public way to an option with several values; its parser keeps one object
        # per option, under each of its names.
        option = parser._short_opt["-f"]
        process = option.process

        def process_all(value: Any, state: Any) -> None:
            process(value, state)
            while state.rargs and not state.rargs[0].startswith("-") and _exists(state.rargs[0]):
                process(state.rargs.pop(0), state)

        option.process = process_all


def _exists(word: str) -> bool:
    try:
        return os.path.lexists(word)
    except ValueError:  # a NUL in it
        return False


def check_files(paths: Iterable[str]) -> list[str]:
    """Check the files to upload before anything is sent; see `tasks.upload.check`."""
    paths = list(paths)
    if not paths:
        return []
    from ..tasks.upload import check

    return check(paths)


def uploaded(app: App, paths: Sequence[str]) -> dict[str, Any]:
    """The field of a body for these files, which are uploaded now; none without files."""
    if not paths:
        return {}
    from ..tasks.upload import upload

    return {"files": upload(app.client, paths, app.progress_bar)}


def chosen_task(app: App, task: str) -> str:
    """The id of a TASK. Raises what `references.task` raises."""
    from ..history import references

    return references.task(app.history, task)


def chosen_workspace(app: App, workspace: str) -> str:
    """The id of a WS. Raises what `references.workspace` raises."""
    from ..history import references

    return references.workspace(app.history, workspace)


def chosen_tasks(
    app: App,
    tasks: Iterable[str],
    labels: Mapping[str, str] | None = None,
    *,
    ignore_missing: bool = False,
) -> list[str]:
    """The ids of the TASKs, of which `-` stands for those on stdin, or of those with all labels.

    NotFound if there are none, or for an `@N` that names none, unless `ignore_missing`.
    """
    if not labels:
        from ..history import references

        return references.tasks(app.history, tasks, stdin_lines(), ignore_missing=ignore_missing)
    found = app.history.labels.having(labels)
    if not found and not ignore_missing:
        from ..history.labels import shown

        raise NotFound(
            f"no task created on this machine has the label {shown(labels)}",
            hint="Labels are kept per service and machine; see " + Next("list"),
        )
    return found


# Arguments and options of several commands

task_argument = click.argument("task", metavar="TASK", shell_complete=completer("tasks"))
tasks_argument = click.argument(
    "tasks", metavar="TASK…", nargs=-1, required=True, shell_complete=completer("tasks")
)
labeled_tasks_argument = click.argument(
    "tasks", metavar="[TASK…]", nargs=-1, shell_complete=completer("tasks")
)
workspace_argument = click.argument(
    "workspace", metavar="WS", shell_complete=completer("workspaces")
)
files_option = click.option(
    "-f",
    "--file",
    "files",
    cls=_FilesOption,
    metavar="PATH",
    multiple=True,
    type=click.Path(),
    help="Upload a file to /code; repeatable, or use a pattern.",
)
skills_option = click.option(
    "-s",
    "--skill",
    "skills",
    cls=Option,
    hidden_name="--skills",  # as the script of the vendor's skill has it
    metavar="SLUG",
    multiple=True,
    callback=split_commas,
    shell_complete=completer("skills"),
    help="Attach a skill; repeatable, or comma-separated.",
)
label_option = click.option(
    "--label",
    "labels",
    metavar="NAME=VALUE",
    multiple=True,
    callback=parse_labels,
    shell_complete=completer("labels"),
    help="Label the task on this machine; repeatable.",
)
time_span_options = together(
    click.option(
        "--since",
        metavar="WHEN",
        help="Only tasks created after a date (2026-02-09) or within 7d, 12h, 30m; or today.",
    ),
    click.option(
        "--until", metavar="WHEN", help="Only tasks created before this; same formats as --since."
    ),
)
full_ids_option = click.option(
    "--full-ids", is_flag=True, help="Show whole ids in a table on a terminal."
)
label_filter_option = click.option(
    "--label",
    "labels",
    cls=Option,
    check=_check_label_filter,
    metavar="NAME=VALUE",
    multiple=True,
    callback=parse_labels,
    shell_complete=completer("labels"),
    help="Only tasks with this label, given on this machine; repeatable.",
)
timeout_option = click.option(
    "--timeout",
    cls=Option,
    check=_check_timeout,
    type=DURATION,
    metavar="DURATION",
    help="Stop waiting after this long, such as 90, 15m or 1h30m (status 124).",
)
wait_option = click.option(
    "--wait",
    cls=Option,
    output=Output(TASK),
    schema={"--wait": TASK},
    is_flag=True,
    help="Wait for the task to end (status 10 failed, 11 canceled, 12 asks a question).",
)
stream_option = click.option(
    "--stream",
    cls=Option,
    output=Output(EVENT, whole=TASK, text=True),
    schema={"--stream -o jsonl": EVENT},
    is_flag=True,
    help="Stream the run's output, then exit with its status.",
)
notify_option = click.option(
    "--notify",
    cls=Option,
    check=_check_notify,
    is_flag=True,
    help="Ring the bell and show a desktop notice when the wait is over.",
)
# For a command that sends a prompt.
waiting_options = together(wait_option, timeout_option, stream_option, notify_option)
on_question_option = click.option(
    "--on-question",
    cls=Option,
    check=_check_on_question,
    type=Choice(["ask", "stop", "wait"]),
    expose_value=False,
    callback=_keep,
    help="If the run asks a question: ask you (default on a terminal), stop with status 12"
    " (default elsewhere), or keep waiting.",
)


class WaitOptions(NamedTuple):
    """The values of `waiting_options`."""

    wait: bool
    timeout: float | None
    stream: bool
    notify: bool

    @property
    def has_wait(self) -> bool:
        """Whether the end of the run is waited for."""
        return self.wait or self.stream


def dry_run_option(
    help: str = "Print the request body and send nothing.",  # noqa: A002 - as Click calls it
    definition: str = "request",
) -> Callable[[F], F]:
    """`--dry-run`; `definition` names what it prints in the JSON Schema of the results."""
    return click.option(
        "--dry-run",
        cls=Option,
        output=Output(json_only=True),
        schema={"--dry-run": definition},
        is_flag=True,
        help=help,
    )


# What `create` and `batch` send besides the prompt


def task_options(*, executors: bool = False) -> Callable[[F], F]:
    """Add `-s`, `-x`, `-m`, `-g`, `-b` and `-w` to a command; `chosen_fields` reads them.

    With `executors`, `-x` can be repeated, and its values are called that.
    """
    repeat = "; with --attempts, repeat it to try several" if executors else ""
    return together(
        skills_option,
        click.option(
            "-x",
            "--executor",
            "executors" if executors else "executor",
            metavar="NAME",
            multiple=executors,
            shell_complete=completer("executors", EXECUTORS),
            help=f"opencode, claude, gemini or codex; the service chooses by default{repeat}.",
        ),
        click.option(
            "-m",
            "--model",
            metavar="NAME",
            shell_complete=completer("models"),
            help="A model or tier, sent as is.",
        ),
        click.option(
            "-g",
            "--github-url",
            metavar="REPO",
            shell_complete=completer("repositories"),
            help="owner/repo, a clone URL, or `.` for the current repository and branch.",
        ),
        click.option(
            "-b",
            "--branch",
            metavar="NAME",
            shell_complete=completer("branches"),
            help="The branch of --github-url.",
        ),
        click.option(
            "-w",
            "--workspace",
            metavar="WS",
            shell_complete=completer("workspaces"),
            help="Run in this workspace: an id, an alias, @last, or a task.",
        ),
    )


def port_option(default: int) -> Callable[[F], F]:
    """`--port`, for a command that listens."""
    return click.option(
        "--port",
        metavar="PORT",
        type=Number(0, 65535),
        default=default,
        show_default=True,
        help="The port on 127.0.0.1; 0 picks a free one.",
    )


def install_options(install: str, uninstall: str) -> Callable[[F], F]:
    """`--install [DIR]` as `folder` and `--uninstall [DIR]` as `left`, with these help texts.

    Each is None if it was not given, and "" without DIR.
    """

    return together(
        *(
            click.option(
                name,
                value,
                metavar="[DIR]",
                type=click.Path(file_okay=False),
                is_flag=False,
                flag_value="",
                help=text,
            )
            for name, value, text in (
                ("--install", "folder", install),
                ("--uninstall", "left", uninstall),
            )
        )
    )


class TaskOptions(NamedTuple):
    """The values of `task_options`."""

    skills: list[str]
    executor: str | None
    model: str | None
    github_url: str | None
    branch: str | None
    workspace: str | None


def check_executor(app: App, executor: str | None) -> None:
    """Note an executor that looks mistyped: the service may know more of them than this version."""
    known = (*EXECUTORS, *app.config.local_agents())
    if app.settings.ssh.value is not None:  # that machine has its own configuration
        return
    if executor and executor not in known and (near := did_you_mean(executor, known)):
        app.note(f"Unknown executor {executor!r} is sent as is. {near}")


_REPOSITORY = ("githubUrl", "branchName", "localRepository")


def chosen_fields(
    app: App,
    options: TaskOptions,
    *,
    with_changes: bool = False,
    earlier: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the body of POST /tasks without the prompt: from the options, then the profile.

    `with_changes` says that uncommitted changes of the repository here are sent besides.
    `earlier` holds the fields of an earlier task, which apply instead of the profile. Raises
    BadUsage for an empty value, and for --branch without a repository.
    """
    settings = app.settings
    skills, executor, model, github_url, branch, workspace = options
    for option, text in (
        ("--executor", executor),
        ("--model", model),
        ("--github-url", github_url),
        ("--branch", branch),
        ("--workspace", workspace),
    ):
        # An unset variable must not silently choose another machine or another branch.
        if text is not None and not text.strip():
            raise BadUsage(f"{option} is empty")
    check_executor(app, executor)
    if earlier is None:
        earlier = {
            "executor": settings.executor.value,
            "model": settings.model.value,
            "skills": list(settings.skills.value or ()),
        }
    executor = executor or earlier.get("executor")
    source: dict[str, Any] = {name: earlier.get(name) for name in _REPOSITORY}
    if branch and not github_url and any(source.values()):
        source["branchName"] = branch
    elif github_url or branch:
        from ..tasks import repository as git

        source = git.source(
            github_url,
            branch,
            is_local=settings.is_own_service,
            # A simulated run clones nothing, so nothing is left out.
            with_changes=with_changes or (settings.is_own_service and not executor),
            note=app.note,
        )
    if workspace:
        workspace = chosen_workspace(app, workspace)
    chosen = {
        "executor": executor,
        "model": model or earlier.get("model"),
        "skills": skills or earlier.get("skills"),
        **source,
        "workspaceId": workspace or earlier.get("workspaceId"),
    }
    return {name: value for name, value in chosen.items() if value}
