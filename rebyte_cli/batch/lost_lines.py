"""The search for tasks whose creates were not answered, for many lines at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import APIError, BrokenAnswer, KeyRejected, too_busy
from ..history.rows import Shape, body_digest_of, digest_of, shape_of
from ..once.finder import Finder, Verdict
from ..once.scan import LostRequest, Rival, Scanner
from ..once.search import SCANS, Pace, Search, SearchOutcome
from ..once.server_clock import ROOM, ServerClock, Window
from ..system.deadline import NO_LIMIT, Deadline
from .input import Input
from .poller import Poller
from .state import Emit

if TYPE_CHECKING:
    from ..api.client import RebyteClient
    from ..once.ledger import Ledger
    from .throttle import Throttle

NO_TASK = "0"  # an id to ask for when only the answer counts
SECONDS = 5.0  # in which it is there if the network is
EXAMPLES = 1000  # tasks that are looked at for one that tells how the service shows prompts


class LostLine(NamedTuple):
    """A line whose create was not answered.

    `sent` is when, as the journal has it. Once that is `patience` seconds ago and there is no
    task, none will come any more. `workspace` is the one it asked for, None for a new one, and
    `candidates` are the tasks that an earlier run thought possible.
    """

    at: int
    sent: str
    patience: float
    workspace: str | None = None
    candidates: tuple[str, ...] = ()


@dataclass(eq=False)
class LostLineSearch:
    """Finds the tasks of lost lines. A task is taken only if nothing else can have created it.

    `mine`: the lines of this shard. `created` are the tasks of this batch with `id`, `createdAt`,
    `sent`, and `at`, the line. `is_exact`: the service shows prompts as they were sent.
    """

    client: RebyteClient
    batch: Input
    ledger: Ledger
    _: KW_ONLY
    mine: Collection[int]
    clock: ServerClock
    created: Callable[[], Iterable[Mapping[str, Any]]] = tuple
    is_exact: bool = False

    def __post_init__(self) -> None:
        scan = Scanner(
            self.client,
            self.ledger.history,
            known=self.ledger.named,
            created=self.created,
            clock=self.clock,
            is_exact=self.is_exact,
        ).scan
        self._finder = Finder(self.client, self, scan, is_exact=self.is_exact)
        self._mine = {self.batch.lines[at].number: at for at in self.mine}
        self._digests: dict[int, str] = {}
        self._elsewhere: list[Rival] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether creates of other lines are under way, of which any task could be."""
        return bool(self.ledger.under_way)

    def is_outdated(self, candidates: Iterable[str]) -> bool:
        """Whether a candidate has turned out to be another line's: its create was under way."""
        return bool(self.ledger.named(candidates))

    def is_old(self, one: LostLine) -> bool:
        """Whether a create was sent so long ago that it may be sent again if it made no task."""
        return self.clock.age(one.sent) >= timedelta(seconds=one.patience)

    def find(self, lost: Iterable[LostLine], limit: Deadline = NO_LIMIT) -> dict[int, Verdict]:
        """Scan once for all of `lost`; a verdict for each line.

        Raises the APIError of the list if it cannot be read.
        """
        ordered = sorted(lost, key=lambda one: one.sent)
        verdicts = self._finder.find([self._request(one) for one in ordered], limit)
        return {one.at: verdict for one, verdict in zip(ordered, verdicts, strict=True)}

    def _request(self, one: LostLine) -> LostRequest:
        """A lost line as the search takes it.

        Before a create may be sent again, everything is examined that could be its task by any
        skew of the clocks; until then it is enough to find it where it should be.
        """
        is_old = self.is_old(one)
        room = ROOM if is_old else timedelta(0)

        def window() -> Window:
            return self.clock.window(one.sent, room=room)

        line = self.batch.lines[one.at]
        body = sent = self.batch.body(line)
        if one.workspace is not None:
            sent = {**sent, "workspaceId": one.workspace}
        if line.paths:
            sent = {**sent, "files": [*sent.get("files", ()), *line.paths]}
        return LostRequest(
            self._digest(one.at),
            window,
            body["prompt"],
            body,
            to_repeat=is_old,
            candidates=one.candidates,
            body_digest=body_digest_of(sent),
            at=one.at,
            sent=one.sent,
            workspace=one.workspace,
            asks=(line.workspace, line.paths, body),
        )

    # What the finder asks: see `finder.Claims`

    def claimed(self, ids: Collection[str], digest: str) -> tuple[set[str], set[str]]:
        """The tasks of other requests, and those that the history knows and the journal does not.

        The latter are another command's if they were asked something else. Otherwise they are
        mostly that, too, and ours if the journal lost its end.
        """
        history = self.ledger.history
        taken = self.ledger.named(ids) | history.asked_otherwise(ids, digest)
        return taken, history.knows(ids)

    def rivals(
        self, equals: Sequence[LostRequest], with_task: Sequence[LostRequest]
    ) -> Iterator[Rival]:
        """Other lines without a known result, other shards, and what other commands sent then.

        Other shards run at times of their own.
        """
        digest = equals[0].digest
        ignored = {one.at for one in equals}
        ignored.update(one.at for one in with_task if one.digest != digest)
        for number in self.ledger.unsettled:
            if self._mine[number] not in ignored:
                yield self._rival(self._mine[number])
        for other in self.ledger.of_others():
            if any(self.clock.is_near(one.sent, other.started_at) for one in equals):
                yield Rival(other.digest, other.shape)
        if self._elsewhere is None:
            foreign = set(range(len(self.batch.lines))).difference(self._mine.values())
            self._elsewhere = [self._rival(at) for at in sorted(foreign)]
        yield from self._elsewhere

    def known(self, shape: Shape) -> Iterator[tuple[str, str]]:
        """Tasks of this batch whose prompts tell whether such a prompt is shown as it is sent."""
        for task in islice(self.created(), EXAMPLES):
            at = task.get("at")
            if at is not None and shape_of(self._prompt(at)).covers(shape):
                yield task["id"], self._digest(at)

    def _digest(self, at: int) -> str:
        if at not in self._digests:
            self._digests[at] = digest_of(self._prompt(at))
        return self._digests[at]

    def _prompt(self, at: int) -> str:
        return str(self.batch.body(self.batch.lines[at])["prompt"])

    def _rival(self, at: int) -> Rival:
        return Rival(self._digest(at), shape_of(self._prompt(at)), self._prompt(at))


