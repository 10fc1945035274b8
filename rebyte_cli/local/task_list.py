"""The list of tasks as HTML: a search, batches and their progress, and the newest tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from urllib.parse import urlencode

from ..system.durations import duration
from ..system.web_page import badge, h, moment
from . import http
from .http import Context
from .run_interface import RunUsage, sum_of
from .store import Store
from .task_store import TaskRecord
from .tasks import newest
from .wsgi import HttpRequest

PER_PAGE = 50
COUNTED = 1000  # tasks whose status is looked at, the newest first: it follows from their runs
SHOWN_BATCHES = 5
ENDED = ("completed", "failed", "canceled")
STATUSES = ("waiting", "running", "limited", "queued", *ENDED)  # in this order beside each other


class TaskSearch(NamedTuple):
    """What a list is limited to: words of prompts, a status, and a batch; empty for any."""

    q: str
    status: str
    batch: str

    @classmethod
    def of(cls, request: HttpRequest) -> TaskSearch:
        """The search in the query of a request."""
        return cls(*(request.args.get(name, "") for name in cls._fields))

    def link(self, text: str, offset: int = 0, *, is_current: bool = False) -> str:
        """A link to the list of this search."""
        query = {**self._asdict(), "offset": str(offset) if offset else ""}
        words = urlencode({name: value for name, value in query.items() if value})
        mark = ' aria-current="true"' if is_current else ""
        return f'<a href="/{"?" if words else ""}{h(words)}"{mark}>{text}</a>'


class Found(NamedTuple):
    """What a search found: the newest tasks, with their statuses, and how many there are in all."""

    tasks: list[TaskRecord]
    statuses: Mapping[str, str]
    total: int

    @property
    def counts(self) -> Counter[str]:
        """How many tasks have which status."""
        return Counter(self.statuses.values())


def render(context: Context, request: HttpRequest) -> tuple[str, str]:
    """The title of the page, which counts what is under way, and its body."""
    search, (_, offset) = TaskSearch.of(request), http.page_of(request)
    now, wanted = context.store.now(), {"words": search.q, "batch": search.batch}
    tasks, total = newest(context, request, COUNTED, 0, **wanted)
    found = Found(tasks, {task.id: status_of(context.store, task, now) for task in tasks}, total)
    if search.status:
        tasks = [task for task in tasks if found.statuses[task.id] == search.status]
        page, total = tasks[offset : offset + PER_PAGE], len(tasks)
    else:
        page, total = newest(context, request, PER_PAGE, offset, **wanted)
    with context.store.read() as db:
        rows = db.execute("SELECT * FROM batches").fetchall()
    batches = {row["id"]: (row["title"], row["lines"]) for row in rows}
    items = "".join(_row(context.store, task, now) for task in page)
    name = batches[search.batch][0] if search.batch in batches else "Tasks"
    shown = f"{offset + 1} to {offset + len(page)} of {total}" if page else "No tasks"
    if search.status and found.total > COUNTED:
        shown += f", among the newest {COUNTED}"
    body = (
        f'<h1>{h(name)}</h1><p class="about" id="count" data-changes>{shown}</p>'
        f"{_find(search)}{_chips(search, found.counts)}{_progress(search, found, batches, now)}"
        '<section><table class="tasks"><thead><tr><th scope="col">Task</th>'
        '<th scope="col">Status</th><th scope="col" class="wide">Executor</th>'
        '<th scope="col" class="wide">Created</th><th scope="col">Took</th></tr></thead>'
        f'<tbody id="tasks" data-items>{items}</tbody></table></section>'
        f"{_pages(search, offset, total)}"
    )
    busy = [f"{found.counts[each]} {each}" for each in STATUSES[:2] if found.counts[each]]
    return ", ".join([*busy, name]), body


def _find(search: TaskSearch) -> str:
    """The search, which needs the script: without one, a form could not be sent."""
    kept = "".join(
        f'<input type="hidden" name="{name}" value="{h(value)}">'
        for name, value in (("status", search.status), ("batch", search.batch))
    )
    return (
        '<form class="find" role="search" hidden>'
        f'<input type="search" name="q" value="{h(search.q)}" aria-label="Search prompts"'
        f' placeholder="Search prompts" autocomplete="off">{kept}</form>'
    )


def _chips(search: TaskSearch, counts: Counter[str]) -> str:
    """Links to the tasks of each status, with their number."""
    texts = {"": "All"} | {name: f"{badge(name)} {counts[name]}" for name in STATUSES}
    items = "".join(
        f"<li>{search._replace(status=name).link(text, is_current=name == search.status)}</li>"
        for name, text in texts.items()
        if name in ("", search.status) or counts[name]
    )
    return f'<ul class="chips" id="chips" aria-label="Status" data-changes>{items}</ul>'


def _progress(
    search: TaskSearch, found: Found, batches: Mapping[str, tuple[str, int]], now: int
) -> str:
    """How far the batch is that is shown, or the newest ones are."""
    several: dict[str, list[TaskRecord]] = {}
    for task in found.tasks:
        if task.batch is not None and task.batch in batches:
            several.setdefault(task.batch, []).append(task)
    items = ""
    for name, tasks in [] if search.q else list(several.items())[:SHOWN_BATCHES]:
        title, lines = batches[name]
        counts = Counter(found.statuses[task.id] for task in tasks)
        total = found.total if search.batch else len(tasks)
        open_ = sum(counts[each] for each in STATUSES if each not in ENDED)
        lines = max(lines, total)
        about = f"{total - open_} of {lines} ended"
        link = "" if search.batch else search._replace(batch=name).link(h(title)) + " "
        items += f'<div class="progress">{link}{about}{_bar(counts, lines, about)}</div>'
    heading = items and not search.batch and "<h2>Batches</h2>"
    spent = h(used(task.usage(now) for task in found.tasks)) if search.batch else ""
    return f'<section id="batches" data-changes>{heading or ""}{items}{spent}</section>'


def _bar(counts: Counter[str], lines: int, about: str) -> str:
    """A bar with a part for each status; what has no task yet is empty."""
    parts, x = "", 0
    for name in (*ENDED, *STATUSES):
        if counts[name]:
            parts += f'<rect class="{name}" x="{x}" width="{counts[name]}" height="1"/>'
        x += counts.pop(name, 0)
    return (
        f'<svg class="parts" viewBox="0 0 {lines} 1" preserveAspectRatio="none" role="img"'
        f' aria-label="{about}">{parts}</svg>'
    )


def _row(store: Store, task: TaskRecord, now: int) -> str:
    name = task.shown_title(now) or "New task"
    status = badge(status_of(store, task, now), f"status-{task.id}")
    return (
        f'<tr id="{task.id}"><td class="title"><a href="/run/{task.id}">'
        f'<span id="title-{task.id}" data-changes>{h(name)}</span></a></td>'
        f'<td>{status}</td><td class="wide">{h(task.executor)}</td>'
        f'<td class="time wide">{moment(http.stamp(task.created))}</td>'
        f'<td class="time" id="took-{task.id}" data-changes>{took(task, now)}</td></tr>\n'
    )


def _pages(search: TaskSearch, offset: int, total: int) -> str:
    links = [
        search.link("Newer", max(0, offset - PER_PAGE)) if offset else "",
        search.link("Older", offset + PER_PAGE) if offset + PER_PAGE < total else "",
    ]
    return f'<nav aria-label="Pages"><p>{" ".join(links)}</p></nav>' if any(links) else ""


def status_of(store: Store, task: TaskRecord, now: int) -> str:
    """The task's status; of one that runs, also what it waits for.

    `waiting` for one that asks a question, `limited` for one that waits for a usage limit, and
    `queued` for one whose turn has not come.
    """
    if any(run.question(now) for run in task.runs):
        return "waiting"
    queue = task.queue(store, now)
    return "limited" if "resumesAt" in queue else "queued" if "queue" in queue else task.status(now)


def took(task: TaskRecord, now: int) -> str:
    """From the task's creation to its end, or until now, as `1m 05s`."""
    end = task.completed(now)
    seconds = ((now if end is None else end) - task.created) / 1000
    return f"{seconds:.1f}s" if seconds < 10 else duration(seconds)


def used(several: Iterable[RunUsage | None]) -> str:
    """What runs used together, as `3 requests, 1,200 tokens in (900 cached), 80 out, $0.02`."""
    known = [one for one in several if one is not None]
    if not known:
        return ""
    total = sum_of(known)
    cached = f" ({total.cached_input_tokens:,} cached)" if total.cached_input_tokens else ""
    parts = [
        f"{total.requests:,} {'request' if total.requests == 1 else 'requests'}"
        if total.requests
        else "",
        f"{total.input_tokens:,} tokens in{cached}",
        f"{total.output_tokens:,} out",
        "" if total.cost_usd is None else f"${total.cost_usd:,.4f}".rstrip("0").rstrip("."),
    ]
    return ", ".join(part for part in parts if part)
