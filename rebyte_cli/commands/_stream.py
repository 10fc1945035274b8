"""A prompt that was just sent, shown as it runs, and the status that its end deserves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..app import App
from ..engines.waiting import Target
from ..errors import Interrupted, RebyteError, TaskEnded, WaitTimeout
from ..output.kinds import EVENT, TASK, Records, Text, Value


def streamed(
    app: App, task_id: str, *, prompt_id: str | None = None, timeout: float | None = None
) -> Value:
    """What `--stream` prints: the run as text, each event (`jsonl`), or the finished task (`json`).

    What is returned raises TaskFailed or TaskCanceled at its end, WaitTimeout at the limit.
    """
    from ._finish import finished

    target = Target(task_id, prompt_id)
    app.text = True
    if app.format in ("json", "id"):
        return Records(TASK, finished(app, [target], timeout=timeout))
    if app.format in ("jsonl", "csv", "tsv"):
        return Records(EVENT, _events(app, target, timeout))
    return Text(_text(app, target, timeout))


def _text(app: App, target: Target, timeout: float | None) -> Iterator[str]:
    from ..engines import story

    with _resumable(target.task_id):
        yield from story.run(
            app.client,
            target.task_id,
            prompt_id=target.prompt_id,
            timeout=timeout,
            note=app.note,
        )
    _settle(app, target)


def _events(app: App, target: Target, timeout: float | None) -> Iterator[Mapping[str, Any]]:
    from ..engines.following import follow

    with _resumable(target.task_id):
        for event in follow(
            app.client, target.task_id, prompt_id=target.prompt_id, timeout=timeout
        ):
            yield event.data
    _settle(app, target)


def _settle(app: App, target: Target) -> None:
    """Raise how the prompt ended; the stream's own word for it can be early or wrong."""
    from ._finish import finished

    for outcome in finished(app, [target]):
        if isinstance(outcome, TaskEnded):
            raise type(outcome)(outcome.task, shown=True)
        if isinstance(outcome, RebyteError):
            raise outcome


class _resumable:  # noqa: N801 -- reads as a statement
    """Tells, when the stream is left before its end, how to take it up again."""

    def __init__(self, task_id: str) -> None:
        self._hint = f"the task runs on; `rebyte logs {task_id} -f` shows the rest"

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, KeyboardInterrupt):
            raise Interrupted(130, hint=self._hint) from None
        if isinstance(error, WaitTimeout | Interrupted):
            error.hint = error.hint or self._hint
