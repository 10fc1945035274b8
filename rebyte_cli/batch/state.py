"""The state of each line of a batch, what its journal records of it, and what may follow.

    new ── queued ── lost ──┬── created ── running ──────────┬── ended
     ↑        │       ↑     │      ↑  ↑       └── checking ──┤
     │        │       │     │      │  └──────────── mending ─┘
     │        │       │     ├── unknown
     ├────────┴───────┼─────┘      │
     └────────────────┴── refused, ended (--retry-failed)
`queued`: the workers have it; `lost`: its create got no answer, so its task is searched for;
`unknown`: it still is, and the search has taken long enough; `created`: it has a task, and
`running`: this run waits for its end, or as `limited` for a usage limit of its model first. The
journal records `sending` and `unsent` as well: a line that a crash left in `sending` is lost. One
whose task was found by a search is unknown again if another create is answered with that task, and
one whose task the budget did not let begin is new again.

`checking`: its task has completed, and whether that counts is found out (`--check`, `--schema`). If
it does not, the line is `mending` until what is wrong was sent to the task, which runs again then:
the line has the prompt to wait for.

What this run gave up, and the next one takes up again: `skipped`, since the line that it follows
did not complete; `waiting` for an answer that no one gives; `unreadable` and `unchecked`, since the
task, or a check, cannot be had. `error` says why.

Only the thread that made a `LineTable` moves a line. What other threads know comes to it as events.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ..api.status import canonical_status
from ..api.token_usage import TokenUsage
from ..errors import RebyteError, ResourceNotFound, TaskCanceled, TaskEnded
from ..tasks.failure import failure_of
from .input import InputLine
from .journal_format import Record

if TYPE_CHECKING:
    from ..tasks.verdict import RunVerdict

LOST = frozenset({"sending", "lost", "unknown"})
OVER = frozenset({"ended", "refused"})
# The status of a task that no longer exists; the API has no word for it.
GONE = "gone"
_STATES = (
    "sending", "unsent", "created", "ended", "refused", "unknown", "checking", "mending", "mended",
    "place",
)  # fmt: skip
_ERROR = frozenset({"code", "message", "exit"})
_TEXTS = ("id", "at", "status", "place", "origin")  # of a record
_NOTHING: Mapping[str, tuple[TokenUsage, str]] = {}


_AT_WORK = {"running", "limited", "ended", "unknown", "checking"}
# What may become of a line that this run moves.
NEXT = {
    "new": {"queued", "skipped"},
    "skipped": {"new", "skipped"},
    "queued": {"new", "sending", "created", "refused"},
    "sending": {"lost"},
    "lost": {"lost", "new", "created", "unknown"},
    "unknown": {"lost", "new", "created", "unknown"},
    "created": {"new", "running", "ended", "unknown", "checking"},
    "running": {"new", "waiting", "unreadable", *_AT_WORK},
    "limited": {"new", "waiting", "unreadable", *_AT_WORK},
    "checking": {"created", "ended", "unknown", "mending", "unchecked"},
    "mending": {"created", "unknown", "unchecked"},
    "waiting": {"unknown"},
    "unreadable": {"unknown"},
    "unchecked": {"unknown"},
    "ended": {"new", "unknown"},
    "refused": {"new", "unknown"},
}
# What people are told of a line in each state; once it has ended, that is how its task did.
_WORDS = {
    **dict.fromkeys(("new", "queued"), "pending"),
    **dict.fromkeys(("sending", "lost"), "unknown"),
    **dict.fromkeys(("created", "checking", "mending", "unreadable"), "running"),
}


class LineState:
    """The state of one line. Times are ISO 8601 as they came; `error` is None or a dict.

    Of this run alone: `begun_here`: it was handed out to be created; `resent`: how often its create
    made no task; `since`: when the wait for its task began (monotonic). `is_found`: its task was
    not answered, but found by a search. `outcome` is how its task ended, and `used` what each task
    that the line has had used, by id, with the name of its model.

    `tries` counts the runs that were found wanting, `findings` has the `check` and the `output` of
    the last that was looked at, `prompt` is the id of the prompt to wait for if it is not the
    first, and `told` what is to be sent to the task. `place` is the name of the place that has the
    line; None as long as none has.
    """

    __slots__ = ("begun_here", "candidates", "error", "findings", "finished", "id", "is_found",
                 "outcome", "place", "prompt", "resent", "resumes_at", "sent", "since", "started",
                 "state", "told", "tries", "url", "used", "workspace")  # fmt: skip

    def __init__(self) -> None:
        self.begun_here = False
        self.resent = 0
        self.since = 0.0
        self.used: Mapping[str, tuple[TokenUsage, str]] = _NOTHING
        self.reset("new")

    def reset(self, state: str) -> None:
        """Forget the task, if there was one."""
        self.state = state
        self.place: str | None = None
        self.id: str | None = None
        self.workspace: str | None = None
        self.url: str | None = None
        self.outcome: str | None = None
        self.error: dict[str, Any] | None = None
        self.sent: str | None = None
        self.started: str | None = None
        self.finished: str | None = None
        self.candidates: Sequence[str] = ()
        self.is_found = False
        self.tries = 0
        self.findings: Mapping[str, Any] = {}
        self.resumes_at: str | None = None
        self.prompt: str | None = None
        self.told: str | None = None

    def apply(self, record: Mapping[str, Any]) -> None:
        """Change the state as a record says."""
        state = record.get("is")
        if state in ("sending", "unsent"):
            self.reset("sending" if state == "sending" else "new")
            self.sent, self.place = record.get("at"), record.get("place")
        elif state == "created":
            self.state = "created"
            self.place = record.get("place") or self.place
            self.id, self.workspace = record.get("id"), record.get("workspaceId")
            self.url, self.started = record.get("url"), record.get("createdAt")
            self.error = None
            self.is_found = bool(record.get("found"))
        elif state == "checking":
            self.state = "checking"
        elif state == "mending":
            self.state, self.told = "mending", record.get("prompt")
            self.findings, self.tries = _findings(record), record.get("tries", 0)
        elif state == "mended":
            self.state, self.prompt = "created", record.get("prompt")
        elif state == "ended":
            self.state = "ended"
            self.findings = _findings(record) or self.findings
            self.outcome, self.finished = record.get("status"), record.get("completedAt")
            self.error = record.get("error")
            self.workspace = self.workspace or record.get("workspaceId")
        elif state == "refused":
            self.state, self.error = "refused", record.get("error")
        elif state == "unknown":
            self.state = "unknown"
            self.id = self.error = None
            self.candidates = record.get("candidates") or ()
            self.sent = record.get("at") or self.sent
        usage = TokenUsage.of(record.get("usage"))
        if usage is not None and self.id is not None:
            self.used = {**self.used, self.id: (usage, str(record.get("model") or ""))}

    @property
    def status(self) -> str | None:
        """What people are told of it, in one word."""
        return self.outcome if self.state == "ended" else _WORDS.get(self.state, self.state)

    @property
    def is_over(self) -> bool:
        """Whether a run has nothing left to do for this line."""
        return self.state in OVER

    @property
    def is_lost(self) -> bool:
        """Whether it may or may not have a task."""
        return self.state in LOST

    @property
    def has_failed(self) -> bool:
        """Whether `--retry-failed` gives it another task."""
        return self.is_over and self.status != "completed"

    @property
    def is_doubtful(self) -> bool:
        """Refused by a fault of the server, which does not say whether it made a task."""
        return self.state == "refused" and (self.error or {}).get("exit") == 5


def _findings(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: record[name] for name in ("check", "output") if name in record}


class LineTable(dict[int, LineState]):
    """The lines of one run, by their index in the input, and where each stands.

    `home` is the place of lines whose records name none.
    """

    def __init__(self, indices: Iterable[int], home: str = "") -> None:
        super().__init__((index, LineState()) for index in indices)
        self.home = home
        self._thread = threading.get_ident()
        self._counts = Counter[str](new=len(self))
        self._counts_at = Counter[tuple[str | None, str]]()

    def count(self, *states: str) -> int:
        """How many lines are in these states. Thread-safe."""
        return sum(self._counts[state] for state in states)

    def count_at(self, place: str, *states: str) -> int:
        """How many lines of a place are in these states. Thread-safe."""
        return sum(self._counts_at[place, state] for state in states)

    def replay(self, index: int, record: Mapping[str, Any]) -> None:
        """Change a line as an earlier run did, in whatever order its records come."""
        entry = self[index]
        before = entry.place, entry.state
        entry.apply(record)
        if entry.place is None and entry.state != "new":
            entry.place = self.home
        self._counted(before, entry)

    def apply(self, index: int, record: Mapping[str, Any]) -> None:
        """Change a line as a record says."""
        before = self[index].state
        self.replay(index, record)
        assert self[index].state in NEXT[before], f"{before} -> {self[index].state}"

    def move(self, index: int, state: str, **facts: Any) -> None:
        """Change the state of a line, and with it these attributes of its `LineState`.

        One that becomes new forgets its task.
        """
        entry = self[index]
        before = entry.place, entry.state
        assert state in NEXT[entry.state], f"{entry.state} -> {state}"
        if state == "new":
            entry.reset(state)
        entry.state = state
        for name, value in facts.items():
            setattr(entry, name, value)
        self._counted(before, entry)

    def _counted(self, before: tuple[str | None, str], entry: LineState) -> None:
        assert self._thread == threading.get_ident(), "another thread moves a line"
        self._counts[before[1]] -= 1
        self._counts[entry.state] += 1
        self._counts_at[before] -= 1
        self._counts_at[entry.place, entry.state] += 1


# Records


def check_record(record: Mapping[str, Any]) -> None:
    """Raise ValueError for a record that no run can have written.

    What came from the API (a URL, a time) may be anything; what decides about a line may not.
    """
    if "is" not in record:
        run = record.get("run")
        mark = run.get("input", {}) if isinstance(run, Mapping) else None
        sound = isinstance(mark, Mapping) and isinstance(mark.get("lines", 0), int)
    else:
        error, candidates = record.get("error"), record.get("candidates", [])
        sound = (
            isinstance(record.get("line"), int)
            and record["is"] in _STATES
            and all(isinstance(record.get(name, ""), str) for name in _TEXTS)
            and isinstance(record.get("prompt", ""), str)
            and type(record.get("tries", 0)) is int
            and isinstance(record.get("check", {}), Mapping)
            and isinstance(candidates, list)
            and all(isinstance(each, str) for each in candidates)
            and (error is None or (isinstance(error, Mapping) and error.keys() >= _ERROR))
            and (record["is"] != "created" or "id" in record)
            and (record["is"] not in ("mending", "mended") or "prompt" in record)
            and (record["is"] != "place" or {"place", "origin"} <= record.keys())
        )
    if not sound:
        raise ValueError("not a record of a batch")


def place_record(place: str, origin: str) -> Record:
    """Lines may be at this place from now on. Older versions refuse a journal that has one."""
    return {"line": 0, "is": "place", "place": place, "origin": origin}


def created_record(number: int, task: Mapping[str, Any], **more: Any) -> Record:
    """A task exists for the line: `task` is the API's answer, or a row of its list."""
    kept = {
        name: task[name] for name in ("id", "workspaceId", "url", "createdAt") if task.get(name)
    }
    return {"line": number, "is": "created", **kept, **more}


