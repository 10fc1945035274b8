"""A program that keeps the sandbox it runs in alive when bubblewrap outside is killed.

It traces the first process of the sandbox, which therefore stops on its way to die.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from tests.waiting import eventually

SEIZE, TRACE_EXIT = 0x4206, 0x40
TRACE = f"""
import ctypes, os, sys
libc = ctypes.CDLL(None)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
if os.fork():
    os.wait()
    sys.exit()
os.setsid()
if libc.ptrace({SEIZE}, 1, None, {TRACE_EXIT}) == 0:
    os.execvp("sleep", ["sleep", sys.argv[1]])
"""

# A child stops the first process, which then cannot tell that the program has ended.
STOP = """
import ctypes, os, time
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
SEIZE, INTERRUPT = 0x4206, 0x4207
read, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    is_held = libc.ptrace(SEIZE, 1, None, None) == 0 and libc.ptrace(INTERRUPT, 1, None, None) == 0
    os.write(write, b"held" if is_held else b"refused")
    time.sleep(120)
print(os.read(read, 9).decode(), flush=True)
"""


def command(seconds: str) -> str:
    """The shell command of the program, which then sleeps for so many `seconds`: its mark."""
    return f"python3 -I -c {shlex.quote(TRACE)} {seconds}"


def is_at_work(seconds: str) -> bool:
    """Whether the program sleeps."""
    return bool(_found(lambda line: line == b"sleep\0%b\0" % seconds.encode()))


def must_die_with(words: Sequence[str], seconds: str, folder: Path | None = None) -> None:
    """Kill the command of these words once it has the program at work; fails if that lives on."""
    process = subprocess.Popen(words, cwd=folder, stderr=subprocess.DEVNULL)
    eventually(lambda: is_at_work(seconds) or process.poll() is not None)
    if process.poll() is not None:
        pytest.skip("this kernel lets no program trace another that it did not start")
    process.kill()
    process.wait()
    eventually(lambda: not is_at_work(seconds), seconds=30)


def kill(seconds: str) -> None:
    """Kill the program."""
    for pid in _found(lambda line: line == b"sleep\0%b\0" % seconds.encode()):
        os.kill(pid, signal.SIGKILL)


def kill_guards(state: Path) -> None:
    """Kill what would end sandboxes of a state folder when the rebyte around them is killed."""
    for pid in guards(state):
        os.kill(pid, signal.SIGKILL)


def guards(state: Path) -> list[int]:
    """The guards of sandboxes of a state folder, which wait for the rebyte around them to die."""
    begin, inside = b"/bin/sh\0-c\0exec 3<&0", b"%b/" % os.fsencode(state)
    return _found(lambda line: line.startswith(begin) and inside in line)


def _found(wanted: Callable[[bytes], bool]) -> list[int]:
    """The processes whose command lines are wanted."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if wanted((folder / "cmdline").read_bytes()):
                found.append(int(folder.name))
    return found
