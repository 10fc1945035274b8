"""Waiting for what happens in another thread or process, by its own clock."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
SHORTEST, LONGEST = 0.01, 0.25  # seconds between two looks


def eventually(
    look: Callable[[], T],
    *,
    seconds: float = 300.0,
    what: str = "it",
    told: Callable[[], object] = str,
) -> T:
    """Look until there is something to see, and return it; fails after `seconds`.

    The failure says `what` did not happen, and what `told` returns. Looks become rarer: on a busy
    machine they would keep what is waited for from running.
    """
    began = time.monotonic()
    while not (found := look()):
        waited = time.monotonic() - began
        assert waited < seconds, f"{what} did not happen within {seconds:g} s {told()}"
        time.sleep(min(max(SHORTEST, waited / 10), LONGEST))
    return found


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie; it may go at any moment, also while we look."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state.rpartition(")")[2].split()[0] != "Z"


def kill_supervisor(lock: Path) -> None:
    """Kill the process that the lock file of a run names.

    One that takes the run over empties the file before it writes who it is, and the process named
    there may have ended meanwhile.
    """

    def killed() -> bool:
        with suppress(IndexError, ProcessLookupError):
            os.kill(int(lock.read_text().split()[0]), signal.SIGKILL)
            return True
        return False

    eventually(killed)


def with_time(check: Callable[[float], T], seconds: float = 0.5) -> T:
    """Call `check` with a time limit; if it fails, again with a limit 4, then 16 times as long.

    For a limit that always passes in full, although something else has to happen within it: a busy
    machine may not manage that in `seconds`. `check` has to set up everything it changes.
    """
    for limit in (seconds, 4 * seconds):
        with suppress(Exception):
            return check(limit)
    return check(16 * seconds)
