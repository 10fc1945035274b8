"""Run the command in the test's own process, with Click's test runner.

Streams, environment and exit status are those of a process without a terminal. Signals, `kill -9`
and concurrent commands need a real process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner

from rebyte_cli.app import App
from rebyte_cli.cli import root, run
from rebyte_cli.once.search import Pace
from tests.conftest import Done

PACE: Pace | None = None  # of searches, where it is not the command's own; see `conftest.pace`


class _Entry(click.Group):
    """The root as `python -m rebyte_cli` calls it: it prints errors and exits with their status."""

    def main(self, args: Sequence[str] | None = None, *_: Any, **__: Any) -> Any:
        words = list(args or ())
        app = App(os.environ, words)
        if PACE is not None:
            app.pace = PACE
        status = run(words, app)
        for name in ("client", "history"):  # the end of a process would close them
            if name in vars(app):
                getattr(app, name).close()
        sys.exit(status)


def inside(
    *arguments: str,
    cwd: Path,
    env: Mapping[str, str | None] | None = None,
    stdin: str | bytes = b"",
) -> Done:
    """Run the command in `cwd`, with `env` added to the environment; None removes a variable."""
    with chdir(cwd):
        # An exception that the root lets through must fail the test.
        runner = CliRunner(catch_exceptions=False)
        done = runner.invoke(_Entry(root.name), list(arguments), input=stdin, env=env)
    return Done(done.exit_code, done.stdout_bytes.decode(), done.stderr_bytes.decode())
