"""The base of every command and group: checks before the call, the layout of help, suggestions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from ..app import App
from ..errors import BadUsage, RebyteError
from ..output.records import INSTALLED, RecordKind, Records, check_fields
from ._options import SHARED, Option, Output, shared_options, take

if TYPE_CHECKING:
    from pathlib import Path


def _keep_blocks(text: str | None) -> str | None:
    """Mark indented paragraphs as verbatim, as examples need."""
    if text is None:
        return None
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(f"\b\n{block}" if block.startswith(" ") else block for block in paragraphs)


class _HelpContext(click.Context):
    """Click's context, except for the width of a help page."""

    def make_formatter(self) -> click.HelpFormatter:
        # Click measures the terminal with shutil, whose import is a twentieth of a help page.
        app = self.find_object(App)
        columns = 80 if app is None else app.console.width
        return click.HelpFormatter(width=max(min(columns, 80) - 2, 50))


class _Shared(click.Command):
    """What commands and groups have in common: the shared options, the layout of help, the output.

    `output`: what it prints, unless an option changes that. `statuses`: the exit statuses, besides
    0, 1 and 2, that it uses.
    """

    context_class = _HelpContext
    usual_statuses: tuple[int, ...] = ()

    def __init__(self, *args: Any, statuses: Iterable[int] | None = None, **kwargs: Any) -> None:
        """The fields of `Output` are arguments, too."""
        self.output = take(Output, kwargs)
        self.statuses = tuple(self.usual_statuses if statuses is None else statuses)
        kwargs["help"] = _keep_blocks(kwargs.get("help"))
        kwargs["context_settings"] = {
            "help_option_names": ["-h", "--help"],
            **(kwargs.get("context_settings") or {}),
        }
        super().__init__(*args, **kwargs)
        self.params.extend(shared_options())

    def alternatives(self) -> dict[str, RecordKind | str]:
        """What it prints instead of its usual kind, by the options that make it do so.

        A kind, or the name of a definition in the JSON Schema of the results.
        """
        found: dict[str, RecordKind | str] = {}
        if self.output.whole:
            found["-o json"] = self.output.whole
        for param in self.params:
            if isinstance(param, Option):
                found.update(param.schema)
        return found

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        app = ctx.find_object(App)
        if app is not None:
            app.text = self.output.text  # for errors in what follows
        is_group = isinstance(self, click.Group)
        ctx.allow_extra_args = True  # a group's are those of its command
        try:
            rest = super().parse_args(ctx, args)
        except click.BadOptionUsage as error:
            name = error.option_name
            option = next(each for each in self.get_params(ctx) if name in each.opts)
            wrong = "takes no" if getattr(option, "is_flag", False) else "requires a"
            raise BadUsage(f"{name} {wrong} value") from None
        if rest and not is_group and not ctx.resilient_parsing:
            raise click.UsageError(f"unexpected argument: {' '.join(rest)}", ctx=ctx)
        return rest

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
            with formatter.section("Global options"):
                formatter.write_dl(shared)


class Command(_Shared):
    """A command: a function that returns a value for the root to print."""

    usual_statuses = (3, 4, 5)

    def __init__(self, *args: Any, callback: Callable[..., Any], **kwargs: Any) -> None:
        """`callback` takes the App first."""
        super().__init__(*args, callback=click.make_pass_decorator(App)(callback), **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Check the values that Click has parsed, then call the function."""
        for param in self.params:
            value = ctx.params.get(param.name or "")
            if not isinstance(param.type, click.Path) and not _is_text(value):
                raise click.BadParameter("not valid UTF-8", ctx=ctx, param=param)
            if isinstance(param, Option) and param.check is not None:
                param.check(ctx)
        output = self.output  # now that one option may have implied another
        for param in self.params:
            if isinstance(param, Option) and ctx.params.get(param.name or "") and param.output:
                output = param.output
        app = ctx.find_object(App)
        if app is not None:
            app.text = output.text
            _check_output(app, output)
        return super().invoke(ctx)


def _check_output(app: App, output: Output) -> None:
    """Refuse `--fields` and `-o` that `output` cannot serve, before anything is sent."""
    asked = app.options.get("output", "")
    if output.json_only and asked in ("csv", "tsv", "id"):
        raise BadUsage(f"-o {asked} cannot show a JSON document", hint="Use -o json or -o jsonl")
    if not app.fields and asked != "id":
        return
    kind = output.kind
    if output.whole is not None:
        if app.format in ("json", "id"):
            kind = output.whole
        elif app.format in ("text", "table"):
            kind = None
    if kind is not None:
        check_fields(kind, app.fields, app.format if app.fields else asked)
    elif app.text and app.fields:
        hint = "-o json and -o jsonl print records" if output.whole else None
        raise BadUsage("--fields: text has no fields", hint=hint)


class Group(_Shared, click.Group):
    """A noun with its verbs. What it prints itself, when no verb follows, is its `output`."""

    command_class = Command
    # What other tools call the same; hidden, except in `rebyte schema`.
    aliases: Mapping[str, str] = {"ls": "list", "rm": "delete"}

    def canonical(self, ctx: click.Context, name: str) -> str:
        """The name of the subcommand that `name` is an alias of, else `name` itself."""
        known = self.list_commands(ctx)
        meant = self.aliases.get(name, name)
        return meant if name not in known and meant in known else name

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and self.no_args_is_help and not ctx.resilient_parsing:
            click.echo(ctx.get_help())  # Click would call it an error
            ctx.exit()
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = self.canonical(ctx, args[0])
        if not ctx.resilient_parsing and not name.startswith("-"):
            known = self.list_commands(ctx)
            if name not in known:
                from ._synonyms import for_command

                hint = for_command(ctx.command_path, args, known)
                raise BadUsage(f"no such command: {ctx.command_path} {name}", hint=hint)
        return super().resolve_command(ctx, [name, *args[1:]])


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


def installed(app: App, files: Iterable[tuple[Path, bool]]) -> Records | None:
    """The files that were installed or removed, and whether each changed, as records.

    None under `auto`, where a note named them.
    """
    if app.format == "text" and not app.fields:
        return None
    return Records(INSTALLED, [{"path": str(path), "changed": changed} for path, changed in files])


def choose_format(app: App) -> None:
    """Decide what `auto` means here, if the configuration, which may say so, cannot be used."""
    try:
        app.settings  # noqa: B018 -- raises
    except RebyteError:
        from ..config.settings import from_variable

        form = app.options.get("output")
        with suppress(RebyteError):  # the value of the variable may be what is wrong
            form = form or from_variable("output", app.environment)
        app.set_option("output", form or "auto")


def define(name: str, **attrs: Any) -> Callable[[Callable[..., Any]], Command]:
    """Make a command of a function that takes the App first and returns a value."""
    return click.command(name, cls=Command, **attrs)
