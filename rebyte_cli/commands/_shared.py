"""The options that work before and after a command's name, and the marks for TAB."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click

from ..app import App
from ..choices import FORMATS


def completer(
    kind: str, words: Iterable[str] = ()
) -> Callable[[click.Context, click.Parameter, str], list[Any]]:
    """What TAB offers for a value: one of `KINDS` in shell/values.py (`tasks`, `profiles`, …),
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
