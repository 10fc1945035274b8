"""Servers whose every byte a test decides."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

SECONDS = 60


class ScriptedServer:
    """A server on loopback that runs `script` for each connection, and closes it afterwards.

    What the script raises is raised at the end of the block. `connections` counts them.
    """

    def __init__(
        self, script: Callable[[socket.socket], None], *, tls: ssl.SSLContext | None = None
    ) -> None:
        self._script = script
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://localhost:{self.port}"
        self.connections = 0
        self._errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(SECONDS)
        for thread in self._threads:
            thread.join(SECONDS)
        if kind is None and self._errors:
            raise self._errors[0]

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(SECONDS)
        try:
            if self._tls is not None:
                try:
                    sock = self._tls.wrap_socket(sock, server_side=True)
                except OSError:
                    return  # the client did not like the certificate
            self._script(sock)
        except BaseException as error:
            self._errors.append(error)
        finally:
            with contextlib.suppress(OSError):
                sock.close()


def read_head(sock: socket.socket) -> bytes:
    """The head of a request with its empty line, byte by byte: what follows stays unread."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        assert byte, head
        head += byte
    return head


def read_all(sock: socket.socket) -> bytes:
    """Everything up to the end of the connection."""
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data


def read_exactly(sock: socket.socket, count: int) -> bytes:
    """So many bytes."""
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        assert piece, data
        data += piece
    return data


def tunnelling_proxy(port: int, heads: list[bytes]) -> Callable[[socket.socket], None]:
    """A user's proxy: it answers CONNECT, whatever the host, with a tunnel to a port here.

    `heads` are those of the requests that it got.
    """

    def serve(sock: socket.socket) -> None:
        heads.append(read_head(sock))
        with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as further:
            sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_pump, args=(further, sock))
            back.start()
            _pump(sock, further)
            back.join(SECONDS)

    return serve


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
