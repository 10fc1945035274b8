"""`--attempts`: several tasks for one prompt; the first success is printed, the rest canceled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from ..app import App
from ..deadline import Deadline
from ..errors import Interrupted, OutcomeUnknown, RebyteError, worst
from ..tasks.wait import WaitTarget
from ._wait import finished


def create_attempts(
    app: App,
    bodies: Sequence[Mapping[str, Any]],
    create: Callable[[Mapping[str, Any]], Mapping[str, Any]],
) -> list[Mapping[str, Any] | RebyteError]:
    """Create a task for each body, at the same time; a task or an error for each, in order.

    Raises the highest-ranking error if there is no task at all.
    """
    from ..tasks import attempts

    count = len(bodies)

    def created(at: int, task: Mapping[str, Any]) -> None:
        app.keep_workspace(task)
        executor = bodies[at].get("executor")
        which = f"attempt {at + 1} of {count}{f', {executor}' if executor else ''}"
        app.note(f"Created task {task['id']} ({which})\n{task.get('url', '')}".rstrip())

    with app.spinner(f"Creating {count} tasks (waiting for their VMs)"):
        results = attempts.create_all(lambda at: create(bodies[at]), count, created)
    errors = [result for result in results if isinstance(result, RebyteError)]
    if len(errors) == count:
        status = worst(error.exit_status for error in errors)
        raise next(error for error in errors if error.exit_status == status)
    for at, result in enumerate(results, 1):
        if isinstance(result, RebyteError) and not isinstance(result, OutcomeUnknown):
            app.note(f"Attempt {at} was not created: {result.message}")
    return results


def first_success(
    app: App, results: Sequence[Mapping[str, Any] | RebyteError], deadline: Deadline
) -> Iterator[Mapping[str, Any] | RebyteError]:
    """Yield the first task that completed, after canceling the others; or how each ended.

    An attempt whose outcome is unknown is yielded before all of them, since its task may be
    running however the wait ends.
    """
    yield from (one for one in results if isinstance(one, OutcomeUnknown))
    ids = [str(one["id"]) for one in results if not isinstance(one, RebyteError)]
    targets = [WaitTarget(task_id) for task_id in ids]
    for outcome in finished(app, targets, until="first-success", deadline=deadline):
        if not isinstance(outcome, RebyteError):
            winner = str(outcome["id"])
            _cancel(app, winner, [task_id for task_id in ids if task_id != winner])
        yield outcome


def _cancel(app: App, winner: str, others: Sequence[str]) -> None:
    """Cancel the other attempts, which changes none that has ended, and say what was canceled.

    What fails is only noted, since there is a task to print. An interrupt is raised with a hint.
    """
    from ..tasks.cancel import cancel
    from ..tasks.parallel import in_parallel

    canceled = []
    try:
        with app.spinner("Canceling the other attempts"):
            states = in_parallel(partial(cancel, app.client), others)
            for task_id, task in zip(others, states, strict=True):
                if isinstance(task, RebyteError):
                    _note_failure(app, f"task {task_id}", task, [task_id])
                elif app.with_workspace(task).get("status") == "canceled":
                    canceled.append(task_id)
    except RebyteError as error:  # of the key, which may be allowed to create tasks only
        _note_failure(app, "the other attempts", error, others)
    except (KeyboardInterrupt, Interrupted) as stop:
        status = stop.exit_status if isinstance(stop, Interrupted) else 130
        left = " ".join(each for each in others if each not in canceled)
        hint = f"Task {winner} completed; stop the others with `rebyte cancel {left}`"
        raise Interrupted(status, hint=hint) from None
    also = f"; canceled {' '.join(canceled)}" if canceled else ""
    app.note(f"Task {winner} completed first{also}")


def _note_failure(app: App, what: str, error: RebyteError, ids: Sequence[str]) -> None:
    app.note(
        f"Could not cancel {what}: {error.message}; try again with `rebyte cancel {' '.join(ids)}`"
    )
