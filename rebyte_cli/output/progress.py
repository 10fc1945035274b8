"""What is said on stderr: notes, errors, and signs of life while one waits."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import NamedTuple

from ..errors import APIError, Interrupted, OutcomeUnknown, ReaderGone, RebyteError
from .console import Console, Redrawn, clean, one_line, spells_unicode
from .table import truncate

# -- A line on a terminal's stderr that is redrawn while something goes on.

_ERASE = "\r\x1b[2K"


class Line:
    """The line that `draw(width)` makes, redrawn until it ends.

    The cursor is never hidden, so there is nothing to restore whatever ends the process. What
    else is written erases the line first, and it comes back below; `Screen` sees to that.
    """

    def __init__(self, console: Console, draw: Callable[[int], str]) -> None:
        self._console = console
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

        with self._console.lock:
            self._before = self._console.line
            if self._before is not None:
                self._before.erase()
            self._console.line = self
        self._thread = Thread(target=run, daemon=True, name="progress")
        self._thread.start()

    def refresh(self) -> None:
        """Draw the line now, unless the cursor stands in the middle of another."""
        console = self._console
        # Drawn before the lock is taken: the first time it imports rich.
        text = self._draw(_width(console) - 1)
        with console.lock:
            if console.line is not self or console.mid_line or self._stop.is_set():
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
        with self._console.lock:
            self.erase()
            if self._console.line is self:
                self._console.line = self._before
        if self._thread is not None:
            self._thread.join(1)

    def _put(self, text: str) -> None:
        if self._console.err is None:
            return
        try:
            self._console.err.write(text)
            self._console.err.flush()
        except (OSError, ValueError):
            # The terminal is gone. Whatever the line stood for goes on without it.
            self._stop.set()


def _width(console: Console) -> int:
    """Columns of the terminal that stderr is, which need not be where stdout goes."""
    if not console.out_tty and console.err is not None:
        try:
            return os.get_terminal_size(console.err.fileno()).columns or console.width
        except (OSError, ValueError):
            pass

    return console.width


_RED, _BOLD, _RESET = "\x1b[1;31m", "\x1b[1m", "\x1b[0m"
# Nothing moves for what is over in a moment.
_DELAY = 0.3


def note(console: Console, text: str) -> None:
    """A line for the person on stderr, unless `--quiet` was asked for."""
    if not console.quiet:
        console.write_err(clean(text) + "\n")


def error(console: Console, err: RebyteError | Interrupted, *, as_json: bool = False) -> None:
    """Tell an error on stderr: one JSON object on one line, or `Error:` and `Hint:` lines.

    What is buffered for stdout goes out first, so that both read in order on one terminal.
    Nothing is said when stdout's reader went away.
    """
    if isinstance(err, ReaderGone):
        return
    console.flush_out()
    subject = err.subject if isinstance(err, APIError) else None
    if isinstance(err, APIError) and subject and subject not in err.message:
        # "Task not found" does not say which.
        err = err.copy_with(message=f"{subject}: {err.message}")
    if as_json:
        from .formats import encode

        ascii_only = not spells_unicode(console.err)
        console.write_err(encode(err.as_dict(), ascii_only=ascii_only) + "\n")
        return
    text = _labelled(console, "Error: ", err.message, _RED)
    if isinstance(err, OutcomeUnknown):
        for candidate in err.candidates:
            words = [candidate.get(key) for key in ("id", "createdAt", "url")]
            text += "       " + "  ".join(one_line(str(word)) for word in words if word) + "\n"
    if err.hint:
        text += _labelled(console, "Hint: ", err.hint, _BOLD)
    console.write_err(text)


def _labelled(console: Console, label: str, text: str, color: str) -> str:
    """The text behind its label, further lines aligned under the first."""
    first, *rest = clean(text).rstrip("\n").split("\n")
    word = label.rstrip()
    shown = f"{color}{word}{_RESET} " if console.err_color else label
    lines = [shown + first, *((" " * len(label) + line).rstrip() for line in rest)]
    return "\n".join(lines) + "\n"


class Spinner:
    """What a `with spinner(...)` gives: `text` may be changed while it turns."""

    def __init__(self, console: Console, text: str, clock: Callable[[], float]) -> None:
        self.text = text
        self._frames = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏" if spells_unicode(console.err) else "|/-\\"
        self._ellipsis = "…" if spells_unicode(console.err) else "..."
        self._clock = clock
        self._begun = clock()

    def draw(self, width: int) -> str:
        """The line as it is now: a sign of life, the text, and the seconds once they count."""
        from .table import truncate

        seconds = self._clock() - self._begun
        frame = self._frames[int(seconds * 10) % len(self._frames)]
        after = f" ({_duration(seconds)})" if seconds >= 3 else ""
        return truncate(f"{frame} {one_line(self.text)}{after}", width, self._ellipsis)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"


@contextmanager
def spinner(
    console: Console,
    text: str,
    *,
    delay: float = _DELAY,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Spinner]:
    """Show that something goes on, from `delay` seconds after it began until the block ends.

    Nothing at all unless stderr is a terminal and `--quiet` was not asked for.
    """
    turning = Spinner(console, text, clock)
    if not console.live:
        yield turning
        return

    line = Line(console, turning.draw)
    line.start(delay, 0.1)
    try:
        yield turning
    finally:
        line.end()


@contextmanager
def waiting_line(
    console: Console, total: int, *, delay: float = _DELAY
) -> Iterator[Callable[[int, int], None]]:
    """A spinner for tasks that are waited for; gives `tell(ended, total)`."""
    with spinner(console, "", delay=delay) as turning:

        def tell(ended: int, all_of_them: int) -> None:
            if all_of_them == 1:
                turning.text = "waiting for the task to end"
            else:
                turning.text = f"waiting: {ended} of {all_of_them} tasks ended"

        tell(0, total)
        yield tell


class Bar:
    """What a `with bar(...)` gives: `done` of `total`; a total of None is not known."""

    def __init__(self, console: Console, text: str, total: float | None) -> None:
        self.text = text
        self.total = total
        self.done = 0.0
        self._lock = console.lock

    def advance(self, amount: float) -> None:
        """So much more is done. Any thread may say so."""
        with self._lock:
            self.done += amount

    def update(self, done: float, total: float | None = None) -> None:
        """So much is done altogether, of so much."""
        with self._lock:
            self.done = done
            self.total = self.total if total is None else total


@contextmanager
def bar(
    console: Console,
    text: str,
    total: float | None,
    *,
    size: bool = False,
    delay: float = _DELAY,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Bar]:
    """Show how far the work is: of `total` bytes when `size`, of `total` things otherwise.

    Nothing at all unless stderr is a terminal and `--quiet` was not asked for; only then is
    rich imported.
    """
    work = Bar(console, text, total)
    if not console.live:
        yield work
        return

    line = Line(console, _drawn_by_rich(console, work, size, clock))
    line.start(delay, 0.2)
    try:
        yield work
    finally:
        line.end()


def _drawn_by_rich(
    console: Console, work: Bar, size: bool, clock: Callable[[], float]
) -> Callable[[int], str]:
    """A function that draws the bar as it is now. rich lays it out; `Line` puts it in place."""
    import io

    begun = clock()
    made: list[Callable[[int], str]] = []

    def make() -> Callable[[int], str]:
        from rich.console import Console as RichConsole
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )

        from .table import truncate

        encoding = getattr(console.err, "encoding", None) or "utf-8"
        ellipsis = "…" if spells_unicode(console.err) else "..."
        drawn = RichConsole(
            file=io.TextIOWrapper(io.BytesIO(), encoding),
            force_terminal=True,
            color_system="standard" if console.err_color else None,
            legacy_windows=False,
            _environ={},
        )
        progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            DownloadColumn() if size else MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=drawn,
            get_time=lambda: clock() - begun,
        )
        task = progress.add_task("", total=work.total)

        def draw(width: int) -> str:
            drawn.width = width
            progress.update(
                task,
                description=truncate(one_line(work.text), max(width // 3, 8), ellipsis),
                completed=int(work.done),
                total=None if work.total is None else int(work.total),
            )
            with drawn.capture() as capture:
                drawn.print(progress.get_renderable(), end="", no_wrap=True)
            return capture.get().split("\n")[0].rstrip()

        return draw

    def draw(width: int) -> str:
        if not made:
            made.append(make())
        return made[0](width)

    return draw


# -- What a batch shows while it runs: a few lines redrawn on a terminal, or a line now and the

EVERY = 30.0  # seconds between plain lines


class Standing(NamedTuple):
    """Where a batch stands. `running` are names and ages (seconds) of tasks, oldest first;
    `sought` is the number of creates whose answers were lost.
    """

    total: int
    ended: int
    created: int
    failed: int
    running: list[tuple[str, float]]
    paused: bool
    sought: int = 0


@contextmanager
def shown(
    console: Console,
    standing: Callable[[], Standing],
    *,
    every: float = EVERY,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[None]:
    """Show what `standing` says until the block ends; it is asked from another thread.

    On a terminal a bar with counts, rate and time to the end, and a line per running task, as
    many as fit. Elsewhere a plain line every `every` seconds. Nothing with `--quiet`.
    """
    if console.quiet:
        yield
        return
    view = _View(standing, clock, unicode=spells_unicode(console.err))
    line: Line = _Region(console, view) if console.live else _Plain(console, view)
    line.start(0.3 if console.live else every, 0.2 if console.live else every)
    try:
        yield
    finally:
        line.end()


class _View:
    """The words for a standing. The rate counts what ended in this run."""

    def __init__(
        self, standing: Callable[[], Standing], clock: Callable[[], float], *, unicode: bool
    ) -> None:
        self._standing = standing
        self._clock = clock
        self._begun = clock()
        self._ended_before = standing().ended
        self._full, self._empty = ("━", "╌") if unicode else ("#", ".")
        self._ellipsis = "…" if unicode else "..."

    def summary(self, now: Standing) -> str:
        """Counts, rate, time to the end."""
        words = [f"{now.ended}/{now.total} ended"]
        if now.failed:
            words.append(f"{now.failed} failed")
        if now.running:
            words.append(f"{len(now.running)} running")
        if now.sought:
            words.append(f"{now.sought} looked for")
        if now.created < now.total:
            words.append(f"{now.total - now.created} to create")
        seconds = self._clock() - self._begun
        ended = now.ended - self._ended_before
        if now.paused:
            words.append("paused: no network")
        elif ended > 0 and seconds > 0:
            rate = ended / seconds
            words.append(f"{rate:.1f}/s" if rate >= 1 else f"{rate * 60:.1f}/min")
            if now.ended < now.total:
                words.append(f"about {span((now.total - now.ended) / rate)} left")
        return ", ".join(words)

    def lines(self, width: int, height: int) -> list[str]:
        """The bar, then running tasks, in at most `height` lines of `width` columns."""
        now = self._standing()
        cells = 24 if width >= 70 else 8
        done = cells * now.ended // max(now.total, 1)
        bar = self._full * done + self._empty * (cells - done)
        lines = [f"{bar} {self.summary(now)}"]
        room = max(height - 1, 0)
        tasks = now.running if len(now.running) <= room else now.running[: max(room - 1, 0)]
        lines += [f"  {span(age):>7}  {one_line(name)}" for name, age in tasks]
        if len(tasks) < len(now.running) and room:
            lines.append(f"  and {len(now.running) - len(tasks)} more")
        return [truncate(line, width, self._ellipsis) for line in lines]

    def plain(self) -> str:
        """One line for a log."""
        return self.summary(self._standing())


class _Region(Line):
    """Several lines at the bottom of the terminal instead of one."""

    def __init__(self, console: Console, view: _View) -> None:
        super().__init__(console, lambda _width: "")
        self._view = view
        self._height = 0

    def refresh(self) -> None:
        console = self._console
        columns, rows = _size(console)
        lines = self._view.lines(columns - 1, min(rows - 2, 12))
        with console.lock:
            if console.line is not self or console.mid_line or self._stop.is_set():
                return
            # In one piece: what is erased first and drawn later flickers.
            self._put(self._erasing() + "\n".join(lines))
            self._shown, self._height = True, len(lines)

    def erase(self) -> None:
        erasing = self._erasing()
        if erasing:
            self._shown = False
            self._put(erasing)

    def _erasing(self) -> str:
        """What takes the lines away: up to the first of them, then everything below."""
        if not self._shown:
            return ""
        up = f"\x1b[{self._height - 1}A" if self._height > 1 else ""
        return f"\r{up}\x1b[J"


class _Plain(Line):
    """A line in a log instead of one that is redrawn."""

    def __init__(self, console: Console, view: _View) -> None:
        super().__init__(console, lambda _width: "")
        self._view = view

    def refresh(self) -> None:
        note(self._console, self._view.plain())


def _size(console: Console) -> tuple[int, int]:
    try:
        size = os.get_terminal_size(console.err.fileno()) if console.err is not None else None
    except (OSError, ValueError):
        size = None
    return (size.columns or 80, size.lines or 24) if size is not None else (80, 24)


def span(seconds: float) -> str:
    """A length of time for people: `12s`, `3m 05s`, `2h 10m`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
