"""Find out which tasks lost requests made: one scan, N requests, N verdicts.

A create is one request; a batch has many. A task is taken only if nothing else can have made it:
nothing that was answered, no request under way or lost whose prompt the service may show alike, and
no other request of the same prompt that would have more than one choice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ..errors import APIError
from ..history.rows import Shape, digest_of, shape_of
from ..system.deadline import NO_LIMIT, Deadline
from .listing import Row
from .scan import LostRequest, Matches, Rival, prompt_of

if TYPE_CHECKING:
    from ..api.client import RebyteClient

READS = 5  # tasks that are read in one look for one that shows a prompt whole
Scan = Callable[[Sequence[LostRequest], Deadline], list[Matches]]


class Claims(Protocol):
    """Who may claim a task that a list shows, beside the requests that are searched for."""

    def claimed(self, ids: Collection[str], digest: str) -> tuple[set[str], set[str]]:
        """Those of the ids that are the result of something else: certainly, and perhaps.

        What is searched for has a prompt with this digest.
        """

    def rivals(
        self, equals: Sequence[LostRequest], with_task: Sequence[LostRequest]
    ) -> Iterable[Rival]:
        """Other requests of about that time whose results are not known.

        Not those of the search that have a task of their own (`with_task`) and ask for something
        else.
        """

    def known(self, shape: Shape) -> Iterable[tuple[str, str]]:
        """Tasks that were answered, by id and digest; first those that tell most about a shape."""


class Verdict(NamedTuple):
    """What one scan says of a lost request. `task` is certainly its result.

    `matches` are what it could be; `same` is empty if something else may have made them.
    """

    task: Row | None
    matches: Matches


class Finder:
    """Finds what lost requests made. Reads each task at most once to see how prompts are shown."""

    def __init__(
        self, client: RebyteClient, claims: Claims, scan: Scan, *, is_exact: bool = False
    ) -> None:
        """`scan` looks once for many requests, with a limit; `is_exact`: see `scan.Scanner`."""
        self._is_exact = is_exact
        self._client = client
        self._claims = claims
        self._scan = scan
        self._whole: list[Shape] = []  # prompts that were shown as they were sent
        self._read: set[str] = set()
        self._workspaces: dict[str, str | None] = {}

    def find(self, lost: Sequence[LostRequest], limit: Deadline = NO_LIMIT) -> list[Verdict]:
        """Scan once for all of `lost`, the first sent first; a verdict for each, in that order.

        Raises the APIError of the list if it cannot be read.
        """
        found = self._scan(lost, limit)
        # From here on in this order: the request behind a task that was seen was written down by
        # then, and the ledger lets go of it only after the history knows the result.
        with_task = [one for one, matches in zip(lost, found, strict=True) if matches.same]
        groups: dict[str, list[int]] = {}
        for at, request in enumerate(lost):
            groups.setdefault(request.digest, []).append(at)
        verdicts: dict[int, Verdict] = {}
        for places in groups.values():
            group = [(lost[at], found[at]) for at in places]
            is_contested = any(found[at].same for at in places) and self._is_contested(
                [request for request, _ in group], with_task, limit
            )
            verdicts.update(zip(places, self._judge(group, is_contested), strict=True))
        return [verdicts[at] for at in range(len(lost))]

    def _judge(self, group: list[tuple[LostRequest, Matches]], is_contested: bool) -> list[Verdict]:
        """Verdicts for requests with one and the same prompt, the first sent first."""
        seen = {row["id"] for _, matches in group for row in matches.candidates}
        taken, doubtful = self._claims.claimed(seen, group[0][0].digest)
        same = [
            [row for row in matches.same if row["id"] not in taken | doubtful]
            for _, matches in group
        ]
        elsewhere: list[set[str]] = [set() for _ in group]
        requests = [request for request, _ in group]
        if _overlap(same) and any(one.asks != requests[0].asks for one in requests):
            elsewhere = self._in_other_workspaces(requests, same)
            same = [
                [row for row in rows if row["id"] not in others]
                for rows, others in zip(same, elsewhere, strict=True)
            ]
            is_contested = is_contested or _overlap(same)
        are_too_many = len({row["id"] for rows in same for row in rows}) > len(group)
        verdicts = []
        for (_, matches), rows, others in zip(group, same, elsewhere, strict=True):
            mine = [] if is_contested else [row for row in rows if row["id"] not in taken]
            unsure = [
                row
                for row in matches.candidates
                if row["id"] not in taken | others and row not in mine
            ]
            is_certain = mine and matches.is_complete and not are_too_many
            first = min(mine, key=lambda row: str(row.get("createdAt")), default=None)
            task = first if is_certain else None
            if task is not None:
                taken.add(task["id"])
            # Others only ever create more tasks, so they cast no doubt on there being none.
            verdicts.append(Verdict(task, Matches(mine, unsure, matches.is_complete)))
        return verdicts

    # Rivals: a service may cut prompts, so that one reads like another. Every request whose result
    # is not known is therefore a rival for what is found, unless its prompt cannot be shown so, or
    # the service is seen to show prompts of its kind as they are sent.

    def _is_contested(
        self, equals: Sequence[LostRequest], with_task: Sequence[LostRequest], limit: Deadline
    ) -> bool:
        """Whether another request may have made a task that shows the prompt of these."""
        ours = equals[0].rival
        for other in self._claims.rivals(equals, with_task):
            if other.digest == ours.digest:
                return True
            if self._is_whole(other) or not other.may_read_like(ours):
                continue
            if not self._shows_whole(other, limit):
                return True
        return False

    def _is_whole(self, one: Rival) -> bool:
        """Whether the service was seen to show prompts of this kind as they are sent."""
        return self._is_exact or (
            one.shape is not None and any(seen.covers(one.shape) for seen in self._whole)
        )

    def _shows_whole(self, one: Rival, limit: Deadline) -> bool:
        """As `_is_whole`, after a look at tasks whose prompts are known."""
        if one.shape is None:
            return False
        unread = (task for task in self._claims.known(one.shape) if task[0] not in self._read)
        for task_id, digest in islice(unread, READS):
            try:
                shown = prompt_of(self._client.task_content(task_id, timeout=limit.for_call()))
            except APIError:
                continue
            if shown is not None and digest_of(shown) != digest:
                return False  # perhaps only until the service has prepared the task
            self._read.add(task_id)
            if shown is None:
                continue
            self._whole.append(shape_of(shown))
            if self._is_whole(one):
                return True
        return False

    def _in_other_workspaces(
        self, requests: Sequence[LostRequest], same: list[list[Row]]
    ) -> list[set[str]]:
        """For each request the tasks that are certainly in another workspace than it asked for.

        No source shows a `workspaceId` in later answers; where the API tells it after all, it
        tells equal prompts apart. One that no request asked for may be what one asked for in
        another spelling, unless that is told as it was asked.
        """
        told = {row["id"]: self._workspace(row) for rows in same for row in rows}
        asked = {one.workspace for one in requests}
        spelled = asked & {*told.values()} - {None}
        return [
            {
                task_id
                for task_id, workspace in told.items()
                if workspace is not None
                and workspace != one.workspace
                and (workspace in asked or one.workspace in spelled)
            }
            for one in requests
        ]

    def _workspace(self, row: Row) -> str | None:
        task_id = row["id"]
        if task_id not in self._workspaces:
            told = row.get("workspaceId")
            if told is None:
                with suppress(APIError):
                    told = self._client.get_task(task_id).get("workspaceId")
            self._workspaces[task_id] = told if isinstance(told, str) else None
        return self._workspaces[task_id]


def _overlap(choices: list[list[Row]]) -> bool:
    """Whether a task is among the choices of two requests."""
    return len({row["id"] for rows in choices for row in rows}) < sum(map(len, choices))
