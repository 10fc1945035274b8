"""`--attempts`: several tasks for one prompt; the first success is printed, the rest canceled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ..app import App
from ..errors import Interrupted, Next, OutcomeUnknown, RebyteError, RowOrError, worst
from ..system.deadline import Deadline
from ..tasks.attempts import ParallelCreates
from ..tasks.cancel import cancel
from ..tasks.parallel import in_parallel
from ._wait import finished

if TYPE_CHECKING:
    from ..tasks.mending import Mending
    from ..tasks.wait import WaitTarget


def create_attempts(
    app: App,
    bodies: Sequence[Mapping[str, Any]],
    create: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    deadline: Deadline,
    checks: Mending | None = None,
) -> Iterator[RowOrError]:
    """Create a task for each body, at the same time; returns once the first exists.

    What is returned yields the first task that completed (with `checks`, that passed them), after
    canceling the others, or how each ended. Raises the highest-ranking error if there is no task at
    all.
    """
    count = len(bodies)

    def created(at: int, task: Mapping[str, Any]) -> None:
        app.known.keep_workspace(task)
        executor = bodies[at].get("executor")
        which = f"attempt {at + 1} of {count}{f', {executor}' if executor else ''}"
        app.note(f"Created task {task['id']} ({which})\n{app.link_to(task)}".rstrip())

    def refused(at: int, error: RebyteError) -> None:
        app.note(f"Attempt {at + 1} was not created: {error.message}")

    creates = ParallelCreates(
        lambda at: create(bodies[at]), count, created=created, refused=refused
    )
    try:
        with app.spinner(f"Creating {count} tasks (waiting for their VMs)"):
            creates.start()
            targets = creates.join(block=True)
    except (KeyboardInterrupt, Interrupted) as stop:
        raise creates.interrupted(stop) from None
    if targets:
        return _first_success(app, creates, targets, deadline, checks)
    creates.raise_fault()
    status = worst(error.exit_status for error in creates.errors.values())
    numbers = sorted(creates.errors)
    raise next(creates.errors[at] for at in numbers if creates.errors[at].exit_status == status)


def _first_success(
    app: App,
    creates: ParallelCreates,
    targets: Sequence[WaitTarget],
    deadline: Deadline,
    checks: Mending | None,
) -> Iterator[RowOrError]:
    """Yield what counts, then the attempts whose outcome is unknown, however the wait ended.

    A create that is still under way then is waited for: its task has to be canceled, or named.
    """
    winner, failure = "", None
    wait = partial(finished, app, targets, deadline=deadline)
    if checks is None:
        outcomes, how = wait(until="first-success", late=creates), "completed"
    else:
        outcomes, how = _first_passed(checks.ends(wait, targets, creates)), "passed"
    try:
        try:
            for outcome in outcomes:
                if not isinstance(outcome, RebyteError):
                    winner = str(outcome["id"])
                    canceled = _cancel(app, winner, [one for one in creates.ids if one != winner])
                    also = f"; canceled {' '.join(canceled)}" if canceled else ""
                    app.note(f"Task {winner} {how} first{also}")
                yield outcome
        except RebyteError as error:
            failure = error
        _end_creates(app, creates, winner)
    except (KeyboardInterrupt, Interrupted) as stop:
        raise creates.interrupted(stop) from None
    yield from (one for one in creates.errors.values() if isinstance(one, OutcomeUnknown))
    creates.raise_fault()
    if failure is not None:
        raise failure


def _first_passed(ends: Iterator[RowOrError]) -> Iterator[RowOrError]:
    """The first that is no error, alone; or else all of them."""
    failed = []
    for end in ends:
        if not isinstance(end, RebyteError):
            yield end
            return
        failed.append(end)
    yield from failed


def _end_creates(app: App, creates: ParallelCreates, winner: str) -> None:
    """Wait for the creates that are under way; if there is a winner, cancel what they create."""
    if not creates.under_way:
        return
    what = "1 create" if creates.under_way == 1 else f"{creates.under_way} creates"
    with app.spinner(f"Waiting for {what} to end{', to cancel the task' if winner else ''}"):
        while late := [target.task_id for target in creates.join(block=True)]:
            canceled = _cancel(app, winner, late) if winner else []
            if canceled:
                app.note(f"Canceled {' '.join(canceled)}")


def _cancel(app: App, winner: str, others: Sequence[str]) -> list[str]:
    """Cancel the other attempts, which changes none that has ended; returns those canceled.

    What fails is only noted, since there is a task to print. An interrupt is raised with a hint.
    """
    canceled: list[str] = []
    try:
        with app.spinner("Canceling the other attempts"):
            states = in_parallel(partial(cancel, app.client), others)
            for task_id, task in zip(others, states, strict=True):
                if isinstance(task, RebyteError):
                    _note_failure(app, f"task {task_id}", task, [task_id])
                elif app.known.update(task).get("status") == "canceled":
                    canceled.append(task_id)
    except RebyteError as error:  # of the key, which may be allowed to create tasks only
        _note_failure(app, "the other attempts", error, others)
    except (KeyboardInterrupt, Interrupted) as stop:
        left = " ".join(each for each in others if each not in canceled)
        hint = f"Task {winner} completed; stop the others with " + Next("cancel", left)
        raise Interrupted(Interrupted.of(stop).exit_status, hint=hint) from None
    return canceled


def _note_failure(app: App, what: str, error: RebyteError, ids: Sequence[str]) -> None:
    app.note(f"Could not cancel {what}: {error.message}; try again with " + Next("cancel", *ids))
