"""What the tasks of a batch use together, and whether its budget allows another one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..api.status import is_terminal
from ..api.token_usage import TokenUsage
from ..errors import BudgetReached, RebyteError
from ..tasks.budget import Spending

if TYPE_CHECKING:
    from .assignment import Assignment
    from .place import RunParts


class BatchSpending:
    """Counts what the tasks of all runs of a journal use against its budget, if it has one.

    Each method returns the error that ends the creates, once the budget lets nothing more be
    created, and raises BadUsage for what has no price. Only the main thread calls this.
    """

    def __init__(self, parts: RunParts, assignment: Assignment) -> None:
        budget = parts.options.budget
        self._spending = None if budget is None else Spending(budget, parts.priced)
        self._lines, self._is_pool = parts.lines, parts.is_pool
        self._assignment = assignment

    def count_earlier(self) -> RebyteError | None:
        """Count what earlier runs used."""
        if self._spending is None:
            return None
        for index, entry in self._lines.items():
            for task_id, (usage, model) in entry.used.items():
                self._note(self._spending, index, task_id, usage, model)
        return _reached(self._spending)

    def count(self, index: int, task: Mapping[str, Any]) -> RebyteError | None:
        """Count what the task of a line has used so far; it may run on."""
        if self._spending is None:
            return None
        usage = TokenUsage.of(task.get("usage"))
        if usage is not None:
            model = str(task.get("model") or "")
            self._note(self._spending, index, str(task.get("id")), usage, model)
        elif is_terminal(task.get("status")):
            return RebyteError(
                f"task {task.get('id')} has ended and the service does not say what it used, so the"
                " budget cannot be kept",
                code="usage_unknown",
            )
        # The service counts more than it says: requests of which no model said what they used.
        return _reached(self._spending, is_spent=task.get("endedBy") == "budget")

    def _note(
        self, spending: Spending, index: int, task_id: str, usage: TokenUsage, model: str
    ) -> None:
        # Two services may give tasks the same id.
        task = f"{self._lines[index].place} {task_id}" if self._is_pool else task_id
        spending.note(task, usage, model, self._assignment.field_of(index, "model"))


def _reached(spending: Spending, *, is_spent: bool = False) -> RebyteError | None:
    if not (is_spent or spending.is_reached):
        return None
    return BudgetReached(
        f"the budget of {spending.budget} is used up: {spending}",
        hint="Run the same command with a larger --budget to continue",
    )
