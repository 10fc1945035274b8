"""What moves on stderr while a command works: a spinner, a progress bar, the board of a batch.

rich draws it in a region below everything else that is printed. It is imported when something is
drawn for the first time, so that a pipe, and whatever ends within `DELAY`, does without it.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Event, Thread, current_thread, main_thread
from typing import TYPE_CHECKING, NamedTuple

from ..system.durations import duration
from .console import Console, LiveRegion, ellipsis_for, one_line, spells_unicode
from .messages import note
from .table import truncate, width_of

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.console import RenderableType

    Draw = Callable[[int, int], RenderableType]  # columns and rows of the terminal

DELAY = 0.3  # seconds: what ends sooner draws nothing
ERASE_RIGHT = "\x1b[K"  # from the cursor to the end of its line
ERASE_BELOW = "\x1b[J"  # ... of the screen
LOG_INTERVAL = 30.0  # seconds between the lines of a batch that runs off a terminal
WAIT_INTERVAL = 60.0  # ... of any other wait
ROOM_ABOVE = 4  # rows of the terminal for what is printed above a board
SHORTEST_BAR, LONGEST_BAR = 6, 24  # cells, of a batch


class Region:
    """A region at the foot of the terminal that a thread redraws until `stop`.

    Whatever else is written erases the region first (see `Console.region`), and the next redraw
    puts it below. It never appears behind an unfinished line.

    The cursor stands where the region begins, so that its height need not be known: when a
    terminal gets narrower, some wrap the lines that are shown and some do not.
    """

    def __init__(self, console: Console, make: Callable[[], Draw], *, on_out: bool = False) -> None:
        """`make` is called once, when rich is needed; its result is called for each redraw.

        It is drawn on stderr, or on stdout if it is the data itself (`on_out`).
        """
        self._console = console
        self._make = make
        self._on_out = on_out
        self._draw: Draw | None = None
        self._rich: RichConsole | None = None
        self._is_drawn = False
        self._stopped = Event()
        self._thread: Thread | None = None
        self._outer: LiveRegion | None = None

    def start(self, delay: float, period: float) -> None:
        """Appear after `delay` seconds, then redraw every `period` seconds."""
        with self._console.lock:
            self._outer = self._console.region
            if self._outer is not None:
                self._outer.erase()
            self._console.region = self
        self._thread = _every(self.redraw, delay, period, self._stopped)

    def redraw(self) -> None:
        """Draw the region now, unless the cursor stands behind an unfinished line."""
        if self._rich is None:  # before the lock is taken: the import takes a while
            self._draw = self._make()
            self._rich = _rich_console(self._console, on_out=self._on_out)
        console = self._console
        with console.lock:
            if console.region is not self or console.mid_line or self._stopped.is_set():
                return
            if not (console.live or self._on_out):  # a reader of stdout has the terminal now
                return
            if console.in_background(on_out=self._on_out):  # the user may be typing a command
                return
            try:
                console.draw(self._drawn(self._rich), on_out=self._on_out)
                self._is_drawn = True
            except (OSError, ValueError):  # the terminal is gone; the work continues without it
                self._stopped.set()
                self._is_drawn = False

    def erase(self) -> None:
        """Take the region off the screen until the next redraw. The caller holds the lock."""
        if self._is_drawn:
            self._is_drawn = False
            with suppress(OSError, ValueError):
                self._console.draw(f"\r{ERASE_BELOW}", on_out=self._on_out)

    def stop(self) -> None:
        """Take the region off the screen for good."""
        self._stopped.set()
        with self._console.lock:
            self.erase()
            if self._console.region is self:
                self._console.region = self._outer
        if self._thread is not None and self._draw is not None:  # else it may be importing rich
            self._thread.join(1)

    def _drawn(self, rich: RichConsole) -> str:
        """The region as it is now, in place of what the terminal shows from the cursor on."""
        assert self._draw is not None
        columns, rows = self._console.size(on_out=self._on_out)
        rich.size = (columns - 1, rows)
        with rich.capture() as captured:
            rich.print(self._draw(*rich.size))
        lines = captured.get().removesuffix("\n").split("\n")[:rows]
        back = f"\r\x1b[{len(lines) - 1}A" if len(lines) > 1 else "\r"
        return "\r" + f"{ERASE_RIGHT}\n".join(lines) + ERASE_BELOW + back


def _every(action: Callable[[], None], delay: float, period: float, stopped: Event) -> Thread:
    """Run `action` in a thread after `delay` seconds, then every `period`, until `stopped`."""

    def run() -> None:
        pause = delay
        while not stopped.wait(pause):
            action()
            pause = period

    thread = Thread(target=run, daemon=True, name="progress")
    thread.start()
    return thread


@contextmanager
def _noted(console: Console, line: Callable[[], str], interval: float) -> Iterator[None]:
    """Print a line every `interval` seconds while the block runs."""
    stopped = Event()
    _every(lambda: note(console, line()), interval, interval, stopped)
    try:
        yield
    finally:
        stopped.set()


def _rich_console(console: Console, *, on_out: bool = False) -> RichConsole:
    from rich.console import Console as RichConsole

    color = console.out_color if on_out else console.err_color
    return RichConsole(
        file=console.out if on_out else console.err,
        force_terminal=True,
        color_system="auto" if color else None,
        no_color=not color,
        markup=False,
        emoji=False,
        highlight=False,
    )


@contextmanager
def shown(
    console: Console,
    make: Callable[[], Draw],
    delay: float,
    period: float,
    *,
    on_out: bool = False,
) -> Iterator[Callable[[], None]]:
    """Show a `Region` until the block ends; Ctrl-Z takes it away and `fg` brings it back.

    Gives what draws it at once. Nothing is shown on an stderr that is not live.
    """
    region = Region(console, make, on_out=on_out)
    if not (console.live or on_out):
        yield region.redraw
        return
    restore = erase_on_suspend(console)
    region.start(delay, period)
    try:
        yield region.redraw
    finally:
        region.stop()
        restore()


def erase_on_suspend(console: Console) -> Callable[[], None]:
    """Erase the region before Ctrl-Z stops this process; returns what undoes the handler."""
    number = signal.SIGTSTP
    is_default = signal.getsignal(number) is signal.SIG_DFL
    if current_thread() is not main_thread() or not is_default:
        return lambda: None

    def suspend(_number: int, _frame: object) -> None:
        with console.lock:
            if console.region is not None:
                with suppress(RuntimeError):  # the signal came in the middle of a write
                    console.region.erase()
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)  # stops here, until SIGCONT
            signal.signal(number, suspend)

    def restore() -> None:
        signal.signal(number, signal.SIG_DFL)

    signal.signal(number, suspend)
    return restore


# Spinner


@contextmanager
def spinner(
    console: Console,
    text: str | Callable[[], str],
    *,
    delay: float = DELAY,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[None]:
    """Show that something is under way, from `delay` seconds on, until the block ends.

    A frame, the text, which is asked for each time if it may change, and the seconds from the third
    on. Shows nothing unless stderr is a terminal and `--quiet` was not given.
    """
    started, ellipsis = clock(), ellipsis_for(console.err)
    look = "dots" if spells_unicode(console.err) else "line"

    def make() -> Draw:
        from rich.spinner import Spinner
        from rich.text import Text

        frames = Spinner(look)

        def draw(columns: int, _rows: int) -> RenderableType:
            seconds = clock() - started
            said = text if isinstance(text, str) else text()
            after = f" ({duration(seconds)})" if seconds >= 3 else ""
            line = truncate(one_line(said) + after, max(columns - 2, 1), ellipsis)
            frames.update(text=Text(line))
            return frames.render(seconds)

        return draw

    with shown(console, make, delay, 0.1):
        yield


class WaitSpinner:
    """What `with wait_spinner(…)` gives: `tell(ended, total)`, `queued` and `doing`."""

    def __init__(self, total: int) -> None:
        self.text = ""  # of the spinner
        self._total = 0
        self._state = ""
        self._step = ""
        self(0, total)

    def __call__(self, ended: int, total: int) -> None:
        """Say how many of the tasks have ended."""
        self._state = f"{ended} of {total} tasks ended"
        self._total = total
        self.queued("")

    def queued(self, why: str) -> None:
        """Say why the one task that is waited for has not begun; "" when it has."""
        if self._total == 1:
            self._state = why
        self._show()

    def doing(self, _task_id: str, step: str) -> None:
        """Say what the one task that is waited for does."""
        self._step = step
        self._show()

    def _show(self) -> None:
        one = self._state or self._step or "Waiting for the task to end"
        self.text = one if self._total == 1 else f"Waiting: {self._state}"

    def line(self, seconds: float) -> str:
        """The same as a line of a log, after so many seconds."""
        one = self._state or self._step
        what = f": {one}" if one and self._total == 1 else f": {self._state}" * (self._total > 1)
        return f"Still waiting after {duration(seconds)}{what}"


@contextmanager
def wait_spinner(
    console: Console,
    total: int,
    *,
    delay: float = DELAY,
    interval: float = WAIT_INTERVAL,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[WaitSpinner]:
    """A spinner for tasks that are waited for; off a terminal, a line every `interval` seconds.

    A CI job that prints nothing for long is taken for one that hangs. Nothing with `--quiet`.
    """
    waiting = WaitSpinner(total)
    with spinner(console, lambda: waiting.text, delay=delay, clock=clock):
        if console.quiet or console.live:
            yield waiting
            return
        began = clock()
        with _noted(console, lambda: waiting.line(clock() - began), interval):
            yield waiting


# Progress bar


@contextmanager
def progress_bar(
    console: Console,
    text: str,
    total: int | None,
    *,
    delay: float = DELAY,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Callable[[int], None]]:
    """Show how many of `total` bytes (None: not known) are done, from `delay` seconds on.

    Gives a function that any thread may call with the number of bytes that have moved. Shows
    nothing unless stderr is a terminal and `--quiet` was not given.
    """
    started, done = clock(), 0

    def advance(count: int) -> None:
        nonlocal done
        with console.lock:
            done += count

    def make() -> Draw:
        from rich import progress as parts

        name = parts.TextColumn("{task.description}", markup=False)
        percent, size = parts.TaskProgressColumn(), parts.DownloadColumn()
        rich, ellipsis = _rich_console(console), ellipsis_for(console.err)

        def progress(*columns: parts.ProgressColumn) -> parts.Progress:
            made = parts.Progress(
                *columns, console=rich, get_time=lambda: clock() - started, auto_refresh=False
            )
            made.add_task("", total=total)
            return made

        wide = progress(name, parts.BarColumn(), percent, size, parts.TimeRemainingColumn())
        narrow = progress(name, percent)

        def draw(columns: int, _rows: int) -> RenderableType:
            fits = wide if columns >= 60 else narrow
            room = columns // 3 if fits is wide else columns - 6
            for each in (wide, narrow):  # both know the speed when the terminal is resized
                each.update(
                    each.task_ids[0],
                    description=truncate(one_line(text), max(room, 1), ellipsis),
                    completed=done,
                )
            return fits.get_renderable()

        return draw

    with shown(console, make, delay, 0.2):
        yield advance


# Boards


def bar_beside(done: int, total: int, width: int, words: str) -> RenderableType:
    """A bar of so many cells, and words behind it."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    line = Table.grid(padding=(0, 1, 0, 0))
    line.add_row(ProgressBar(max(total, 1), done, width=width), Text(words))
    return line


