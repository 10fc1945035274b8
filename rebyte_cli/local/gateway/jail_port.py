"""The jail's side of the egress: a loopback port whose listening socket is handed out.

A socket stays in the network namespace that it was made in. So the jail, which has none but its
loopback, opens a port there, gives the listening socket to the gateway outside and forgets it: that
accepts what the agent connects to. No process and no file stays in the jail for it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

PORT = 29170
ADDRESS = f"http://127.0.0.1:{PORT}"
LOWEST = 10  # the shell of a process group uses lower descriptors

# Run inside the jail before the agent: PORT, the descriptor to answer on, and what to become.
_OPEN_PORT = """
import os, socket, sys
port, answer, *words = sys.argv[1:]
with socket.socket(fileno=int(answer)) as outside, socket.socket() as listener:
    listener.bind(("127.0.0.1", int(port)))
    listener.listen(128)
    socket.send_fds(outside, [b"."], [listener.fileno()])
os.execvp(words[0], words)
"""


def moved(descriptor: int, number: int | None = None) -> int:
    """A descriptor, which is closed, as one that a jail can inherit: this `number`, or a free one.

    The shell of the jail's process group leaves it alone.
    """
    import fcntl

    try:
        if number is not None:
            return os.dup2(descriptor, number, inheritable=False)
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, LOWEST)
    finally:
        if descriptor != number:
            os.close(descriptor)


class JailPort:
    """A socket pair: one end goes into the jail, and the port's listening socket comes out.

    `outside` and `inside` are inherited, by the gateway and by the jail.
    """

    def __init__(self, number: int | None = None) -> None:
        """With a `number`, that of another one, for whose command line this one is."""
        self.outside, theirs = socket.socketpair()
        self.inside = moved(theirs.detach(), number)

    def command(self, python: str, words: Sequence[str]) -> list[str]:
        """The command line inside the jail that opens the port and becomes `words`."""
        return [python, "-I", "-S", "-c", _OPEN_PORT, str(PORT), str(self.inside), *words]

    def close(self) -> None:
        """Close both ends here."""
        self.outside.close()
        if self.inside >= 0:
            os.close(self.inside)
            self.inside = -1
