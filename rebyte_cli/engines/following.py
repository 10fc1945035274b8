"""One run, from its first event to its answer, over as many connections as it takes.

The stream has traps (all seen in clients): it may say `done` before the run has begun, it
replays everything on each connection, its numbers move, its end can be told before the last
events are readable, the answer comes up to three times, and it may just close.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..api.models import is_terminal, task_status
from ..api.sse import Event
from ..errors import APIError, BrokenAnswer, KeyRejected, ResourceNotFound, WaitTimeout

if TYPE_CHECKING:
    from ..api.client import RebyteClient

# A silent stream is left after this long to ask how the task is; clients cut theirs at 20 s too.
IDLE = 20.0
# The same, once the task is known to have ended: what is readable then comes at once.
IDLE_AFTER_END = 5.0
# How often a run that has ended is looked at again when its stream shows no end of its own.
LOOKS_AFTER_END = 4
# How often, and how far apart, the last words are looked for when `done` came before them.
LAST_WORDS = 8
LAST_WORDS_PAUSE = 0.1
# Connections that fail one after another without a new event, until their error is raised.
FAILURES = 5
PAUSE = 1.0
LONGEST_PAUSE = 5.0

SPEECH = frozenset({"text", "assistant", "message", "response", "result"})


def follow(
    client: RebyteClient,
    task_id: str,
    *,
    prompt_id: str | None = None,
    timeout: float | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Event]:
    """The events of a task's latest prompt, each once, and one `done` at the end.

    Only `done` is named so; its data is `{"status", "lastSeq", "finalResult"}`, the status in
    the server's word, the answer from wherever it was found, possibly empty. `told` is set on a
    `result` and on `done` whose text earlier events have told. With `prompt_id`, events and ends
    of another prompt are left out. A run that has ended already is replayed.

    Raises WaitTimeout after `timeout` seconds, KeyRejected and ResourceNotFound at once, and
    other errors of the wire when several connections have failed in a row.
    """
    run = _Run(client, task_id, prompt_id, timeout, clock)
    last_words = ended = failures = stale = 0
    while True:
        look = _Look(prompt_id)
        fresh = 0
        try:
            for event in client.stream_events(task_id, idle=run.idle(ended > 0)):
                run.check_time()
                if event.name == "done":
                    look.done = event.data
                    break
                if look.takes(event.data) and run.is_new(event.data, look):
                    fresh += 1
                    yield Event("event", event.data, run.told(event.data))
        except KeyRejected:
            raise
        except APIError as error:
            look.error = error
        run.check_time()
        failures, stale = (0, 0) if fresh else (failures, stale + 1)
        if look.done is not None and look.count and run.is_ours(look):
            if look.spoke or last_words == LAST_WORDS:
                yield run.end(look.done)
                return
            last_words += 1
            sleep(LAST_WORDS_PAUSE)
            continue
        status = run.status()
        if look.error is not None and look.error.code != "timeout":
            failures += 1
            if failures == FAILURES:
                raise look.error
        ended = ended + 1 if is_terminal(status) else 0
        if ended == LOOKS_AFTER_END:
            yield run.end({"status": status, "lastSeq": run.last_seq})
            return
        pause = min(LONGEST_PAUSE, LAST_WORDS_PAUSE * 2.0**stale) if look.count else PAUSE
        sleep(min(pause, run.left()))


class _Look:
    """One connection: how many events it showed, whether the agent spoke after its last tool."""

    def __init__(self, prompt_id: str | None) -> None:
        self._prompt_id = prompt_id
        self.count = 0
        self.spoke = False
        self.named = False
        self.done: dict[str, Any] | None = None
        self.error: APIError | None = None
        self.copies: dict[int, int] = {}

    def takes(self, data: Mapping[str, Any]) -> bool:
        """Count an event; False for one of another prompt."""
        owner = data.get("promptId")
        if self._prompt_id is not None and isinstance(owner, str):
            if owner != self._prompt_id:
                return False
            self.named = True
        self.count += 1
        kind = data.get("eventType")
        if kind == "tool_use":
            self.spoke = False
        elif kind in SPEECH and text_of(data):
            self.spoke = True
        return True


class _Run:
    """What is known across connections."""

    def __init__(
        self,
        client: RebyteClient,
        task_id: str,
        prompt_id: str | None,
        timeout: float | None,
        clock: Callable[[], float],
    ) -> None:
        self._client = client
        self._task_id = task_id
        self._prompt_id = prompt_id
        self._timeout = timeout
        self._clock = clock
        self._by = None if timeout is None else clock() + timeout
        self._seen: set[object] = set()
        self._said: list[str] = []  # without white space; an empty one for each tool in between
        self.last_seq = -1

    def left(self) -> float:
        """Seconds until the time limit."""
        return float("inf") if self._by is None else max(0.0, self._by - self._clock())

    def idle(self, ended: bool) -> float:
        """How long the next connection may be silent (seconds)."""
        usual = min(IDLE, self._client.transport.limit(IDLE))
        return max(0.05, min(IDLE_AFTER_END if ended else usual, self.left()))

    def check_time(self) -> None:
        """Raise when the time limit has passed."""
        if self.left() <= 0:
            raise WaitTimeout(
                f"task {self._task_id} still runs after {self._timeout:g} s",
                pending=[self._task_id],
            )

    def is_new(self, data: Mapping[str, Any], look: _Look) -> bool:
        """Whether an event was not there on an earlier connection.

        By `eventKey` where there is one. Otherwise by all that it holds but `seq`, and by how
        many like it came before on the same connection: a number may move when a row that
        became readable late is inserted, so the same number need not be the same event.
        """
        seq = data.get("seq")
        if isinstance(seq, int):
            self.last_seq = max(self.last_seq, seq)
        key: object = data.get("eventKey")
        if not isinstance(key, str) or not key:
            rest = {name: value for name, value in data.items() if name != "seq"}
            digest = hash(json.dumps(rest, sort_keys=True))
            copy = look.copies.get(digest, 0)
            look.copies[digest] = copy + 1
            key = (digest, copy)
        if key in self._seen:
            return False
        self._seen.add(key)
        return True

    def told(self, data: Mapping[str, Any]) -> bool:
        """Whether a `result` repeats what was said; remembers what an event says."""
        kind = data.get("eventType")
        if kind == "tool_use":
            self._said.append("")
        text = text_of(data) if kind in SPEECH else ""
        if not text:
            return False
        if kind == "result" and self._was_said(text):
            return True
        self._said.append("".join(text.split()))
        return False

    def _was_said(self, text: str) -> bool:
        wanted = "".join(text.split())
        heard = ""
        for piece in reversed(self._said):
            heard = piece + heard
            if not piece or len(heard) > len(wanted):
                return False
            if heard == wanted:
                return True
        return False

    def is_ours(self, look: _Look) -> bool:
        """Whether an end is that of our prompt; asks the task when no event said so."""
        if self._prompt_id is None or look.named:
            return True
        return is_terminal(self.status())

    def status(self) -> str:
        """The status of our prompt, or of the latest one, as the task tells it."""
        left = self.left()
        task = self._client.get_task(self._task_id, timeout=None if self._by is None else left)
        prompts = task.get("prompts")
        rows = (
            [row for row in prompts if isinstance(row, dict)] if isinstance(prompts, list) else []
        )
        if self._prompt_id is not None and rows:
            rows = [row for row in rows if row.get("id") == self._prompt_id]
            return str(rows[0].get("status")) if rows else "pending"
        return str(rows[-1].get("status")) if rows else task_status(task)

    def end(self, done: Mapping[str, Any]) -> Event:
        """The last event, with the answer."""
        given = done.get("finalResult")
        answer = given if isinstance(given, str) and given.strip() else self._response()
        seq = done.get("lastSeq")
        data = {
            **done,
            "status": done.get("status"),
            "lastSeq": seq if isinstance(seq, int) and seq >= 0 else self.last_seq,
            "finalResult": answer,
        }
        return Event("done", data, bool(answer.strip()) and self._was_said(answer))

    def _response(self) -> str:
        try:
            content = self._client.task_content(self._task_id)
        except (ResourceNotFound, BrokenAnswer):  # an endpoint that only clients have shown
            return ""
        prompts = content.get("prompts")
        rows = (
            [row for row in prompts if isinstance(row, dict)] if isinstance(prompts, list) else []
        )
        if self._prompt_id is not None:
            rows = [row for row in rows if row.get("id") == self._prompt_id]
        text = rows[-1].get("response") if rows else None
        return text if isinstance(text, str) else ""


def text_of(data: Mapping[str, Any]) -> str:
    """The text of an event; field names vary by executor (seen in clients)."""
    payload = data.get("payload")
    if isinstance(payload, str):
        return payload
    if not isinstance(payload, dict):
        return ""
    texts = (payload.get(name) for name in ("result", "content", "text"))
    return next((text for text in texts if isinstance(text, str) and text.strip()), "")
