"""From a sent prompt to its end: what `create`, `follow-up` and `wait` do after the sending."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from ..app import App
from ..engines.waiting import Target
from ..errors import Interrupted, RebyteError, TaskEnded, WaitTimeout


def finished(
    app: App,
    targets: Sequence[Target],
    *,
    until: Literal["all", "any", "first-success"] = "all",
    timeout: float | None = None,
    interval: float | None = None,
) -> Iterator[Mapping[str, Any] | RebyteError]:
    """Each task as it ends, with `workspaceId` from the history; progress on stderr.

    Yields tasks and errors as `engines.waiting.watch` does. An interrupt, or the end of the
    time limit, says how to take the wait up again.
    """
    from ..engines.questions import Watcher
    from ..engines.waiting import watch
    from ..output.progress import waiting_line

    client, ids = app.client, [target.task_id for target in targets]
    again = _again(ids)
    try:
        with waiting_line(app.screen, len(targets)) as progress:
            for outcome in watch(
                client,
                targets,
                until=until,
                timeout=timeout,
                interval=interval,
                progress=progress,
                sleep=Watcher(client, ids, app.note, timeout=timeout).sleep,
            ):
                if isinstance(outcome, TaskEnded):
                    yield type(outcome)(app.with_workspace(outcome.task))
                elif isinstance(outcome, RebyteError):
                    yield outcome
                else:
                    yield app.with_workspace(outcome)
    except WaitTimeout as error:
        error.hint = error.hint or f"`{_again(error.pending)}` goes on waiting"
        raise
    except KeyboardInterrupt:
        raise Interrupted(130, hint=f"the task runs on; `{again}` goes on waiting") from None
    except Interrupted as error:
        error.hint = error.hint or f"the task runs on; `{again}` goes on waiting"
        raise


def _again(ids: Sequence[str]) -> str:
    return f"rebyte wait {' '.join(ids[:5])}" + (" …" if len(ids) > 5 else "")
