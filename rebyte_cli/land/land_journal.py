"""What a landing has decided so far: a line for each task, and the journal that keeps it.

The records, beside those that every journal has: `picked` (the time of the commit that is about to
be made), `landed` and `empty`, `rerun` (why a task is run again; the create follows), `created`
(the task that it became) and `left` (out, with the reason).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..batch.journal import Journal, JournalFailed, holder
from ..batch.journal_format import replay
from ..errors import AGAIN, BadUsage, RebyteError
from ..system.permissions import UnsafeFile

WAITING, APPLIED, CHECKING, RERUN = "waiting", "applied", "checking", "rerun"
LANDED, EMPTY, LEFT_OUT = "landed", "empty", "left out"
OVER = frozenset({LANDED, EMPTY, LEFT_OUT})


class LandLine:
    """A task that is to land.

    `task` is its id, `current` that of the rerun whose patch counts, `reruns` their number;
    `workspace` is that of the rerun, as its create was answered.
    `picked` is the time of its commit in seconds since 1970, once that is decided. `sends`: a rerun
    was decided, and its task is not known yet. `check` is as in JSON. A line with a `problem` is
    left out for it. `risks` are as `risks_between` names them.
    """

    def __init__(self, number: int, task: str, title: str = "") -> None:
        self.number = number
        self.task = self.current = task
        self.title = title
        self.status = WAITING
        self.problem = ""
        self.url: str | None = None
        self.commit: str | None = None
        self.workspace: str | None = None
        self.picked: int | None = None
        self.reruns = 0
        self.sends = False
        self.error: Mapping[str, Any] | None = None
        self.check: Mapping[str, Any] | None = None
        self.risks: Sequence[str] = ()

    @property
    def is_over(self) -> bool:
        """Whether it needs nothing more."""
        return self.status in OVER

    def row(self) -> dict[str, Any]:
        """What is printed for it."""
        return {
            "id": self.task,
            "line": self.number,
            "title": self.title,
            "status": self.status,
            "commit": self.commit,
            "landedTask": self.current if self.status == LANDED else None,
            "reruns": self.reruns,
            "url": self.url,
            "error": self.error,
            "check": self.check,
            "risks": list(self.risks),
        }

    def take(self, record: Mapping[str, Any]) -> None:
        """Take over what a record says. Raises ValueError for an unknown one."""
        kind = record["is"]
        self.title, self.url = record.get("title", self.title), record.get("url", self.url)
        self.check, self.error = record.get("check", self.check), record.get("error", self.error)
        if kind == "picked":
            self.picked = int(record["at"])
        elif kind == LANDED:
            self.status, self.commit, self.error = LANDED, str(record["commit"]), None
            self.risks = record.get("risks", ())
        elif kind == EMPTY:
            self.status = EMPTY
        elif kind == "left":
            self.status = LEFT_OUT
        elif kind == RERUN:
            self.status, self.sends, self.picked = RERUN, True, None
            self.reruns += 1
        elif kind == "created":
            self.current, self.sends = str(record["id"]), False
            self.workspace = record.get("workspace")
        else:
            raise ValueError(kind)


class LandState:
    """The lines of a landing, the tip of its branch, and the commit below that."""

    def __init__(self) -> None:
        self.lines: list[LandLine] = []
        self.tip = self.before = ""
        self.started_at = ""  # the commit that the branch began at

    def take(self, record: Mapping[str, Any]) -> None:
        """Take over what a record of the journal says. Raises ValueError for a wrong one."""
        run = record.get("run")
        if isinstance(run, Mapping):
            given = run["land"]
            known = {line.number: line for line in self.lines}
            self.lines = [
                known.get(number) or LandLine(number, str(task), str(title))
                for number, (task, title) in enumerate(given["tasks"], 1)
            ]
            if not self.started_at:
                self.tip = self.before = self.started_at = str(given["onto"])
            return
        try:
            self.lines[int(record["n"]) - 1].take(record)
            if record["is"] == LANDED:
                self.before, self.tip = self.tip, str(record["commit"])
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(str(error)) from None

    def begins(self, lines: Sequence[LandLine]) -> bool:
        """Whether these are the lines of this landing, and perhaps more at the end."""
        return [line.task for line in self.lines] == [
            line.task for line in lines[: len(self.lines)]
        ]


def read(path: Path, header: Mapping[str, Any]) -> LandState:
    """What the journal at `path` says; an empty state if there is none."""
    state = LandState()
    if path.exists():
        replay(path, header, state.take)
    return state


class LandJournal:
    """The journal of one branch, held by this process for as long as it is open."""

    def __init__(
        self, path: Path, header: Mapping[str, Any], lines: Sequence[LandLine], onto: str
    ) -> None:
        """Open or begin it. Raises BadUsage if it is of other tasks, JournalHeld if it is in use,
        JournalFailed if it cannot be written.

        A journal that was begun keeps the commit that it began on.
        """
        begun = read(path, header)
        if not begun.begins(lines):
            raise BadUsage(
                "the branch was begun with other tasks",
                hint="Tasks can be added at the end. Name another branch, or start over with"
                " --force",
            )
        self.state = LandState()
        tasks = [[line.task, line.title] for line in lines]
        run = {"land": {"onto": onto, "tasks": tasks}}
        try:
            self._journal = Journal(path, header, run=run, each=self.state.take)
        except UnsafeFile:
            raise
        except BadUsage as error:  # of a file that the user has not named
            raise JournalFailed(error.message, hint="Mend that and " + AGAIN) from None
        self.state.take({"run": run})
        for line, given in zip(self.state.lines, lines, strict=True):
            line.problem = given.problem

    @property
    def name(self) -> str:
        """What identifies it, wherever the file is."""
        return str(self._journal.name)

    def record(self, line: LandLine, kind: str, **more: Any) -> None:
        """Write down what was decided of a line; on the disk when this returns."""
        record = {"is": kind, "n": line.number, **more}
        self._journal.commit(record)
        self.state.take(record)

    def close(self) -> None:
        """Let go of the file."""
        self._journal.close()


def forget(path: Path) -> None:
    """Remove the journal of an earlier landing. Raises RebyteError if it is in use."""
    user = holder(path) if path.exists() else None
    if user:
        raise RebyteError(f"another process is at work on the branch: {user}")
    path.unlink(missing_ok=True)
