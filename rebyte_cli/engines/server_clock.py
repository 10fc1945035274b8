"""When something happened, by the server's clock, as far as that can be known from here."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..api.client import RebyteClient

SKEW = timedelta(seconds=2)  # between the machines behind one API
# How long after it was sent a create can still make its task. The client gives up after ten.
LIFE = timedelta(minutes=15)
# How far wrong our own clock may be where the server never told the time.
BLIND = timedelta(hours=1)


class Clock:
    """The server's time for what this process did, by `Date` headers and our monotonic clock."""

    def __init__(self, client: RebyteClient, clock: Callable[[], float]) -> None:
        self._client = client
        self._clock = clock
        self._mark = clock()
        self._wall = wall()

    def now(self) -> datetime:
        """The server's time; ours when the server never told its own."""
        return self._client.transport.server_now() or wall()

    def near(self, one: str, other: str) -> bool:
        """Whether two written times may lie within the life of one attempt of each other.

        Either may be the server's time or ours, as in `window_of`.
        """
        mine, theirs = when(one), when(other)
        if mine is None or theirs is None:
            return True
        wrong = self.now() - wall()
        shifts = (timedelta(0), wrong, -wrong)
        return any(abs(mine - theirs + shift) <= LIFE for shift in shifts)

    def window(self) -> tuple[datetime, datetime]:
        """When something sent as this object was made can have taken effect.

        A `Date` header is older than its arrival, so the beginning is never too late by it.
        """
        now = self._client.transport.server_now()
        if now is None:
            return self._wall - BLIND, self._wall + BLIND + LIFE
        began = now - timedelta(seconds=self._clock() - self._mark)
        return began - SKEW, began + SKEW + LIFE

    def window_of(self, written: str) -> tuple[datetime, datetime]:
        """The same for a beginning that an earlier process wrote down.

        It wrote the server's time or that of this machine, whose clock may be wrong by as much
        as it is now. Both readings are allowed for.
        """
        one = when(written) or wall()
        server = self._client.transport.server_now()
        if server is None:
            return one - BLIND, one + BLIND + LIFE
        other = one + (server - wall())
        return min(one, other) - SKEW, max(one, other) + SKEW + LIFE


def is_past(client: RebyteClient, written: Any, seconds: float) -> bool:
    """Whether a time that the server wrote is so many seconds ago by its own clock.

    False where either is not known.
    """
    moment, now = when(written), client.transport.server_now()
    return moment is not None and now is not None and (now - moment).total_seconds() >= seconds


def when(written: Any) -> datetime | None:
    """A time as the API writes it; None when it cannot be read."""
    if not isinstance(written, str):
        return None
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def wall() -> datetime:
    """This machine's time (UTC), right or wrong."""
    return datetime.now(UTC)
