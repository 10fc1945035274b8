"""The search for tasks whose creates were not answered, for many lines at once."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from ..errors import APIError, BrokenAnswer, KeyRejected, too_busy
from ..history.rows import beginning_of, digest_of, plain_form
from ..once.judge import Verdict
from ..once.scan import LostRequest, Scanner
from ..once.search import SCANS, Pace, Search, SearchOutcome
from ..once.server_clock import ServerClock
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


class LostLineSearch:
    """Finds the tasks of lost lines. A task is taken only if nothing else can have created it."""

    def __init__(
        self,
        client: RebyteClient,
        batch: Input,
        ledger: Ledger,
        *,
        mine: Collection[int],
        clock: ServerClock,
        answered: Sequence[str] = (),
        is_exact: bool = False,
    ) -> None:
        """`mine`: the lines of this shard. `answered` grows by the ids of the tasks of this run.

        `is_exact`: the service shows prompts as they were sent.
        """
        self._batch, self._ledger, self._clock = batch, ledger, clock
        self._mine = {batch.lines[at].number: at for at in mine}
        self._searched: set[int] = set()
        self._scanner = Scanner(
            client,
            clock,
            owned=self._owned,
            expected=lambda: answered,
            is_contested=self._is_contested,
            is_exact=is_exact,
        )

    def _owned(self, ids: Collection[str], digest: str) -> tuple[set[str], set[str]]:
        """Tasks of other requests, and those that the history knows, but no line of this batch."""
        history = self._ledger.history
        return self._ledger.named(ids) | history.asked_otherwise(ids, digest), history.knows(ids)

    @property
    def is_busy(self) -> bool:
        """Whether creates of other lines are under way, of which any task could be."""
        return bool(self._ledger.under_way)

    def is_outdated(self, candidates: Iterable[str]) -> bool:
        """Whether a candidate has turned out to be another line's: its create was under way."""
        return bool(self._ledger.named(candidates))

    def is_old(self, one: LostLine) -> bool:
        """Whether a create was sent so long ago that it may be sent again if it made no task."""
        return self._clock.age(one.sent) >= timedelta(seconds=one.patience)

    def find(self, lost: Iterable[LostLine], limit: Deadline = NO_LIMIT) -> dict[int, Verdict]:
        """Scan once for all of `lost`; a verdict for each line.

        Raises the APIError of the list if it cannot be read.
        """
        ordered = sorted(lost, key=lambda one: one.sent)
        self._searched = {one.at for one in ordered}
        verdicts = self._scanner.scan([self._request(one) for one in ordered], limit)
        return {one.at: verdict for one, verdict in zip(ordered, verdicts, strict=True)}

    def _request(self, one: LostLine) -> LostRequest:
        line = self._batch.lines[one.at]
        body = self._batch.body(line)
        return LostRequest(
            digest_of(body["prompt"]),
            one.sent,
            body,
            candidates=one.candidates,
            asks=(line.workspace, line.paths, body),
        )

    def _is_contested(self, equals: Sequence[LostRequest]) -> bool:
        """Whether another line, another shard or command may have made what shows this prompt.

        A service may cut prompts, so that a longer one reads alike.
        """
        digest, prompt = equals[0].digest, equals[0].body["prompt"]
        plain = plain_form(prompt)
        others = {self._mine[number] for number in self._ledger.unsettled}
        # Those of other shards run at times of their own.
        others.update(set(range(len(self._batch.lines))).difference(self._mine.values()))
        for at in others:
            other = self._prompt(at)
            is_equal = digest_of(other) == digest
            reads_alike = not is_equal and plain in plain_form(other)
            if (is_equal and at not in self._searched) or reads_alike:
                return True
        return any(
            other.may_read_like(digest, beginning_of(prompt))
            and self._clock.is_near(one.sent, other.started_at)
            for other in self._ledger.of_others()
            for one in equals
        )

    def _prompt(self, at: int) -> str:
        return str(self._batch.body(self._batch.lines[at])["prompt"])


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
        return [row["id"] for row in self.verdict.candidates]


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
