"""What a task's `logs` are: older prompts from the content, the one that runs from its stream."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..api.models import is_terminal, task_status
from ..errors import APIError, BadUsage, KeyRejected
from . import following, questions, transcript
from .content import content
from .heard import SPEECH
from .turns import Turns, events_of

if TYPE_CHECKING:
    from ..api.client import RebyteClient

Event = Mapping[str, Any]
LOOKS = 5  # at the events of a delegated run whose last word is missing
LOOK_PAUSE = 0.1  # seconds
GRACE = 2.0  # seconds that reading what a run left may take over the limit


def document(
    client: RebyteClient, task_id: str, follow: bool, timeout: float | None
) -> Iterator[Mapping[str, Any]]:
    """The content document with its events, after the run's end when `follow` is set."""
    begun = time.monotonic()
    if follow:
        for _ in following.follow(client, task_id, timeout=timeout, since=begun):
            pass
    left = None
    if timeout is not None:  # a run that ends at the very limit is shown all the same
        left = round(max(begun + timeout - time.monotonic(), GRACE), 1)
    yield content(client, task_id, timeout=left)


def events(
    client: RebyteClient, task_id: str, follow: bool, timeout: float | None, *, end: bool = True
) -> Iterator[Event]:
    """Every event of the task, oldest first, each once; with `follow` to the end of the run.

    With `follow` the record that ends the stream comes last, also when the run was over before,
    unless `end` is false. An event without `promptId` gets that of its prompt, since one stream
    holds several here.
    """
    begun = time.monotonic()
    found = content(client, task_id, timeout=timeout)
    live = follow and not _is_over(found)
    if live:
        turns = Turns(client, task_id, found, timeout=timeout, since=begun)
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
        for name, data, _ in following.follow(
            client, task_id, prompt_id=_id(latest), is_latest=True, timeout=timeout, since=begun
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
    timeout: float | None,
    *,
    full: bool,
    note: Callable[[str], None],
) -> Iterator[str]:
    """The transcript, and a note when the run waits for an answer."""
    begun = time.monotonic()
    found = content(client, task_id, timeout=timeout)
    if not (follow and not _is_over(found)):
        yield from transcript.whole(found, lambda: _teller(client, task_id, full))
        question = None if _is_over(found) else questions.last_open(_latest_events(found))
        if question is not None:
            note(questions.hint(task_id, question))
        return
    turns = Turns(client, task_id, found, timeout=timeout, since=begun)
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
        timeout=timeout,
        since=begun,
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
    timeout: float | None,
    since: float | None = None,
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
    for name, data, told in following.follow(
        client, task_id, prompt_id=prompt_id, is_latest=is_latest, timeout=timeout, since=since
    ):
        if name == "done":
            if not told:
                yield from teller.answer(data.get("finalResult"))
            yield transcript.ending(data.get("status"))
            return
        yield from teller.event(data, told=told)
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
