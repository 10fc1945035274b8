"""How long a model refuses requests because a usage limit is reached, as its answer says.

Where each fact is from, and how sure it is:

- Anthropic documents `retry-after` (seconds) and `anthropic-ratelimit-*-reset` (RFC 3339), with a
  `-remaining` of 0 for the limit that is reached. Accounts with a subscription get
  `anthropic-ratelimit-unified-status: rejected` and `-reset` in seconds since 1970: undocumented,
  but read by Claude Code and by many proxies. 529 says that the service is overloaded.
- OpenAI documents `x-ratelimit-reset-requests` and `-tokens`, such as `6m0s`, with a `-remaining`
  of 0; its clients read `retry-after-ms` and `retry-after`. `insufficient_quota` is a bill to pay,
  and no time helps.
- ChatGPT's API, which Codex uses, answers 429 with `usage_limit_reached`, and `resets_at` (seconds
  since 1970) or `resets_in_seconds`: from the source of Codex.
- Gemini answers with Google's `RetryInfo` (`retryDelay: "34.07s"`) and `QuotaFailure`. A quota per
  day is said to last until midnight in California, whatever the delay: documented, and Gemini CLI
  gives up at such a `quotaId`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from ...system.durations import parse_duration
from ...system.untrusted import read_json
from .json_scanner import JsonScanner

STATUSES = (429, 529)
# An agent itself asks again after so many seconds.
SHORTEST = 10.0
LONGEST = 40 * 86400.0  # a month is the longest known; more is an error
LAST_MOMENT = 1e11  # in seconds since 1970: the year 5138
LARGEST_BODY = 65536
KINDS = ("requests", "tokens", "input-tokens", "output-tokens")


class ModelRefusal:
    """Reads an answer that refuses a request, as it comes. `now` is seconds since 1970."""

    def __init__(self, headers: Mapping[str, str], now: float) -> None:
        """The names of `headers` are in lower case."""
        self._headers = headers
        self._body = b""
        self._scanner = JsonScanner()
        # Times are by the clock of the service: the one of this machine may be wrong.
        self._now = _date(headers.get("date", "")) or now

    def feed(self, data: bytes) -> bool:
        """Keep the next piece of the body; whether that completes it."""
        kept, had_ended = data[: LARGEST_BODY - len(self._body)], self._scanner.has_ended
        self._body += kept
        self._scanner.feed(kept)
        return self._scanner.has_ended and not had_ended

    def seconds(self) -> float | None:
        """For how long it refuses, if that is long enough to stop for it."""
        document = self._document()
        error = document.get("error") if isinstance(document, dict) else None
        error = error if isinstance(error, dict) else {}
        if "insufficient_quota" in (error.get("code"), error.get("type")):
            return None
        ways = (self._unified(), self._chatgpt(error), self._google(error), self._by_header())
        found = next((seconds for seconds in ways if seconds is not None), None)
        return found if found is not None and SHORTEST < found <= LONGEST else None

    def _document(self) -> Any:
        try:
            document = read_json(self._body.decode("utf-8", "replace"))
        except ValueError:
            return None
        # Gemini's streams refuse with a list of one error.
        return document[0] if isinstance(document, list) and document else document

    def _unified(self) -> float | None:
        name = "anthropic-ratelimit-unified"
        if self._headers.get(f"{name}-status", "rejected") != "rejected":
            return None
        moment = _number(self._headers.get(f"{name}-reset"))
        return None if moment is None else moment - self._now

    def _chatgpt(self, error: Mapping[str, Any]) -> float | None:
        if "usage_limit_reached" not in (error.get("type"), error.get("code")):
            return None
        left, moment = _number(error.get("resets_in_seconds")), _number(error.get("resets_at"))
        return left if left is not None else moment and moment - self._now

    def _google(self, error: Mapping[str, Any]) -> float | None:
        found = None
        details = error.get("details")
        for detail in details if isinstance(details, list) else []:
            if not isinstance(detail, dict):
                continue
            violations = detail.get("violations")
            for violation in violations if isinstance(violations, list) else []:
                quota = str(violation.get("quotaId")) if isinstance(violation, dict) else ""
                if "PerDay" in quota or "Daily" in quota:
                    return until_midnight_in_california(self._now)
            if str(detail.get("@type", "")).endswith("google.rpc.RetryInfo"):
                found = duration_of(str(detail.get("retryDelay")))
        return found

    def _by_header(self) -> float | None:
        """What headers say that several vendors use."""
        headers = self._headers
        if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
            return milliseconds / 1000
        if after := headers.get("retry-after"):
            seconds = _number(after)
            moment = _date(after)
            return seconds if seconds is not None else moment and moment - self._now
        reached = []
        for kind in KINDS:
            if headers.get(f"x-ratelimit-remaining-{kind}") == "0":
                reached.append(duration_of(headers.get(f"x-ratelimit-reset-{kind}", "")))
            if headers.get(f"anthropic-ratelimit-{kind}-remaining") == "0":
                moment = _iso(headers.get(f"anthropic-ratelimit-{kind}-reset", ""))
                reached.append(moment and moment - self._now)
        return max((seconds for seconds in reached if seconds is not None), default=None)


def duration_of(text: str) -> float | None:
    """The seconds of a duration such as `6m0s`, `34.07s` or `20ms`; None for other text."""
    return parse_duration(text) if text[-1:].isalpha() else None


def until_midnight_in_california(now: float) -> float:
    """The seconds from `now` until quotas per day begin again (Gemini)."""
    try:
        from zoneinfo import ZoneInfo

        here = datetime.fromtimestamp(now, ZoneInfo("America/Los_Angeles"))
    except Exception:  # without the system's time zones: an hour late in summer
        here = datetime.fromtimestamp(now, timezone(timedelta(hours=-8)))
    day = (here + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return (day - here).total_seconds()


def _number(value: object) -> float | None:
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if 0 <= number < 1e12 else None


def _date(text: str) -> float | None:
    """The moment of an HTTP date; None for one that no calendar could add to."""
    import email.utils  # takes a MiB, and few gateways meet a limit

    try:
        moment = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return moment if 0 <= moment < LAST_MOMENT else None


def _iso(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
