"""`-f PATH`, also where the shell made several of it: `-f data/*.csv`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import click


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
    """The files to upload, looked at before anything is sent; see `engines.uploads.check`."""
    paths = list(paths)
    if not paths:
        return []
    from ..engines.uploads import check

    return check(paths)
