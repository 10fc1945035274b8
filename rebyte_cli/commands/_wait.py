"""From a prompt that was sent to its end: what `--wait`, `--stream` and `rebyte wait` share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from ..app import App
from ..deadline import NO_LIMIT, Deadline
from ..errors import Interrupted, RebyteError, TaskEnded, WaitTimeout
from ..output.records import EVENT, TASK, Records, Text, Value
from ..tasks.wait import Target


def finished(
    app: App,
    targets: Sequence[Target],
    *,
    until: Literal["all", "any", "first-success"] = "all",
    deadline: Deadline = NO_LIMIT,
    interval: float | None = None,
) -> Iterator[Mapping[str, Any] | RebyteError]:
    """Yield each task as it ends, with `workspaceId` from the history; progress is on stderr.

    Yields tasks and errors as `tasks.wait.watch` does. An interrupt and the end of the time limit
    are raised with the command that resumes the wait.
    """
    from ..output.progress import wait_spinner
    from ..tasks.questions import Watcher
    from ..tasks.wait import watch

    client, ids = app.client, [target.task_id for target in targets]
    resumable = _resumable(lambda pending: _wait_command(pending or ids))
    with resumable, wait_spinner(app.console, len(targets)) as progress:
        for outcome in watch(
            client,
            targets,
            until=until,
            deadline=deadline,
            interval=interval,
            progress=progress,
            sleep=Watcher(client, ids, app.note, deadline=deadline).sleep,
        ):
            if isinstance(outcome, TaskEnded):
                yield type(outcome)(app.with_workspace(outcome.task))
            elif isinstance(outcome, RebyteError):
                yield outcome
            else:
                yield app.with_workspace(outcome)


def _wait_command(ids: Sequence[str]) -> str:
    more = " …" if len(ids) > 5 else ""
    return f"Resume with `rebyte wait {' '.join(ids[:5])}{more}`"


@contextmanager
def _resumable(hint: Callable[[Sequence[str]], str]) -> Iterator[None]:
    """Raise an interrupt or the end of a time limit with a hint, unless it has one already.

    `hint` makes it from the ids that are still running, where the error knows them.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(130, hint=f"The task keeps running. {hint(())}") from None
    except Interrupted as error:
        keeps = f"The task keeps running. {hint(())}"
        raise Interrupted(error.exit_status, hint=error.hint or keeps) from None
    except WaitTimeout as error:
        raise error.copy_with(hint=error.hint or hint(error.pending)) from None


# -- `--stream`


def streamed(
    app: App, task_id: str, *, prompt_id: str | None = None, deadline: Deadline = NO_LIMIT
) -> Value:
    """What `--stream` prints: the run as text, each event (`jsonl`), or the finished task (`json`).

    What is returned raises TaskFailed or TaskCanceled at its end, WaitTimeout at the limit.
    """
    target = Target(task_id, prompt_id)
    app.text = True
    if app.format in ("json", "id"):
        return Records(TASK, finished(app, [target], deadline=deadline))
    if app.format in ("jsonl", "csv", "tsv"):
        return Records(EVENT, _events(app, target, deadline, end=app.format == "jsonl"))
    return Text(_text(app, target, deadline))


def _logs_command(target: Target) -> Callable[[Sequence[str]], str]:
    return lambda _pending: f"See the rest with `rebyte logs {target.task_id} -f`"


def _text(app: App, target: Target, deadline: Deadline) -> Iterator[str]:
    from ..tasks import logs

    with _resumable(_logs_command(target)):
        yield from logs.run(
            app.client,
            target.task_id,
            prompt_id=target.prompt_id,
            deadline=deadline,
            note=app.note,
        )
    _raise_outcome(app, target, deadline)


def _events(
    app: App, target: Target, deadline: Deadline, *, end: bool
) -> Iterator[Mapping[str, Any]]:
    """Each event; with `end`, also the record that ends the stream."""
    from ..tasks.stream import follow

    with _resumable(_logs_command(target)):
        for event in follow(
            app.client, target.task_id, prompt_id=target.prompt_id, deadline=deadline
        ):
            if end or event.name != "done":
                yield event.data
    _raise_outcome(app, target, deadline)


def _raise_outcome(app: App, target: Target, deadline: Deadline) -> None:
    """Raise how the prompt ended: what the stream says about it can be early or wrong."""
    for outcome in finished(app, [target], deadline=deadline):
        if isinstance(outcome, TaskEnded):
            raise type(outcome)(outcome.task, shown=True)
        if isinstance(outcome, RebyteError):
            raise outcome
