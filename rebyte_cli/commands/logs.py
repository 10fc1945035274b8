"""Show the transcript of a task."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..app import App
from ..errors import BadUsage
from ..output.records import CONTENT, EVENT, NETWORK_REQUEST, PAGER, RecordList, Records, Text
from ..system.deadline import Deadline
from ._base import define
from ._options import (
    Number,
    Option,
    Output,
    chosen_task,
    on_question_option,
    refuse,
    task_argument,
    timeout_option,
)
from ._wait import last, printed

if TYPE_CHECKING:
    from ..tasks.logs import Asked, Step
    from ._wait import Shown

T = TypeVar("T")


@define("logs", kind=EVENT, whole=CONTENT, text=True, statuses=(3, 4, 5, 12, 124))
@task_argument
@click.option("-f", "--follow", is_flag=True, help="Keep printing new output until the run ends.")
@click.option("--full", is_flag=True, help="Show tool calls, thoughts and delegated runs in full.")
@click.option(
    "--tail",
    type=Number(min=0),
    metavar="N",
    help="Begin with the last N lines, or with -o jsonl, the last N events.",
)
@click.option(
    "--network",
    cls=Option,
    output=Output(NETWORK_REQUEST),
    schema={"--network": "network-request-list", "--network -o jsonl": NETWORK_REQUEST},
    is_flag=True,
    help="Show the requests of an agent on this machine instead, also those that were refused.",
)
@timeout_option
@on_question_option
def command(
    app: App,
    task: str,
    follow: bool,
    full: bool,
    tail: int | None,
    network: bool,
    timeout: float | None,
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
      rebyte -P local logs @last --network
      rebyte logs @last -f -o jsonl | jq -c 'select(.eventType == "tool_use")'
    """
    from ..tasks import logs
    from ..tasks.questions import hint
    from ..tasks.usage import noted

    others = {"-f": follow, "--full": full, "--tail": tail is not None}
    refuse({f"--network and {name}": network and given for name, given in others.items()})
    task_id = chosen_task(app, task)
    if network:
        if not app.settings.is_own_service:
            raise BadUsage("--network requires -P local: it is for agents on this machine")
        return RecordList(NETWORK_REQUEST, app.client.task_requests(task_id))
    deadline = Deadline(timeout)

    def shown(show: Callable[[Asked], Shown[T]], *, in_text: bool = False) -> Iterator[T]:
        if follow:
            return printed(app, task_id, deadline, show, in_text=in_text, tail=tail)
        return last(show(lambda *asked: app.note(hint(*asked)) if in_text else None), tail)

    def steps(asked: Asked) -> Iterator[Step]:
        found = logs.steps(app.client, task_id, follow, deadline, asked=asked, note=app.note)
        return noted(found, app.history, task_id)

    def document(_asked: Asked) -> Shown[Mapping[str, Any]]:
        yield True, logs.document(app.client, task_id, follow, deadline, note=app.note)

    def events(asked: Asked) -> Shown[Mapping[str, Any]]:
        return logs.events(steps(asked), end=follow and app.format == "jsonl")

    def text(asked: Asked) -> Shown[str]:
        text = logs.text(steps(asked), app.client, task_id, full=full, speech=app.speech())
        return text if tail is None else _by_line(text)

    if app.format in ("json", "id"):
        if tail is not None:
            raise BadUsage(f"--tail cannot be used with -o {app.format}", hint="Use -o jsonl")
        return Records(CONTENT, shown(document))
    if app.format in ("jsonl", "csv", "tsv"):
        return Records(EVENT, shown(events))
    return Text(shown(text, in_text=True), prose=True, pager="" if follow else PAGER)


def _by_line(shown: Shown[str]) -> Shown[str]:
    """The same in lines, each of the type of its part: it may be rendered text."""
    for is_live, parts in shown:
        yield (
            is_live,
            (type(part)(line) for part in parts for line in re.split(r"(?<=\n)", part) if line),
        )
