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

from ..api.errors import NO_SUCH_CALL, is_unsupported
from ..api.models import is_terminal, same_word, task_status
from ..api.sse import Event
from ..deadline import NO_LIMIT, SHORTEST_CALL, Deadline
from ..errors import APIError, KeyRejected, NetworkError, ResourceNotFound
from .search import is_past

if TYPE_CHECKING:
    from ..api.client import RebyteClient


# -- What a run's stream has told so far: which events are new, and which words were said alrea

# A tuple: what an event says its kind is may be a list, which no set can be asked for.
SPEECH = ("text", "assistant", "message", "response", "result")


class StreamConnection:
    """One connection: how many events it showed, whether the agent spoke after its last tool."""

    def __init__(self, prompt_id: str | None, nameless: bool | None = True) -> None:
        """`nameless` says whether events without `promptId` are of that prompt; None: not known."""
        self._prompt_id = prompt_id
        self._nameless = nameless
        self.doubtful = False
        self.count = 0
        self.fresh = False
        self.spoke = False
        self.named = False
        self.done: dict[str, Any] | None = None
        self.error: APIError | None = None
        self.copies: dict[int, int] = {}

    def takes(self, data: Mapping[str, Any]) -> bool:
        """Count an event; False for one of another prompt, and for one that may be (`doubtful`)."""
        owner = data.get("promptId")
        if self._prompt_id is not None:
            if isinstance(owner, str) and owner:
                if owner != self._prompt_id:
                    return False
                self.named = True
            elif not self._nameless:
                self.doubtful = self._nameless is None
                return False
        self.count += 1
        kind = data.get("eventType")
        if kind == "tool_use":
            self.spoke = False
        elif kind in SPEECH and text_of(data):
            self.spoke = True
        return True


class EventDeduplicator:
    """What is known of the events across connections. `last_seq` is -1 before the first."""

    def __init__(self) -> None:
        self._seen: set[object] = set()
        self._said: list[str] = []  # without white space; an empty one for each tool in between
        self.last_seq = -1

    @property
    def anything(self) -> bool:
        """Whether there was an event at all."""
        return bool(self._seen)

    def is_new(self, data: Mapping[str, Any], look: StreamConnection) -> bool:
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
        look.fresh = True
        return True

    def told(self, data: Mapping[str, Any]) -> bool:
        """Whether a `result` repeats what was said; remembers what an event says."""
        kind = data.get("eventType")
        if kind == "tool_use":
            self._said.append("")
        text = text_of(data) if kind in SPEECH else ""
        if not text:
            return False
        if kind == "result" and self.was_said(text):
            return True
        self._said.append("".join(text.split()))
        return False

    def was_said(self, text: str) -> bool:
        """Whether this text is what was said last, in one event or in several."""
        wanted = "".join(text.split())
        heard = ""
        for piece in reversed(self._said):
            heard = piece + heard
            if not piece or len(heard) > len(wanted):
                return False
            if heard == wanted:
                return True
        return False


def text_of(data: Mapping[str, Any]) -> str:
    """The text of an event; field names vary by executor (seen in clients)."""
    payload = data.get("payload")
    if isinstance(payload, str):
        return payload
    if not isinstance(payload, dict):
        return ""
    texts = (payload.get(name) for name in ("result", "content", "text"))
    return next((text for text in texts if isinstance(text, str) and text.strip()), "")


# Words of a prompt that has not ended (the seed document; the last two seen in clients). What says
# none of these and no end is as its task is.
UNDERWAY = ("pending", "running", "queued", "processing")
# Those of a prompt whose turn has not come, so that nothing was written.
WAITING = ("pending", "queued")
# A silent stream is left after this long to ask how the task is; clients cut theirs at 20 s too.
IDLE = 20.0
# The same, once the task is known to have ended: what is readable then comes at once.
IDLE_AFTER_END = 5.0
# How often a run that has ended is looked at again when its stream shows no end of its own.
LOOKS_AFTER_END = 4
# How often, and how far apart, the last words are looked for when `done` came before them: as
# one client does, and after that as long as no other place has an answer either.
LAST_WORDS = 8
LAST_WORDS_PAUSE = 0.1
LATER = (0.25, 0.5, 1.0, 2.0)
# Seconds after its end from which a run is looked at once: longer than all of these together.
SETTLED = 10.0
# Looks that fail one after another until their error is raised; and how long (seconds) it takes
# at least once the run has shown something: a line that is down comes back.
FAILURES = 5
PATIENCE = 300.0
PAUSE = 1.0
LONGEST_PAUSE = 5.0


