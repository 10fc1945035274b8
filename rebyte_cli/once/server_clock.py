"""When a request was sent, by the server's clock, even if the clock of this machine is wrong.

A process writes a timestamp before it sends a request (`ServerClock.timestamp`); it, or a later
process, reads the timestamp when the answer was lost. Three clocks can tell how long ago that was:

- the server's, from `Date` headers, if the server had answered this process before;
- the time since boot, as long as the machine has not restarted;
- the local wall clock, which may have been set since and therefore never proves anything.

One `Date` may be wrong as well. Across a restart, a request is only as old as several answers and
the local clock agree on, or as the time since a process of this boot first read of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote

from ..system.clock import boot_id, since_boot

if TYPE_CHECKING:
    from ..api.client import RebyteClient

SKEW = 2.0  # seconds, between the machines behind one API
# How long after it was sent a create can still make its task. The client gives up after ten
# minutes.
LIFE = timedelta(minutes=15)
# How far `createdAt` may be from `Date` without anybody being able to notice.
ROOM = timedelta(hours=1)
# A year beyond these is no time: programs write 0001 or 9999 where they have none.
YEARS = range(1900, 2200)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# RFC 9557 style tags after the time, e.g. 2026-02-09T10:30:00.000Z[boot=0123abcd][up=4711.123].
_TAG = re.compile(r"\[([a-z]+)(?:=([^\]]*))?\]")


class Window(NamedTuple):
    """The times at which a request can have taken effect, by the clock behind `createdAt`.

    Something created between `first` and `last` may be taken for its result. If that clock agrees
    with `Date`, something created before `since` or after `until` is not. Something created before
    `floor` or after `ceiling` certainly is not, nor is the task `newest`, which was there before.
    None means that no such limit is known.
    """

    first: datetime
    last: datetime
    since: datetime | None
    until: datetime | None
    floor: datetime | None = None
    ceiling: datetime | None = None
    newest: str | None = None

    @property
    def proven(self) -> Window:
        """The same window with only those limits that hold whatever the clocks say."""
        return self._replace(since=self.floor, until=self.ceiling)


class SendTime(NamedTuple):
    """When a request was sent, by the server's clock: between two times, None if unknown."""

    earliest: datetime | None
    latest: datetime | None


class _Timestamp(NamedTuple):
    """A timestamp as it was written. `is_server`: by the server's clock, not the local one."""

    time: datetime | None
    is_server: bool
    is_bound: bool  # the request was sent at some time before this
    boot: str | None
    up: float
    local: datetime | None  # the local time then
    tags: Mapping[str, str]

    @property
    def is_this_boot(self) -> bool:
        """Whether the time since boot tells how long ago it was written."""
        return self.boot == boot_id() and self.up <= since_boot()

    @property
    def seen(self) -> float | None:
        """The time since this boot at which it was certainly sent; None if that is not known."""
        boot, _, up = self.tags.get("seen", "").partition(" ")
        try:
            seen = float(up)
        except ValueError:
            return None
        return seen if boot == boot_id() and seen <= since_boot() else None


