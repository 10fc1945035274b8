"""Tasks as they lie in the database, each with the runs of its prompts."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .http import Caller, missing, stamp
from .run_interface import TASK_STATUS, Run, RunUsage, sum_of
from .simulation import SimulatedRun
from .store import Store, new_id

if TYPE_CHECKING:
    from .agents.supervision.runs import RunRecord

TITLE_AFTER_MS = 250


class TaskRecord(NamedTuple):
    """One task with the runs of its prompts, oldest first (there is at least one)."""

    id: str
    workspace: str
    created: int
    executor: str
    model: str
    title: str
    visibility: str
    deleted: int | None
    batch: str | None  # what tasks of one batch have in common
    runs: list[Run]

    @property
    def is_simulated(self) -> bool:
        """Whether no real agent has worked on it, or is about to."""
        return all(isinstance(run, SimulatedRun) for run in self.runs)

    def status(self, now: int) -> str:
        """`running`, `completed`, `failed` or `canceled`."""
        if any(run.ended_at(now) is None for run in self.runs):
            return "running"
        return TASK_STATUS[self.runs[-1].outcome]

    def completed(self, now: int) -> int | None:
        """When the task reached its terminal status; None while it is running."""
        return None if self.status(now) == "running" else max(run.end for run in self.runs)

    def queue(self, store: Store, now: int) -> dict[str, Any]:
        """`resumesAt`, when a usage limit is reset that the task waits for; `queue`, what it waits
        for before its next run begins, and `preparing`, what is done before its agent starts; none
        of them if that works, or no run is left.
        """
        for run in self.runs:
            if run.ended_at(now) is None:
                if (moment := run.resumes_at(store, now)) is not None:
                    return {"resumesAt": stamp(moment)}
                found = {"queue": run.queue(store), "preparing": run.preparing(store)}
                return {name: value for name, value in found.items() if value}
        return {}

    def usage(self, now: int) -> RunUsage | None:
        """What its runs have used together until `now`; None if nothing is known."""
        found = [used for run in self.runs if (used := run.usage(now)) is not None]
        return sum_of(found) if found else None

    def shown_title(self, now: int) -> str | None:
        """The title, or None while the task is young, as seen in clients."""
        return None if 0 <= now - self.created < TITLE_AFTER_MS else self.title


def add_prompt(
    db: sqlite3.Connection,
    task: str,
    text: str,
    worker: tuple[str, str],
    now: int,
    plan: Mapping[str, Any] | None = None,
    answer: str = "",
) -> str:
    """Record a prompt for `worker` (executor, model); its id. A real agent's has no `plan`."""
    prompt_id = new_id()
    db.execute(
        "INSERT INTO prompts (id, task, text, executor, model, submitted, plan, answer, kept)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (prompt_id, task, text, *worker, now, json.dumps(plan), answer, plan is None),
    )
    return prompt_id


def load_task(db: sqlite3.Connection, caller: Caller, task_id: str) -> TaskRecord:
    """The task with this id. 404 when the caller sees none, or it was deleted."""
    rows = db.execute("SELECT * FROM tasks WHERE id = ? AND deleted IS NULL", (task_id,))
    found = load_tasks(db, rows)
    if not found:
        raise missing("Task")
    caller.check(db, found[0].workspace, "Task")
    return found[0]


def load_tasks(db: sqlite3.Connection, rows: Iterable[sqlite3.Row]) -> list[TaskRecord]:
    """Tasks for rows of `tasks`, in the order of the rows."""
    rows = list(rows)
    prompts: dict[str, list[sqlite3.Row]] = {row["id"]: [] for row in rows}
    for row in db.execute(
        "SELECT * FROM prompts WHERE task IN (SELECT value FROM json_each(?)) ORDER BY seq",
        (json.dumps(list(prompts)),),
    ):
        prompts[row["task"]].append(row)
    recorded = _recorded(db, [row["id"] for several in prompts.values() for row in several])
    plain = [name for name in TaskRecord._fields if name not in ("title", "runs")]
    return [
        TaskRecord(
            **{name: row[name] for name in plain},
            title=json.loads(row["title"]),
            runs=_runs(prompts[row["id"]], recorded),
        )
        for row in rows
        # A task and its first prompt are written in one transaction, but two statements of a
        # reader may see it before and after.
        if prompts[row["id"]]
    ]


def _runs(prompts: Sequence[sqlite3.Row], recorded: Mapping[str, RunRecord]) -> list[Run]:
    """The runs of one task's prompts, given oldest first."""
    runs: list[Run] = []
    for row in prompts:
        record = recorded.get(row["id"])
        if record is None:
            runs.append(SimulatedRun(row, runs[-1].end if runs else 0))
        else:
            from .agents.supervision.recorded_run import RecordedRun

            runs.append(RecordedRun(row, record))
    return runs


def _recorded(db: sqlite3.Connection, prompts: Sequence[str]) -> Mapping[str, RunRecord]:
    """What was recorded of those of `prompts` that real agents run, by the prompt's id."""
    rows = db.execute(
        "SELECT prompt FROM runs WHERE prompt IN (SELECT value FROM json_each(?))",
        (json.dumps(prompts),),
    ).fetchall()
    if not rows:
        return {}  # and most often there is no agent to import anything for
    from .agents.supervision import runs

    return runs.load(db, [row[0] for row in rows])
