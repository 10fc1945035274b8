"""What `logs` shows: earlier prompts from the content, the running one from its event stream."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ..api.sse import StreamEvent
from ..api.views import (
    SPEECH,
    ContentView,
    EventView,
    PromptView,
    Question,
    events_of,
    last_open,
)
from ..deadline import NO_LIMIT, Deadline
from ..errors import APIError, BadUsage, KeyRejected, NetworkError
from . import questions, stream, transcript
from .content import content, read_content
from .stream import EventDeduplicator, StreamConnection

if TYPE_CHECKING:
    from ..api.client import RebyteClient

T = TypeVar("T")
Event = Mapping[str, Any]
Speech = Callable[[str], str]  # see Transcript
# Told of each question of a run that is followed, once its event was passed on: the task's id and
# the question. The run is followed further when it returns.
Asked = Callable[[str, Question], None]
Note = Callable[[str], None]  # what a person should know besides the transcript

# Seconds between two reads of the content while a queued prompt runs.
PAUSE = 1.0
LONGEST_PAUSE = 5.0
GROWTH = 1.25
FAILURES = 5  # reads in a row that may fail
LATE_READS = 3  # for the last words of a prompt that has ended; they may be readable later
# Reads, and seconds between them, of a delegated run whose last word is missing.
DELEGATED_READS = 5
DELEGATED_PAUSE = 0.1


class QueuedPrompt(NamedTuple):
    """What one read shows of a prompt: its new `events`, each with whether it repeats what was
    said before; `first` and `last` mark the first and the last read of this prompt.
    """

    prompt: PromptView
    events: list[tuple[EventView, bool]]
    first: bool
    last: bool


class QueuedPrompts:
    """The prompts before the latest one, oldest first, each followed while it can still run.

    No stream shows these, so the content is read again and again; `found` is the newest document.
    A prompt is left as it is once a later one has begun: then it is stuck (seen in a client).
    Raises WaitTimeout at the deadline, and the API error when several reads in a row have failed.
    """

    def __init__(
        self,
        client: RebyteClient,
        task_id: str,
        found: ContentView,
        *,
        deadline: Deadline,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.found = found
        self._client = client
        self._task_id = task_id
        self._deadline = deadline
        self._sleep = sleep
        self._pause = PAUSE
        self._failures = 0

    def __iter__(self) -> Iterator[QueuedPrompt]:
        at = 0
        while at < len(self.found.prompts) - 1:
            yield from self._of(at)
            at += 1

    def _of(self, at: int) -> Iterator[QueuedPrompt]:
        deduplicator, late, first = EventDeduplicator(), 0, True
        while True:
            prompt, connection = self.found.prompts[at], StreamConnection()
            new = [
                (event, deduplicator.is_repeated(event))
                for event in prompt.events
                if connection.accepts(event) and deduplicator.is_new(event, connection)
            ]
            over = self._is_over(at)
            silent = not (connection.spoke or prompt.response)
            if over and not first and silent and prompt.outcome == "completed":
                late += 1
                over = late == LATE_READS
            yield QueuedPrompt(prompt, new, first, over)
            if over:
                return
            first = False
            self._read_again()

    def _is_over(self, at: int) -> bool:
        prompt, *later = self.found.prompts[at:]
        return prompt.is_over or any(each.has_started for each in later)

    def _read_again(self) -> None:
        """Read the content once more, after a pause."""
        self._sleep(self._deadline.cap(self._pause))
        self._pause = min(self._pause * GROWTH, LONGEST_PAUSE)
        if self._deadline.has_passed:
            late = f"task {self._task_id} is still running after"
            raise self._deadline.error(late, pending=[self._task_id])
        try:
            found, _ = read_content(self._client, self._task_id, self._deadline)
            self._failures = 0
        except APIError as error:
            self._failures += 1
            if not isinstance(error, NetworkError) or self._failures == FAILURES:
                raise
            return
        # A document with fewer prompts than before would lose the place.
        if len(found.prompts) >= len(self.found.prompts):
            self.found = found


def document(
    client: RebyteClient, task_id: str, follow: bool, deadline: Deadline, *, note: Note
) -> Iterator[Mapping[str, Any]]:
    """The content document with its events, after the run's end when `follow` is set."""
    if follow:
        for _ in stream.follow(client, task_id, deadline=deadline):
            pass
        deadline = deadline.with_grace()  # to show a run that ended at the last moment
    yield content(client, task_id, deadline=deadline, note=note).raw


