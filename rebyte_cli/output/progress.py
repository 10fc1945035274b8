"""What is said on stderr: notes, errors, and a line that moves while one waits."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import OutcomeUnknown, ReaderGone, RebyteError
from .terminal import Screen, clean, one_line

if TYPE_CHECKING:
    from threading import Event, Thread

_ERASE = "\r\x1b[2K"
_RED, _BOLD, _RESET = "\x1b[1;31m", "\x1b[1m", "\x1b[0m"


def note(screen: Screen, text: str) -> None:
    """A line for the person on stderr, unless `--quiet` was asked for."""
    if not screen.quiet:
        screen.write_err(clean(text) + "\n")


def error(screen: Screen, err: RebyteError, *, as_json: bool = False) -> None:
    """Tell an error on stderr: one JSON object on one line, or `Error:` and `Hint:` lines.

    What is buffered for stdout goes out first, so that both read in order on one terminal.
    Nothing is said when stdout's reader went away.
    """
    if isinstance(err, ReaderGone):
        return
    screen.flush_out()
    if as_json:
        from .formats import encode

        screen.write_err(encode(err.as_dict(), ascii_only=True) + "\n")
        return
    text = _labelled(screen, "Error: ", err.message, _RED)
    if isinstance(err, OutcomeUnknown):
        for candidate in err.candidates:
            words = [candidate.get(key) for key in ("id", "createdAt", "url")]
            text += "       " + "  ".join(one_line(str(word)) for word in words if word) + "\n"
    if err.hint:
        text += _labelled(screen, "Hint: ", err.hint, _BOLD)
    screen.write_err(text)


def _labelled(screen: Screen, label: str, text: str, color: str) -> str:
    """The text behind its label, further lines aligned under the first."""
    first, *rest = clean(text).split("\n")
    shown = f"{color}{label}{_RESET}" if screen.err_color else label
    lines = [shown + first, *((" " * len(label) + line).rstrip() for line in rest)]
    return "\n".join(lines) + "\n"


class Line:
    """A line on a terminal's stderr that is redrawn until it ends.

    The cursor is never hidden, so there is nothing to restore whatever ends the process. Other
    output erases the line first and it comes back below; `Screen` sees to that.
    """

    def __init__(self, screen: Screen, draw: Callable[[], str]) -> None:
        self._screen = screen
        self._draw = draw
        self._shown = False
        self._stop: Event | None = None
        self._thread: Thread | None = None
        self._before: Line | None = None

    def start(self, delay: float, period: float) -> None:
        """Begin after `delay` seconds, redraw each `period` seconds."""
        from threading import Event, Thread

        stop = self._stop = Event()

        def run() -> None:
            pause = delay
            while not stop.wait(pause):
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
        with screen.lock:
            if screen.line is not self or screen.mid_line or screen.err is None:
                return
            from .table import cut

            text = cut(one_line(self._draw()), _err_width(screen) - 1)
            try:
                screen.err.write(_ERASE + text)
                screen.err.flush()
            except (OSError, ValueError):
                screen.line = None
                return
            self._shown = True

    def erase(self) -> None:
        """Take the line away. The caller holds the screen's lock."""
        if self._shown and self._screen.err is not None:
            self._shown = False
            try:
                self._screen.err.write(_ERASE)
                self._screen.err.flush()
            except (OSError, ValueError):
                self._screen.line = None

    def end(self) -> None:
        """Take the line away for good."""
        if self._stop is not None:
            self._stop.set()
        with self._screen.lock:
            self.erase()
            if self._screen.line is self:
                self._screen.line = self._before
        if self._thread is not None:
            self._thread.join(1)


def _err_width(screen: Screen) -> int:
    if screen.out_tty or screen.err is None:
        return screen.width
    try:
        return os.get_terminal_size(screen.err.fileno()).columns or screen.width
    except (OSError, ValueError):
        return screen.width


class Spinner:
    """What a `with spinner(...)` gives: `text` may be changed while it turns."""

    def __init__(self, text: str, clock: Callable[[], float]) -> None:
        self.text = text
        self._clock = clock
        self._begun = clock()

    def draw(self) -> str:
        """The line as it is now: a sign of life, the text, and the seconds once they count."""
        seconds = self._clock() - self._begun
        frame = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"[int(seconds * 10) % 10]
        return f"{frame} {self.text}" + (f" ({_clock_time(seconds)})" if seconds >= 3 else "")


def _clock_time(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"


@contextmanager
def spinner(
    screen: Screen, text: str, *, delay: float = 0.3, clock: Callable[[], float] = time.monotonic
) -> Iterator[Spinner]:
    """Show that something goes on, from `delay` seconds after it began until the block ends.

    Nothing at all unless stderr is a terminal and `--quiet` was not asked for.
    """
    turning = Spinner(text, clock)
    if not screen.live:
        yield turning
        return
    line = Line(screen, turning.draw)
    line.start(delay, 0.1)
    try:
        yield turning
    finally:
        line.end()


class Bar:
    """What a `with bar(...)` gives: how much of the work is done."""

    def __init__(self, text: str, total: float | None) -> None:
        self.text = text
        self.total = total
        self.done = 0.0

    def advance(self, amount: float) -> None:
        """So much more is done."""
        self.done += amount

    def update(self, done: float, total: float | None = None) -> None:
        """So much is done altogether, of so much."""
        self.done = done
        if total is not None:
            self.total = total


@contextmanager
def bar(
    screen: Screen, text: str, total: float | None, *, size: bool = False, delay: float = 0.3
) -> Iterator[Bar]:
    """Show how far the work is: of `total` bytes when `size`, of `total` things otherwise.

    Nothing at all unless stderr is a terminal and `--quiet` was not asked for; only then is
    rich imported.
    """
    work = Bar(text, total)
    if not screen.live:
        yield work
        return
    line = Line(screen, _bar_line(screen, work, size))
    line.start(delay, 0.2)
    try:
        yield work
    finally:
        line.end()


def _bar_line(screen: Screen, work: Bar, size: bool) -> Callable[[], str]:
    """A function that draws the bar as it is now."""

    def draw() -> str:
        return work.text

    return draw
