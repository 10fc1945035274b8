"""One run, from its first event to its answer, over as many connections as it takes.

The event stream has traps (all seen in clients): it may say `done` before the run has begun, it
replays everything on each connection, its numbers move, the end can be announced before the last
events are readable, the answer comes up to three times, and the connection may just close.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..api.failures import NO_SUCH_CALL, is_unsupported
from ..api.sse import StreamEvent
from ..api.status import canonical_status, is_terminal
from ..api.views import UNFINISHED, ContentView, EventView, TaskView, integer, text
from ..errors import APIError, KeyRejected, NetworkError, Next, ResourceNotFound
from ..once.server_clock import is_past
from ..system.deadline import NO_LIMIT, SHORTEST_CALL, Deadline, Patience

if TYPE_CHECKING:
    from ..api.client import RebyteClient

# How often a run that has ended is read when its stream shows no end, and if it shows nothing.
READS_AFTER_END = 4
READS_OF_NOTHING = 2
# How often, and how far apart, the last words are asked for when `done` came before them: as one
# client does, and then for as long as no other place has an answer either.
LAST_WORDS = 8
LAST_WORDS_PAUSE = 0.1
LATER = (0.25, 0.5, 1.0, 2.0)
# Seconds after its end from which a run is read once: longer than all of these together.
ALL_READABLE = 10.0
LONGEST_PAUSE = 5.0  # seconds between two connections
# Events that are remembered to recognise replays.
REMEMBERED = 200_000

SNAPSHOT_PAUSE = 1.5  # seconds without an event after which the replay is taken to be over
SNAPSHOT_ANSWER = 5.0  # seconds for the answer to begin: a slow one is not an empty one
SNAPSHOT_SIZE = 64 * 1024 * 1024  # characters of events in one snapshot


class Silence(NamedTuple):
    """Seconds without an event after which a connection is left, to ask how the task is.

    Clients cut theirs at 20 s too. Before the first event little is replayed, and once the task is
    known to have ended, what is readable comes at once.
    """

    usual: float = 20.0
    at_first: float = 3.0
    after_end: float = 2.0


class StreamConnection:
    """One connection: which of its events belong to the run, and what it has shown so far."""

    def __init__(self, prompt_id: str | None = None, nameless: bool | None = True) -> None:
        """`nameless`: events without `promptId` belong to that prompt; None: not known yet."""
        self._prompt_id = prompt_id
        self._nameless = nameless
        self.is_doubtful = False  # an event came that may or may not belong to the prompt
        self.count = 0
        self.has_new = False
        self.spoke = False  # the agent said something after its last tool call
        self.named = False  # an event named the prompt
        self.done: dict[str, Any] | None = None
        self.error: APIError | None = None
        self.copies = _Recent(REMEMBERED)

    def accepts(self, event: EventView) -> bool:
        """Count an event; False for one of another prompt, and for one that may be."""
        if self._prompt_id is not None:
            if event.prompt_id:
                if event.prompt_id != self._prompt_id:
                    return False
                self.named = True
            elif not self._nameless:
                self.is_doubtful = self._nameless is None
                return False
        self.count += 1
        if event.kind == "tool_use":
            self.spoke = False
        elif event.speech:
            self.spoke = True
        return True


class _Recent(OrderedDict[object, int]):
    """Integers by key: the last `most` that were put."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.dropped = -1  # the highest value that was dropped
        self._most = most

    def put(self, key: object, value: int) -> None:
        """Keep a value, as the last one."""
        self[key] = value
        self.move_to_end(key)
        if len(self) > self._most:
            self.dropped = max(self.dropped, self.popitem(last=False)[1])


class EventDeduplicator:
    """Tells new events of a run from those that an earlier connection showed.

    `last_seq` is the highest number seen, -1 before the first event. The last `most` are
    remembered.
    """

    def __init__(self, most: int = REMEMBERED) -> None:
        self._seen = _Recent(most)  # what identifies an event -> its number
        self.last_seq = -1
        self.has_events = False

    def is_new(self, event: EventView, connection: StreamConnection) -> bool:
        """Whether no earlier connection showed this event.

        An `eventKey` identifies it where there is one. Otherwise all that it holds but `seq` does,
        together with how many like it came before on the same connection: a number may move when
        a row that became readable late is inserted, so the same number need not be the same event.
        """
        seq = -1 if event.seq is None else event.seq
        self.last_seq = max(self.last_seq, seq)
        key: object = event.key
        if not key:
            rest = {name: value for name, value in event.raw.items() if name != "seq"}
            digest = hash(json.dumps(rest, sort_keys=True))
            copy = connection.copies.get(digest, 0)
            connection.copies.put(digest, copy + 1)
            key = hash((digest, copy))
        if key in self._seen or 0 <= seq <= self._seen.dropped:
            return False
        self._seen.put(key, seq)
        self.has_events = connection.has_new = True
        return True


