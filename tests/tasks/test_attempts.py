"""Creating several tasks at the same time: what is told when something ends that early."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import pytest

from rebyte_cli.errors import Interrupted
from rebyte_cli.tasks.attempts import create_all


def test_an_attempt_that_never_began_is_not_in_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interrupt comes while the third thread starts."""
    start, started = threading.Thread.start, list[threading.Thread]()

    def start_until_interrupted(thread: threading.Thread) -> None:
        if len(started) == 2:
            raise KeyboardInterrupt
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_until_interrupted)
    monkeypatch.setattr("rebyte_cli.tasks.attempts.GRACE", 0.2)
    with pytest.raises(Interrupted) as stop:
        create_all(lambda at: {"id": f"t{at}"}, 9, lambda _at, _task: None)
    assert str(stop.value.hint).splitlines()[1:] == [
        "The outcome of 1 create is unknown; see `rebyte list`"
    ]


def test_every_task_is_told_before_an_unexpected_exception() -> None:
    told: list[str] = []
    has_failed = threading.Event()

    def create(at: int) -> Mapping[str, Any]:
        if at == 0:
            has_failed.set()
            raise ZeroDivisionError
        assert has_failed.wait(10)
        return {"id": f"t{at}"}

    with pytest.raises(ZeroDivisionError):
        create_all(create, 3, lambda _at, task: told.append(task["id"]))
    assert sorted(told) == ["t1", "t2"]