def follow(
    client: RebyteClient,
    task_id: str,
    *,
    prompt_id: str | None = None,
    is_latest: bool = False,
    completed_at: Any = None,
    deadline: Deadline = NO_LIMIT,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Event]:
    """The events of a task's latest prompt, each once, and one `done` at the end.

    Only `done` is named so; its data is `{"status", "lastSeq", "finalResult"}`, the status in
    the server's word, the answer from wherever it was found, possibly empty. `told` is set on a
    `result` and on `done` whose text earlier events have told. With `prompt_id`, events and ends
    of another prompt are left out: a stream is that of the latest prompt, so events that name
    none are taken once the task tells that this one is the latest (`is_latest`: it has told). A
    run that has ended already is replayed.

    `completed_at` is when the run ended, as the service wrote it, where that is known already: of
    one that ended long ago nothing more becomes readable, so it is looked at once.

    Raises WaitTimeout at the deadline, KeyRejected and ResourceNotFound at once, and other API
    errors when several connections in a row have failed: five at the start, or five minutes of
    them once the run has shown something. A service without a stream is asked for the status.
    """
    run = _Run(client, task_id, prompt_id, deadline)
    run.nameless = True if is_latest or prompt_id is None else None
    run.known = is_latest
    run.settled = is_past(client, completed_at, SETTLED)
    while True:
        look = StreamConnection(prompt_id, run.nameless)
        try:
            for event in client.stream_events(task_id, idle=run.idle()):
                run.check_time()
                if event.name == "done":
                    look.done = event.data
                    break
                run.known = True
                if look.takes(event.data) and run.heard.is_new(event.data, look):
                    yield Event("event", event.data, run.heard.told(event.data))
                if look.doubtful:
                    break
        except KeyRejected:
            raise
        except APIError as error:
            look.error = error
        run.check_time()
        end, pause = run.judge(look)
        if end is not None:
            yield end
            return
        sleep(deadline.cap(pause))


