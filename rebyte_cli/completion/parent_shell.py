"""Which shell the command was typed into: `$SHELL` names the login shell, which may be another."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")


class ProcessEntry(NamedTuple):
    """What is known of a process: its parent, its process group, the name of its program."""

    parent: int
    group: int
    name: str


def parent_shell(
    shells: Collection[str], read: Callable[[int], ProcessEntry] | None = None
) -> str | None:
    """The nearest interactive shell of `shells` above this process, or None.

    An interactive shell gives each command its own process group. One that runs a script
    does not, and is passed over: an installer written in bash is started from other shells too.
    None as well where processes cannot be read, as on Windows. `read` is for tests.
    """
    read = read or process_entry
    try:
        entry = read(os.getpid())
        while entry.parent > 1:
            above = read(entry.parent)
            if above.name in shells and above.group != entry.group:
                return above.name
            entry = above
    except (OSError, ValueError, subprocess.SubprocessError):
        pass
    return None


def process_entry(pid: int, proc: Path = PROC) -> ProcessEntry:
    """The process `pid`, from `proc` or, as on a Mac, from ps(1)."""
    try:
        # The name is in parentheses and may hold any character; see proc_pid_stat(5).
        name, _, rest = (proc / str(pid) / "stat").read_text(errors="replace").rpartition(")")
        _state, parent, group = rest.split()[:3]
        return ProcessEntry(int(parent), int(group), name.partition("(")[2])
    except FileNotFoundError:
        ps = ["ps", "-o", "ppid=,pgid=,comm=", "-p", str(pid)]
        done = subprocess.run(ps, capture_output=True, text=True, check=True, timeout=5)
        parent, group, name = done.stdout.split(maxsplit=2)
        # Of a login shell it is `-zsh`; on a Mac it is a path.
        return ProcessEntry(int(parent), int(group), name.strip().rpartition("/")[2].lstrip("-"))
