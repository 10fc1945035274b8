"""The state of each line of a batch, as its journal records it.

    new ── sending ──┬── running ── ended     created; the task has ended
     ↑               ├── refused              the API refused it
     ├── unsent ─────┤
     │               └── unknown              no answer came, and no task was found
     └─────────────────────┘                  much later, or by hand: it was never created
A line that a crash left in `sending` is as good as unknown: its task is searched for first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..api.status import canonical_status
from ..errors import RANK, RebyteError
from ..once.clock import without_tags
from ..once.search import any_of
from .input import InputLine

Record = dict[str, Any]
Tally = Counter[tuple[str, str]]  # of statuses with reasons, which are empty for what went well
LOST = frozenset({"sending", "unknown"})
OVER = frozenset({"ended", "refused"})
# The status of a task that no longer exists; the API has no word for it.
GONE = "gone"
MOST_REASONS = 3  # below the counts
_STATES = ("sending", "unsent", "created", "ended", "refused", "unknown")
_ERROR = frozenset({"code", "message", "exit"})
_EXITS = {"completed": 0, "failed": 10, "canceled": 11, GONE: 4}


class LineState:
    """The state of one line. Times are ISO 8601 as they came; `error` is None or a dict.

    `begun_here`: it was handed out to be created in this run.
    """

    __slots__ = ("begun_here", "candidates", "error", "finished", "id", "sent", "started",
                 "state", "status", "url", "workspace")  # fmt: skip

    def __init__(self) -> None:
        self.begun_here = False
        self.reset("new")

    def reset(self, state: str) -> None:
        """Forget the task, if there was one."""
        self.state = state
        self.id: str | None = None
        self.workspace: str | None = None
        self.url: str | None = None
        self.status: str | None = None
        self.error: dict[str, Any] | None = None
        self.sent: str | None = None
        self.started: str | None = None
        self.finished: str | None = None
        self.candidates: Sequence[str] = ()

    def apply(self, record: Mapping[str, Any]) -> None:
        """Change the state as a record says."""
        state = record.get("is")
        if state in ("sending", "unsent"):
            self.reset("sending" if state == "sending" else "new")
            self.sent = record.get("at")
        elif state == "created":
            self.state = "running"
            self.id, self.workspace = record.get("id"), record.get("workspaceId")
            self.url, self.started = record.get("url"), record.get("createdAt")
            self.status, self.error = "running", None
        elif state == "ended":
            self.state = "ended"
            self.status, self.finished = record.get("status"), record.get("completedAt")
            self.error = record.get("error")
            self.workspace = self.workspace or record.get("workspaceId")
        elif state == "refused":
            self.state, self.status = "refused", "refused"
            self.error = record.get("error")
        elif state == "unknown":
            self.state, self.status = "unknown", "unknown"
            self.candidates = record.get("candidates") or ()
            self.sent = record.get("at") or self.sent

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


class LineProblem(RebyteError):
    """A line that did not end well; it carries its row."""

    def __init__(self, row: Mapping[str, Any], error: Mapping[str, Any]) -> None:
        key, number = str(row["key"]), row["line"]
        name = f"line {number}" if key == str(number) else f"line {number} ({key})"
        what = f"{name}: {error['message']}"
        super().__init__(what, code=str(error["code"]), hint=error.get("hint"))
        # A line can be refused for what is bad usage elsewhere; the batch itself was not.
        self.exit_status = int(error["exit"]) if error["exit"] in RANK else 1
        self.status_code = error.get("status")
        self.row = dict(row)
        self._shown = False

    @property
    def record(self) -> Mapping[str, Any] | None:
        """The row, unless it was written elsewhere."""
        return None if self._shown else self.row

    def with_row(self, row: Mapping[str, Any]) -> LineProblem:
        """The same error with another row."""
        copy = self.copy_with()
        copy.row = dict(row)
        return copy

    def without_record(self) -> LineProblem:
        """The same error for a row that was written elsewhere."""
        copy = self.copy_with()
        copy._shown = True
        return copy


def row_of(line: InputLine, entry: LineState) -> Mapping[str, Any] | LineProblem:
    """What is printed for a line: its row, inside an error when it did not end well."""
    status = {"new": "pending", "sending": "unknown"}.get(entry.state) or entry.status
    error = entry.error
    if entry.state in LOST:
        error = _unknown(line, entry)
    elif entry.state == "new" and error is not None:
        status = "skipped"
    row = {
        "key": line.key,
        "line": line.number,
        "id": entry.id,
        "workspaceId": entry.workspace,
        "url": entry.url,
        "status": status,
        "error": error and {name: error.get(name) for name in ("code", "message", "status")},
        "startedAt": entry.started or (entry.sent and without_tags(entry.sent)),
        "finishedAt": entry.finished,
        "title": line.title,
    }
    return row if error is None else LineProblem(row, error)


def name_of(row: Mapping[str, Any]) -> str:
    """What people know a row by: how its prompt begins, behind its key if the input gave it one."""
    key, title = str(row["key"]), str(row.get("title") or "")
    if not title:
        return key
    return title if key == str(row["line"]) else f"{key}: {title}"


def tally(rows: Iterable[Mapping[str, Any]]) -> Tally:
    """How often each end of a line occurs."""
    return Counter((str(row.get("status")), reason_of(row)) for row in rows)


def counts(ends: Tally) -> str:
    """`120 lines: 118 completed, 2 failed`, the most frequent first."""
    found = Counter[str]()
    for (status, _), count in ends.items():
        found[status] += count
    lines = "1 line" if found.total() == 1 else f"{found.total()} lines"
    words = ", ".join(f"{count} {status}" for status, count in found.most_common())
    return f"{lines}: {words}" if words else "no lines"


def reason_of(row: Mapping[str, Any]) -> str:
    """Why a line did not end well, without the id of its task; an empty string if it did."""
    message = str((row.get("error") or {}).get("message") or "")
    return message.removeprefix(f"task {row.get('id')} failed: ")


def shared_reasons(ends: Tally) -> Iterator[str]:
    """What several lines have in common: `98 lines failed: REASON`, the most frequent first."""
    found = Counter({end: count for end, count in ends.items() if end[1]})
    for (status, reason), count in found.most_common(MOST_REASONS):
        if count > 1:
            yield f"{count} lines {status}: {reason}"


def _unknown(line: InputLine, entry: LineState) -> dict[str, Any]:
    could_be = f"; it could be {any_of(entry.candidates)}" if entry.candidates else ""
    return {
        "code": "outcome_unknown",
        "message": "its create was sent and no answer came back"
        f"{could_be}; the next run searches again, or settle it with --resolve {line.number}=ID "
        f"or {line.number}=none",
        "status": None,
        "exit": 6,
    }


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
            and all(isinstance(record.get(name, ""), str) for name in ("id", "at", "status"))
            and isinstance(candidates, list)
            and all(isinstance(each, str) for each in candidates)
            and (error is None or (isinstance(error, Mapping) and error.keys() >= _ERROR))
            and (record["is"] != "created" or "id" in record)
        )
    if not sound:
        raise ValueError("not a record of a batch")


def created_record(number: int, task: Mapping[str, Any], **more: Any) -> Record:
    """A task exists for the line: `task` is the API's answer, or a row of its list."""
    kept = {
        name: task[name] for name in ("id", "workspaceId", "url", "createdAt") if task.get(name)
    }
    return {"line": number, "is": "created", **kept, **more}


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
    if status != "completed":
        words = {"failed": "failed", "canceled": "was canceled", GONE: "no longer exists"}
        how = f"task {task.get('id')} {words.get(status, f'ended as {status}')}"
        record["error"] = {
            "code": f"task_{status}",
            "message": f"{how}: {reason}" if reason else how,
            "exit": _EXITS.get(status, 1),
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
    why = {"new": "was skipped"}.get(entry.state) or f"ended as {entry.status}"
    if entry.state == "ended" and entry.status == "completed":
        why = "has no known workspace: the answer to its create was lost"
    return {
        "code": "skipped",
        "message": f"not created: line {leader.number} ({leader.key}), which it follows, {why}",
        "status": None,
        "exit": exit_status,
    }
