"""The transcript of a run as its supervisor writes it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ...store import Store
from ..adapters.adapter import AgentEvent
from ..sandbox import user_tools
from . import outbox, runs
from .outbox import Outbox

EVENT_BYTES = 100  # that an event takes in the database besides its payload
VALUE_BYTES = 50  # that a value takes in memory besides its text, for all who read the transcript
LONGEST_TRANSCRIPT = 64 * 1024 * 1024  # bytes of events; the agent's output is kept beside it
TRANSCRIPT_CUT = "The agent told more than 64 MB; the rest of it is not in the transcript"
# The next run passes them as arguments, and an agent can print anything.
SESSION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+\[\]-]{0,199}")


class TranscriptWriter:
    """Gives each event of a run its place, and passes it to the `outbox`.

    Any program in the sandbox can write what the agent is taken to tell, so of that it takes
    LONGEST_TRANSCRIPT bytes, however often the run waits for a usage limit and continues.
    """

    def __init__(self, store: Store, prompt: str, outbox: Outbox) -> None:
        """Continue the transcript where what is recorded of it ends. Raises StateError."""
        self._now = store.now
        self._outbox = outbox
        with store.read() as db:
            self.next_place, size, self._is_cut = runs.told_so_far(db, prompt, TRANSCRIPT_CUT)
        self._bytes = size + EVENT_BYTES * self.next_place
        self._session: dict[str, Any] = {}  # as the agent last told of it
        self._not_found: dict[str, None] = {}  # commands

    def append(self, events: Iterable[AgentEvent]) -> None:
        """Record what the agent or the setup tells, and what still waits to be recorded."""
        records: list[outbox.Record] = []
        for event in events:
            if event.kind == "init":
                if event.payload == self._session:  # each turn of some agents says it
                    continue
                self._session = event.payload
                records += _known_of_session(event.payload)
            if (kept := self._within_bound(event)) is None:
                continue
            records.append(self._placed(kept))
            if kept.kind == "tool_result":
                for name in user_tools.not_found(kept.payload.get("output")):
                    if len(self._not_found) < user_tools.MOST_NAMED:
                        self._not_found[name] = None
        self._outbox.add(records)

    def tell(self, *notes: str) -> None:
        """Show what the service itself has to say."""
        self.add(*(AgentEvent("text", {"content": note}) for note in notes))

    def add(self, *events: AgentEvent) -> None:
        """Record events of the service itself, which no bound holds back."""
        self._outbox.add([self._placed(event) for event in events])

    def hints(self, variables: Mapping[str, str]) -> list[str]:
        """What to do about commands that tools did not find; none if they found all.

        `variables` are those of the environment outside the sandbox.
        """
        path = variables.get("PATH", "")
        return [user_tools.hint(self._not_found, path)] if self._not_found else []

    def _placed(self, event: AgentEvent) -> outbox.Record:
        self.next_place += 1
        return ["event", self.next_place - 1, self._now(), *event]

    def _within_bound(self, event: AgentEvent) -> AgentEvent | None:
        """The event; in place of the first one too many, that the rest is missing; then None."""
        if self._is_cut:
            return None
        self._bytes += EVENT_BYTES + len(json.dumps(event.payload))
        self._bytes += VALUE_BYTES * _values(event.payload)
        self._is_cut = self._bytes > LONGEST_TRANSCRIPT
        return AgentEvent("text", {"content": TRANSCRIPT_CUT}) if self._is_cut else event


def _values(payload: object) -> int:
    """How many values, without keys, are in a payload."""
    inner = list(payload.values()) if isinstance(payload, dict) else payload
    return 1 + sum(map(_values, inner)) if isinstance(inner, list) else 1


def _known_of_session(payload: dict[str, Any]) -> Iterator[outbox.Record]:
    """The agent's session, known at once: it can be resumed after a cancel or a crash too."""
    for name, pattern in (("session_id", SESSION_ID), ("model", MODEL)):
        value = payload.get(name)
        if isinstance(value, str) and pattern.fullmatch(value):
            yield [name.removesuffix("_id"), value]
