"""What an agent has started lately: the sign that a tool is at work, where it prints nothing."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ....system.clock import since_boot


def has_new(pid: int, seconds: float) -> bool:
    """Whether a process below `pid` began in the last `seconds`; False where that is not known."""
    if sys.platform != "linux":
        return False
    parents: dict[int, int] = {}
    since = (since_boot() - seconds) * os.sysconf("SC_CLK_TCK")
    new = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        parents[int(folder.name)] = int(fields[1])
        if int(fields[19]) > since:
            new.append(int(folder.name))
    return any(_is_below(each, pid, parents) for each in new)


def _is_below(pid: int, above: int, parents: dict[int, int]) -> bool:
    while pid in parents:
        pid = parents[pid]
        if pid == above:
            return True
    return False
