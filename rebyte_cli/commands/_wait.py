"""From a sent prompt to its end: what `create`, `follow-up` and `wait` do after the sending."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    """Each task as it ends, with `workspaceId` from the history; progress on stderr.

    Yields tasks and errors as `tasks.wait.watch` does. An interrupt, or the end of the
    time limit, says how to take the wait up again.
    """
    from ..output.progress import waiting_line
    from ..tasks.questions import Watcher
    from ..tasks.wait import watch

    client, ids = app.client, [target.task_id for target in targets]
    again = _again(ids)
    try:
        with waiting_line(app.console, len(targets)) as progress:
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
    except WaitTimeout as error:
        hint = error.hint or f"Resume with `{_again(error.pending)}`"
        raise error.copy_with(hint=hint) from None
    except (KeyboardInterrupt, Interrupted) as stop:
        raise _interrupted(stop, f"The task keeps running. Resume with `{again}`") from None


def _interrupted(stop: BaseException, hint: str) -> Interrupted:
    """The interrupt with a hint, unless it has one."""
    if isinstance(stop, Interrupted):
        return Interrupted(stop.exit_status, hint=stop.hint or hint)
    return Interrupted(130, hint=hint)


def _again(ids: Sequence[str]) -> str:
    return f"rebyte wait {' '.join(ids[:5])}" + (" …" if len(ids) > 5 else "")


# -- A prompt that was just sent, shown as it runs, and the status that its end deserves.


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


def _text(app: App, target: Target, deadline: Deadline) -> Iterator[str]:
    from ..tasks import logs

    with _resumable(target.task_id):
        yield from logs.run(
            app.client,
            target.task_id,
            prompt_id=target.prompt_id,
            deadline=deadline,
            note=app.note,
        )
    _settle(app, target, deadline)


def _events(
    app: App, target: Target, deadline: Deadline, *, end: bool
) -> Iterator[Mapping[str, Any]]:
    """Each event; the record that ends the stream as well when `end` is set."""
    from ..tasks.stream import follow

    with _resumable(target.task_id):
        for event in follow(
            app.client, target.task_id, prompt_id=target.prompt_id, deadline=deadline
        ):
            if end or event.name != "done":
                yield event.data
    _settle(app, target, deadline)


def _settle(app: App, target: Target, deadline: Deadline) -> None:
    """Raise how the prompt ended; the stream's own word for it can be early or wrong."""
    for outcome in finished(app, [target], deadline=deadline):
        if isinstance(outcome, TaskEnded):
            raise type(outcome)(outcome.task, shown=True)
        if isinstance(outcome, RebyteError):
            raise outcome


class _resumable:  # noqa: N801 -- reads as a statement
    """Tells, when the stream is left before its end, how to take it up again."""

    def __init__(self, task_id: str) -> None:
        self._hint = f"The task keeps running. `rebyte logs {task_id} -f` shows the rest"

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, KeyboardInterrupt | Interrupted):
            raise _interrupted(error, self._hint) from None
        if isinstance(error, WaitTimeout):
            raise error.copy_with(hint=error.hint or self._hint) from None
