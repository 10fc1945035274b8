"""What a run may still use of its models: the gateway passes no request once nothing is left.

A program in the sandbox can ask so that the answer does not say what it used: streamed without
`include_usage`, in the background, or by leaving, or not reading on, in the middle. It would be
free otherwise, so it counts as much as the largest requests of the usual models. No number of bytes
would be a limit: a request can refer to an earlier response, to files and to pages, and a model
thinks without a word.

What was cut off by the user, who canceled the run, or by the model's side, was not chosen in this
way, and counts as a large request of an agent. A server that closes the connection without an
answer has cut off what it had for a while. What it refuses at once is free: agents ask again. But
a server gives up on a program that takes nothing of the answer, or keeps back the rest of a request
whose question is whole. This was chosen (`Exchange.is_chosen`), and so are other ends of a run.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .model_prices import ModelPrices

QUESTION = b"budget?\n"
LARGEST = 1_000_000, 128_000  # tokens read and written
USUAL = 200_000, 32_000
BYTES_OF_TOKEN = 2  # fewer than in text, and far fewer than in images and in the frame of a stream


@dataclass(frozen=True)
class ModelBudget:
    """What is left for a run when it starts.

    `tokens` read and written, `cost` in dollars: None for no limit. `prices` are for answers that
    tell no cost. `reason` is what is answered once nothing is left. If others use it too
    (`is_shared`), the supervisor is asked before each request, and before its end.
    """

    tokens: int | None = None
    cost: float | None = None
    prices: ModelPrices = field(default_factory=ModelPrices)
    reason: str = ""
    is_shared: bool = False

    def is_used_up(self, tokens: int, cost: float) -> bool:
        """Whether nothing is left once so much was used. Sums of dollars are not exact."""
        if self.tokens is not None and tokens >= self.tokens:
            return True
        return self.cost is not None and cost >= self.cost - 1e-9


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

    def spend(self, request: str, model: str | None, *usages: Mapping[str, Any] | None) -> None:
        """Count what a request has used so far: the sum of the usages."""
        tokens, cost = 0, 0.0
        for usage in usages:
            if usage:
                tokens += usage.get("input_tokens", 0) + usage.get("output_tokens", 0)
                cost += self._budget.prices.cost(usage, model) or 0.0
        with self._lock:
            before_tokens, before_cost = self._of.get(request, (0, 0.0))
            self._of[request] = tokens, cost
            self._tokens += tokens - before_tokens
            self._cost += cost - before_cost

    def reached(self) -> str:
        """Why no request may pass any more, or an empty text. Raises OSError if none can tell."""
        if self._budget.is_used_up(self._tokens, self._cost):
            return self._budget.reason
        if not self._budget.is_shared:
            return ""
        with self._asking:
            return self._ask()


def estimate(
    usage: Mapping[str, Any] | None,
    sent: int,
    received: int,
    *,
    is_cut: bool,
    answers: int = 1,
) -> dict[str, int]:
    """What a request counts for whose model did not say what it used: the tokens beyond those of
    `usage`, what the answer had said, in the words of `token_counts`.

    `sent` and `received` are bytes; the model was to write so many `answers`. What an answer says
    at first that was read is all only if it `is_cut`: tools of the vendor may read on, for which a
    program can ask in more ways than are known here.
    """
    told = usage or {}
    most_read, most_written = USUAL if is_cut else LARGEST
    read, written = told.get("input_tokens", 0), told.get("output_tokens", 0)
    may_read = read if read and is_cut else max(sent // BYTES_OF_TOKEN, most_read)
    may_write = max(received // BYTES_OF_TOKEN, most_written * answers)
    return {
        "input_tokens": max(may_read - read, 0),
        "output_tokens": max(may_write - written, 0),
    }


def ask_supervisor() -> str:
    """Ask over this process's standard streams; the answer is a line of JSON. Raises OSError."""
    os.write(1, QUESTION)
    line = sys.stdin.readline()
    if not line:
        raise BrokenPipeError("the supervisor is gone")
    return str(json.loads(line))
