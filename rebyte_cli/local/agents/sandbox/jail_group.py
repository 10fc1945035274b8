"""Programs in the jail, until nothing of them is left.

The first process of a jail's PID namespace is bubblewrap's, but has the agent's user. A program in
the jail can trace it or change its memory, and so keep the namespace alive when bubblewrap outside
is dead. So the end is forced and awaited from outside: a namespace is empty when its first process
is dead. A file of the workspace names that process, for what comes after a supervisor that was
killed: a guard that then does the same at once, and the next command, should the guard be dead too.
It names the guard as well, which ends with the jail even if it was stopped. The file's lock is held
for as long as the program is looked after.
"""

from __future__ import annotations

import math
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import IO, Any

from ....system import process_identity, python_process
from ....system.deadline import Deadline
from ....system.locks import flock
from ....system.process_group import ProcessGroup
from ...gateway.jail_port import moved
from . import RECORDS, seal
from .egress import Egress
from .jail import JailLayout

END_SECONDS = 5.0
LOOK_SECONDS = 0.05
# Run inside the jail before all else: it ends where the process that would let it begin is dead.
WAIT = f'read -r _ <&{seal.GATE} && exec "$@" {seal.GATE}<&-'


class JailGroup(ProcessGroup):
    """A process group whose program is in the jail, if `layout` has one.

    The end of the block kills everything in the jail. What that cannot kill, `end_rest` tells.
    """

    def __init__(
        self,
        layout: JailLayout,
        line: list[str],
        *,
        egress: Egress | None = None,
        passed: tuple[int, ...] = (),
        **options: Any,
    ) -> None:
        """Start `line` (see `jail.command`) as ProcessGroup does, and open its `egress`.

        Raises OSError.
        """
        self._record, self._known, self._alone_since = Path(), "", math.inf
        # A file, which is closed with the group even where a signal keeps `end` from it.
        self._lock: IO[bytes] | None = None
        if not layout.jailed:
            super().__init__(line, passed=passed, **options)
            return
        passed += () if egress is None else egress.passed

        folder = layout.code.outside.parent / RECORDS
        folder.mkdir(mode=0o700, exist_ok=True)
        told = _channel()
        gate, ours = os.pipe()
        try:
            gate = moved(gate)
            # Before there is anything to end, so that the guard knows where it will be named.
            descriptor, name = tempfile.mkstemp(dir=folder)
            self._lock, self._record = os.fdopen(descriptor, "wb", buffering=0), Path(name)
            # bubblewrap tells its first process, in which nothing begins before that is recorded.
            end = line.index("--")
            words = [*line[:end], "--info-fd", str(told), seal.GATE_OPTION, str(gate), "--"]
            words += ["sh", "-c", WAIT, "sh", *line[end + 1 :]]
            guard = python_process.command(__name__, name)
            try:
                flock(descriptor)
                super().__init__(words, passed=(told, gate, *passed), after_us=guard, **options)
            except BaseException:
                self._record.unlink()
                self._lock.close()
                raise
            try:
                self._known = self._first(told)
                if self._known:
                    self._lock.write("\n".join([self._known, *self._guards()]).encode())
                os.write(ours, b"\n")
                if egress is not None:
                    egress.open(lambda: self.process.poll() is None)
            except BaseException:
                self.kill()
                raise
        finally:
            for each in (told, gate, ours):
                os.close(each)

    def _first(self, told: int) -> str:
        """The identity of the jail's first process; empty if bubblewrap ends before it has one."""
        info = b""
        while (found := re.search(rb'"child-pid": (\d+)\D', info)) is None:
            if select.select([told], [], [], LOOK_SECONDS)[0]:
                info += os.read(told, 4096)
            elif self.process.poll() is not None:
                return ""
        first = process_identity.identity(int(found[1]))
        return first if first.count(" ") == 2 else ""  # it is dead already

    def _guards(self) -> list[str]:
        """The identity of its guard, the other child of the program outside; none if not known."""
        with suppress(OSError):
            each = map(process_identity.identity, map(int, _children(self.process.pid)))
            return [known for known in each if known != self._known]
        return []

    @property
    def agent(self) -> subprocess.Popen[bytes]:
        """The program, with pipes for what it prints."""
        return self.process

    def has_new(self, seconds: float) -> bool:
        """Whether it has started a process within so many seconds."""
        return process_identity.has_new(self.process.pid, seconds)

    def overdue(self) -> str:
        """Why the jail has to be ended whose program is dead for seconds, or an empty text.

        To be asked now and then. bubblewrap's first process ends with the program, but one in the
        background can stop it.
        """
        first = process_identity.find(self._known) if self._known else None
        if first is None or _has_program(first):
            self._alone_since = math.inf
            return ""
        now = time.monotonic()
        self._alone_since = min(self._alone_since, now)
        if now - self._alone_since < END_SECONDS:
            return ""
        return "it has ended, and a program in its background keeps the sandbox alive"

    def end(self) -> None:
        """Kill everything in the jail, and return when it is dead, or after five seconds."""
        lock, self._lock = self._lock, None
        with lock or nullcontext():
            super().end()
            if lock is not None:
                with suppress(OSError):
                    _end(self._record, [self._known])


