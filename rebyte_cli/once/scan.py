"""One scan for what lost requests created: read the list and what its tasks were asked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

from ..api.urls import PAGE
from ..api.views import ContentView, PageView
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
from ..history.rows import digest_of
from ..system.deadline import NO_LIMIT, Deadline
from .judge import Owner, Place, Row, Seen, Verdict, judge, share
from .server_clock import Baseline, ServerClock, parse_stamp

if TYPE_CHECKING:
    from ..api.client import RebyteClient

READS = 200  # transcripts fetched in one scan
MOST_ROWS = 10_000
NEAR = timedelta(hours=1)  # before the send, in which a row that stands below is read
OVERLAP = 5  # rows of the list that are read twice, to see that no page is missing


def is_lost(error: RebyteError) -> TypeGuard[APIError]:
    """Whether something was sent and its answer is lost, so that only a search can tell.

    Not if it provably never arrived, was answered by a redirect that cannot lead to its result, or
    by a 500: that one did answer, and a task created in spite of it is found by the next attempt.
    """
    if isinstance(error, OutcomeUnknown):
        return True
    return isinstance(error, NetworkError) and not isinstance(
        error, Unsent | Redirected | ServerFault
    )


class LostRequest(NamedTuple):
    """A request whose answer was lost: the digest of its prompt, its timestamp, what was sent.

    `is_own`: by this call, a moment ago. `candidates` are ids that an earlier search thought
    possible. Requests whose results may be exchanged have equal `asks`.
    """

    digest: str
    sent: str
    body: Mapping[str, Any] = MappingProxyType({})
    is_own: bool = False
    candidates: Sequence[str] = ()
    asks: Any = None

    @property
    def baseline(self) -> Baseline | None:
        """Where the list stood before it was sent; None if that is not known."""
        return parse_stamp(self.sent).baseline


class Listing(NamedTuple):
    """What a scan read of the list: its `rows` by id, newest first, of `total` (None: not told).

    `is_sound`: no row is missing between those that were read. `is_whole`: they are all.
    """

    rows: Mapping[str, Row]
    total: int | None
    is_sound: bool
    is_whole: bool

    def above(self, before: Baseline | None) -> int:
        """How many rows stand above the newest one of a baseline; all if that is not shown."""
        newest = None if before is None else before.newest
        return len(self.rows) if newest not in self.rows else [*self.rows].index(str(newest))


class Scanner:
    """Scans the list for what lost requests created; reads each transcript only once.

    `owned` picks, from ids, those that certainly are not the result of a prompt with this digest,
    and those that perhaps are not. `expected` are ids that an up-to-date list shows. `is_contested`
    says whether another request may have made what shows the prompt of these, which is the same.
    `is_exact` is as in `judge`.
    """

    def __init__(
        self,
        client: RebyteClient,
        clock: ServerClock,
        *,
        owned: Callable[[Collection[str], str], tuple[set[str], set[str]]],
        expected: Callable[[], Iterable[str]],
        is_contested: Callable[[Sequence[LostRequest]], bool],
        is_exact: bool = False,
    ) -> None:
        self._client, self._clock, self._is_exact = client, clock, is_exact
        self._owned, self._expected, self._is_contested = owned, expected, is_contested
        self._prompts: dict[str, str] = {}  # the digests of those that could be read
        self._asked: set[str] = set()  # tasks whose transcripts this scan has asked for
        self._deleted: set[str] = set()
        self._ever: dict[str, set[str]] = {}  # candidates, by the digest of the request

    def scan(self, lost: Sequence[LostRequest], limit: Deadline = NO_LIMIT) -> list[Verdict]:
        """A verdict for each request, the first sent first. Raises the APIError of the list."""
        self._asked.clear()
        baselines = [one.baseline for one in lost if one.baseline is not None]
        # Before the list is read, which may lack what comes later.
        expected = {*self._expected()} - self._deleted if baselines else set()
        listing = read_list(self._client, {*expected, *(one.newest for one in baselines)}, limit)
        is_current = listing.is_sound and self._is_current(listing, expected, limit)
        found = [self._judge(one, listing, limit, is_current=is_current) for one in lost]
        groups: dict[str, list[int]] = {}
        for at, one in enumerate(lost):
            groups.setdefault(one.digest, []).append(at)
        for places in groups.values():
            self._share([lost[at] for at in places], places, found)
        return found

    def _judge(
        self, one: LostRequest, listing: Listing, limit: Deadline, *, is_current: bool
    ) -> Verdict:
        """Judge every row for one request."""
        before, seen, is_read = one.baseline, list[Seen](), True
        certain, possible = self._owned(listing.rows.keys(), one.digest)
        above = listing.above(before)
        for at, row in enumerate(listing.rows.values()):
            place: Place = "unknown" if before is None else "above" if at < above else "below"
            owner: Owner = "perhaps another" if row["id"] in possible else "none"
            owner = "another" if row["id"] in certain else owner
            # One machine's clock can be behind by more than those of the others are apart.
            slack = NEAR if place == "below" and not one.is_own else timedelta()
            is_timely = self._clock.is_timely(row.get("createdAt"), one.sent, slack)
            if owner != "another" and (
                is_timely or place == "above" or (place == "unknown" and not one.is_own)
            ):
                is_read = self._has_read(row["id"], limit) and is_read
            shown, is_as_asked = self._prompts.get(row["id"]), not contradicts(row, one.body)
            seen.append(Seen(row, place, owner, is_timely, is_as_asked, shown))
        reaches = before is None or listing.is_whole or before.newest in listing.rows
        total = None if listing.total is None else listing.total - above
        verdict = judge(
            one.digest,
            seen,
            is_complete=is_current and is_read and reaches,
            is_counted=before is not None and before.total == total,
            is_exact=self._is_exact,
        )
        ever = self._ever.setdefault(one.digest, set())
        ever.update(one.candidates, (row["id"] for row in verdict.candidates))
        # A list without what was a candidate before is wrong, now or then.
        return verdict if ever.issubset(listing.rows) else verdict._replace(is_complete=False)

    def _share(
        self, group: Sequence[LostRequest], places: Sequence[int], found: list[Verdict]
    ) -> None:
        """Decide for the requests with one prompt which task is whose."""
        same = {row["id"] for at in places for row in found[at].same}
        if not same:
            return
        asks_alike = all(one.asks == group[0].asks for one in group)
        is_contested = not asks_alike or self._is_contested(group)
        # Only now: a request is no rival any more once the history knows its result.
        taken = set.union(*self._owned(same, group[0].digest))
        shared = share([found[at] for at in places], taken, is_contested=is_contested)
        for at, verdict in zip(places, shared, strict=True):
            found[at] = verdict

    def _is_current(self, listing: Listing, expected: Collection[str], limit: Deadline) -> bool:
        """Whether the list shows what it must: a stale copy, or that of another account, does not.

        What is missing may have been deleted.
        """
        missing = set(expected).difference(listing.rows)
        if missing and len(missing) == len(expected):
            return False
        return all(self._is_deleted(task_id, limit) for task_id in missing)

    def _is_deleted(self, task_id: str, limit: Deadline) -> bool:
        try:
            if task_id not in self._deleted:
                self._client.get_task(task_id, timeout=limit.for_call())
        except ResourceNotFound:
            self._deleted.add(task_id)
        except APIError:
            return False
        return task_id in self._deleted

    def _has_read(self, task_id: str, limit: Deadline) -> bool:
        """Read what a task was asked, if the API tells; False if that is too much for one scan."""
        if task_id in self._prompts or task_id in self._asked:
            return True
        if len(self._asked) >= READS:
            return False
        self._asked.add(task_id)
        try:
            content = ContentView(self._client.task_content(task_id, timeout=limit.for_call()))
        except APIError:
            return True
        if content.prompts and (text := content.prompts[0].text).strip():
            self._prompts[task_id] = digest_of(text)
        return True


def current_baseline(client: RebyteClient, *, timeout: float | None = None) -> Baseline | None:
    """Where the list stands now; None if the service does not say how many tasks it has."""
    page = PageView(client.list_tasks(limit=1, timeout=timeout))
    if page.total is None or not page.is_sound or bool(page.rows) != bool(page.total):
        return None
    return Baseline(page.rows[0]["id"] if page.rows else None, page.total)


def read_list(client: RebyteClient, wanted: Collection[str | None], limit: Deadline) -> Listing:
    """Read the list until it has shown all of the `wanted` ids; None is at its end.

    Pages overlap, so that tasks which are created meanwhile hide none. A page that contradicts the
    API notes, or does not follow the one before it, may hide one.
    """
    rows: dict[str, Row] = {}
    total: int | None = None
    while True:
        offset = max(len(rows) - OVERLAP, 0)
        page = PageView(client.list_tasks(limit=PAGE, offset=offset, timeout=limit.for_call()))
        ids, known = [row["id"] for row in page.rows], [*rows]
        again = ids.index(known[-1]) + 1 if known and known[-1] in ids else 0
        news, size = ids[again:], min(PAGE, page.limit or PAGE)
        is_sound = (
            page.is_sound
            and page.offset in (None, offset)
            and (page.total is None or len(ids) == min(size, page.total - offset))
            and ids[:again] == known[len(known) - again :]
            and bool(again) == bool(known)
            and len({*news}) == len(news)
            and rows.keys().isdisjoint(news)
        )
        rows.update((row["id"], row) for row in page.rows)
        total = total if known else page.total
        is_whole = len(ids) < size if total is None else len(rows) >= total
        is_sound = is_sound and (is_whole or bool(news))
        if not is_sound or is_whole or rows.keys() >= {*wanted} or len(rows) >= MOST_ROWS:
            return Listing(rows, total, is_sound, is_whole)


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
