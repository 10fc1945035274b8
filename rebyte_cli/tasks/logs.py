"""What `logs` shows: earlier prompts from the content, the running one from its event stream."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..api.views import SPEECH, ContentView, EventView, PromptView, Question, events_of, last_open
from ..errors import APIError, BadUsage, KeyRejected
from ..system.deadline import Deadline, Patience
from . import stream, transcript
from .content import content, read_content
from .stream import EventDeduplicator, StreamConnection

if TYPE_CHECKING:
    from ..api.client import RebyteClient

Event = Mapping[str, Any]
Speech = Callable[[str], str]  # see Transcript
# Told of each question that a run waits on, once its event was passed on: the task's id and the
# question. A run is followed further when it returns.
Asked = Callable[[str, Question], None]
Note = Callable[[str], None]  # what a person should know besides the transcript

LATE_READS = 3  # for the last words of a prompt that has ended; they may be readable later
# Reads, and seconds between them, of a delegated run whose last word is missing.
DELEGATED_READS = 5
DELEGATED_PAUSE = 0.1


class Step(NamedTuple):
    """A part of a transcript: new `events` of a prompt, possibly none.

    `is_live`: it happened after the first look at the task. `begins`: it is the first of its prompt
    (None: a run is followed whose prompt is not shown). `end` is what the prompt ended with:
    `status`, `lastSeq`, `finalResult`.
    """

    is_live: bool
    prompt: PromptView | None
    events: Sequence[EventView] = ()
    begins: bool = False
    end: Event | None = None


def document(
    client: RebyteClient, task_id: str, follow: bool, deadline: Deadline, *, note: Note
) -> Iterator[Mapping[str, Any]]:
    """The content document with its events, after the run's end when `follow` is set."""
    if follow:
        for _ in stream.follow(client, task_id, deadline=deadline):
            pass
        deadline = deadline.with_grace()  # to show a run that ended at the last moment
    yield content(client, task_id, deadline=deadline, note=note).raw


def steps(
    client: RebyteClient,
    task_id: str,
    follow: bool,
    deadline: Deadline,
    *,
    asked: Asked,
    note: Note,
) -> Iterator[Step]:
    """The whole transcript of the task, each event once; with `follow` to the end of the run."""
    found = content(client, task_id, deadline=deadline, note=note)
    if not follow or found.is_over:
        prompts: list[PromptView | None] = [*found.prompts]
        for prompt in prompts or [None]:
            yield Step(False, prompt, _events_of(prompt), prompt is not None, _end_of(prompt))
        question = None if found.is_over else last_open(_events_of(found.latest))
        if question is not None:
            asked(task_id, question)
        return
    patience = stream.patient(client, task_id, deadline, growth=1.25, steady=0.0)
    latest = (yield from queued(client, task_id, found, patience, asked=asked)).latest
    yield Step(False, latest, begins=latest is not None)
    yield from run(
        client,
        task_id,
        prompt_id=(latest.id or None) if latest else None,
        deadline=deadline,
        asked=asked,
        latest=latest,
    )


def queued(
    client: RebyteClient, task_id: str, found: ContentView, patience: Patience, *, asked: Asked
) -> Generator[Step, None, ContentView]:
    """The prompts before the latest one, oldest first, each followed while it can still run.

    No stream shows these, so the content is read again and again; returns the newest document.
    A prompt is left as it is once a later one has begun: then it is stuck (seen in a client).
    Raises WaitTimeout at the deadline, and the API error when `patience` is at an end.
    """
    at, is_live = 0, False
    while at < len(found.prompts) - 1:
        deduplicator, late, begins = EventDeduplicator(), 0, True
        while True:
            prompt, *later = found.prompts[at:]
            connection = StreamConnection()
            new = [
                event
                for event in prompt.events
                if connection.accepts(event) and deduplicator.is_new(event, connection)
            ]
            over = prompt.is_over or any(each.has_started for each in later)
            silent = not (connection.spoke or prompt.response)
            if over and not begins and silent and prompt.outcome == "completed":
                late += 1
                over = late == LATE_READS
            yield Step(is_live, prompt, new, begins, _end_of(prompt) if over else None)
            if over:
                break
            begins, is_live = False, True
            yield Step(True, prompt)
            question = last_open(prompt.events)
            if question is not None and any(event.question == question for event in new):
                asked(task_id, question)
            found = _read_again(client, task_id, found, patience)
        at += 1
    return found


def _read_again(
    client: RebyteClient, task_id: str, found: ContentView, patience: Patience
) -> ContentView:
    """Read the content once more, after a pause."""
    deadline = patience.deadline
    patience.sleep()
    if deadline.has_passed:
        raise deadline.error(f"task {task_id} is still running after", pending=[task_id])
    try:
        newer, _ = read_content(client, task_id, deadline)
        patience.answered()
    except APIError as error:
        patience.failed(error)
        return found
    # A document with fewer prompts than before would lose the place.
    return newer if len(newer.prompts) >= len(found.prompts) else found


