"""What a task's `logs` are: older prompts from the content, the one that runs from its stream."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..api.models import is_terminal, same_word, task_status
from ..deadline import NO_LIMIT, Deadline
from ..errors import APIError, BadUsage, KeyRejected, NetworkError
from . import questions, stream, transcript
from .content import content, told
from .stream import SPEECH, WAITING, EventDeduplicator, StreamConnection

if TYPE_CHECKING:
    from ..api.client import RebyteClient


# -- Prompts whose turn comes before the latest one, as the content shows them: no stream does.

PAUSE = 1.0
LONGEST_PAUSE = 5.0
GROWTH = 1.25
FAULTS = 5  # looks in a row that may fail
LATE = 3  # looks for the last words of a prompt that has ended; they may be readable later


class QueuedPrompt(NamedTuple):
    """What one look shows of a prompt: its `events` that are new, each with whether an earlier
    one has told its text; `first` and `last` say which look it is.
    """

    prompt: Mapping[str, Any]
    events: list[tuple[Mapping[str, Any], bool]]
    first: bool
    last: bool


class QueuedPrompts:
    """The prompts before the latest, oldest first; each is waited for while its turn can come.

    `found` is the content document, always the newest that was read. A prompt is left as it is
    once a later one has begun: it is stuck (seen in a client). Raises WaitTimeout at the
    deadline, and the error of the wire when several looks have failed in a row.
    """

    def __init__(
        self,
        client: RebyteClient,
        task_id: str,
        found: dict[str, Any],
        *,
        deadline: Deadline = NO_LIMIT,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.found = found
        self._client = client
        self._task_id = task_id
        self._deadline = deadline
        self._sleep = sleep
        self._pause = PAUSE
        self._faults = 0

    def __iter__(self) -> Iterator[QueuedPrompt]:
        at = 0
        while at < len(self.found["prompts"]) - 1:
            yield from self._of(at)
            at += 1

    def _of(self, at: int) -> Iterator[QueuedPrompt]:
        heard, late, first = EventDeduplicator(), 0, True
        while True:
            prompt, look = self.found["prompts"][at], StreamConnection(None)
            new = [
                (event, heard.told(event))
                for event in events_of(prompt)
                if look.takes(event) and heard.is_new(event, look)
            ]
            over = self._is_over(at)
            silent = not (look.spoke or prompt.get("response"))
            if over and not first and silent and same_word(prompt.get("status")) == "completed":
                late += 1
                over = late == LATE
            yield QueuedPrompt(prompt, new, first, over)
            if over:
                return
            first = False
            self._again()

    def _is_over(self, at: int) -> bool:
        mine, *later = [prompt.get("status") for prompt in self.found["prompts"][at:]]
        return is_terminal(mine) or not all(word in WAITING for word in later)

    def _again(self) -> None:
        """Read the content once more, after a pause."""
        self._sleep(self._deadline.cap(self._pause))
        self._pause = min(self._pause * GROWTH, LONGEST_PAUSE)
        if self._deadline.has_passed:
            late = f"task {self._task_id} still running after"
            raise self._deadline.error(late, pending=[self._task_id])
        try:
            found, _ = told(self._client, self._task_id, self._deadline)
            self._faults = 0
        except APIError as error:
            self._faults += 1
            if not isinstance(error, NetworkError) or self._faults == FAULTS:
                raise
            return
        # A document with fewer prompts than before would lose the place.
        if len(found["prompts"]) >= len(self.found["prompts"]):
            self.found = found


def events_of(prompt: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The events that a content document lists for a prompt, those that are objects."""
    listed = prompt.get("events")
    rows = listed if isinstance(listed, list) else []
    return [event for event in rows if isinstance(event, Mapping)]


Event = Mapping[str, Any]
LOOKS = 5  # at the events of a delegated run whose last word is missing
LOOK_PAUSE = 0.1  # seconds


def document(
    client: RebyteClient, task_id: str, follow: bool, deadline: Deadline
) -> Iterator[Mapping[str, Any]]:
    """The content document with its events, after the run's end when `follow` is set."""
    if follow:
        for _ in stream.follow(client, task_id, deadline=deadline):
            pass
    yield content(client, task_id, deadline=deadline.with_grace() if follow else deadline)


def events(
    client: RebyteClient, task_id: str, follow: bool, deadline: Deadline, *, end: bool = True
) -> Iterator[Event]:
    """Every event of the task, oldest first, each once; with `follow` to the end of the run.

    With `follow` the record that ends the stream comes last, also when the run was over before,
    unless `end` is false. An event without `promptId` gets that of its prompt, since one stream
    holds several here.
    """
    found = content(client, task_id, deadline=deadline)
    live = follow and not _is_over(found)
    if live:
        turns = QueuedPrompts(client, task_id, found, deadline=deadline)
        for turn in turns:
            for event, _ in turn.events:
                yield _owned(event, turn.prompt)
        found = turns.found
    else:
        for one in found["prompts"]:
            for event in events_of(one):
                yield _owned(event, one)
    latest = (found["prompts"] or [{}])[-1]
    if live:
        for name, data, _ in stream.follow(
            client, task_id, prompt_id=_id(latest), is_latest=True, deadline=deadline
        ):
            if name != "done":
                yield _owned(data, latest)
            elif end:
                yield data
    elif follow and end:
        seqs = [seq for event in _latest_events(found) if isinstance(seq := event.get("seq"), int)]
        answer = latest.get("response")
        yield {
            "status": latest.get("status"),
            "lastSeq": max(seqs, default=-1),
            "finalResult": answer if isinstance(answer, str) else "",
        }


