"""The budgets of a run: what it and others may use together of their models.

`options` of a run have `budgets`, a list of limits (`of`, and `tokens` or `cost` in dollars). `of`
is `task` for all runs of the task, `day` for all runs that began on the same day as now, or the
name in `budgetOf` of the runs that share it, such as those of one call of `rebyte batch`. What runs
have used is in the database, so no crash resets it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..database import Store
from ..gateway.model_budget import ModelBudget, cost_of
from .run_meter import RunMeter
from .runs import RunRecord

SPENT = "spent"  # the file that says it to the gateway
LOOK_SECONDS = 1.0
TASK, DAY = "task", "day"
_OTHERS = {TASK: "task = ?", DAY: "started >= ?", "": "json_extract(options, '$.budgetOf') = ?"}


class RunBudgets:
    """The budgets of one run. `meter` knows what it has used itself."""

    def __init__(
        self,
        store: Store,
        run: RunRecord,
        options: Mapping[str, Any],
        meter: RunMeter,
        folder: Path,
    ) -> None:
        self._store = store
        self._run = run
        self._limits: list[Mapping[str, Any]] = options.get("budgets") or []
        self._price = options.get("price")
        self._group = options.get("budgetOf")
        self._meter = meter
        self._spent = folder / SPENT
        self._next = 0.0

    def reached(self) -> str:
        """Which budget is used up, or an empty text."""
        own = self._meter.used({})
        cost = cost_of(own, self._price) or 0.0
        for limit in self._limits:
            tokens, dollars = self._used_by_others(limit)
            if _is_reached(limit, tokens + _tokens(own), dollars + cost):
                return _reason(limit)
        return ""

    def watch(self) -> None:
        """Tell the gateway, once a second, if others have used a budget up."""
        now = time.monotonic()
        if self._limits and now >= self._next and not self._spent.exists():
            self._next = now + LOOK_SECONDS
            if reason := self.reached():
                self._spent.write_text(reason)

    def left(self) -> ModelBudget:
        """What is left for this run, for its gateway."""
        self._spent.unlink(missing_ok=True)
        tokens: int | None = None
        cost: float | None = None
        reasons = []
        for limit in self._limits:
            used, dollars = self._used_by_others(limit)
            reasons.append(_reason(limit))
            if limit.get("tokens") is not None:
                rest = limit["tokens"] - used
                tokens = rest if tokens is None else min(tokens, rest)
            if limit.get("cost") is not None:
                money = limit["cost"] - dollars
                cost = money if cost is None else min(cost, money)
        reason = " or ".join(dict.fromkeys(reasons))
        return ModelBudget(tokens, cost, self._price, reason, str(self._spent))

    def _used_by_others(self, limit: Mapping[str, Any]) -> tuple[int, float]:
        of = limit["of"]
        value = {TASK: self._run.task, DAY: _midnight()}.get(of, of)
        return _used(self._store, of, value, self._run.prompt)


def _used(store: Store, of: str, value: object, prompt: str) -> tuple[int, float]:
    """The tokens and the dollars that the runs of a budget have used, but for that of `prompt`."""
    with store.read() as db:
        rows = db.execute(
            "SELECT used, json_extract(options, '$.price') AS price FROM runs"  # noqa: S608 - ours
            f" WHERE {_OTHERS.get(of, _OTHERS[''])} AND prompt != ? AND used IS NOT NULL",
            (value, prompt),
        ).fetchall()
    tokens, cost = 0, 0.0
    for row in rows:
        used = json.loads(row["used"])
        price = None if row["price"] is None else json.loads(row["price"])
        tokens += _tokens(used)
        cost += cost_of(used, price) or 0.0
    return tokens, cost


def _is_reached(limit: Mapping[str, Any], tokens: int, cost: float) -> bool:
    if limit.get("tokens") is not None and tokens >= limit["tokens"]:
        return True
    return limit.get("cost") is not None and cost >= limit["cost"] - 1e-9


def _midnight() -> int:
    """When this day began here, in milliseconds since 1970."""
    now = time.localtime()
    return int(time.mktime((now.tm_year, now.tm_mon, now.tm_mday, 0, 0, 0, 0, 0, -1)) * 1000)


def _tokens(used: Mapping[str, Any]) -> int:
    return int(used.get("input_tokens", 0)) + int(used.get("output_tokens", 0))


def _reason(limit: Mapping[str, Any]) -> str:
    tokens, cost = limit.get("tokens"), limit.get("cost")
    amount = f"{tokens:,} tokens" if tokens is not None else f"${cost:,.2f}"
    if limit["of"] == DAY:
        return f"the budget of {amount} a day ([local] budget_per_day) is used up"
    return f"the budget of {amount} is used up"


def used_up_today(store: Store, limits: Iterable[Mapping[str, Any]]) -> str:
    """Why no further run may begin today, or an empty text."""
    for limit in limits:
        if limit["of"] == DAY:
            tokens, cost = _used(store, DAY, _midnight(), "")
            if _is_reached(limit, tokens, cost):
                return _reason(limit)
    return ""
