"""List tasks, newest first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import click

from ..app import App
from ..errors import BadUsage, RebyteError
from ..output.records import TASK_ROW, Listing
from ._base import define

STATUSES = ("running", "completed", "failed", "canceled")
PAGE = 100  # the largest page the API gives (vendor docs)

Row = Mapping[str, Any]


@define("list", kind=TASK_ROW)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help="List at most N tasks (default 50); over 100 takes several requests.",
)
@click.option(
    "--offset", type=click.IntRange(min=0), default=0, metavar="N", help="Skip the first N tasks."
)
@click.option("--all", "all_", is_flag=True, help="List all tasks, page by page.")
@click.option(
    "--status",
    type=click.Choice(STATUSES),
    help="Only tasks with this status; reads each task, in parallel.",
)
@click.option("--search", metavar="TEXT", help="Only tasks whose title contains TEXT.")
@click.option(
    "--since",
    metavar="WHEN",
    help="Only tasks created after a date (2026-02-09) or within 7d, 12h, 30m.",
)
@click.option("--until", metavar="WHEN", help="Only tasks created before; as --since.")
def command(
    app: App,
    limit: int | None,
    offset: int,
    all_: bool,
    status: str | None,
    search: str | None,
    since: str | None,
    until: str | None,
) -> Listing:
    """List the tasks created through the API, newest first.

    The API's list only says whether a task has ended. --status and --fields status read each task
    for its actual status.

    Examples:

      rebyte list --limit 10
      rebyte list --status failed --since 7d -o id
      rebyte list --all -o jsonl | jq -r .title
    """
    from ..tasks.list import at_most, row_tests, walk, with_status

    if all_ and limit is not None:
        raise BadUsage("--all and --limit exclude each other")
    tests = row_tests(search=search, since=since, until=until)
    read_each = status is not None or "status" in (app.fields or ())
    plain = not (all_ or tests or status or (limit or 0) > PAGE)
    if plain:
        page = app.client.list_tasks(limit=limit or 50, offset=offset)
        rows: Iterator[Row] = iter(page.get("data") or [])
        envelope: Any = {name: value for name, value in page.items() if name != "data"}
    else:
        total: list[int] = []
        rows = walk(app.client, offset=offset, tests=tests, total=total)
        envelope = _counted(total, offset, None if all_ else limit or 50)
    found: Iterator[Row | RebyteError] = rows
    if read_each:
        found = with_status(app.client, rows, status)
    if not plain and not all_:
        found = at_most(found, limit or 50)
    return Listing(TASK_ROW, _located(app, found) if _shows_workspaces(app) else found, envelope)


def _shows_workspaces(app: App) -> bool:
    if app.fields:
        return "workspaceId" in app.fields
    return app.format in ("json", "jsonl", "csv", "tsv")


def _located(app: App, rows: Iterator[Row | RebyteError]) -> Iterator[Row | RebyteError]:
    """Each row with its workspace, which only the history knows."""
    for row in rows:
        yield row if isinstance(row, RebyteError) else app.located(row)


def _counted(total: list[int], offset: int, limit: int | None) -> Callable[[int], dict[str, Any]]:
    def envelope(count: int) -> dict[str, Any]:
        return {
            "total": total[-1] if total else count,
            "limit": count if limit is None else limit,
            "offset": offset,
        }

    return envelope
