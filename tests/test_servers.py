"""The servers that tests talk to do not disturb each other."""

from __future__ import annotations

import threading

from tests.servers import RawServer, reply


def test_a_server_that_has_stopped_accepts_nothing_more() -> None:
    before = set(threading.enumerate())
    with RawServer(reply(200)):
        (accepting,) = set(threading.enumerate()) - before
    accepting.join(60)
    assert not accepting.is_alive()
