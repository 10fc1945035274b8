"""List tasks, newest first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ..app import App
from ..errors import BadUsage, Next, RebyteError, RowOrError
from ..output.records import TASK_ROW, RecordList, Records
from ..tasks.list import (
    MOST_ASKED,
    MOST_READ,
    Test,
    at_most,
    has_status,
    passing,
    remembered,
    row_tests,
    with_questions,
    with_status,
)
from ._base import define
from ._options import (
    Choice,
    Number,
    ParsedText,
    completer,
    full_ids_option,
    label_filter_option,
    refuse,
    time_span_options,
)
from ._places import PlaceName, apps_of, named_places, shortened

STATUSES = ("running", "queued", "limited", "waiting", "completed", "failed", "canceled")
RUNNING = {"queued", "limited", "waiting"}  # what the API calls running
DEFAULT_LIMIT = 50
LATEST = "\U0010ffff"  # after every time

Row = Mapping[str, Any]


if TYPE_CHECKING:
    from ..tasks.task_watch import WatchedTask


class StatusFilter(Choice):
    """One status, or several with commas between them."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the statuses as a tuple."""
        words = str(value).lower().split(",") if isinstance(value, str) else list(value)
        words = ["canceled" if word.strip() == "cancelled" else word for word in words]
        return tuple(super(StatusFilter, self).convert(word.strip(), param, ctx) for word in words)


def _flat(
    _ctx: click.Context, _param: click.Parameter, value: tuple[tuple[str, ...], ...]
) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for words in value for word in words))


@define("list", kind=TASK_ROW)
@click.option(
    "-n",
    "--limit",
    type=Number(min=1),
    metavar="N",
    help="List at most N tasks (default 50); over 100 takes several requests.",
)
@click.option(
    "--offset", type=Number(min=0), default=0, metavar="N", help="Skip the first N tasks."
)
@click.option("--all", "all_", is_flag=True, help="List all tasks, page by page.")
@click.option(
    "--status",
    "statuses",
    type=StatusFilter(STATUSES),
    multiple=True,
    callback=_flat,
    shell_complete=completer("words", STATUSES),
    help="Only tasks with this status; repeat it, or separate several with commas.",
)
@click.option(
    "--no-status", is_flag=True, help="Don't fetch tasks to get their status: one request per page."
)
@full_ids_option
@click.option(
    "--watch",
    is_flag=True,
    help="Keep the table up to date, with keys to act on a task; in a pipe, print what changes.",
)
@click.option(
    "--on",
    metavar="PLACE,...",
    type=ParsedText("places", named_places),
    shell_complete=completer("places"),
    help="List the tasks at these places together: local,box (profiles).",
)
@label_filter_option
@click.option("--search", metavar="TEXT", help="Only tasks whose title contains TEXT.")
@time_span_options
def command(
    app: App, full_ids: bool, watch: bool, on: tuple[PlaceName, ...] | None, **options: Any
) -> RecordList | Records | None:
    """List the tasks created through the API, newest first.

    The API's list has no status, so rebyte fetches each finished task once and stores its status in
    the history. One command fetches at most 100; the other tasks are listed without a status. With
    --status or --fields status, all are fetched; with --no-status, none.

    A running task that waits for an answer is shown as waiting; in JSON, its status stays running,
    and "question" is true. rebyte checks at most 100 running tasks for this, and for at most five
    seconds; with --status waiting or --fields question, it checks all of them. One on this machine
    whose run waits for its turn is shown as queued, and one that waits for a usage limit of its
    model to be reset as limited, with "resumesAt" in JSON. --status running lists these, too.

    --watch shows what runs, for how long, its last step, and which tasks wait for an answer. Keys
    choose a task (arrows), show its transcript (Enter) or its changes (d), answer its question (a),
    cancel it (c), filter (/) and quit (q). Each task is read once when its run begins and when it
    ends; apart from that, there are at most two requests per second. The newest 100 tasks are
    watched, or as many as --limit says. In a pipe, or with -o json, jsonl, csv, tsv or id, each
    task is printed once, and again whenever its status changes, or it starts or stops waiting.

    --on lists several services together, each named by its profile, and says in "place" where each
    task is. If one cannot be read, the others are listed, and its error decides the exit status.

    Examples:

      rebyte list -n 10
      rebyte list --on local,box --status running
      rebyte list --watch --label run=nightly
      rebyte list --watch -o jsonl | jq -r 'select(.question) | .url'
      rebyte list --all --status failed --since 7d -o id
      rebyte list --all -o jsonl | jq -r .title
    """
    asked = ListedTasks(**options)
    refuse({"--all and --limit": asked.all_ and asked.limit is not None})
    if asked.no_status and (asked.statuses or "status" in (app.fields or ())):
        raise BadUsage("--no-status cannot be used with --status or --fields status")
    if watch and (asked.all_ or asked.offset or asked.no_status or on):
        raise BadUsage("--watch cannot be used with --all, --offset, --no-status or --on")
    if watch:
        return _watched(app, asked, full_ids=full_ids)
    apps = apps_of(app, on) if on else {}
    rows, envelope = _merged(apps, asked) if on else _listed(app, asked)
    shorten = partial(shortened, apps.values()) if on else app.history.shortest_prefixes
    used: list[Any] = []

    def footer(count: int) -> str | None:
        words = [_left(app, asked, envelope, count)]
        if used and app.format == "table":  # a script gets what each row used
            from ..tasks.usage import of_documents, summary

            words.insert(0, summary(of_documents(used)))
        return "\n".join(filter(None, words)) or None

    return RecordList(
        TASK_ROW,
        _noted(rows, used),
        envelope,
        columns=("place", *TASK_ROW.columns) if on else None,
        shorten=None if full_ids else shorten,
        footer=footer,
    )


