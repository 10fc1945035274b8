"""The root command: finds the other commands, and catches every error in one place."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import Any

import click

from . import __version__
from .app import App
from .commands._base import Group
from .errors import BadUsage, Interrupted, ReaderGone, RebyteError
from .presenter import Presenter
from .system.signals import raising

# The order of the help page. Commands that are not named here are listed under "More".
SECTIONS = (
    (
        "Tasks",
        "create rerun follow-up attach wait get result diff check apply land logs answer list"
        " label cancel delete share open batch",
    ),
    ("Workspaces and files", "workspace artifact file"),
    ("Account", "auth profile credits usage webhook api"),
    ("This command", "doctor local completion man help schema skill mcp"),
)

LEAST_FILES = 32  # open files that a command with the local service in its process gets along with


class Root(Group):
    """The root group. A command is a file: `follow-up` is `commands/follow_up.py`."""

    aliases: Mapping[str, str] = {**Group.aliases, "show": "get", "run": "create"}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_modules())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = _modules().get(cmd_name)
        if module is None:
            return None
        found: click.Command = import_module(f"{__package__}.commands.{module}").command
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rest = dict(_modules())
        sections = [
            (title, [(name, rest.pop(name)) for name in names.split() if name in rest])
            for title, names in SECTIONS
        ]
        sections.append(("More", list(rest.items())))
        width = max(map(len, _modules()), default=0)
        for title, entries in sections:
            if entries:
                with formatter.section(title):
                    formatter.write_dl(
                        [(name.ljust(width), _summary(module)) for name, module in entries]
                    )


@cache
def _modules() -> dict[str, str]:
    """Command names to module names, from the files of the commands folder."""
    from . import commands

    try:
        files = os.listdir(os.path.dirname(commands.__file__ or ""))
    except OSError:  # inside a zip archive, where there is no folder to list
        from pkgutil import iter_modules

        files = [f"{entry.name}.py" for entry in iter_modules(commands.__path__)]
    stems = [file.removesuffix(".py") for file in files if file.endswith(".py")]
    return {stem.replace("_", "-"): stem for stem in stems if not stem.startswith("_")}


def _summary(module: str) -> str:
    """The first line of a command file's docstring, read without importing the file."""
    from . import commands

    folder = os.path.dirname(commands.__file__ or "")
    loader: Any = commands.__loader__  # reads files in a zip archive too
    source: bytes = loader.get_data(os.path.join(folder, f"{module}.py"))
    return source.split(b"\n", 1)[0].decode().strip().strip('"')


@click.command("rebyte", cls=Root, invoke_without_command=True)
@click.version_option(__version__, "-V", "--version", message="rebyte %(version)s")
@click.pass_context
def root(ctx: click.Context) -> Any:
    """Run coding-agent tasks in cloud VMs, from a shell, a script or a CI job.

    Examples:

      rebyte -P local create "Say hello" --wait      # no account, no network
      rebyte auth login                              # the real service
      rebyte create "Fix the login test" -g . --wait -o json | jq .status
      rebyte man tutorial                            # an introduction
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
        ctx.exit()


def run(argv: list[str], app: App | None = None) -> int:
    """Run one command line and return its exit status (the table is in errors.py).

    This is the one place where errors are caught and printed; each class has its exit status.
    """
    app = app or App(argv=argv)
    presenter = Presenter(app)
    try:
        try:
            _check_open_files()
            with raising():
                return _invoke(argv, app, presenter)
        except MemoryError:
            pass  # with the exception go the frames that filled the memory
        hint = "Raise the limits of this process (see ulimit -a)"
        return presenter.fail(RebyteError("out of memory", hint=hint))
    except KeyboardInterrupt:
        return presenter.fail(Interrupted(130))
    except (RebyteError, Interrupted) as error:
        return presenter.fail(error)
    except BrokenPipeError:
        return ReaderGone.exit_status
    except OSError as error:
        problem = f"{error.filename or 'stdout'}: {error.strerror}"
        advice = getattr(error, "hint", None)  # of a StateError
        return presenter.fail(RebyteError(problem, hint=advice))
    except Exception as error:
        return presenter.fail(_bug(error, app))
    finally:
        # A command such as --help reads no settings; the service has done it itself.
        is_due = app.has_used("config") or app.has_used("state_dir")
        is_due = is_due and not app.has_used("service")
        app.close()
        if is_due:
            _restart_waiting_runs(app)


def _restart_waiting_runs(app: App) -> None:
    """Look after runs on this machine that wait for a usage limit, as the local service does."""
    with suppress(RebyteError, OSError):  # no folder, or one that others can write to
        if (app.state_dir / "local/limits").is_dir():
            from .local.revival import restart_waiting_runs

            restart_waiting_runs(app.local_folder())


def _check_open_files() -> None:
    """Raise RebyteError if this process may open so few files that it could fail half-way."""
    limit = os.sysconf("SC_OPEN_MAX")  # -1 if there is none
    if 0 <= limit < LEAST_FILES:
        raise RebyteError(
            f"this process may open only {limit} files at a time, and rebyte needs {LEAST_FILES}",
            hint="Raise the limit, for example with `ulimit -n 1024`",
            code="open_files",
        )


def _bug(error: Exception, app: App) -> RebyteError:
    """An unexpected exception as one line; with --debug, a traceback is printed before it."""
    import traceback

    if app.options.get("debug"):
        traceback.print_exc()
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    place = f"line {line} of {frame.f_globals.get('__name__')}"
    return RebyteError(
        f"internal error in rebyte: {type(error).__name__} ({place})",
        hint="Please report it; --debug shows the traceback",
        code="bug",
    )


def _invoke(argv: list[str], app: App, presenter: Presenter) -> int:
    try:
        with root.make_context("rebyte", list(argv), obj=app) as ctx:
            value = root.invoke(ctx)
            return presenter.show(value) if value is not None else 0
    except click.exceptions.Exit as ended:
        if sys.stdout is None and not ended.exit_code:  # the help page was lost
            raise RebyteError("cannot write to stdout: it is closed", code="stdout") from None
        return ended.exit_code
    except click.Abort as abort:  # Ctrl-C or Ctrl-D at a prompt, which leaves its line open
        app.console.write_err("\n")
        if isinstance(abort.__context__, EOFError):
            raise RebyteError("the input ended before it was answered", code="declined") from None
        raise Interrupted(130) from None
    except click.ClickException as error:
        hint = None
        if isinstance(error, click.UsageError) and error.ctx is not None:
            hint = f"See `{error.ctx.command_path} --help`"
        if isinstance(error, click.NoSuchOption):
            from .commands._synonyms import for_option

            near = for_option(error.option_name, _options(error.ctx))
            raise BadUsage(f"no such option: {error.option_name}", hint=near or hint) from None
        from .commands import _refusals

        raise BadUsage(_refusals.message(error), hint=_refusals.hint(error) or hint) from None


def _options(ctx: click.Context | None) -> list[str]:
    """The names of the options that a command takes."""
    params = ctx.command.get_params(ctx) if ctx is not None else []
    return [name for param in params if isinstance(param, click.Option) for name in param.opts]
