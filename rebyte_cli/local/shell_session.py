"""Whether a shell session has used the local service before, so that it is named only once."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

FORGET_AFTER = 86400.0  # seconds; ids of sessions are used again


def is_first_use(folder: Path) -> bool:
    """Whether no command of this shell session has asked before, as far as `folder` tells.

    The folder holds an empty file for each session. A session that has been idle for a day counts
    as new. True if the folder cannot be used.
    """
    marker = folder / str(os.getsid(0))  # of all commands of one terminal, job or remote login
    try:
        age = time.time() - marker.stat().st_mtime
        os.utime(marker)
    except FileNotFoundError:
        return _begin(marker)
    except OSError:
        return True
    return age > FORGET_AFTER


def _begin(marker: Path) -> bool:
    """Make the file; False if another command of the session was faster."""
    try:
        marker.parent.mkdir(mode=0o700, exist_ok=True)
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return False
    except OSError:
        return True
    _forget_old(marker.parent)
    return True


def _forget_old(folder: Path) -> None:
    limit = time.time() - FORGET_AFTER
    with suppress(OSError):
        for entry in os.scandir(folder):
            if entry.stat().st_mtime < limit:
                os.unlink(entry)
