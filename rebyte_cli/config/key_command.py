"""A program of the user's that prints the key: `key_command` of a profile."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import KeyProblem
from ..system.redaction import redact_keys
from .keyring_store import call_with_timeout
from .terminal import terminal_restored

if TYPE_CHECKING:
    from subprocess import Popen

SECONDS = 30.0
_LARGEST = 65536  # bytes
_GRACE = 0.5  # seconds in which the last of what an ended program has printed is read


def run_key_command(argv: Sequence[str], *, interactive: bool, seconds: float = SECONDS) -> str:
    """The first line of what the program prints on stdout. No shell is involved.

    On a terminal the user sees what it says on stderr and can answer it. Otherwise it has no
    stdin and no terminal, and its last line of stderr goes into the error. What it printed on
    stdout is never shown. It is ended with its children when it is cut short, and the terminal
    is put back. Raises KeyProblem when it cannot be started, fails, prints nothing or takes
    longer than `seconds`.
    """
    import subprocess

    name = argv[0]
    with terminal_restored():
        try:
            process = subprocess.Popen(
                list(argv),
                stdin=None if interactive else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=None if interactive else subprocess.PIPE,
                # A new session has no terminal to prompt on, and is one process group to end.
                start_new_session=not interactive,
            )
        except (OSError, ValueError) as problem:
            reason = getattr(problem, "strerror", None) or "a bad argument"
            raise KeyProblem(f"key_command: cannot run {name}: {reason}") from None
        try:
            printed, said = call_with_timeout(seconds, lambda: _output_of(process))
        except TimeoutError:
            raise KeyProblem(f"key_command: {name} did not end within {seconds:g} s") from None
        finally:
            _end(process, own_session=not interactive)
    if process.returncode != 0:
        raise KeyProblem(
            f"key_command: {name} ended with status {process.returncode}", hint=_last_line(said)
        )
    lines = printed.decode(errors="replace").splitlines()
    if not lines or not lines[0].strip():
        raise KeyProblem(f"key_command: {name} printed no key on its first line")
    return lines[0]


def _output_of(process: Popen[bytes]) -> tuple[bytes, bytes]:
    """Both streams of a process, once it has ended; one that never stops printing is killed.

    A child that it left in the background may keep the streams open, and is not waited for.
    """
    import select
    import threading

    streams = [stream for stream in (process.stdout, process.stderr) if stream is not None]
    output: list[bytes] = [b"" for _ in streams]

    def read(at: int) -> None:
        while piece := os.read(streams[at].fileno(), 8192):
            output[at] += piece
            if len(output[at]) >= _LARGEST:
                process.kill()
                return

    readers = [threading.Thread(target=read, args=(at,), daemon=True) for at in range(len(streams))]
    for reader in readers:
        reader.start()
    process.wait()
    for reader, stream in zip(readers, streams, strict=True):
        reader.join(timeout=_GRACE)
        while reader.is_alive() and select.select([stream], [], [], 0)[0]:  # on a busy machine
            reader.join(timeout=_GRACE)
    return output[0], output[1] if len(output) > 1 else b""


def _end(process: Popen[bytes], *, own_session: bool) -> None:
    """Kill a program that is still running, with the processes that it started."""
    import signal
    from contextlib import suppress

    from ..system.process_group import end_group

    if process.poll() is not None:
        return
    if own_session:
        end_group(process)
    else:
        # In the group of the terminal, with us: end the tree, from the leaves up.
        for pid in (*_descendants(process.pid), process.pid):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
    process.wait()


def _descendants(pid: int) -> list[int]:
    """The processes below one, children after their own children."""
    import subprocess

    try:
        listed = subprocess.run(
            ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, timeout=5, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    children: dict[int, list[int]] = {}
    for line in listed.splitlines():
        child, parent = map(int, line.split())
        children.setdefault(parent, []).append(child)
    found = children.get(pid, [])
    for child in found:  # grows while it is read: breadth first
        found += children.get(child, [])
    return found[::-1]


def _last_line(said: bytes) -> str | None:
    lines = [line for line in said.decode(errors="replace").splitlines() if line.strip()]
    return redact_keys(lines[-1].strip())[:200] if lines else None
