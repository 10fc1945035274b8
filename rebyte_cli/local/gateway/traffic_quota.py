"""What the connections of one gateway may use together."""

from __future__ import annotations

import threading
import time
from collections import deque

from .gateway_settings import Limits


class TrafficQuota:
    """What all connections may use together. For several threads."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._sent = 0
        self._times: deque[float] = deque(maxlen=limits.requests_per_minute)

    def take_request(self) -> bool:
        """Count a request; False if there were too many within a minute."""
        with self._lock:
            now = time.monotonic()
            is_full = len(self._times) == self._times.maxlen
            if is_full and now - self._times[0] < 60:
                return False
            self._times.append(now)
            return True

    def take_bytes(self, count: int) -> bool:
        """Count bytes that go out to hosts on the list; False if there are too many."""
        with self._lock:
            self._sent += count
            return self._sent <= self._limits.sent_by_tunnels
