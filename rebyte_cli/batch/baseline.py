"""What the service says before the first create of a run: its time, and its newest task.

Without its time, creates would be journaled in local time, which a wrong clock makes useless. And
whatever the clocks behind `Date` and `createdAt` say, a task that is created later has a later
`createdAt` than the newest one now.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ..errors import APIError, Unsent
from ..once.clock import ServerClock
from ..once.search import Row, newest_task
from .state import Record

if TYPE_CHECKING:
    from ..api.client import RebyteClient


class Baseline:
    """Asks once, when the first create of a run is about to be sent. Thread-safe."""

    def __init__(self, client: RebyteClient, clock: ServerClock) -> None:
        self._client = client
        self._clock = clock
        self._lock = threading.Lock()
        self._is_known = False
        self._newest: Row | None = None

    def ask(self) -> None:
        """Ask the service, unless it has been asked. Raises Unsent if it cannot be reached."""
        with self._lock:
            if self._is_known:
                return
            try:
                self._newest = newest_task(self._client)
            except Unsent:
                raise
            except APIError:  # any answer tells the time; what is wrong, the create will say
                pass
            self._is_known = True

    def sending_record(self, number: int) -> Record:
        """The record of a line that is about to be sent."""
        return {"line": number, "is": "sending", "at": self._clock.timestamp(self._newest)}