def _id(prompt: Mapping[str, Any]) -> str | None:
    found = prompt.get("id")
    return found if isinstance(found, str) else None


def _owned(event: Event, prompt: Mapping[str, Any]) -> Event:
    if event.get("promptId") or not prompt.get("id"):
        return event
    return {**event, "promptId": prompt["id"]}


def text(
    client: RebyteClient,
    task_id: str,
    follow: bool,
    deadline: Deadline,
    *,
    full: bool,
    note: Callable[[str], None],
) -> Iterator[str]:
    """The transcript, and a note when the run waits for an answer."""
    found = content(client, task_id, deadline=deadline)
    if not (follow and not _is_over(found)):
        yield from transcript.whole(found, lambda: _teller(client, task_id, full))
        question = None if _is_over(found) else questions.last_open(_latest_events(found))
        if question is not None:
            note(questions.hint(task_id, question))
        return
    turns = QueuedPrompts(client, task_id, found, deadline=deadline)
    between = ""
    told: set[str] = set()
    for turn in turns:
        if turn.first:
            teller = _teller(client, task_id, full)
            yield between + transcript.prompt(turn.prompt.get("userPrompt")) + "\n"
        for event, is_told in turn.events:
            yield from teller.event(event, told=is_told)
        if turn.last:
            between = "\n"
            yield from teller.answer(turn.prompt.get("response"))
            yield transcript.ending(turn.prompt.get("status"))
            continue
        question = questions.last_open(events_of(turn.prompt))
        if question is not None and question.message_id not in told:
            told.add(question.message_id)
            note(questions.hint(task_id, question))
    found = turns.found
    latest = (found["prompts"] or [{}])[-1]
    if latest:
        yield between + transcript.prompt(latest.get("userPrompt")) + "\n"
    yield from run(
        client,
        task_id,
        prompt_id=_id(latest),
        is_latest=True,
        deadline=deadline,
        full=full,
        note=note,
        before=_latest_events(found),
    )


def run(
    client: RebyteClient,
    task_id: str,
    *,
    prompt_id: str | None = None,
    is_latest: bool = False,
    deadline: Deadline = NO_LIMIT,
    full: bool = False,
    note: Callable[[str], None],
    before: list[Event] | None = None,
) -> Iterator[str]:
    """The agent's part of the latest prompt (or of `prompt_id`), live, to its end; the answer once.

    `before` are events known to have been there earlier: a question among them that something
    followed was answered, so there is no word about it.
    """
    teller = _teller(client, task_id, full)
    answered = _answered(before or [])
    for name, data, is_told in stream.follow(
        client, task_id, prompt_id=prompt_id, is_latest=is_latest, deadline=deadline
    ):
        if name == "done":
            if not is_told:
                yield from teller.answer(data.get("finalResult"))
            yield transcript.ending(data.get("status"))
            return
        yield from teller.event(data, told=is_told)
        if data.get("eventType") == questions.ASKS:
            question = questions.read(data.get("payload"))
            if question is not None and question.message_id not in answered:
                note(questions.hint(task_id, question))


def _teller(client: RebyteClient, task_id: str, full: bool) -> transcript.Transcript:
    def delegated(prompt_id: str) -> list[Event]:
        try:
            return delegated_events(client, task_id, prompt_id)
        except (BadUsage, APIError) as error:  # also for an id that is none
            if isinstance(error, KeyRejected):
                raise
            return []

    return transcript.Transcript(full=full, delegated=delegated)


def delegated_events(
    client: RebyteClient,
    task_id: str,
    prompt_id: str,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Event]:
    """The events of a delegated run that has told its result to its parent.

    The list can grow for a moment after that (seen in a client), so it is read again, a few
    times, until the run has had its last word.
    """
    found: list[Event] = []
    for look in range(LOOKS):
        if look:
            sleep(LOOK_PAUSE)
        listed = client.prompt_events(task_id, prompt_id).get("events")
        rows = listed if isinstance(listed, list) else []
        found = [event for event in rows if isinstance(event, Mapping)]
        if found and found[-1].get("eventType") in SPEECH:
            break
    return found


def _latest_events(found: Mapping[str, Any]) -> list[Event]:
    prompts = found["prompts"]
    return events_of(prompts[-1]) if prompts else []


def _answered(listed: list[Event]) -> set[str]:
    """The message ids of the questions that something was written after."""
    asked = [
        question
        for event in listed
        if event.get("eventType") == questions.ASKS
        and (question := questions.read(event.get("payload"))) is not None
    ]
    still_open = questions.last_open(listed)
    return {question.message_id for question in asked if question != still_open}


def _is_over(found: Mapping[str, Any]) -> bool:
    return is_terminal(task_status(found))
