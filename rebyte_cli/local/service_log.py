"""The log of a state folder: the service's faults, and what its supervisors have to say.

No command prints it. Entries have no keys; what a supervisor prints goes there as it is. It is
bounded: a full one replaces the one before it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

NAME = "service.log"  # in the state folder; it may not exist
LARGEST = 1 << 20  # bytes; what is longer is moved to `service.log.old`
LONGEST = 1 << 15  # characters of an entry, whose end says most


def opened(state_dir: Path) -> BinaryIO:
    """The log, to append to. Raises OSError."""
    path = state_dir / NAME
    with suppress(OSError):  # it does not exist, or another process moves it at this moment
        if path.stat().st_size > LARGEST:
            os.replace(path, path.with_name(f"{NAME}.old"))
    return open(path, "ab", opener=lambda name, flags: os.open(name, flags, 0o600))


def add(state_dir: Path, text: str) -> Path | None:
    """Write an entry with the time and without keys; the log, or None if it cannot be written."""
    from ..system.redaction import redact_keys
    from ..system.safe_text import clean

    text = clean(redact_keys(text))[-LONGEST:]
    with suppress(OSError), opened(state_dir) as log:
        log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {text}\n".encode())
        return state_dir / NAME
    return None


def add_fault(state_dir: Path, environ: Mapping[str, Any]) -> Path | None:
    """Write the traceback of the exception that is handled, which a request led to. As `add`."""
    import traceback

    request = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
    return add(state_dir, f"{request}\n{traceback.format_exc().rstrip()}")
