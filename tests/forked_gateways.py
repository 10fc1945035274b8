"""Gateways of jails, forked by the server of fork_server.py instead of started by an interpreter.

To import what a gateway needs takes a third of the time of a short run, and the suite has hundreds
of runs. `install` replaces `egress.start_gateway` in this process and what it forks. What
`real_supervisors` is for has real gateways, too, and so has a supervisor that is no fork.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable
from typing import Any

from rebyte_cli.local.agents.sandbox import egress
from tests.fork_client import start
from tests.forked_supervisors import AS_REAL, umask_of_this_process

REAL = egress.start_gateway


class ForkedProcess:
    """A gateway that the server at a socket forks: those parts of `subprocess.Popen` that are used.

    It has `descriptor` by this number, and `stderr` or that of this process. The server ends it
    when this process ends.
    """

    def __init__(self, address: str, descriptor: int, stderr: int = 2) -> None:
        self.returncode: int | None = None
        (theirs_in, ours_in), (ours_out, theirs_out) = os.pipe(), os.pipe()
        self.stdin, self.stdout = open(ours_in, "wb"), open(ours_out, "rb")  # noqa: SIM115
        streams = (theirs_in, theirs_out, stderr, descriptor)
        try:
            words = [str(descriptor).encode()]
            umask = umask_of_this_process()
            self._server = start(address, words, {}, b"/", umask, streams, kind="gateway")
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        self.pid = int.from_bytes(self._server.recv(8), "little")

    def poll(self) -> int | None:
        """The status if it has ended."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Its status, negative for a signal. Raises TimeoutExpired."""
        if self.returncode is None:
            self._server.settimeout(timeout)
            try:
                status = self._server.recv(8)
            except OSError:
                raise subprocess.TimeoutExpired("gateway", timeout or 0) from None
            self._server.close()
            self.returncode = os.waitstatus_to_exitcode(int.from_bytes(status, "little"))
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # its status is on the way
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """End it as the user would."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)


def install(address: str | Callable[[], str]) -> None:
    """Have this process ask the server at a socket for its gateways."""

    def ask(jail_port: int) -> Any:
        socket = address if isinstance(address, str) else address()
        if AS_REAL in os.environ or not os.path.exists(socket):
            return REAL(jail_port)
        return ForkedProcess(socket, jail_port)

    egress.start_gateway = ask
