"""Arguments, options and completions that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..app import App
from ..completion.values import EXECUTORS as EXECUTORS
from ..config.fields import FORMATS
from ..errors import BadUsage, did_you_mean

# -- `-f PATH`, also where the shell made several of it: `-f data/*.csv`.


class _Files(click.Option):
    """An option that also takes the paths that follow its value.

    A shell turns `-f data/*.csv` into `-f data/a.csv data/b.csv`. Words right after the value
    that exist as files are taken as further values; the first other word ends that.
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


files_option = click.option(
    "-f",
    "--file",
    "files",
    cls=_Files,
    metavar="PATH",
    multiple=True,
    type=click.Path(),
    help="A file to upload first; repeat it, or give a pattern.",
)


def checked(paths: Iterable[str]) -> list[str]:
    """The files to upload, looked at before anything is sent; see `tasks.upload.check`."""
    paths = list(paths)
    if not paths:
        return []
    from ..tasks.upload import check

    return check(paths)


# -- The options that work before and after a command's name, and the marks for TAB.


def completer(
    kind: str, words: Iterable[str] = ()
) -> Callable[[click.Context, click.Parameter, str], list[Any]]:
    """What TAB offers for a value: one of `KINDS` in completion/values.py (`tasks`, `profiles`, …),
    and always `words`.

    It only marks the parameter: TAB is answered from generated tables, before Click is imported.
    """

    def complete(_ctx: click.Context, _param: click.Parameter, _incomplete: str) -> list[Any]:
        return list(words)

    complete.__name__ = kind
    return complete


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    app = ctx.find_object(App)
    if app is not None and value not in (None, False):
        app.set_option(param.name or "", value)


def _option(*names: str, help: str, **attrs: Any) -> click.Option:  # noqa: A002 - as Click calls it
    return click.Option(names, help=help, expose_value=False, callback=_keep, **attrs)


def shared_options() -> list[click.Option]:
    """The shared options, made anew for each command. What they are given is kept in the App."""
    return [
        _option(
            "-P",
            "--profile",
            metavar="NAME",
            shell_complete=completer("profiles"),
            help="Use this profile (REBYTE_PROFILE); `local` is the service on this machine.",
        ),
        _option(
            "-o",
            "--output",
            type=click.Choice(FORMATS),
            help="Output format (REBYTE_OUTPUT): a table on a terminal, JSON in a pipe.",
        ),
        _option(
            "--fields",
            metavar="A,B,…",
            shell_complete=completer("fields"),
            help="Pick and order columns, or keys in JSON.",
        ),
        _option("-q", "--quiet", is_flag=True, help="Nothing on stderr but errors."),
        _option("-v", "--verbose", is_flag=True, help="Each request as one line on stderr."),
        _option(
            "--debug", is_flag=True, help="Headers and bodies too, and a curl line; never the key."
        ),
        _option("--no-input", is_flag=True, help="Never ask anything."),
        _option(
            "--color", type=click.Choice(["auto", "always", "never"]), help="When to use colour."
        ),
    ]


SHARED = frozenset(option.name for option in shared_options())


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


if TYPE_CHECKING:
    _Floats = click.ParamType[float]
else:  # older releases of Click, which serve as well, have no generic types
    _Floats = click.ParamType


