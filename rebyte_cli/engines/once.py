"""A create that is never doubled, and a follow-up that is never repeated."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ..errors import BadUsage, Interrupted, RebyteError
from .attempt import HELD, Attempt, age
from .errands import Create, FollowUp
from .looking import Sent
from .server_clock import BLIND, LIFE, Clock, when

if TYPE_CHECKING:
    from ..api.client import RebyteClient
    from ..profiles.history import History
    from ..profiles.intents import Intent

LOOK_FOR = 20.0  # seconds
TURN_PAUSE = 0.25


def create(
    client: RebyteClient,
    history: History,
    body: Mapping[str, Any],
    *,
    prompt: str,
    key: str | None = None,
    note: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    look_for: float = LOOK_FOR,
) -> dict[str, Any]:
    """POST /tasks with `body`, at most once, and return what was created.

    The answer has `id`, `url`, `status`, `createdAt`, and `workspaceId` where it is known: a task
    whose answer was lost and that was found again has none. `note` is told what went on for a
    person to read. `look_for` is how long to look for a task whose answer was lost, in seconds.

    With `key`, no two calls make two tasks, in whatever process and however they end. A later
    call returns the first task; it waits for another process that is at work on the key, and
    when an earlier outcome is not known it looks again, and sends again only when that attempt
    is over 15 minutes old and nothing is found. The key decides, not the prompt: asked for
    something else under the same key, `note` is told so and the first task is returned.

    Without a key, an attempt with the very same body that ended without an answer in the last 15
    minutes (a crash, an interrupt) is looked for first, and its task taken when it is certain.

    Raises OutcomeUnknown with the candidates when it cannot be known what was made, Interrupted
    with a hint that says whether a task exists, and what `create_from` raises when it was refused
    or never sent; the key can then be used again.
    """
    errand = Create(client, history, body, prompt)
    attempt = Attempt(
        errand, client, history, note=note, clock=clock, sleep=sleep, look_for=look_for
    )
    if key is None:
        with _interrupts(attempt):
            return _alone(attempt)
    if not key.strip():
        raise BadUsage("the key of --once is empty")
    with _interrupts(attempt), _turn(attempt, key):
        earlier = history.intent(key)
        if earlier is not None:
            if earlier.state == "done":
                return _first(attempt, earlier)
            if earlier.state in ("open", "unknown"):
                found = _again(attempt, earlier, key)
                if found is not None:
                    return found
        return attempt.send(key)


def follow_up(
    client: RebyteClient,
    history: History,
    task_id: str,
    body: Mapping[str, Any],
    *,
    note: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    look_for: float = LOOK_FOR,
) -> dict[str, Any]:
    """POST /tasks/{id}/prompts with `body`, once, and return its answer: `promptId`.

    A follow-up whose answer was lost is looked for in the task's `content`: one prompt with this
    text, submitted since the call began, is taken. It is never sent again. Otherwise as `create`
    without a key.
    """
    errand = FollowUp(client, history, task_id, body)
    attempt = Attempt(
        errand, client, history, note=note, clock=clock, sleep=sleep, look_for=look_for
    )
    with _interrupts(attempt):
        return _alone(attempt)


def forget(history: History, key: str) -> bool:
    """Drop a KEY, so that the next create with it makes a task. False when it was not known."""
    return history.forget_intent(key)


def made_before(history: History, key: str) -> dict[str, Any] | None:
    """The task that a KEY has made already, as it was created; None when it has made none.

    For callers with something costly to do before `create`, such as uploads.
    """
    earlier = history.intent(key)
    return _document(history, earlier) if earlier is not None and earlier.state == "done" else None


# -- with a key --------------------------------------------------------------------------------


@contextmanager
def _turn(attempt: Attempt, key: str) -> Iterator[None]:
    """Hold the key; while another process is at work on it, wait for that one to end."""
    from ..profiles.intents import IntentHeld

    end = attempt.clock() + HELD
    told = False
    while True:
        hold = attempt.history.hold(key)
        try:
            hold.__enter__()
            break
        except IntentHeld:
            if attempt.clock() >= end:
                raise
        if not told:
            attempt.note(f"Another process is creating the task for {key!r}; waiting for it")
            told = True
        attempt.sleep(TURN_PAUSE)
    try:
        yield
    finally:
        hold.__exit__(None, None, None)


def _first(attempt: Attempt, earlier: Intent) -> dict[str, Any]:
    task = _document(attempt.history, earlier)
    other = "" if earlier.digest == attempt.errand.digest else ", from another prompt"
    attempt.note(f"{earlier.key!r} has made its task already{other}: {task['id']}")
    return task


def _document(history: History, earlier: Intent) -> dict[str, Any]:
    return dict(earlier.task or history.task(str(earlier.task_id)) or {"id": earlier.task_id})


def _again(attempt: Attempt, earlier: Intent, key: str) -> dict[str, Any] | None:
    """Look for what an earlier attempt with this key made. None: it made nothing, send again."""
    attempt.note(f"An earlier attempt for {key!r} ended without an answer; looking for its task")
    times = Clock(attempt.client, attempt.clock)
    sight, why = attempt.search(
        _sent(attempt, earlier, times, doubt=BLIND), rivals=lambda: attempt.rivals(earlier)
    )
    found = attempt.certain(sight)
    if found is not None:
        _adopt(attempt, earlier, found)
        return found
    if why is None and sight.whole and not sight.candidates and age(earlier, times) > LIFE:
        attempt.note("It made none; sending it again")
        return None
    attempt.settle(earlier, "unknown")
    raise attempt.errand.unknown(sight.candidates, key, why)


# -- without a key -----------------------------------------------------------------------------


def _alone(attempt: Attempt) -> dict[str, Any]:
    """Take up an earlier attempt of the same that was cut off, or else send."""
    try:
        earlier = [
            other
            for other in attempt.history.unsettled(attempt.errand.digest)
            if other.key is None
            and other.state != "given up"
            and other.body_digest == attempt.errand.body_digest
        ]
    except RebyteError:  # sending says what is wrong with the history
        earlier = []
    for orphan in earlier:
        found = _orphan(attempt, orphan)
        if found is not None:
            return found
    return attempt.send(None)


def _orphan(attempt: Attempt, orphan: Intent) -> dict[str, Any] | None:
    """What an attempt of a process that is gone has made; None when it is alive or made nothing."""
    from ..profiles.intents import IntentHeld

    try:
        with attempt.history.hold(orphan.owner):
            # Asked again: another process may have taken it up a moment ago.
            if orphan.id not in {one.id for one in attempt.history.unsettled(orphan.digest)}:
                return None
            return _take_up(attempt, orphan)
    except IntentHeld:
        return None


def _take_up(attempt: Attempt, orphan: Intent) -> dict[str, Any] | None:
    times = Clock(attempt.client, attempt.clock)
    began = when(orphan.started_at)
    if began is None or times.now() - began > LIFE:
        attempt.settle(orphan, "unsent")
        return None
    attempt.note("An earlier attempt at the same ended without an answer; looking for it")
    sight, why = attempt.search(
        _sent(attempt, orphan, times, doubt=timedelta(0)),
        rivals=lambda: attempt.rivals(orphan, alive=True),
    )
    found = attempt.certain(sight)
    if found is not None:
        _adopt(attempt, orphan, found)
        return found
    if len(sight.same) > 1:
        raise attempt.errand.unknown(sight.candidates, None, why)
    # Nobody asked for a guarantee, and whoever asks again after an unknown outcome means it.
    attempt.note(f"Looking for it failed ({why}); sending anew" if why else "Sending anew")
    made_none = why is None and sight.whole and not sight.candidates
    attempt.settle(orphan, "unsent" if made_none else "given up")
    return None


# -- all of them ---------------------------------------------------------------------------------


@contextmanager
def _interrupts(attempt: Attempt) -> Iterator[None]:
    """Say so when an interrupt came before anything was sent; `Attempt.send` speaks for later."""
    try:
        yield
    except (KeyboardInterrupt, Interrupted) as stop:
        if attempt.has_sent:
            raise
        status = stop.exit_status if isinstance(stop, Interrupted) else 130
        raise Interrupted(status, hint="this call had sent nothing yet") from None


def _sent(attempt: Attempt, earlier: Intent, times: Clock, *, doubt: timedelta) -> Sent:
    errand = attempt.errand
    same = earlier.digest == errand.digest
    return Sent(
        digest=errand.prompt_digest if same else earlier.digest,
        window=lambda: times.window_of(earlier.started_at),
        prompt=errand.prompt if same else None,
        body=errand.body if earlier.body_digest == errand.body_digest else {},
        doubt=doubt,
    )


def _adopt(attempt: Attempt, earlier: Intent, found: Mapping[str, Any]) -> None:
    made = attempt.errand.keep(found, as_asked=earlier.digest == attempt.errand.digest)
    attempt.settle(earlier, "done", task_id=made, task=found)
    attempt.note(f"Its answer was lost, but {attempt.errand.says(found)} was found")
