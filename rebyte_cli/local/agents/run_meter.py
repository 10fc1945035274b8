"""What a run has used of its models: as its gateway saw it, or else as the agent says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..gateway import record

COUNTS = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens")


class RunMeter:
    """Adds up the requests in the record of a run's gateway, from its `folder`, as they come.

    The gateway writes each request when it ends. It outlives the agent and may be killed with it:
    what is in the record then is what the run used.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / record.FILE
        self._at = 0  # bytes that were read
        self._counts: dict[str, int] = {}
        self._requests = 0
        self._cost: float | None = 0.0
        # Why the gateway let a request to a model not pass any more, or an empty text.
        self.spent = ""

    def look(self) -> bool:
        """Read what is new; whether that changed what the run has used."""
        before = self._requests
        entries, self._at = record.read_from(self._file, self._at)
        for entry in entries:
            if entry.option == record.BUDGET and entry.refused:
                self.spent = entry.refused
            if isinstance(entry.usage, dict):
                self._add(entry.usage)
        return self._requests > before

    def _add(self, usage: Mapping[str, Any]) -> None:
        self._requests += 1
        for name in COUNTS:
            if type(count := usage.get(name)) is int and count >= 0:
                self._counts[name] = self._counts.get(name, 0) + count
        cost = usage.get("cost_usd")
        if self._cost is not None:
            self._cost = self._cost + cost if isinstance(cost, int | float) else None

    def used(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """What was used, in the words of `tokens.counted`, with `requests` and `cost_usd`.

        `told` is what the agent says. It counts only if the gateway has seen nothing: both count
        the same requests. Of the cost, most models say nothing, and some agents know it.
        """
        if not self._requests:
            return dict(told)
        cost = told.get("cost_usd") if self._cost is None else round(self._cost, 9)
        known = {} if cost is None else {"cost_usd": cost}
        return {"requests": self._requests, **self._counts, **known}


def left_behind(folder: Path) -> dict[str, Any]:
    """What a run has used whose supervisor was killed; empty if that is not known."""
    meter = RunMeter(folder)
    meter.look()
    return meter.used({})
