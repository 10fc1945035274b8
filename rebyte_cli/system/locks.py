"""Locks on open files and folders, which the kernel drops with their last descriptor.

As clock.py, it imports only what Python has loaded anyway. See files.py for locks by path.
"""

from __future__ import annotations

import os


def flock(descriptor: int, *, shared: bool = False, wait: bool = True) -> None:
    """Lock an open file or folder, alone or shared, until it is closed or `unlock`.

    Without `wait`, BlockingIOError says that another holds it. Raises OSError as the system does,
    for example where the file system has no locks.
    """
    import fcntl

    how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    fcntl.flock(descriptor, how | (0 if wait else fcntl.LOCK_NB))


def unlock(descriptor: int) -> None:
    """Drop the lock of an open file."""
    import fcntl

    fcntl.flock(descriptor, fcntl.LOCK_UN)


def is_locked(path: str | os.PathLike[str]) -> bool:
    """Whether another holds the lock of a file alone; False if there is no such file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # Shared, so that two who look at the same moment do not take each other for the holder.
        flock(descriptor, shared=True, wait=False)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False
