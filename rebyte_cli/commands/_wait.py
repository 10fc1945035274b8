"""From a prompt that was sent to its end: what `--wait`, `--stream` and `rebyte wait` share."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ..app import App
from ..errors import CarriesTask, Interrupted, Next, RebyteError, RowOrError, TaskEnded, WaitTimeout
from ..output.records import EVENT, TASK, Records, Text, Value
from ..system.deadline import Deadline
from ..tasks.wait import LateTargets, WaitTarget
from ._notice import EndNotice
from ._options import WaitOptions

if TYPE_CHECKING:
    from ..tasks.logs import Asked, Step
    from ..tasks.mending import Mending
    from ..tasks.question_watch import QuestionWatcher


T = TypeVar("T")
# What each step of a transcript shows, after whether it is live; see `tasks.logs.Step`.
Shown = Iterator[tuple[bool, Iterable[T]]]


def finished(
    app: App,
    targets: Sequence[WaitTarget],
    *,
    until: Literal["all", "any", "first-success"] = "all",
    deadline: Deadline,
    interval: float | None = None,
    late: LateTargets | None = None,
) -> Iterator[RowOrError]:
    """Yield each task as it ends, with `workspaceId` from the history; progress is on stderr.

    `late` are targets that become known during the wait. Yields tasks and errors as
    `tasks.wait.watch` does. An interrupt and the end of the time limit are raised with the command
    that resumes the wait.
    """
    from ..output.progress import wait_spinner
    from ..tasks.wait import patient, watch

    ids = late.ids if late is not None else [target.task_id for target in targets]
    resumable = _resumable(lambda pending: _wait_command(pending or ids, until), ids)
    patience = patient(app.client, deadline, interval=interval)
    spinner = wait_spinner(app.console, len(targets))
    with (
        resumable,
        spinner as progress,
        question_watcher(app, deadline, doing=progress.doing) as questions,
    ):

        def pause(seconds: float, pending: Collection[str]) -> Mapping[str, RebyteError]:
            patience.resume = _wait_command(list(pending), until)
            more_to_come = late is not None and late.under_way > 0
            return questions.pause(seconds, pending, more_to_come=more_to_come)

        for outcome in watch(
            app.client,
            targets,
            until=until,
            patience=patience,
            late=late,
            progress=progress,
            queued=progress.queued,
            pause=pause,
        ):
            if isinstance(outcome, CarriesTask):
                yield outcome.with_task(app.known.update(outcome.task))
            elif isinstance(outcome, RebyteError):
                yield outcome
            else:
                yield app.known.update(outcome)


@contextmanager
def question_watcher(
    app: App,
    deadline: Deadline,
    *,
    shown: bool = False,
    doing: Callable[[str, str], None] = lambda _task_id, _step: None,
) -> Iterator[QuestionWatcher]:
    """What notices the questions of runs, and asks them on the terminal if `app` says so.

    `shown`: what the command prints on stdout has each question in it. `doing` is told the last
    step of each run that is looked at.
    """
    from ..tasks.question_watch import QuestionWatcher

    watcher = partial(
        QuestionWatcher,
        app.client,
        app.history,
        app.on_question,
        note=app.note,
        deadline=deadline,
        doing=doing,
    )
    if app.on_question != "ask":
        yield watcher()
        return
    from ._questions import TerminalDialog

    with TerminalDialog(app, shown=shown and app.console.out_tty) as dialog:
        yield watcher(dialog=dialog)


def _wait_command(ids: Sequence[str], until: str) -> str:
    more = " …" if len(ids) > 5 else ""
    option = "" if until == "all" else f" --{until}"
    return "Resume with " + Next("wait", f"{' '.join(ids[:5])}{more}{option}")


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
        raise Interrupted.of(stop, f"{keeps} running. " + hint(())) from None
    except WaitTimeout as error:
        raise error.copy_with(hint=error.hint or hint(error.pending)) from None


# `--wait` and `--stream`


def followed(
    app: App,
    target: WaitTarget,
    options: WaitOptions,
    deadline: Deadline,
    checks: Mending | None,
) -> Value:
    """What `--wait` prints, the task that has ended; or `--stream`, the run in the meantime.

    With `checks`, the task has ended when they have.

    That is its text or (`jsonl`) its events; `json` has the finished task alone. What is returned
    raises TaskFailed or TaskCanceled at the end of a stream, NeedsAnswer at a question that is not
    asked here, and WaitTimeout at the limit. With `--notify`, the end is told on the terminal.
    """
    task_id, notice = target.task_id, EndNotice(app, is_wanted=options.notify)
    app.text = app.text or options.stream
    if not options.stream or app.format in ("json", "id"):
        wait = partial(finished, app, [target], deadline=deadline)
        return Records(TASK, notice.of_outcomes(checks.ends(wait, [target]) if checks else wait()))
    from ..tasks import logs
    from ..tasks.usage import noted

    def steps(asked: Asked) -> Iterator[Step]:
        prompt = target.prompt_id
        run = logs.run(app.client, task_id, prompt_id=prompt, deadline=deadline, asked=asked)
        return noted(run, app.history, task_id)

    def events(asked: Asked) -> Shown[Mapping[str, Any]]:
        # The other formats have no columns for how a stream ends.
        return logs.events(steps(asked), end=app.format == "jsonl")

    def text(asked: Asked) -> Shown[str]:
        return logs.text(steps(asked), app.client, task_id, speech=app.speech())

    def whole(show: Callable[[Asked], Shown[T]], *, in_text: bool = False) -> Iterator[T]:
        nonlocal target
        with notice.given():
            is_over = False
            while not is_over:
                yield from printed(app, task_id, deadline, show, in_text=in_text)
                is_over = True
                # What the stream says about the end can be early or wrong.
                for outcome in finished(app, [target], deadline=deadline):
                    step = checks.step(outcome) if checks else outcome
                    if isinstance(step, WaitTarget):
                        target, is_over = step, False
                    elif isinstance(step, TaskEnded):
                        raise step.without_record()
                    elif isinstance(step, RebyteError):
                        raise step
                    else:
                        notice.see(step)

    if app.format in ("jsonl", "csv", "tsv"):
        return Records(EVENT, whole(events))
    return Text(whole(text, in_text=True), prose=True)


def printed(
    app: App,
    task_id: str,
    deadline: Deadline,
    show: Callable[[Asked], Shown[T]],
    *,
    in_text: bool = False,
    tail: int | None = None,
) -> Iterator[T]:
    """The parts of a run that is followed, of which `show` makes what each step shows.

    Of what is there already, only the last `tail` parts. `in_text`: stdout has each question in it.
    A spinner on the terminal shows that the run says nothing. If another program reads stdout, it
    ends with the first part: what that program prints on the same terminal would run into it.
    """
    resume = "See the rest with " + Next("logs", task_id, "-f")
    resumable = _resumable(lambda _: resume, [task_id])
    shown = in_text and tail is None
    with resumable, question_watcher(app, deadline, shown=shown) as questions:
        parts = last(show(questions.react), tail)
        with app.spinner("Waiting for output of the run"):
            for part in parts:
                yield part
                if not app.console.out_tty:
                    break
        yield from parts


def last(shown: Shown[T], count: int | None) -> Iterator[T]:
    """The last `count` parts before the first live step (None: all), and every one after it."""
    held: deque[T] = deque(maxlen=count)
    is_live = count is None
    for happens_now, parts in shown:
        if happens_now and not is_live:
            is_live = True
            yield from held
        if is_live:
            yield from parts
        else:
            held.extend(parts)
    if not is_live:
        yield from held
