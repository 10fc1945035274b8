"""Prompts whose turn comes before the latest one, as the content shows them: no stream does.

A task runs its prompts one after another, so whoever follows it while several wait sees each of
them end before the stream of the latest begins.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..api.models import is_terminal, same_word
from ..errors import APIError, NetworkError, WaitTimeout
from .content import told
from .following import WAITING
from .heard import Heard, Look

if TYPE_CHECKING:
    from ..api.client import RebyteClient

PAUSE = 1.0
LONGEST_PAUSE = 5.0
GROWTH = 1.25
FAULTS = 5  # looks in a row that may fail
LATE = 3  # looks for the last words of a prompt that has ended; they may be readable later


class Turn(NamedTuple):
    """What one look shows of a prompt: its `events` that are new, each with whether an earlier
    one has told its text; `first` and `last` say which look it is.
    """

    prompt: Mapping[str, Any]
    events: list[tuple[Mapping[str, Any], bool]]
    first: bool
    last: bool


class Turns:
    """The prompts before the latest, oldest first; each is waited for while its turn can come.

    `found` is the content document, always the newest that was read. A prompt is left as it is
    once a later one has begun: it is stuck (seen in a client). Raises WaitTimeout `timeout`
    seconds after `since`, and the error of the wire when several looks have failed in a row.
    """

    def __init__(
        self,
        client: RebyteClient,
        task_id: str,
        found: dict[str, Any],
        *,
        timeout: float | None,
        since: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.found = found
        self._client = client
        self._task_id = task_id
        self._timeout = timeout
        self._since = since
        self._clock = clock
        self._sleep = sleep
        self._pause = PAUSE
        self._faults = 0

    def __iter__(self) -> Iterator[Turn]:
        at = 0
        while at < len(self.found["prompts"]) - 1:
            yield from self._of(at)
            at += 1

    def _of(self, at: int) -> Iterator[Turn]:
        heard, late, first = Heard(), 0, True
        while True:
            prompt, look = self.found["prompts"][at], Look(None)
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
            yield Turn(prompt, new, first, over)
            if over:
                return
            first = False
            self._again()

    def _is_over(self, at: int) -> bool:
        mine, *later = [prompt.get("status") for prompt in self.found["prompts"][at:]]
        return is_terminal(mine) or not all(word in WAITING for word in later)

    def _again(self) -> None:
        """Read the content once more, after a pause."""
        left = self._left()
        self._sleep(self._pause if left is None else min(self._pause, left))
        self._pause = min(self._pause * GROWTH, LONGEST_PAUSE)
        left = self._left()
        try:
            found, _ = told(self._client, self._task_id, left)
            self._faults = 0
        except APIError as error:
            self._faults += 1
            if not isinstance(error, NetworkError) or self._faults == FAULTS:
                raise
            return
        # A document with fewer prompts than before would lose the place.
        if len(found["prompts"]) >= len(self.found["prompts"]):
            self.found = found

    def _left(self) -> float | None:
        """Seconds until the time limit; WaitTimeout when there are none."""
        if self._timeout is None:
            return None
        left = self._since + self._timeout - self._clock()
        if left <= 0:
            late = f"task {self._task_id} still runs after {self._timeout:g} s"
            raise WaitTimeout(late, pending=[self._task_id])
        return left


def events_of(prompt: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The events that a content document lists for a prompt, those that are objects."""
    listed = prompt.get("events")
    rows = listed if isinstance(listed, list) else []
    return [event for event in rows if isinstance(event, Mapping)]