class ServerClock:
    """The server's time, and what timestamps of this and earlier processes mean by it.

    `skew` is by how many seconds the clocks of the machines behind one API may differ.
    """

    def __init__(self, client: RebyteClient, skew: float = SKEW) -> None:
        self._transport = client.transport
        self._skew = timedelta(seconds=skew)
        self._behind = timedelta(0)  # the most by which `createdAt` was seen behind `Date`
        self._ahead = timedelta(0)
        self._is_compared = False  # whether the list has shown it of something of ours
        # By what the `Date` of these was ahead of the time since a boot, by its name, and of the
        # local clock ("local"): the least and the most.
        self._dates: dict[str, tuple[timedelta, timedelta]] = {}
        self._seen: dict[str, float] = {}  # when timestamps of other boots were first read

    def now(self) -> datetime | None:
        """The server's time (UTC), or None if it has not told its time yet."""
        return self._transport.server_now()

    def timestamp(self, newest: Mapping[str, Any] | None = None) -> str:
        """The current time, to be written down before a request is sent.

        `newest` is the newest task that the service has by now. Whatever its clock says, a task
        that is created later has a later `createdAt`, give or take ROOM.
        """
        server, local = self.now(), local_now()
        written = _boot_tags(boot_id(), since_boot())
        if server is None:
            written = local.isoformat(timespec="milliseconds") + written
        else:
            written = text_of_time(server) + written + _off(local, server)
        newest = newest or {}
        return written + _newest_tags(newest.get("createdAt"), newest.get("id"))

    def sent(self, written: str) -> SendTime:
        """When the request with this timestamp was sent."""
        stamp, server = _parse(written), self.now()
        times = []
        if stamp.time is not None and stamp.is_server:
            if stamp.is_bound:
                return SendTime(None, stamp.time)
            times.append(stamp.time)
        # Without any `Date` header the local clock is good enough for a difference.
        now = server or local_now()
        if stamp.is_this_boot:
            times.append(now - timedelta(seconds=since_boot() - stamp.up))
        if not times:
            return SendTime(None, None)
        earliest, latest = min(times), max(times)
        if server is None and not stamp.is_server:
            return SendTime(None, latest)
        if stamp.time is not None and not stamp.is_server:
            # A virtual machine that was paused has lost time since boot, but not wall time.
            earliest = min(earliest, stamp.time + (now - local_now()))
        return SendTime(earliest, latest)

    def age(self, written: str) -> timedelta:
        """How long ago the request was sent, at least; zero if that is not known.

        The time since boot is never too long, however many servers answer with clocks of their
        own, so nothing else is asked while it is there.
        """
        stamp, up = _parse(written), since_boot()
        if stamp.is_this_boot:
            return timedelta(seconds=up - stamp.up)
        age = timedelta(seconds=up - self._seen_at(written, stamp))
        server = self._transport.server_now(is_agreed=True)
        if server is None or stamp.time is None or stamp.local is None or not stamp.is_server:
            return age
        return max(age, min(server - stamp.time, local_now() - stamp.local))

    def restamp(self, written: str) -> str:
        """The timestamp as a process after the next reboot can use it.

        What was written before the server had told its time becomes the server's time, or at
        least a bound: the request was sent before now.
        """
        stamp, server = _parse(written), self.now()
        if not stamp.is_server and server is not None:
            latest = self.sent(written).latest
            rest = _newest_tags(stamp.tags.get("newest"), stamp.tags.get("after"))
            if latest is None:
                written = f"{text_of_time(server)}[before]{_off(local_now(), server)}{rest}"
            else:
                off = _off(stamp.local or local_now(), latest)
                written = f"{text_of_time(latest)}{_boot_tags(stamp.boot, stamp.up)}{off}{rest}"
        if stamp.is_this_boot or stamp.seen is not None:
            return written
        seen = f"[seen={boot_id()} {self._seen_at(written, stamp):.3f}]"
        return re.sub(r"\[seen=[^\]]*\]", "", written) + seen

    def _seen_at(self, written: str, stamp: _Timestamp) -> float:
        """The time since this boot at which a process first read a timestamp of another one."""
        if stamp.seen is not None:
            return stamp.seen
        return self._seen.setdefault(written, since_boot())

    def is_near(self, one: str, other: str) -> bool:
        """Whether two requests may have been under way at the same time."""
        first, second = _parse(one), _parse(other)
        if first.boot is not None and first.boot == second.boot:
            return abs(first.up - second.up) <= LIFE.total_seconds()
        a, b = self._span(one), self._span(other)
        if a.earliest is None or a.latest is None or b.earliest is None or b.latest is None:
            return True
        return a.earliest - LIFE <= b.latest and b.earliest - LIFE <= a.latest

    def window(self, written: str, *, room: timedelta = ROOM) -> Window:
        """When the request with this timestamp can have taken effect.

        `room` is how far `createdAt` may be from `Date`, beyond what has been seen.
        """
        stamp, sent, now = _parse(written), self.sent(written), self.now()
        behind = self._skew + self._behind
        ahead = self._skew + max(timedelta(0), self._ahead - LIFE)
        floor, newest = self._floor(stamp, sent.latest), stamp.tags.get("after")
        if sent.latest is None:
            shifted = stamp.time or local_now()
            # A local time of another boot: right, or as wrong as the local clock is now.
            times = [shifted, shifted + ((now or local_now()) - local_now())]
            first, last = min(times) - behind, max(times) + LIFE + ahead
            return Window(first, last, floor, None, floor, None, newest)
        span = self._span(written)
        ours_ahead, ours_behind = self._apart(stamp)
        until = (span.latest or sent.latest) + LIFE + ahead + room + ours_behind
        if sent.earliest is None:
            slack = ROOM if now is None else behind
            first, last, since = sent.latest - slack, sent.latest + slack + LIFE, None
        else:
            first, last = sent.latest - behind, sent.latest + LIFE + ahead
            since = (span.earliest or sent.earliest) - behind - room - ours_ahead
        ceiling = until if self._is_compared else None
        if floor is None:
            floor = since if self._is_compared else None
        elif since is None or since < floor:
            since = floor
        return Window(first, last, since, until, floor, ceiling, newest)

    def _span(self, written: str) -> SendTime:
        """As `sent`, even if the `Date` that was written was wrong, and by the local clock then."""
        stamp, (earliest, latest) = _parse(written), self.sent(written)
        if stamp.local is None or stamp.is_this_boot or latest is None:
            return SendTime(earliest, latest)
        told = stamp.local + ((self.now() or local_now()) - local_now())
        return SendTime(earliest and min(earliest, told), max(latest, told))

    def _floor(self, stamp: _Timestamp, sent: datetime | None) -> datetime | None:
        """What is much older than the newest task of before the send has another origin.

        ROOM is for machines behind the API whose clocks differ, and for a clock that is set back.
        A `createdAt` that was in the future then may be a task's alone, so it says nothing.
        """
        written = stamp.tags.get("newest")
        newest = parse_time(written)
        if newest is None or sent is None or newest > sent + self._skew + self._ahead:
            return None
        has_zone = datetime.fromisoformat(str(written)).tzinfo is not None
        return newest - (ROOM if has_zone else 2 * ROOM)  # a local time is set back once a year

    def observe(self, created_at: Any, written: str | None, *, is_listed: bool = False) -> None:
        """Learn from a task that was answered how far `createdAt` is from `Date`.

        Only what the list shows (`is_listed`) makes its times a proof: an answer may have
        `createdAt` in another zone.
        """
        created, stamp = parse_time(created_at), _parse(written or "")
        if created is None or stamp.time is None or not stamp.is_server or stamp.is_bound:
            return
        self._is_compared = self._is_compared or is_listed
        self._behind = max(self._behind, stamp.time - created)
        self._ahead = max(self._ahead, created - stamp.time)
        for name, date in _ahead_of(stamp).items():
            least, most = self._dates.get(name, (date, date))
            self._dates[name] = min(least, date), max(most, date)

    def _apart(self, stamp: _Timestamp) -> tuple[timedelta, timedelta]:
        """By how much the `Date` of a timestamp is ahead of, and behind, those that were compared.

        Each machine behind an API may keep time by itself: what one showed of `createdAt` says
        as much less about a request that another one timed. One that was sent before the server had
        told its time is timed by the `Date` of now.
        """
        stamp = stamp if stamp.is_server else _parse(self.timestamp())
        for name, date in _ahead_of(stamp).items():
            if name in self._dates:
                least, most = self._dates[name]
                return max(timedelta(0), date - least), max(timedelta(0), most - date)
        return timedelta(0), timedelta(0)


