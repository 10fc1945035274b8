"""What may be sent twice, and how long to pause in between.

Only decisions: nothing here touches the network, so that the rules can be read in one place.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

TRIES = 4
SECONDS = 60.0  # the time limit of a call that need not block
SLOW_SECONDS = 600.0  # a create answers only after a VM is up (seed document)
# Gateways answer these when they do not know what the server behind them did: 408 and 499 when they
# gave up on the client, perhaps after passing its request on. 520-524 are the same as 502 from a
# well-known content network (inferred: none was seen from this API).
GATEWAY = frozenset({408, 499, 502, 503, 504, 520, 521, 522, 523, 524})
TOO_MANY = 429
# Refused before it was read: any request may be repeated over another connection (RFC 9110,
# 15.5.20), if there is another place to connect to.
MISDIRECTED = 421
# Pauses grow 0.5, 1, 2 s at most; full jitter draws from the whole span, so that many clients
# that failed together do not come back together.
FIRST_PAUSE = 0.5


class RetryPolicy(Enum):
    """What a call allows.

    SAFE: sending it twice changes nothing (GET, DELETE, a PATCH that sets a value).
    IF_UNSENT: it creates something, so it goes again only when it provably never arrived or
    was plainly rejected (429).
    """

    SAFE = "safe"
    IF_UNSENT = "if-unsent"


def may_repeat(repeat: RetryPolicy, *, status: int | None, sent: bool) -> bool:
    """Whether another attempt is allowed after this one.

    `status` is the HTTP status of a response, None when there was none; `sent` says whether any
    byte of the request was handed to a connection to the API.
    """
    if status is None:
        return repeat is RetryPolicy.SAFE or not sent
    if status == TOO_MANY:
        return True
    return repeat is RetryPolicy.SAFE and status in GATEWAY


def is_unknown(
    repeat: RetryPolicy, *, status: int | None, sent: bool, leads_to_result: bool = False
) -> bool:
    """Whether there is no way to tell if the call was carried out.

    `leads_to_result`: the response is a redirect to something that the call may have created.
    """
    if repeat is RetryPolicy.SAFE or not sent:
        return False
    return status is None or status in GATEWAY or leads_to_result


def pause(
    attempt: int, retry_after: float | None, *, random: Callable[[], float], cap: float
) -> float:
    """Seconds to wait after attempt number `attempt` (0 is the first).

    `retry_after` is what the server asked for, `cap` the most of it that is honoured. A little
    jitter is added on top of it, for the same reason as above.
    """
    if retry_after is None:
        return random() * FIRST_PAUSE * float(2**attempt)
    return min(retry_after, cap) + random() * 0.25


def parse_retry_after(value: str | None, *, now: float) -> float | None:
    """Seconds that a `Retry-After` header asks for; None when absent, malformed or negative.

    `value` is seconds or an HTTP date; `now` is the time of the response, in
    seconds since the epoch.
    """
    text = (value or "").strip()
    if not text.isascii():
        return None
    if text.isdigit():
        # Digits beyond these mean years; a number of 5,000 digits cannot even be converted.
        return float(text[:12])
    if "," not in text:
        return None
    from datetime import UTC
    from email.utils import parsedate_to_datetime

    try:
        date = parsedate_to_datetime(text)
        wanted = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
    return max(0.0, wanted - now)
