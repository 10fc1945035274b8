"""Walking the list of tasks: pages, tests on rows, and each row's true status."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..errors import BadUsage, RebyteError, ResourceNotFound

if TYPE_CHECKING:
    from ..api.client import RebyteClient

Row = Mapping[str, Any]
# What a row must pass; `None` ends the walk, since everything after it is older still.
Test = Callable[[Row], "bool | None"]

_AGO = r"(\d+(?:\.\d+)?)\s*([smhdw])"
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def moment(text: str, *, now: datetime | None = None) -> datetime:
    """A date, a date and time, or `7d`, `12h`, `30m` ago, with its zone. BadUsage otherwise."""
    ago = re.fullmatch(_AGO, text.strip())
    try:
        if ago:
            seconds = float(ago[1]) * _SECONDS[ago[2]]
            return (now or datetime.now(UTC)) - timedelta(seconds=seconds)
        found = datetime.fromisoformat(text.strip())
    except (ValueError, OverflowError):
        raise BadUsage(
            f"{text!r} is not a time", hint="2026-02-09, 2026-02-09T10:30:00Z, or 7d, 12h, 30m"
        ) from None
    return found if found.tzinfo else found.astimezone()


def row_tests(
    *, search: str | None = None, since: str | None = None, until: str | None = None
) -> list[Test]:
    """The tests that a row of the list must pass, from the options of `rebyte list`."""
    made: list[Test] = []
    if since is not None:
        start = moment(since)
        made.append(lambda row: True if _created(row) >= start else None)
    if until is not None:
        end = moment(until)
        made.append(lambda row: _created(row) <= end)
    if search is not None:
        wanted = search.casefold()
        made.append(lambda row: wanted in str(row.get("title") or "").casefold())
    return made


def _created(row: Row) -> datetime:
    try:
        found = datetime.fromisoformat(str(row.get("createdAt")))
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def walk(
    client: RebyteClient, *, offset: int = 0, tests: Sequence[Test] = (), total: list[int]
) -> Iterator[Row]:
    """Rows from `offset` on that pass every test, page by page, each task once.

    `total` receives the API's own count with each page.
    """
    for row in client.iter_tasks(offset=offset, total=total):
        verdicts = [test(row) for test in tests]
        if None in verdicts:
            return
        if all(verdicts):
            yield row


def with_status(
    client: RebyteClient, rows: Iterable[Row], status: str | None
) -> Iterator[Row | RebyteError]:
    """Each row with its task's `status`, read in parallel; with `status`, the matching ones."""
    from ..api.status import canonical_status
    from .parallel import SIDE_BY_SIDE, in_parallel

    # An open task can only be running, an ended one never is, so half the reads are spared
    # where the list itself can rule a row out.
    def possible(row: Row) -> bool:
        return status is None or (status == "running") == (not row.get("completedAt"))

    candidates = filter(possible, rows)
    while chunk := list(islice(candidates, SIDE_BY_SIDE)):
        answers = in_parallel(client.get_task, [str(row.get("id")) for row in chunk])
        for row, answer in zip(chunk, answers, strict=True):
            if isinstance(answer, ResourceNotFound):
                continue  # deleted between the page and the read
            if isinstance(answer, RebyteError):
                yield answer
            elif status is None or canonical_status(answer.get("status")) == status:
                yield {**row, "status": answer.get("status")}


def at_most(rows: Iterator[Any], limit: int | None) -> Iterator[Any]:
    """The first `limit` of `rows`; all of them for None."""
    return rows if limit is None else islice(rows, min(limit, sys.maxsize))
