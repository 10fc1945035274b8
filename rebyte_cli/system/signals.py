"""Handlers of signals: for the time of a block, and for a command that serves requests.

In most commands a signal raises, wherever the program is. A second signal would then hit a server
in the middle of its clean-up, and leave locks taken and connections open. `StopSignal` only asks
the main thread to end.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any, Self

from ..errors import Interrupted

CLEAN_UP_SECONDS = 10.0  # for the whole clean-up; then the process ends as it is
AGAIN_SECONDS = 0.02
REPEATED_SECONDS = 1.0  # a signal this soon after the first only repeats it


def heeded(numbers: Iterable[signal.Signals]) -> list[signal.Signals]:
    """Those of the signals that are not ignored.

    Such a one stays so, as POSIX has it: a script ignores Ctrl-C for what it starts with `&`.
    """
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


@contextmanager
def handled(handlers: Mapping[signal.Signals, Any]) -> Iterator[None]:
    """Other handlers, as `signal.signal` takes them, while the block runs. For the main thread.

    A signal that is ignored stays so.
    """
    before = {number: signal.signal(number, handlers[number]) for number in heeded(handlers)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def raising() -> Iterator[None]:
    """Make SIGTERM raise in the block, as SIGINT does, so that `finally` blocks run.

    In a callback, such as one for an object that is gone, Python prints what is raised and
    forgets it. Then the signal is made to arrive once more. For the main thread only.
    """

    def terminated(_number: int, _frame: FrameType | None) -> None:
        raise Interrupted(143)

    def forgotten(lost: Any) -> None:
        if issubclass(lost.exc_type, (Interrupted, KeyboardInterrupt)):
            from threading import Thread, get_ident

            number = Interrupted.of(lost.exc_value).exit_status - 128
            # Not here: this is such a callback, too.
            Thread(target=_send_after, args=[forgotten.__code__, get_ident(), number]).start()
        else:
            before(lost)

    before = sys.unraisablehook
    sys.unraisablehook = forgotten
    try:
        with handled({signal.SIGTERM: terminated}):
            yield
    finally:
        sys.unraisablehook = before


def _send_after(function: CodeType, thread: int, number: int) -> None:
    """Send a signal to a thread, which may be waiting, as soon as it has left a function."""
    is_there = True
    while is_there:
        time.sleep(AGAIN_SECONDS)
        frame = sys._current_frames().get(thread)
        while frame is not None and frame.f_code is not function:
            frame = frame.f_back
        is_there = frame is not None
    signal.pthread_kill(thread, number)


class StopSignal:
    """From `with` on, SIGINT and SIGTERM set `requested` and call `wake`, once, unless ignored.

    `wake` runs in the main thread between two instructions, so it must take no lock. A later
    signal, or a clean-up that takes too long, calls `force` and ends the process at once. After a
    signal the process is expected to end: the handlers stay. For the main thread only.
    """

    def __init__(
        self, wake: Callable[[], None] = lambda: None, force: Callable[[], None] = lambda: None
    ) -> None:
        import socket  # every command imports this module, and few serve

        self._wake = wake
        self._force = force
        self._status = 0
        self._at = 0.0
        self._previous: dict[signal.Signals, object] = {}
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)

    @property
    def requested(self) -> bool:
        """Whether a signal has arrived."""
        return self._status != 0

    def wait(self) -> None:
        """Block until a signal arrives."""
        while not self.requested:
            self._reader.recv(1)

    def raise_if_requested(self) -> None:
        """Raise Interrupted with the status of the signal, if one has arrived."""
        if self._status:
            raise Interrupted(self._status)

    def __enter__(self) -> Self:
        for number in heeded((signal.SIGINT, signal.SIGTERM)):
            self._previous[number] = signal.signal(number, self._arrived)
        # Written to at the signal itself: one that comes just before `recv` would not end that.
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        if self._status:
            return
        signal.set_wakeup_fd(-1)
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal() returned
        self._reader.close()
        self._writer.close()

    def _arrived(self, number: int, _frame: FrameType | None) -> None:
        if self._status:
            if time.monotonic() - self._at > REPEATED_SECONDS:
                self._end()
            return
        self._status, self._at = 128 + number, time.monotonic()
        signal.signal(signal.SIGALRM, lambda *_: self._end())
        signal.setitimer(signal.ITIMER_REAL, CLEAN_UP_SECONDS)
        self._wake()

    def _end(self) -> None:
        self._force()
        os._exit(self._status)
