"""How many tokens, or dollars, tasks may use together: what `--budget` says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..api.token_usage import TokenUsage, described, dollars
from ..errors import BadUsage

# A usage with its cost by the price of a model, if there is one.
Priced = Callable[[TokenUsage, str], TokenUsage]


class Budget(NamedTuple):
    """A limit: of `tokens` read and written, or of `cost` in dollars; the other one is None."""

    tokens: int | None
    cost: float | None

    def __str__(self) -> str:
        return f"{self.tokens:,} tokens" if self.cost is None else dollars(self.cost)

    @property
    def fields(self) -> dict[str, Any]:
        """As fields of a create, for the local service, which ends runs once it is used up."""
        found = {"budgetTokens": self.tokens, "budgetUsd": self.cost}
        return {name: amount for name, amount in found.items() if amount is not None}


class Spending:
    """What tasks have used of a budget: the newest that is known of each counts, once."""

    def __init__(self, budget: Budget, priced: Priced) -> None:
        self.budget = budget
        self._priced = priced
        self._tokens = 0
        self._cost = 0.0
        self._uncounted = 0
        self._of: dict[str, TokenUsage] = {}

    def note(self, task_id: str, usage: TokenUsage, *models: str) -> None:
        """A task has used this so far. Its price is that of the first of `models` which has one.

        Raises BadUsage if none has, and the budget is in dollars.
        """
        cost = next(
            (cost for model in models if (cost := self._priced(usage, model).cost) is not None),
            None,
        )
        if cost is None and self.budget.cost is not None:
            raise no_price(models[0] if models else "", f"task {task_id} used")
        before = self._of.get(task_id, TokenUsage(None, 0, 0, 0, 0.0))
        self._of[task_id] = usage._replace(cost=cost)
        self._tokens += usage.tokens - before.tokens
        self._cost += (cost or 0.0) - (before.cost or 0.0)
        self._uncounted += usage.uncounted - before.uncounted

    @property
    def is_reached(self) -> bool:
        """Whether nothing is left."""
        if self.budget.tokens is not None:
            return self._tokens >= self.budget.tokens
        return self._cost >= (self.budget.cost or 0.0) - 1e-9

    def __str__(self) -> str:
        known = None if self.budget.cost is None else self._cost
        return described(TokenUsage(None, self._tokens, 0, 0, known, self._uncounted))


def check_prices(budget: Budget | None, models: dict[str, str | None], priced: Priced) -> None:
    """Raise BadUsage if the budget is in dollars, and a model has no price.

    `models` are those that will be used, by what uses them: "line 7". None is a default that only
    the agent knows.
    """
    if budget is None or budget.cost is None:
        return
    for user, model in models.items():
        if model is None:
            raise BadUsage(
                f"--budget in dollars: {user} names no model, so its price is not known",
                hint="Name the model with -m, or use a budget in tokens, such as 300ktok",
            )
        if priced(TokenUsage(None, 0, 0, 0, None), model).cost is None:
            raise no_price(model, f"{user} uses")


def no_price(model: str, user: str) -> BadUsage:
    """The error for a model whose price is not known; `user` is who uses it: "line 7 uses"."""
    name = model or "a model without a name"
    return BadUsage(
        f"--budget in dollars: {user} {name}, whose price is not known",
        hint=f'Add [prices."{model or "MODEL"}"] with input and output to config.toml, in dollars'
        " per million tokens, or use a budget in tokens, such as 300ktok",
    )
