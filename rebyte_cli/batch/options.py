"""How a batch is to run."""

from __future__ import annotations

from typing import NamedTuple

SEND_AGAIN_AFTER = 900.0  # seconds; the same as for `create --once`


class BatchOptions(NamedTuple):
    """How a batch is to run. Times in seconds.

    `jobs` is how many creates may be under way at a time, and `max_running` how many lines may have
    a task that runs, counting creates under way and those whose outcome is not known (None: any).
    `search_for` is how long a lost create is searched for before its outcome is called unknown,
    and how long scans must agree that there is no task before it is sent again.
    """

    jobs: int = 8
    wait: bool = True
    timeout: float | None = None
    fail_fast: bool = False
    retry_failed: bool = False
    send_again_after: float = SEND_AGAIN_AFTER
    search_for: float | None = None
    max_running: int | None = None
