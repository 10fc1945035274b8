"""A clock that cannot be set: how long this machine has been up, and which boot that was.

Every run that waits for its turn has a process that imports this (see run_queue.py), so it imports
only what Python has loaded anyway.
"""

from __future__ import annotations

import os
import time

_FIRST_NAMESPACE = "time:[4026531834]"  # that of the machine itself, on every Linux
_made_up = f"pid{os.urandom(6).hex()}"


def since_boot() -> float:
    """Seconds since the machine started, including time asleep.

    `time.monotonic` stops while a laptop sleeps on Linux and macOS, and the wall clock jumps when
    it is corrected; neither can tell how long ago something was sent.
    """
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def awake_since_boot() -> float:
    """Seconds since the machine started, without time asleep."""
    return time.monotonic()


def boot(proc: str = "/proc") -> str:
    """The kernel's own id of the current boot (Linux); empty where there is none."""
    return kernel_text(f"{proc}/sys/kernel/random/boot_id").strip()


def boot_id(proc: str = "/proc") -> str:
    """A name for the current boot: values of `since_boot` compare only under the same name.

    Where the system has no such name, this process makes one up, so that no later process can
    mistake another boot for this one. Each time namespace counts from another time.
    """
    name = boot(proc).replace("-", "")[:16]
    try:
        namespace = os.readlink(f"{proc}/self/ns/time")
    except OSError:  # an old kernel, or another system
        namespace = _FIRST_NAMESPACE
    if name and namespace != _FIRST_NAMESPACE:
        import re

        # The number of a namespace is given to another one when it has ended.
        offsets = kernel_text(f"{proc}/self/timens_offsets")
        name = "/".join([name, *re.findall(r"-?\d+", f"{namespace} {offsets}")]) if offsets else ""
    return name or _made_up


def kernel_text(path: str) -> str:
    """What the kernel tells in a file of /proc; empty where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