class ListedTasks(NamedTuple):
    """Which tasks are to be listed, by the options of the command."""

    limit: int | None
    offset: int
    all_: bool
    statuses: tuple[str, ...]
    no_status: bool
    labels: Mapping[str, str]
    search: str | None
    since: str | None
    until: str | None

    @property
    def filters(self) -> bool:
        """Whether tasks of the list may be left out."""
        words = (self.statuses, self.labels, self.search, self.since, self.until)
        return any(each or each == "" for each in words if each is not None)

    @property
    def most(self) -> int | None:
        """How many tasks are listed at most; None for all."""
        return None if self.all_ else self.limit or DEFAULT_LIMIT

    def tests(self, app: App) -> list[Test]:
        """What a row must pass."""
        ids = app.history.labels.having(self.labels) if self.labels else None
        return row_tests(search=self.search, since=self.since, until=self.until, ids=ids)


def _listed(app: App, asked: ListedTasks) -> tuple[Iterator[RowOrError], Any]:
    """The rows of one service, and their envelope."""
    from ..api.urls import PAGE

    offset, statuses, tests, most = asked.offset, asked.statuses, asked.tests(app), asked.most
    if not (asked.all_ or tests or statuses or (asked.limit or 0) > PAGE):
        page = app.client.list_tasks(limit=asked.limit or DEFAULT_LIMIT, offset=offset)
        rows: Iterator[Row] = iter(page.get("data") or [])
        envelope: Any = {name: value for name, value in page.items() if name != "data"}
    else:
        total: list[int] = []
        rows = passing(app.client.iter_tasks(offset=offset, total=total), tests)
        envelope = _counted(total, offset, most, filtered=bool(tests or statuses))
        if not statuses:
            rows = at_most(rows, most)
    found = _told(app, rows, statuses, no_status=asked.no_status)
    asking = partial(
        with_questions, app.client, app.history, unchecked=partial(_unchecked, app, statuses)
    )
    if "waiting" in statuses:
        found = asking(found, most=None)
    if RUNNING.intersection(statuses):
        every = found
        found = (row for row in every if isinstance(row, RebyteError) or has_status(row, statuses))
    if statuses:
        found = at_most(found, most)
    if not asked.no_status and "waiting" not in statuses and _shows_questions(app):
        insists = "question" in (app.fields or ())
        found = asking(found, most=None if insists else MOST_ASKED)
    if _shows(app, "workspaceId", False):
        located = app.known.located
        found = (row if isinstance(row, RebyteError) else located(row) for row in found)
    elif app.format != "id":
        found = app.known.with_usage(found)
    return found, envelope