def checking_record(number: int, task: Mapping[str, Any]) -> Record:
    """The line's task has completed, and is about to be looked at."""
    return {"line": number, "is": "checking", **_usage_of(task)}


def ended_record(number: int, task: Mapping[str, Any], now: str, reason: str = "") -> Record:
    """The line's task has ended, and why if it failed.

    `now` stands for `completedAt` where the API has none.
    """
    status = canonical_status(task.get("status"))
    record: Record = {
        "line": number,
        "is": "ended",
        "status": status,
        "completedAt": task.get("completedAt") or now,
    }
    if task.get("workspaceId"):  # no source shows it here; it helps after a lost answer
        record["workspaceId"] = task["workspaceId"]
    record |= _usage_of(task)
    if status != "completed":
        kinds: dict[str, type[RebyteError]] = {
            "failed": failure_of(task), "canceled": TaskCanceled, GONE: ResourceNotFound,
        }  # fmt: skip
        kind = kinds.get(status, RebyteError)
        code, verb = f"task_{status}", f"ended as {status}"
        if issubclass(kind, TaskEnded):
            code, verb = kind.code, kind.verb
        elif status == GONE:
            verb = "no longer exists"
        how = f"task {task.get('id')} {verb}"
        record["error"] = {
            "code": code,
            "message": f"{how}: {reason}" if reason else how,
            **({"reason": reason} if reason else {}),
            "exit": kind.exit_status,
        }
    return record


