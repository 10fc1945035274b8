"""Tasks and prompts as they lie in the store, and finding them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import Any, NamedTuple

from .http import missing
from .schedule import Prompt, Span, Written, spans, writings

TITLE_AFTER_MS = 250


class Task(NamedTuple):
    """One task with its prompts (oldest first) and their spans."""

    id: str
    workspace: str
    created: int
    executor: str
    model: str
    title: str
    visibility: str
    deleted: int | None
    prompts: list[Prompt]
    times: list[Span]

    def shown_title(self, now: int) -> str | None:
        """The title, or None while the task is young, as seen in clients."""
        return None if now < self.created + TITLE_AFTER_MS else self.title


def load_task(db: sqlite3.Connection, task_id: str) -> Task:
    """The task with this id. 404 when there is none or it was deleted."""
    found = load_tasks(
        db, db.execute("SELECT * FROM tasks WHERE id = ? AND deleted IS NULL", (task_id,))
    )
    if not found:
        raise missing("Task")
    return found[0]


def load_tasks(db: sqlite3.Connection, rows: Iterable[sqlite3.Row]) -> list[Task]:
    """Tasks for rows of `tasks`, in the order of the rows."""
    rows = list(rows)
    prompts: dict[str, list[Prompt]] = {row["id"]: [] for row in rows}
    wanted = json.dumps(list(prompts))
    for row in db.execute(
        "SELECT * FROM prompts WHERE task IN (SELECT value FROM json_each(?)) ORDER BY seq",
        (wanted,),
    ):
        prompts[row["task"]].append(_prompt(row))
    _add_runs(db, prompts)
    return [
        Task(
            row["id"],
            row["workspace"],
            row["created"],
            row["executor"],
            row["model"],
            json.loads(row["title"]),
            row["visibility"],
            row["deleted"],
            prompts[row["id"]],
            spans(prompts[row["id"]]),
        )
        for row in rows
        # A task and its first prompt are written in one transaction, but two statements of a
        # reader may see it before and after.
        if prompts[row["id"]]
    ]


def _add_runs(db: sqlite3.Connection, prompts: dict[str, list[Prompt]]) -> None:
    """Give the prompts of real agents what was recorded of their runs."""
    real = [one.id for several in prompts.values() for one in several if one.plan.get("real")]
    if not real:
        return  # and most often there is no agent to import anything for
    from .agents import runs

    found = runs.load(db, real)
    for task, several in prompts.items():
        prompts[task] = [one._replace(run=found.get(one.id)) for one in several]


def written(db: sqlite3.Connection, prompt: Prompt, span: Span, first: int = 0) -> list[Written]:
    """The events of a prompt, in order.

    `first` leaves out that many events of a real run; a simulated one can insert some anywhere.
    """
    if prompt.run is None:
        return writings(prompt, span)
    from .agents import runs

    return [Written(*event) for event in runs.events(db, prompt.id, first)]


def _prompt(row: sqlite3.Row) -> Prompt:
    reply: dict[str, Any] | None = None if row["reply"] is None else json.loads(row["reply"])
    return Prompt(
        row["id"],
        row["task"],
        row["text"],
        row["executor"],
        row["model"],
        row["submitted"],
        json.loads(row["plan"]),
        row["answer"],
        row["canceled"],
        row["replied"],
        reply,
    )