def _merged(apps: Mapping[str, App], asked: ListedTasks) -> tuple[Iterator[RowOrError], Any]:
    """The rows of several services, newest first, each with its `place`, and their envelope."""
    from heapq import merge

    most, skipped = asked.most, asked.offset
    at_each = asked._replace(limit=None if most is None else most + skipped, offset=0)

    def rows_at(place: str, app: App) -> Iterator[tuple[str, RowOrError]]:
        created = LATEST
        try:
            for row in _listed(app, at_each)[0]:
                if isinstance(row, RebyteError):
                    yield created, row
                else:
                    created = str(row.get("createdAt") or created)
                    yield created, {**row, "place": place}
        except RebyteError as error:  # the others are still worth listing
            yield created, error.copy_with(message=f"{place}: {error.message}")

    each = [rows_at(place, app) for place, app in apps.items()]
    merged = merge(*each, key=lambda pair: pair[0], reverse=True)

    def after_offset() -> Iterator[RowOrError]:
        left = skipped
        for _, row in merged:
            if left and not isinstance(row, RebyteError):
                left -= 1
            else:
                yield row

    return at_most(after_offset(), most), _counted([], skipped, most, filtered=True)


def _noted(rows: Iterator[RowOrError], used: list[Any]) -> Iterator[RowOrError]:
    """The rows; `used` learns the usage of each."""
    for row in rows:
        if not isinstance(row, RebyteError) and row.get("usage"):
            used.append(row["usage"])
        yield row


def _unchecked(app: App, statuses: tuple[str, ...], count: int) -> None:
    tasks = "1 running task was" if count == 1 else f"{count} running tasks were"
    more = (
        ""
        if "waiting" in statuses
        else "; " + Next("list", "--status", "waiting", "--all") + " checks all"
    )
    app.note(f"{tasks} not checked for a question" + more)


def _watched(app: App, asked: ListedTasks, *, full_ids: bool) -> Records | None:
    """The tasks as they change: drawn until an interrupt, or a record for each change."""
    from ..api.urls import PAGE
    from ..tasks.task_watch import TaskWatch
    from ._watch import draw

    if app.format == "table" and not (app.console.out_live and not app.fields):
        raise BadUsage(
            "--watch cannot keep this table up to date: it needs a terminal, and no --fields",
            hint="Use -o jsonl to print what changes",
        )

    def passes(task: WatchedTask) -> bool:
        return not asked.statuses or has_status(task.record, asked.statuses)

    watch = TaskWatch(
        app.client,
        app.history,
        most=asked.limit or PAGE,
        tests=partial(asked.tests, app),
        note=app.note,
    )
    with app.spinner("Reading the list of tasks"):
        watch.begin()
    if app.format != "table":
        changed = (app.known.located(task.record) for task in watch.changes() if passes(task))
        return Records(TASK_ROW, changed)
    draw(app, watch, passes, full_ids=full_ids)
    return None


def _left(app: App, asked: ListedTasks, envelope: Any, count: int) -> str | None:
    """What to say of a list that is not the whole one, unless a script asked for its length."""
    if asked.all_ or (asked.limit is not None and (asked.filters or app.format != "table")):
        return None
    if asked.filters:  # how many more would match is unknown: they have not been read
        return f"The first {count} that match; --all shows all" if count == DEFAULT_LIMIT else None
    total = (envelope(count) if callable(envelope) else envelope).get("total")
    if not isinstance(total, int) or total <= asked.offset + count:
        return None
    return f"{count} of {total:,} tasks; --all shows all"


def _told(
    app: App, rows: Iterator[Row], statuses: tuple[str, ...], *, no_status: bool
) -> Iterator[RowOrError]:
    """The rows with their statuses, where those are shown or asked for."""
    if no_status or not (statuses or _shows(app, "status", True)):
        return remembered(app.history, rows)
    insists = bool(statuses or app.fields)
    return with_status(
        app.client,
        app.history,
        rows,
        wanted=["running" if status in RUNNING else status for status in statuses],
        most=None if insists else MOST_READ,
        note=app.note,
    )


def _shows(app: App, field: str, in_table: bool) -> bool:
    """Whether the field is printed; `in_table`: whether a table has it unasked."""
    if app.format == "id":
        return False
    if app.fields:
        return field in app.fields
    return in_table or app.format != "table"


def _shows_questions(app: App) -> bool:
    """Whether it is printed that a run waits for an answer: as its status, or as a key of JSON."""
    as_status = app.format not in ("json", "jsonl") and _shows(app, "status", True)
    return as_status or _shows(app, "question", False)


def _counted(
    total: list[int], offset: int, limit: int | None, *, filtered: bool
) -> Callable[[int], dict[str, Any]]:
    """The envelope of what was walked. `total` is None where further tasks may match."""

    def envelope(count: int) -> dict[str, Any]:
        is_whole = not offset and (limit is None or count < limit)
        every = (count if is_whole else None) if filtered else (total[-1] if total else count)
        return {"total": every, "limit": count if limit is None else limit, "offset": offset}

    return envelope
