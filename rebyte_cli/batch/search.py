"""The search for tasks whose creates were not answered, for many lines at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from ..errors import APIError, KeyRejected
from ..tasks.search import LIFE, LostRequest, Matches, Search, ServerClock, digest_of
from ..tasks.wait import too_busy
from .events import Report
from .input import Input
from .poller import Poller

if TYPE_CHECKING:
    from ..api.client import RebyteClient
    from ..api.models import TaskPage
    from .throttle import Throttle

LOOK_FOR = 20.0  # seconds; so long a lost task is looked for without a break
LATER = 30.0  # seconds between looks after that


class Lost(NamedTuple):
    """A line whose create was not answered.

    `sent` is when, as the journal has it. When it is `patience` seconds ago and there is no
    task, none will come any more. `workspace` is the one it asked for, None for a new one.
    """

    at: int
    sent: str
    patience: float
    workspace: str | None = None


class Verdict(NamedTuple):
    """What one look says of a line. `task` is certain; `absent`: there certainly is none.

    `candidates` are the ids that it could be.
    """

    at: int
    task: Mapping[str, Any] | None
    absent: bool
    candidates: list[str]


class _OneRound:
    """A client that asks for each page of the list once a round, however many lines look."""

    def __init__(self, client: RebyteClient) -> None:
        self.transport = client.transport
        self.task_content = client.task_content
        self._list_tasks = client.list_tasks
        self.pages: dict[tuple[int, int], TaskPage] = {}

    def list_tasks(
        self, limit: int = 50, offset: int = 0, *, timeout: float | None = None
    ) -> TaskPage:
        if (limit, offset) not in self.pages:
            self.pages[limit, offset] = self._list_tasks(limit, offset, timeout=timeout)
        return self.pages[limit, offset]


class Finder:
    """Finds the tasks of lost lines. A task is taken only when nothing else can have made it."""

    def __init__(
        self,
        client: RebyteClient,
        batch: Input,
        *,
        mine: Collection[int],
        flying: Collection[int],
        sought: Collection[int],
        ours: Collection[str],
        knows: Callable[[Iterable[str]], set[str]],
        rivals: Callable[[], Mapping[str, Iterable[str]]],
    ) -> None:
        """`mine`: the lines of this shard. `flying`: lines whose creates are under way,
        `sought`: those whose answers were lost, and `ours`: the tasks that the journal names; all
        are kept by the caller. `knows` picks, from ids, the tasks that were made from here, by
        whatever command. `rivals` says when other commands here sent what has no known end, by the
        digest of its prompt.
        """
        self._client = client
        self._batch = batch
        self._mine = set(mine)
        self._flying = flying
        self._sought = sought
        self._knows = knows
        self._rivals = rivals
        self._clock = ServerClock(client, time.monotonic)
        self._round = _OneRound(client)
        self._ours = ours
        self._look = Search(cast("RebyteClient", self._round), self._named)
        self._digests: dict[int, str] = {}
        self._elsewhere: set[str] | None = None
        self._workspaces: dict[str, str | None] = {}

    def age(self, sent: str) -> float:
        """Seconds since a create was sent, at the least, by the server's clock."""
        latest = self._clock.window_of(sent)[1] - LIFE
        return (self._clock.now() - latest).total_seconds()

    def find(self, lost: Sequence[Lost]) -> list[Verdict]:
        """One look for all of `lost`. Raises the APIError of the list when it cannot be had."""
        self._round.pages.clear()
        groups: dict[str, list[tuple[Lost, Matches]]] = {}
        for one in sorted(lost, key=lambda one: one.sent):
            body = self._batch.body(self._batch.lines[one.at])
            digest = self._digests.setdefault(one.at, digest_of(body["prompt"]))
            window = partial(self._clock.window_of, one.sent)
            sight = self._look(LostRequest(digest, window, body["prompt"], body))
            groups.setdefault(digest, []).append((one, sight))
        verdicts: list[Verdict] = []
        # Asked after the looks: whoever made what was seen was under way by then.
        rivals = self._rivals()
        for digest, group in groups.items():
            times = rivals.get(digest, ())
            doubt = any(self._clock.near(one.sent, time) for time in times for one, _ in group)
            doubt = doubt or self._has_rivals(digest, {one.at for one, _ in group})
            verdicts += self._judge(group, doubt)
        return verdicts

    def _judge(self, group: list[tuple[Lost, Matches]], doubt: bool) -> list[Verdict]:
        """Verdicts for lines with one and the same prompt, the first sent first."""
        seen = {row["id"] for _, sight in group for row in sight.candidates}
        taken = self._named(seen)
        # One that the history knows and the journal does not is mostly another command's. It may
        # also be ours, when the journal lost its end: neither taken nor ruled out.
        unsure = self._knows(seen)
        certain = [[row for row in sight.same if row["id"] not in unsure] for _, sight in group]
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
        verdicts = []
        for (one, sight), rows, others in zip(group, same, elsewhere, strict=True):
            could_be = [row["id"] for row in sight.candidates if row["id"] not in taken | others]
            free = sorted((row for row in rows if row["id"] not in taken), key=_age_of)
            task = free[0] if free and sight.whole and not doubt else None
            if task is not None:
                taken.add(task["id"])
            # Rivals only ever make more tasks, so they cast no doubt on there being none.
            absent = sight.whole and not could_be
            verdicts.append(Verdict(one.at, task, absent, [] if task else could_be))
        return verdicts

    def _named(self, ids: Iterable[str]) -> set[str]:
        return {task_id for task_id in ids if task_id in self._ours}

    def _alike(self, group: list[tuple[Lost, Matches]]) -> bool:
        """Whether the lines ask for the very same, so that it does not matter whose is whose."""
        lines = [self._batch.lines[one.at] for one, _ in group]
        wanted = [(line.workspace, line.paths, self._batch.body(line)) for line in lines]
        return all(one == wanted[0] for one in wanted)

    def _in_other_workspaces(
        self, group: list[tuple[Lost, Matches]], same: list[list[dict[str, Any]]]
    ) -> list[set[str]]:
        """For each line the tasks that are certainly in another workspace than it asked for.

        No source shows a `workspaceId` in later answers; where the API tells it after all, it
        tells equal prompts apart.
        """
        told = {row["id"]: self._workspace(row) for rows in same for row in rows}
        asked = {one.workspace for one, _ in group}
        return [
            {
                task_id
                for task_id, workspace in told.items()
                if workspace is not None
                and workspace != one.workspace
                and (one.workspace is not None or workspace in asked)
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

    def _has_rivals(self, digest: str, group: Collection[int]) -> bool:
        """Whether a line outside `group` may have made a task with this prompt just now."""
        # In this order: a line that is lost while we look goes from the one to the other.
        others = [*self._flying, *self._sought]
        if any(self._digest(at) == digest for at in others if at not in group):
            return True
        if self._elsewhere is None:
            foreign = (at for at in range(len(self._batch.lines)) if at not in self._mine)
            self._elsewhere = {self._digest(at) for at in foreign}
        return digest in self._elsewhere

    def _digest(self, at: int) -> str:
        if at not in self._digests:
            body = self._batch.body(self._batch.lines[at])
            self._digests[at] = digest_of(body["prompt"])
        return self._digests[at]


def _overlap(choices: list[list[dict[str, Any]]]) -> bool:
    """Whether a task is among the choices of two lines."""
    return len({row["id"] for rows in choices for row in rows}) < sum(map(len, choices))


def _age_of(row: Mapping[str, Any]) -> str:
    return str(row.get("createdAt"))


def searching(client: RebyteClient, gate: Throttle, report: Report, finder: Finder) -> Poller[Lost]:
    """Rounds that report ("found", line, row), ("absent", line, None) or ("unknown", line, ids).

    Unknown is said once, when the first 20 s brought nothing; the looks go on. ("unsure", line,
    ids) is said before, when there is something that it could be.
    """
    begun: dict[int, float] = {}
    could_be: dict[int, list[str]] = {}
    told: set[int] = set()

    def ask(lost: dict[int, Lost]) -> None:
        now = time.monotonic()
        for at in lost:
            begun.setdefault(at, now)
        try:
            verdicts = finder.find(list(lost.values()))
        except KeyRejected:
            raise
        except APIError as error:
            if too_busy(error):
                raise
            verdicts = [Verdict(at, None, False, []) for at in lost]  # no list: nobody can know
        for at, task, absent, candidates in verdicts:
            is_old = absent and finder.age(lost[at].sent) >= lost[at].patience
            if task is not None or is_old:
                rounds.drop(at)
                begun.pop(at, None)
                told.discard(at)
                report("found" if task is not None else "absent", at, task)
            elif at not in told and time.monotonic() - begun[at] >= LOOK_FOR:
                told.add(at)
                report("unknown", at, candidates)
            elif candidates != could_be.get(at, []):
                could_be[at] = candidates
                report("unsure", at, candidates)

    def pause(since: float, _count: int) -> float:
        return min(4.0, max(0.5, since / 4)) if since < LOOK_FOR else LATER

    rounds: Poller[Lost] = Poller("search", client, gate, report, ask=ask, pause=pause)
    return rounds