class Seconds(_Floats):
    """A length of time in seconds: `90`, `0.5`, and `2m` or `1h` as people write them."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, float):
            return value
        text = str(value).strip()
        number, unit = text, "s"
        for ending in sorted(_UNITS, key=len, reverse=True):
            if text.endswith(ending):
                number, unit = text[: -len(ending)], ending
                break
        try:
            seconds = float(number) * _UNITS[unit]
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds < 1e9:
            self.fail(f"{value!r} is not a number of seconds (90, 0.5, 2m, 1h)", param, ctx)
        return seconds


def split_commas(_ctx: click.Context, _param: click.Parameter, value: tuple[str, ...]) -> list[str]:
    """`-s a,b -s c` is `[a, b, c]`; an empty slug is refused."""
    slugs = [part.strip() for text in value for part in text.split(",")]
    if any(not slug for slug in slugs):
        raise BadUsage("a skill has no name", hint="-s deep-research, or -s pdf,deep-research")
    return list(dict.fromkeys(slugs))


task_argument = click.argument("task", metavar="TASK", shell_complete=completer("tasks"))
workspace_argument = click.argument(
    "workspace", metavar="WS", shell_complete=completer("workspaces")
)
tasks_argument = click.argument(
    "tasks", metavar="TASK…", nargs=-1, required=True, shell_complete=completer("tasks")
)
skills_option = click.option(
    "-s",
    "--skill",
    "--skills",
    "skills",
    metavar="SLUG",
    multiple=True,
    callback=split_commas,
    shell_complete=completer("skills"),
    help="A skill to attach; repeat it, or separate with commas.",
)
timeout_option = click.option(
    "--timeout",
    type=Seconds(),
    metavar="SECONDS",
    help="Stop waiting after this long (status 124).",
)
wait_option = click.option("--wait", is_flag=True, help="Wait for the end; 10 failed, 11 canceled.")
stream_option = click.option(
    "--stream", is_flag=True, help="Print the run as it happens, then end with its status."
)


# -- What a task is made with, besides its prompt: the options that `create` and `batch` share.

F = TypeVar("F", bound=Any)


def task_options(function: F) -> F:
    """Add `-s`, `-x`, `-m`, `-g`, `-b` and `-w` to a command; `chosen_fields` reads them."""
    decorators = (
        skills_option,
        click.option(
            "-x",
            "--executor",
            metavar="NAME",
            shell_complete=completer("executors", EXECUTORS),
            help="opencode, claude, gemini or codex; the service chooses when left out.",
        ),
        click.option(
            "-m",
            "--model",
            metavar="NAME",
            shell_complete=completer("models"),
            help="A model or tier; any string is passed on.",
        ),
        click.option(
            "-g",
            "--github-url",
            metavar="REPO",
            shell_complete=completer("repositories"),
            help="owner/repo, a clone URL, or `.` for the repository here and its branch.",
        ),
        click.option("-b", "--branch", metavar="NAME", help="The branch of --github-url."),
        click.option(
            "-w",
            "--workspace",
            metavar="WS",
            shell_complete=completer("workspaces"),
            help="Run in this workspace: an id, an alias, @last, or a task.",
        ),
    )
    for decorate in reversed(decorators):
        function = decorate(function)
    return function


def chosen_fields(
    app: App,
    *,
    skills: list[str],
    executor: str | None,
    model: str | None,
    github_url: str | None,
    branch: str | None,
    workspace: str | None,
) -> dict[str, Any]:
    """The body of POST /tasks but for the prompt: what was chosen here or in the profile."""
    settings = app.settings
    for option, text in (
        ("--executor", executor),
        ("--model", model),
        ("--github-url", github_url),
        ("--branch", branch),
        ("--workspace", workspace),
    ):
        # A variable that was not set must not become another machine or another branch.
        if text is not None and not text.strip():
            raise BadUsage(f"{option} names nothing")
    if executor and executor not in EXECUTORS and (near := did_you_mean(executor, EXECUTORS)):
        app.note(f"{executor} is passed on as it is; {near}")
    if branch and not github_url:
        raise BadUsage("--branch needs --github-url")
    executor = executor or settings.executor.value
    source: dict[str, Any] = {"githubUrl": None, "branchName": None}
    if github_url:
        from ..tasks import git

        if settings.is_local and executor:
            source = git.local_source(github_url, branch, note=app.note)
        else:
            plain, branch = git.repository(github_url, branch, note=app.note)
            source = {"githubUrl": plain, "branchName": branch}
    if workspace:
        from ..history import references

        workspace = references.workspace(app.history, workspace)
    chosen = {
        "executor": executor,
        "model": model or settings.model.value,
        "skills": skills or list(settings.skills.value or ()),
        **source,
        "workspaceId": workspace,
    }
    return {name: value for name, value in chosen.items() if value}
