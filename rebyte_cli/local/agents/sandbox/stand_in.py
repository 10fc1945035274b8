"""A process for the user's shell to stop, so that the one that watches a jail is never stopped.

A program in the jail can stop itself as at Ctrl-Z, and what it has in the background runs on. A
shell has only its own child stopped or not, so that child is a stand-in: it gives the terminal to
the process that does the work, as a shell does, and is stopped for it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, NoReturn

from ....system.signals import handled

TICK = 0.2  # seconds between two looks at the terminal: a shell may give it back without a signal


def on_terminal() -> bool:
    """Whether a user is at both ends: a program can then draw a screen."""
    return os.isatty(0) and os.isatty(1)


def leave_stand_in() -> None:
    """Go on as a child of this process, which then only stands in for it; off a terminal, as it is.

    The child has the terminal, in its own process group. Call it before anything is opened or
    started. Raises OSError.
    """
    if sys.platform != "linux" or not on_terminal():
        return
    passed = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT}
    awaited = {signal.SIGCHLD, signal.SIGCONT, signal.SIGTSTP, *passed}
    told, tell = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    worker = os.fork()
    if worker:
        try:
            _stand_in(worker, tell, partial(signal.sigtimedwait, awaited, TICK), passed)
        finally:
            os._exit(1)
    os.close(tell)
    os.setpgid(0, 0)
    if not os.read(told, 1):
        os._exit(1)
    os.close(told)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def is_of_terminal() -> bool:
    """Whether the terminal is that of this process's session."""
    return _foreground() != 0


def has_terminal() -> bool:
    """Whether this process is in the foreground of the terminal; True where that is not known."""
    return _foreground() in (0, os.getpgrp())


def step_back() -> None:
    """Leave the terminal to the user's shell, which sees that its program is stopped.

    Returns at once: `has_terminal` tells when the program is continued.
    """
    above = os.getppid()
    _give_terminal(os.getpgid(above))
    os.kill(above, signal.SIGTSTP)


def _stand_in(
    worker: int, tell: int, next_signal: Callable[[], Any], passed: Collection[int]
) -> NoReturn:
    """Pass signals on to the worker until it ends, and end as it does.

    In the background, nothing is written to `tell`: the worker begins in the foreground.
    """
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.setpgid(worker, worker)
    while True:
        if _foreground() == os.getpgrp() or (tell >= 0 and not _foreground()):
            _give_terminal(worker)
            os.killpg(worker, signal.SIGCONT)
            if tell >= 0:
                os.write(tell, b".")
                os.close(tell)
                tell = -1
        found = next_signal()
        number = found.si_signo if found else 0
        if number in passed:
            os.kill(worker, number)
        pid, status = os.waitpid(worker, os.WUNTRACED | os.WNOHANG)
        if pid and not os.WIFSTOPPED(status):
            break
        if pid or number == signal.SIGTSTP:
            _give_terminal(os.getpgrp())
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTSTP})
            os.kill(0, signal.SIGTSTP)  # stops here, where a shell can continue it
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTSTP})
    if _foreground() == worker:
        _give_terminal(os.getpgrp())
    code = os.waitstatus_to_exitcode(status)
    os._exit(128 - code if code < 0 else code)


def _foreground() -> int:
    """The process group in the foreground of the terminal; 0 for one that is gone or not ours."""
    try:
        return os.tcgetpgrp(0)
    except OSError:
        return 0


def _give_terminal(group: int) -> None:
    with handled({signal.SIGTTOU: signal.SIG_IGN}), contextlib.suppress(OSError):
        os.tcsetpgrp(0, group)
