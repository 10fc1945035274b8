"""A command of the user's, run for each document: a delivery, a task that ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Mapping
from threading import Lock, Thread
from typing import Any

from ..errors import RebyteError
from ..system.deadline import NO_LIMIT, Deadline
from ..system.files import persistently

GRACE_SECONDS = 3.0  # from the request to end to the end by force


class HookCommand:
    """A program of the user's that is given documents on its stdin, and that does not outlive us.

    The shell finds and splits the command line as the user wrote it. Nothing of a document is in
    its arguments or its environment. Any thread may call.
    """

    def __init__(self, command: str, *, stdout_to_stderr: bool = False) -> None:
        """`stdout_to_stderr`: what it prints goes to stderr, since stdout is for data."""
        self._command = command
        self._stdout = 2 if stdout_to_stderr else None
        self._lock = Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def run(self, document: Mapping[str, Any], deadline: Deadline = NO_LIMIT) -> RebyteError | None:
        """Run it with one document as JSON on its stdin; the error of a run that failed.

        An interrupt ends the run, and so does the deadline: no other run begins after that.
        """
        limit = deadline.with_grace()
        results: list[RebyteError | None] = []
        # A signal raises in the main thread, even in the moment in which the process is there and
        # we do not know it yet. Here it only ends `join`, and `stop` waits for that moment to pass.
        worker = Thread(target=lambda: results.append(self._run(document)))
        try:
            worker.start()
            worker.join(limit.for_call())
            if worker.is_alive():
                self.stop()
                return deadline.error(f"{self._command} was still running after")
        except RuntimeError as error:  # no more threads
            return RebyteError(f"{self._command}: {error}", code="exec_failed")
        except BaseException:
            self.stop()
            raise
        return results[0]

    def _run(self, document: Mapping[str, Any]) -> RebyteError | None:
        try:
            with self._lock:
                if self._stopped:
                    return None
                # The user's own command line, with nothing of the document in it.
                process = subprocess.Popen(  # noqa: S602 -- for that reason
                    self._command,
                    shell=True,
                    stdin=subprocess.PIPE,
                    stdout=self._stdout,
                    # Its own process group, so that everything the shell started can be ended.
                    process_group=0,
                )
                self._running.add(process)
        except OSError as error:
            return RebyteError(f"{self._command}: {error.strerror}", code="exec_failed")
        try:
            process.communicate(json.dumps(document).encode() + b"\n")
        finally:
            with self._lock:
                self._running.discard(process)
        if process.returncode == 0 or self._stopped:
            return None
        status = process.returncode
        how = f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"
        return RebyteError(f"{self._command} {how}", code="exec_failed")

    def stop(self) -> None:
        """Start no more, and end all they have started: by request, then by force."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for process in running:
            _signal(process, signal.SIGTERM)
        persistently(lambda: not any(map(_has_members, running)), GRACE_SECONDS)
        for process in running:
            _signal(process, signal.SIGKILL)
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_SECONDS)

    def kill(self) -> None:
        """End those that run by force. Takes no lock: for a process that is about to end."""
        self._stopped = True
        for process in list(self._running):
            _signal(process, signal.SIGKILL)


def _has_members(process: subprocess.Popen[bytes]) -> bool:
    """Whether anything of its process group still runs. Collects the process itself."""
    if process.poll() is None:
        return True
    try:
        os.killpg(process.pid, 0)
    except OSError:
        return False
    return True


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(OSError):
        os.killpg(process.pid, number)