def events(
    client: RebyteClient,
    task_id: str,
    follow: bool,
    deadline: Deadline,
    *,
    asked: Asked,
    note: Note,
    end: bool = True,
    tail: int | None = None,
) -> Iterator[Event]:
    """Every event of the task, oldest first, each once; with `follow` to the end of the run.

    With `follow` the record that ends the stream comes last, also when the run was over before,
    unless `end` is false. An event without `promptId` gets that of its prompt, since the events of
    several prompts are printed together here. With `tail`, only so many of those that are there
    already are given.
    """
    found = _events(client, task_id, follow, deadline, asked=asked, note=note, end=end)
    return _last(found, tail)


def _events(
    client: RebyteClient,
    task_id: str,
    follow: bool,
    deadline: Deadline,
    *,
    asked: Asked,
    note: Note,
    end: bool,
) -> Iterator[Event | None]:
    """As `events`; None stands before what happens from now on."""
    found = content(client, task_id, deadline=deadline, note=note)
    if not follow or found.is_over:
        for prompt in found.prompts:
            for event in prompt.events:
                yield _owned(event.raw, prompt)
        if follow and end:
            yield _end_record(found)
        return
    queued = QueuedPrompts(client, task_id, found, deadline=deadline)
    for read in queued:
        for event, _ in read.events:
            yield _owned(event.raw, read.prompt)
        if not read.last:
            yield None
        _tell(task_id, read, asked)
    latest = queued.found.latest
    for told in _latest_followed(client, task_id, latest, deadline, asked):
        if told is None:
            yield None
        elif told.name != "done":
            yield _owned(told.data, latest)
        elif end:
            yield told.data


def _end_record(found: ContentView) -> Event:
    """What a stream would end with, for a run that was over before."""
    latest = found.latest
    seqs = [event.seq for event in _events_of(latest) if event.seq is not None]
    return {
        "status": latest.status if latest else None,
        "lastSeq": max(seqs, default=-1),
        "finalResult": latest.response if latest else "",
    }


def _events_of(prompt: PromptView | None) -> list[EventView]:
    return prompt.events if prompt else []


def _owned(event: Event, prompt: PromptView | None) -> Event:
    """The event with the id of its prompt."""
    if event.get("promptId") or not prompt or not prompt.id:
        return event
    return {**event, "promptId": prompt.id}


def text(
    client: RebyteClient,
    task_id: str,
    follow: bool,
    deadline: Deadline,
    *,
    full: bool,
    note: Note,
    speech: Speech = str,
    asked: Asked = lambda _task, _question: None,
    tail: int | None = None,
) -> Iterator[str]:
    """The transcript, with a note if the run waits for an answer and is not followed.

    With `tail`, only so many lines of what is there already are given. `speech` prepares what the
    agent says for the terminal.
    """
    parts = _text(
        client, task_id, follow, deadline, full=full, note=note, speech=speech, asked=asked
    )
    if tail is None:
        return _last(parts, None)
    return _last((line for part in parts for line in _lines(part)), tail)


def _text(
    client: RebyteClient,
    task_id: str,
    follow: bool,
    deadline: Deadline,
    *,
    full: bool,
    note: Note,
    speech: Speech,
    asked: Asked,
) -> Iterator[str | None]:
    """As `text`; None stands before what happens from now on."""
    found = content(client, task_id, deadline=deadline, note=note)

    def make() -> transcript.Transcript:
        return _transcript(client, task_id, full, speech)

    if not follow or found.is_over:
        yield from transcript.whole(found, make)
        question = None if found.is_over else last_open(_events_of(found.latest))
        if question is not None:
            note(questions.hint(task_id, question))
        return
    queued = QueuedPrompts(client, task_id, found, deadline=deadline)
    between = ""
    for part in _queued_text(task_id, queued, make, asked):
        yield part
        between = "\n"
    latest = queued.found.latest
    if latest:
        yield between + transcript.prompt(latest.text) + "\n"
    events = _latest_followed(client, task_id, latest, deadline, asked)
    yield from _run_text(events, make())


def _lines(part: str | None) -> Iterator[str | None]:
    """The lines of a part, of the same type as it; None stays None."""
    if not part:
        yield part
        return
    *lines, rest = part.split("\n")
    for line in lines:
        yield type(part)(line + "\n")
    if rest:
        yield type(part)(rest)


def _last(parts: Iterable[T | None], count: int | None) -> Iterator[T]:
    """The last `count` of the parts before the first None (None: all), then those after it."""
    held: deque[T] = deque(maxlen=count)
    is_live = count is None
    for part in parts:
        if part is None:
            yield from held
            held.clear()
            is_live = True
        elif is_live:
            yield part
        elif part:
            held.append(part)
    yield from held


