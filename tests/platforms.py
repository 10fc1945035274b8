"""Windows as far as Python code can tell, on Linux: `sys.platform`, and what is there and missing.

`python -m tests.platforms COMMAND…` runs the command that way. Paths, file systems, consoles and
child processes stay those of Linux.
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import sys
from types import ModuleType
from typing import Any

import pytest

# What the modules of Python that are everywhere have on POSIX only, as far as it is used here.
MODULES = ("fcntl", "grp", "pty", "pwd", "resource", "termios", "tty")
OS = (
    *("O_CLOEXEC", "O_DIRECTORY", "O_NOCTTY", "O_NOFOLLOW", "O_NONBLOCK", "ST_RDONLY"),
    *(
        "fchmod",
        "fdatasync",
        "geteuid",
        "getpgid",
        "getpgrp",
        "getsid",
        "getuid",
        "killpg",
        "pwrite",
    ),
    *("setsid", "statvfs", "sysconf", "tcgetpgrp", "uname"),
)
SIGNAL = (
    *("ITIMER_REAL", "SIGALRM", "SIGHUP", "SIGKILL", "SIGQUIT", "SIGTSTP", "SIGTTOU"),
    *("pthread_sigmask", "setitimer"),
)


class Msvcrt(ModuleType):
    """Locks of bytes at the position of a descriptor, as the C library of Windows has them.

    `locked` holds the calls: descriptor, position, mode, number of bytes.
    """

    LK_NBLCK = 2

    def __init__(self) -> None:
        super().__init__("msvcrt")
        self.locked: list[tuple[int, int, int, int]] = []
        self.problem: OSError | None = None

    def locking(self, handle: int, mode: int, count: int) -> None:
        """Lock without waiting, against every other open file, of this process too."""
        position = os.lseek(handle, 0, os.SEEK_CUR)
        self.locked.append((handle, position, mode, count))
        if self.problem is not None:
            raise self.problem
        whole = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, position, count, 0)
        fcntl.fcntl(handle, fcntl.F_OFD_SETLK, whole)


def become_windows(monkeypatch: pytest.MonkeyPatch) -> Msvcrt:
    """Have Python look as on Windows until the test ends."""
    msvcrt = Msvcrt()
    for name in MODULES:
        monkeypatch.setitem(sys.modules, name, None)  # importing it fails
    monkeypatch.setitem(sys.modules, "msvcrt", msvcrt)
    for module, names in ((os, OS), (signal, SIGNAL)):
        for name in names:
            monkeypatch.delattr(module, name, raising=False)
    monkeypatch.setattr(os, "supports_dir_fd", set())
    monkeypatch.setattr(sys, "platform", "win32")
    return msvcrt


def load_libraries() -> None:
    """Load what is not ours, which would look for the real Windows."""
    import email.mime.multipart
    import logging.handlers
    import sqlite3
    import tempfile

    import click._termui_impl
    import keyring
    import requests
    import rich.console
    import rich.progress
    import werkzeug.serving

    loaded: list[Any] = [email, logging, sqlite3, tempfile]
    loaded += [click, keyring, requests, rich, werkzeug]


def main() -> None:
    """Run the command."""
    load_libraries()
    become_windows(pytest.MonkeyPatch())
    from rebyte_cli.__main__ import main as command

    command()


if __name__ == "__main__":
    main()
