"""Labels of tasks, `NAME=VALUE`: kept on this machine only, since the API has none.

They are written even if the history is off, since the user asked for them.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ..errors import BadUsage
from .database import Lenient
from .rows import AMONG, among, stored_text

LONGEST_VALUE = 200  # characters
MOST = 50  # of one task
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}", re.ASCII)


def problem_of(name: str, value: Any) -> str | None:
    """What is wrong with a label, or None."""
    if not _NAME.fullmatch(name):
        return (
            f"{name[:80]!r} is not a label name: use letters, digits and `._/-`, at most 63"
            " characters, a letter or digit first"
        )
    if not isinstance(value, str):
        return f"{name}: the value must be a string"
    # An unset variable must not select, or mark, other tasks than those that were meant.
    if not value.strip():
        return f"{name}: the value is empty"
    if len(value) > LONGEST_VALUE:
        return f"{name}: the value has more than {LONGEST_VALUE} characters"
    return None if value.isprintable() else f"{name}: the value cannot be printed"


def problem_of_all(labels: Mapping[str, Any]) -> str | None:
    """The first problem of several labels, or None."""
    if len(labels) > MOST:
        return f"more than {MOST} labels"
    problems = (problem_of(name, value) for name, value in labels.items())
    return next((problem for problem in problems if problem), None)


def parse(words: Iterable[str], *, of: str = "--label") -> dict[str, str]:
    """The labels that `--label` was given. BadUsage for one that is malformed or given twice.

    `of` begins the error.
    """
    labels: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise BadUsage(f"{of} {word!r} is not NAME=VALUE", hint=f"For example {of} team=search")
        if labels.setdefault(name, value) != value:
            raise BadUsage(f"{of}: {name} has two values, {labels[name]!r} and {value!r}")
    if problem := problem_of_all(labels):
        raise BadUsage(f"{of}: {problem}")
    return labels


def changes(words: Iterable[str]) -> tuple[list[str], dict[str, str], list[str]]:
    """The references to tasks, labels to set (`NAME=VALUE`) and names to remove (`NAME-`) of words.

    BadUsage for a label that is malformed, or both set and removed. A task's id has no `=`, and
    does not end in a hyphen.
    """
    words = list(words)
    removed = [word[:-1] for word in words if len(word) > 1 and word.endswith("-")]
    given = [word for word in words if "=" in word]
    labels = parse(given, of="label")
    if both := sorted({*labels} & {*removed}):
        raise BadUsage(f"label: {both[0]} is both set and removed")
    names = {f"{name}-" for name in removed}
    return [word for word in words if word not in names and word not in given], labels, removed


def shown(labels: Mapping[str, str]) -> str:
    """Labels as a user writes them."""
    return ", ".join(f"{name}={value}" for name, value in labels.items())


class LabelCount(NamedTuple):
    """A label, and how many tasks have it."""

    name: str
    value: str
    tasks: int


class TaskLabels:
    """The table `labels` of one origin."""

    def __init__(self, database: Lenient) -> None:
        self._database = database
        self._origin = database.origin

    def of(self, ids: Iterable[str]) -> dict[str, dict[str, str]]:
        """The labels of those of the tasks that have any, by id, sorted by name."""
        sql = (
            f"SELECT task_id, name, value FROM labels WHERE origin = ? AND task_id {AMONG}"  # noqa: S608 -- constant
            " ORDER BY name"
        )
        return _by_task(self._database.rows(sql, among(ids)))

    def every(self) -> dict[str, dict[str, str]]:
        """The labels of every task that has some, as `of`."""
        sql = "SELECT task_id, name, value FROM labels WHERE origin = ? ORDER BY name"
        return _by_task(self._database.rows(sql))

    def having(self, labels: Mapping[str, str]) -> list[str]:
        """The ids of the tasks that have all of these labels, newest first."""
        if not labels:
            return []
        tables = " INTERSECT ".join(
            ["SELECT task_id FROM labels WHERE origin = ?1 AND name = ? AND value = ?"]
            * len(labels)
        )
        values = [part for name, value in labels.items() for part in (name, stored_text(value))]
        rows = self._database.rows(
            f"SELECT found.task_id FROM ({tables}) AS found LEFT JOIN tasks"  # noqa: S608 -- ours
            " ON tasks.origin = ?1 AND tasks.id = found.task_id ORDER BY tasks.seq DESC",
            *values,
        )
        return [str(row["task_id"]) for row in rows]

    def counts(self) -> list[LabelCount]:
        """Every label that a task has, sorted by name and value."""
        sql = (
            "SELECT name, value, COUNT(*) AS tasks FROM labels WHERE origin = ?"
            " GROUP BY name, value ORDER BY name, value"
        )
        rows = self._database.rows(sql)
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
