"""One-time keys that let a browser see the pages.

A browser is started with a link on its command line, which every user of the machine can read for
as long as it runs. So the key in the link works once, soon, and on Linux for the same user only.
"""

from __future__ import annotations

import hashlib
import os
import socket

from ..system.clock import kernel_text
from .store import Store

OPENED_SECONDS = 120.0  # a link that a command opens: a browser may be slow to start
PRINTED_SECONDS = 3600.0  # a link that a person opens
KEY_BYTES = 24
_KEPT = "visit "  # and the digest of a key: the name under which the store keeps its last moment


def issue(store: Store, seconds: float) -> str:
    """A new key, which lets one browser in within so many seconds."""
    key, now = os.urandom(KEY_BYTES).hex(), store.now()
    with store.write() as db:
        db.execute(
            "DELETE FROM meta WHERE name LIKE ? AND CAST(value AS INTEGER) < ?", (f"{_KEPT}%", now)
        )
        db.execute(
            "INSERT INTO meta VALUES (?, ?)", (_KEPT + _digest(key), str(now + int(seconds * 1000)))
        )
    return key


def redeem(store: Store, key: str) -> bool:
    """Whether a key was issued and is still good. It is not afterwards."""
    with store.write() as db:
        row = db.execute(
            "DELETE FROM meta WHERE name = ? RETURNING value", (_KEPT + _digest(key),)
        ).fetchone()
    return row is not None and store.now() <= int(row[0])


def is_of_another_user(connection: socket.socket) -> bool:
    """Whether another user of this machine is known to be at the other end of a connection.

    Only Linux tells, and root may be anyone: a relay of a container or a virtual machine.
    """
    ends = f"{connection.getpeername()[1]:04X}", f"{connection.getsockname()[1]:04X}"
    for table in ("tcp", "tcp6"):
        lines = kernel_text(f"/proc/self/net/{table}").splitlines()[1:]
        for words in map(str.split, lines):
            if (words[1][-4:], words[2][-4:]) == ends and int(words[7]) not in (0, os.getuid()):
                return True
    return False


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
