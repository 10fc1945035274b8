"""Signals that come to a batch in ways of their own."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

from .farm import Farm, lines_of
from .inside import inside
from .servers import Request


def test_a_signal_that_another_thread_takes_is_heard(home: Path) -> None:
    """Of two that come at one moment the system may hand both to a thread that only works."""
    (home / "t.txt").write_text("Task <run 4>\n")
    sent: list[str] = []

    def hook(request: Request) -> None:
        quiet = farm.at and time.monotonic() - farm.at[0] > 0.6  # nothing but looks at the task
        if quiet and not sent:
            sent.append(request.path)
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    with Farm(hook=hook) as farm:
        done = inside("batch", "t.txt", "--text", cwd=home, env=farm.env)
    assert sent
    assert done.status == 130
    assert [row["status"] for row in lines_of(done.out)] == ["running"]


def test_afterwards_signals_are_whose_they_were_before(home: Path) -> None:
    (home / "t.txt").write_text("Task\n")
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Farm() as farm:
        assert inside("batch", "t.txt", "--text", cwd=home, env=farm.env).status == 0
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
