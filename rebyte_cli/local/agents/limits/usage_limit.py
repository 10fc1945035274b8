"""What a run does about the usage limit of its account."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ....system.deadline import Deadline
from ..adapters.adapter import Parser
from . import limit_words
from .account_limit import LONGEST_UNTRIED, AccountLimit
from .run_meter import RunMeter

# What to do then: `on_limit` in the options of a run; anything else is the name of an executor.
WAIT, STOP = "wait", "stop"
REACHED = "its usage limit is reached"
# Agents write their sessions a moment late, and one that is not there cannot be continued.
SAVING_SECONDS = 1.0


def waited_for(options: Mapping[str, Any]) -> str:
    """The account whose limit a run with these options waits for; empty if it does not wait."""
    return str(options.get("account") or "") if options.get("onLimit", WAIT) == WAIT else ""


class UsageLimitReached(Exception):
    """The model refuses the run, which cannot continue before the limit is reset."""


class LimitWatch:
    """What one run learns of the limit of its account. `meter` reads what its gateway sees."""

    def __init__(
        self, state_dir: Path, options: Mapping[str, Any], meter: RunMeter, probe: int | None
    ) -> None:
        """`probe` is the lock of the run that tries for its account, see `AccountLimit`."""
        self._account = AccountLimit(str(state_dir), options.get("account") or "")
        self._meter = meter
        self._probe = probe  # held until this process ends, or becomes another
        self._is_known = not options.get("account")
        self._saved: Deadline | None = None  # since the agent was refused

    def check(self) -> None:
        """Raise UsageLimitReached if it is known that a request would be refused."""
        if not self._is_known and (self._account.seconds_left() or 0) > 0:
            raise UsageLimitReached

    def reason_to_stop(self, parser: Parser | None) -> str:
        """Why the agent is to be stopped, or an empty text: it would wait, or ask in vain."""
        if self._refused_for(parser) is None:
            self._saved = None
            if self._meter.has_passed:
                self.pass_on()
            return ""
        self._saved = self._saved or Deadline(SAVING_SECONDS)
        return REACHED if self._saved.has_passed else ""

    def _refused_for(self, parser: Parser | None) -> float | None:
        return self._meter.refused_for or self._believed(parser.refused_for if parser else None)

    def _believed(self, told: float | None) -> float | None:
        """What of the seconds counts that an agent has told.

        What stops a run stops all of its account, and a program in the sandbox could say anything.
        """
        if told is None or not self._meter.sees_models:
            return told
        # Only if the gateway has seen a refusal, and until one run tries again anyway.
        return min(told, LONGEST_UNTRIED) if self._meter.was_refused else None

    def pass_on(self) -> None:
        """Let the other runs of the account follow, if they waited for this one."""
        if self._is_known:
            return
        left = self._account.seconds_left()
        if left is None or left <= 0:
            self._is_known = True
            self._account.clear()
            if self._probe is not None:
                os.close(self._probe)

    def raise_if_refused(self, parser: Parser, reason: str) -> None:
        """Raise UsageLimitReached if the agent failed for `reason` because the limit is reached."""
        found = self._refused_for(parser)
        if found is None:
            found = self._believed(limit_words.seconds_left(reason, time.time()))
        if found is not None:
            self._account.reach(found)
            raise UsageLimitReached

    @property
    def resumes_at(self) -> int:
        """When it is reset, in milliseconds since 1970."""
        return self._account.resumes_at() or 0
