"""The gateway's process: it accepts connections, each for a thread, until it is told to end."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket
import sys
import threading
import time

from ...system.deadline import Deadline
from .allowed_hosts import AllowedHosts
from .client_connection import ClientConnection, GatewayParts, TrafficQuota
from .gateway_settings import CurrentModels, GatewaySettings
from .model_budget import BudgetMeter, ask_supervisor
from .request_record import RequestRecord
from .upstream import UpstreamConnector
from .user_proxy import passwords

DRAIN_SECONDS = 1.0  # for models to say what they used
END_SECONDS = 1.5  # then for the connections to write their lines
SPARE_CONNECTIONS = 32  # which are told that there are too many
STACK = 512 * 1024


class Gateway:
    """Serves the connections of a listening socket."""

    def __init__(self, settings: GatewaySettings, listener: socket.socket) -> None:
        """Raises OSError when the record cannot be written."""
        self._limits = settings.limits
        self._listener = listener
        self._listener.setblocking(False)
        self._shared = GatewayParts(
            settings,
            CurrentModels(settings.models),
            AllowedHosts(settings.allow),
            UpstreamConnector(settings),
            RequestRecord(settings.record),
            TrafficQuota(settings.limits),
            BudgetMeter(settings.budget, ask_supervisor),
            threading.Event(),
            threading.Event(),
            self._listener.getsockname()[1],
            passwords(settings.user_proxy),
        )
        self._connections: dict[ClientConnection, threading.Thread] = {}
        self._lock = threading.Lock()

    def serve(self, wake: int) -> None:
        """Accept connections until `wake` can be read or the reader of stdout is gone."""
        while _is_ready(self._listener, wake):
            self._accept()

    def end(self, *, is_stopped: bool) -> None:
        """Close everything, and give the connections time to record what they were doing.

        `is_stopped` if it was the user who ended the run.
        """
        self._listener.close()
        if is_stopped:
            self._shared.stopped.set()
        self._shared.ending.set()
        with self._lock:
            under_way = dict(self._connections)
        for step, seconds in (
            (ClientConnection.leave, DRAIN_SECONDS),
            (ClientConnection.abort, END_SECONDS),
        ):
            for connection in under_way:
                step(connection)
            deadline = Deadline(seconds)
            for thread in under_way.values():
                thread.join(deadline.left())
        self._shared.record.end()

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            time.sleep(0.01)  # it was closed already, or there are too many open files
            return
        with self._lock:
            count = len(self._connections)
            if count >= self._limits.connections + SPARE_CONNECTIONS:
                sock.close()
                return
            is_crowded = count >= self._limits.connections
            connection = ClientConnection(sock, self._shared, is_crowded=is_crowded)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._connections[connection] = thread
        thread.start()

    def _serve(self, connection: ClientConnection) -> None:
        try:
            connection.serve()
        finally:
            with self._lock:
                del self._connections[connection]


def main() -> None:
    """Read the settings, serve, and end the process."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # which would have the key in it
    wake, at_signal = os.pipe()
    os.set_blocking(at_signal, False)
    signal.set_wakeup_fd(at_signal, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, lambda *_: None)
    threading.stack_size(STACK)
    threading.excepthook = _log_fault
    try:
        settings = GatewaySettings.from_json(sys.stdin.readline())
        listener = _listener(settings.listener, wake)
        if listener is None:
            return
        gateway = Gateway(settings, listener)
    except (OSError, ValueError, TypeError, KeyError) as error:
        # Not its text, which may quote the settings.
        sys.exit(f"the gateway cannot start: {getattr(error, 'strerror', None) or type(error)}")
    with contextlib.suppress(OSError):
        os.write(1, b"ready\n")
        gateway.serve(wake)
    os.set_blocking(wake, False)
    signals = b""
    with contextlib.suppress(BlockingIOError):  # the supervisor is gone
        signals = os.read(wake, 1)
    gateway.end(is_stopped=signals == bytes([signal.SIGTERM]))
    os._exit(0)


def _listener(descriptor: int, wake: int) -> socket.socket | None:
    """The listening socket: this one, or the one that a `JailPort` sends here; None at the end."""
    sock = socket.socket(fileno=descriptor)
    if sock.family != socket.AF_UNIX:
        return sock
    with sock:
        if not _is_ready(sock, wake):
            return None
        _, found, _, _ = socket.recv_fds(sock, 1, 1)
    return socket.socket(fileno=found[0]) if found else None


def _is_ready(sock: socket.socket, wake: int) -> bool:
    """Whether the socket can be read, before `wake` can or the reader of stdout is gone."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    poll.register(wake, select.POLLIN)
    poll.register(1, 0)  # tells of errors only: that the reading end is closed
    return [number for number, _ in poll.poll()] == [sock.fileno()]


def _log_fault(args: threading.ExceptHookArgs) -> None:
    """Say where a thread fell over, without values: they may be secrets."""
    trace, place = args.exc_traceback, "?"
    while trace is not None:
        place = f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"
        trace = trace.tb_next
    sys.stderr.write(f"gateway: {args.exc_type.__name__} at {place}\n")
