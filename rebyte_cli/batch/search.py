"""The search for tasks whose creates were not answered, for many lines at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from ..deadline import NO_LIMIT, Deadline
from ..errors import APIError, BrokenAnswer, KeyRejected
from ..once import search
from ..once.clock import ROOM, ServerClock, Window
from ..once.match import digest_of, may_be_cut
from ..once.search import Absence, LostRequest, Matches, Row, Search
from ..tasks.wait import too_busy
from .events import Report
from .input import Input
from .poller import Poller

if TYPE_CHECKING:
    from ..api.client import RebyteClient
    from .throttle import Throttle

FIRST_PAUSE, MOST_PAUSE = 0.5, 4.0  # seconds between scans
SHORTEST_SCAN = 5.0  # seconds that a scan may take however short the search
LATER = 30.0  # the same when the first search brought nothing
NO_TASK = "0"  # an id to ask for when only the answer counts
NOTHING = Matches([], [], is_complete=True)
EXAMPLES = 1000  # lines that are looked at for one that tells how the service shows prompts


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


class ScanResult(NamedTuple):
    """What one scan says of a line. `task` is certain; `absent`: there certainly is none.

    `candidates` are the ids that it could be.
    """

    at: int
    task: Mapping[str, Any] | None
    absent: bool
    candidates: list[str]


class LostLineSearch:
    """Finds the tasks of lost lines. A task is taken only if nothing else can have created it."""

    def __init__(
        self,
        client: RebyteClient,
        batch: Input,
        *,
        mine: Collection[int],
        in_flight: Collection[int],
        lost: Collection[int],
        named: Collection[str],
        known_ids: Callable[[Iterable[str]], set[str]],
        sent_by_others: Callable[[], Mapping[str, Iterable[str]]],
        clock: ServerClock,
        created: Callable[[], Iterable[Mapping[str, Any]]] = tuple,
        twins: Callable[[str], Iterable[str]] = lambda _digest: (),
    ) -> None:
        """`mine`: the lines of this shard. `in_flight`: lines whose creates are under way, `lost`:
        those whose answers were lost, and `named`: the tasks that the journal names; all are kept
        by the caller. `known_ids` picks, from ids, the tasks that were created on this machine, by
        whatever command. `sent_by_others` says when other commands sent what has no known end, by
        the digest of its prompt. `created` are the tasks of this batch with `id` and `createdAt`,
        and `twins` the ids of tasks with the same prompt, by its digest.
        """
        self._client = client
        self._batch = batch
        self._mine = set(mine)
        self._in_flight = in_flight
        self._lost = lost
        self._known_ids = known_ids
        self._sent_by_others = sent_by_others
        self._clock = clock
        self._task_ids = named
        self._twins = twins
        self._whole: list[str] = []  # prompts that the service was seen to show as they were sent
        self._search = Search(
            client,
            self._named,
            created=created,
            twins=twins,
        )
        self._digests: dict[int, str] = {}
        self._elsewhere: set[str] | None = None
        self._workspaces: dict[str, str | None] = {}

    @property
    def is_busy(self) -> bool:
        """Whether creates of other lines are under way, of which any task could be."""
        return bool(self._in_flight)

    def is_old(self, one: LostLine) -> bool:
        """Whether a create was sent so long ago that it may be sent again if it made no task."""
        return self._clock.age(one.sent) >= timedelta(seconds=one.patience)

    def find(self, lost: Sequence[LostLine], limit: Deadline = NO_LIMIT) -> list[ScanResult]:
        """Scan once for all of `lost`. Raises the APIError of the list if it cannot be read."""
        ordered = sorted(lost, key=lambda one: one.sent)
        found = self._search.scan([self._request(one) for one in ordered], limit)
        has_own = {one.at for one, matches in zip(ordered, found, strict=True) if matches.same}
        groups: dict[str, list[tuple[LostLine, Matches]]] = {}
        for one, matches in zip(ordered, found, strict=True):
            groups.setdefault(self._digest(one.at), []).append((one, matches))
        results: list[ScanResult] = []
        # After the scan: the creator of anything seen was under way by then.
        others = self._sent_by_others()
        for digest, group in groups.items():
            times = others.get(digest, ())
            doubt = any(self._clock.is_near(one.sent, time) for time in times for one, _ in group)
            doubt = doubt or self._has_rivals(digest, {one.at for one, _ in group}, has_own, limit)
            results += self._judge(group, doubt)
        return results

    def _request(self, one: LostLine) -> LostRequest:
        """A lost line as the search takes it.

        Before a create may be sent again, everything is examined that could be its task by any
        skew of the clocks; until then it is enough to find it where it should be.
        """
        is_old = self.is_old(one)
        room = ROOM if is_old else timedelta(0)

        def window() -> Window:
            return self._clock.window(one.sent, room=room)

        body = self._batch.body(self._batch.lines[one.at])
        return LostRequest(
            self._digest(one.at),
            window,
            body["prompt"],
            body,
            to_repeat=is_old,
            candidates=one.candidates,
        )

    def _judge(self, group: list[tuple[LostLine, Matches]], doubt: bool) -> list[ScanResult]:
        """Verdicts for lines with one and the same prompt, the first sent first."""
        seen = {row["id"] for _, found in group for row in found.candidates}
        taken = self._named(seen)
        # One that the history knows and the journal does not is mostly another command's. It may
        # also be ours, when the journal lost its end: neither taken nor ruled out.
        unsure = self._known_ids(seen)
        certain = [[row for row in found.same if row["id"] not in unsure] for _, found in group]
        same = [[row for row in rows if row["id"] not in taken] for rows in certain]
        elsewhere: list[set[str]] = [set() for _ in group]
        if _overlap(same) and not self._alike(group):
            elsewhere = self._in_other_workspaces(group, same)
            same = [
                [row for row in rows if row["id"] not in others]
                for rows, others in zip(same, elsewhere, strict=True)
            ]
            doubt = doubt or _overlap(same)
        doubt = doubt or len({row["id"] for rows in same for row in rows}) > len(group)
        results = []
        for (one, found), rows, others in zip(group, same, elsewhere, strict=True):
            could_be = [row["id"] for row in found.candidates if row["id"] not in taken | others]
            free = sorted((row for row in rows if row["id"] not in taken), key=_age_of)
            task = free[0] if free and found.is_complete and not doubt else None
            if task is not None:
                taken.add(task["id"])
            # Others only ever create more tasks, so they cast no doubt on there being none.
            absent = found.is_complete and not could_be
            results.append(ScanResult(one.at, task, absent, [] if task else could_be))
        return results

    def _named(self, ids: Iterable[str]) -> set[str]:
        return {task_id for task_id in ids if task_id in self._task_ids}

    def _alike(self, group: list[tuple[LostLine, Matches]]) -> bool:
        """Whether the lines ask for the very same, so that it does not matter whose is whose."""
        lines = [self._batch.lines[one.at] for one, _ in group]
        wanted = [(line.workspace, line.paths, self._batch.body(line)) for line in lines]
        return all(one == wanted[0] for one in wanted)

    def _in_other_workspaces(
        self, group: list[tuple[LostLine, Matches]], same: list[list[Row]]
    ) -> list[set[str]]:
        """For each line the tasks that are certainly in another workspace than it asked for.

        No source shows a `workspaceId` in later answers; where the API tells it after all, it
        tells equal prompts apart. One that no line asked for may be what a line asked for in
        another spelling, unless that is told as it was asked.
        """
        told = {row["id"]: self._workspace(row) for rows in same for row in rows}
        asked = {one.workspace for one, _ in group}
        spelled = asked & {*told.values()} - {None}
        return [
            {
                task_id
                for task_id, workspace in told.items()
                if workspace is not None
                and workspace != one.workspace
                and (workspace in asked or one.workspace in spelled)
            }
            for one, _ in group
        ]

    def _workspace(self, row: Mapping[str, Any]) -> str | None:
        task_id = row["id"]
        if task_id not in self._workspaces:
            told = row.get("workspaceId")
            if told is None:
                with suppress(APIError):
                    told = self._client.get_task(task_id).get("workspaceId")
            self._workspaces[task_id] = told if isinstance(told, str) else None
        return self._workspaces[task_id]

    def _has_rivals(
        self, digest: str, group: Collection[int], has_own: Collection[int], limit: Deadline
    ) -> bool:
        """Whether a line outside `group` may have made a task that shows this prompt just now.

        It asks for the same, or for something that may be shown so, and is not among those that
        have a task (`has_own`).
        """
        # In this order: a line that is lost meanwhile goes from the one to the other.
        others = [at for at in (*self._in_flight, *self._lost) if at not in group]
        ours = self._prompt(next(iter(group)))
        if any(
            self._digest(at) == digest
            or (
                at not in has_own
                and may_be_cut(self._prompt(at), ours)
                and not self._is_shown_whole(self._prompt(at), limit)
            )
            for at in others
        ):
            return True
        if self._elsewhere is None:
            foreign = (at for at in range(len(self._batch.lines)) if at not in self._mine)
            self._elsewhere = {self._digest(at) for at in foreign}
        return digest in self._elsewhere

    def _is_shown_whole(self, prompt: str, limit: Deadline) -> bool:
        """Whether the service is seen to show prompts of this kind as they are sent.

        It shows one of this batch so that is as long, and has every kind of character.
        """
        if any(_is_as_telling(seen, prompt) for seen in self._whole):
            return True
        open_lines = {*self._in_flight, *self._lost}
        for at in islice(self._mine - open_lines, EXAMPLES):
            example = self._prompt(at)
            if not _is_as_telling(example, prompt):
                continue
            digest = self._digest(at)
            task_id = next((each for each in self._twins(digest) if each in self._task_ids), None)
            if task_id is not None and self._search.shows(task_id, digest, limit):
                self._whole.append(example)
                return True
            if task_id is not None:
                return False
        return False

    def _digest(self, at: int) -> str:
        if at not in self._digests:
            self._digests[at] = digest_of(self._prompt(at))
        return self._digests[at]

    def _prompt(self, at: int) -> str:
        return str(self._batch.body(self._batch.lines[at])["prompt"])


def _is_as_telling(example: str, prompt: str) -> bool:
    """Whether a service that shows `example` as it is has no reason to change `prompt`."""
    return len(example) >= len(prompt) and _kinds(prompt) <= _kinds(example)


def _kinds(prompt: str) -> set[str]:
    """The kinds of characters in a prompt: letters, digits, and each other one by itself."""
    return {"a" if each.isalpha() else "0" if each.isdigit() else each for each in prompt}


def _overlap(choices: list[list[Row]]) -> bool:
    """Whether a task is among the choices of two lines."""
    return len({row["id"] for rows in choices for row in rows}) < sum(map(len, choices))


def _has_answered(error: APIError) -> bool:
    """Whether the service said anything at all, so that the network is there."""
    return error.status_code is not None or isinstance(error, BrokenAnswer)


def _is_reachable(client: RebyteClient) -> bool:
    """Whether another call than the list gets an answer now, whatever it says."""
    try:
        client.get_task(NO_TASK, timeout=SHORTEST_SCAN)
    except APIError as error:
        return _has_answered(error)
    return True


def _age_of(row: Mapping[str, Any]) -> str:
    return str(row.get("createdAt"))


def search_lost(
    client: RebyteClient,
    throttle: Throttle,
    report: Report,
    finder: LostLineSearch,
    search_for: float | None = None,
) -> Poller[LostLine]:
    """Rounds that report ("found", line, row), ("absent", line, None) or ("unknown", line, ids).

    A line is absent when it is old enough to be sent again and several scans over `search_for`
    seconds agree that it has no task. It is unknown when `search_for` seconds in which no other
    create was under way brought nothing; this is reported once, and the search continues.
    ("unsure", line, ids) comes before that, if there is something that it could be.
    """
    seconds = search.LOOK_FOR if search_for is None else search_for
    begun: dict[int, float] = {}
    absences: dict[int, Absence] = {}
    could_be: dict[int, list[str]] = {}
    told: set[int] = set()

    def ask(lost: dict[int, LostLine]) -> None:
        now = time.monotonic()
        for at in lost:
            begun.setdefault(at, now)
            absences.setdefault(at, Absence(seconds))
        if finder.is_busy:  # what a scan cannot tell now, one may when those lines have tasks
            begun.update(dict.fromkeys(lost, now))
        old = {at for at, one in lost.items() if finder.is_old(one)}
        try:
            results = finder.find(list(lost.values()), Deadline(max(seconds, SHORTEST_SCAN)))
        except KeyRejected:
            raise
        except APIError as error:
            if too_busy(error) and not _has_answered(error) and not _is_reachable(client):
                for absence in absences.values():
                    absence.add(None, now)
                raise
            # Without a list it is unknown, and the other lines need none.
            results = [ScanResult(at, None, False, could_be.get(at, [])) for at in lost]
        for at, task, absent, candidates in results:
            absences[at].add(NOTHING if absent and at in old else None, now)
            if task is not None or absences[at].is_proven:
                rounds.drop(at)
                begun.pop(at, None)
                absences.pop(at, None)
                told.discard(at)
                report("found" if task is not None else "absent", at, task)
            elif at not in told and now - begun[at] >= seconds and not absences[at].is_likely:
                told.add(at)
                report("unknown", at, candidates)
            elif candidates != could_be.get(at, []):
                could_be[at] = candidates
                report("unsure", at, candidates)

    def pause(since: float, _count: int) -> float:
        # `since` counts from when a line was added, and the first search from its first scan.
        open_lines = [at for at, one in list(absences.items()) if at not in told or one.is_likely]
        if since < seconds or open_lines:
            return min(MOST_PAUSE, max(FIRST_PAUSE, since / 4))
        return LATER

    rounds: Poller[LostLine] = Poller("search", client, throttle, report, ask=ask, pause=pause)
    return rounds
