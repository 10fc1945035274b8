"""How many creates can be under way with the open files and the memory of this process."""

from __future__ import annotations

import math
import sys
from contextlib import suppress

SPARE_CONNECTIONS = 12  # for the watch and the search, beside the one of each create
SPARE_FILES = 48  # open files beside those connections: the journal, the history, the input, …
# Open files per connection to the service in this process: two ends, its database and journal.
FILES_OF_LOCAL = 4
SPARE_MEMORY = 320 << 20  # bytes of address space beside the threads that create
ARENA = 64 << 20  # bytes that glibc reserves for the memory of a thread


def affordable_jobs(jobs: int, *, has_files: bool, is_local: bool) -> tuple[int, str]:
    """Return how many of so many jobs can run, and what there is too little of for more.

    `has_files`: lines name files to upload. `is_local`: the service is in this process.
    """
    if sys.platform == "win32":
        return jobs, ""
    files = FILES_OF_LOCAL if is_local else 1  # open files per connection
    spare = SPARE_CONNECTIONS * files + SPARE_FILES
    each = files + has_files  # an upload reads a file
    memory = _thread_memory() * (2 if is_local else 1)  # the service has a thread as well
    lacking = {
        "open files (ulimit -n)": (_file_limit(each * jobs + spare) - spare) // each,
        "memory (ulimit -v)": (_memory_limit() - SPARE_MEMORY) // memory,
    }
    lack = min(lacking, key=lambda what: lacking[what])
    return jobs if lacking[lack] >= jobs else max(1, int(lacking[lack])), lack


def _file_limit(wanted: int) -> float:
    """How many files this process may have open, after raising the soft limit if needed."""
    if sys.platform == "win32":
        return math.inf
    import resource

    soft, hard = map(_unlimited, resource.getrlimit(resource.RLIMIT_NOFILE))
    if soft < wanted:
        raised = min(wanted, hard)
        with suppress(OSError, ValueError):
            before = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (int(raised), before[1]))
            return raised
    return soft


def _memory_limit() -> float:
    """How many bytes of address space this process may have."""
    if sys.platform == "win32":
        return math.inf
    import resource

    if not hasattr(resource, "RLIMIT_AS"):  # OpenBSD
        return math.inf
    return _unlimited(resource.getrlimit(resource.RLIMIT_AS)[0])


def _thread_memory() -> float:
    """Bytes of address space that a thread takes at most."""
    if sys.platform == "win32":
        return ARENA
    import resource

    stack = resource.getrlimit(resource.RLIMIT_STACK)[0]
    return ARENA + (8 << 20 if stack == resource.RLIM_INFINITY else stack)


def _unlimited(limit: int) -> float:
    """A limit of the system as a number that compares."""
    if sys.platform == "win32":
        return limit
    import resource

    return math.inf if limit == resource.RLIM_INFINITY else limit
