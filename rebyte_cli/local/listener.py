"""The listening sockets of the local service: a daemon thread per connection."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Callable
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

from .exchange import Application, Handler, Host


class Listener(ThreadingMixIn, Host):
    """A listening socket with one daemon thread per connection.

    Raises OSError when the port is taken.
    """

    daemon_threads = True
    request_queue_size = 256
    # On Windows this option would let two programs share the port.
    allow_reuse_address = sys.platform != "win32"

    def __init__(
        self, host: str, port: int, application: Application, log: Callable[[str], None]
    ) -> None:
        self.application = application
        self.log = log
        self.stopping = False
        self._host = host
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), Handler)

    def server_bind(self) -> None:
        # HTTPServer would ask the name service for the host's full name here.
        TCPServer.server_bind(self)
        self.server_port = self.server_address[1]

    @property
    def origin(self) -> str:
        """`http://host:port` of this socket, IPv6 in brackets."""
        name = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{name}:{self.server_port}"

    def start(self) -> None:
        """Accept connections on a daemon thread."""
        self._thread = threading.Thread(target=self._accept, name="rebyte-local", daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                request, address = self.get_request()
            except OSError:
                if self.stopping:
                    return
                time.sleep(0.01)  # out of file descriptors: give the others time to end
                continue
            if self.stopping:
                request.close()
                return
            with self._guard:
                self._open.add(request)
            try:
                self.process_request(request, address)
            except RuntimeError:  # no thread to be had: this client is turned away, not all
                self.shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:
        with self._guard:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # The client sees a closed connection; a traceback on the user's terminal helps nobody.
        self.log(f"{client_address[0]}: {sys.exc_info()[1]!r}")

    def stop(self) -> None:
        """Stop accepting and cut every open connection. Safe to call twice."""
        if self.stopping:
            return
        self.stopping = True
        if self._thread is not None:
            with contextlib.suppress(OSError):
                socket.create_connection((self._host, self.server_port), timeout=1).close()
            self._thread.join(timeout=2)
        self.server_close()
        with self._guard:
            for request in self._open:
                with contextlib.suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)
