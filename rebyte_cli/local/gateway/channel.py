"""Connected sockets that never block, and bytes in both directions between two of them."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
from collections.abc import Callable, Iterable

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


class Tunnel:
    """Two connections, of which each gets what the other sends; `sent` goes upstream."""

    def __init__(self, client: Channel, upstream: Channel, may_send: Callable[[int], str]) -> None:
        """`may_send` is told how many bytes are to go out, and says why not, or nothing."""
        self._client = client
        self._upstream = upstream
        self._may_send = may_send
        self.sent = 0
        self.received = 0

    def run(self, first: bytes, has_ended: bool, most_received: int, idle_seconds: float) -> str:
        """Pass on everything, `first` of all what the client has sent already, maybe with its end.

        Returns why it was cut, or nothing for a usual end. Raises OSError.
        """
        if first and (reason := self._send_out(first)):
            return reason
        if has_ended:
            self._client.has_ended = True
            self._upstream.finish()
        pairs = ((self._client, self._upstream), (self._upstream, self._client))
        while True:
            for source, sink in pairs:
                if reason := self._move(source, sink):
                    return reason
            if self.received > most_received:
                return f"more than {most_received} bytes were received"
            open_pairs = [pair for pair in pairs if not pair[0].has_ended]
            writing = [sink for _, sink in pairs if sink.is_full]
            if not open_pairs and not writing:
                return ""
            reading = [source for source, sink in open_pairs if not sink.is_full]
            if not wait(reading, writing, idle_seconds):
                return f"nothing was sent for {idle_seconds:.0f} s"

    def _move(self, source: Channel, sink: Channel) -> str:
        sink.flush()
        data = None if sink.is_full or source.has_ended else source.receive()
        if data is None:
            return ""
        if not data:
            sink.finish()
        elif sink is self._upstream:
            return self._send_out(data)
        else:
            self.received += len(data)
            sink.send(data)
        return ""

    def _send_out(self, data: bytes) -> str:
        if reason := self._may_send(len(data)):
            return reason
        self.sent += len(data)
        self._upstream.send(data)
        return ""
