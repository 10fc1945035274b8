"""What the tasks that were created from here used of their models.

A row is the sum of a task as its document told it, or what the result event of one of its prompts
told. Each replaces what was known before, so that nothing is counted twice.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any

from ..api.token_usage import PricedUsage, TokenUsage, total
from .database import Lenient
from .labels import TaskLabels
from .rows import AMONG, among, stored_text, text_of

WHOLE = ""  # in the place of a prompt's id: the sum of the task
_COUNTS = ("requests", "input", "cached", "output", "cost", "uncounted")
_NAMES = (
    "requests", "inputTokens", "cachedInputTokens", "outputTokens", "costUsd", "uncountedRequests",
)  # fmt: skip
_TOLD = ("createdAt", "executor", "model")  # of the task; of no other use once it is deleted


class UsedTokens:
    """The table `used` of one origin. With `enabled` false nothing is written."""

    def __init__(self, database: Lenient, labels: TaskLabels, *, enabled: bool) -> None:
        self._database = database
        self._labels = labels
        self._enabled = enabled

    def note(self, tasks: Iterable[Mapping[str, Any]]) -> None:
        """Take over the `usage` of documents of tasks that were created from here."""
        found = {}
        for task in tasks:
            usage = TokenUsage.of(task.get("usage"))
            is_own = isinstance(task.get("usage"), PricedUsage)
            if usage is not None and task.get("id") and not is_own:
                told = [_text(task.get(name)) for name in _TOLD]
                found[stored_text(task["id"], plain=True), WHOLE] = (usage, told)
        self._save(found)

    def note_prompt(self, task_id: str, prompt_id: str, usage: TokenUsage) -> None:
        """Take over what the result event of a prompt told."""
        key = stored_text(task_id, plain=True), stored_text(prompt_id or "?", plain=True)
        self._save({key: (usage, [None] * len(_TOLD))})

    def _save(self, found: Mapping[tuple[str, str], tuple[TokenUsage, list[str | None]]]) -> None:
        if not self._enabled or not found:
            return
        sql = f"SELECT id FROM tasks WHERE origin = ? AND id {AMONG}"  # noqa: S608 -- constant
        ids = among(task_id for task_id, _ in found)
        own = {row["id"] for row in self._database.rows(sql, ids)}
        known = self._rows(own)
        new = [
            [self._database.origin, task_id, prompt_id, *usage, *told]
            for (task_id, prompt_id), (usage, told) in found.items()
            if task_id in own and known.get(task_id, {}).get(prompt_id) != usage
        ]
        if new:
            sql = (
                f"INSERT OR REPLACE INTO used (origin, task_id, prompt_id, {', '.join(_COUNTS)},"  # noqa: S608 -- ours
                " created_at, executor, model) SELECT origin, id, ?3, ?4, ?5, ?6, ?7, ?8, ?9,"
                " COALESCE(?10, created_at), COALESCE(?11, executor), COALESCE(?12, model)"
                " FROM tasks WHERE origin = ?1 AND id = ?2"
            )
            self._database.change(lambda connection: connection.executemany(sql, new))

    def of(self, ids: Iterable[str]) -> dict[str, TokenUsage]:
        """What is known of these tasks, by id."""
        return {task_id: _whole(parts) for task_id, parts in self._rows(set(ids)).items()}

    def every(self) -> list[dict[str, Any]]:
        """Every task of which something is known, oldest first.

        Keys: `id`, `createdAt`, `executor`, `model`, `githubUrl` (each text or None), `labels`, and
        `usage`, a TokenUsage. Of a deleted task, the last two of the text are what was known.
        """
        rows = self._database.rows(
            "SELECT used.*, tasks.github_url, tasks.local_repository FROM used"
            " LEFT JOIN tasks ON tasks.origin = used.origin AND tasks.id = used.task_id"
            " WHERE used.origin = ? ORDER BY used.created_at, used.task_id, used.prompt_id"
        )
        labels = self._labels.every()
        usages = _usages_of(rows)
        first = {str(row["task_id"]): row for row in reversed(rows) if _usage_of(row) is not None}
        return [
            {
                "id": task_id,
                "createdAt": text_of(first[task_id]["created_at"]),
                "executor": text_of(first[task_id]["executor"]),
                "model": text_of(first[task_id]["model"]),
                "githubUrl": text_of(first[task_id]["github_url"])
                or text_of(first[task_id]["local_repository"]),
                "labels": labels.get(task_id, {}),
                "usage": _whole(parts),
            }
            for task_id, parts in usages.items()
        ]

    def _rows(self, ids: Iterable[str]) -> dict[str, dict[str, TokenUsage]]:
        """What is known, by task and prompt."""
        rows = self._database.rows(
            f"SELECT * FROM used WHERE origin = ? AND task_id {AMONG}",  # noqa: S608 -- constant
            among(ids),
        )
        return _usages_of(rows)


def _usages_of(rows: Iterable[sqlite3.Row]) -> dict[str, dict[str, TokenUsage]]:
    found: dict[str, dict[str, TokenUsage]] = {}
    for row in rows:
        usage = _usage_of(row)
        if usage is not None:
            found.setdefault(str(row["task_id"]), {})[str(row["prompt_id"])] = usage
    return found


def _whole(parts: Mapping[str, TokenUsage]) -> TokenUsage:
    """What a task used: as its document told it, or else the sum of its prompts."""
    return parts[WHOLE] if WHOLE in parts else total(parts.values())


def _usage_of(row: sqlite3.Row) -> TokenUsage | None:
    return TokenUsage.of({name: row[at] for name, at in zip(_NAMES, _COUNTS, strict=True)})


def _text(value: Any) -> str | None:
    return stored_text(value) if isinstance(value, str) and value else None
