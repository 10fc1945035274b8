"""Cancel running tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..app import App
from ..errors import APIError, RebyteError
from ..output.records import TASK, Records
from ._base import define
from ._options import chosen_tasks, label_filter_option, labeled_tasks_argument

# How a service may refuse to cancel a task that has ended; it is read to see whether it has.
REFUSED = (400, 409, 422)


@define("cancel", kind=TASK)
@labeled_tasks_argument
@label_filter_option
def command(app: App, tasks: Sequence[str], labels: Mapping[str, str]) -> Records:
    """Cancel each TASK and print its state afterwards.

    A task that has already ended is left unchanged, and stderr says so. A canceled task still
    accepts follow-ups.

    Examples:

      rebyte cancel @last
      rebyte list -o id --status running | rebyte cancel -
      rebyte cancel --label run=nightly
    """
    ids = chosen_tasks(app, tasks, labels)
    return Records(TASK, _cancel(app, list(dict.fromkeys(ids))))


def _cancel(app: App, ids: Sequence[str]) -> Iterator[Mapping[str, Any] | RebyteError]:
    from ..api.views import TaskView
    from ..tasks.parallel import in_parallel

    client = app.client

    def cancel(task_id: str) -> Mapping[str, Any]:
        refusal = None
        try:
            client.cancel_task(task_id)
        except APIError as error:
            if error.status_code not in REFUSED:
                raise
            refusal = error
        # The response to a cancel is not documented, so the task itself is read.
        task = client.get_task(task_id)
        if refusal is not None and not TaskView(task).is_over:
            raise refusal
        return task

    for answer in in_parallel(cancel, ids):
        if isinstance(answer, RebyteError):
            yield answer
            continue
        if TaskView(answer).status in ("completed", "failed"):
            app.note(f"Task {answer.get('id')} had already {answer['status']}")
        yield app.with_workspace(answer)
