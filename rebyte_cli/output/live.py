"""A line on a terminal's stderr that is redrawn while something goes on."""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import Event, Thread

from .terminal import Redrawn, Screen

_ERASE = "\r\x1b[2K"


class Line:
    """The line that `draw(width)` makes, redrawn until it ends.

    The cursor is never hidden, so there is nothing to restore whatever ends the process. What
    else is written erases the line first, and it comes back below; `Screen` sees to that.
    """

    def __init__(self, screen: Screen, draw: Callable[[int], str]) -> None:
        self._screen = screen
        self._draw = draw
        self._shown = False
        self._stop = Event()
        self._thread: Thread | None = None
        self._before: Redrawn | None = None

    def start(self, delay: float, period: float) -> None:
        """Begin after `delay` seconds, redraw each `period` seconds."""

        def run() -> None:
            pause = delay
            while not self._stop.wait(pause):
                self.refresh()
                pause = period

        with self._screen.lock:
            self._before = self._screen.line
            if self._before is not None:
                self._before.erase()
            self._screen.line = self
        self._thread = Thread(target=run, daemon=True, name="progress")
        self._thread.start()

    def refresh(self) -> None:
        """Draw the line now, unless the cursor stands in the middle of another."""
        screen = self._screen
        # Drawn before the lock is taken: the first time it imports rich.
        text = self._draw(_width(screen) - 1)
        with screen.lock:
            if screen.line is not self or screen.mid_line or self._stop.is_set():
                return
            self._shown = True
            self._put(_ERASE + text)

    def erase(self) -> None:
        """Take the line away until it is drawn again. The caller holds the screen's lock."""
        if self._shown:
            self._shown = False
            self._put(_ERASE)

    def end(self) -> None:
        """Take the line away for good."""
        self._stop.set()
        with self._screen.lock:
            self.erase()
            if self._screen.line is self:
                self._screen.line = self._before
        if self._thread is not None:
            self._thread.join(1)

    def _put(self, text: str) -> None:
        if self._screen.err is None:
            return
        try:
            self._screen.err.write(text)
            self._screen.err.flush()
        except (OSError, ValueError):
            # The terminal is gone. Whatever the line stood for goes on without it.
            self._stop.set()


def _width(screen: Screen) -> int:
    """Columns of the terminal that stderr is, which need not be where stdout goes."""
    if not screen.out_tty and screen.err is not None:
        try:
            return os.get_terminal_size(screen.err.fileno()).columns or screen.width
        except (OSError, ValueError):
            pass
    return screen.width