class _Run:
    """What is known across connections."""

    def __init__(
        self,
        client: RebyteClient,
        task_id: str,
        prompt_id: str | None,
        deadline: Deadline,
    ) -> None:
        self._client = client
        self._task_id = task_id
        self._prompt_id = prompt_id
        self._deadline = deadline
        self._clock = deadline.clock
        self.heard = EventDeduplicator()
        self.nameless: bool | None = None  # whether events without `promptId` are ours
        self.known = False  # whether the service has told anything of the run
        self.settled = False  # whether all that the run wrote has been readable for long
        self._looked = self._ended = self._stale = self._failed = 0
        self._failing_since = 0.0

    def idle(self) -> float:
        """How long the next connection may be silent (seconds)."""
        usual = min(IDLE, self._client.transport.limit(IDLE))
        silent = IDLE_AFTER_END if self._ended else usual
        return max(SHORTEST_CALL, self._deadline.cap(silent))

    def check_time(self) -> None:
        """Raise when the time limit has passed."""
        if self._deadline.has_passed:
            what = "still running after" if self.known else "could not be read in"
            raise self._deadline.error(f"task {self._task_id} {what}", pending=[self._task_id])

    def judge(self, look: StreamConnection) -> tuple[Event | None, float]:
        """The end, if this connection came to it, and else how long to wait (seconds)."""
        self._stale = 0 if look.fresh else self._stale + 1
        if look.error is None or look.count:
            self._failed = 0
        try:
            if look.done is not None and look.count and self.is_ours(look):
                return self._last_words(look, look.done)
            status = self.status()
            if look.doubtful and self.nameless:
                return None, 0.0
            streamless = look.error is not None and look.error.status_code in NO_SUCH_CALL
            self._ended = self._ended + 1 if is_terminal(status) else 0
            enough = streamless or (self.settled and look.done is not None)
            if self._ended == LOOKS_AFTER_END or (self._ended and enough):
                return self.end({"status": status, "lastSeq": self.heard.last_seq}), 0.0
            fault = None if streamless or _is_idle(look.error) else look.error
        except (KeyRejected, ResourceNotFound):
            raise
        except APIError as error:
            fault = error
        if fault is not None:
            self._fail(fault)
        if look.count:
            return None, min(LONGEST_PAUSE, LAST_WORDS_PAUSE * 2.0**self._stale)
        return None, min(LONGEST_PAUSE, PAUSE * max(1, self._failed))

    def _fail(self, error: APIError) -> None:
        """Count a look that came to nothing; raises its error when there were too many."""
        self.check_time()
        self._failing_since = self._failing_since if self._failed else self._clock()
        self._failed += 1
        patience = PATIENCE if self.heard.anything else 0.0
        if self._failed >= FAILURES and self._clock() - self._failing_since >= patience:
            raise error

    def _last_words(
        self, look: StreamConnection, done: Mapping[str, Any]
    ) -> tuple[Event | None, float]:
        """The end that a connection showed, unless the agent's last words are still to come."""
        looked, self._looked = self._looked, self._looked + 1
        enough = look.spoke or self.settled
        if not enough and looked < LAST_WORDS:
            return None, LAST_WORDS_PAUSE
        end, later = self.end(done), LATER[max(0, looked - LAST_WORDS) :]
        answerless = same_word(done.get("status")) in ("failed", "canceled")
        if enough or answerless or end.data["finalResult"] or not later:
            return end, 0.0
        return None, later[0]

    def is_ours(self, look: StreamConnection) -> bool:
        """Whether an end is that of our prompt; asks the task when no event said so."""
        if self._prompt_id is None or look.named:
            return True
        return is_terminal(self.status())

    def _task(self) -> dict[str, Any]:
        return self._client.get_task(self._task_id, timeout=self._deadline.for_call())

    def status(self) -> str:
        """The status of our prompt, or of the latest one, as the task tells it."""
        task = self._task()
        self.known = True
        prompts = task.get("prompts")
        rows = (
            [row for row in prompts if isinstance(row, dict)] if isinstance(prompts, list) else []
        )
        if self._prompt_id is not None and rows:
            self.nameless = rows[-1].get("id") == self._prompt_id
            if self.nameless and rows[-1].get("status") in WAITING:
                self.nameless = None  # what comes is of a prompt before; asked again until then
            rows = [row for row in rows if row.get("id") == self._prompt_id]
            if not rows:
                return "pending"
        else:
            self.nameless = True
        word = rows[-1].get("status") if rows else None
        if isinstance(word, str) and (word in UNDERWAY or is_terminal(word) or not self.nameless):
            return word
        return task_status(task)

    def end(self, done: Mapping[str, Any]) -> Event:
        """The last event, with the answer."""
        given = done.get("finalResult")
        answer = given if isinstance(given, str) and given.strip() else self._response()
        seq = done.get("lastSeq")
        data = {
            **done,
            "status": done.get("status"),
            "lastSeq": seq if isinstance(seq, int) and seq >= 0 else self.heard.last_seq,
            "finalResult": answer,
        }
        return Event("done", data, bool(answer.strip()) and self.heard.was_said(answer))

    def _response(self) -> str:
        """The answer as the content has it, or the task itself."""
        text = self._from_content() or self._task().get("finalResult")
        return text if isinstance(text, str) else ""

    def _from_content(self) -> Any:
        try:
            timeout = self._deadline.for_call()
            content = self._client.task_content(self._task_id, timeout=timeout)
        except APIError as error:
            if is_unsupported(error):
                return None
            raise
        prompts = content.get("prompts")
        rows = (
            [row for row in prompts if isinstance(row, dict)] if isinstance(prompts, list) else []
        )
        if self._prompt_id is not None:
            rows = [row for row in rows if row.get("id") == self._prompt_id]
        return rows[-1].get("response") if rows else None


def _is_idle(error: APIError | None) -> bool:
    """Whether a connection ended because nothing came, which is no fault."""
    return error is not None and error.code == "timeout"


# -- What a run has written so far: one look at its event stream, without staying for the rest.

SNAPSHOT_PAUSE = 1.5  # seconds without an event after which the replay is taken to be over


def snapshot(
    client: RebyteClient, task_id: str, *, pause: float = SNAPSHOT_PAUSE
) -> list[dict[str, Any]]:
    """The events of the latest prompt that are there now.

    A stream starts with everything that was written and then goes on live (seen in clients), so
    the first pause ends the look.
    """
    found: list[dict[str, Any]] = []
    try:
        for event in client.stream_events(task_id, idle=pause):
            if event.name == "done":
                break
            found.append(event.data)
    except NetworkError as error:
        if error.code != "timeout" and not found:
            raise
    return found
