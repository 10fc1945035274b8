"""The servers of the tests: one that has stopped touches no descriptor that came after it."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import ExitStack
from pathlib import Path

from tests.certificates import certificate
from tests.servers import RawServer


def test_a_server_that_has_stopped_has_no_thread_left(tmp_path: Path) -> None:
    """One that was still in OpenSSL wrote 24 bytes into the standard output of another program."""
    made = certificate(tmp_path)
    context = ssl.create_default_context(cafile=made.ca_file)
    before = set(threading.enumerate())
    with ExitStack() as clients:
        with RawServer(b"", tls=made.server) as server:
            for _ in range(8):
                line = socket.create_connection(("127.0.0.1", server.port))
                encrypted = context.wrap_socket(line, server_hostname="localhost")
                clients.enter_context(encrypted).sendall(b"GET")
            clients.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        assert set(threading.enumerate()) <= before  # one of an earlier test may end now
