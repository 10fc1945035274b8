"""Upload files for tasks."""

from __future__ import annotations

from collections.abc import Sequence

import click

from ..app import App
from ..output.records import FILE, Records
from ._base import Group


@click.group("file", cls=Group)
def command() -> None:
    """Upload the files that tasks start with.

    `rebyte create -f PATH` does this for you. Use this command in scripts that build their own
    request bodies.

    Example:

      rebyte file upload report.pdf
    """


@command.command("upload", kind=FILE, statuses=(3, 4, 5, 6))
@click.argument("paths", metavar="PATH…", nargs=-1, required=True, type=click.Path())
def upload(app: App, paths: Sequence[str]) -> Records:
    """Upload each PATH for use in the body of a task.

    Prints the `id` and `filename` to use in the body; the API makes the name unique. All paths are
    checked before the first is sent, and several are sent at a time.

    Examples:

      rebyte file upload report.pdf data/*.csv -o jsonl
      rebyte file upload a.csv | jq '{prompt: "Look", files: [.]}' > task.json
      rebyte api /tasks -d @task.json
    """
    from ..tasks import upload

    return Records(FILE, upload.uploads(app.client, upload.check(paths), app.progress_bar))
