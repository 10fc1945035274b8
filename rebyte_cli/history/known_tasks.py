"""What this machine knows of tasks beside what the service says of them.

Their workspaces, which no list names; their labels; what their runs used, with its cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..errors import RebyteError, RowOrError

if TYPE_CHECKING:
    from ..api.token_usage import TokenPrice, TokenUsage
    from .history import History

ROWS_TOGETHER = 50  # for which the history is asked at once


class KnownTasks:
    """The tasks of one origin.

    `history` gives the history, None while it has no file, and is called only when it is asked.
    `prices` gives `[prices]` of the configuration: what a model costs, as `TokenPrice` takes it.
    """

    def __init__(
        self,
        history: Callable[[], History | None],
        prices: Callable[[], Mapping[str, Iterable[float]]],
    ) -> None:
        self._history = history
        self._read_prices = prices
        self._workspaces: dict[str, Any] = {}

    def keep_workspace(self, created: Mapping[str, Any]) -> None:
        """Remember a new task's workspace during this run, even without a history."""
        self._workspaces[str(created.get("id"))] = created.get("workspaceId")

    def workspace_of(self, task_id: str) -> str | None:
        """The workspace of a task, if this machine knows it."""
        found = self._workspaces.get(task_id)
        if not found and (history := self._history()):
            found = history.workspace_of(task_id)
        return found

    def update(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """Like `located`, and the history learns the task's title, status and usage."""
        if history := self._history():
            history.update_tasks([task])
        return self.located(task)

    def located(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """The task with its `workspaceId`, `usage` and `labels`, if this machine knows them."""
        (document,) = self._with_usage([task])
        if not document.get("workspaceId") and (found := self.workspace_of(str(task.get("id")))):
            document["workspaceId"] = found
        return document

    def with_usage(self, rows: Iterable[RowOrError]) -> Iterator[RowOrError]:
        """Rows of the list, each with its `usage` and `labels` as `located` has them."""
        walk = iter(rows)
        while chunk := list(islice(walk, ROWS_TOGETHER)):
            known = self._with_usage([row for row in chunk if not isinstance(row, RebyteError)])
            tasks = iter(known)
            yield from (row if isinstance(row, RebyteError) else next(tasks) for row in chunk)

    def _with_usage(self, tasks: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
        used: Mapping[str, TokenUsage] = {}
        labels: Mapping[str, Mapping[str, str]] = {}
        if history := self._history():
            used = history.used.of(str(one.get("id")) for one in tasks if not one.get("usage"))
            labels = history.labels.of(str(task.get("id")) for task in tasks)
        found = []
        for task in tasks:
            task_id = str(task.get("id"))
            more = {"labels": labels[task_id]} if task_id in labels else {}
            found.append(self._priced({**task, **more}, used.get(task_id)))
        return found

    def priced(self, usage: TokenUsage, model: Any) -> TokenUsage:
        """The usage with its cost by `[prices]`, where it has none and the model is known there."""
        if usage.cost is not None or not self._prices:
            return usage
        return usage.priced(self._prices.get(str(model)))

    @cached_property
    def _prices(self) -> Mapping[str, TokenPrice]:
        from ..api.token_usage import TokenPrice

        return {model: TokenPrice(*price) for model, price in self._read_prices().items()}

    def _priced(self, document: dict[str, Any], known: TokenUsage | None) -> dict[str, Any]:
        """The task with its usage, which is `known` if it does not tell; as far as it is priced."""
        usage = document.get("usage") or (known and known.document)
        if not usage:
            return document
        from ..api.token_usage import PricedUsage, TokenUsage

        found = TokenUsage.of(usage)
        if found is not None:
            priced = self.priced(found, document.get("model"))
            is_priced = isinstance(usage, PricedUsage) or priced is not found
            document["usage"] = (PricedUsage if is_priced else dict)(priced.document)
        return document
