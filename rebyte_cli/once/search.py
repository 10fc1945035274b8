"""Find what a request created whose answer was lost.

Only the prompt proves anything. The list says which tasks are young enough, and `content` says
what they were asked; where it does not, nothing can be told. That there is no task is harder to
prove than that there is one: it takes complete lists, several of them, that agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from ..api.urls import PAGE
from ..api.views import ContentView, PageView
from ..deadline import NO_LIMIT, Deadline
from ..errors import (
    APIError,
    NetworkError,
    OutcomeUnknown,
    RebyteError,
    Redirected,
    ResourceNotFound,
    ServerFault,
    Unsent,
)
from .clock import SKEW, Window, parse_time
from .match import digest_of, is_prompt

if TYPE_CHECKING:
    from ..api.client import RebyteClient

Row = Mapping[str, Any]
LOOK_FOR = 20.0  # seconds for which a lost task is searched without a break
LOOKS = 3  # that must agree, spread over LOOK_FOR, before "there is none" is believed
PAGES = 100
READS = 200  # transcripts fetched in one scan
OVERLAP = 5  # rows of the list that are read twice, to see that no page is missing


def is_lost(error: RebyteError) -> bool:
    """Whether something was sent and its answer is lost, so that only a search can tell.

    Not if it provably never arrived, was answered by a redirect, or by a 500: that one did
    answer, and a task created in spite of it is found by the next attempt.
    """
    if isinstance(error, OutcomeUnknown):
        return True
    return isinstance(error, NetworkError) and not isinstance(
        error, Unsent | Redirected | ServerFault
    )


class LostRequest(NamedTuple):
    """A request whose answer was lost.

    `digest` is that of its prompt; `prompt` the text, where this process has it; `body` the other
    fields that were sent. `window` says when it can have taken effect; it is called after an
    answer that told the server's time. A task that is early by up to `doubt` and has exactly this
    prompt is a candidate, too: the service may write `createdAt` in another time zone.
    `candidates` are ids that an earlier search thought possible.
    """

    digest: str
    window: Callable[[], Window]
    prompt: str | None = None
    body: Mapping[str, Any] = MappingProxyType({})
    doubt: timedelta = timedelta(0)
    candidates: Sequence[str] = ()

    @property
    def since(self) -> datetime | None:
        """What was created before this certainly has another origin."""
        since = self.window().since
        return None if since is None else since - self.doubt


class Matches(NamedTuple):
    """What one scan found: `same` are certain by their prompt, `unsure` could be it.

    `is_complete`: every task that could be the result was examined.
    """

    same: list[Row]
    unsure: list[Row]
    is_complete: bool

    @property
    def is_settled(self) -> bool:
        """Whether another scan would change nothing."""
        return len(self.same) > 1 or (len(self.same) == 1 and not self.unsure)

    @property
    def candidates(self) -> list[Row]:
        """Everything that it could be."""
        return [*self.same, *self.unsure]

    @property
    def shows_none(self) -> bool:
        """Whether this scan, by itself, says that nothing was created."""
        return self.is_complete and not self.candidates


class Absence:
    """Scans that together prove that a request created nothing.

    A list may be wrong once, and a task may show up a few seconds late. So several complete
    scans must agree for LOOK_FOR seconds; one that differs or fails starts the count again.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = LOOK_FOR if seconds is None else seconds
        self._scans = 0
        self._since = self._until = 0.0

    def add(self, matches: Matches | None, began: float) -> None:
        """Count a scan that began at `began` (monotonic); None for one that failed."""
        if matches is None or not matches.shows_none:
            self._scans = 0
            return
        self._since = began if self._scans == 0 else self._since
        self._until = began
        self._scans += 1

    @property
    def is_likely(self) -> bool:
        """Whether the last scan found nothing, so that it is worth looking on."""
        return self._scans > 0

    @property
    def is_proven(self) -> bool:
        """Whether there certainly is no task."""
        return self._scans >= LOOKS and self._until - self._since >= self._seconds


class TaskScan(NamedTuple):
    """Rows of the task list, newest first. `is_complete`: none is missing, as far as asked."""

    rows: list[Row]
    is_complete: bool