def _has_answered(error: APIError) -> bool:
    """Whether the service said anything at all, so that the network is there."""
    return error.status_code is not None or isinstance(error, BrokenAnswer)


def _is_reachable(client: RebyteClient) -> bool:
    """Whether another call than the list gets an answer now, whatever it says."""
    try:
        client.get_task(NO_TASK, timeout=SECONDS)
    except APIError as error:
        return _has_answered(error)
    return True


class _LineSearch(Search):
    """The search for the task of a line. `named` are the candidates that were reported."""

    is_told = False  # that the outcome is unknown
    named: Sequence[str] = ()

    @property
    def candidates(self) -> list[str]:
        """The ids of the tasks that it could be."""
        return [row["id"] for row in self.verdict.matches.candidates]


def search_lost(
    client: RebyteClient, throttle: Throttle, emit: Emit, finder: LostLineSearch, pace: Pace
) -> Poller[LostLine]:
    """Rounds that emit ("found", line, row), ("absent", line, None) or ("unknown", line, ids).

    A line is absent when it is old enough to be sent again and there certainly is no task. It is
    unknown when a search in which no other create was under way brought nothing; this is reported
    once, and the search continues. A list that gets no answer, as on a busy machine, counts only
    after SCANS scans in a row. ("unsure", line, ids) comes before that, if there is something that
    it could be.
    """
    searches: dict[int, _LineSearch] = {}
    unanswered = 0

    def ask(lost: dict[int, LostLine]) -> None:
        nonlocal unanswered
        began = time.monotonic()
        for at in lost:
            searches.setdefault(at, _LineSearch(pace, began, is_eager=True))
        is_busy = finder.is_busy
        old = {at for at, one in lost.items() if finder.is_old(one)}
        verdicts: dict[int, Verdict] = {}
        try:
            verdicts = finder.find(lost.values(), Deadline(max(pace.look_for, pace.shortest_scan)))
            unanswered = 0
        except KeyRejected:
            raise
        except APIError as error:
            if too_busy(error) and not _has_answered(error) and not _is_reachable(client):
                for search in searches.values():
                    search.add(None, began, proves=False)
                raise
            # Without a list it is unknown, and the other lines need none.
            unanswered = 0 if _has_answered(error) else unanswered + 1
        is_busy = is_busy or finder.is_busy  # one scan may tell when those lines have tasks
        for at in lost:
            search = searches[at]
            search.add(verdicts.get(at), began, proves=at in old)
            if is_busy:
                search.restart(began)
            tell(at, search, search.outcome(began))

    def tell(at: int, search: _LineSearch, outcome: SearchOutcome) -> None:
        if outcome in ("found", "absent"):
            rounds.drop(at)
            del searches[at]
            emit(outcome, at, search.verdict.task)
            return
        candidates = search.candidates
        is_over = outcome == "unknown" and not 0 < unanswered < SCANS
        if is_over and not search.is_told and not finder.is_outdated(candidates):
            search.is_told = True
            emit("unknown", at, candidates)
        elif candidates != list(search.named):
            search.named = candidates
            emit("unsure", at, candidates)

    def pause(since: float, _count: int) -> float:
        # `since` counts from when a line was added, and the first search from its first scan.
        is_open = any(not one.is_told or one.is_likely_absent for one in list(searches.values()))
        return pace.pause(since) if since < pace.look_for or is_open else pace.later

    rounds: Poller[LostLine] = Poller("search", client, throttle, emit, ask=ask, pause=pause)
    return rounds
