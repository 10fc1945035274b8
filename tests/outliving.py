"""A program that keeps the sandbox it runs in alive when bubblewrap outside is killed.

It traces the first process of the sandbox, which therefore stops on its way to die.
"""

from __future__ import annotations

import shlex
import subprocess

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


def command(seconds: str) -> str:
    """The shell command of the program, which then sleeps for so many `seconds`: its mark."""
    return f"python3 -I -c {shlex.quote(TRACE)} {seconds}"


def is_at_work(seconds: str) -> bool:
    """Whether the program sleeps."""
    words = ["pgrep", "-fx", f"sleep {seconds}"]
    return bool(subprocess.run(words, capture_output=True, check=False).stdout)