def _queued_text(
    task_id: str,
    queued: QueuedPrompts,
    make: Callable[[], transcript.Transcript],
    asked: Asked,
) -> Iterator[str | None]:
    """The transcript of the prompts before the latest one."""
    between = ""
    for read in queued:
        prompt, new, is_first, is_last = read
        if is_first:
            writer = make()
            yield between + transcript.prompt(prompt.text) + "\n"
            between = "\n"
        for event, is_repeated in new:
            yield from writer.event(event, repeated=is_repeated)
        if is_last:
            yield from writer.answer(prompt.response)
            yield transcript.ending(prompt.status)
        else:
            yield None
        _tell(task_id, read, asked)


def _tell(task_id: str, read: QueuedPrompt, asked: Asked) -> None:
    """Tell of a question that a queued prompt has just asked and still waits on."""
    question = None if read.last else last_open(read.prompt.events)
    if question is not None and any(event.question == question for event, _ in read.events):
        asked(task_id, question)


def run(
    client: RebyteClient,
    task_id: str,
    *,
    prompt_id: str | None = None,
    deadline: Deadline = NO_LIMIT,
    speech: Speech = str,
    asked: Asked,
) -> Iterator[str]:
    """The agent's part of the latest prompt (or of `prompt_id`), live, to its end; the answer once.

    See `followed` for `asked`.
    """
    events = followed(client, task_id, prompt_id=prompt_id, deadline=deadline, asked=asked)
    return _last(_run_text(events, _transcript(client, task_id, False, speech)), None)


def _run_text(
    events: Iterable[StreamEvent | None], writer: transcript.Transcript
) -> Iterator[str | None]:
    for event in events:
        if event is None:
            yield None
            continue
        name, data, is_repeated = event
        if name == "done":
            if not is_repeated:
                yield from writer.answer(data.get("finalResult"))
            yield transcript.ending(data.get("status"))
            return
        yield from writer.event(EventView(data), repeated=is_repeated)


def followed(
    client: RebyteClient,
    task_id: str,
    *,
    prompt_id: str | None,
    deadline: Deadline,
    asked: Asked,
) -> Iterator[StreamEvent]:
    """`stream.follow`, with `asked` told of the questions."""
    return _last(
        _followed(client, task_id, prompt_id=prompt_id, deadline=deadline, asked=asked), None
    )


def _latest_followed(
    client: RebyteClient,
    task_id: str,
    latest: PromptView | None,
    deadline: Deadline,
    asked: Asked,
) -> Iterator[StreamEvent | None]:
    """The run of the latest prompt, as it was read a moment ago."""
    return _followed(
        client,
        task_id,
        prompt_id=(latest.id or None) if latest else None,
        is_latest=True,
        deadline=deadline,
        asked=asked,
        before=_events_of(latest),
    )


def _followed(
    client: RebyteClient,
    task_id: str,
    *,
    prompt_id: str | None,
    is_latest: bool = False,
    deadline: Deadline,
    asked: Asked,
    before: Sequence[EventView] = (),
) -> Iterator[StreamEvent | None]:
    """As `followed`; None stands before what happens from now on.

    `before` are events known to have been there earlier: a question among them that something
    followed was answered, so `asked` is not told of it.
    """
    answered = _answered(before)
    earlier = set(map(_identity, before))
    if not earlier:
        yield None
    for event in stream.follow(
        client, task_id, prompt_id=prompt_id, is_latest=is_latest, deadline=deadline
    ):
        view = EventView(event.data)
        if earlier and _identity(view) not in earlier:
            earlier.clear()
            yield None
        yield event
        if earlier:
            earlier.remove(_identity(view))
            if not earlier:
                yield None
        question = view.question
        if question is not None and question.message_id not in answered:
            asked(task_id, question)


def _identity(event: EventView) -> str:
    """What tells an event from others, wherever it is read."""
    return event.key or json.dumps([event.kind, event.payload], sort_keys=True)


def _transcript(
    client: RebyteClient, task_id: str, full: bool, speech: Speech
) -> transcript.Transcript:
    def delegated(prompt_id: str) -> list[EventView]:
        try:
            return _delegated_events(client, task_id, prompt_id)
        except KeyRejected:
            raise
        except (BadUsage, APIError):  # also for an id that cannot be one
            return []

    return transcript.Transcript(full=full, delegated=delegated, speech=speech)


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
