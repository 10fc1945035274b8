"""The labels of the tasks that were created from here.

They are written even if the history is off, since the user asked for them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from .database import Lenient
from .rows import AMONG, among, stored_text


class LabelCount(NamedTuple):
    """A label, and how many tasks have it."""

    name: str
    value: str
    tasks: int


class TaskLabels:
    """The table `labels` of one origin."""

    def __init__(self, database: Lenient, origin: str) -> None:
        self._database = database
        self._origin = origin

    def of(self, ids: Iterable[str]) -> dict[str, dict[str, str]]:
        """The labels of those of the tasks that have any, by id, sorted by name."""
        sql = (
            f"SELECT task_id, name, value FROM labels WHERE origin = ? AND task_id {AMONG}"  # noqa: S608 -- constant
            " ORDER BY name"
        )
        return _by_task(self._database.rows(sql, self._origin, among(ids)))

    def every(self) -> dict[str, dict[str, str]]:
        """The labels of every task that has some, as `of`."""
        sql = "SELECT task_id, name, value FROM labels WHERE origin = ? ORDER BY name"
        return _by_task(self._database.rows(sql, self._origin))

    def having(self, labels: Mapping[str, str]) -> list[str]:
        """The ids of the tasks that have all of these labels, newest first."""
        if not labels:
            return []
        tables = " INTERSECT ".join(
            ["SELECT task_id FROM labels WHERE origin = ? AND name = ? AND value = ?"] * len(labels)
        )
        values = [
            part
            for name, value in labels.items()
            for part in (self._origin, name, stored_text(value))
        ]
        rows = self._database.rows(
            f"SELECT found.task_id FROM ({tables}) AS found LEFT JOIN tasks"  # noqa: S608 -- ours
            " ON tasks.origin = ? AND tasks.id = found.task_id ORDER BY tasks.seq DESC",
            *values,
            self._origin,
        )
        return [str(row["task_id"]) for row in rows]

    def counts(self) -> list[LabelCount]:
        """Every label that a task has, sorted by name and value."""
        sql = (
            "SELECT name, value, COUNT(*) AS tasks FROM labels WHERE origin = ?"
            " GROUP BY name, value ORDER BY name, value"
        )
        rows = self._database.rows(sql, self._origin)
        return [LabelCount(str(row["name"]), str(row["value"]), int(row["tasks"])) for row in rows]

    def change(
        self, ids: Iterable[str], labels: Mapping[str, str], removed: Iterable[str] = ()
    ) -> None:
        """Give these labels to the tasks, in place of those of the same names and of `removed`."""
        tasks = [stored_text(task_id, plain=True) for task_id in ids]
        gone = [(self._origin, name, task) for task in tasks for name in (*labels, *removed)]
        new = [
            (self._origin, name, stored_text(value), task)
            for task in tasks
            for name, value in labels.items()
        ]
        if gone:
            self._database.change(lambda connection: replace(connection, gone, new))

    def forget(self, task_id: str) -> None:
        """Drop the labels of a task."""
        self.change([task_id], {}, self.of([task_id]).get(task_id, {}))


def _by_task(rows: Iterable[sqlite3.Row]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        found.setdefault(str(row["task_id"]), {})[str(row["name"])] = str(row["value"])
    return found


def replace(
    connection: sqlite3.Connection,
    gone: Iterable[tuple[str, str, object]],
    new: Iterable[tuple[str, str, object, object]],
) -> None:
    """Replace rows: `gone` are origins, names and tasks; `new` have the value before the task."""
    connection.executemany(
        "DELETE FROM labels WHERE origin = ? AND name = ? AND task_id = ?", list(gone)
    )
    connection.executemany("INSERT INTO labels VALUES (?, ?, ?, ?)", list(new))
