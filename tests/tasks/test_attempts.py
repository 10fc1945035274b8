"""Creating several tasks at the same time: what is told when something ends that early."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from rebyte_cli.tasks.attempts import ParallelCreates
from tests.waiting import with_time


def attempts_of(
    create: Callable[[int], Mapping[str, Any]], count: int, told: list[str] | None = None
) -> ParallelCreates:
    told = [] if told is None else told
    return ParallelCreates(
        create,
        count,
        created=lambda _at, task: told.append(task["id"]),
        refused=lambda _at, error: told.append(error.message),
    )


def test_an_attempt_that_never_began_is_not_in_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interrupt comes while the third thread starts."""
    start = threading.Thread.start

    def check(limit: float) -> None:
        started: list[threading.Thread] = []

        def start_until_interrupted(thread: threading.Thread) -> None:
            if len(started) == 2:
                raise KeyboardInterrupt
            started.append(thread)
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", start_until_interrupted)
        attempts = attempts_of(lambda at: {"id": f"t{at}"}, 9)
        with pytest.raises(KeyboardInterrupt) as stop:
            attempts.start()
        _, *hints = str(attempts.interrupted(stop.value, grace=limit).hint).splitlines()
        assert hints == ["The outcome of 1 create is unknown; see `rebyte list`"]

    with_time(check, 0.2)


def test_every_task_is_told_before_an_unexpected_exception() -> None:
    told: list[str] = []
    has_failed = threading.Event()

    def create(at: int) -> Mapping[str, Any]:
        if at == 0:
            has_failed.set()
            raise ZeroDivisionError
        assert has_failed.wait(60)
        return {"id": f"t{at}"}

    attempts = attempts_of(create, 3, told)
    attempts.start()
    while attempts.join(block=True):
        pass
    assert sorted(told) == ["t1", "t2"]
    with pytest.raises(ZeroDivisionError):
        attempts.raise_fault()
