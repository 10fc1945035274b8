"""What a task or a run used of a model: tokens, and dollars where their price is known."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

LARGEST = 10**15  # of a count; a service may send anything
MILLION = 1_000_000
# The names of each count: ours, then those of result events (the words of the local service's
# agents, then Anthropic's and OpenAI's).
_INPUT = ("inputTokens", "input_tokens", "prompt_tokens")
_CACHED = ("cachedInputTokens", "cached_input_tokens", "cache_read_input_tokens")
_OUTPUT = ("outputTokens", "output_tokens", "completion_tokens")
_COST = ("costUsd", "cost_usd", "total_cost_usd")
# Anthropic counts what the cache gave and took beside the input; the others count it in.
_BESIDE = ("cache_read_input_tokens", "cache_creation_input_tokens")


class TokenPrice(NamedTuple):
    """Dollars per million tokens."""

    input: float
    cached: float
    output: float


class TokenUsage(NamedTuple):
    """What was used. `input` includes what the cache gave (`cached`), `output` includes thoughts.

    `requests` to the model are None where no one counted them, and `cost` (in dollars) is None
    where no price is known: neither is ever taken for 0. Of `uncounted` requests, the model did not
    say all that they used.
    """

    requests: int | None
    input: int
    cached: int
    output: int
    cost: float | None
    uncounted: int = 0

    @classmethod
    def of(cls, value: Any) -> TokenUsage | None:
        """The usage in a document, or in the payload of a result event; None if there is none."""
        if not isinstance(value, Mapping):
            return None
        found = [_first(value, names) for names in (_INPUT, _CACHED, _OUTPUT)]
        if found[0] is None and found[2] is None:
            return None
        read, cached, written = (count or 0 for count in found)
        read += sum(_count(value.get(name)) or 0 for name in _BESIDE)
        costs = (_cost(value.get(name)) for name in _COST)
        cost = next((each for each in costs if each is not None), None)
        requests, uncounted = _count(value.get("requests")), _count(value.get("uncountedRequests"))
        return cls(requests, read, min(cached, read), written, cost, uncounted or 0)

    @classmethod
    def of_result(cls, payload: Mapping[str, Any]) -> TokenUsage | None:
        """The usage that a result event tells: `usage`, and the cost in it or beside it."""
        usage = payload.get("usage")
        if not isinstance(usage, Mapping):
            return None
        return cls.of({**{name: payload.get(name) for name in _COST if name in payload}, **usage})

    @property
    def tokens(self) -> int:
        """All tokens, read and written."""
        return self.input + self.output

    @property
    def document(self) -> dict[str, Any]:
        """The usage as a document has it."""
        return {
            "requests": self.requests,
            "inputTokens": self.input,
            "cachedInputTokens": self.cached,
            "outputTokens": self.output,
            "costUsd": None if self.cost is None else round(self.cost, 9),
            **({"uncountedRequests": self.uncounted} if self.uncounted else {}),
        }

    def priced(self, price: TokenPrice | None) -> TokenUsage:
        """The same, with its cost by that price if it has none."""
        if self.cost is not None or price is None:
            return self
        fresh = self.input - self.cached
        dollars = fresh * price.input + self.cached * price.cached + self.output * price.output
        return self._replace(cost=dollars / MILLION)


class PricedUsage(dict[str, Any]):
    """A document whose cost comes from the prices of this machine: nothing to be remembered."""


def total(several: Iterable[TokenUsage]) -> TokenUsage:
    """The sum. What one of them does not know, the sum does not know either."""
    used = list(several)
    requests = [one.requests for one in used if one.requests is not None]
    costs = [one.cost for one in used if one.cost is not None]
    return TokenUsage(
        sum(requests) if len(requests) == len(used) else None,
        sum(one.input for one in used),
        sum(one.cached for one in used),
        sum(one.output for one in used),
        math.fsum(costs) if len(costs) == len(used) else None,
        sum(one.uncounted for one in used),
    )


def described(used: TokenUsage) -> str:
    """The usage for people: `1,234 tokens, $0.02`, and how many requests that leaves out."""
    words = "1 token" if used.tokens == 1 else f"{used.tokens:,} tokens"
    words += "" if used.cost is None else f", {dollars(used.cost)}"
    if used.uncounted:
        words += f" and {used.uncounted} request{'s' if used.uncounted > 1 else ''} uncounted"
    return words


def dollars(amount: float) -> str:
    """Dollars for people: cents, or four digits of what is less than a cent."""
    return f"${amount:,.2f}" if amount >= 0.01 or not amount else f"${amount:.4f}"


def _first(value: Mapping[str, Any], names: Iterable[str]) -> int | None:
    counts = (_count(value.get(name)) for name in names)
    return next((each for each in counts if each is not None), None)


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= LARGEST else None


def _cost(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= LARGEST else None
