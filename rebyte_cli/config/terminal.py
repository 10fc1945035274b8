"""The terminal as it was: programs and libraries that ask for a password switch its echo off."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def terminal_restored() -> Iterator[None]:
    """Put the terminal's attributes back when the block ends, in whatever way.

    A prompt that is cut short in another thread or process cannot do it itself. Without a
    terminal this does nothing.
    """
    import termios

    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        yield
        return
    try:
        before = termios.tcgetattr(terminal)
        try:
            yield
        finally:
            if termios.tcgetattr(terminal) != before:
                _restore(terminal, before)
    finally:
        os.close(terminal)


def _restore(terminal: int, attributes: list[object]) -> None:
    import signal
    import termios

    # A process in the background would be stopped for it.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    try:
        with suppress(termios.error):
            termios.tcsetattr(terminal, termios.TCSANOW, attributes)  # type: ignore[arg-type]  # from tcgetattr
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


@contextmanager
def prompts_refused() -> Iterator[None]:
    """Have Python's own ways to ask for a password raise EOFError while the block runs.

    For libraries that would open the terminal although the user said not to ask.
    """
    import builtins
    import getpass

    def refuse(*_arguments: object, **_options: object) -> str:
        raise EOFError("prompts are off")

    before = getpass.getpass, builtins.input
    getpass.getpass = builtins.input = refuse
    try:
        yield
    finally:
        getpass.getpass, builtins.input = before
