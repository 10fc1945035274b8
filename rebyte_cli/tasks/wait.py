"""Wait for many tasks with few requests: when to ask, what to tolerate, when to stop."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeVar

from ..api.urls import PAGE
from ..api.views import PageView, TaskView
from ..errors import (
    APIError,
    KeyRejected,
    RebyteError,
    Redirected,
    RowOrError,
    TaskCanceled,
    TaskEnded,
    WaitTimeout,
    too_busy,
)
from ..system.deadline import NO_LIMIT, Deadline, Patience
from .failure import FailureReasons, failure_of

if TYPE_CHECKING:
    from ..api.client import RebyteClient


LIST_FROM = 3  # with fewer tasks, reading each costs no more than asking the list
READS = 100  # tasks read directly in one round, at most
WORKERS = 8
MOST_ASKED = 4 * WORKERS  # calls at a time, those that wait for a worker included
LIST_PAUSE = 10  # rounds without the list after it showed none of our tasks
NEVER = 1 << 60  # a round that does not come
LATE_PAUSE = 1.0  # seconds between two rounds, at most, while targets may still join

Item = TypeVar("Item")
Given = TypeVar("Given")


class WaitTarget(NamedTuple):
    """What is waited for: a task, or with `prompt_id` that one prompt of it."""

    task_id: str
    prompt_id: str | None = None


class Poll:
    """Asks about tasks, round after round, and remembers how far the list can be trusted."""

    def __init__(
        self,
        client: RebyteClient,
        queued: Callable[[str], None] = lambda _: None,
        used: Callable[[Mapping[str, Any]], None] = lambda _: None,
    ) -> None:
        """`queued` and `used` are told what a task waits for and, by any thread, each row or
        document of one that is asked about."""
        self._client = client
        self._queued = queued
        self._used = used
        self._reasons = FailureReasons(client)
        self._deadline = NO_LIMIT  # of the calls of this round
        self._round = 0
        self._answered = False
        self._list_from = 0  # the round from which the list is asked (again)
        self._list_faults = 0  # rounds in a row in which it could not be had
        self._rows: dict[str, Any] = {}  # id -> `completedAt` in this round's list
        self._read_in: dict[str, int] = {}  # id -> the round in which it was last read
        self._failing: dict[str, Patience] = {}  # id -> with the faults of reading it, in a row
        self._disproved: dict[str, Any] = {}  # id -> a `completedAt` that was not the end
        self._unlisted_ends: set[str] = set()  # ended, while the list said running

    def round(
        self, pending: Sequence[WaitTarget], deadline: Deadline = NO_LIMIT
    ) -> Generator[tuple[WaitTarget, RowOrError]]:
        """Ask once about all of `pending`, and yield those that ended, as the answers arrive.

        Each call ends by `deadline`. What ended is the task document, or TaskFailed (with the
        reason), TaskCanceled, or the APIError that says why it cannot be known.
        Raises KeyRejected and Redirected at once, and the last fault when every call failed.
        """
        self._round += 1
        self._deadline = deadline
        self._answered = False
        wanted: dict[str, list[WaitTarget]] = {}
        for target in pending:
            wanted.setdefault(target.task_id, []).append(target)
        reads, fault = self._tasks_to_read(wanted)
        failed: list[tuple[str, APIError]] = []
        ends = self._each(lambda task_id: self._read(task_id, wanted[task_id]), reads)
        for task_id, answer in ends:
            self._read_in[task_id] = self._round
            if isinstance(answer, APIError) and too_busy(answer):
                fault = answer
                failed.append((task_id, answer))
                continue
            self._answered = True
            self._failing.pop(task_id, None)
            if isinstance(answer, APIError):
                lost = answer.about(task_id)
                answer = [(target, lost) for target in wanted[task_id]]
            for target, outcome in answer:
                if outcome is not None:
                    yield target, outcome
                self._compare(task_id, outcome is not None)
        if fault is not None and not self._answered:
            raise fault
        for task_id, error in failed:  # while others are answered: it is this task's own trouble
            try:
                self._failing.setdefault(task_id, Patience(deadline)).failed(error)
            except APIError:
                for target in wanted[task_id]:
                    yield target, error

    def _compare(self, task_id: str, is_over: bool) -> None:
        """Compare a task's own document with its row, to learn how far rows can be trusted."""
        if task_id not in self._rows:
            return
        if is_over and self._rows[task_id] is None:
            self._unlisted_ends.add(task_id)
        elif not is_over and self._rows[task_id] is not None:
            self._disproved[task_id] = self._rows[task_id]

    # Which tasks to read

    def _tasks_to_read(
        self, wanted: Mapping[str, list[WaitTarget]]
    ) -> tuple[list[str], APIError | None]:
        """The ids to read in this round, and the fault of the list if it had one."""
        prompts = {
            task_id
            for task_id, targets in wanted.items()
            if any(target.prompt_id is not None for target in targets)
        }
        tasks = [task_id for task_id in wanted if task_id not in prompts]
        self._rows, fault = {}, None
        unread = READS
        if len(tasks) >= LIST_FROM and self._round >= self._list_from:
            fault = self._ask_list(set(tasks))
            if fault is not None:
                unread = 1  # the service is in trouble: a hundred more calls would not help it
        over = []
        unclear = sorted(prompts)
        running = []
        for task_id in tasks:
            completed_at = self._rows.get(task_id)
            if task_id not in self._rows:
                unclear.append(task_id)
            elif completed_at is None:
                running.append(task_id)
            elif completed_at == self._disproved.get(task_id):
                unclear.append(task_id)  # the list shows how an earlier run ended
            else:
                over.append(task_id)
        # One of those that the list calls running is read in turn: the list may be wrong.
        return [*over, *self._in_turn(unclear, unread), *self._in_turn(running, 1)], fault

    def _in_turn(self, ids: list[str], most: int) -> list[str]:
        return sorted(ids, key=lambda task_id: self._read_in.get(task_id, 0))[:most]

    # The list

    def _ask_list(self, wanted: set[str]) -> APIError | None:
        """Fill `_rows` from the list; returns the fault that kept it from being complete."""
        missing = set(wanted)
        try:
            for page in self._pages(missing):
                self._rows.update((row["id"], row.get("completedAt") or None) for row in page)
                for row in page:
                    if row["id"] in wanted and not row.get("completedAt"):
                        self._used(row)
                missing -= self._rows.keys()
                self._answered = True
        except (KeyRejected, Redirected):
            raise
        except APIError as error:
            if not too_busy(error):
                self._list_from = NEVER
                return None
            self._list_faults += 1
            if self._list_faults >= 3:
                self._list_faults = 0
                self._list_from = self._round + LIST_PAUSE
            return error
        self._list_faults = 0
        if len(missing) == len(wanted):
            self._list_from = self._round + LIST_PAUSE
        self._doubt()
        return None

    def _doubt(self) -> None:
        """Drop the list for good when a task that ended in an earlier round still runs in it."""
        seen = self._unlisted_ends & self._rows.keys()
        if any(self._rows[task_id] is None for task_id in seen):
            self._list_from = NEVER
            self._rows.clear()
        self._unlisted_ends -= seen

    def _pages(self, missing: Collection[str]) -> Iterator[list[Mapping[str, Any]]]:
        """Pages from the newest on, for as long as a page is cheaper than reading one by one.

        `missing` shrinks while the pages are used.
        """
        page, total = self._page(0)
        size = min(len(page), PAGE)
        yield page
        enough = -(-len(missing) // size) if size else 0
        offsets = [at * size for at in range(1, enough + 1) if at * size < total]
        for _, answer in self._each(self._page, offsets):
            if isinstance(answer, APIError):
                raise answer
            yield answer[0]
        offset = (offsets[-1] if offsets else 0) + size
        before = len(missing) + PAGE
        while size and missing and offset < total and before - len(missing) > 1:
            before = len(missing)
            yield self._page(offset)[0]
            offset += size

    def _page(self, offset: int) -> tuple[list[Mapping[str, Any]], int]:
        """The rows of one page, and how many there are in all."""
        timeout = self._deadline.for_call()
        page = PageView(self._client.list_tasks(limit=PAGE, offset=offset, timeout=timeout))
        total, count = page.total, len(page.rows)
        if total is None:
            total = offset + count + (PAGE if count >= PAGE else 0)
        return page.rows, total

    # Calls

    def _read(
        self, task_id: str, targets: Iterable[WaitTarget]
    ) -> list[tuple[WaitTarget, RowOrError | None]]:
        """How each of these targets of the task ended; None for one that has not."""
        task = self._client.get_task(task_id, timeout=self._deadline.for_call())
        self._queued(TaskView(task).held_up)
        self._used(task)
        return [(target, self._result(task, target.prompt_id)) for target in targets]

    def _result(self, task: Mapping[str, Any], prompt_id: str | None) -> RowOrError | None:
        """The document of a task, or the error that carries it; None while it has not ended.

        For a prompt its own status counts: the task may run because of a newer prompt, or still
        read `completed` from the one before. A prompt that is not shown yet has not ended.
        """
        match TaskView(task).outcome(prompt_id):
            case None:
                return None
            case "completed":
                return dict(task)
            case "failed":
                return failure_of(task)(task, self._reasons.of(task, prompt_id, self._deadline))
            case _:
                return TaskCanceled(task)

    def _each(
        self, ask: Callable[[Given], Item], items: Iterable[Given]
    ) -> Iterator[tuple[Given, Item | APIError]]:
        """`ask` for each item, several at a time, with answers as they arrive.

        KeyRejected and Redirected are raised, other APIErrors are answers.
        """
        todo = list(items)
        if len(todo) <= 2:  # a thread costs more than it saves
            for item in todo:
                yield item, _item_or_error(ask, item)
            return
        from concurrent.futures import Future, ThreadPoolExecutor
        from queue import SimpleQueue

        pool = ThreadPoolExecutor(min(WORKERS, len(todo)), "rebyte-wait")
        done: SimpleQueue[Future[Item | APIError]] = SimpleQueue()
        asked: dict[Future[Item | APIError], Given] = {}
        items = iter(todo)
        try:
            for item in items:
                # Answers that are not used yet take memory: of thousands, tens of megabytes.
                while len(asked) >= MOST_ASKED:
                    future = done.get()
                    yield asked.pop(future), future.result()
                try:
                    future = pool.submit(_item_or_error, ask, item)
                except RuntimeError:  # no further thread; asked twice does no harm
                    yield item, _item_or_error(ask, item)
                    for each in items:
                        yield each, _item_or_error(ask, each)
                else:
                    asked[future] = item
                    future.add_done_callback(done.put)
            while asked:
                future = done.get()
                yield asked.pop(future), future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _item_or_error(ask: Callable[[Given], Item], item: Given) -> Item | APIError:
    try:
        return ask(item)
    except (KeyRejected, Redirected):
        raise
    except APIError as error:
        return error


class LateTargets(Protocol):
    """Targets that become known during a wait."""

    @property
    def ids(self) -> Sequence[str]:
        """The ids of all tasks that are known so far, with those that the wait began with."""

    @property
    def under_way(self) -> int:
        """How many may still come."""

    def join(self, *, block: bool) -> Sequence[WaitTarget]:
        """The targets that became known since the last call.

        With `block`, which means that nothing else is waited for, it returns some as soon as there
        are any, and none only if no more can come.
        """


# Passes the seconds between two rounds, and returns the ids of tasks that need not be waited for
# any longer, with the reason. The second argument are the ids of the tasks that have not ended.
Pause = Callable[[float, Collection[str]], Mapping[str, RebyteError]]


def patient(
    client: RebyteClient, deadline: Deadline, *, interval: float | None = None, **times: Any
) -> Patience:
    """The usual patience of a wait: to ask every second in the first minute, then ever less often.

    `interval` fixes the seconds between two rounds. `times` are as in `Patience`.
    """
    usual = {"longest": 10.0, "growth": 1.25, "steady": 60.0, "jitter": 0.2}
    if interval is not None:
        usual = {"first": interval}
    return Patience(deadline, client.transport, **{**usual, **times})


def watch(
    client: RebyteClient,
    targets: Iterable[WaitTarget],
    *,
    until: Literal["all", "any", "first-success"] = "all",
    patience: Patience,
    late: LateTargets | None = None,
    pause: Pause,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    queued: Callable[[str], None] = lambda _: None,
) -> Iterator[RowOrError]:
    """Wait for `targets` and yield how each ended, as soon as it is known.

    Yields the task document of what completed, `TaskFailed` or `TaskCanceled` (both carry the
    document), or the `APIError` that says why a task cannot be read (not there, most of all).
    For a target with a prompt id, the status of that prompt decides, whatever the task does.

    `until` is "all"; "any", which stops after the first task that ended, however it did; or
    "first-success", which stops after the first that completed and yields that one alone. When
    none completes, it yields how every one ended instead.

    `patience` says when to ask, and its deadline when to stop; see `patient`. A last round is asked
    when the deadline is near. `late` gives targets that join the wait between two rounds; they all
    have to be known by the deadline. `pause` spends the time between two rounds, and may give up on
    tasks: its reason is then the outcome of such a task.

    Raises WaitTimeout with the pending ids at the deadline, KeyRejected at once, and the last
    NetworkError when `patience` is at an end.

    `progress` is called with the number that ended and the number of all, once at the start, and
    `queued` for each task that is read, with what it waits for before it begins, or "".
    """
    pending = dict.fromkeys(targets)
    total = len(pending)

    def join(*, block: bool) -> bool:
        """Take in late targets; returns whether there were any."""
        nonlocal total
        targets = late.join(block=block) if late is not None else ()
        pending.update(dict.fromkeys(targets))
        total += len(targets)
        if targets:
            progress(total - len(pending), total)
        return bool(targets)

    deadline, clock = patience.deadline, patience.deadline.clock
    poll, was_answered = Poll(client, queued), False
    unsuccessful: list[RowOrError] = []
    progress(0, total)
    while join(block=not pending) or pending:
        began = clock()
        # The calls of a round may run past the deadline a little while the service answers.
        answer_by = deadline if patience.is_failing else deadline.with_grace(patience.grace)
        try:
            with closing(poll.round(list(pending), answer_by)) as ends:
                for target, outcome in ends:
                    del pending[target]
                    progress(total - len(pending), total)
                    lost = isinstance(outcome, RebyteError)
                    if lost and until == "first-success":
                        unsuccessful.append(outcome)
                        continue
                    yield outcome
                    if until != "all" and (not lost or isinstance(outcome, TaskEnded)):
                        return
            patience.answered()
            was_answered = True
        except APIError as fault:
            patience.failed(fault)
        if not pending:
            continue
        while deadline.has_passed and join(block=True):
            pass
        ids = list(dict.fromkeys(target.task_id for target in pending))
        if deadline.has_passed:
            yield from unsuccessful
            raise _still_running(deadline, ids, total, was_answered)
        # The pause counts from the beginning of a round, so that slow answers do not stretch it.
        seconds = deadline.cap(max(0.0, began + patience.pause() - clock()))
        if late is not None and late.under_way:
            seconds = min(seconds, LATE_PAUSE)
        given_up = pause(seconds, ids)
        for target in [target for target in pending if target.task_id in given_up]:
            del pending[target]
            if until == "first-success":
                unsuccessful.append(given_up[target.task_id])
            else:
                yield given_up[target.task_id]
    yield from unsuccessful


def _still_running(
    deadline: Deadline, ids: Sequence[str], total: int, was_answered: bool
) -> WaitTimeout:
    """The error for a wait whose deadline has passed."""
    of_all = f"{len(ids)} of {total} tasks" if total > 1 else f"task {ids[0]}"
    be = "is" if len(ids) == 1 else "are"
    what = f"{be} still running after" if was_answered else "could not be read in"
    return deadline.error(f"{of_all} {what}", pending=ids)
