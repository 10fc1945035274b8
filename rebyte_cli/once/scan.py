"""One scan for what lost requests can have created.

Only the prompt proves that a task is the result. The list says which tasks are young enough, and
`content` says what they were asked; where it does not, nothing can be told. That there is no task
is harder to prove: it takes complete lists, several of them, that agree, in which each task is
provably the result of something else. A time or a prompt that looks wrong is no such proof.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

from ..api.views import ContentView, PromptView
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
from ..history.rows import Shape, digest_of, shape_of
from ..system.deadline import NO_LIMIT, Deadline
from .listing import Listing, Row, read_listing
from .match import is_prompt, may_be_cut
from .server_clock import ServerClock, Window, parse_time

if TYPE_CHECKING:
    from ..api.client import RebyteClient
    from ..history.history import History

MOST_NAMED = 5  # candidates in a message
READS = 200  # transcripts fetched in one scan
TWINS = 3  # tasks with the same prompt that are read, to see whether it is shown unchanged


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


class Rival(NamedTuple):
    """A request by its prompt: the digest, the shape, and the text where this process has it."""

    digest: str
    shape: Shape | None
    prompt: str | None = None

    def may_read_like(self, other: Rival) -> bool:
        """Whether a service that cuts prompts may show the same for both."""
        if self.shape is None or other.shape is None or not self.shape.may_be_cut(other.shape):
            return False
        if self.prompt is None or other.prompt is None:
            return True
        return may_be_cut(self.prompt, other.prompt)


class LostRequest(NamedTuple):
    """A request whose answer was lost.

    `digest` is that of its prompt; `prompt` the text, where this process has it; `body` the other
    fields that were sent, and `body_digest` stands for all of them. `window` says when it can have
    taken effect; it is called after an answer that told the server's time. With `to_repeat` it will
    be sent again if it created nothing, so that only proof excludes a task. `candidates` are ids
    that an earlier search thought possible.

    Of several that are searched for together, `at` names one, and `sent` is its timestamp;
    `workspace` is the one that it asked for, None for a new one, and `asks` is equal for requests
    that ask for the very same, so that it does not matter whose task is whose. Other requests know
    it by the digest `named`, if that is not the prompt's alone, and by `shape` without a prompt.
    """

    digest: str
    window: Callable[[], Window]
    prompt: str | None = None
    body: Mapping[str, Any] = MappingProxyType({})
    to_repeat: bool = False
    candidates: Sequence[str] = ()
    body_digest: str = ""
    at: int = 0
    sent: str = ""
    workspace: str | None = None
    asks: Any = None
    named: str | None = None
    shape: Shape | None = None

    @property
    def rival(self) -> Rival:
        """The request as others see it."""
        shape = self.shape if self.prompt is None else shape_of(self.prompt)
        return Rival(self.named or self.digest, shape, self.prompt)


class Matches(NamedTuple):
    """What one scan found: `same` are certain by their prompt, `unsure` could be it.

    `is_complete`: every task that could be the result was examined.
    """

    same: list[Row]
    unsure: list[Row]
    is_complete: bool

    @property
    def is_final(self) -> bool:
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


class Scanner:
    """Scans the list for what lost requests created; reads each transcript only once."""

    def __init__(
        self,
        client: RebyteClient,
        history: History,
        *,
        known: Callable[[Iterable[str]], set[str]],
        created: Callable[[], Iterable[Mapping[str, Any]]],
        clock: ServerClock,
        is_exact: bool = False,
    ) -> None:
        """`known` picks, from ids, those that are certainly the result of something else.

        `created` are tasks with `id` and `createdAt` that were answered: a list without them is
        not up to date. Those that have `sent`, the timestamp of their request, let `clock` compare
        the times of the list. `is_exact`: the service is known to show prompts as they were sent.
        """
        self._is_exact = is_exact
        self._client = client
        self._history = history
        self._known = known
        self._created = created
        self._clock = clock
        self._prompts: dict[str, str] = {}
        self._digests: dict[str, str] = {}  # of these prompts
        self._read_late: set[str] = set()  # tasks whose prompts were read for a request to repeat
        self._deleted: set[str] = set()
        self._candidates: dict[str, set[str]] = {}  # ever seen, by the digest of the request

    def scan(self, requests: Sequence[LostRequest], limit: Deadline = NO_LIMIT) -> list[Matches]:
        """One look at the list and the transcripts of young tasks, for all of the requests.

        Raises the APIError of the list if it cannot be read.
        """
        found = self._scan_once(requests, limit)
        wider = {
            at: request
            for at, (request, matches) in enumerate(zip(requests, found, strict=True))
            if request.to_repeat
            and matches.shows_none
            and (window := request.window()) != window.proven
        }
        if wider:
            again = self._scan_once([*wider.values()], limit, is_near=False)
            for at, matches in zip(wider, again, strict=True):
                found[at] = matches
        return found

    def _scan_once(
        self, requests: Sequence[LostRequest], limit: Deadline, *, is_near: bool = True
    ) -> list[Matches]:
        """One look at the tasks of about the time of the requests, or at all that time allows."""

        def windows() -> list[Window]:
            found = [request.window() for request in requests]
            return found if is_near else [window.proven for window in found]

        # Before the list is read: it may lack what is answered while it is.
        answered = [*self._created()]
        listing = read_listing(
            self._client, lambda: _earliest([window.since for window in windows()]), limit
        )
        rows_by_id = {row["id"]: row for row in listing.rows}
        for task in answered:
            if (row := rows_by_id.get(task["id"])) is not None:
                self._clock.observe(row.get("createdAt"), task.get("sent"), is_listed=True)
        within = windows()
        is_current = listing.is_complete and self._is_current(listing, answered, within, limit)
        listed = rows_by_id.keys()
        known = self._known(listed)
        since = _earliest([window.since for window in within])
        rows = [
            row
            for row in listing.rows
            if row["id"] not in known and not _is_before(row.get("createdAt"), since)
        ]
        is_late = any(request.to_repeat for request in requests)
        is_few = is_near or len(rows) <= READS
        is_read = is_few and self._read_prompts(rows, limit, is_late=is_late)
        found = []
        for request, window in zip(requests, within, strict=True):
            matches = self._matches(request, window, rows, listed, limit)
            matches = matches._replace(is_complete=is_current and is_read)
            if not is_near and matches.unsure:
                # Named are those that it is likely to be; the others leave it open, too.
                equal = [
                    row for row in matches.unsure if self._digests.get(row["id"]) == request.digest
                ]
                matches = Matches(matches.same, equal, is_complete=False)
            found.append(self._unless_vanished(request, matches, listed))
        return found

    def _read_prompts(self, rows: list[Row], limit: Deadline, *, is_late: bool) -> bool:
        """Read what these tasks were asked; False if they are too many for one scan.

        If it `is_late`, so that they may exclude a task, those that were read before are read once
        more: a service may show something else while it prepares a task.
        """
        read = self._read_late if is_late else self._prompts.keys()
        unread = [row["id"] for row in rows if row["id"] not in read]
        for task_id in unread[:READS]:
            self._prompts.pop(task_id, None)
            self._digests.pop(task_id, None)
            self._read_prompt(task_id, limit)
            if is_late and task_id in self._prompts:
                self._read_late.add(task_id)
        return len(unread) <= READS

    def _unless_vanished(
        self, request: LostRequest, matches: Matches, listed: Collection[str]
    ) -> Matches:
        """A list without a task that was a candidate before is wrong, now or then."""
        ever = self._candidates.setdefault(request.digest, set())
        ever.update(request.candidates, (row["id"] for row in matches.candidates))
        return matches if ever.issubset(listed) else matches._replace(is_complete=False)

    def _matches(
        self,
        request: LostRequest,
        window: Window,
        rows: list[Row],
        listed: Collection[str],
        limit: Deadline,
    ) -> Matches:
        rows = [row for row in rows if not _is_excluded(row, "createdAt", window)]
        same = [
            row
            for row in rows
            if self._digests.get(row["id"]) == request.digest
            and _is_timely(row.get("createdAt"), window)
            and not contradicts(row, request.body)
        ]
        others = [row for row in rows if row not in same]
        if self._is_exact:  # what shows another prompt is something else
            digests = (self._digests.get(row["id"], request.digest) for row in others)
            others = [
                row for row, shown in zip(others, digests, strict=True) if shown == request.digest
            ]
        is_unchanged = bool(same) or (
            any(row["id"] in self._prompts for row in others)
            and self._shows_twin(request, listed, limit)
        )
        unsure = [
            row
            for row in others
            if is_prompt(
                self._prompts.get(row["id"]),
                request.digest,
                request.prompt,
                is_unchanged=is_unchanged,
            )
            is not False
        ]
        return Matches(same, unsure, is_complete=True)

    def _shows_twin(self, request: LostRequest, listed: Collection[str], limit: Deadline) -> bool:
        """Whether the prompt is shown unchanged for an earlier task of the very same request.

        What was asked with another repository or workspace may be shown in another way.
        """
        asked = self._history.tasks_as_asked(request.digest, request.body_digest)
        twins = [task_id for task_id in asked if task_id in listed][:TWINS]
        for task_id in twins:
            if task_id not in self._digests:
                self._read_prompt(task_id, limit)
        return any(self._digests.get(task_id) == request.digest for task_id in twins)

    def _is_current(
        self,
        listing: Listing,
        answered: list[Mapping[str, Any]],
        windows: list[Window],
        limit: Deadline,
    ) -> bool:
        """Whether the list shows every task that was answered in the time in question.

        It also has to show the newest task of before each send: a stale copy may be older than
        that. One that is missing was deleted, or it is the list of another account, which shows no
        task of ours at all.
        """
        listed = {row["id"] for row in listing.rows}
        first = min(window.first for window in windows)
        times = [(str(task["id"]), parse_time(task.get("createdAt"))) for task in answered]
        due = {task_id for task_id, created in times if created is not None and created >= first}
        missing = (due | {window.newest for window in windows}) - listed - {None}
        if not missing:
            return True
        if listed.isdisjoint(task_id for task_id, _ in times) and not self._known(listed):
            return False
        return all(self._is_deleted(str(task_id), limit) for task_id in missing)

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
        if (text := prompt_of(content)) is not None:
            self._prompts[task_id] = text
            self._digests[task_id] = digest_of(text)


def prompt_of(content: Mapping[str, Any]) -> str | None:
    """The prompt that a task was created with, as its content shows it; None if it does not."""
    prompts = ContentView(content).prompts
    first = _oldest(prompts) or next(iter(prompts), None)
    return first.text if first is not None and first.text.strip() else None


def _earliest(starts: list[datetime | None]) -> datetime | None:
    return None if None in starts else min(filter(None, starts), default=None)


def _is_excluded(row: Row, time: str, window: Window) -> bool:
    """Whether a row was there before a request, or its time says that it is not the result."""
    if window.newest is not None and row.get("id") == window.newest:
        return True
    return _is_before(row.get(time), window.since) or _is_late(row.get(time), window)


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

    If the request would be sent again, no time excludes a prompt: `submittedAt` may be by another
    clock, or in another zone, than what is known of `createdAt`. It is complete only if every
    prompt has an id, and a distinct id.
    """
    window, same, unsure = request.window(), list[Row](), list[Row]()
    if request.to_repeat:
        window = window._replace(since=None, until=None)
    digests = [digest_of(prompt.text) for prompt in content.prompts]
    is_unchanged = request.digest in digests
    oldest = _oldest(content.prompts)
    first = _creation_prompt(content.prompts, digests, request.digest)
    for prompt in content.prompts:
        if not prompt.id or prompt is first or _is_excluded(prompt.raw, "submittedAt", window):
            continue
        shown = prompt.text if prompt.text.strip() else None
        match = is_prompt(shown, request.digest, request.prompt, is_unchanged=is_unchanged)
        if match and prompt is not oldest and _is_timely(prompt.submitted_at, window):
            same.append(prompt.raw)
        elif match is not False:
            unsure.append(prompt.raw)
    ids = [prompt.id for prompt in content.prompts if prompt.id]
    is_complete = len(set(ids)) == len(ids) == content.prompt_count > 0
    is_complete = is_complete and set(request.candidates) <= set(ids)
    return Matches(same, unsure, is_complete)


def _creation_prompt(
    prompts: Sequence[PromptView], digests: Sequence[str], digest: str
) -> PromptView | None:
    """The prompt that a task was created with, never the only one with `digest` among several.

    None if the times and the order do not agree on it: the service's clock may have been set back.
    """
    first = _oldest(prompts)
    if len(prompts) > 1 and (
        first is not prompts[0] or (digests[0] == digest and digests.count(digest) == 1)
    ):
        return None
    return first


def _oldest(prompts: Sequence[PromptView]) -> PromptView | None:
    """The prompt that was submitted first; None if that cannot be told."""
    times = [parse_time(prompt.submitted_at) for prompt in prompts]
    if len(prompts) == 1:
        return prompts[0]
    told = [time for time in times if time is not None]
    if not told or len(told) < len(times) or told.count(min(told)) > 1:
        return None
    return prompts[told.index(min(told))]


def any_of(ids: Sequence[str]) -> str:
    """Ids of which one is meant, as words: `a or b`; no more than MOST_NAMED of them."""
    shown = list(ids[:MOST_NAMED])
    if more := len(ids) - len(shown):
        shown.append(f"one of {more} more")
    return " or ".join(shown)
