"""How a command reaches the service of its state folder.

It uses a `local serve` that runs for the same folder, and otherwise starts a service inside its own
process, or in a child process if it makes many requests. A port number in a file proves nothing:
another program may listen there by now, of another user even. So every connection begins with a
challenge (see `proof.py`), and nothing else is sent on a connection that fails it.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .agents.agent_permission import AgentPermission
from .proof import prove
from .store import SERVED, Store

if TYPE_CHECKING:
    from .local_service import Service
    from .process import ServiceProcess

DEFAULT_ORIGIN = "http://127.0.0.1:8787"


class Dialer:
    """Connections to the service of a state folder, wherever it runs at the moment. Thread-safe.

    Clients call `base_url` with `key`. The address is where `local serve` last answered for the
    folder; `connect` decides where a connection really goes. Links to tasks point at it too, since
    a service inside this process ends with the command. `config_file` and `announce` are as in
    `Service`. `busy`: so many requests will follow that a child process is worth its start. Raises
    StateError when the folder cannot be used.
    """

    def __init__(
        self,
        state_dir: Path,
        config_file: Path | None,
        announce: Callable[[str], None],
        *,
        busy: bool = False,
    ) -> None:
        self._store = Store(state_dir)
        self._config_file = config_file
        self._announce = announce
        self._permission = AgentPermission(state_dir, simulate=False, embedded=True)
        self._lock = threading.Lock()
        self._service: Service | None = None
        self._process: ServiceProcess | None = None
        self._refused: set[str] = set()  # instances that failed the challenge
        self.origin = self._store.recall("address") or DEFAULT_ORIGIN
        self.base_url = f"{self.origin}/v1"
        self.key = self._permission.command_key()
        if not self._store.served() and not (busy and self._start_process()):
            self._start()

    @property
    def is_served(self) -> bool:
        """Whether a `local serve` answers at `origin`, also when this process has ended."""
        return bool(self._store.served())

    def connect(self, address: tuple[str, int], timeout: float | None) -> socket.socket | None:
        """A connection to the service, for the `address` of `base_url`; None for any other.

        Raises OSError.
        """
        parts = urlsplit(self.origin)
        if address != (parts.hostname, parts.port):
            return None
        connection = self._connection(timeout)
        # Head and body of a request are two packets, and the second would wait 40 ms for the
        # acknowledgement of the first.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def _connection(self, timeout: float | None) -> socket.socket:
        with self._lock:
            if self._service is None:
                found = self._elsewhere()
                if found is not None:
                    return found
                self._start()
            assert self._service is not None
            own = urlsplit(self._service.base_url)
        return socket.create_connection((own.hostname or "", own.port or 0), timeout)

    def decline(self) -> bool:
        """Use the service of this process from now on.

        For an answer 421: a served service starts no agent for a command, which announces it and
        has the environment for it. Several requests may be answered so at the same moment.
        """
        with self._lock:
            if self._service is None:
                self._start()
            return True

    def stop(self) -> None:
        """Stop the service of this process, if there is one. Safe to call twice."""
        with self._lock:
            if self._service is not None:
                self._service.stop()
            if self._process is not None:
                self._process.stop()
            self._store.close()

    def _start_process(self) -> bool:
        """Start a service in a child process; False if there can be none."""
        from .process import ServiceProcess

        try:
            self._process = ServiceProcess(self._store.folder, self.origin, self._config_file)
        except OSError:
            return False
        return True

    def _start(self) -> None:
        from .local_service import Service

        self._service = Service(
            self._store.folder,
            store=self._store,
            public_url=self.origin,
            config_file=self._config_file,
            announce=self._announce,
        ).start()

    def _elsewhere(self) -> socket.socket | None:
        """A connection to a served service, or to the one in the child process.

        Both prove themselves: the latter may have been killed, and another program have its port.
        """
        for origin, instance, *_ in self._store.served():
            if instance not in self._refused:
                if (found := self._proved(origin, instance)) is not None:
                    return found
                self._refused.add(instance)
        address = None if self._process is None else self._process.address()
        return None if address is None else self._proved(*address)

    def _proved(self, origin: str, instance: str) -> socket.socket | None:
        try:
            return prove(self._permission, origin, instance)
        except ConnectionRefusedError:  # it was killed, and left its record behind
            self._store.forget(SERVED + instance)
            return None
