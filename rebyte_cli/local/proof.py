"""Proof that a service has the machine's own key, before anything else is sent to it."""

from __future__ import annotations

import contextlib
import hmac
import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

from ..system.deadline import Deadline
from .agents.agent_permission import AgentPermission
from .store import ServedService

CHALLENGE_SECONDS = 1.0
LONGEST_HEAD = 4096  # bytes


def prove(permission: AgentPermission, origin: str, instance: str) -> socket.socket | None:
    """A connection to a service that has proved to be the `instance` which `permission` means.

    None if whatever is there does not prove that. Raises ConnectionRefusedError when nothing is.
    """
    challenge = os.urandom(16).hex()
    expected = permission.proof(challenge, instance, f"{origin}/v1")
    parts = urlsplit(origin)
    connection = None
    try:
        connection = socket.create_connection(
            (parts.hostname or "", parts.port or 0), CHALLENGE_SECONDS
        )
        given = _reply(connection, challenge, parts.netloc, len(expected))
        if hmac.compare_digest(given, expected.encode()):
            return connection
    except ConnectionRefusedError:
        raise
    except (OSError, ValueError):
        pass
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.close()
    return None


def is_served(folder: Path, served: ServedService) -> bool:
    """Whether a service answers there and proves to be that of the folder."""
    for simulate in (False, True):
        permission = AgentPermission(folder, simulate=simulate)
        with contextlib.suppress(ConnectionRefusedError):
            connection = prove(permission, served.origin, served.instance)
            if connection is not None:
                connection.close()
                return True
    return False


def _reply(connection: socket.socket, challenge: str, host: str, size: int) -> bytes:
    """What the other side answers to a challenge; empty if it is no proof of `size` bytes.

    Read by hand, and not a byte too many: the connection is used for requests afterwards. Whatever
    listens there cannot make this take longer than the limit.
    """
    deadline = Deadline(CHALLENGE_SECONDS)
    request = f"GET /proof?challenge={challenge} HTTP/1.1\r\nHost: {host}\r\n\r\n"
    connection.sendall(request.encode("ascii"))
    data = b""
    while len(data) < LONGEST_HEAD:
        connection.settimeout(max(0.001, deadline.left()))
        piece = connection.recv(LONGEST_HEAD)
        if not piece or deadline.has_passed:
            break
        data += piece
        head, found, body = data.partition(b"\r\n\r\n")
        if found and not head.startswith(b"HTTP/1.1 200 "):
            break
        if len(body) >= size:
            return body
    return b""
