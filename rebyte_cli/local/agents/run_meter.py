"""What a run has used of its models: as its gateway saw it, or else as the agent says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..gateway import record
from ..gateway.model_refusal import STATUSES

END_SECONDS = 3.0  # for the gateway of a run whose supervisor was killed, which takes 1.5
COUNTS = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens")


class RunMeter:
    """Adds up the requests in the record of a run's gateway, from its `folder`, as they come.

    The gateway writes what an answer used before the agent knows the answer. It may be killed with
    the run: what is in the record then is what the run used.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / record.FILE
        self._at = 0  # bytes that were read
        self._usages: dict[object, Mapping[str, Any]] = {}  # by request
        # Why the gateway let a request to a model not pass any more, or empty texts.
        self.spent = ""
        self.login_expired = ""
        # The seconds for which a model refuses requests, and whether one was answered, since `look`
        # was called with `afresh`.
        self.refused_for: float | None = None
        self.has_passed = False
        self.was_refused_last = False
        self.was_refused = False  # for whatever time

    def look(self, *, afresh: bool = False) -> bool:
        """Read what is new; whether that changed what the run has used.

        With `afresh`, what models refused and answered so far does not count any more.
        """
        entries, self._at = record.read_from(self._file, self._at)
        changed = False
        for entry in entries:
            if entry.option == record.BUDGET and entry.refused:
                self.spent = entry.refused
            if entry.option == record.LOGIN and entry.refused:
                self.login_expired = entry.refused
            if isinstance(entry.usage, dict):
                key = entry.id or len(self._usages)
                changed |= self._usages.get(key) != entry.usage
                self._usages[key] = entry.usage
            self.was_refused |= entry.status in STATUSES
            if isinstance(entry.refused_for, int | float):
                self.refused_for, self.was_refused_last = float(entry.refused_for), True
            elif entry.usage is not None:
                self.has_passed, self.was_refused_last = True, False
        if afresh:
            self.refused_for, self.has_passed = None, False
            self.was_refused = self.was_refused_last = False
        return changed

    def used(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """What was used, in the words of `tokens.counted`, with `requests` and `cost_usd`.

        `told` is what the agent says. It counts only if the gateway has seen nothing: both count
        the same requests. Of the cost, most models say nothing, and some agents know it.
        """
        if not self._usages:
            return dict(told)
        used: dict[str, Any] = {"requests": len(self._usages)}
        costs = [each for each in map(_cost, self._usages.values()) if each is not None]
        for usage in self._usages.values():
            for name in COUNTS:
                if type(count := usage.get(name)) is int and count >= 0:
                    used[name] = used.get(name, 0) + count
        known = len(costs) == len(self._usages)
        cost = round(math.fsum(costs), 9) if known else told.get("cost_usd")
        return used if cost is None else used | {"cost_usd": cost}


def _cost(usage: Mapping[str, Any]) -> float | None:
    cost = usage.get("cost_usd")
    return cost if isinstance(cost, int | float) and 0 <= cost < math.inf else None


def left_behind(folder: Path) -> dict[str, Any]:
    """What a run has used whose supervisor was killed; empty if that is not known.

    Its gateway ends by itself, and may first record the end of an answer.
    """
    record.wait_until_complete(folder / record.FILE, END_SECONDS)
    meter = RunMeter(folder)
    meter.look()
    return meter.used({})
