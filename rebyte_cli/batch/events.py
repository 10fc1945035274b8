"""What the threads of a batch tell the main thread, which alone changes the state of a line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

EventKind = Literal[
    # From the workers, about one create:
    "created",  # (body, task)
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
    "unreadable",  # APIError
    "unattended",  # NeedsAnswer; the task waits for an answer, and there is no one to give it
    # About the whole batch:
    "fatal",  # RebyteError that every other create would meet too
    "crash",  # an exception that is a bug in rebyte
    "signal",  # the number of the signal
]


class BatchEvent(NamedTuple):
    """`line` is the index of a line in the input, or None. `value` is what the list above says."""

    kind: EventKind
    line: int | None
    value: Any


Report = Callable[[EventKind, int | None, Any], None]
