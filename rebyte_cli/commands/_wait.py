"""From a prompt that was sent to its end: what `--wait`, `--stream` and `rebyte wait` share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ..app import App
from ..deadline import Deadline
from ..errors import Interrupted, NeedsAnswer, RebyteError, TaskEnded, WaitTimeout
from ..output.records import EVENT, TASK, Records, Text, Value
from ..tasks.wait import LateTargets, WaitTarget

if TYPE_CHECKING:
    from ..tasks.question_watch import Dialog, QuestionWatcher
    from ._notice import EndNotice


T = TypeVar("T")


def finished(
    app: App,
    targets: Sequence[WaitTarget],
    *,
    until: Literal["all", "any", "first-success"] = "all",
    deadline: Deadline,
    interval: float | None = None,
    late: LateTargets | None = None,
) -> Iterator[Mapping[str, Any] | RebyteError]:
    """Yield each task as it ends, with `workspaceId` from the history; progress is on stderr.

    `late` are targets that become known during the wait. Yields tasks and errors as
    `tasks.wait.watch` does. An interrupt and the end of the time limit are raised with the command
    that resumes the wait.
    """
    from ..output.progress import wait_spinner
    from ..tasks.wait import watch

    ids = late.ids if late is not None else [target.task_id for target in targets]
    resumable = _resumable(lambda pending: _wait_command(pending or ids, until), ids)
    spinner = wait_spinner(app.console, len(targets))
    with resumable, spinner as progress, question_watcher(app, deadline) as questions:

        def pause(seconds: float, pending: Collection[str]) -> Mapping[str, RebyteError]:
            more_to_come = late is not None and late.under_way > 0
            return questions.pause(seconds, pending, more_to_come=more_to_come)

        for outcome in watch(
            app.client,
            targets,
            until=until,
            deadline=deadline,
            interval=interval,
            late=late,
            progress=progress,
            pause=pause,
        ):
            if isinstance(outcome, TaskEnded | NeedsAnswer):
                yield outcome.with_task(app.with_workspace(outcome.task))
            elif isinstance(outcome, RebyteError):
                yield outcome
            else:
                yield app.with_workspace(outcome)


@contextmanager
def question_watcher(
    app: App, deadline: Deadline, *, shown: bool = False
) -> Iterator[QuestionWatcher]:
    """What notices the questions of runs, and asks them on the terminal if `app` says so.

    `shown`: what the command prints on stdout has each question in it.
    """
    from ..tasks.question_watch import QuestionWatcher

    def watcher(dialog: Dialog | None) -> QuestionWatcher:
        return QuestionWatcher(
            app.client,
            app.history,
            app.on_question,
            note=app.note,
            dialog=dialog,
            deadline=deadline,
        )

    if app.on_question != "ask":
        yield watcher(None)
        return
    from ._questions import TerminalDialog

    with TerminalDialog(app, shown=shown and app.console.out_tty) as dialog:
        yield watcher(dialog)


def _wait_command(ids: Sequence[str], until: str) -> str:
    more = " …" if len(ids) > 5 else ""
    option = "" if until == "all" else f" --{until}"
    return f"Resume with `rebyte wait {' '.join(ids[:5])}{more}{option}`"


@contextmanager
def _resumable(hint: Callable[[Sequence[str]], str], ids: Sequence[str]) -> Iterator[None]:
    """Raise an interrupt or the end of a time limit with a hint, unless it has one already.

    `hint` makes it from the ids that are still running, where the error knows them. `ids` are those
    of the tasks that are waited for; more may be added during the wait.
    """
    try:
        yield
    except (KeyboardInterrupt, Interrupted) as stop:
        keeps = "The task keeps" if len(ids) == 1 else "The tasks keep"
        stop = Interrupted.of(stop)
        said = stop.hint or f"{keeps} running. {hint(())}"
        raise Interrupted(stop.exit_status, hint=said) from None
    except WaitTimeout as error:
        raise error.copy_with(hint=error.hint or hint(error.pending)) from None


# `--stream`


def sign_of_life(app: App, parts: Iterator[T]) -> Iterator[T]:
    """The parts of a run that is followed, with a spinner on the terminal while none comes.

    If another program reads stdout, the spinner ends with the first part: what that program prints
    on the same terminal would run into it.
    """
    with app.spinner("Waiting for output of the run"):
        for part in parts:
            yield part
            if not app.console.out_tty:
                break
    yield from parts


def streamed(
    app: App,
    task_id: str,
    *,
    prompt_id: str | None = None,
    deadline: Deadline,
    notice: EndNotice | None,
) -> Value:
    """What `--stream` prints: the run as text, each event (`jsonl`), or the finished task (`json`).

    What is returned raises TaskFailed or TaskCanceled at its end, NeedsAnswer at a question that
    is not asked here, and WaitTimeout at the limit. `notice` is given at the end.
    """
    target = WaitTarget(task_id, prompt_id)
    app.text = True
    if app.format in ("json", "id"):
        ended = finished(app, [target], deadline=deadline)
        return Records(TASK, notice.of_outcomes(ended) if notice else ended)
    if app.format in ("jsonl", "csv", "tsv"):
        events = _events(app, target, deadline, notice, end=app.format == "jsonl")
        return Records(EVENT, notice.of_stream(events) if notice else events)
    text = _text(app, target, deadline, notice)
    return Text(notice.of_stream(text) if notice else text, prose=True)


def resumable_logs(task_id: str) -> AbstractContextManager[None]:
    """Say how to see the rest of a transcript that an interrupt or a time limit cuts short."""
    return _resumable(lambda _pending: f"See the rest with `rebyte logs {task_id} -f`", [task_id])


def _text(
    app: App, target: WaitTarget, deadline: Deadline, notice: EndNotice | None
) -> Iterator[str]:
    from ..tasks import logs

    with resumable_logs(target.task_id), question_watcher(app, deadline, shown=True) as questions:
        parts = logs.run(
            app.client,
            target.task_id,
            prompt_id=target.prompt_id,
            deadline=deadline,
            speech=app.speech(),
            asked=questions.settle,
        )
        yield from sign_of_life(app, parts)
    _raise_outcome(app, target, deadline, notice)


def _events(
    app: App, target: WaitTarget, deadline: Deadline, notice: EndNotice | None, *, end: bool
) -> Iterator[Mapping[str, Any]]:
    """Each event; with `end`, also the record that ends the stream."""
    from ..tasks import logs

    with resumable_logs(target.task_id), question_watcher(app, deadline) as questions:
        events = logs.followed(
            app.client,
            target.task_id,
            prompt_id=target.prompt_id,
            deadline=deadline,
            asked=questions.settle,
        )
        for event in sign_of_life(app, events):
            if end or event.name != "done":
                yield event.data
    _raise_outcome(app, target, deadline, notice)


def _raise_outcome(
    app: App, target: WaitTarget, deadline: Deadline, notice: EndNotice | None
) -> None:
    """Raise how the prompt ended: what the stream says about it can be early or wrong."""
    for outcome in finished(app, [target], deadline=deadline):
        if isinstance(outcome, TaskEnded):
            raise outcome.without_record()
        if isinstance(outcome, RebyteError):
            raise outcome
        if notice is not None:
            notice.see(outcome)
