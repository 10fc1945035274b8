"""A create that is never doubled, and a follow-up that is never repeated."""

from __future__ import annotations

import hashlib
import json
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from ..errors import (
    APIError,
    BadUsage,
    Interrupted,
    KeyRejected,
    NetworkError,
    OutcomeUnknown,
    RebyteError,
    Redirected,
    ResourceNotFound,
    Unsent,
)
from .search import (
    BLIND,
    LIFE,
    LostRequest,
    Matches,
    Search,
    ServerClock,
    digest_of,
    find_prompts,
    is_lost,
    parse_time,
    pauses,
)

if TYPE_CHECKING:
    from ..api.client import RebyteClient
    from ..history.history import History
    from ..history.records import Intent


# -- What must not be made twice: a task, and a prompt of a task.

_CREATED = ("id", "workspaceId", "url", "status", "createdAt")
_SHOWN = ("id", "url", "createdAt", "title")


class Operation(ABC):
    """What is sent, and how to recognise it afterwards.

    `digest` stands for what is made, `prompt_digest` for its prompt alone, `body_digest` for all
    that was asked for.
    """

    digest: str
    prompt_digest: str
    body_digest: str
    prompt: str
    body: Mapping[str, Any]

    @abstractmethod
    def send(self) -> dict[str, Any]:
        """Send it, once; the answer must name what was made."""

    @abstractmethod
    def look(self, sent: LostRequest, seconds: float) -> Matches:
        """One look at what it may have made."""

    @abstractmethod
    def taken(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What a look saw, in the shape of the answer to `send`."""

    @abstractmethod
    def keep(self, answer: Mapping[str, Any], *, as_asked: bool = True) -> str:
        """Remember what was made; returns its id. `as_asked`: it was made from this prompt."""

    @abstractmethod
    def says(self, answer: Mapping[str, Any]) -> str:
        """What was made, for a person."""

    def stop(self, answer: Mapping[str, Any]) -> str:
        """How to stop what was made, as the end of a sentence."""
        return ""

    @abstractmethod
    def unknown(
        self, candidates: list[dict[str, Any]], key: str | None, why: str | None
    ) -> OutcomeUnknown:
        """The error when it cannot be known what was made."""


class CreateOperation(Operation):
    """A new task: found again in the list, by the prompt in its content."""

    def __init__(
        self, client: RebyteClient, history: History, body: Mapping[str, Any], prompt: str
    ) -> None:
        self._client = client
        self._history = history
        self._look = Search(client, history.knows)
        self.body = body
        self.prompt = prompt
        self.digest = self.prompt_digest = digest_of(prompt)
        self.body_digest = _digest(body)

    def send(self) -> dict[str, Any]:
        return dict(self._client.create_from(self.body))

    def look(self, sent: LostRequest, seconds: float) -> Matches:
        return self._look(sent, seconds=seconds)

    def taken(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The shape of a create's answer. The list has no status, so the task is asked for it."""
        task = {"status": "running", **row}
        with suppress(APIError):  # the id is what matters, and it is known
            task.update(self._client.get_task(row["id"], timeout=10))
        return {name: task[name] for name in _CREATED if task.get(name) is not None}

    def keep(self, answer: Mapping[str, Any], *, as_asked: bool = True) -> str:
        if as_asked:
            self._history.add_task(answer, prompt=self.prompt, body=self.body)
        else:
            self._history.add_task(answer, prompt="")
        return str(answer["id"])

    def says(self, answer: Mapping[str, Any]) -> str:
        link = f" ({answer['url']})" if answer.get("url") else ""
        return f"task {answer['id']}{link}"

    def stop(self, answer: Mapping[str, Any]) -> str:
        return f"; `rebyte cancel {answer['id']}` stops it"

    def unknown(
        self, candidates: list[dict[str, Any]], key: str | None, why: str | None
    ) -> OutcomeUnknown:
        shown = [{name: row[name] for name in _SHOWN if name in row} for row in candidates]
        message = "a task was asked for, and whether it was created is not known"
        if shown:
            message += f"; it may be {' or '.join(row['id'] for row in shown)}"
        elif why:
            message += f"; looking for it failed: {why}"
        if key is None:
            hint = "see `rebyte list`; with `--once KEY` a create can be repeated safely"
        else:
            hint = (
                "run the same command again: it looks first, and sends again 15 minutes after"
                " the first attempt at the earliest; add --forget to drop the key instead"
            )
        return OutcomeUnknown(message, candidates=shown, hint=hint)


class FollowUpOperation(Operation):
    """A prompt for a task that exists: found again in the task's content."""

    def __init__(
        self, client: RebyteClient, history: History, task_id: str, body: Mapping[str, Any]
    ) -> None:
        self._client = client
        self._history = history
        self._task_id = task_id
        self.body = body
        self.prompt = str(body.get("prompt", ""))
        self.prompt_digest = digest_of(self.prompt)
        self.digest = digest_of(f"{task_id}\n{self.prompt}")
        self.body_digest = _digest(body)

    def send(self) -> dict[str, Any]:
        return dict(self._client.follow_up_from(self._task_id, self.body))

    def look(self, sent: LostRequest, seconds: float) -> Matches:
        try:
            content: Mapping[str, Any] = self._client.task_content(self._task_id, timeout=seconds)
        except ResourceNotFound:  # no content here; the task at least names its prompts
            content = self._client.get_task(self._task_id, timeout=seconds)
        return find_prompts(content, sent)

    def taken(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return {"promptId": row["id"]}

    def keep(self, answer: Mapping[str, Any], *, as_asked: bool = True) -> str:
        # The task runs again; `wait` or the next look at it would say the same.
        self._history.update_task({"id": self._task_id, "status": "running", "completedAt": None})
        return str(answer["promptId"])

    def says(self, answer: Mapping[str, Any]) -> str:
        return f"prompt {answer['promptId']} of task {self._task_id}"

    def unknown(
        self, candidates: list[dict[str, Any]], key: str | None, why: str | None
    ) -> OutcomeUnknown:
        message = f"a prompt was sent to task {self._task_id}, and whether it arrived is not known"
        shown = [
            {"id": self._task_id, "promptId": row["id"], "createdAt": row.get("submittedAt")}
            for row in candidates
        ]
        if shown:
            message += f"; it may be prompt {' or '.join(row['promptId'] for row in shown)}"
        elif why:
            message += f"; looking for it failed: {why}"
        hint = f"`rebyte logs {self._task_id}` shows what the task was told"
        return OutcomeUnknown(message, candidates=shown, hint=hint)


def _digest(body: Mapping[str, Any]) -> str:
    """What stands for a whole body. Files are only counted: each upload gives them new names."""
    files = body.get("files")
    plain = {**body, "files": len(files)} if isinstance(files, list) else dict(body)
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


# -- One attempt to make something that must not be made twice: intent, send, look, decide.

GLANCE = 2.0  # seconds for the look after an interrupt, and the least for any look
HELD = 660.0  # seconds that another process may need: its create, and its search


class Attempt:
    """The way of one errand, with the pieces that every way needs."""

    def __init__(
        self,
        errand: Operation,
        client: RebyteClient,
        history: History,
        *,
        note: Callable[[str], None],
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        look_for: float,
    ) -> None:
        self.errand = errand
        self.client = client
        self.history = history
        self.note = note
        self.clock = clock
        self.times = ServerClock(client, clock)
        self.sleep = sleep
        self.look_for = look_for
        self.has_sent = False

    # -- sending -----------------------------------------------------------------------------

    def send(self, key: str | None) -> dict[str, Any]:
        """Write the intent, send, and settle. The caller holds `key`, if there is one."""
        times = ServerClock(self.client, self.clock)
        with self._intent(key, times) as intent:
            answer: dict[str, Any] = {}
            try:
                try:
                    self.has_sent = True
                    answer = self.errand.send()
                    self._keep(intent, answer)
                except APIError as fault:
                    if not is_lost(fault):
                        raise
                    answer = self._search_lost(intent, key, times, fault)
            except (KeyboardInterrupt, Interrupted) as stop:
                status = stop.exit_status if isinstance(stop, Interrupted) else 130
                hint = self._at_interrupt(intent, key, times, answer)
                raise Interrupted(status, hint=hint) from None
            except OutcomeUnknown:
                self.settle(intent, "unknown")
                raise
            except (Unsent, Redirected):
                self.settle(intent, "unsent")
                raise
            except NetworkError:  # a 500: whether it made something, it does not say
                self.settle(intent, "unknown")
                raise
            except APIError:
                self.settle(intent, "refused")
                raise
            except RebyteError:
                self.settle(intent, "unsent")
                raise
            return answer

    @contextmanager
    def _intent(self, key: str | None, times: ServerClock) -> Iterator[Intent | None]:
        """The intent, written and synced, with proof that this process is alive while it lasts.

        Without a key a disk that cannot be written costs the proof and no more; with one, the
        promise of the key could not be kept, so nothing is sent.
        """
        owner = f"attempt {os.urandom(16).hex()}"
        with ExitStack() as stack:
            intent = None
            try:
                if key is None:
                    stack.enter_context(self.history.hold(owner))
                intent = self.history.open_intent(
                    key,
                    digest=self.errand.digest,
                    body_digest=self.errand.body_digest,
                    started_at=times.now().isoformat(timespec="milliseconds"),
                    owner=owner,
                )
            except RebyteError as problem:
                if key is not None:
                    raise
                self.note(f"{problem.message}; a crash from here on would leave no trace")
            yield intent

    def settle(self, intent: Intent | None, state: Any, **found: Any) -> None:
        """Write down how an attempt ended; a disk that refuses is told, and stops nothing.

        An intent that stays open only makes the next attempt look for its task.
        """
        if intent is None:
            return
        try:
            self.history.settle_intent(intent.id, state=state, **found)
        except RebyteError as problem:
            self.note(problem.message)

    def _keep(self, intent: Intent | None, answer: Mapping[str, Any]) -> None:
        # First the history, then the intent: others must never see neither.
        made = self.errand.keep(answer)
        self.settle(intent, "done", task_id=made, task=answer)

    # -- looking -----------------------------------------------------------------------------

    def _search_lost(
        self, intent: Intent | None, key: str | None, times: ServerClock, fault: APIError
    ) -> dict[str, Any]:
        self.note(f"{fault.message}; looking for what became of it")
        sight, why = self._look(intent, times)
        answer = self.certain(sight)
        if answer is None:
            raise self.errand.unknown(sight.candidates, key, why)
        self._keep(intent, answer)
        self.note(f"The answer was lost, but {self.errand.says(answer)} was found")
        return answer

    def _look(
        self, intent: Intent | None, times: ServerClock, *, seconds: float | None = None
    ) -> tuple[Matches, str | None]:
        """As `search`, for what this attempt has just sent."""
        errand = self.errand
        sent = LostRequest(errand.prompt_digest, times.window, errand.prompt, errand.body)
        return self.search(sent, rivals=lambda: self.rivals(intent), seconds=seconds)

    def search(
        self, sent: LostRequest, *, rivals: Callable[[], bool], seconds: float | None = None
    ) -> tuple[Matches, str | None]:
        """Look until it is certain, hopeless, or the time is over.

        Returns the last sight, without `same` when rivals leave it in doubt, and what went wrong
        with the last look.
        """
        end = self.clock() + (self.look_for if seconds is None else seconds)
        best, why, doubt = Matches([], [], whole=False), None, False
        for pause in pauses():
            try:
                best = self.errand.look(sent, max(end - self.clock(), GLANCE))
                why = None
                # Asked after the look: whoever made what was seen had its intent open by then.
                doubt = rivals()
                best = self._not_taken(best)
            except APIError as problem:
                why = problem.message
                if isinstance(problem, KeyRejected):
                    break
            if why is None and not doubt and best.whole and best.is_settled:
                break
            if self.clock() + pause >= end:
                break
            self.sleep(pause)
        return (Matches([], best.candidates, best.whole) if doubt else best), why

    def _not_taken(self, sight: Matches) -> Matches:
        """Without what another process has made its own since the look."""
        known = self.history.knows([row["id"] for row in sight.candidates])
        return Matches(
            [row for row in sight.same if row["id"] not in known],
            [row for row in sight.unsure if row["id"] not in known],
            sight.whole,
        )

    def certain(self, sight: Matches) -> dict[str, Any] | None:
        """The answer, when all were looked at and one alone is certain by its prompt."""
        if len(sight.same) == 1 and sight.whole:
            return self.errand.taken(sight.same[0])
        return None

    def rivals(self, own: Intent | None, *, alive: bool = False) -> bool:
        """Whether another attempt from here may have made the same thing at the same time.

        With `alive`, only attempts whose process is at work on them count, and lines of a batch,
        which looks for its own whenever it is run again.
        """
        if own is None:  # the history cannot be used, so nobody knows
            return False
        for other in self.history.unsettled(own.digest):
            if other.id == own.id or not self.times.near(own.started_at, other.started_at):
                continue
            if not alive or other.is_line or self.is_alive(other):
                return True
        return False

    def is_alive(self, intent: Intent) -> bool:
        """Whether a process, or a thread of this one, is at work on an intent."""
        from ..history.history import IntentHeld

        try:
            with self.history.hold(intent.key or intent.owner):
                return False
        except IntentHeld:
            return True

    # -- interrupts --------------------------------------------------------------------------

    def _at_interrupt(
        self, intent: Intent | None, key: str | None, times: ServerClock, answer: Mapping[str, Any]
    ) -> str:
        """Whether something was made, after a glance; a second interrupt cuts it short."""
        try:
            if not answer:
                sight, _ = self._look(intent, times, seconds=0)
                answer = self.certain(sight) or {}
            if answer:
                self._keep(intent, answer)
                return f"{self.errand.says(answer)} exists and runs on{self.errand.stop(answer)}"
        except (KeyboardInterrupt, Interrupted, RebyteError):
            pass
        self.settle(intent, "unknown")
        error = self.errand.unknown([], key, None)
        return f"{error.message}; {error.hint}"


def age(intent: Intent, times: ServerClock) -> timedelta:
    """How long ago an attempt began at least, by the server's clock where it is known."""
    latest: datetime = times.window_of(intent.started_at)[1] - LIFE
    return times.now() - latest


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
    errand = CreateOperation(client, history, body, prompt)
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
    errand = FollowUpOperation(client, history, task_id, body)
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
    from ..history.history import IntentHeld

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
    times = ServerClock(attempt.client, attempt.clock)
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
    from ..history.history import IntentHeld

    try:
        with attempt.history.hold(orphan.owner):
            # Asked again: another process may have taken it up a moment ago.
            if orphan.id not in {one.id for one in attempt.history.unsettled(orphan.digest)}:
                return None
            return _take_up(attempt, orphan)
    except IntentHeld:
        return None


def _take_up(attempt: Attempt, orphan: Intent) -> dict[str, Any] | None:
    times = ServerClock(attempt.client, attempt.clock)
    began = parse_time(orphan.started_at)
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


def _sent(
    attempt: Attempt, earlier: Intent, times: ServerClock, *, doubt: timedelta
) -> LostRequest:
    errand = attempt.errand
    same = earlier.digest == errand.digest
    return LostRequest(
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
