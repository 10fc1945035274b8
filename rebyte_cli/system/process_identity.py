"""Which process a number means, also after a reboot.

As clock.py, it imports only what Python has loaded anyway.
"""

from __future__ import annotations

from .clock import boot, kernel_text


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
