"""What a run does about the usage limit of its account."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

from ....system.deadline import Deadline
from ...gateway.model_refusal import LONGEST, SHORTEST, duration_of, until_midnight_in_california
from ..adapters.adapter import Parser
from .account_limit import LONGEST_UNTRIED, AccountLimit
from .run_meter import RunMeter

# What to do then: `on_limit` in the options of a run; anything else is the name of an executor.
WAIT, STOP = "wait", "stop"
REACHED = "its usage limit is reached"
# Agents write their sessions a moment late, and one that is not there cannot be continued.
SAVING_SECONDS = 1.0
LONGEST_TEXT = 4000
_LIMIT = re.compile(r"\blimit|quota|\b429\b|exhausted|too many requests|overloaded", re.IGNORECASE)
_EPOCH = re.compile(r"limit reached\|(\d{10})\b")
_IN = re.compile(
    r"(?:retry|try again|resets?) (?:in|after) (?:about )?((?:\d[\d.]* ?"
    r"(?:days?|hours?|minutes?|seconds?|mins?|secs?|ms|[dhms])[, ]*)+)",
    re.IGNORECASE,
)
_AT = re.compile(
    r"(?:try again|resets?)(?: at| on)? (?:([A-Z][a-z]{2})[a-z]* (\d{1,2})(?:st|nd|rd|th)?,?"
    r"(?: (\d{4}))?,?(?: at)? )?(\d{1,2})(?::(\d{2}))? ?([ap]m)(?: \(([\w/+-]+)\))?",
    re.IGNORECASE,
)
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]


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
            found = self._believed(seconds_left(reason, time.time()))
        if found is not None:
            self._account.reach(found)
            raise UsageLimitReached

    @property
    def resumes_at(self) -> int:
        """When it is reset, in milliseconds since 1970."""
        return self._account.resumes_at() or 0


def seconds_left(text: str, now: float) -> float | None:
    """The seconds from `now` (since 1970) until the limit is reset of which `text` tells.

    An agent's words count where no gateway sees the answers. Claude Code says `You've hit your
    session limit · resets 3pm (Europe/Berlin)`, older versions `usage limit reached|1764345600`;
    Codex `You've hit your usage limit. … try again at Nov 30th, 2026 3:05 PM.` or, on the same day,
    `at 3:05 PM`; Gemini CLI `Please retry in 58.2s` and `exhausted your daily quota`. All of it is
    from the programs themselves, and any version may say it in another way: then the run fails with
    these words. None without one, and for less than an agent itself waits.
    """
    text = text[:LONGEST_TEXT]
    if not _LIMIT.search(text):
        return None
    found = _seconds(text, now)
    return found if found is not None and SHORTEST < found <= LONGEST else None


def _seconds(text: str, now: float) -> float | None:
    if match := _EPOCH.search(text):
        return float(match[1]) - now
    if match := _IN.search(text):
        units = re.sub(r"([dhms])(?!s\b)[a-z]*", r"\1", re.sub(r"[ ,]", "", match[1].lower()))
        return duration_of(units.rstrip("."))
    if match := _AT.search(text):
        return _at(match, now)
    return until_midnight_in_california(now) if "daily quota" in text else None


def _at(match: re.Match[str], now: float) -> float | None:
    """The seconds until a time of day, on a day if one is named."""
    month, day, year, hour, minute, half, zone = match.groups()
    here = datetime.fromtimestamp(now, _zone(zone))
    here = here if here.tzinfo else here.astimezone()
    try:
        clock = int(hour) % 12 + (12 if half.lower() == "pm" else 0)
        moment = here.replace(hour=clock, minute=int(minute or 0), second=0, microsecond=0)
        if month:
            moment = moment.replace(month=_MONTHS.index(month.lower()) + 1, day=int(day))
            moment = moment.replace(year=int(year) if year else here.year)
            if not year and moment < here - timedelta(days=1):
                moment = moment.replace(year=here.year + 1)
        elif moment < here - timedelta(minutes=1):
            moment += timedelta(days=1)
    except ValueError:
        return None
    return (moment - here).total_seconds()


def _zone(name: str | None) -> tzinfo | None:
    if not name:
        return None
    try:
        from zoneinfo import ZoneInfo

        return ZoneInfo(name)
    except Exception:  # the words may name anything; then it is a time of this machine
        return None
