"""Single keys of the terminal that stdin is, for a screen that is looked at while it changes."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from .prompt_line import in_foreground

_KEYS = {
    "\x1b[A": "up", "\x1bOA": "up", "\x1b[B": "down", "\x1bOB": "down",
    "\x1b[5~": "page up", "\x1b[6~": "page down",
    "\x1b[H": "home", "\x1bOH": "home", "\x1b[1~": "home",
    "\x1b[F": "end", "\x1bOF": "end", "\x1b[4~": "end",
    "\r": "enter", "\n": "enter", "\x7f": "backspace", "\x08": "backspace", "\x1b": "escape",
    "\x04": "end of input",
}  # fmt: skip
_ONE = re.compile(r"\x1b[\[O][0-9;]*[A-Za-z~]|.", re.DOTALL)


class Keyboard:
    """Keys as they are pressed, while a `with` block runs; they are not shown.

    Ctrl-C and Ctrl-Z still send their signals. The terminal is as it was when the block ends.
    """

    def __init__(self) -> None:
        """On the terminal that stdin is. Raises OSError if it cannot be read key by key."""
        if sys.platform == "win32":
            raise OSError("keys are read on POSIX systems only")
        import termios

        self._input = sys.stdin.fileno()
        self._pressed: list[str] = []
        try:
            self._usual: Any = termios.tcgetattr(self._input)
        except termios.error as error:
            raise OSError(str(error)) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    @contextmanager
    def released(self) -> Iterator[None]:
        """The terminal as it was, for another program, until the block ends."""
        self._restore()
        yield

    def read(self, seconds: float) -> str:
        """The next key: its character, or a name such as `up`; "" after so many seconds."""
        if self._pressed:
            return self._pressed.pop(0)
        if sys.platform == "win32" or not in_foreground(sys.stdin):
            time.sleep(seconds)  # a shell has the terminal, and its keys
            return ""
        import select
        import termios
        import tty

        # Each time, because a shell sets the terminal as it likes after Ctrl-Z.
        tty.setcbreak(self._input, termios.TCSANOW)
        if not select.select([self._input], [], [], seconds)[0]:
            return ""
        typed = os.read(self._input, 4096)
        text = typed.decode("utf-8", "replace") or "\x04"
        keys = [_KEYS.get(key, key) for key in _ONE.findall(text)]
        self._pressed = [key for key in keys if not key.startswith("\x1b")]
        return self._pressed.pop(0) if self._pressed else ""

    def _restore(self) -> None:
        if sys.platform == "win32":
            return
        import termios

        termios.tcsetattr(self._input, termios.TCSADRAIN, self._usual)
