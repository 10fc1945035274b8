"""A connected socket that never blocks, and keeps what it could not send yet."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
from collections.abc import Iterable

from ...system.deadline import Deadline

PIECE = 65536  # bytes that are read at a time
LINGER_SECONDS = 10.0
LINGER_BYTES = 64 * 1024 * 1024


class Channel:
    """One side of a connection.

    Read from one side only while `is_full` is false on the other: then at most one piece waits in
    memory.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.has_ended = False  # the other end sends no more
        self._unsent = bytearray()
        self._is_finishing = False
        self._is_finished = False

    @property
    def is_full(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._unsent)

    @property
    def has_more(self) -> bool:
        """Whether bytes can be received that the socket itself no longer has."""
        return isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0

    def receive(self) -> bytes | None:
        """What has arrived; None for nothing now, empty at the end. Raises OSError."""
        try:
            data = self.sock.recv(PIECE)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        self.has_ended = not data
        return data

    def send(self, data: bytes) -> None:
        """Send now what the socket takes, and keep the rest. Raises OSError."""
        self._unsent += data
        self.flush()

    def flush(self) -> None:
        """Send more of what was kept. Raises OSError."""
        while self._unsent:
            try:
                with memoryview(self._unsent) as view:
                    count = self.sock.send(view)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            del self._unsent[:count]
        if self._is_finishing and not self._is_finished:
            self._is_finished = True
            self.sock.shutdown(socket.SHUT_WR)

    def discard(self) -> None:
        """Forget what was kept: the other end takes nothing any more."""
        self._unsent.clear()

    def finish(self) -> None:
        """Send the end, after all that was kept. Not for TLS, which has no half of an end."""
        self._is_finishing = True
        self.flush()

    def close(self) -> None:
        """Close at once."""
        with contextlib.suppress(OSError):
            self.sock.close()

    def close_gently(self) -> None:
        """Send the rest and the end, and close when the other end has read them.

        To close with unread bytes would reset the connection, and destroy what is under way.
        """
        deadline = Deadline(LINGER_SECONDS)
        left = LINGER_BYTES
        with contextlib.suppress(OSError):
            self.finish()
            while left > 0 and not deadline.has_passed:
                if not wait([self], [self] if self.is_full else [], deadline.left()):
                    break
                self.flush()
                data = self.receive()
                if data == b"":
                    break
                left -= len(data or b"")
        self.close()


def wait(reading: Iterable[Channel], writing: Iterable[Channel], seconds: float) -> bool:
    """Wait until one of them can be read or can send; False after `seconds`."""
    events: dict[int, int] = {}
    for channel in reading:
        if channel.has_more:
            return True
        events[channel.sock.fileno()] = select.POLLIN
    for channel in writing:
        number = channel.sock.fileno()
        events[number] = events.get(number, 0) | select.POLLOUT
    poll = select.poll()
    for number, mask in events.items():
        if number < 0:
            raise ConnectionAbortedError("the gateway ends")
        poll.register(number, mask)
    return bool(poll.poll(max(0, seconds) * 1000))
