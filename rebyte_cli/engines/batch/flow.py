"""What a batch does next: which line is created when, who is waited for, who is skipped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import RebyteError
from .claims import Claims
from .create import Creators, Job, Upload
from .input import Input
from .lost import Finder, Lost, searching
from .memory import Ended, Made, Memory
from .pacing import Gate
from .plan import Plan
from .rounds import watching
from .state import LOST, Entry, row_of, skipped_error

if TYPE_CHECKING:
    from ...api.client import RebyteClient
    from .journal import Journal

SEND_AGAIN_AFTER = 900.0  # seconds; as `create --once`
Row = Mapping[str, Any] | RebyteError
Event = tuple[str, int | None, Any]


class Wishes(NamedTuple):
    """How a batch is to run. Times in seconds."""

    jobs: int = 8
    wait: bool = True
    timeout: float | None = None
    fail_fast: bool = False
    retry_failed: bool = False
    send_again_after: float = SEND_AGAIN_AFTER


class Outside(NamedTuple):
    """What a batch tells others, and asks them.

    `note`: a line for people. `made`: new tasks, each with its prompt and body. `ended`: tasks
    that ended. `knows`: those of the ids that are tasks made from here. `upload`: a path to
    `{"id", "filename"}`. `claims`: what others here must know of creates under way.
    """

    note: Callable[[str], None]
    made: Made
    ended: Ended
    knows: Callable[[Iterable[str]], set[str]]
    upload: Upload
    claims: Claims


class Flow:
    """The lines of one run and the order in which things happen to them.

    `entries` is where each line stands. Only the main thread calls this.
    """

    def __init__(
        self,
        client: RebyteClient,
        batch: Input,
        plan: Plan,
        entries: Mapping[int, Entry],
        journal: Journal,
        gate: Gate,
        wishes: Wishes,
        outside: Outside,
        *,
        known: Iterable[str] = (),
    ) -> None:
        """`known` are the ids of every task that the journal names, replaced ones too."""
        self.lines = batch.lines
        self._batch = batch
        self.plan = plan
        self.entries = entries
        self.gate = gate
        self.wishes = wishes
        self.printed: set[int] = set()
        self.running: dict[int, float] = {}  # watched lines, and since when
        self._journal = journal
        self._outside = outside
        self._events: SimpleQueue[Event] = SimpleQueue()
        journal.beside = outside.claims.write
        self._creators = Creators(
            client,
            batch,
            journal,
            outside.claims,
            gate,
            self._report,
            count=wishes.jobs,
            upload=outside.upload,
        )
        self._creators.known.update(known)
        self._memory = Memory(journal, outside.claims, outside.made, outside.ended)
        self._sought: set[int] = set()
        finder = Finder(
            client,
            batch,
            mine=plan.mine,
            flying=self._creators.flying,
            sought=self._sought,
            ours=self._creators.known,
            knows=outside.knows,
            rivals=outside.claims.of_others,
        )
        self._watch = watching(client, gate, self._report)
        self._search = searching(client, gate, self._report, finder)
        self._next = {before: at for at, before in plan.after.items()}
        self._handed: set[int] = set()
        self._closed = False  # nothing more is handed out
        self._leave_by: float | None = None  # leave now, or when the creates under way have ended
        self._fault: RebyteError | None = None
        self._signal: int | None = None
        self._told_to_stop = False

    def _report(self, kind: str, at: int | None, value: Any) -> None:
        """Called by any thread: something happened to a line, or to all."""
        self._events.put((kind, at, value))

    # -- what comes next -----------------------------------------------------------------------

    def _begin(self) -> Iterator[Row]:
        self._take_up_claims()
        retry = self.wishes.retry_failed
        for at in self.plan.mine:
            entry = self.entries[at]
            if retry and entry.is_doubtful:
                self._seek(at, entry, 0.0)
                entry.apply({"is": "unknown"})
            elif retry and entry.has_failed:
                entry.reset("new")
            elif entry.is_over:
                yield self._row(at)
        for at in self.plan.mine:
            entry = self.entries[at]
            if entry.state == "running":
                yield from self._follow(at, entry)
            elif entry.state in LOST and at not in self._sought:
                self._seek(at, entry, self.wishes.send_again_after)
        for at in self.plan.mine:
            if at in self.plan.after:
                continue
            if self.entries[at].state == "new":
                self._hand_out(at)
            elif self.entries[at].is_over:
                yield from self._advance(at)

    def _take_up_claims(self) -> None:
        """Tell the history what an earlier run could not tell it any more."""
        left = self._outside.claims.left()
        for at in self.plan.mine if left else ():
            line, entry = self.lines[at], self.entries[at]
            if line.number in left and entry.id is not None:
                task = {
                    "id": entry.id,
                    "workspaceId": entry.workspace,
                    "url": entry.url,
                    "status": entry.status,
                    "createdAt": entry.started,
                    "completedAt": entry.finished,
                }
                self._memory.made(line.number, task, self._batch.body(line))
        self._outside.claims.keep_only(self._claimed())
        self._outside.claims.expect(
            (self.lines[at].number, self._batch.body(self.lines[at])["prompt"])
            for at in self.plan.mine
            if self.entries[at].state == "new"
        )

    def _claimed(self) -> set[int]:
        """The numbers of the lines that may have a task which nobody knows."""
        return {
            self.lines[at].number
            for at in self.plan.mine
            if at in self._creators.flying
            or self.entries[at].is_lost
            or self.entries[at].is_doubtful
        }

    def _hand_out(self, at: int) -> None:
        if self._closed:
            return
        self._handed.add(at)
        self._creators.put(Job(at, self._asked_for(at)))

    def _asked_for(self, at: int) -> str | None:
        """The workspace that a line asks for, as far as it is known; None for a new one, too.

        All lines of a chain share one, and what one of them was told holds for the others.
        """
        leader = self.plan.leader.get(at)
        while leader is not None:
            if self.entries[leader].workspace is not None:
                return self.entries[leader].workspace
            at, leader = leader, self.plan.leader.get(leader)
        return self.lines[at].workspace

    def _seek(self, at: int, entry: Entry, patience: float) -> None:
        self._sought.add(at)
        self._search.add(at, Lost(at, entry.sent or "", patience, self._asked_for(at)))

    def _follow(self, at: int, entry: Entry) -> Iterator[Row]:
        """Wait for a task that runs, if anybody wants to know its end."""
        if self._leave_by is None and (self.wishes.wait or at in self._next):
            self.running[at] = time.monotonic()
            self._watch.add(at, str(entry.id))
        else:
            yield self._row(at)

    def _over(self, at: int) -> Iterator[Row]:
        yield self._row(at)
        if self.wishes.fail_fast and self.entries[at].has_failed and not self._closed:
            self._outside.note(f"Line {self.lines[at].number} failed: no further creates")
            self._close_down()
        yield from self._advance(at)

    def _advance(self, at: int) -> Iterator[Row]:
        """Go on behind a line that is over: create the next of its workspace, or skip it."""
        place = at
        while (following := self._next.get(place)) is not None:
            place = following
            entry = self.entries[place]
            if entry.is_over:
                continue
            if entry.state != "new" or place in self._handed:
                return
            leader = self.plan.leader.get(place)
            if leader is not None:
                first = self.entries[leader]
                if first.status != "completed" or self._asked_for(place) is None:
                    entry.error = skipped_error(self.lines[leader], first)
                    yield self._row(place)
                    continue
            self._hand_out(place)
            return

    def _close_down(self) -> None:
        """Hand nothing out any more, and take back what no worker has begun."""
        self._closed = True
        self.gate.shut()
        self._handed.difference_update(job.at for job in self._creators.take_back())

    def _row(self, at: int) -> Row:
        self.printed.add(at)
        return row_of(self.lines[at], self.entries[at])
