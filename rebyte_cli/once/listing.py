"""Read the task list, and say whether it can be complete.

The API promises little of it; what contradicts its notes, or itself, may hide a task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from ..api.urls import PAGE
from ..api.views import PageView
from ..system.deadline import Deadline
from .server_clock import SKEW, parse_time

if TYPE_CHECKING:
    from ..api.client import RebyteClient

Row = Mapping[str, Any]
PAGES = 100
BEFORE_ALL: Row = {"createdAt": "1970-01-01T00:00:00.000Z"}
OVERLAP = 5  # rows of the list that are read twice, to see that no page is missing


class Listing(NamedTuple):
    """Rows of the task list, newest first. `is_complete`: none is missing, as far as asked."""

    rows: list[Row]
    is_complete: bool


def newest_task(client: RebyteClient, *, timeout: float | None = None) -> Row:
    """The newest task that the service has; one that is older than all if it has none.

    Raises APIError if it does not tell.
    """
    rows = PageView(client.list_tasks(limit=1, timeout=timeout)).rows
    return rows[0] if rows else BEFORE_ALL


def read_listing(
    client: RebyteClient, since: Callable[[], datetime | None], limit: Deadline
) -> Listing:
    """Read the list back to `since` (None: all of it), which is called after the first answer.

    It is complete only if it keeps to what the API notes promise: newest first, `offset` and
    `limit` obeyed, `total` the number of all tasks. Anything else may hide a task. Raises the
    APIError of a page that cannot be read.
    """
    rows: dict[str, Row] = {}
    times: list[datetime] = []
    total: int | None = None
    offset = overlap = 0
    for _ in range(PAGES):
        answer = client.list_tasks(limit=PAGE, offset=offset, timeout=limit.for_call())
        page = PageView(answer)
        is_sound = not _contradicts_notes(page, offset, overlap, rows)
        total = page.total if offset == 0 else total
        news = [row for row in page.rows if row["id"] not in rows]
        rows.update((row["id"], row) for row in news)
        if not is_sound or not _continues(times, news):
            return Listing(list(rows.values()), False)
        if not news:  # the end: this page overlaps the one before it
            return Listing(list(rows.values()), total is None or len(rows) >= total)
        start = since()
        if start is not None and len(times) >= OVERLAP and max(times[-OVERLAP:]) < start:
            return Listing(list(rows.values()), True)  # all that follow are older still
        overlap = min(OVERLAP, len(page.rows) // 2)
        offset = len(rows) - overlap
    return Listing(list(rows.values()), False)


def _contradicts_notes(
    page: PageView, offset: int, overlap: int, before: Mapping[str, Row]
) -> bool:
    """Whether a page is not what was asked for. `before` are the rows of the pages before it."""
    ids = [row["id"] for row in page.rows]
    if not page.is_sound or len(set(ids)) < len(ids):
        return True
    if page.offset not in (None, offset) or len(ids) > min(PAGE, page.limit or PAGE):
        return True
    if page.total is not None and page.total < offset + len(ids):
        return True
    if page.total is not None and page.limit is not None:
        expected = min(PAGE, page.limit, page.total - offset)
        if len(ids) < expected:  # a row was dropped after the page was cut
            return True
    if offset == 0:
        return False
    if not ids:
        return overlap > 0
    # The rows that are asked for twice come twice, and the list does not start over.
    return ids[0] == next(iter(before)) or (overlap > 0 and ids[0] not in before)


def _continues(times: list[datetime], news: list[Row]) -> bool:
    """Add the times of new rows to those before; False if one is newer than a row before it."""
    for row in news:
        created = parse_time(row.get("createdAt"))
        if created is None:
            continue
        oldest = min(created, times[-1] if times else created)
        if created > oldest + timedelta(seconds=SKEW):
            return False
        times.append(oldest)
    return True
