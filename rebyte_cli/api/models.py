"""Shapes of the wire, and what the words for a status mean.

Every shape is open: keys that are not named here are kept as they came.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

# Task words (seed document). A prompt uses `pending` and `succeeded` besides.
TERMINAL = frozenset({"completed", "failed", "canceled"})
_SAME = {"succeeded": "completed", "cancelled": "canceled"}


class CreatedTask(TypedDict, total=False):
    """Answer of POST /tasks (seed document). `workspaceId` is in no later answer."""

    id: str
    workspaceId: str
    url: str
    status: str
    createdAt: str


class Prompt(TypedDict, total=False):
    """One prompt of a task (seed document); the last three only in `content` (seen in clients)."""

    id: str
    status: str
    submittedAt: str
    completedAt: str | None
    userPrompt: str
    response: str | None
    events: list[dict[str, Any]]


class Task(TypedDict, total=False):
    """Answer of GET /tasks/{id} (seed document); `finalResult` was seen in a client."""

    id: str
    url: str
    status: str
    title: str | None
    executor: str | None
    model: str | None
    createdAt: str
    completedAt: str | None
    prompts: list[Prompt]
    finalResult: str | None


class TaskPage(TypedDict, total=False):
    """Answer of GET /tasks (vendor docs). Rows have no `status`."""

    data: list[dict[str, Any]]
    total: int
    limit: int
    offset: int


class UploadSlot(TypedDict, total=False):
    """Answer of POST /files (vendor docs). `filename` is a unique variant of the one sent."""

    id: str
    filename: str
    uploadUrl: str


class FileRef(TypedDict):
    """An uploaded file as POST /tasks takes it (vendor docs)."""

    id: str
    filename: str


def same_word(status: object) -> str:
    """A status in task words: `succeeded` is `completed`, `cancelled` is `canceled`.

    Anything that is not text is the empty string.
    """
    word = status if isinstance(status, str) else ""
    return _SAME.get(word, word)


def task_status(task: Mapping[str, Any]) -> str:
    """The status of a task in task words; a word nobody knows stays and is not terminal."""
    return same_word(task.get("status"))


def is_terminal(status: object) -> bool:
    """Whether a status, in task or prompt words, is an end."""
    return same_word(status) in TERMINAL


def prompt_outcome(status: object) -> str | None:
    """How a prompt ended, in task words; None while it is pending, running or unknown."""
    word = same_word(status)
    return word if word in TERMINAL else None
