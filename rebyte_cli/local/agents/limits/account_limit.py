"""The usage limits of accounts: until when the runs of an account wait, and which one tries first.

`limits/ACCOUNT` in the state folder exists while the limit of an account is reached. When its time
has come, one run holds the lock `limits/ACCOUNT.probe` and works: if its model answers, it removes
the file and the others follow; if the limit is reached again, it writes the new time, and all wait
on. If it is killed, the next one has the lock. A limit of days is tried every hour: its time may
be wrong, and a user may have paid for more.

The time is that of the boot clock, which cannot be set. After a reboot, what is left is taken from
the clock of the wall, but never more than there was at first.

run_queue.py imports this in every waiting process, so it imports only what Python has loaded
anyway.
"""

from __future__ import annotations

import os
import time

from ....system.clock import boot, since_boot
from ....system.locks import flock

FOLDER = "limits"
LONGEST_SLEEP = 5.0
LONGEST_UNTRIED = 3600.0  # seconds


class AccountLimit:
    """The limit of one account. `state_dir` is the state folder."""

    def __init__(self, state_dir: str, account: str) -> None:
        self._file = f"{state_dir}/{FOLDER}/{account}"

    def reach(self, seconds: float) -> int:
        """Record that it is reached for so long; when it is reset, in milliseconds since 1970."""
        resumes = int((time.time() + seconds) * 1000)
        os.makedirs(os.path.dirname(self._file), mode=0o700, exist_ok=True)
        self._write(resumes, min(seconds, LONGEST_UNTRIED))
        return resumes

    def clear(self) -> None:
        """Record that requests pass again."""
        try:  # noqa: SIM105 - see the module's docstring
            os.unlink(self._file)
        except FileNotFoundError:
            pass

    def resumes_at(self) -> int | None:
        """When it is reset, in milliseconds since 1970; None if it is not reached."""
        known = self._read()
        return None if known is None else known[0]

    def seconds_left(self) -> float | None:
        """What is left until a run is to try, 0 and less when one is; None if it is not reached."""
        known = self._read()
        if known is None:
            return None
        resumes, seconds, its_boot, deadline = known
        this_boot = boot()
        if this_boot and this_boot == its_boot:
            return deadline - since_boot()
        left = min(resumes / 1000 - time.time(), seconds)
        if this_boot:
            self._write(resumes, left)  # a clock that is set later changes nothing any more
        return left

    def wait(self) -> int | None:
        """Return when the account can be tried: the lock of the run that tries it, or None if it is
        known that requests pass.
        """
        while (left := self.seconds_left()) is not None:
            if left > 0:
                time.sleep(min(left, LONGEST_SLEEP))
                continue
            probe = os.open(f"{self._file}.probe", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            flock(probe)  # until the one that tries knows
            left = self.seconds_left()
            if left is not None and left <= 0:
                return probe
            os.close(probe)
        return None

    def _read(self) -> tuple[int, float, str, float] | None:
        try:
            with open(self._file, encoding="ascii") as file:
                resumes, seconds, its_boot, deadline = file.read().split(" ")
            return int(resumes), float(seconds), its_boot, float(deadline)
        except FileNotFoundError:
            return None
        except (OSError, ValueError):  # trying tells
            return 0, 0.0, "", 0.0

    def _write(self, resumes: int, seconds: float) -> None:
        aside = f"{self._file}.{os.getpid()}"
        with open(aside, "w", encoding="ascii") as file:
            file.write(f"{resumes} {seconds} {boot()} {since_boot() + seconds}")
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, self._file)
