"""One attempt to make something that must not be made twice: intent, send, look, decide.

    earlier attempt with the same prompt and no known end, its process gone?
        found: take it                    not found: go on
    write the intent, synced ── send ──┬── answered: keep it
                                       ├── refused, or never sent: say so
                                       └── no answer: look ──┬── one certain match: take it
                                                             └── else: outcome unknown
What is sent, where it would show and what is kept of it is an `Errand`: a create, a follow-up.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from ..errors import (
    APIError,
    Interrupted,
    KeyRejected,
    NetworkError,
    OutcomeUnknown,
    RebyteError,
    Redirected,
    Unsent,
)
from .looking import Sent, Sight, is_lost, pauses
from .server_clock import LIFE, Clock

if TYPE_CHECKING:
    from ..api.client import RebyteClient
    from ..profiles.history import History
    from ..profiles.intents import Intent
    from .errands import Errand

GLANCE = 2.0  # seconds for the look after an interrupt, and the least for any look
HELD = 660.0  # seconds that another process may need: its create, and its search


class Attempt:
    """The way of one errand, with the pieces that every way needs."""

    def __init__(
        self,
        errand: Errand,
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
        self.times = Clock(client, clock)
        self.sleep = sleep
        self.look_for = look_for
        self.has_sent = False

    # -- sending -----------------------------------------------------------------------------

    def send(self, key: str | None) -> dict[str, Any]:
        """Write the intent, send, and settle. The caller holds `key`, if there is one."""
        times = Clock(self.client, self.clock)
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
    def _intent(self, key: str | None, times: Clock) -> Iterator[Intent | None]:
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
        self, intent: Intent | None, key: str | None, times: Clock, fault: APIError
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
        self, intent: Intent | None, times: Clock, *, seconds: float | None = None
    ) -> tuple[Sight, str | None]:
        """As `search`, for what this attempt has just sent."""
        errand = self.errand
        sent = Sent(errand.prompt_digest, times.window, errand.prompt, errand.body)
        return self.search(sent, rivals=lambda: self.rivals(intent), seconds=seconds)

    def search(
        self, sent: Sent, *, rivals: Callable[[], bool], seconds: float | None = None
    ) -> tuple[Sight, str | None]:
        """Look until it is certain, hopeless, or the time is over.

        Returns the last sight, without `same` when rivals leave it in doubt, and what went wrong
        with the last look.
        """
        end = self.clock() + (self.look_for if seconds is None else seconds)
        best, why, doubt = Sight([], [], whole=False), None, False
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
        return (Sight([], best.candidates, best.whole) if doubt else best), why

    def _not_taken(self, sight: Sight) -> Sight:
        """Without what another process has made its own since the look."""
        known = self.history.knows([row["id"] for row in sight.candidates])
        return Sight(
            [row for row in sight.same if row["id"] not in known],
            [row for row in sight.unsure if row["id"] not in known],
            sight.whole,
        )

    def certain(self, sight: Sight) -> dict[str, Any] | None:
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
        from ..profiles.intents import IntentHeld

        try:
            with self.history.hold(intent.key or intent.owner):
                return False
        except IntentHeld:
            return True

    # -- interrupts --------------------------------------------------------------------------

    def _at_interrupt(
        self, intent: Intent | None, key: str | None, times: Clock, answer: Mapping[str, Any]
    ) -> str:
        """Whether something was made, after a glance; a second interrupt cuts it short."""
        try:
            if not answer:
                sight, _ = self._look(intent, times, seconds=0)
                answer = self.certain(sight) or {}
            if answer:
                self._keep(intent, answer)
                return f"{self.errand.says(answer)} exists and runs on{self.errand.stop(answer)}"
        except (KeyboardInterrupt, RebyteError):
            pass
        self.settle(intent, "unknown")
        error = self.errand.unknown([], key, None)
        return f"{error.message}; {error.hint}"


def age(intent: Intent, times: Clock) -> timedelta:
    """How long ago an attempt began at least, by the server's clock where it is known."""
    latest: datetime = times.window_of(intent.started_at)[1] - LIFE
    return times.now() - latest