def end_rest(workspace: Path, *, wait: bool = False, seconds: float = END_SECONDS) -> None:
    """Kill what is left in jails of a workspace's folder that no process looks after any more.

    With `wait`, wait for those that one does: it may be dying. Raises OSError when something cannot
    be killed in so many seconds.
    """
    stuck = None
    for record in (workspace / RECORDS).glob("*"):
        try:
            end_recorded(record, wait=wait, seconds=seconds)
        except OSError as error:  # the others are still to be ended
            stuck = error
    if stuck is not None:
        raise stuck


def end_recorded(record: Path, *, wait: bool, seconds: float = END_SECONDS) -> None:
    """End the jail of a record that no process looks after. Raises OSError if it stays."""
    with suppress(FileNotFoundError, BlockingIOError), record.open() as file:
        # Shared, so that two who look at the same moment do not wait for each other.
        flock(file.fileno(), shared=True, wait=wait)
        if known := file.read().splitlines():  # otherwise the jail is only being made
            _end(record, known, seconds)


def main() -> None:
    """The guard of a jail: end that of a RECORD, the argument, when the process that looks after it
    has died, or is just dying, and then the group of bubblewrap outside, to which it belongs: there
    is the first process until bubblewrap tells it to begin, which it awaits without an end.
    """
    try:
        end_recorded(Path(sys.argv[1]), wait=True)
    finally:
        os.killpg(0, signal.SIGKILL)


def _end(record: Path, known: list[str], seconds: float = END_SECONDS) -> None:
    """Empty the jail of the first process that is known, end the guards, the others, and remove the
    record. Raises OSError if the jail stays."""
    first, *guards = known
    deadline, pause = Deadline(seconds), 0.0005
    while (pid := process_identity.find(first)) is not None:
        if deadline.has_passed:
            raise OSError(f"a program in the sandbox of a run cannot be ended (process {pid})")
        for each in _with_tracers(pid):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(each, signal.SIGKILL)
        time.sleep(pause)
        pause = min(2 * pause, LOOK_SECONDS)
    for guard in map(process_identity.find, guards):
        if guard is not None and guard != os.getpid():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(guard, signal.SIGKILL)
    record.unlink(missing_ok=True)


def _has_program(first: int) -> bool:
    """Whether the second process of a jail, whose first one started it, is alive; or not known."""
    try:
        below = _children(first)
    except OSError:
        return True
    return any(_status(child, "NSpid")[-1:] == ["2"] and _is_alive(child) for child in below)


def _is_alive(pid: str) -> bool:
    """Whether a process has a thread that is alive: its first one may have ended alone."""
    return _status(pid, "State")[:1] != ["Z"] or _status(pid, "Threads") != ["1"]


def _children(pid: int) -> list[str]:
    """The children of a process. Raises OSError if it is dead, or the kernel does not tell them."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return file.read().split()


def _with_tracers(first: int) -> list[int]:
    """A process, and those inside that trace it, one another's: they can keep it from dying."""
    found = [first]
    for pid in found:
        with suppress(OSError):  # it is gone
            for thread in os.listdir(f"/proc/{pid}/task"):
                tracer = int(*_status(f"{pid}/task/{thread}", "TracerPid"))
                # One outside, such as a debugger of the user's, has a number in no inner namespace.
                if tracer not in found and len(_status(str(tracer), "NSpid")) > 1:
                    found.append(tracer)
    return found


def _status(task: str, name: str) -> list[str]:
    """The words of a field in the status of a process or a thread; none if it is gone."""
    # In the name that a program gives itself, the kernel escapes no carriage returns.
    with suppress(OSError), open(f"/proc/{task}/status", errors="replace", newline="\n") as file:
        for line in file:
            if line.startswith(f"{name}:"):
                return line.split()[1:]
    return []


def _channel() -> int:
    """A pipe's two ends as one descriptor: it never ends, as long as one who waits there has it."""
    read, write = os.pipe()
    try:
        return moved(os.open(f"/proc/self/fd/{read}", os.O_RDWR | os.O_CLOEXEC))
    finally:
        os.close(read)
        os.close(write)
