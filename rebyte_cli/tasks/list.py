"""Walking the list of tasks: pages, tests on rows, and each row's true status."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..api.status import canonical_status
from ..errors import BadUsage, RebyteError, ResourceNotFound, RowOrError
from ..system.deadline import NO_LIMIT, Deadline
from ..system.durations import parse_duration
from .parallel import in_parallel

if TYPE_CHECKING:
    from ..api.client import RebyteClient
    from ..history.history import History

TOGETHER = 50  # rows for which the history is asked at once; a page has 100
MOST_READ = 100  # tasks whose status is read unless the caller insists
MOST_ASKED = 100  # running tasks whose events are read for a question unless the caller insists
ASK_TIME = 5.0  # seconds that reading them may take in all
READ_TIMEOUT = 10.0  # seconds for a status that the caller did not insist on

Row = Mapping[str, Any]
# What a row must pass; `None` ends the walk, since everything after it is older still.
Test = Callable[[Row], "bool | None"]


def moment(text: str, *, now: datetime | None = None) -> datetime:
    """A date, a date and time, `today`, `yesterday`, or `7d`, `12h`, `30m` ago, with its zone.

    Days begin at midnight where the command runs. BadUsage for anything else.
    """
    ago = None if re.fullmatch(r"[\d.\s]*", text) else parse_duration(text)  # 20260209 is a date
    days = {"today": 0, "yesterday": 1}.get(text.strip().lower())
    now = now or datetime.now(UTC)
    try:
        if ago is not None:
            return now - timedelta(seconds=ago)
        if days is not None:
            day = now.astimezone().replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
            return (day - timedelta(days=days)).astimezone()
        found = datetime.fromisoformat(text.strip())
        return found if found.tzinfo else found.astimezone()
    except (ValueError, OverflowError):
        raise BadUsage(
            f"{text!r} is not a time",
            hint="Write 2026-02-09, 2026-02-09T10:30:00Z, today, 7d, 12h or 30m",
        ) from None


def row_tests(
    *,
    search: str | None = None,
    since: str | None = None,
    until: str | None = None,
    ids: Collection[str] | None = None,
) -> list[Test]:
    """The tests that a row of the list must pass, from the options of `rebyte list`.

    With `ids`, only rows of these tasks pass, and the walk ends with the last of them.
    """
    made: list[Test] = []
    if ids is not None:
        made.append(_is_one_of(ids))
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


def _is_one_of(ids: Collection[str]) -> Test:
    left = set(ids)

    def test(row: Row) -> bool | None:
        if not left:
            return None
        found = _id(row) in left
        left.discard(_id(row))
        return found

    return test


def _created(row: Row) -> datetime:
    try:
        found = datetime.fromisoformat(str(row.get("createdAt")))
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def passing(rows: Iterable[Row], tests: Sequence[Test]) -> Iterator[Row]:
    """The rows that pass every test, up to the one that a test ends with."""
    for row in rows:
        verdicts = [test(row) for test in tests]
        if None in verdicts:
            return
        if all(verdicts):
            yield row


def with_status(
    client: RebyteClient,
    history: History,
    rows: Iterable[Row],
    *,
    wanted: Collection[str] = (),
    most: int | None,
    note: Callable[[str], None],
) -> Iterator[RowOrError]:
    """Each row with its task's `status`; with `wanted`, only the rows that have one of these.

    At most `most` tasks are read for it (None: all that must be), and the status of further ones
    is null. So is that of a task that cannot be read, which `note` reports once; with `wanted`,
    the error is yielded in the row's place.
    """
    candidates = (row for row in rows if not wanted or _is_possible(row, wanted))
    get = partial(client.get_task, timeout=None if wanted else READ_TIMEOUT)
    failed: list[RebyteError] = []
    for row, status in _statuses(get, history, candidates, sys.maxsize if most is None else most):
        if isinstance(status, ResourceNotFound):  # deleted since the page was read
            if not wanted:
                yield {**row, "status": None}
        elif isinstance(status, RebyteError):
            failed.append(status)
            yield status if wanted else {**row, "status": None}
        elif not wanted or canonical_status(status) in wanted:
            yield {**row, "status": status}
    if failed and not wanted:
        count = "one task" if len(failed) == 1 else f"{len(failed)} tasks"
        note(f"Could not read the status of {count}: " + failed[0].sentence)


def _is_possible(row: Row, wanted: Collection[str]) -> bool:
    """Whether a row may have one of the statuses: without an end, it can only be running."""
    if not row.get("completedAt"):
        return "running" in wanted
    return any(status != "running" for status in wanted)


def _statuses(
    get: Callable[[str], Mapping[str, Any]], history: History, rows: Iterator[Row], most: int
) -> Iterator[tuple[Row, Any]]:
    """Each row with its task's true status, None, or the error of reading it, as they arrive.

    From the list itself, from the history, or read with `get`, at most `most` tasks in all. The
    history learns what was read, also if the reader leaves in the middle.
    """
    while chunk := list(islice(rows, TOGETHER)):
        found = _known(history, chunk)
        unread = [task_id for task_id in dict.fromkeys(map(_id, chunk)) if task_id not in found]
        unread = unread[:most]
        most -= len(unread)
        answers = in_parallel(get, unread)
        awaited = set(unread)
        shown: list[Row] = []
        try:
            for row in chunk:
                task_id, news = _id(row), row
                if task_id in awaited:  # rows and answers come in the same order
                    awaited.remove(task_id)
                    answer = next(answers)
                    if isinstance(answer, RebyteError):
                        found[task_id] = answer
                    else:
                        found[task_id] = answer.get("status")
                        news = {**row, **answer}
                shown.append(news)
                yield row, found.get(task_id)
        finally:
            history.remember_shown(shown)


def _known(history: History, rows: Sequence[Row]) -> dict[str, Any]:
    """The statuses that need no request, by id.

    One in the history counts if it was seen with the same `completedAt`, since a follow-up gives a
    task another end.
    """
    ended = [row for row in rows if row.get("completedAt") and not row.get("status")]
    seen = history.ends(map(_id, ended)) if ended else {}
    found: dict[str, Any] = {}
    for row in rows:
        task_id = _id(row)
        status = row.get("status")  # not sent today (vendor docs)
        if not status and not row.get("completedAt"):
            status = "running"
        status = status or seen.get((task_id, str(row.get("completedAt"))))
        if status or not task_id:
            found[task_id] = status
    return found


def with_questions(
    client: RebyteClient,
    history: History,
    rows: Iterable[RowOrError],
    *,
    most: int | None,
    unchecked: Callable[[int], None] = lambda _: None,
) -> Iterator[RowOrError]:
    """The rows, with `question` true where the run waits for an answer.

    The events of each running task are read for it: all of them for `most=None`, otherwise those
    of `most` tasks, as far as ASK_TIME allows. `unchecked` is told how many were not, if any.
    """
    deadline = NO_LIMIT if most is None else Deadline(ASK_TIME)
    left = sys.maxsize if most is None else most
    skipped: list[str] = []

    def asks(task_id: str) -> bool:
        from . import questions

        try:
            if not deadline.has_passed:
                return questions.asked(client, history, task_id, deadline) is not None
        except RebyteError:  # the list is not worth less for it
            pass
        skipped.append(task_id)
        return False

    every = iter(rows)
    while chunk := list(islice(every, TOGETHER)):
        running = [_id(row) for row in chunk if isinstance(row, Mapping) and _is_running(row)]
        skipped += running[left:]
        running = running[:left]
        left -= len(running)
        asked = dict(zip(running, in_parallel(asks, running), strict=True))
        for row in chunk:
            if isinstance(row, Mapping) and asked.get(_id(row)) is True:
                row = {**row, "question": True}
            yield row
    if skipped:
        unchecked(len(skipped))


def has_status(row: Row, statuses: Collection[str]) -> bool:
    """Whether a row of `with_questions` has one of the statuses, also `waiting`, `limited` or
    `queued`."""
    return (
        canonical_status(row.get("status")) in statuses
        or ("waiting" in statuses and bool(row.get("question")))
        or ("limited" in statuses and bool(row.get("resumesAt")))
        or ("queued" in statuses and bool(row.get("queue")))
    )


def _is_running(row: Row) -> bool:
    status = row.get("status")
    return status == "running" if status else not row.get("completedAt")


def _id(row: Row) -> str:
    return str(row.get("id") or "")


def remembered(history: History, rows: Iterable[Row]) -> Iterator[Row]:
    """The rows; the history learns their ids, so that prefixes of them work."""
    walk = iter(rows)
    while chunk := list(islice(walk, TOGETHER)):
        history.remember_shown(chunk)
        yield from chunk


def at_most(rows: Iterator[Any], limit: int | None) -> Iterator[Any]:
    """The first `limit` of `rows`; all of them for None."""
    return rows if limit is None else islice(rows, min(limit, sys.maxsize))
