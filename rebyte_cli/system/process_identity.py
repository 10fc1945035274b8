"""Which process a number means, also after a reboot, and what it has started lately.

As clock.py, it imports only what Python has loaded anyway.
"""

from __future__ import annotations

import os
import sys

from .clock import boot, kernel_text, since_boot


def identity(pid: int) -> str:
    """The id of a process with what tells it from a later one of the same number.

    That is the boot and the moment of its start, where /proc tells them (Linux).
    """
    return f"{pid} {boot()} {_started(pid)}".rstrip()


def find(known: str) -> int | None:
    """The id of the process with this identity; None if it is dead or the text is no identity."""
    number = known.partition(" ")[0]
    if not (number.isascii() and number.isdigit()) or identity(int(number)) != known:
        return None
    return int(number)


def stat_fields(pid: int) -> list[str]:
    """What /proc says of a process after its name, which may be anything; nothing if it is gone."""
    return kernel_text(f"/proc/{pid}/stat").rpartition(")")[2].split()


def _started(pid: int) -> str:
    """When the process started, in the kernel's own count; empty if it is dead."""
    fields = stat_fields(pid)
    # One whose first thread has ended is a zombie, too, but has more than one thread.
    if len(fields) < 20 or (fields[0] in "ZX" and int(fields[17]) < 2):
        return ""
    return fields[19]


def has_new(pid: int, seconds: float) -> bool:
    """Whether a process below `pid` began in the last `seconds`; False where that is not known.

    It is the sign that a tool of an agent is at work, where it prints nothing.
    """
    if sys.platform != "linux":
        return False
    parents: dict[int, int] = {}
    since = (since_boot() - seconds) * os.sysconf("SC_CLK_TCK")
    new = []
    for each in map(int, filter(str.isdecimal, os.listdir("/proc"))):
        if fields := stat_fields(each):  # or it has ended meanwhile
            parents[each] = int(fields[1])
            if int(fields[19]) > since:
                new.append(each)
    return any(_is_below(each, pid, parents) for each in new)


def _is_below(pid: int, above: int, parents: dict[int, int]) -> bool:
    while pid in parents:
        pid = parents[pid]
        if pid == above:
            return True
    return False