def _usage_of(task: Mapping[str, Any]) -> Record:
    """What a task has used so far; empty if the service does not say."""
    usage = TokenUsage.of(task.get("usage"))
    if usage is None:
        return {}
    return {"usage": usage.document, **({"model": task["model"]} if task.get("model") else {})}


def checked_record(
    number: int, task: Mapping[str, Any], now: str, verdict: RunVerdict, tries: int
) -> Record:
    """The line's task has completed, and was looked at for the last time: it passed, or failed."""
    record = ended_record(number, task, now) | verdict.fields(tries)
    ended = verdict.of_task(task, tries)
    if isinstance(ended, TaskEnded):
        record["status"] = "failed"
        record["error"] = {
            "code": ended.code,
            "message": f"task {task.get('id')} {ended.verb}: {ended.summary}",
            "reason": f"{ended.verb}: {ended.summary}",
            "exit": ended.exit_status,
        }
    return record


def refused_record(number: int, error: RebyteError) -> Record:
    """The line's create was refused."""
    return {"line": number, "is": "refused", "error": error_of(error)}


def error_of(error: RebyteError) -> dict[str, Any]:
    """An error as a row and the journal keep it."""
    told: dict[str, Any] = dict(error.as_dict()["error"])
    return {name: told.get(name) for name in ("code", "message", "status", "exit")}


