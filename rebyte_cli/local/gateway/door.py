"""The jail's side of the edge: a loopback port whose listening socket is handed out.

A socket stays in the network namespace that it was made in. So the jail, which has none but its
loopback, opens a port there, gives the listening socket to the supervisor and forgets it: the
gateway outside accepts what the agent connects to. No process and no file stays in the jail for it.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable, Sequence

PORT = 29170
ADDRESS = f"http://127.0.0.1:{PORT}"
SECONDS = 60.0  # for a busy machine to start the jail and an interpreter in it
LOOK_SECONDS = 0.05
LOWEST = 10  # the shell of a process group uses lower descriptors

# Run inside the jail before the agent: PORT, the descriptor to answer on, and what to become.
_DOOR = """
import os, socket, sys
port, answer, *words = sys.argv[1:]
with socket.socket(fileno=int(answer)) as outside, socket.socket() as listener:
    listener.bind(("127.0.0.1", int(port)))
    listener.listen(128)
    socket.send_fds(outside, [b"."], [listener.fileno()])
os.execvp(words[0], words)
"""


class Door:
    """A socket pair: one end goes into the jail, and the port's listening socket comes out."""

    def __init__(self) -> None:
        self._outside, theirs = socket.socketpair()
        try:
            import fcntl

            self.inside = fcntl.fcntl(theirs, fcntl.F_DUPFD_CLOEXEC, LOWEST)
        finally:
            theirs.close()

    def command(self, python: str, words: Sequence[str]) -> list[str]:
        """The command line inside the jail that opens the port and becomes `words`."""
        return [python, "-I", "-S", "-c", _DOOR, str(PORT), str(self.inside), *words]

    def listener(self, is_alive: Callable[[], bool]) -> socket.socket | None:
        """The listening socket of the jail that was started; None if that ended before.

        Raises TimeoutError when it takes too long.
        """
        give_up = time.monotonic() + SECONDS
        while not select.select([self._outside], [], [], LOOK_SECONDS)[0]:
            if not is_alive():
                return None
            if time.monotonic() > give_up:
                raise TimeoutError(f"the sandbox has opened no port within {SECONDS:.0f} seconds")
        _, found, _, _ = socket.recv_fds(self._outside, 1, 1)
        return socket.socket(fileno=found[0]) if found else None

    def close(self) -> None:
        """Close both ends here."""
        self._outside.close()
        if self.inside >= 0:
            os.close(self.inside)
            self.inside = -1
