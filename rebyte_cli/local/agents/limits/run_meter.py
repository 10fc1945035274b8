"""What a run has used of its models: as its gateway saw it, or else as the agent says."""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Mapping
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

from ...gateway import request_record
from ...gateway.model_prices import ModelPrices
from ...gateway.model_refusal import STATUSES

END_SECONDS = 5.0  # for the gateway of a run whose supervisor was killed, which takes 2.5
NO_PRICES = ModelPrices()
NOTHING = {"requests": 0, "input_tokens": 0, "output_tokens": 0, "cost_usd": 0.0}
COUNTS = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens")


class RunMeter:
    """Adds up the requests in the record of a run's gateway, from its `folder`, as they come.

    `prices` are for models that do not tell what they cost.

    The gateway writes what an answer used before the agent knows the answer. It may be killed with
    the run: what is in the record then is what the run used.
    """

    def __init__(
        self,
        folder: Path,
        prices: ModelPrices = NO_PRICES,
        limited: str | None = None,
        route: str | None = None,
    ) -> None:
        """`limited` is a pattern for the models whose refusals count, `route` the name of the route
        (see ModelRoute) to them; None if all do.
        """
        self._limited = "*" if limited is None else request_record.printable(limited)
        self._route = route and request_record.printable(route)
        self._file = folder / request_record.FILE
        self._at = 0  # bytes that were read
        self._ended = _Sum(prices)  # what requests have used that have ended
        self._requests: dict[object, request_record.RequestEntry] = {}  # the others that did
        self.sees_models = False  # whether every request to a model passes the gateway
        # Why the gateway let a request to a model not pass any more, or empty texts.
        self.spent = ""
        self.login_refused = ""
        # Whether a model was asked, the seconds for which its model refuses requests, and whether
        # it has answered one, since `look` was called with `afresh`.
        self.has_asked = False
        self.refused_for: float | None = None
        self.has_passed = False
        self.was_refused_last = False
        self.was_refused = False  # for whatever time

    def look(self, *, afresh: bool = False, most: int | None = None) -> bool:
        """Read what is new, up to `most` MiB of it; whether that changed what the run has used.

        With `afresh`, what its model refused and answered so far does not count any more.
        """
        changed = False
        for entries, at in islice(request_record.read_from(self._file, self._at), most):
            self._at = at
            for entry in entries:
                changed |= self._count(entry)
        if afresh:
            self.refused_for, self.has_asked, self.has_passed = None, False, False
            self.was_refused = self.was_refused_last = False
        return changed

    def _count(self, entry: request_record.RequestEntry) -> bool:
        """Whether the entry changes what the run has used."""
        if entry.option == request_record.BUDGET and entry.refused:
            self.spent = entry.refused
        if entry.option == request_record.LOGIN and entry.refused:
            self.login_refused = entry.refused
        self.has_asked |= entry.route is not None
        if self._is_limited(entry):
            self.was_refused |= entry.status in STATUSES
            if isinstance(entry.refused_for, int | float):
                self.refused_for, self.was_refused_last = float(entry.refused_for), True
            elif entry.usage is not None:
                self.has_passed, self.was_refused_last = True, False
        key = entry.id or object()
        if not isinstance(entry.usage, dict) and not isinstance(entry.uncounted, dict):
            return self._requests.pop(key, None) is not None
        before = self._requests.get(key)
        self._requests[key] = entry
        if entry.seconds:  # no other line of it follows
            self._ended.add(self._requests.pop(key), has_ended=True)
        return before is None or _counts(before) != _counts(entry)

    def _is_limited(self, entry: request_record.RequestEntry) -> bool:
        """Whether what became of this request tells of the account's limit.

        A program in the sandbox can ask for any other model, and other runs would wait for that.
        """
        if entry.route is None or self._route not in (None, entry.route):
            return False
        return fnmatch.fnmatchcase(str(entry.asked), self._limited)

    def used(self, told: Mapping[str, Any], *, has_ended: bool = False) -> dict[str, Any]:
        """What was used, in the words of `token_counts`, with `requests` and `cost_usd`.

        `told` is what the agent says, and any program in the sandbox can write that. It counts only
        if the gateway sees no models, and has seen nothing; its cost also if a model has no price
        and told none.

        `uncounted` are the `requests` of which the models did not say all that they used, and the
        `tokens` and `cost_usd` for which they count beyond that (see `gateway/model_budget.py`);
        those under way are among them once the gateway `has_ended`.
        """
        found = copy.copy(self._ended)
        found.counts = dict(found.counts)
        for entry in self._requests.values():
            if has_ended or not entry.is_open or isinstance(entry.usage, dict):
                found.add(entry, has_ended=has_ended)
        if not found.requests:
            return {} if self.sees_models else dict(told)
        used: dict[str, Any] = {"requests": found.requests, **found.counts}
        cost = told.get("cost_usd") if found.is_unpriced else float(found.cost)
        if cost is not None:
            used["cost_usd"] = round(cost, 9)
        if found.hidden:
            used["uncounted"] = {
                "requests": found.hidden,
                "tokens": found.hidden_tokens,
                "cost_usd": float(found.hidden_cost),
            }
        return used


class _Sum:
    """What requests have used together: a program in the sandbox can make a million in a day."""

    def __init__(self, prices: ModelPrices) -> None:
        self._prices = prices
        self.requests = self.hidden = self.hidden_tokens = 0
        self.counts = {"input_tokens": 0, "output_tokens": 0}
        self.cost = self.hidden_cost = Fraction()  # of a dollar: exact, in any order
        self.is_unpriced = False  # whether one has neither told its cost nor a price

    def add(self, entry: request_record.RequestEntry, *, has_ended: bool) -> None:
        """Add one; what it did not say counts once it is known, or `has_ended`."""
        usage = _numbers(entry.usage)
        self.requests += 1
        for name in COUNTS:
            if name in usage:
                self.counts[name] = self.counts.get(name, 0) + usage[name]
        cost = self._prices.cost(usage, entry.model) if usage else 0.0
        self.is_unpriced |= cost is None
        self.cost += Fraction(cost or 0)
        if isinstance(entry.uncounted, dict) and (has_ended or not entry.is_open):
            hidden = _numbers(entry.uncounted)
            self.hidden += 1
            self.hidden_tokens += sum(hidden.values())
            self.hidden_cost += Fraction(self._prices.cost(hidden, entry.model) or 0)


def _counts(entry: request_record.RequestEntry) -> object:
    return entry.usage, None if entry.is_open else entry.uncounted


def _numbers(usage: object) -> dict[str, Any]:
    """What of a usage is one: a record may be of any version."""
    known = usage if isinstance(usage, dict) else {}
    found: dict[str, Any] = {
        n: known[n] for n in COUNTS if type(known.get(n)) is int and known[n] >= 0
    }
    others = known.get("others")
    for other in others if isinstance(others, list) else ():
        name = other.get("model") if isinstance(other, dict) else None
        one = _numbers(other) | {"model": name if isinstance(name, str) else None}
        found.setdefault("others", []).append(one)
    return found | ({"cost_usd": known["cost_usd"]} if "cost_usd" in known else {})


def left_behind(
    folder: Path, options: Mapping[str, Any], *, seconds: float = END_SECONDS
) -> dict[str, Any]:
    """What a run with these options has used whose supervisor was killed; empty if not known.

    Its gateway ends by itself within these seconds, and may first record the end of an answer.
    """
    request_record.wait_until_complete(folder / request_record.FILE, seconds)
    meter = RunMeter(folder, ModelPrices.of_options(options))
    meter.look()
    return meter.used({}, has_ended=True)