class BatchProgress(NamedTuple):
    """The progress of a batch.

    `oldest`: name, link and age (seconds) of the running tasks to show, oldest first. `sought`:
    how many creates lost their answer and are being searched for. `paused`: no network.
    `ended_here`: how many of those that ended were begun in this run, which tell how fast it is.
    `limited`: how many of those that run wait for a usage limit. `places`: how many run at each
    place, in words, if there are several.
    """

    total: int
    ended: int
    created: int
    failed: int
    running: int
    oldest: list[tuple[str, str, float]]
    paused: bool
    sought: int = 0
    ended_here: int = 0
    limited: int = 0
    places: Sequence[str] = ()


@contextmanager
def batch_board(
    console: Console,
    standing: Callable[[int], BatchProgress],
    *,
    delay: float = DELAY,
    interval: float = LOG_INTERVAL,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[None]:
    """Show what `standing` returns until the block ends; another thread calls it.

    Its argument is the number of running tasks that there is room for.

    On a terminal, from `delay` seconds on: a bar with counts, rate and time left, and a line for
    each running task, as many as fit. Elsewhere: a plain line every `interval` seconds. Nothing
    with `--quiet`.
    """
    if console.quiet:
        yield
        return
    started, ellipsis = clock(), ellipsis_for(console.err)

    def draw(columns: int, rows: int) -> RenderableType:
        """What a terminal of that size shows: the bar and the summary, the running tasks below."""
        from rich.console import Group
        from rich.text import Text

        left = max(rows - ROOM_ABOVE, 0)
        now = standing(left)
        room = max(columns - SHORTEST_BAR - 1, 1)
        summary = truncate(summary_of(now, clock() - started, room), room, ellipsis)
        cells = min(max(columns - len(summary) - 1, SHORTEST_BAR), LONGEST_BAR)
        head = bar_beside(now.ended, now.total, cells, summary)
        return Group(head, *map(Text, lines_of_tasks(now, left, columns, ellipsis)))

    if console.live:
        with shown(console, lambda: draw, delay, 0.2):
            yield
        return
    with _noted(console, lambda: summary_of(standing(0), clock() - started), interval):
        yield


def summary_of(now: BatchProgress, seconds: float, room: int | None = None) -> str:
    """Counts, rate and time left in one line, without what matters least if it is too long.

    The board has been there for so many seconds.
    """
    words = _words(now, seconds)
    by_weight = ["ended", "paused", "left", "failed", "running", "places", "limited", "sought",
                 "new", "rate"]  # fmt: skip
    names = [name for name in by_weight if words.get(name)]
    while True:
        line = ", ".join(word for name, word in words.items() if word and name in names)
        if room is None or len(line) <= room or len(names) == 1:
            return line
        names.pop()


def _words(now: BatchProgress, seconds: float) -> dict[str, str]:
    """What the summary may say, in the order in which it says it; empty if it does not hold.

    The rate is that of lines begun in this run. Tasks of an earlier run may have ended in the
    meantime, all of them before the first look.
    """
    rate = now.ended_here / seconds if seconds > 0 and not now.paused else 0
    speed = f"{rate:.1f}/s" if rate >= 1 else f"{rate * 60:.1f}/min"
    to_create, to_end = now.total - now.created, now.total - now.ended
    return {
        "ended": f"{now.ended}/{now.total} ended",
        "failed": f"{now.failed} failed" if now.failed else "",
        "running": f"{now.running} running" if now.running else "",
        "places": f"at {'; '.join(now.places)}" if now.places else "",
        "limited": f"{now.limited} limited" if now.limited else "",
        "sought": f"{now.sought} being searched for" if now.sought else "",
        "new": f"{to_create} to create" if to_create else "",
        "paused": "paused: no network" if now.paused else "",
        "rate": speed if rate else "",
        "left": f"about {duration(to_end / rate)} left" if rate and to_end else "",
    }


def lines_of_tasks(now: BatchProgress, rows: int, columns: int, ellipsis: str) -> list[str]:
    """A line for each running task in at most `rows` lines, with its link if that fits."""
    shown = now.oldest[:rows] if now.running <= rows else now.oldest[: max(rows - 1, 0)]
    lines = []
    for name, link, age in shown:
        line, end = f"  {duration(age):>7}  {one_line(name)}", f"  {one_line(link)}"
        fits = width_of(line) + width_of(end) <= columns
        lines.append(truncate(line + end if fits else line, columns, ellipsis))
    if len(shown) < now.running and rows > 0:
        lines.append(f"  and {now.running - len(shown)} more")
    return lines
