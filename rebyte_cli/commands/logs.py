"""Show the transcript of a task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import click

from ..app import App
from ..deadline import Deadline
from ..errors import BadUsage
from ..output.records import CONTENT, EVENT, Records, Text
from ._base import define
from ._options import on_question_option, task_argument, timeout_option
from ._wait import question_watcher, resumable_logs, sign_of_life

T = TypeVar("T")


@define("logs", kind=EVENT, whole=CONTENT, text=True, statuses=(3, 4, 5, 12, 124))
@task_argument
@click.option("-f", "--follow", is_flag=True, help="Keep printing new output until the run ends.")
@click.option("--full", is_flag=True, help="Show tool calls, thoughts and delegated runs in full.")
@click.option(
    "--tail",
    type=click.IntRange(min=0),
    metavar="N",
    help="Begin with the last N lines, or with -o jsonl, the last N events.",
)
@timeout_option
@on_question_option
def command(
    app: App, task: str, follow: bool, full: bool, tail: int | None, timeout: float | None
) -> Any:
    """Show the transcript of TASK.

    Prompts are marked with `>`, tool calls with `*` and questions with `?`. On a terminal, what the
    agent says is rendered as Markdown; with `--color never`, it is printed unchanged.

    -o jsonl prints each event as it arrives, and with -f also the record that ends the stream
    (`status`, `lastSeq`, `finalResult`). -o json prints one document at the end, with the events of
    every prompt. The exit status doesn't depend on how the run ended.

    Examples:

      rebyte logs @last
      rebyte logs @last -f --timeout 10m
      rebyte logs @last -f --tail 20
      rebyte logs @last -f -o jsonl | jq -c 'select(.eventType == "tool_use")'
    """
    from ..history import references
    from ..tasks import logs

    task_id = references.task(app.history, task)
    deadline = Deadline(timeout)
    if app.format in ("json", "id"):
        if tail is not None:
            raise BadUsage(f"--tail cannot be used with -o {app.format}", hint="Use -o jsonl")
        document = logs.document(app.client, task_id, follow, deadline, note=app.note)
        return Records(CONTENT, _resumable(task_id, document) if follow else document)
    if app.format in ("jsonl", "csv", "tsv"):
        events = _events(app, task_id, follow, deadline, tail)
        return Records(EVENT, _resumable(task_id, events) if follow else events)
    text = _text(app, task_id, follow, deadline, full=full, tail=tail)
    return Text(_resumable(task_id, text) if follow else text, prose=True)


def _resumable(task_id: str, parts: Iterator[T]) -> Iterator[T]:
    with resumable_logs(task_id):
        yield from parts


def _events(
    app: App, task_id: str, follow: bool, deadline: Deadline, tail: int | None
) -> Iterator[Mapping[str, Any]]:
    from ..tasks import logs

    end = app.format == "jsonl"  # the others have no columns for how a stream ends
    with question_watcher(app, deadline) as questions:
        events = logs.events(
            app.client,
            task_id,
            follow,
            deadline,
            end=end,
            asked=questions.settle,
            note=app.note,
            tail=tail,
        )
        yield from sign_of_life(app, events) if follow else events


def _text(
    app: App, task_id: str, follow: bool, deadline: Deadline, *, full: bool, tail: int | None
) -> Iterator[str]:
    from ..tasks import logs

    with question_watcher(app, deadline, shown=tail is None) as questions:
        parts = logs.text(
            app.client,
            task_id,
            follow,
            deadline,
            full=full,
            note=app.note,
            speech=app.speech(),
            asked=questions.settle,
            tail=tail,
        )
        yield from sign_of_life(app, parts) if follow else parts