def run(
    client: RebyteClient,
    task_id: str,
    *,
    prompt_id: str | None,
    deadline: Deadline,
    asked: Asked,
    latest: PromptView | None = None,
) -> Iterator[Step]:
    """The run of the latest prompt (or of `prompt_id`) as it is streamed, to its end.

    `latest` is that prompt as it was read a moment ago: its events are not live, and a question
    among them that something followed was answered, so `asked` is not told of it.
    """
    before = _events_of(latest)
    answered = _answered(before)
    earlier = set(map(_identity, before))
    if not earlier:
        yield Step(True, latest)
    for name, data in stream.follow(
        client, task_id, prompt_id=prompt_id, is_latest=latest is not None, deadline=deadline
    ):
        if name == "done":
            yield Step(True, latest, end=data)
            return
        event = EventView(data)
        if earlier and _identity(event) not in earlier:
            earlier.clear()
        yield Step(not earlier, latest, [event])
        if earlier:
            earlier.remove(_identity(event))
            if not earlier:
                yield Step(True, latest)
        question = event.question
        if question is not None and question.message_id not in answered:
            asked(task_id, question)


def events(steps: Iterable[Step], *, end: bool) -> Iterator[tuple[bool, Iterable[Event]]]:
    """The events of each step, and whether it is live; with `end`, the end of the last one, too.

    An event without `promptId` gets that of its prompt, since the events of several prompts are
    printed together.
    """
    step = None
    for step in steps:
        yield step.is_live, [_owned(event.raw, step.prompt) for event in step.events]
    if end and step is not None and step.end is not None:
        yield step.is_live, [step.end]


def text(
    steps: Iterable[Step],
    client: RebyteClient,
    task_id: str,
    *,
    full: bool = False,
    speech: Speech = str,
) -> Iterator[tuple[bool, Iterable[str]]]:
    """The text of each step, in pieces to be used before the next step, and whether it is live.

    `full` and `speech` are as in `Transcript`.
    """

    def delegated(prompt_id: str) -> list[EventView]:
        try:
            return _delegated_events(client, task_id, prompt_id)
        except KeyRejected:
            raise
        except (BadUsage, APIError):  # also for an id that cannot be one
            return []

    between, writer = "", None
    for step in steps:
        if writer is None or step.begins:
            writer = transcript.Transcript(full=full, delegated=delegated, speech=speech)
        yield step.is_live, _pieces(step, writer, between)
        between = "\n" if step.begins else between


def _pieces(step: Step, writer: transcript.Transcript, between: str) -> Iterator[str]:
    if step.begins and step.prompt is not None:
        yield between + transcript.prompt(step.prompt.text) + "\n"
    for event in step.events:
        yield from writer.event(event)
    if step.end is not None:
        yield from writer.answer(step.end.get("finalResult"))
        yield transcript.ending(step.end.get("status"), has_spoken=writer.has_spoken)


def _end_of(prompt: PromptView | None) -> Event:
    """What a stream would end with, for a prompt that is not streamed."""
    seqs = [event.seq for event in _events_of(prompt) if event.seq is not None]
    return {
        "status": prompt.status if prompt else None,
        "lastSeq": max(seqs, default=-1),
        "finalResult": prompt.response if prompt else "",
    }


def _events_of(prompt: PromptView | None) -> list[EventView]:
    return prompt.events if prompt else []


def _owned(event: Event, prompt: PromptView | None) -> Event:
    """The event with the id of its prompt."""
    if event.get("promptId") or not prompt or not prompt.id:
        return event
    return {**event, "promptId": prompt.id}


def _identity(event: EventView) -> str:
    """What tells an event from others, wherever it is read."""
    return event.key or json.dumps([event.kind, event.payload], sort_keys=True)


def _delegated_events(client: RebyteClient, task_id: str, prompt_id: str) -> list[EventView]:
    """The events of a delegated run that has given its result to its parent.

    The list can grow for a moment after that (seen in a client), so it is read again, a few
    times, until the run has had its last word.
    """
    found: list[EventView] = []
    for number in range(DELEGATED_READS):
        if number:
            time.sleep(DELEGATED_PAUSE)
        found = events_of(client.prompt_events(task_id, prompt_id))
        if found and found[-1].kind in SPEECH:
            break
    return found


def _answered(events: Sequence[EventView]) -> set[str]:
    """The message ids of the questions that something was written after."""
    asked = [event.question for event in events if event.question is not None]
    still_open = last_open(events)
    return {question.message_id for question in asked if question and question != still_open}