def follow(
    client: RebyteClient,
    task_id: str,
    *,
    prompt_id: str | None = None,
    is_latest: bool = False,
    completed_at: Any = None,
    deadline: Deadline = NO_LIMIT,
    patience: Patience | None = None,
    silence: Silence | None = None,
) -> Iterator[StreamEvent]:
    """The events of a task's latest prompt, each once, and one `done` at the end.

    The data of `done` is `{"status", "lastSeq", "finalResult"}`: the status in the service's own
    word, the answer from wherever it was found, possibly empty. With `prompt_id`, the events and
    the end of other prompts are left out. A stream is that of the latest prompt, so events that
    name none are accepted once the task confirms that this prompt is the latest (`is_latest`: the
    caller knows). A run that has ended already is replayed.

    `completed_at` is when the run ended, as the service wrote it, if the caller knows: of a run
    that ended long ago nothing more becomes readable, so one connection is enough.

    Raises WaitTimeout at the deadline, KeyRejected and ResourceNotFound at once, and other API
    errors when `patience` (which has its own deadline; None: the usual one) is at an end. A service
    without a stream is asked for the status.
    """
    patience = patience or patient(client, task_id, deadline)
    deadline = patience.deadline
    run = _FollowedRun(client, task_id, prompt_id, patience, silence or Silence())
    run.nameless = True if is_latest or prompt_id is None else None
    run.is_known = is_latest
    run.is_readable = is_past(client, completed_at, ALL_READABLE)
    while True:
        connection = StreamConnection(prompt_id, run.nameless)
        try:
            for name, data in client.stream_events(
                task_id,
                idle=run.idle(),
                answer_within=run.answer_within(),
                timeout=deadline.for_call(0),
            ):
                run.check_time()
                if name == "done":
                    connection.done = data
                    break
                run.is_known = True
                event = EventView(data)
                if connection.accepts(event) and run.events.is_new(event, connection):
                    yield StreamEvent("event", data)
                if connection.is_doubtful:
                    break
        except KeyRejected:
            raise
        except APIError as error:
            connection.error = error
        run.check_time()
        end, pause = run.end_or_pause(connection)
        if end is not None:
            yield end
            return
        patience.sleep(pause)


def replay(
    client: RebyteClient, task_id: str, completed_at: Any, deadline: Deadline
) -> Iterator[StreamEvent]:
    """As `follow`, for a run that has ended: five faults in a row are enough."""
    patience = patient(client, task_id, deadline, outage=0.0, faults=5, resume=None)
    return follow(client, task_id, completed_at=completed_at, patience=patience)


def patient(client: RebyteClient, task_id: str, deadline: Deadline, **times: Any) -> Patience:
    """The usual patience with a run that is followed; `times` are as in `Patience`."""
    resume = "See the rest with " + Next("logs", task_id, "-f")
    return Patience(
        deadline, client.transport, **{"longest": LONGEST_PAUSE, "resume": resume, **times}
    )


