"""What a batch shows while it runs: a few lines redrawn on a terminal, or a line now and then."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from .live import Line
from .progress import note
from .table import cut
from .terminal import Screen, one_line, spells_unicode

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
    screen: Screen,
    standing: Callable[[], Standing],
    *,
    every: float = EVERY,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[None]:
    """Show what `standing` says until the block ends; it is asked from another thread.

    On a terminal a bar with counts, rate and time to the end, and a line per running task, as
    many as fit. Elsewhere a plain line every `every` seconds. Nothing with `--quiet`.
    """
    if screen.quiet:
        yield
        return
    view = _View(standing, clock, unicode=spells_unicode(screen.err))
    line: Line = _Region(screen, view) if screen.live else _Plain(screen, view)
    line.start(0.3 if screen.live else every, 0.2 if screen.live else every)
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
        return [cut(line, width, self._ellipsis) for line in lines]

    def plain(self) -> str:
        """One line for a log."""
        return self.summary(self._standing())


class _Region(Line):
    """Several lines at the bottom of the terminal instead of one."""

    def __init__(self, screen: Screen, view: _View) -> None:
        super().__init__(screen, lambda _width: "")
        self._view = view
        self._height = 0

    def refresh(self) -> None:
        screen = self._screen
        columns, rows = _size(screen)
        lines = self._view.lines(columns - 1, min(rows - 2, 12))
        with screen.lock:
            if screen.line is not self or screen.mid_line or self._stop.is_set():
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

    def __init__(self, screen: Screen, view: _View) -> None:
        super().__init__(screen, lambda _width: "")
        self._view = view

    def refresh(self) -> None:
        note(self._screen, self._view.plain())


def _size(screen: Screen) -> tuple[int, int]:
    try:
        size = os.get_terminal_size(screen.err.fileno()) if screen.err is not None else None
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