def read_listing(
    client: RebyteClient, since: Callable[[], datetime | None], limit: Deadline
) -> TaskScan:
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
            return TaskScan(list(rows.values()), False)
        if not news:  # the end: this page overlaps the one before it
            return TaskScan(list(rows.values()), total is None or len(rows) >= total)
        start = since()
        if start is not None and len(times) >= OVERLAP and max(times[-OVERLAP:]) < start:
            return TaskScan(list(rows.values()), True)  # all that follow are older still
        overlap = min(OVERLAP, len(page.rows) // 2)
        offset = len(rows) - overlap
    return TaskScan(list(rows.values()), False)


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
    if offset == 0:
        return not ids and bool(page.total)
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
        if created > oldest + SKEW:
            return False
        times.append(oldest)
    return True


class Search:
    """Scans the list for what lost requests created; reads each transcript only once."""

    def __init__(
        self,
        client: RebyteClient,
        known: Callable[[Iterable[str]], set[str]],
        *,
        created: Callable[[], Iterable[Mapping[str, Any]]],
        other_prompts: Callable[[], set[str]] = set,
    ) -> None:
        """`known` picks, from ids, those that are certainly the result of something else.

        `created` are tasks with `id` and `createdAt` that were answered: a list without them is
        not up to date. `other_prompts` are digests of prompts that others were sent with.
        """
        self._client = client
        self._known = known
        self._created = created
        self._other_prompts = other_prompts
        self._prompts: dict[str, str] = {}
        self._deleted: set[str] = set()
        self._candidates: dict[str, set[str]] = {}  # ever seen, by the digest of the request

    def scan(self, requests: Sequence[LostRequest], limit: Deadline = NO_LIMIT) -> list[Matches]:
        """One look at the list and the transcripts of young tasks, for all of the requests.

        Raises the APIError of the list if it cannot be read.
        """

        def since() -> datetime | None:
            return _earliest([request.since for request in requests])

        # Before the list is read: it may lack what is answered while it is.
        answered = [*self._created()]
        listing = read_listing(self._client, since, limit)
        windows = [request.window() for request in requests]
        is_current = listing.is_complete and self._is_current(listing, answered, windows, limit)
        known = self._known([row["id"] for row in listing.rows])

        def match(rows: list[Row]) -> list[Matches]:
            is_read = self._read_prompts(rows, limit)
            others = self._other_prompts()
            return [
                self._matches(request, window, rows, others, is_current and is_read)
                for request, window in zip(requests, windows, strict=True)
            ]

        rows = [row for row in listing.rows if row["id"] not in known]
        found = match(_created_since(rows, [window.since for window in windows]))
        doubted = _created_since(rows, [request.since for request in requests])
        if all(request.doubt for request in requests) and not any(one.candidates for one in found):
            is_complete = [one.is_complete for one in found]
            found = [
                one._replace(is_complete=was)  # the doubtful are read as far as it goes
                for one, was in zip(match(doubted[:READS]), is_complete, strict=True)
            ]
        listed = {row["id"] for row in listing.rows}
        return [
            self._unless_vanished(request, matches, listed)
            for request, matches in zip(requests, found, strict=True)
        ]

    def _read_prompts(self, rows: list[Row], limit: Deadline) -> bool:
        """Read what these tasks were asked; False if they are too many for one scan."""
        unread = [row["id"] for row in rows if row["id"] not in self._prompts]
        for task_id in unread[:READS]:
            self._read_prompt(task_id, limit)
        return len(unread) <= READS

    def _unless_vanished(self, request: LostRequest, matches: Matches, listed: set[str]) -> Matches:
        """A list without a task that was a candidate before is wrong, now or then."""
        ever = self._candidates.setdefault(request.digest, set())
        ever.update(request.candidates, (row["id"] for row in matches.candidates))
        return matches if ever <= listed else matches._replace(is_complete=False)

    def _matches(
        self,
        request: LostRequest,
        window: Window,
        rows: list[Row],
        others: set[str],
        is_complete: bool,
    ) -> Matches:
        same, unsure = list[Row](), list[Row]()
        for row in rows:
            shown = self._prompts.get(row["id"])
            created = row.get("createdAt")
            if _is_excluded(created, shown, request, window):
                continue
            match = is_prompt(
                shown,
                request.digest,
                request.prompt,
                is_known=shown is not None and digest_of(shown) in others,
            )
            is_timely = _is_timely(created, window)
            if match and is_timely and not contradicts(row, request.body):
                same.append(row)
            elif match is not False:
                unsure.append(row)
        return Matches(same, unsure, is_complete)

    def _is_current(
        self,
        listing: TaskScan,
        answered: list[Mapping[str, Any]],
        windows: list[Window],
        limit: Deadline,
    ) -> bool:
        """Whether the list shows every task that was answered in the time in question."""
        listed = {row["id"] for row in listing.rows}
        first = min(window.first for window in windows)
        for task in answered:
            created = parse_time(task.get("createdAt"))
            if created is None or created < first:
                continue
            if task["id"] not in listed and not self._is_deleted(str(task["id"]), limit):
                return False
        return True

    def _is_deleted(self, task_id: str, limit: Deadline) -> bool:
        if task_id not in self._deleted:
            try:
                self._client.get_task(task_id, timeout=limit.for_call())
            except ResourceNotFound:
                self._deleted.add(task_id)
            except APIError:
                return False
        return task_id in self._deleted

    def _read_prompt(self, task_id: str, limit: Deadline) -> None:
        """Find out what a task was asked, if the API tells."""
        try:
            content = self._client.task_content(task_id, timeout=limit.for_call())
        except APIError:
            return
        prompts = ContentView(content).prompts
        if prompts and prompts[0].text.strip():
            self._prompts[task_id] = prompts[0].text


def _created_since(rows: Iterable[Row], starts: list[datetime | None]) -> list[Row]:
    earliest = _earliest(starts)
    return [row for row in rows if not _is_before(row.get("createdAt"), earliest)]


def _earliest(starts: list[datetime | None]) -> datetime | None:
    return None if None in starts else min(filter(None, starts), default=None)


def _is_excluded(written: Any, shown: str | None, request: LostRequest, window: Window) -> bool:
    """Whether its time says that something is not the result of a request.

    If it is too early or too late and yet has exactly our prompt, the clocks may differ.
    """
    if not _is_before(written, window.since) and not _is_late(written, window):
        return False
    equal = shown is not None and digest_of(shown) == request.digest
    return not equal or _is_before(written, request.since)


def _is_timely(written: Any, window: Window) -> bool:
    created = parse_time(written)
    return created is not None and window.first <= created <= window.last


def _is_before(written: Any, moment: datetime | None) -> bool:
    created = parse_time(written)
    return created is not None and moment is not None and created < moment


def _is_late(written: Any, window: Window) -> bool:
    created = parse_time(written)
    return created is not None and window.until is not None and created > window.until


def contradicts(row: Mapping[str, Any], body: Mapping[str, Any]) -> bool:
    """Whether a row names another executor or model than the one that was asked for.

    That only makes a match doubtful: a consumer's notes say that servers may ignore both. A model
    without a digit is a tier ("lite"), which the server turns into a model's name.
    """
    for name in ("executor", "model"):
        wanted, has = body.get(name), row.get(name)
        if not isinstance(wanted, str) or not isinstance(has, str):
            continue
        if name == "model" and not any(letter.isdigit() for letter in wanted):
            continue
        if wanted and has and wanted != has:
            return True
    return False


def find_prompts(content: ContentView, request: LostRequest) -> Matches:
    """The prompts of a task's content that a lost follow-up may have created.

    It is complete only if every prompt has an id, and a distinct id.
    """
    window, same, unsure = request.window(), list[Row](), list[Row]()
    for prompt in content.prompts:
        shown = prompt.text if prompt.text.strip() else None
        if not prompt.id or _is_excluded(prompt.submitted_at, shown, request, window):
            continue
        match = is_prompt(shown, request.digest, request.prompt)
        if match and _is_timely(prompt.submitted_at, window):
            same.append(prompt.raw)
        elif match is not False:
            unsure.append(prompt.raw)
    ids = [prompt.id for prompt in content.prompts if prompt.id]
    is_complete = len(set(ids)) == len(ids) == content.prompt_count > 0
    return Matches(same, unsure, is_complete)


def pauses() -> Iterator[float]:
    """Seconds between two scans: short at first, since a task is mostly there at once."""
    pause = 0.5
    while True:
        yield pause
        pause = min(pause * 1.6, 4.0)
