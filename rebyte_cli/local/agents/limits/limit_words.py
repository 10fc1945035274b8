"""When a usage limit is reset, in the words with which an agent ends.

They count where no gateway sees the answers of the model. Claude Code says `You've hit your session
limit · resets 3pm (Europe/Berlin)`, older versions `usage limit reached|1764345600`; Codex `You've
hit your usage limit. … try again at Nov 30th, 2026 3:05 PM.` or, on the same day, `at 3:05 PM`;
Gemini CLI `Please retry in 58.2s` and `exhausted your daily quota`. All of it is from the programs
themselves, and any version may say it in another way: then the run fails with these words.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, tzinfo

from ...gateway.model_refusal import LONGEST, SHORTEST, duration_of, until_midnight_in_california

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


def seconds_left(text: str, now: float) -> float | None:
    """The seconds from `now` (since 1970) until the limit is reset of which `text` tells, if any.

    None as well for less than an agent itself waits.
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
