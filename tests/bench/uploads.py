"""A file of a gigabyte to a server that takes it and forgets it."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from ..servers import close_listener
from .environment import REBYTE, variables
from .measure import Row, growth, run

SIZE = 1 << 30


class Sink:
    """Gives slots for uploads and reads bodies into one buffer, over and over."""

    def __init__(self) -> None:
        self.received = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        close_listener(self._listener)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        buffer = bytearray(1 << 18)
        with sock, sock.makefile("rb", 0) as stream:
            while first := stream.readline():
                headers = {}
                while line := stream.readline().strip():
                    name, _, value = line.partition(b":")
                    headers[name.lower()] = value.strip()
                left = int(headers.get(b"content-length", b"0"))
                while left > 0:
                    count = sock.recv_into(buffer, min(left, len(buffer)))
                    if not count:
                        return
                    left -= count
                    self.received += count
                body = b""
                if first.startswith(b"POST"):
                    slot = {"id": "f1", "filename": "f1-big", "uploadUrl": f"{self.base_url}/put"}
                    body = json.dumps(slot).encode()
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
                sock.sendall(head.encode() + body)


def rows(home: Path) -> Iterator[Row]:
    """Memory over that of an empty upload."""
    empty, large = home / "empty", home / "large"
    empty.touch()
    with large.open("wb") as file:
        file.truncate(SIZE)  # a hole: takes no room on the disk
    sink = Sink()
    env = variables(home, REBYTE_API_KEY="rbk_bench", REBYTE_API_URL=sink.base_url)
    words = [REBYTE, "file", "upload", "-q"]
    before = [run([*words, str(empty)], env) for _ in range(3)]
    whole = run([*words, str(large)], env)
    sink.close()
    assert sink.received >= SIZE
    figure = f"{growth(before, whole)}  {whole.seconds:.1f} s"
    yield Row("rebyte file upload, 1 GiB: over an empty one", figure, "20 MiB")
