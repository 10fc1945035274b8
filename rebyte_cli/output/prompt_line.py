"""What is typed on the terminal while output comes and goes: a line at a prompt, or single keys."""

from __future__ import annotations

import os
import re
import select
import sys
import termios
import time
import tty
from contextlib import suppress
from typing import Any, Self, TextIO

from ..system.deadline import Deadline
from .console import Console, LiveRegion, clean
from .table import width_of

SLICE = 0.5  # seconds between two looks at what else happened
ERASE = "\r\x1b[2K"
UP = "\x1b[1A\x1b[2K"
_KEYS = {
    "\x1b[A": "up", "\x1bOA": "up", "\x1b[B": "down", "\x1bOB": "down",
    "\x1b[5~": "page up", "\x1b[6~": "page down",
    "\x1b[H": "home", "\x1bOH": "home", "\x1b[1~": "home",
    "\x1b[F": "end", "\x1bOF": "end", "\x1b[4~": "end",
    "\r": "enter", "\n": "enter", "\x7f": "backspace", "\x08": "backspace", "\x1b": "escape",
    "\x04": "end of input",
}  # fmt: skip
_ONE = re.compile(r"\x1b[\[O][0-9;]*[A-Za-z~]|.", re.DOTALL)


class PromptLine(LiveRegion):
    """A text on stderr, behind whose last line the user types an answer.

    While it is open, whatever else is printed appears above it, and the prompt is shown again
    below. Input that was typed before it opened is dropped: it was not meant as an answer.
    """

    def __init__(self, console: Console, text: str) -> None:
        self._console = console
        self._text = clean(text)
        self._typed = b""  # the beginning of a line, which Ctrl-D inside it hands over
        self._shown = False
        self._outer: LiveRegion | None = None

    def open(self) -> None:
        """Show the prompt; a spinner makes room for it until `close`."""
        _drop_input(sys.stdin)
        with self._console.lock:
            self._outer = self._console.region
            if self._outer is not None:
                self._outer.erase()
            if self._console.mid_line:
                self._write("\n")
                self._console.mid_line = False
            self._console.region = self
        self.redraw()

    def close(self) -> None:
        """End the line, unless the user did."""
        with self._console.lock:
            if self._shown:
                self._write("\n")
                self._shown = False
            if self._console.region is self:
                self._console.region = self._outer

    def redraw(self) -> None:
        """Show the prompt, unless it is shown already."""
        with self._console.lock:
            if self._console.region is self and not self._shown:
                self._shown = True  # before it is, so that an interrupt ends the line
                self._write(self._content())

    def erase(self) -> None:
        """Take the prompt away until it is redrawn. The caller holds the lock."""
        if self._shown:
            self._write(ERASE + UP * (self._rows() - 1) if self._console.live else "\n")
            self._shown = False

    def _rows(self) -> int:
        """How many rows the text takes on the terminal as it is now."""
        columns, _ = self._console.size()
        return sum(max(-(-width_of(line) // columns), 1) for line in self._content().split("\n"))

    def _content(self) -> str:
        """The text, and what is known to be typed behind it."""
        return self._text + clean(self._typed.decode(errors="replace"))

    def read(self, seconds: float) -> str | None:
        """The line that the user enters within `seconds`, or None. EOFError at Ctrl-D."""
        deadline = Deadline(seconds)
        while True:
            self.redraw()
            if _has_line(sys.stdin, deadline.cap(SLICE)):
                line = self._take()
                if line is not None:
                    return line
            if deadline.has_passed:
                return None

    def _take(self) -> str | None:
        """The line, once its end has been typed. EOFError at Ctrl-D on an empty one.

        Without buffers: they would wait for the end of a line whose beginning has arrived.
        """
        piece = os.read(sys.stdin.fileno(), 65536)
        self._typed += piece
        self._shown = not piece.endswith(b"\n")  # Ctrl-D leaves the cursor where it is
        if piece and self._shown:
            return None
        typed, self._typed = self._typed, b""
        line = typed.decode(sys.stdin.encoding)
        if not line:
            raise EOFError
        return line

    def _write(self, text: str) -> None:
        if self._console.err is not None:
            with suppress(OSError, ValueError):
                self._console.err.write(text)
                self._console.err.flush()


def in_foreground(stream: TextIO) -> bool:
    """Whether this process may read from the terminal: one in the background would be stopped."""
    try:
        return os.tcgetpgrp(stream.fileno()) == os.getpgrp()
    except OSError:  # the terminal of another session, as behind `su -c`: nothing stops us there
        return stream.isatty()
    except ValueError:  # closed
        return False


def _has_line(stream: TextIO, seconds: float) -> bool:
    """Wait until the terminal has a line to read, `seconds` at most."""
    if not in_foreground(stream):
        time.sleep(seconds)
        return False
    return bool(select.select([stream], [], [], seconds)[0])


def _drop_input(stream: TextIO) -> None:
    with suppress(OSError, ValueError, termios.error):
        termios.tcflush(stream.fileno(), termios.TCIFLUSH)


class Keyboard:
    """Keys as they are pressed, while a `with` block runs; they are not shown.

    Ctrl-C and Ctrl-Z still send their signals. The terminal is as it was when the block ends.
    """

    def __init__(self) -> None:
        """On the terminal that stdin is. Raises OSError if it cannot be read key by key."""
        self._input = sys.stdin.fileno()
        self._pressed: list[str] = []
        try:
            self._usual: Any = termios.tcgetattr(self._input)
        except termios.error as error:
            raise OSError(str(error)) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def read(self, seconds: float) -> str:
        """The next key: its character, or a name such as `up`; "" after so many seconds."""
        if self._pressed:
            return self._pressed.pop(0)
        if not in_foreground(sys.stdin):
            time.sleep(seconds)  # a shell has the terminal, and its keys
            return ""
        # Each time, because a shell sets the terminal as it likes after Ctrl-Z.
        tty.setcbreak(self._input, termios.TCSANOW)
        if not select.select([self._input], [], [], seconds)[0]:
            return ""
        typed = os.read(self._input, 4096)
        text = typed.decode("utf-8", "replace") or "\x04"
        keys = [_KEYS.get(key, key) for key in _ONE.findall(text)]
        self._pressed = [key for key in keys if not key.startswith("\x1b")]
        return self._pressed.pop(0) if self._pressed else ""

    def release(self) -> None:
        """Set the terminal as it was, for another program, until a key is read."""
        termios.tcsetattr(self._input, termios.TCSADRAIN, self._usual)
