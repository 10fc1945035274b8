"""Sharing the folder of a workspace: any number of visitors look at it, or one makes it safe alone.

A program of the agent's, which git in the visitor's jail may start, could undo what is made safe.
The kernel frees both locks when their process dies. One that has to be alone takes the turn, so
that no visitor comes in, and waits for those inside, who see that and leave.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from ....system.locks import flock, unlock
from ....system.process_group import ProcessGroup

VISITORS = "visitors"  # the file whose lock they share; that of the folder is the turn
# How long a visitor whom another waits for may take to end.
PATIENCE_SECONDS = 10.0
LOOK_SECONDS = 0.1


@contextmanager
def alone(folder: Path, waits: Callable[[], object] | None) -> Iterator[None]:
    """Have the folder to oneself. `waits` is called if there are visitors, before they are waited
    for. Without it, BlockingIOError says that another is there. Raises OSError, for example when
    the folder is missing.
    """
    turn, visitors = _opened(folder)
    try:
        flock(turn, wait=waits is not None)
        try:
            flock(visitors, wait=False)
        except BlockingIOError:
            if waits is None:
                raise
            waits()
            flock(visitors)
        yield
    finally:
        os.close(visitors)
        os.close(turn)


class Visit:
    """A share of the folder, to the end of the `with` block. Waits while someone is alone there."""

    def __init__(self, folder: Path) -> None:
        """Come in. Raises OSError, for example when the folder is missing."""
        self._turn, self._visitors = _opened(folder)
        self._over = Event()
        self.why_ended = ""
        flock(self._turn, shared=True)
        flock(self._visitors, shared=True)
        unlock(self._turn)

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self._visitors)
        os.close(self._turn)

    @contextmanager
    def by(self, group: ProcessGroup, problem: Callable[[], str]) -> Iterator[None]:
        """End `group` if it is still there when another has waited for PATIENCE_SECONDS, or when
        `problem` tells one.

        That happens on a thread: this one may be writing to a pager. Then `why_ended` says why.
        """
        watch = Thread(target=self._watch, args=(group, problem), daemon=True)
        watch.start()
        try:
            yield
        finally:
            self._over.set()
            watch.join()

    def _watch(self, group: ProcessGroup, problem: Callable[[], str]) -> None:
        waits_since = None
        while not self._over.wait(LOOK_SECONDS):
            self.why_ended = problem()
            try:
                flock(self._turn, shared=True, wait=False)
            except BlockingIOError:
                waits_since = waits_since or time.monotonic()
                if time.monotonic() >= waits_since + PATIENCE_SECONDS:
                    self.why_ended = "the folder is needed by another command or a run"
            else:
                unlock(self._turn)
                waits_since = None
            if self.why_ended:
                group.end()
                unlock(self._visitors)
                return


def _opened(folder: Path) -> tuple[int, int]:
    """Descriptors for the turn and for the visitors' lock."""
    turn = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        return turn, os.open(VISITORS, flags, 0o600, dir_fd=turn)
    except BaseException:
        os.close(turn)
        raise
