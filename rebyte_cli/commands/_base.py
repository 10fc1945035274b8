"""What every command and group is made of: checks, help layout, near misses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import click

from ..app import App
from ..errors import BadUsage, did_you_mean
from ..output.records import EVENT, INSTALLED, Kind, Records, check_fields
from ._options import SHARED, shared_options


def _keep_blocks(text: str | None) -> str | None:
    """Mark indented paragraphs as to be kept line by line, as examples need."""
    if text is None:
        return None
    import inspect

    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(f"\b\n{block}" if block.startswith(" ") else block for block in paragraphs)


class _Context(click.Context):
    """Click's own, but for how wide a help page is."""

    def make_formatter(self) -> click.HelpFormatter:
        # Click measures the terminal with shutil, whose import is a twentieth of a help page.
        app = self.find_object(App)
        columns = 80 if app is None else app.console.width
        return click.HelpFormatter(width=max(min(columns, 80) - 2, 50))


class _Shared(click.Command):
    """The part that commands and groups have in common."""

    context_class = _Context

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["help"] = _keep_blocks(kwargs.get("help"))
        kwargs["context_settings"] = {
            "help_option_names": ["-h", "--help"],
            **(kwargs.get("context_settings") or {}),
        }
        super().__init__(*args, **kwargs)
        self.params.extend(shared_options())

    def make_parser(self, ctx: click.Context) -> Any:
        parser = super().make_parser(ctx)
        # Click looks for `-o` among the long names first, and when it is not there loads difflib
        # to guess what was meant before it tries the short ones: 2 ms of a `list -o json`.
        getattr(parser, "_long_opt", {}).update(getattr(parser, "_short_opt", {}))
        return parser

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own: list[tuple[str, str]] = []
        shared: list[tuple[str, str]] = []
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            # Click 8.5 has a record for an argument too; the usage line has it already.
            if record is not None and not isinstance(param, click.Argument):
                (shared if param.name in SHARED else own).append(record)
        if own:
            with formatter.section("Options"):
                formatter.write_dl(own)
        if isinstance(self, click.Group):
            self.format_commands(ctx, formatter)
        if shared:
            with formatter.section("Options of every command"):
                formatter.write_dl(shared)


class Command(_Shared):
    """A command: returns a value that the root prints.

    `kind` names what it prints, `waited` what it prints with `--wait` where that is another,
    `whole` the one document that `json` and `id` show where other formats show many records;
    `text` is true for commands that print text under `auto`, in a pipe too; `statuses` are the
    exit statuses beyond 0, 1 and 2 that mean something to it.
    """

    def __init__(
        self,
        *args: Any,
        kind: Kind | None = None,
        waited: Kind | None = None,
        whole: Kind | None = None,
        text: bool = False,
        statuses: Iterable[int] = (3, 4, 5),
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.kind = kind
        self.waited = waited or kind
        self.whole = whole
        self.text = text
        self.statuses = tuple(statuses)

    def others(self) -> dict[str, Kind | str]:
        """What it prints in the place of its kind, by the option that makes it do so.

        A kind, or for --dry-run the name of a definition in the schema of the results.
        """
        found: dict[str, Kind | str] = {}
        taken = {param.name for param in self.params}
        if self.whole:
            found["-o json"] = self.whole
        if self.waited and self.waited is not self.kind:
            found["--wait"] = self.waited
        if "stream" in taken:
            found["--stream -o jsonl"] = EVENT
        if "dry_run" in taken:
            found["--dry-run"] = "planned" if self.name == "batch" else "request"
        return found

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        app = ctx.find_object(App)
        if app is not None:
            app.text = self.text
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        given = ctx.params
        for param in self.params:
            if not isinstance(param.type, click.Path) and not _is_text(given.get(param.name or "")):
                raise BadUsage(f"{param.get_error_hint(ctx)}: not valid UTF-8")
        waits = given.get("wait", True) or given.get("stream")
        if given.get("timeout") is not None and not waits:
            wanted = "--wait or --stream" if "stream" in given else "--wait"
            raise BadUsage(f"--timeout is for {wanted}: nothing is waited for without")
        app = ctx.find_object(App)
        if app is not None and not given.get("dry_run"):
            self._check_output(app, given)
        return super().invoke(ctx)

    def _check_output(self, app: App, given: Mapping[str, Any]) -> None:
        """Refuse what cannot be printed before anything is sent: an unknown field, a lacking id."""
        kind, whole = self.waited if given.get("wait") else self.kind, self.whole
        if given.get("stream"):
            app.text, kind, whole = True, EVENT, self.waited
        output = app.options.get("output", "")
        if not app.fields and output != "id":
            return
        if whole is not None:
            of_json = app.format in ("json", "id")
            kind = whole if of_json else None if app.format in ("text", "table") else kind
        if kind is not None:
            check_fields(kind, app.fields, output)
        elif app.text and app.fields:
            hint = "-o json and -o jsonl print records" if whole else None
            raise BadUsage("--fields: text has no fields", hint=hint)


class Group(_Shared, click.Group):
    """A noun with its verbs."""

    command_class = Command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and self.no_args_is_help and not ctx.resilient_parsing:
            click.echo(ctx.get_help())  # Click would call it an error
            ctx.exit()
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not ctx.resilient_parsing and not name.startswith("-"):
            known = self.list_commands(ctx)
            if name not in known:
                raise BadUsage(
                    f"no such command: {ctx.command_path} {name}",
                    hint=did_you_mean(name, known) or f"`{ctx.command_path} --help` lists them",
                )
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _Shared.format_options(self, ctx, formatter)


def _is_text(value: Any) -> bool:
    """Whether a value from the command line can be sent: bytes that are not UTF-8 cannot."""
    if isinstance(value, list | tuple):
        return all(map(_is_text, value))
    if not isinstance(value, str) or value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def installed(app: App, files: Iterable[Mapping[str, Any]]) -> Records | None:
    """The files that were put in their places, for programs that ask; a note told people."""
    rows = list(files)  # the work is done in any case
    return None if app.format == "text" and not app.fields else Records(INSTALLED, rows)


def define(name: str | None = None, **attrs: Any) -> Callable[[Callable[..., Any]], Command]:
    """Make a command of a function that takes the App first and returns a value."""

    def decorate(function: Callable[..., Any]) -> Command:
        made = click.command(name, cls=Command, **attrs)(click.make_pass_decorator(App)(function))
        assert isinstance(made, Command)
        return made

    return decorate


def define_group(name: str | None = None, **attrs: Any) -> Callable[[Callable[..., Any]], Group]:
    """Make a group of commands; the function's docstring is its help."""

    def decorate(function: Callable[..., Any]) -> Group:
        made = click.group(name, cls=Group, **attrs)(function)
        assert isinstance(made, Group)
        return made

    return decorate


def define_in(parent: Group, name: str, **attrs: Any) -> Callable[[Callable[..., Any]], Command]:
    """Make a command and put it under its group."""

    def decorate(function: Callable[..., Any]) -> Command:
        made = define(name, **attrs)(function)
        parent.add_command(made)
        return made

    return decorate