def skipped_error(leader: InputLine, entry: LineState) -> dict[str, Any]:
    """Why a line is not created: its leader did not complete. Has the leader's exit status."""
    exit_status = 1 if entry.error is None else int(entry.error.get("exit") or 1)
    why = "was skipped" if entry.state in ("new", "skipped") else f"ended as {entry.status}"
    if entry.status == "completed":
        why = "has no known workspace: the answer to its create was lost"
    return {
        "code": "skipped",
        "message": f"not created: line {leader.number} ({leader.key}), which it follows, {why}",
        "status": None,
        "exit": exit_status,
    }


# What the threads of a batch tell the main thread, which alone changes the state of a line

EventKind = Literal[
    # From the workers, about one create:
    "created",  # (task, whether another line has it)
    "refused",  # RebyteError; the API or the line's own file is to blame
    "unsent",  # None; nothing was sent, so the line can be created later
    "lost",  # the record of its sending; the answer never came
    # From the search for lost creates:
    "found",  # the task, as the list shows it
    "absent",  # None; the create certainly made no task
    "unsure",  # ids of the tasks it could be, so far
    "unknown",  # ids of the tasks it could be, after the search has taken long enough
    # From the watch over running tasks:
    "ended",  # (task, why it failed)
    "used",  # its row or document, which says what it has used so far
    "unreadable",  # APIError
    "unattended",  # NeedsAnswer; the task waits for an answer, and there is no one to give it
    # From the checks:
    "checked",  # (task, outcome)
    "uncheckable",  # RebyteError; there is nothing to check, or nothing to check it with
    "mended",  # the id of the prompt that was sent to the task
    "unmended",  # RebyteError; it was not, or that is not known
    # About a whole place, or the whole batch:
    "fatal",  # RebyteError that every other create would meet too
    "crash",  # an exception that is a bug in rebyte
    "signal",  # the number of the signal
]


class BatchEvent(NamedTuple):
    """`line` is the index of a line in the input, or None. `value` is what the list above says.

    `place` is the name of the place that it happened at.
    """

    kind: EventKind
    line: int | None
    value: Any
    place: str | None = None


Emit = Callable[[EventKind, int | None, Any], None]
