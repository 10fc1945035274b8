"""Cancel running tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from ..app import App
from ..errors import RebyteError, RowOrError
from ..output.records import TASK, Records
from ..tasks.parallel import in_parallel
from ._base import define
from ._options import chosen_tasks, label_filter_option, labeled_tasks_argument


@define("cancel", kind=TASK)
@labeled_tasks_argument
@label_filter_option
def command(app: App, tasks: Sequence[str], labels: Mapping[str, str]) -> Records:
    """Cancel each TASK and print its state afterwards.

    A task that has already ended is left unchanged, and stderr says so. A canceled task still
    accepts follow-ups.

    Examples:

      rebyte cancel @last
      rebyte list --all -o id --status running | rebyte cancel -
      rebyte cancel --label run=nightly
    """
    ids = chosen_tasks(app, tasks, labels)
    return Records(TASK, _cancel(app, ids))


def _cancel(app: App, ids: Sequence[str]) -> Iterator[RowOrError]:
    from ..tasks.cancel import cancel, ended_before

    for answer in in_parallel(partial(cancel, app.client), ids):
        if isinstance(answer, RebyteError):
            yield answer
            continue
        if status := ended_before(answer):
            app.note(f"Task {answer.get('id')} had already {status}")
        yield app.known.update(answer)
