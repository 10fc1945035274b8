"""`rebyte local connect`: the service over standard streams, for a command on another machine.

As `git upload-pack`, it is started through ssh by the user who asks. So there is no port and no
key: a login as this user is all it takes. The other side starts one of these
for each connection. The first line says that it begins here, since a shell may print something
before it; what follows is HTTP/1.1, for two hosts: `API_HOST` is the API, `STORAGE_HOST` the object
store that signed URLs point at.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..system.files import write_all
from ..system.http_server import Application, ConnectedServer, Environ
from .agents.agent_permission import AgentPermission
from .local_service import Service, not_yet
from .store import Store

PROTOCOL = 1  # of the first line; another number is another wire
API_HOST, STORAGE_HOST = "127.0.0.1:1", "127.0.0.1:2"  # not connected to: names, no places
PIECE = 1 << 16


def serve(
    state_dir: Path,
    config_file: Path,
    announce: Callable[[str], None],
    *,
    version: str,
) -> None:
    """Answer the requests on standard input until it ends, on standard output.

    Raises StateError when the folder cannot be used.
    """
    store = Store(state_dir)
    links = store.recall("address") or f"http://{API_HOST}"
    api, storage = (ConnectedServer(not_yet, name) for name in (API_HOST, STORAGE_HOST))
    service = Service(
        state_dir,
        public_url=links,
        config_file=config_file,
        announce=announce,
        store=store,
        servers=(api, storage),
    )
    key = AgentPermission(state_dir, simulate=False, embedded=True).command_key()
    api.application = for_owner(api.application, storage.application, key)
    ours, theirs = socket.socketpair()
    with service:
        write_all(1, f"rebyte-connect {PROTOCOL} {version}\n".encode())
        reader = threading.Thread(target=_pump, args=(theirs,), daemon=True)
        reader.start()
        writer = threading.Thread(target=_drain, args=(theirs,), daemon=True)
        writer.start()
        api.answer(ours)
        writer.join()


def for_owner(api: Application, storage: Application, key: str) -> Application:
    """One application for both hosts, for which every caller of the API has the `key`."""

    def application(environ: Environ, start: Callable[..., Any]) -> Iterable[bytes]:
        if environ.get("HTTP_HOST") == STORAGE_HOST:
            return storage(environ, start)
        return api({**environ, "rebyte.key": key}, start)

    return application


def _pump(connection: socket.socket) -> None:
    """What the other side sends, until it ends."""
    with contextlib.suppress(OSError):
        while piece := os.read(0, PIECE):
            connection.sendall(piece)
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)


def _drain(connection: socket.socket) -> None:
    """What is answered, until that ends or the other side is gone."""
    with contextlib.suppress(OSError):
        while piece := connection.recv(PIECE):
            write_all(1, piece)
    with contextlib.suppress(OSError):  # a run that is streamed is not worth more work
        connection.shutdown(socket.SHUT_RDWR)
