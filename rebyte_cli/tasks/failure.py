"""Why a task failed, in one line: how the text begins that its run left behind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..api.views import ContentView, TaskView
from ..errors import APIError, TaskFailed, TaskLimited, TaskOutOfBudget
from ..system.deadline import Deadline
from ..system.redaction import redact_keys
from ..system.safe_text import clean, without_sequences

if TYPE_CHECKING:
    from ..api.client import RebyteClient

LONGEST = 200  # characters of a reason
MOST_READ = 10_000  # characters of a text in which its first words are looked for
SECONDS = 10.0  # for one request: a reason is worth a moment, and not a long wait
FAULTS = 3  # requests in a row that may fail before none is made for PAUSE seconds
PAUSE = 60.0


class FailureReasons:
    """Finds why tasks failed. Thread-safe.

    Only a task without its text costs a request, and a request that fails costs no more than the
    reason.
    """

    def __init__(self, client: RebyteClient) -> None:
        self._client = client
        self._faults = 0  # in a row
        self._paused_until = 0.0

    def of(self, task: Mapping[str, Any], prompt_id: str | None, deadline: Deadline) -> str:
        """Why a task, or this prompt of it, failed; an empty string if nothing says so.

        `task` is its document. The text of a prompt before the latest one is in the content alone.
        """
        view = TaskView(task)
        latest = view.latest
        is_latest = prompt_id is None or (latest is not None and latest.id == prompt_id)
        own = first_line(view.final_result) if is_latest else ""
        return own or first_line(self._response(view.id, prompt_id, deadline))

    def _response(self, task_id: str, prompt_id: str | None, deadline: Deadline) -> str:
        if self._faults >= FAULTS and deadline.clock() < self._paused_until:
            return ""
        limit = deadline.within(SECONDS)
        try:
            content = self._client.task_content(task_id, timeout=limit.for_call())
        except APIError:
            self._faults += 1
            self._paused_until = deadline.clock() + PAUSE
            return ""
        self._faults = 0
        return ContentView(content).response(prompt_id)


def failure_of(task: Mapping[str, Any]) -> type[TaskFailed]:
    """The error for a task that failed, as the service on this machine says of what."""
    kinds = {"budget": TaskOutOfBudget, "limit": TaskLimited}
    return kinds.get(str(task.get("endedBy")), TaskFailed)


def first_line(text: str) -> str:
    """The first line of a text that has a word, without keys and cut to LONGEST characters.

    Colours and other sequences for a terminal, which some agents put into their errors, go too.
    """
    for line in without_sequences(text[:MOST_READ]).splitlines():
        if any(map(str.isalnum, line)):
            words = clean(redact_keys(" ".join(line.split())))
            return words if len(words) <= LONGEST else words[: LONGEST - 1].rstrip() + "…"
    return ""
