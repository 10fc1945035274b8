"""What tokens cost: the prices that the user has configured, and which of them an answer has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MILLION = 1_000_000
# Dollars per million tokens read, read from a cache, and written.
TokenPrices = tuple[float, float, float]
# What a service adds to the name of a model: the date or the number of a version.
_VERSION = r"(?:[-@](?:\d{3}|\d{4,8}|\d{4}-\d{2}-\d{2}|latest))?"


@dataclass(frozen=True)
class ModelPrices:
    """The price of the model that a run was created with (`own`), and those of all by name.

    A program in the sandbox chooses the model of each request, so what counts is the model that
    answered.
    """

    own: TokenPrices | None = None
    named: Mapping[str, TokenPrices] = field(default_factory=dict)

    @classmethod
    def of_options(cls, options: Mapping[str, Any]) -> ModelPrices:
        """Those in the options of a run: `price` and `prices`."""
        return cls(options.get("price"), options.get("prices") or {})

    def cost(self, usage: Mapping[str, Any], model: str | None) -> float | None:
        """What a usage (the words of `token_counts`) of a model cost in dollars, if known.

        A cost in it counts: the service that has the model told it. What of it `others` did costs
        what those models do.
        """
        told = usage.get("cost_usd")
        if isinstance(told, int | float) and 0 <= told < float("inf"):
            return float(told)
        others = usage.get("others", ())
        names = ("input_tokens", "cached_input_tokens", "output_tokens")
        own = {
            name: max(usage.get(name, 0) - sum(o.get(name, 0) for o in others), 0) for name in names
        }
        priced = [(own, self._price(model)), *((o, self._price(o.get("model"))) for o in others)]
        costs = [cost_of(part, price) for part, price in priced if price is not None]
        return sum(costs) if len(costs) == len(priced) else None

    def _price(self, model: str | None) -> TokenPrices | None:
        """The price of a model: under its name, one without version, or an alias such as `opus`.

        The dearest one for a model without a price, if that of the run has one.
        """
        matching = [name for name in self.named if _is_name_of(name, model or "")]
        if matching:
            return self.named[max(matching, key=lambda name: (name == model, len(name)))]
        if self.own is None:
            return None
        every = [self.own, *self.named.values()]
        return max(p[0] for p in every), max(p[1] for p in every), max(p[2] for p in every)


def _is_name_of(name: str, model: str) -> bool:
    # One service is asked through another by longer names: `openrouter/anthropic/claude-…`.
    short, answered = name.rpartition("/")[2], model.rpartition("/")[2]
    if re.fullmatch(re.escape(short) + _VERSION, answered):
        return True
    return short.isalpha() and short in re.split("[^A-Za-z]+", answered)


def cost_of(usage: Mapping[str, Any], price: TokenPrices) -> float:
    """What a usage (the words of `token_counts`) costs by a price, in dollars."""
    cached = int(usage.get("cached_input_tokens", 0))
    fresh = max(int(usage.get("input_tokens", 0)) - cached, 0)
    written = int(usage.get("output_tokens", 0))
    return (fresh * price[0] + cached * price[1] + written * price[2]) / MILLION
