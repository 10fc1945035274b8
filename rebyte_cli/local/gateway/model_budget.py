"""What a run may still use of its models: the gateway passes no request once nothing is left."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

MILLION = 1_000_000
QUESTION = b"budget?\n"


@dataclass(frozen=True)
class ModelBudget:
    """What is left for a run when it starts.

    `tokens` read and written, `cost` in dollars: None for no limit. `price` is dollars per million
    tokens read, read from a cache and written, for answers that tell no cost. `reason` is what is
    answered once nothing is left. If others use it too (`is_shared`), the supervisor is asked
    before each request.
    """

    tokens: int | None = None
    cost: float | None = None
    price: tuple[float, float, float] | None = None
    reason: str = ""
    is_shared: bool = False


def cost_of(usage: Mapping[str, Any], price: tuple[float, float, float] | None) -> float | None:
    """What a usage (the words of `tokens.counted`) cost in dollars; None if that is not known."""
    told = usage.get("cost_usd")
    if isinstance(told, int | float):
        return float(told)
    if price is None:
        return None
    cached = int(usage.get("cached_input_tokens", 0))
    fresh, written = int(usage.get("input_tokens", 0)) - cached, int(usage.get("output_tokens", 0))
    return (fresh * price[0] + cached * price[1] + written * price[2]) / MILLION


class BudgetMeter:
    """Counts what the answers of models used. For several threads."""

    def __init__(self, budget: ModelBudget, ask: Callable[[], str]) -> None:
        """`ask` says why the budget is used up, also by others, or an empty text."""
        self._budget = budget
        self._ask = ask
        self._asking = threading.Lock()
        self._lock = threading.Lock()
        self._tokens = 0
        self._cost = 0.0
        self._of: dict[str, tuple[int, float]] = {}

    def spend(self, request: str, usage: Mapping[str, Any] | None) -> None:
        """Count what the answer to a request has used so far."""
        if not usage:
            return
        tokens = usage.get("input_tokens", 0) + usage.get("output_tokens", 0)
        cost = cost_of(usage, self._budget.price) or 0.0
        with self._lock:
            before_tokens, before_cost = self._of.get(request, (0, 0.0))
            self._of[request] = tokens, cost
            self._tokens += tokens - before_tokens
            self._cost += cost - before_cost

    def reached(self) -> str:
        """Why no request may pass any more, or an empty text. Raises OSError if none can tell."""
        budget = self._budget
        if budget.tokens is not None and self._tokens >= budget.tokens:
            return budget.reason
        if budget.cost is not None and self._cost >= budget.cost - 1e-9:
            return budget.reason
        if not budget.is_shared:
            return ""
        with self._asking:
            return self._ask()


def ask_supervisor() -> str:
    """Ask over this process's standard streams; the answer is a line of JSON. Raises OSError."""
    os.write(1, QUESTION)
    line = sys.stdin.readline()
    if not line:
        raise BrokenPipeError("the supervisor is gone")
    return str(json.loads(line))