def is_past(client: RebyteClient, written: Any, seconds: float) -> bool:
    """Whether a time that the server wrote is this many seconds ago by the server's clock.

    False if either is not known.
    """
    moment, now = parse_time(written), client.transport.server_now()
    return moment is not None and now is not None and (now - moment).total_seconds() >= seconds


def parse_time(written: Any) -> datetime | None:
    """A time as the API writes it; None if it cannot be read."""
    if not isinstance(written, str):
        return None
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
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


def _ahead_of(stamp: _Timestamp) -> dict[str, timedelta]:
    """By what the server's time in a timestamp is ahead of the clocks here, the surest first."""
    found = {}
    if stamp.time is not None and stamp.is_server and not stamp.is_bound:
        if stamp.boot is not None:
            found[stamp.boot] = stamp.time - _EPOCH - timedelta(seconds=stamp.up)
        if stamp.local is not None:
            found["local"] = stamp.time - stamp.local
    return found


def _boot_tags(boot: str | None, up: float) -> str:
    return f"[boot={boot}][up={up:.3f}]"


def _off(local: datetime, server: datetime) -> str:
    """By how many seconds the local clock was ahead of the server's, as a tag."""
    return f"[off={(local - server).total_seconds():.3f}]"


def text_of_time(moment: datetime) -> str:
    """A time as the API writes it: UTC, with milliseconds and a Z."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@lru_cache(maxsize=1024)
def _parse(written: str) -> _Timestamp:
    """Only the server's time ends with Z: earlier versions wrote either clock's with an offset."""
    plain = without_tags(written)
    time = local = parse_time(plain)
    tags = {name: unquote(value) for name, value in _TAG.findall(written)}
    boot, up = tags.get("boot"), 0.0
    try:
        up = float(tags["up"])
    except (KeyError, ValueError):
        boot = None
    is_server = plain.endswith("Z")
    if is_server:
        try:
            local = time and time + timedelta(seconds=float(tags["off"]))
        except (KeyError, ValueError, OverflowError):
            local = None
    return _Timestamp(time, is_server, "before" in tags, boot, up, local, tags)


def _newest_tags(created: Any, task_id: Any) -> str:
    """The newest task that there was before as tags; an empty string if it has no usable time."""
    if parse_time(created) is None:
        return ""
    after = f"[after={quote(task_id, safe='')}]" if task_id else ""
    return f"[newest={quote(created, safe=':+')}]{after}"
