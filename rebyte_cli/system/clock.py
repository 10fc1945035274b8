"""A clock that cannot be set: how long this machine has been up, and which boot that was."""

from __future__ import annotations

import os
import re
import sys
import time
from functools import cache
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE, _OFFSETS = Path("/proc/self/ns/time"), Path("/proc/self/timens_offsets")
_FIRST_NAMESPACE = "time:[4026531834]"  # that of the machine itself, on every Linux


def since_boot() -> float:
    """Seconds since the machine started, including time asleep.

    `time.monotonic` stops while a laptop sleeps on Linux and macOS, and the wall clock jumps when
    it is corrected; neither can tell how long ago something was sent.
    """
    if sys.platform == "win32":
        return time.monotonic()  # which includes time asleep there
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@cache
def boot_id() -> str:
    """A name for the current boot: values of `since_boot` compare only under the same name.

    Where the system has no such name, this process makes one up, so that no later process can
    mistake another boot for this one. Each time namespace counts from another time.
    """
    try:
        name = _BOOT_ID.read_text().strip().replace("-", "")[:16]
    except OSError:
        name = ""
    try:
        namespace = os.readlink(_NAMESPACE)
    except OSError:  # an old kernel, or another system
        namespace = _FIRST_NAMESPACE
    if name and namespace != _FIRST_NAMESPACE:
        try:
            # The number of a namespace is given to another one when it has ended.
            offsets = _OFFSETS.read_text()
        except OSError:
            return _made_up()
        name = "/".join([name, *re.findall(r"-?\d+", f"{namespace} {offsets}")])
    return name or _made_up()


def _made_up() -> str:
    return f"pid{os.urandom(6).hex()}"
