"""When a request was sent, and where the list of tasks stood then.

A process writes a timestamp before it sends a request; it, or a later one, reads it when the answer
was lost. It says three things, each by the clock or the order that can tell:

- the time by the server's `Date`, where the server had answered: when a task may have been created;
- the time awake since boot: how long ago that was. A machine that slept between this and the
  request only waits longer. After a restart it counts from the first search;
- the newest task that there was, and how many: what the list shows above that one is new.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote

from ..system.clock import awake_since_boot, boot_id

if TYPE_CHECKING:
    from ..api.client import RebyteClient

SKEW = 2.0  # seconds, between the machines behind one API
# How long after it was sent a create can still make its task. The client gives up after ten
# minutes.
LIFE = timedelta(minutes=15)
# A year beyond these is no time: programs write 0001 or 9999 where they have none.
YEARS = range(1900, 2200)
# RFC 9557 style tags after the time, e.g. 2026-02-09T10:30:00.000Z[boot=0123abcd][up=4711.123].
_TAG = re.compile(r"\[([a-z]+)(?:=([^\]]*))?\]")
_BOOT_TAGS = re.compile(r"\[(?:boot|up)=[^\]]*\]")


class Baseline(NamedTuple):
    """Where a list stood: the id of its newest row, None if it was empty, and its `total`."""

    newest: str | None
    total: int


class Stamp(NamedTuple):
    """A timestamp as it was written. `is_server`: by the server's clock, not the local one."""

    time: datetime | None
    is_server: bool
    boot: str | None
    up: float
    baseline: Baseline | None

    @property
    def is_this_boot(self) -> bool:
        """Whether the time since boot tells how long ago it was written."""
        return self.boot == boot_id() and self.up <= awake_since_boot()


class ServerClock:
    """The server's time, and what timestamps of this and earlier processes mean by it.

    `skew` is by how many seconds the clocks of the machines behind one API may differ.
    """

    def __init__(self, client: RebyteClient, skew: float = SKEW) -> None:
        self._transport = client.transport
        self._skew = timedelta(seconds=skew)

    def timestamp(self, before: Baseline | None = None) -> str:
        """The current time, to be written down before a request is sent, and where the list is."""
        server = self._transport.server_now()
        now = text_of_time(server) if server else local_now().isoformat(timespec="milliseconds")
        return now + _boot_tags() + _baseline_tags(before)

    def sent(self, written: str) -> datetime | None:
        """When the request with this timestamp was sent, by the server's clock; None if unknown."""
        stamp, now = parse_stamp(written), self._transport.server_now()
        if stamp.is_server or now is None or not stamp.is_this_boot:
            return stamp.time if stamp.is_server else None
        return now - self.age(written)

    def is_timely(self, created: Any, written: str, slack: timedelta = timedelta()) -> bool:
        """Whether something was created while the request with this timestamp could create it.

        `slack` is by how much the clock that says so may be behind the others, besides the skew.
        """
        moment, sent = parse_time(created), self.sent(written)
        if moment is None or sent is None:
            return False
        return sent - self._skew - slack <= moment <= sent + LIFE + self._skew

    def age(self, written: str) -> timedelta:
        """How long ago, at least, the timestamp was written; zero if that is not known.

        Time asleep does not count: the request may have been sent after it.
        """
        stamp = parse_stamp(written)
        return timedelta(seconds=awake_since_boot() - stamp.up if stamp.is_this_boot else 0.0)

    def restamp(self, written: str) -> str:
        """The timestamp for a later process: one of another boot tells an age only from now on."""
        is_known = parse_stamp(written).is_this_boot
        return written if is_known else _BOOT_TAGS.sub("", written) + _boot_tags()

    def is_near(self, one: str, other: str) -> bool:
        """Whether two requests may have been under way at the same time."""
        first, second = parse_stamp(one), parse_stamp(other)
        if first.boot is not None and first.boot == second.boot:
            return abs(first.up - second.up) <= LIFE.total_seconds()
        if first.time is None or second.time is None or not (first.is_server and second.is_server):
            return True
        return abs(first.time - second.time) <= timedelta(days=1)


def is_past(client: RebyteClient, written: Any, seconds: float) -> bool:
    """Whether a time that the server wrote is this many seconds ago by the server's clock.

    False if either is not known.
    """
    moment, now = parse_time(written), client.transport.server_now()
    return moment is not None and now is not None and (now - moment).total_seconds() >= seconds


def parse_time(written: Any) -> datetime | None:
    """A time as the API writes it; None if it cannot be read."""
    try:
        moment = datetime.fromisoformat(written)
    except (TypeError, ValueError):
        return None
    if moment.year not in YEARS:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def without_tags(written: str) -> str:
    """A timestamp as a plain ISO 8601 time, for people and for result rows."""
    return written.partition("[")[0]


def local_now() -> datetime:
    """The time of this machine (UTC), right or wrong."""
    return datetime.now(UTC)


def text_of_time(moment: datetime) -> str:
    """A time as the API writes it: UTC, with milliseconds and a Z."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@lru_cache(maxsize=1024)
def parse_stamp(written: str) -> Stamp:
    """What a timestamp says. Only the server's time ends with Z."""
    plain = without_tags(written)
    tags = {name: unquote(value) for name, value in _TAG.findall(written)}
    try:
        boot, up = tags["boot"], float(tags["up"])
    except (KeyError, ValueError):
        boot, up = None, 0.0
    total = tags.get("total", "")
    is_known = total.isascii() and total.isdigit()
    before = Baseline(tags.get("after"), int(total)) if is_known else None
    return Stamp(parse_time(plain), plain.endswith("Z"), boot, up, before)


def _boot_tags() -> str:
    return f"[boot={boot_id()}][up={awake_since_boot():.3f}]"


def _baseline_tags(before: Baseline | None) -> str:
    if before is None:
        return ""
    newest = "" if before.newest is None else f"[after={quote(before.newest, safe='')}]"
    return f"[total={before.total}]{newest}"
