"""Sum up the tokens and the cost of the tasks created on this machine."""

from __future__ import annotations

import re

import click

from ..app import App
from ..errors import BadUsage
from ..output.records import USAGE_SUM, RecordList
from ..tasks.list import passing, row_tests
from ..tasks.usage import summary, sums
from ._base import define
from ._options import time_span_options

GROUPS = ("executor", "model", "repository", "day")
_LABEL = "label:"


def _group(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    if value in (None, *GROUPS) or re.fullmatch(rf"{_LABEL}\S+", str(value)):
        return value
    raise BadUsage(f"--by {value}: must be one of {', '.join(GROUPS)} or {_LABEL}NAME")


@define("usage", kind=USAGE_SUM, statuses=())
@time_span_options
@click.option(
    "--by",
    "group",
    metavar="executor|model|label:NAME|repository|day",
    callback=_group,
    help="One sum for each executor, model, value of a label, repository or day of creation.",
)
def command(app: App, since: str | None, until: str | None, group: str | None) -> RecordList:
    """Sum up what the tasks created on this machine used, without contacting the service.

    rebyte keeps the usage of a task in the history when it sees how the task ended: in `wait`,
    `get`, `list`, `batch` and with --wait or --stream. Follow-ups are included, and deleted tasks
    still count. A task whose service does not report its usage is left out.

    The cost of a task is what its service reported, otherwise what `[prices]` in config.toml makes
    of its tokens. `costUsd` is the sum of the known costs, and `unpriced` the number of tasks whose
    cost isn't known. `uncountedRequests`, if there are any, are those of which a model did not say
    what they used.

    Examples:

      rebyte usage --since 30d --by model
      rebyte usage --since today -o json | jq '.data[].costUsd'
      rebyte usage --by label:run -o csv
    """
    tests = row_tests(since=since, until=until)
    tasks = app.history.used.every() if app.history_file.exists() else []
    # The walk of a list ends at the first row that is too old.
    found = [
        {**task, "usage": app.known.priced(task["usage"], task["model"])}
        for task in passing(reversed(tasks), tests)
    ]

    def footer(count: int) -> str | None:
        is_shown = app.format == "table" and count > 1
        return summary(task["usage"] for task in found) if is_shown else None

    columns = tuple(name for name in USAGE_SUM.columns if group or name != "name")
    return RecordList(USAGE_SUM, sums(found, group), columns=columns, footer=footer)
