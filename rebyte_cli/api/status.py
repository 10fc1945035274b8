"""What the words for a status mean: those of tasks, and those of prompts."""

from __future__ import annotations

# Task words (seed document). A prompt uses `pending` and `succeeded` besides.
TERMINAL = frozenset({"completed", "failed", "canceled"})
_CANONICAL = {"succeeded": "completed", "cancelled": "canceled"}


def canonical_status(status: object) -> str:
    """A status in task words: `succeeded` becomes `completed`, `cancelled` becomes `canceled`.

    An unknown word stays as it is; anything but text becomes the empty string.
    """
    word = status if isinstance(status, str) else ""
    return _CANONICAL.get(word, word)


def is_terminal(status: object) -> bool:
    """Whether a status, in task or prompt words, is an end; an unknown word is not."""
    return canonical_status(status) in TERMINAL
