"""What is said on stderr: notes, errors, and signs of life while one waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import OutcomeUnknown, ReaderGone, RebyteError
from .terminal import Screen, clean, one_line, spells_unicode

_RED, _BOLD, _RESET = "\x1b[1;31m", "\x1b[1m", "\x1b[0m"
# Nothing moves for what is over in a moment.
_DELAY = 0.3


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
    subject = getattr(err, "subject", None)
    if subject and subject not in err.message:  # "Task not found" does not say which
        err.message = f"{subject}: {err.message}"
    if as_json:
        from .formats import encode

        ascii_only = not spells_unicode(screen.err)
        screen.write_err(encode(err.as_dict(), ascii_only=ascii_only) + "\n")
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
    first, *rest = clean(text).rstrip("\n").split("\n")
    word = label.rstrip()
    shown = f"{color}{word}{_RESET} " if screen.err_color else label
    lines = [shown + first, *((" " * len(label) + line).rstrip() for line in rest)]
    return "\n".join(lines) + "\n"


class Spinner:
    """What a `with spinner(...)` gives: `text` may be changed while it turns."""

    def __init__(self, screen: Screen, text: str, clock: Callable[[], float]) -> None:
        self.text = text
        self._frames = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏" if spells_unicode(screen.err) else "|/-\\"
        self._ellipsis = "…" if spells_unicode(screen.err) else "..."
        self._clock = clock
        self._begun = clock()

    def draw(self, width: int) -> str:
        """The line as it is now: a sign of life, the text, and the seconds once they count."""
        from .table import cut

        seconds = self._clock() - self._begun
        frame = self._frames[int(seconds * 10) % len(self._frames)]
        after = f" ({_duration(seconds)})" if seconds >= 3 else ""
        return cut(f"{frame} {one_line(self.text)}{after}", width, self._ellipsis)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"


@contextmanager
def spinner(
    screen: Screen, text: str, *, delay: float = _DELAY, clock: Callable[[], float] = time.monotonic
) -> Iterator[Spinner]:
    """Show that something goes on, from `delay` seconds after it began until the block ends.

    Nothing at all unless stderr is a terminal and `--quiet` was not asked for.
    """
    turning = Spinner(screen, text, clock)
    if not screen.live:
        yield turning
        return
    from .live import Line

    line = Line(screen, turning.draw)
    line.start(delay, 0.1)
    try:
        yield turning
    finally:
        line.end()


@contextmanager
def waiting_line(
    screen: Screen, total: int, *, delay: float = _DELAY
) -> Iterator[Callable[[int, int], None]]:
    """A spinner for tasks that are waited for; gives `tell(ended, total)`."""
    with spinner(screen, "", delay=delay) as turning:

        def tell(ended: int, all_of_them: int) -> None:
            if all_of_them == 1:
                turning.text = "waiting for the task to end"
            else:
                turning.text = f"waiting: {ended} of {all_of_them} tasks ended"

        tell(0, total)
        yield tell


class Bar:
    """What a `with bar(...)` gives: `done` of `total`; a total of None is not known."""

    def __init__(self, screen: Screen, text: str, total: float | None) -> None:
        self.text = text
        self.total = total
        self.done = 0.0
        self._lock = screen.lock

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
    screen: Screen,
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
    work = Bar(screen, text, total)
    if not screen.live:
        yield work
        return
    from .live import Line

    line = Line(screen, _drawn_by_rich(screen, work, size, clock))
    line.start(delay, 0.2)
    try:
        yield work
    finally:
        line.end()


def _drawn_by_rich(
    screen: Screen, work: Bar, size: bool, clock: Callable[[], float]
) -> Callable[[int], str]:
    """A function that draws the bar as it is now. rich lays it out; `Line` puts it in place."""
    import io

    begun = clock()
    made: list[Callable[[int], str]] = []

    def make() -> Callable[[int], str]:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )

        from .table import cut

        encoding = getattr(screen.err, "encoding", None) or "utf-8"
        ellipsis = "…" if spells_unicode(screen.err) else "..."
        console = Console(
            file=io.TextIOWrapper(io.BytesIO(), encoding),
            force_terminal=True,
            color_system="standard" if screen.err_color else None,
            legacy_windows=False,
            _environ={},
        )
        progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            DownloadColumn() if size else MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            get_time=lambda: clock() - begun,
        )
        task = progress.add_task("", total=work.total)

        def draw(width: int) -> str:
            console.width = width
            progress.update(
                task,
                description=cut(one_line(work.text), max(width // 3, 8), ellipsis),
                completed=int(work.done),
                total=None if work.total is None else int(work.total),
            )
            with console.capture() as capture:
                console.print(progress.get_renderable(), end="", no_wrap=True)
            return capture.get().split("\n")[0].rstrip()

        return draw

    def draw(width: int) -> str:
        if not made:
            made.append(make())
        return made[0](width)

    return draw