class _FollowedRun:
    """What is known about a run across its connections."""

    def __init__(
        self,
        client: RebyteClient,
        task_id: str,
        prompt_id: str | None,
        patience: Patience,
        silence: Silence,
    ) -> None:
        self._client = client
        self._task_id = task_id
        self._prompt_id = prompt_id
        self._patience = patience
        self._deadline = patience.deadline
        self._silence = silence
        self.events = EventDeduplicator()
        self.nameless: bool | None = None  # whether events without `promptId` belong to the prompt
        self.is_known = False  # whether the service has said anything about the run
        self.is_readable = False  # whether all that the run wrote has been readable for long
        self._ends = 0  # connections that showed the end
        self._ended_reads = 0  # reads in a row that found the run ended
        self._stale = 0  # connections in a row without a new event

    def idle(self) -> float:
        """How many seconds the next connection may go without an event."""
        usual, at_first, after_end = self._silence
        usual = usual if self.events.has_events else min(usual, at_first)
        usual = min(usual, self._client.transport.limit(usual))
        silent = after_end if self._ended_reads else usual
        return max(SHORTEST_CALL, self._deadline.cap(silent))

    def answer_within(self) -> float:
        """How many seconds the next connection may take to be answered at all."""
        usual = min(self._silence.usual, self._client.transport.limit(self._silence.usual))
        return max(SHORTEST_CALL, self._deadline.cap(usual))

    def check_time(self) -> None:
        """Raise WaitTimeout when the deadline has passed."""
        if self._deadline.has_passed:
            what = "is still running after" if self.is_known else "could not be read in"
            raise self._deadline.error(f"task {self._task_id} {what}", pending=[self._task_id])

    def end_or_pause(self, connection: StreamConnection) -> tuple[StreamEvent | None, float | None]:
        """The end of the run, if this connection came to it; otherwise seconds until the next
        (None: the usual pause).
        """
        self._stale = 0 if connection.has_new else self._stale + 1
        if connection.error is None or connection.count:
            self._patience.answered()
        try:
            if connection.done is not None and connection.count and self._is_ours(connection):
                return self._last_words(connection, connection.done)
            status = self._status()
            if connection.is_doubtful and self.nameless:
                return None, 0.0
            error = connection.error
            streamless = error is not None and error.status_code in NO_SUCH_CALL
            self._ended_reads = self._ended_reads + 1 if is_terminal(status) else 0
            enough = streamless or (self.is_readable and connection.done is not None)
            is_mute = _is_idle(error) and not self.events.has_events
            reads = READS_OF_NOTHING if is_mute else READS_AFTER_END
            if self._ended_reads >= reads or (self._ended_reads and enough):
                return self._end({"status": status, "lastSeq": self.events.last_seq}), 0.0
            fault = None if streamless or _is_idle(error) else error
        except (KeyRejected, ResourceNotFound):
            raise
        except APIError as error:
            fault = error
        if fault is None:
            self._patience.answered()
        else:
            self.check_time()
            self._patience.failed(fault)
        if connection.count:
            return None, min(LONGEST_PAUSE, LAST_WORDS_PAUSE * 2.0 ** min(self._stale, 10))
        return None, None

    def _last_words(
        self, connection: StreamConnection, done: Mapping[str, Any]
    ) -> tuple[StreamEvent | None, float]:
        """The end that a connection showed, unless the agent's last words are still to come."""
        before, self._ends = self._ends, self._ends + 1
        enough = connection.spoke or self.is_readable
        if not enough and before < LAST_WORDS:
            return None, LAST_WORDS_PAUSE
        end, later = self._end(done), LATER[max(0, before - LAST_WORDS) :]
        answerless = canonical_status(done.get("status")) in ("failed", "canceled")
        if enough or answerless or end.data["finalResult"] or not later:
            return end, 0.0
        return None, later[0]

    def _is_ours(self, connection: StreamConnection) -> bool:
        """Whether an end is that of our prompt; asks the task when no event said so."""
        if self._prompt_id is None or connection.named:
            return True
        return is_terminal(self._status())

    def _task(self) -> TaskView:
        return TaskView(self._client.get_task(self._task_id, timeout=self._deadline.for_call()))

    def _status(self) -> str:
        """The status of our prompt, or of the latest one, as the task tells it."""
        task = self._task()
        self.is_known = True
        latest = prompt = task.latest
        self.nameless = True
        if self._prompt_id is not None and latest is not None:
            self.nameless = latest.id == self._prompt_id
            if self.nameless and not latest.has_started:
                self.nameless = None  # what comes belongs to a prompt before; asked again
            prompt = task.prompt(self._prompt_id)
            if prompt is None:
                return "pending"
        if prompt and (prompt.status in UNFINISHED or prompt.is_over):
            return prompt.status
        if prompt and prompt.status and not self.nameless:
            return prompt.status
        return task.status

    def _end(self, done: Mapping[str, Any]) -> StreamEvent:
        """The last event, with the answer."""
        answer = text(done.get("finalResult"))
        if not answer.strip():
            answer = self._response() or self._task().final_result
        seq = integer(done.get("lastSeq"))
        data = {
            **done,
            "status": done.get("status"),
            "lastSeq": seq if seq is not None and seq >= 0 else self.events.last_seq,
            "finalResult": answer,
        }
        return StreamEvent("done", data)

    def _response(self) -> str:
        """The answer as the content document has it, where the service has that."""
        try:
            timeout = self._deadline.for_call()
            content = self._client.task_content(self._task_id, timeout=timeout)
        except APIError as error:
            if is_unsupported(error):
                return ""
            raise
        return ContentView(content).response(self._prompt_id)


def _is_idle(error: APIError | None) -> bool:
    """Whether a connection ended because nothing came, which is no fault."""
    return error is not None and error.code == "timeout"


def snapshot(
    client: RebyteClient,
    task_id: str,
    *,
    deadline: Deadline = NO_LIMIT,
    pause: float = SNAPSHOT_PAUSE,
) -> list[dict[str, Any]]:
    """The events of the latest prompt that are there now, from one connection.

    A stream starts with everything that was written and then continues live (seen in clients), so
    the first `pause` (seconds) ends the snapshot; only the answer itself may begin later. So do the
    deadline, the time limit of a call, and the size that a JSON document may have: a run may write
    without a pause.
    """
    limit = deadline.within(client.transport.limit())
    found: list[dict[str, Any]] = []
    size = 0
    try:
        for name, data in client.stream_events(
            task_id,
            idle=limit.cap(pause),
            answer_within=limit.cap(SNAPSHOT_ANSWER),
            timeout=limit.for_call(0),
        ):
            size += len(str(data))
            if name == "done" or limit.has_passed or size > SNAPSHOT_SIZE:
                break
            found.append(data)
    except NetworkError as error:
        if error.code != "timeout" and not found:
            raise
    return found
