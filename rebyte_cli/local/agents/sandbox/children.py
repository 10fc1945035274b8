"""What an agent has started lately: the sign that a tool is at work, where it prints nothing."""

from __future__ import annotations

import os
import sys

from ....system.clock import since_boot
from ....system.process_identity import stat_fields


def has_new(pid: int, seconds: float) -> bool:
    """Whether a process below `pid` began in the last `seconds`; False where that is not known."""
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
