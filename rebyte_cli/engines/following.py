"""One run, from its first event to its answer, over as many connections as it takes.

The stream has traps (all seen in clients): it may say `done` before the run has begun, it
replays everything on each connection, its numbers move, its end can be told before the last
events are readable, the answer comes up to three times, and it may just close.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..api.models import is_terminal, same_word, task_status
from ..api.sse import Event
from ..errors import APIError, KeyRejected, ResourceNotFound, WaitTimeout
from .absent import NO_SUCH_CALL, is_absent
from .heard import Heard, Look
from .server_clock import is_past

if TYPE_CHECKING:
    from ..api.client import RebyteClient

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
    timeout: float | None = None,
    since: float | None = None,
    clock: Callable[[], float] = time.monotonic,
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

    Raises WaitTimeout after `timeout` seconds (from `since` on the clock), KeyRejected and
    ResourceNotFound at once, and other errors of the wire when several looks have failed in a
    row: five at the start, for five minutes once the run has shown something. A service without
    a stream is asked for the status.
    """
    run = _Run(client, task_id, prompt_id, timeout, clock, clock() if since is None else since)
    run.nameless = True if is_latest or prompt_id is None else None
    run.known = is_latest
    run.settled = is_past(client, completed_at, SETTLED)
    while True:
        look = Look(prompt_id, run.nameless)
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
        sleep(min(pause, run.left()))


class _Run:
    """What is known across connections."""

    def __init__(
        self,
        client: RebyteClient,
        task_id: str,
        prompt_id: str | None,
        timeout: float | None,
        clock: Callable[[], float],
        since: float,
    ) -> None:
        self._client = client
        self._task_id = task_id
        self._prompt_id = prompt_id
        self._timeout = timeout
        self._clock = clock
        self._by = None if timeout is None else since + timeout
        self.heard = Heard()
        self.nameless: bool | None = None  # whether events without `promptId` are ours
        self.known = False  # whether the service has told anything of the run
        self.settled = False  # whether all that the run wrote has been readable for long
        self._looked = self._ended = self._stale = self._failed = 0
        self._failing_since = 0.0

    def left(self) -> float:
        """Seconds until the time limit."""
        return float("inf") if self._by is None else max(0.0, self._by - self._clock())

    def idle(self) -> float:
        """How long the next connection may be silent (seconds)."""
        usual = min(IDLE, self._client.transport.limit(IDLE))
        return max(0.05, min(IDLE_AFTER_END if self._ended else usual, self.left()))

    def check_time(self) -> None:
        """Raise when the time limit has passed."""
        if self.left() <= 0:
            what = "still runs after" if self.known else "could not be read in"
            raise WaitTimeout(
                f"task {self._task_id} {what} {self._timeout:g} s", pending=[self._task_id]
            )

    def judge(self, look: Look) -> tuple[Event | None, float]:
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

    def _last_words(self, look: Look, done: Mapping[str, Any]) -> tuple[Event | None, float]:
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

    def is_ours(self, look: Look) -> bool:
        """Whether an end is that of our prompt; asks the task when no event said so."""
        if self._prompt_id is None or look.named:
            return True
        return is_terminal(self.status())

    def _task(self) -> dict[str, Any]:
        left = None if self._by is None else self.left()
        return self._client.get_task(self._task_id, timeout=left)

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
            left = None if self._by is None else self.left()
            content = self._client.task_content(self._task_id, timeout=left)
        except APIError as error:
            if is_absent(error):
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
