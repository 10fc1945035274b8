"""Bytes in both directions, until both ends have said all (CONNECT)."""

from __future__ import annotations

from collections.abc import Callable

from .channel import Channel, wait


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
