"""A program of the user's that is run for each delivery, and that does not outlive us."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from threading import Lock
from typing import Any

from ..errors import RebyteError

GRACE = 3.0  # seconds from the request to end to the end itself


class Program:
    """A command line, as the user wrote it: the shell finds and splits it.

    Nothing of a delivery is in its arguments or its environment. Any thread may call.
    """

    def __init__(self, command: str) -> None:
        self._command = command
        self._lock = Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def run(self, delivery: dict[str, Any]) -> RebyteError | None:
        """Hand one delivery to it as JSON on its stdin; the error of a run that failed."""
        try:
            with self._lock:
                if self._stopped:
                    return None
                # The user's own command line, with nothing of the delivery in it.
                process = subprocess.Popen(  # noqa: S602 -- for that reason
                    self._command,
                    shell=True,
                    stdin=subprocess.PIPE,
                    # A group of its own, so that all that the shell started can be ended.
                    process_group=0 if os.name == "posix" else None,
                )
                self._running.add(process)
        except OSError as error:
            return RebyteError(f"{self._command}: {error.strerror}", code="exec_failed")
        try:
            process.communicate(json.dumps(delivery).encode() + b"\n")
        finally:
            with self._lock:
                self._running.discard(process)
        if process.returncode == 0 or self._stopped:
            return None
        return RebyteError(f"{self._command} ended with {process.returncode}", code="exec_failed")

    def stop(self) -> None:
        """Start no more, and end the runs that go on: by request, then by force."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for process in running:
            _signal(process, signal.SIGTERM)
        for process in running:
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                _signal(process, getattr(signal, "SIGKILL", signal.SIGTERM))


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(OSError):
        if os.name == "posix":
            os.killpg(process.pid, number)
        else:
            process.terminate()
