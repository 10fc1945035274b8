"""Carry out a request that creates something, at most once.

An operation takes four steps: write down the intent, send the request, search for what it created
if the answer was lost, and decide. What the steps do is the same for a create and for a follow-up;
what is sent and how its result is recognised is a `TaskRequest` or a `PromptRequest`.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ..errors import (
    APIError,
    BadUsage,
    Interrupted,
    KeyRejected,
    NetworkError,
    Next,
    OutcomeUnknown,
    RebyteError,
    Redirected,
    Term,
    Unsent,
)
from ..history.rows import beginning_of
from ..system.deadline import NO_LIMIT, Deadline
from .judge import Row
from .request_kinds import PromptRequest, TaskRequest
from .scan import LostRequest, is_lost
from .search import PACE, Pace, Search
from .server_clock import LIFE

if TYPE_CHECKING:
    from ..history.rows import Intent

KEY_WAIT = 660.0  # seconds that another process may need: its create, and its search
KEY_PAUSE = 0.25


class Operation:
    """One request that must not be carried out twice: intent, send, search, decide."""

    def __init__(
        self,
        request: TaskRequest | PromptRequest,
        note: Callable[[str], None],
        deadline: Deadline = NO_LIMIT,
        sleep: Callable[[float], None] = time.sleep,
        *,
        pace: Pace = PACE,
        repeated: Callable[[Intent], dict[str, Any]],
        on_created: Callable[[], None] = lambda: None,
        on_attempt: Callable[[str, bool], None] = lambda _name, _is_new: None,
        warn: Callable[[str], None] | None = None,
        send_again_after: timedelta = LIFE,
    ) -> None:
        """`repeated` is called with the intent of a key that has a result, and returns that.

        `on_attempt` is as in `tasks.create.create`.
        """
        self._send_again_after = send_again_after
        self._request = request
        self._history = request.history
        self._note = note
        self._warn = warn or note
        self._deadline = deadline
        self._clock = deadline.clock
        self._sleep = sleep
        self._pace = pace
        self._repeated = repeated
        self._on_created = on_created
        self._on_attempt = on_attempt
        self._server_clock = request.server_clock
        self._replaced: Intent | None = None  # an attempt of this key that created nothing
        self._has_waited = False  # for another process at work on the key
        self._has_sent = False

    def run(self, key: str | None = None) -> dict[str, Any]:
        """Return what was created, now or by an earlier attempt; see `tasks.create.create`."""
        try:
            if key is None:
                return self._resume_unfinished() or self._send()
            with self._held_key(key):
                return self._resume_key(key) or self._send(key)
        except (KeyboardInterrupt, Interrupted) as stop:
            if self._has_sent:  # `_send` has said what became of that
                raise
            status = Interrupted.of(stop).exit_status
            raise Interrupted(status, hint="Nothing was sent yet") from None

    # Send

    def _send(self, key: str | None = None) -> dict[str, Any]:
        """Write down the intent, send the request, and settle the intent with its outcome.

        The caller holds `key`, if there is one.
        """
        before = None if key is None else self._request.baseline(self._deadline)
        started_at = self._server_clock.timestamp(before)
        owner = f"attempt {os.urandom(16).hex()}"
        with self._intent(key, started_at, owner) as intent:
            if intent is not None and intent.state == "done":
                return self._repeat(intent)
            answer: dict[str, Any] = {}
            try:
                self._on_attempt(owner, True)
                try:
                    self._has_sent = True
                    answer = dict(self._request.send(timeout=self._deadline.for_call()))
                    self._tell_taken(answer)
                    self._keep(intent, answer)
                except APIError as fault:
                    if not is_lost(fault):
                        raise
                    answer = self._find_lost(intent, key, started_at, fault)
            except (KeyboardInterrupt, Interrupted) as stop:
                hint = self._after_interrupt(intent, key, started_at, answer)
                raise Interrupted(Interrupted.of(stop).exit_status, hint=hint) from None
            except (Unsent, Redirected):
                self._settle(intent, "unsent")
                raise
            except (OutcomeUnknown, NetworkError) as fault:
                # A 500 does not say whether it created it.
                could_be = fault.candidates if isinstance(fault, OutcomeUnknown) else []
                ids = [str(each.get("promptId", each["id"])) for each in could_be]
                self._settle(intent, "unknown", candidates=ids)
                raise
            except APIError:
                self._settle(intent, "refused")
                raise
            except RebyteError:
                self._settle(intent, "unsent")
                raise
            return answer

    @contextmanager
    def _intent(self, key: str | None, started_at: str, owner: str) -> Iterator[Intent | None]:
        """Write the intent, synced, and hold it while the request is under way.

        Without a key a disk that cannot be written only costs the intent; with one, the promise
        of the key could not be kept, so nothing is sent.
        """
        with ExitStack() as stack:
            intent = None
            try:
                if key is None:
                    stack.enter_context(self._history.intents.hold(owner))
                intent = self._history.intents.open(
                    key,
                    digest=self._request.digest,
                    body_digest=self._request.body_digest,
                    started_at=started_at,
                    owner=owner,
                    replaces=self._replaced,
                    begins=beginning_of(self._request.prompt),
                    target=self._request.target,
                )
            except RebyteError as problem:
                if key is not None:
                    raise
                self._note(
                    f"{problem.message}; if rebyte crashes now, it cannot look for this task later"
                )
            yield intent

    def _settle(self, intent: Intent | None, state: Any, **result: Any) -> None:
        """Write down how an intent ended. A disk that refuses is noted, and stops nothing: an
        intent that stays open only makes the next attempt search for its result.
        """
        if intent is None:
            return
        try:
            self._history.intents.settle(
                intent.id,
                state=state,
                started_at=self._server_clock.restamp(intent.started_at),
                **result,
            )
        except RebyteError as problem:
            self._note(problem.message)

    def _keep(
        self,
        intent: Intent | None,
        answer: Mapping[str, Any],
        *,
        is_found: bool = False,
    ) -> None:
        def write() -> None:
            result_id = self._request.remember(answer)
            taken = [result_id] if is_found else []
            self._settle(intent, "done", task_id=result_id, task=answer, candidates=taken)

        # In one step: a task that the history knows, of an intent that is open, would be taken for
        # that of another request.
        if intent is None:
            write()
        else:
            self._history.together(write, synced=True)
        self._on_created()

    def _tell_taken(self, answer: Mapping[str, Any]) -> None:
        """Warn if another request has what the service answered with.

        The service knows best whose it is: a key that took it after a search is unknown again.
        """
        if self._request.target is not None or not self._history.knows([str(answer["id"])]):
            return
        keys = self._history.intents.reopen(str(answer["id"]))
        whose = (
            f"for that of key {keys[0]!r}, which will be searched for again"
            if keys
            else "for that of an earlier request, which may have another one, or none"
        )
        self._warn(f"{self._request.describe(answer)} was taken {whose}")

    def _find_lost(
        self, intent: Intent | None, key: str | None, started_at: str, fault: APIError
    ) -> dict[str, Any]:
        """Search for the result of what was just sent; OutcomeUnknown if it is not certain."""
        self._note(f"{fault.message}; looking for the result")
        search = self._search_own(intent, started_at)
        if (answer := self._kept_result(search, intent)) is not None:
            return answer
        raise self._request.unknown(search.verdict.candidates, key, search.failure)

    # Search

    def search(
        self,
        lost: LostRequest,
        own: Intent | None,
        seconds: float | None = None,
        *,
        alive: bool = False,
        prove_absence: bool = False,
    ) -> Search:
        """Scan until the result is certain, hopeless, or the time is over.

        If another attempt than `own` may have created what was found, nothing is certain; `alive`
        is as in `SentFromHere`. With `prove_absence`, scans that agree that there is no result go
        on past the time, up to the caller's deadline, until there are enough of them.
        """
        self._request.rivals.own, self._request.rivals.alive = own, alive
        # A search that a time limit cuts short proves nothing.
        seconds = self._deadline.cap(self._pace.look_for) if seconds is None else seconds
        search = Search(self._pace, self._clock(), seconds)
        while True:
            began, verdict = self._clock(), None
            try:
                limit = Deadline(search.longest_scan(began), clock=self._clock)
                (verdict,) = self._request.scan([lost], limit)
                search.failure = None
            except APIError as problem:
                search.failure = problem.message
                if isinstance(problem, KeyRejected):
                    return search
            search.add(verdict, began, proves=prove_absence)
            now = self._clock()
            if search.outcome(now, self._deadline.left()) != "again":
                return search
            self._sleep(search.pause(now))

    def _search_own(
        self, intent: Intent | None, started_at: str, seconds: float | None = None
    ) -> Search:
        """Search for the result of what this operation has just sent."""
        lost = LostRequest(self._request.prompt_digest, started_at, self._request.body, is_own=True)
        return self.search(lost, intent, seconds)

    def _search_earlier(
        self, earlier: Intent, seconds: float | None = None, *, alive: bool = False
    ) -> Search:
        """Search for the result of an attempt of another process; `alive` as in SentFromHere."""
        request = self._request
        is_same = earlier.digest == request.digest
        lost = LostRequest(
            request.prompt_digest if is_same else earlier.digest,
            earlier.started_at,
            request.body if earlier.body_digest == request.body_digest else {},
            candidates=earlier.candidates,
        )
        return self.search(lost, earlier, seconds, alive=alive, prove_absence=seconds != 0.0)

    def _kept_result(self, search: Search, intent: Intent | None) -> dict[str, Any] | None:
        """The answer, if exactly one result is certain; the history and the intent then have it."""
        if search.verdict.task is None:
            return None
        answer = self._request.answer_from(search.verdict.task)
        self._keep(intent, answer, is_found=True)
        self._note(f"The response was lost, but {self._request.describe(answer)} was found")
        return answer

    # Earlier attempts

    @contextmanager
    def _held_key(self, key: str) -> Iterator[None]:
        """Hold the key; while another process is at work on it, wait for that one to end."""
        from ..history.intents import IntentHeld

        limit = self._deadline.within(KEY_WAIT)
        with ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(self._history.intents.hold(key))
                    break
                except IntentHeld:
                    if limit.has_passed:
                        raise
                if not self._has_waited:
                    self._note(f"Waiting for another process that is creating the task for {key!r}")
                    self._has_waited = True
                self._sleep(limit.cap(KEY_PAUSE))
            yield

    def _resume_key(self, key: str) -> dict[str, Any] | None:
        """Return the task that this key has created; None if it certainly has created none."""
        earlier = self._history.intents.of(key)
        if earlier is None or earlier.state not in ("done", "open", "unknown"):
            return None
        if earlier.digest != self._request.digest and self._request.target is None:
            raise BadUsage(
                Term("--once", "`once`")
                + f": key {key!r} is that of another prompt, so nothing was sent",
                hint="Use another key, or forget this one: "
                + Next("create", "--once", shlex.quote(key), "--forget"),
            )
        if earlier.state == "done":
            return self._repeat(earlier)
        self._note(f"An earlier attempt for {key!r} got no response; looking for its result")
        # Another process that had the key a moment ago has searched for long enough.
        is_searched = self._has_waited and earlier.state == "unknown"
        search = self._search_earlier(earlier, seconds=0.0 if is_searched else None)
        if (answer := self._kept_result(search, earlier)) is not None:
            self._on_attempt(earlier.owner, False)
            return answer
        age = self._server_clock.age(earlier.started_at)
        if search.is_absent and age > self._send_again_after:
            self._note("It created nothing; sending the request again")
            self._replaced = earlier
            return None
        raise self._unknown(earlier, search)

    def _repeat(self, earlier: Intent) -> dict[str, Any]:
        self._on_attempt(earlier.owner, False)
        return self._repeated(earlier)

    def _unknown(self, earlier: Intent, search: Search) -> OutcomeUnknown:
        """Settle an earlier attempt as unknown; the error names what any search found possible."""
        seen = {str(row["id"]): row for row in search.verdict.candidates}
        taken = self._history.knows(earlier.candidates)
        named = {each: {"id": each} for each in earlier.candidates if each not in taken} | seen
        self._settle(earlier, "unknown", candidates=named)
        return self._request.unknown([*named.values()], earlier.key, search.failure)

    def _resume_unfinished(self) -> dict[str, Any] | None:
        """Return what an attempt at the same that was cut off has created; None to send."""
        try:
            unfinished = [
                earlier
                for earlier in self._history.intents.unsettled(self._request.digest)
                if earlier.key is None
                and earlier.state != "given up"
                and earlier.body_digest == self._request.body_digest
            ]
        except RebyteError:  # sending says what is wrong with the history
            return None
        for earlier in unfinished:
            answer = self._resume_one(earlier)
            if answer is not None:
                return answer
        return None

    def _resume_one(self, earlier: Intent) -> dict[str, Any] | None:
        """Return what a dead process has created; None if it is alive or created nothing."""
        from ..history.intents import IntentHeld

        try:
            with self._history.intents.hold(earlier.owner):
                # Ask again: another process may have resumed it a moment ago.
                left = self._history.intents.unsettled(earlier.digest)
                if earlier.id not in {one.id for one in left}:
                    return None
                return self._take_over(earlier)
        except IntentHeld:
            return None

    def _take_over(self, earlier: Intent) -> dict[str, Any] | None:
        if self._server_clock.age(earlier.started_at) > LIFE:
            self._settle(earlier, "given up")
            return None
        age = self._server_clock.age(earlier.started_at).total_seconds()
        seconds = max(self._pace.look_for, self._pace.listed_after - age)
        self._note(
            "An earlier identical request got no response; looking for its result for up to"
            f" {seconds:.0f} s"
        )
        search = self._search_earlier(earlier, self._deadline.cap(seconds), alive=True)
        if (answer := self._kept_result(search, earlier)) is not None:
            self._on_attempt(earlier.owner, False)
            return answer
        if self._server_clock.age(earlier.started_at) > LIFE:
            self._settle(earlier, "given up")
            return None
        # A dead attempt never reported that its outcome is unknown. Repeating the command after
        # that report is deliberate, unless there are two to choose from.
        if earlier.state != "unknown" or len(search.verdict.same) > 1:
            raise self._unknown(earlier, search)
        reason = f"Looking for it failed ({search.failure}); " if search.failure else ""
        self._note(f"{reason or 'It was not found; '}sending the request again")
        self._settle(earlier, "given up")
        return None

    # Interrupts

    def _after_interrupt(
        self, intent: Intent | None, key: str | None, started_at: str, answer: Mapping[str, Any]
    ) -> str:
        """Say whether something was created, after one scan; a second interrupt ends that, too."""
        request, could_be, is_found = self._request, list[Row](), not answer
        try:
            if is_found:
                search = self._search_own(intent, started_at, seconds=0)
                could_be = search.verdict.candidates
                if search.verdict.task is not None:
                    answer = request.answer_from(search.verdict.task)
            if answer:
                self._keep(intent, answer, is_found=is_found)
                made = request.describe(answer)
                return f"{made} exists and keeps running" + request.stop_hint(answer)
        except (KeyboardInterrupt, Interrupted, RebyteError):
            pass
        self._settle(intent, "unknown", candidates=[row["id"] for row in could_be])
        error = request.unknown([], key)
        return error.message + "; " + str(error.hint)
